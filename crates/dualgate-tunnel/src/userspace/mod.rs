//! WireGuard in this process: one thread that moves packets between the tunnel's interface and its UDP sockets.
//!
//! The protocol (handshakes, sessions, replay, cookies, timers) is gotatun's [`gotatun::noise::Tunn`], which neither reads nor
//! writes; what is here is which peer a packet belongs to, and how to move many at once. A frame of up to 64 KiB comes from
//! the interface, is cut, encrypted and sent in one call; datagrams that came in one call are decrypted, merged, and given
//! to the interface as one frame. One thread, because packets must stay in order and batches are what saves time.

mod allowed;
mod checksum;
mod control;
mod inner;
mod ip;
mod merge;
mod offload;
mod option;
mod outer;
mod peer;
#[cfg(test)]
mod sample;
mod split;
mod unreachable;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use dualgate_core::model::PublicKey;
use rustix::event::{EventfdFlags, eventfd};

use crate::{Backend, Config, Peer, PeerStatus, TunnelError};
use inner::Inner;
pub use inner::MACS;
use outer::Outer;
use worker::Worker;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// How many questions may wait.
const WAITING: usize = 16;

/// The thread with its engine. Dropped, it ends and takes the interface along.
#[derive(Debug)]
pub struct Userspace {
    jobs: Option<SyncSender<Job>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<OnceLock<String>>,
    port: u16,
}

impl Userspace {
    /// Makes the interface in this thread's network and starts.
    pub fn start(backend: Backend, config: &Config) -> Result<Self, TunnelError> {
        let outer = Outer::bind(config.listen_port.unwrap_or(0));
        let outer = outer.map_err(|source| TunnelError::Listen { port: config.listen_port.unwrap_or(0), source })?;
        let port = outer.port();
        let inner = match backend {
            Backend::Packet => Inner::cable(&config.interface, config.mtu),
            Backend::Tun | Backend::Kernel => Inner::tun(&config.interface, config.mtu),
        };
        let failed = |source| TunnelError::Interface { name: config.interface.clone(), source };
        let inner = inner.map_err(failed)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| failed(e.into()))?);
        let (jobs, waiting) = sync_channel(WAITING);
        let mut worker = Worker::new(config, inner, outer)?;
        let failure = Arc::new(OnceLock::new());
        let (told, woken) = (failure.clone(), wake.clone());
        let run = move || {
            if let Err(error) = worker.run(&waiting, &woken) {
                // Only this thread sets it.
                let _ = told.set(error.to_string());
                tracing::error!(%error, "the tunnel's interface is gone");
            }
        };
        let thread = std::thread::Builder::new().name("tunnel".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { jobs: Some(jobs), wake, thread: Some(thread), failure, port })
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
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

    /// Runs a job on the thread, between two batches.
    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> T + Send + 'static) -> Result<T, TunnelError> {
        let stopped = || TunnelError::Stopped(self.failure.get().cloned().unwrap_or_else(|| "it ended".to_owned()));
        let (answer, answered) = sync_channel(1);
        let job: Job = Box::new(move |worker: &mut Worker| {
            // Whoever asked waits for it.
            let _ = answer.send(job(worker));
        });
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(stopped)?;
        self.wake();
        answered.recv().map_err(|_| stopped())
    }

    fn wake(&self) {
        // A counter that is full has woken it already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.jobs = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was printed.
            let _ = thread.join();
        }
    }
}
