//! The flows of datagrams of one worker: bounded, and the least worth keeping goes first.
//!
//! A flow is one client at one address of a Service, with a socket of its own to one server. Its standing follows the
//! kernel's connection tracking (nf_conntrack_proto_udp.c): a single question and its answer are kept for 30 s, what goes on
//! for longer than two seconds in both directions for two minutes. Where there is no room, a flow that nobody answered goes
//! before one that was answered, and that before one that goes on; among equals the one that rested longest.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ForwardShared;
use crate::state::ServerState;
use crate::timer::Timer;

/// How long a flow may rest (nf_conntrack_udp_timeout).
pub const REST: Duration = Duration::from_secs(30);
/// The same of one that goes on (nf_conntrack_udp_timeout_stream).
const STREAM_REST: Duration = Duration::from_secs(120);
/// A flow that is answered after this goes on.
const STREAM_AFTER: Duration = Duration::from_secs(2);
/// How long an answer is waited for before a worker ends.
const ANSWER: Duration = Duration::from_secs(1);

/// What identifies a flow: our address and the client's.
pub type FlowKey = (SocketAddr, SocketAddr);

/// How much a flow is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Unanswered,
    Answered,
    Stream,
}

/// One client at one address of a Service.
#[derive(Debug)]
pub struct Flow {
    /// Which it is.
    pub key: FlowKey,
    /// Connected to the server: nobody else's datagrams come in.
    pub socket: UdpSocket,
    /// The server.
    pub server: Arc<ServerState>,
    /// The forward's counters.
    pub shared: Arc<ForwardShared>,
    /// It ends when this passes.
    pub timer: Timer,
    born: Instant,
    /// When the client asked what was not answered yet.
    asked: Cell<Option<Instant>>,
    standing: Cell<Standing>,
    /// The worker's count at the last datagram.
    touched: Cell<u64>,
    /// Where it stands in the order.
    rank: Cell<(Standing, u64)>,
    task: OnceCell<AbortHandle>,
}

impl Flow {
    /// A flow that begins.
    pub fn new(key: FlowKey, socket: UdpSocket, server: Arc<ServerState>, shared: Arc<ForwardShared>) -> Rc<Self> {
        shared.counters.connections.increment();
        shared.counters.active.increment();
        Rc::new(Self {
            key,
            socket,
            server,
            shared,
            timer: Timer::new(REST),
            born: Instant::now(),
            asked: Cell::new(None),
            standing: Cell::new(Standing::Unanswered),
            touched: Cell::new(0),
            rank: Cell::new((Standing::Unanswered, 0)),
            task: OnceCell::new(),
        })
    }

    fn awaits_answer(&self) -> bool {
        self.asked.get().is_some_and(|asked| asked.elapsed() < ANSWER)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.counters.active.decrement();
    }
}

/// The flows of one worker.
#[derive(Debug, Default)]
pub struct Flows {
    table: RefCell<HashMap<FlowKey, Rc<Flow>>>,
    /// The next to go is the first. Ranks are brought up to date when it is a flow's turn to go.
    order: RefCell<BTreeSet<(Standing, u64, FlowKey)>>,
    clock: Cell<u64>,
}

impl Flows {
    /// The flow of a client.
    pub fn get(&self, key: &FlowKey) -> Option<Rc<Flow>> {
        self.table.borrow().get(key).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.borrow().len()
    }

    /// Adds a flow, whose answers `task` hands on.
    pub fn add(&self, flow: &Rc<Flow>, task: AbortHandle) {
        // It has just begun: it has no task yet.
        let _ = flow.task.set(task);
        self.place(flow);
        self.table.borrow_mut().insert(flow.key, flow.clone());
    }

    /// The client sent something.
    pub fn asked(&self, flow: &Flow) {
        if flow.asked.get().is_none() {
            flow.asked.set(Some(Instant::now()));
        }
        self.touch(flow);
    }

    /// The server sent something.
    pub fn answered(&self, flow: &Flow) {
        flow.asked.set(None);
        if flow.standing.get() != Standing::Stream {
            if flow.born.elapsed() > STREAM_AFTER {
                flow.standing.set(Standing::Stream);
                flow.timer.set(STREAM_REST);
            } else {
                flow.standing.set(Standing::Answered);
            }
        }
        self.touch(flow);
    }

    /// Ends a flow.
    pub fn end(&self, flow: &Flow) {
        let known = self.table.borrow().get(&flow.key).is_some_and(|known| std::ptr::eq(&**known, flow));
        if !known {
            return;
        }
        let removed = self.table.borrow_mut().remove(&flow.key);
        let (standing, touched) = flow.rank.get();
        self.order.borrow_mut().remove(&(standing, touched, flow.key));
        if let Some(task) = flow.task.get() {
            task.abort();
        }
        drop(removed);
    }

