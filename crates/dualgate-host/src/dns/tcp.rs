//! Questions by TCP (RFC 7766): many on a connection, each answered as soon as its answer is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::machine::dns::{Transport, Verdict};
use dualgate_core::plan::dns::View;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::counters::Counters;
use super::{Common, Waiting, Way};

/// A connection without a question for so long ends (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long somebody may take to read an answer.
const UNREAD: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS: usize = 512;
/// Of one asker: an IPv4 address, or a /56 of IPv6.
const OF_ONE: usize = 16;
/// Questions of a connection whose answers are not written yet.
const WAITING: usize = 32;

/// Who is connected.
pub(super) struct Connections {
    common: Arc<Common>,
    counters: Arc<Counters>,
    open: RefCell<BTreeMap<IpAddr, usize>>,
}

impl Connections {
    /// Nobody is.
    pub fn new(common: Arc<Common>, counters: Arc<Counters>) -> Rc<Self> {
        Rc::new(Self { common, counters, open: RefCell::default() })
    }

    /// Accepts for as long as it is not aborted.
    pub async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                // Without descriptors there is nothing to do but wait.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            match self.admit(from.ip()) {
                Some(place) => drop(tokio::task::spawn_local(place.serve(stream, from))),
                None => self.counters.refused_connections.add(1),
            }
        }
    }

    fn admit(self: &Rc<Self>, from: IpAddr) -> Option<Place> {
        let from = network(from, self.common.responder.load().view());
        let mut open = self.open.borrow_mut();
        if open.values().sum::<usize>() >= CONNECTIONS || open.get(&from).is_some_and(|count| *count >= OF_ONE) {
            return None;
        }
        *open.entry(from).or_default() += 1;
        Some(Place { connections: self.clone(), from })
    }
}

/// Whom an address belongs to: on the Internet a customer has a network, at home a device has an address.
fn network(address: IpAddr, view: View) -> IpAddr {
    match (address, view) {
        (IpAddr::V4(_), _) | (_, View::Home) => address,
        (IpAddr::V6(address), View::Public) => Ipv6Addr::from_bits(address.to_bits() >> 72 << 72).into(),
    }
}

/// A connection's place among the others.
struct Place {
    connections: Rc<Connections>,
    from: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.from);
            }
        }
    }
}

impl Place {
    async fn serve(self, stream: TcpStream, from: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let (mut reading, writing) = stream.into_split();
        // There is room for as many as may wait: each has its permit until it is written.
        let (answers, told) = mpsc::channel(WAITING);
        tokio::task::spawn_local(tell(told, writing));
        let waiting = Arc::new(Semaphore::new(WAITING));
        while let Ok(Ok(question)) = timeout(IDLE, message(&mut reading)).await {
            let Ok(permit) = waiting.clone().acquire_owned().await else { return };
            let Common { responder, secret, questions, .. } = &*self.connections.common;
            let counters = &self.connections.counters;
            let (began, mut answer) = (Instant::now(), Vec::new());
            let now = super::seconds();
            let verdict =
                responder.load().answer(&question, from.ip(), Transport::Tcp, &secret.load(), now, &mut answer);
            match verdict {
                Verdict::Answer { of, .. } => {
                    counters.answered(Transport::Tcp, of);
                    counters.took(began.elapsed(), 1);
                    if answers.send((answer, permit)).await.is_err() {
                        return;
                    }
                }
                Verdict::Silence => counters.silent.add(1),
                Verdict::Forward(question) => {
                    counters.forwarded.add(1);
                    let asker = Waiting { from, way: Way::Tcp(answers.clone(), permit) };
                    if questions.send((question, asker)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// An answer, and its share of what one connection may have us do.
pub(super) type Told = (Vec<u8>, OwnedSemaphorePermit);

/// Writes answers in the order in which they come.
async fn tell(mut answers: mpsc::Receiver<Told>, mut to: OwnedWriteHalf) {
    while let Some((answer, _permit)) = answers.recv().await {
        let Some(framed) = framed(&answer) else { continue };
        match timeout(UNREAD, to.write_all(&framed)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// A message with its length before it; `None` for one that is too long.
pub(super) fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes()[..], message].concat())
}

/// The next message.
pub(super) async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u16().await?;
    let mut message = vec![0; length.into()];
    from.read_exact(&mut message).await?;
    Ok(message)
}
