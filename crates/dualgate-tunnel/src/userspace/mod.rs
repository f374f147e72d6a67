//! WireGuard in this process: one thread that moves packets between the tunnel's interface and its UDP sockets.
//!
//! The protocol (handshakes, sessions, replay, cookies, timers) is gotatun's [`gotatun::noise::Tunn`], which neither reads nor
//! writes; what is here is which peer a packet belongs to, and how to move many at once. A frame of up to 64 KiB comes from
//! the interface, is cut, encrypted and sent in one call; datagrams that came in one call are decrypted, merged, and given
//! to the interface as one frame. One thread, because packets must stay in order and batches are what saves time.

mod allowed;
pub(crate) mod checksum;
mod control;
mod inner;
mod ip;
mod merge;
mod offload;
pub(crate) mod option;
mod outer;
mod peer;
#[cfg(test)]
mod sample;
mod split;
mod uapi;
mod unreachable;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use dualgate_core::model::PublicKey;
use rustix::event::{EventfdFlags, eventfd};

use crate::{Backend, Config, Peer, PeerStatus, TunnelError};
use inner::Inner;
pub use inner::MACS;
use outer::Outer;
use uapi::Uapi;
use worker::Worker;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// How many questions may wait.
const WAITING: usize = 16;

/// The thread with its engine. Dropped, it ends and takes the interface along.
#[derive(Debug)]
pub struct Userspace {
    line: Option<Line>,
    uapi: Option<Uapi>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

/// Where to ask the thread.
#[derive(Clone, Debug)]
struct Line {
    jobs: SyncSender<Job>,
    wake: Arc<OwnedFd>,
    failure: Arc<OnceLock<String>>,
}

impl Userspace {
    /// Makes the interface in this thread's network and starts.
    pub fn start(backend: Backend, config: &Config) -> Result<Self, TunnelError> {
        let port = config.listen_port.unwrap_or(0);
        let outer = Outer::bind(port).map_err(|source| TunnelError::Listen { port, source })?;
        let port = outer.port();
        let failed = |source| TunnelError::Interface { name: config.interface.clone(), source };
        let inner = match backend {
            Backend::Packet => Inner::cable(&config.interface, config.mtu),
            Backend::Tun | Backend::Kernel => Inner::tun(&config.interface, config.mtu),
        };
        let mut worker = Worker::new(config, inner.map_err(failed)?, outer)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let (jobs, waiting) = sync_channel(WAITING);
        let line = Line { jobs, wake: Arc::new(wake), failure: Arc::new(OnceLock::new()) };
        let (failure, wake) = (line.failure.clone(), line.wake.clone());
        let run = move || {
            if let Err(error) = worker.run(&waiting, &wake) {
                tracing::error!(%error, "the tunnel's interface is gone");
                // Only this thread sets it.
                let _ = failure.set(error.to_string());
            }
        };
        let thread = std::thread::Builder::new().name("tunnel".to_owned()).spawn(run).map_err(failed)?;
        let asked = line.clone();
        let look = move || Some((port, asked.ask(|worker| worker.peers()).ok()?));
        let uapi = Uapi::listen(&config.interface, look);
        let uapi = uapi.inspect_err(|error| tracing::debug!(%error, "`wg show` will not show the tunnel")).ok();
        Ok(Self { line: Some(line), uapi, thread: Some(thread), port })
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where `wg show` asks, if it can.
    pub fn socket(&self) -> Option<&Path> {
        self.uapi.as_ref().map(Uapi::path)
    }

    /// Replaces the peers; one that stays keeps its session.
    pub fn configure(&self, peers: &[Peer]) -> Result<(), TunnelError> {
        let peers = peers.to_vec();
        self.ask(move |worker| worker.configure(&peers))?
    }

    /// Dials a peer at an address now.
    pub fn dial(&self, peer: PublicKey, address: SocketAddr) -> Result<(), TunnelError> {
        self.ask(move |worker| worker.dial(&peer, address))?
    }

    /// The peers as they are.
    pub fn peers(&self) -> Result<Vec<PeerStatus>, TunnelError> {
        self.ask(|worker| worker.peers())
    }

    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> T + Send + 'static) -> Result<T, TunnelError> {
        let line = self.line.as_ref().ok_or_else(|| TunnelError::Stopped("it was dropped".to_owned()))?;
        line.ask(job)
    }
}

impl Line {
    /// Runs a job on the thread, between two batches.
    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> T + Send + 'static) -> Result<T, TunnelError> {
        let stopped = || TunnelError::Stopped(self.failure.get().cloned().unwrap_or_else(|| "it ended".to_owned()));
        let (answer, answered) = sync_channel(1);
        let job: Job = Box::new(move |worker: &mut Worker| {
            // Whoever asked waits for it.
            let _ = answer.send(job(worker));
        });
        self.jobs.send(job).map_err(|_| stopped())?;
        wake(&self.wake);
        answered.recv().map_err(|_| stopped())
    }
}

fn wake(thread: &OwnedFd) {
    // A counter that is full has woken it already.
    let _ = rustix::io::write(thread, &1_u64.to_ne_bytes());
}

impl Drop for Userspace {
    fn drop(&mut self) {
        // First who asks, then who answers.
        self.uapi = None;
        if let Some(Line { jobs, wake: thread, .. }) = self.line.take() {
            drop(jobs);
            wake(&thread);
        }
        if let Some(thread) = self.thread.take() {
            // A panic was printed.
            let _ = thread.join();
        }
    }
}