    /// Ends the flow that is least worth keeping; `false` if there is none.
    pub fn evict(&self) -> bool {
        loop {
            let first = self.order.borrow().first().copied();
            let Some((standing, touched, key)) = first else { return false };
            let Some(flow) = self.get(&key) else {
                self.order.borrow_mut().remove(&(standing, touched, key));
                continue;
            };
            if (standing, touched) == (flow.standing.get(), flow.touched.get()) {
                flow.shared.counters.evicted.increment();
                self.end(&flow);
                return true;
            }
            self.order.borrow_mut().remove(&(standing, touched, key));
            self.place(&flow);
        }
    }

    /// Ends all flows at one of our addresses.
    pub fn end_at(&self, address: SocketAddr) {
        let flows: Vec<Rc<Flow>> = self.table.borrow().values().filter(|flow| flow.key.0 == address).cloned().collect();
        flows.iter().for_each(|flow| self.end(flow));
    }

    /// Whether somebody has asked and may still be answered.
    pub fn await_answers(&self) -> bool {
        self.table.borrow().values().any(|flow| flow.awaits_answer())
    }

    fn touch(&self, flow: &Flow) {
        self.clock.set(self.clock.get() + 1);
        flow.touched.set(self.clock.get());
        flow.timer.progress();
    }

    fn place(&self, flow: &Flow) {
        flow.rank.set((flow.standing.get(), flow.touched.get()));
        self.order.borrow_mut().insert((flow.standing.get(), flow.touched.get(), flow.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::server;

    async fn flow(flows: &Flows, client: u16) -> Rc<Flow> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let key = (([127, 0, 0, 1], 53).into(), ([127, 0, 0, 1], client).into());
        let flow = Flow::new(key, socket, server("a"), Arc::default());
        flows.add(&flow, tokio::spawn(async {}).abort_handle());
        flow
    }

    async fn rest(flow: &Flow) -> Duration {
        let start = Instant::now();
        let _ = flow.timer.limit(std::future::pending::<()>()).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_and_its_answer_rest_for_half_a_minute_and_what_goes_on_for_two() {
        let flows = Flows::default();
        let flow = flow(&flows, 1).await;
        flows.asked(&flow);
        assert_eq!(rest(&flow).await, Duration::from_secs(30));
        let flow = self::flow(&flows, 2).await;
        flows.asked(&flow);
        tokio::time::sleep(Duration::from_secs(1)).await;
        flows.answered(&flow);
        assert_eq!(rest(&flow).await, Duration::from_secs(30));
        let flow = self::flow(&flows, 3).await;
        for _ in 0..3 {
            flows.asked(&flow);
            tokio::time::sleep(Duration::from_secs(1)).await;
            flows.answered(&flow);
        }
        assert_eq!(rest(&flow).await, Duration::from_secs(120));
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_worth_keeping_goes_first_and_a_flow_that_ended_leaves_nothing() {
        let flows = Flows::default();
        let mut kept = Vec::new();
        for client in 1..=5 {
            kept.push(flow(&flows, client).await);
            flows.asked(&kept[kept.len() - 1]);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        // 1 goes on, 2 and 3 were answered (3 before 2), 4 asked once more, 5 has ended.
        kept[1].standing.set(Standing::Answered);
        kept[2].standing.set(Standing::Answered);
        flows.answered(&kept[0]);
        flows.asked(&kept[2]);
        flows.asked(&kept[1]);
        flows.asked(&kept[3]);
        flows.end(&kept[4]);
        let mut gone = Vec::new();
        while flows.len() > 0 {
            let before: Vec<u16> =
                kept.iter().filter(|f| flows.get(&f.key).is_some()).map(|f| f.key.1.port()).collect();
            assert!(flows.evict());
            gone.extend(
                before.into_iter().filter(|port| flows.get(&(kept[0].key.0, ([127, 0, 0, 1], *port).into())).is_none()),
            );
        }
        assert_eq!(gone, [4, 3, 2, 1]);
        assert!(!flows.evict() && flows.order.borrow().is_empty());
    }

    #[tokio::test]
    async fn an_answer_is_awaited_for_a_moment_and_all_flows_of_an_address_end_together() {
        let flows = Flows::default();
        let flow = flow(&flows, 1).await;
        assert!(!flows.await_answers());
        flows.asked(&flow);
        assert!(flows.await_answers());
        flows.answered(&flow);
        assert!(!flows.await_answers());
        flows.end_at(([127, 0, 0, 2], 53).into());
        assert_eq!(flows.len(), 1);
        flows.end_at(flow.key.0);
        assert_eq!((flows.len(), flows.order.borrow().len()), (0, 0));
    }
}
