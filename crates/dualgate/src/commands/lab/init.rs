//! The lab's first process: owns the lab, answers requests, shows how it is, ends with the process that started it.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::{self, Event, Operator as _, Server};
use dualgate_lab::init;
use dualgate_lab::lab::{Lab, Options, Origin};
use dualgate_lab::report::{Status, Verdict};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::example::Choice;
use super::show::Show;
use crate::cli;
use crate::output;

/// How long nodes may take until they are ready.
const START: Duration = Duration::from_secs(20);
/// Between two looks at the checks.
const PAUSE: Duration = Duration::from_secs(2);
/// A page is drawn twice a second at most.
const REFRESH: Duration = Duration::from_millis(500);
/// How often checks are looked at until each was, with `--once`.
const LOOKS: usize = 5;

/// Builds the lab and shows it until it is to end.
pub fn run(args: &cli::lab::Lab) -> anyhow::Result<ExitCode> {
    let directory = init::settle()?;
    let listener = take_listener()?;
    let show = Show::new(args.output);
    start_log(&show);
    let files = Choice::of(args).files(&directory).context("read the site's files")?;
    let options = Options {
        name: args.name.as_ref().map(ToString::to_string),
        site: files.site,
        origin: files.origin,
        source: files.manifests,
        objects: if args.kubernetes { Origin::Kubernetes } else { Origin::Folder },
        program: std::env::current_exe().context("find this program")?,
        directory,
        patience: Patience::default(),
    };
    let lab = Arc::new(Lab::start(&options)?);
    let (tell, told) = mpsc::channel(16);
    let server = Server::start(listener, lab.clone(), move |event| {
        // With `--once` nobody listens: the lab ends soon by itself.
        let _ = tell.blocking_send(event);
    });
    let server = server.context("answer at the control socket")?;
    let ended = match args.once {
        true => {
            drop(told);
            once(&lab, args)
        }
        false => live(&lab, show, told),
    };
    lab.down();
    // A request that waits for the end is answered by the end of this process.
    drop(server);
    ended
}

/// Takes the control socket from the process that started this one. If that has ended already, this one ends too: the
/// kernel's signal came before it was asked for.
fn take_listener() -> anyhow::Result<UnixListener> {
    let parent = io::stdin().as_fd().try_clone_to_owned().context("use standard input")?;
    let parent = UnixStream::from(parent);
    let listener = control::take_listener(&parent).context("take the control socket")?;
    match recv(&parent, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(Errno::WOULDBLOCK) => Ok(listener),
        Ok(_) | Err(_) => bail!("the process that started the lab has ended"),
    }
}

fn start_log(show: &Show) {
    if !(show.is_drawn() && io::IsTerminal::is_terminal(&io::stderr())) {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(io::stderr);
        log.with_target(false).with_ansi(false).init();
    }
}

/// Looks at everything and prints the report.
fn once(lab: &Lab, args: &cli::lab::Lab) -> anyhow::Result<ExitCode> {
    // What is not ready is looked at all the same: it is what one wants to know.
    if let Err(why) = lab.wait_until_ready(START) {
        output::error(&anyhow!("not ready after {} s: {why}", START.as_secs()));
    }
    for _ in 0..LOOKS {
        lab.look();
        let status = lab.status();
        if !is_waiting(&status) {
            super::report(&status, args.output)?;
            return Ok(output::verdict(super::nothing_fails(&status)));
        }
    }
    super::report(&lab.status(), args.output)?;
    bail!("some checks could not be looked at")
}

fn is_waiting(status: &Status) -> bool {
    let mut verdicts = status.checks.iter().flat_map(|check| [&check.v4, &check.v6]);
    verdicts.any(|verdict| *verdict == Verdict::Waiting)
}

/// Shows the lab until somebody ends it.
fn live(lab: &Arc<Lab>, mut show: Show, told: mpsc::Receiver<Event>) -> anyhow::Result<ExitCode> {
    let over = Arc::new(AtomicBool::new(false));
    let looking = {
        let (lab, over) = (lab.clone(), over.clone());
        let look = move || keep_looking(&lab, &over);
        std::thread::Builder::new().name("checks".to_owned()).spawn(look)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let shown = runtime.block_on(keep_showing(lab, &mut show, told, looking.thread()));
    over.store(true, Ordering::Relaxed);
    show.end();
    match shown {
        // Nobody reads any more: what is shown is what this process is for.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(output::verdict(true)),
        shown => Ok(shown.map(|()| output::verdict(true))?),
    }
}

fn keep_looking(lab: &Lab, over: &AtomicBool) {
    let (began, mut ready) = (Instant::now(), false);
    while !over.load(Ordering::Relaxed) {
        ready = ready || lab.wait_until_ready(REFRESH).is_ok();
        if ready || began.elapsed() >= START {
            lab.look();
            std::thread::park_timeout(PAUSE);
        }
    }
}

async fn keep_showing(lab: &Lab, show: &mut Show, mut told: mpsc::Receiver<Event>, looking: &Thread) -> io::Result<()> {
    let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut resized = signal(SignalKind::window_change())?;
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            event = told.recv() => match event {
                Some(Event::Changed) => looking.unpark(),
                Some(Event::Down) | None => return Ok(()),
            },
            _ = resized.recv() => {}
            _ = refresh.tick() => {}
        }
        if shown.is_none_or(|last| last.elapsed() >= REFRESH / 2) {
            show.show(&lab.status())?;
            shown = Some(Instant::now());
        }
    }
}
