//! The data path's own thread: the kernel may take its time with rules and routes, heartbeats may not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dualgate_core::model::{Family, Finding, NodeName};
use dualgate_core::plan::tunnel::INTERFACE;
use dualgate_core::plan::virtual_ips::{DataPath as Path, Group, VirtualIpPlan};
use rustix::event::{EventfdFlags, eventfd};

use super::data_path::{DataPath, DataPathError, Kernel, Tunnelled, diff};
use super::trouble;

/// How often the kernel is looked at: others may have changed it.
const RESYNC: Duration = Duration::from_secs(5);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How soon it is looked whether a predecessor has let go of its rules.
const SUCCESSION: Duration = Duration::from_millis(10);

/// What the host is to do with packets, and what it does.
#[derive(Debug)]
pub struct Road {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when the kernel does something else than before.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    wanted: DataPath,
    /// Counts wishes.
    version: u64,
    /// The last one that was tried.
    done: u64,
    /// What is local by the kernel's own word.
    local: BTreeSet<IpAddr>,
    trouble: Option<String>,
    ends: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Road {
    /// Starts with nothing wanted, in the network of the calling thread; nothing is changed before something is.
    pub fn start() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), bell });
        let work = shared.clone();
        let thread = std::thread::Builder::new().name("data-path".to_owned()).spawn(move || keep(&work))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What is to be from now on.
    pub fn want(&self, wanted: DataPath) {
        let mut state = self.shared.lock();
        if state.wanted != wanted {
            (state.wanted, state.version) = (wanted, state.version + 1);
            self.shared.changed.notify_all();
        }
    }

    /// Whether the last wish was tried.
    pub fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.done == state.version
    }

    /// Waits until nothing of ours is left in the kernel, as far as it lets us.
    pub fn clear(&self) {
        self.want(DataPath::default());
        let state = self.shared.lock();
        let busy = |state: &mut State| state.done != state.version;
        drop(self.shared.changed.wait_timeout_while(state, RESYNC, busy));
    }

    /// To be waited for.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// Whether the kernel does something else than at the last call.
    pub fn rang(&self) -> bool {
        rustix::io::read(&self.shared.bell, &mut [0; 8]).is_ok()
    }

    /// What keeps packets to a group from being served here; nothing does if it is empty.
    pub fn why_not(&self, group: &Group) -> Option<String> {
        let state = self.shared.lock();
        let absent = || group.addresses.iter().find(|address| !state.local.contains(address));
        let trouble = |what: &str| match &state.trouble {
            Some(trouble) => format!("{what}: {trouble}"),
            None => what.to_owned(),
        };
        match group.path {
            Path::Local => absent().map(|address| trouble(&format!("packets to {address} are not taken here"))),
            Path::Tunnel => state.trouble.clone(),
            Path::Translated => None,
        }
    }

    /// What is wrong.
    pub fn trouble(&self) -> Option<Finding> {
        self.shared.lock().trouble.as_ref().map(trouble::road)
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

/// Makes the kernel do as wanted, again and again.
fn keep(shared: &Shared) {
    let mut kernel = None;
    let mut rest = RESYNC;
    loop {
        let (wanted, version) = {
            let rests = |state: &mut State| !state.ends && state.done == state.version;
            let state = shared.lock();
            let waited = shared.changed.wait_timeout_while(state, rest, rests);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ends && state.done == state.version {
                return;
            }
            if state.version == 0 {
                continue;
            }
            (state.wanted.clone(), state.version)
        };
        let round = converge(&mut kernel, &wanted);
        let mut state = shared.lock();
        let (local, trouble) = match round {
            Ok((local, None)) => {
                rest = RESYNC;
                (local, None)
            }
            Ok((local, Some(error))) => {
                rest = RESYNC;
                (local, Some(chain(&error)))
            }
            Err(error) => {
                rest = if matches!(error, DataPathError::Taken { .. }) { SUCCESSION } else { RETRY };
                // What was there is there still, as far as it is known.
                (state.local.clone(), Some(chain(&error)))
            }
        };
        if trouble != state.trouble
            && let Some(trouble) = &trouble
        {
            tracing::warn!("packets to virtual IPs: {trouble}");
        }
        let news = state.done != version || state.local != local || state.trouble != trouble;
        (state.done, state.local, state.trouble) = (version, local, trouble);
        if news {
            shared.changed.notify_all();
            // Its counter cannot overflow: it is read to zero at every ring.
            let _ = rustix::io::write(&shared.bell, &1_u64.to_ne_bytes());
        }
    }
}

/// What is local after a round, and what of it could not be done; an error if the kernel cannot be looked at.
type Round = Result<(BTreeSet<IpAddr>, Option<DataPathError>), DataPathError>;

/// One round. What cannot be done costs only itself.
fn converge(kernel: &mut Option<Kernel>, wanted: &DataPath) -> Round {
    let kernel = match kernel {
        Some(kernel) => kernel,
        None => kernel.insert(Kernel::open()?),
    };
    let observed = kernel.observe()?;
    let changes = diff(&observed, wanted);
    // Without a change, the host's settings are looked at all the same.
    let applied = kernel.apply(wanted, &changes);
    changes.iter().for_each(|change| tracing::debug!("{change}"));
    let local = if changes.is_empty() { observed.local } else { kernel.observe()?.local };
    Ok((local, applied.err()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What this node has to do with packets: `relays` are the addresses that came here by a planned move, `lans` the LAN's
/// interfaces with this node's addresses on them.
pub fn data_path(
    plan: &VirtualIpPlan,
    node: &NodeName,
    relays: &BTreeMap<IpAddr, NodeName>,
    lans: &[(String, Vec<IpAddr>)],
) -> DataPath {
    let addresses = |name: &NodeName| {
        let member = plan.members.iter().find(|member| member.name == *name);
        member.map(|member| member.addresses.as_slice()).unwrap_or_default()
    };
    let of = |name: &NodeName, family: Family| addresses(name).iter().copied().find(|own| Family::of(*own) == family);
    let mut path = DataPath::default();
    for group in &plan.groups {
        match group.path {
            Path::Local => path.local.extend(&group.addresses),
            Path::Tunnel => path.tunnelled.extend(group.addresses.iter().filter_map(|address| {
                let source = of(node, Family::of(*address))?;
                Some(Tunnelled { address: *address, interface: INTERFACE.to_owned(), source })
            })),
            // Nothing of ours takes them; but a kernel with IPVS must not answer for them either.
            Path::Translated => path.silent.extend(group.addresses.iter().filter_map(|address| v4(*address))),
        }
        let relayed = |address: &IpAddr| Some((*address, of(relays.get(address)?, Family::of(*address))?));
        path.relays.extend(group.addresses.iter().filter_map(relayed));
    }
    path.silent.extend(path.local.iter().filter_map(|address| v4(*address)));
    let own = |(name, own): &(String, Vec<IpAddr>)| Some((name.clone(), own.iter().copied().find_map(v4)?));
    path.own = lans.iter().filter_map(own).collect();
    path
}

fn v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use dualgate_core::plan::virtual_ips::{GroupId, Member, User};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn plan() -> VirtualIpPlan {
        let member = |name: &str, last: u8| Member {
            name: NodeName::new(name),
            addresses: vec![IpAddr::from([192, 168, 1, last]), ip(&format!("fd00::{last}"))],
        };
        let group = |addresses: &[&str], path| Group {
            id: GroupId(ip(addresses[0])),
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            users: vec![User::Edge(NodeName::new("edge"))],
            candidates: Vec::new(),
            path,
        };
        let groups = vec![
            group(&["192.168.1.10", "fd00::10"], Path::Local),
            group(&["192.168.1.11"], Path::Translated),
            group(&["192.168.1.201", "fd00::201"], Path::Tunnel),
        ];
        VirtualIpPlan { members: vec![member("one", 5), member("two", 6)], groups, ..VirtualIpPlan::default() }
    }

    #[test]
    fn only_what_is_served_here_is_local_and_the_kernel_is_silent_of_all_that_it_may_know() {
        let lans = [("eth0".to_owned(), vec![ip("fd00::5"), ip("192.168.1.5")])];
        let path = data_path(&plan(), &NodeName::new("one"), &BTreeMap::new(), &lans);
        assert_eq!(path.local, BTreeSet::from([ip("192.168.1.10"), ip("fd00::10")]));
        let silent: Vec<String> = path.silent.iter().map(ToString::to_string).collect();
        assert_eq!(silent, ["192.168.1.10", "192.168.1.11"]);
        assert_eq!(path.own, BTreeMap::from([("eth0".to_owned(), [192, 168, 1, 5].into())]));
        let tunnelled = |address: &str, source: &str| Tunnelled {
            address: ip(address),
            interface: INTERFACE.to_owned(),
            source: ip(source),
        };
        assert_eq!(path.tunnelled, [tunnelled("192.168.1.201", "192.168.1.5"), tunnelled("fd00::201", "fd00::5")]);
        assert!(path.relays.is_empty());
    }

    #[test]
    fn a_relay_leads_to_the_former_owners_address_of_the_same_family() {
        let two = || NodeName::new("two");
        let relays = BTreeMap::from([(ip("192.168.1.10"), two()), (ip("fd00::10"), two()), (ip("fd00::99"), two())]);
        let path = data_path(&plan(), &NodeName::new("one"), &relays, &[]);
        let expected = [("192.168.1.10", "192.168.1.6"), ("fd00::10", "fd00::6")];
        assert_eq!(path.relays, expected.map(|(address, to)| (ip(address), ip(to))).into());
    }
}
