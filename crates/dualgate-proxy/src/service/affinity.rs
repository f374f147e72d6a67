//! Which server a client is sent to where that must not change with every connection.
//!
//! The client's address and the servers' names decide (rendezvous hashing): without a word between them all workers and
//! nodes agree, and a server that comes or goes moves only the clients that it gets or had. A Service with
//! `sessionAffinity: ClientIP` wants more, that a client stays where it is though servers come: that is remembered here.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};

use crate::state::ServerState;

/// The most clients of one Service port that are remembered; those beyond are chosen for by their address alone.
const CLIENTS: usize = 65_536;
/// How often clients that stayed away are looked for while there is no place left.
const PURGE: Duration = Duration::from_secs(1);

/// The server for `client` that is well and not in `tried`; one that is not well where no other is left.
pub fn by_hash<'s>(
    servers: &'s [Arc<ServerState>],
    client: &[u8],
    now: Instant,
    tried: &[u64],
) -> Option<&'s Arc<ServerState>> {
    let untried = || servers.iter().filter(|server| !tried.contains(&server.uid));
    let weight = |server: &&Arc<ServerState>| weight(server.id.as_bytes(), client);
    untried().filter(|server| server.health.is_well(now)).max_by_key(weight).or_else(|| untried().max_by_key(weight))
}

/// How much a server is the one for a client: FNV-1a over both, then mixed so that every octet counts in every bit.
fn weight(server: &[u8], client: &[u8]) -> u64 {
    let octets = server.iter().chain(&[0]).chain(client);
    let hash = octets
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3));
    // The finaliser of SplitMix64.
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The clients of one Service port and their servers.
#[derive(Debug, Default)]
pub struct Affinity(Mutex<Clients>);

#[derive(Debug)]
struct Clients {
    servers: HashMap<IpAddr, Kept>,
    purged: Option<Instant>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { servers: HashMap::new(), purged: None }
    }
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    server: u64,
    used: Instant,
}

impl Affinity {
    /// The server that a client had, unless it has stayed away for longer than `limit`.
    pub fn server_of(&self, client: IpAddr, now: Instant, limit: Duration) -> Option<u64> {
        let kept = self.lock().servers.get(&client).copied()?;
        (now.saturating_duration_since(kept.used) < limit).then_some(kept.server)
    }

    /// A client was sent to a server.
    pub fn keep(&self, client: IpAddr, server: u64, now: Instant, limit: Duration) {
        let mut clients = self.lock();
        if clients.servers.len() >= CLIENTS && !clients.servers.contains_key(&client) {
            if clients.purged.is_some_and(|purged| now.saturating_duration_since(purged) < PURGE) {
                return;
            }
            clients.purged = Some(now);
            clients.servers.retain(|_, kept| now.saturating_duration_since(kept.used) < limit);
            if clients.servers.len() >= CLIENTS {
                return;
            }
        }
        clients.servers.insert(client, Kept { server, used: now });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_server_that_comes_takes_its_share_of_clients_and_moves_no_other() {
        let chosen = |servers: &[&str], client: u32| {
            let octets = client.to_be_bytes();
            servers.iter().max_by_key(|server| weight(server.as_bytes(), &octets)).map(|server| (*server).to_owned())
        };
        let (mut moved, mut counts) = (0, [0; 3]);
        for number in 0..9000 {
            let before = chosen(&["a-0", "a-1"], number);
            let after = chosen(&["a-0", "a-1", "a-2"], number);
            moved += u32::from(before != after);
            assert!(before == after || after.as_deref() == Some("a-2"));
            counts[usize::from(after.unwrap().as_bytes()[2] - b'0')] += 1;
        }
        assert!((2700..3300).contains(&moved), "{moved}");
        assert!(counts.iter().all(|count| (2700..3300).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_client_keeps_its_server_until_it_has_stayed_away_for_too_long() {
        let (affinity, limit) = (Affinity::default(), Duration::from_secs(60));
        let start = Instant::now();
        affinity.keep(client(1), 7, start, limit);
        assert_eq!(affinity.server_of(client(1), start + Duration::from_secs(59), limit), Some(7));
        assert_eq!(affinity.server_of(client(1), start + limit, limit), None);
        assert_eq!(affinity.server_of(client(2), start, limit), None);
    }

    #[test]
    fn there_are_never_more_clients_than_there_is_room_for_and_who_stays_away_makes_room() {
        let (affinity, limit) = (Affinity::default(), Duration::from_secs(60));
        let start = Instant::now();
        for number in 0..CLIENTS as u32 + 10 {
            affinity.keep(client(number), 1, start, limit);
        }
        assert_eq!(affinity.lock().servers.len(), CLIENTS);
        affinity.keep(client(1), 2, start + limit / 2, limit);
        affinity.keep(client(u32::MAX), 3, start + limit, limit);
        assert_eq!(affinity.lock().servers.len(), 2);
        assert_eq!(affinity.server_of(client(1), start + limit, limit), Some(2));
    }
}
