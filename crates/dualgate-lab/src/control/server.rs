//! The lab's side: takes requests, asks the operator, answers.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::wire::{self, Said};
use super::{Operator, Refusal, Request};

/// Requests at the same time; more are refused.
const MAX_CONNECTIONS: usize = 16;
/// The longest request.
const MAX_REQUEST: usize = 4 << 10;
/// How long a client may take to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happened at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was done: the lab looks different.
    Changed,
    /// The lab is to end. The client waits until the [`Server`] is dropped.
    Down,
}

/// Listens until it is dropped.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    door: Arc<Door>,
}

impl Server {
    /// Starts to answer. `told` hears what happens; while it blocks, so does the request that it was told of.
    pub fn start(
        listener: UnixListener,
        operator: Arc<dyn Operator>,
        told: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Also the credentials of who connects are read by tokio: it knows that a process outside this one's PID namespace
        // has no number in here.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let listener = {
            let _within = runtime.enter();
            tokio::net::UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let door = Arc::new(Door { operator, told: Box::new(told), until_the_end: Mutex::default() });
        let answering = door.clone();
        let listen = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(&listener, &answering) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("lab-control".to_owned()).spawn(listen)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), door })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Whatever it said was said by its panic.
            let _ = thread.join();
        }
        self.door.until_the_end.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

struct Door {
    operator: Arc<dyn Operator>,
    told: Box<dyn Fn(Event) + Send + Sync>,
    /// Clients that wait for the end of the lab: it is the end of their connections.
    until_the_end: Mutex<Vec<UnixStream>>,
}

async fn accept(listener: &tokio::net::UnixListener, door: &Arc<Door>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => stream.peer_cred().and_then(|peer| Ok((stream.into_std()?, peer.uid()))),
            Err(error) => Err(error),
        };
        let served = accepted.and_then(|(stream, user)| {
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            if user != rustix::process::getuid().as_raw() {
                let refusal = Refusal::new("this lab belongs to another user", "start your own with `dualgate lab`");
                return refuse(&stream, refusal);
            }
            let Ok(place) = room.clone().try_acquire_owned() else {
                return refuse(&stream, Refusal::new("the lab answers too many requests already", "try again"));
            };
            let door = door.clone();
            let serve = move || {
                door.serve(stream);
                drop(place);
            };
            std::thread::Builder::new().name("lab-request".to_owned()).spawn(serve).map(drop)
        });
        if let Err(error) = served {
            tracing::debug!(%error, "a request to the lab was lost");
            // Without descriptors accept() fails at once, again and again.
            tokio::task::yield_now().await;
        }
    }
}

fn refuse(stream: &UnixStream, refusal: Refusal) -> io::Result<()> {
    wire::send(stream, &Said::Refused(refusal), &[])
}

impl Door {
    fn serve(&self, stream: UnixStream) {
        let said = wire::receive(&stream, MAX_REQUEST, PATIENCE).and_then(|(line, _)| match read(&line) {
            Ok(Request::Down) => self.end(&stream),
            Ok(Request::Enter { host }) => self.enter(&stream, &host),
            Ok(request) => self.answer(&stream, &request),
            Err(refusal) => refuse(&stream, refusal),
        });
        match said {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let refusal = Refusal::new(format!("this is no request: {error}"), "");
                // The client may have gone; then nobody is to be told.
                let _ = refuse(&stream, refusal);
            }
            Err(error) => tracing::debug!(%error, "a request to the lab was lost"),
            Ok(()) => {}
        }
    }

    fn end(&self, stream: &UnixStream) -> io::Result<()> {
        wire::send(stream, &Said::Done { message: "the lab has ended".to_owned() }, &[])?;
        let mut waiting = self.until_the_end.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_CONNECTIONS {
            waiting.push(stream.try_clone()?);
        }
        drop(waiting);
        (self.told)(Event::Down);
        Ok(())
    }

    fn answer(&self, stream: &UnixStream, request: &Request) -> io::Result<()> {
        let said = self.act(request).unwrap_or_else(Said::Refused);
        if matches!(said, Said::Done { .. }) {
            (self.told)(Event::Changed);
        }
        wire::send(stream, &said, &[])
    }

    fn act(&self, request: &Request) -> Result<Said, Refusal> {
        let operator = &self.operator;
        let done = |message| Said::Done { message };
        match request {
            Request::Status => Ok(Said::Status { status: Box::new(operator.status()) }),
            Request::Fail { host } => operator.fail(host).map(done),
            Request::Heal { what } => operator.heal(what).map(done),
            Request::Cut { link } => operator.cut(link).map(done),
            Request::Kill { pod } => operator.kill(pod).map(done),
            Request::Scale { workload, replicas } => operator.scale(workload, *replicas).map(done),
            Request::Log { host } => operator.log(host).map(|text| Said::Log { text }),
            Request::Enter { .. } | Request::Down => Err(Refusal::new("this has an answer of its own", "")),
        }
    }

    fn enter(&self, stream: &UnixStream, host: &str) -> io::Result<()> {
        let entrance = match self.operator.enter(host) {
            Ok(entrance) => entrance,
            Err(refusal) => return refuse(stream, refusal),
        };
        let descriptors: Vec<BorrowedFd<'_>> = entrance.namespaces.iter().map(|(_, file)| file.as_fd()).collect();
        let said = Said::Enter {
            namespaces: entrance.namespaces.iter().map(|(kind, _)| *kind).collect(),
            directory: entrance.directory.clone(),
            environment: entrance.environment.clone(),
        };
        wire::send(stream, &said, &descriptors)
    }
}

fn read(line: &[u8]) -> Result<Request, Refusal> {
    serde_json::from_slice(line).map_err(|error| {
        Refusal::new(format!("the lab does not know this request ({error})"), "is the lab of another version?")
    })
}
