//! `dualgate run`: serves this node's gates.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dualgate_core::model::NodeName;
use dualgate_core::model::finding::Severity;
use dualgate_core::model::site::Site;
use dualgate_host::Store;
use dualgate_host::dns::Dns;
use dualgate_host::handover::{self, Taken};
use dualgate_host::service_manager::NotifySocket;
use dualgate_host::virtual_ips::Leave;
use dualgate_lab::echo;
use dualgate_proxy::Proxy;
use dualgate_tunnel::Keeper;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::cli::{Format, Run};
use crate::inputs::{choose_node, host_name, read_site, state_directory};
use crate::output;
use crate::river::{Chain, River, Spring};
use crate::service;
use crate::state::{Beside, State};
use crate::virtual_ips::VirtualIps;

/// Serves until SIGTERM.
pub fn run(args: &Run) -> anyhow::Result<ExitCode> {
    start_log(args);
    let (site, findings) = read_site(&args.inputs.site)?;
    let Some(site) = site else {
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
        bail!("the site file cannot be used (see `dualgate check`):{}", errors.concat());
    };
    let node = choose_node(&site, args.node.as_ref())?;
    let directory = state_directory(args.state.as_deref(), &site, &node);
    let place = take_place(args, &directory)?;
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // Raising the soft limit to the hard one needs no privilege; connections are file descriptors.
    let descriptors = dualgate_host::raise_descriptor_limit();
    tracing::info!(%node, workers, descriptors, state = %directory.display(), "dualgate {}", env!("CARGO_PKG_VERSION"));
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(args, site, findings, node, place, &directory, workers))
}

async fn serve(
    args: &Run,
    site: Site,
    site_findings: Vec<dualgate_core::model::Finding>,
    node: NodeName,
    place: Place,
    directory: &Path,
    workers: usize,
) -> anyhow::Result<ExitCode> {
    let (settings, mut proxy) = (site.proxy.clone(), Proxy::start(workers)?);
    let tunnel = Rc::new(Keeper::start(directory).context("start the tunnel's thread")?);
    let virtual_ips = VirtualIps::start(directory, &node).context("start the threads of the virtual IPs")?;
    let dns = Dns::new(workers);
    let beside = beside(directory, &tunnel, &virtual_ips, &dns);
    let state = State::new(site.name.clone(), node.clone(), (proxy.view(), proxy.entry_point_metrics()), beside);
    admin::start(&site.admin.listen, &state);
    let _echo = start_echo(args)?;
    let (manager, hang_ups) = (service_manager(), hang_ups()?);
    service::watch(manager.clone(), state.clone(), hang_ups.clone());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (succeeded, mut successor) = mpsc::channel(1);
    let sockets = proxy.sockets();
    let offer = offering(directory, move || sockets.copies(), succeeded);
    let (mut accept_grace, mut kept) = (settings.accept_grace, Some(tunnel.clone()));
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
            Some(()) = successor.recv() => {
                tracing::info!("a successor serves now");
                accept_grace = Duration::ZERO;
                // It makes the tunnel's interface, which there is once, or goes on with it.
                if let Some(tunnel) = kept.take() {
                    tunnel.hand_over();
                }
            }
        }
    };
    match place {
        Place::Own(lock) => {
            offer();
            // Held until the process ends.
            std::mem::forget(lock);
        }
        Place::TakenOver(taken, path) => {
            proxy.inherit(taken.copies()?);
            let state = state.clone();
            tokio::task::spawn_local(succeed(taken, path, state, offer));
        }
    }
    let spring = Spring {
        node,
        site_path: args.inputs.site.clone(),
        site,
        site_findings,
        source: args.inputs.source(),
        kubeconfig: args.inputs.kubeconfig.clone(),
        proxy,
        tunnel,
        virtual_ips,
        dns,
        directory: directory.to_owned(),
        confirm: args.confirm,
        store: open_store(directory),
        state: state.clone(),
    };
    let (proxy, dns, virtual_ips) = River::new(spring).flow(stop, hang_ups).await;
    state.draining();
    service::stopping(&manager);
    let held = match kept {
        // Open connections go on here, while others answer for the addresses.
        Some(_) => {
            virtual_ips.drain().await;
            Some(virtual_ips)
        }
        None => {
            virtual_ips.leave(Leave::Succeeded);
            None
        }
    };
    end(proxy, dns, accept_grace, settings.drain_timeout).await;
    // Requests that were open needed them.
    drop((kept, held));
    Ok(ExitCode::from(output::AS_DESIRED))
}

/// What offers the open sockets to a successor, and says when one serves.
fn offering(
    directory: &Path,
    sockets: impl Fn() -> Vec<OwnedFd> + Send + 'static,
    succeeded: mpsc::Sender<()>,
) -> impl FnOnce() + Send + 'static {
    let directory = directory.to_owned();
    move || {
        let served = move || {
            let _ = succeeded.blocking_send(());
        };
        if let Err(error) = handover::offer(&directory, sockets, served) {
            tracing::warn!(error = %Chain(&error), "no successor can take over");
        }
    }
}

/// What is shown beside the gates.
fn beside(directory: &Path, tunnel: &Keeper, virtual_ips: &VirtualIps, dns: &Dns) -> Beside {
    let state = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    Beside { state, tunnel: tunnel.view(), virtual_ips: virtual_ips.view(), dns: dns.view() }
}

/// The echo backend, if it is asked for; it answers until what comes back is dropped.
fn start_echo(args: &Run) -> anyhow::Result<Option<echo::Backend>> {
    if args.echo.is_empty() {
        return Ok(None);
    }
    match echo::start(&args.echo, &host_name()) {
        Ok(backend) => Ok(Some(backend)),
        // The predecessor's still answers there.
        Err(error) if args.take_over => {
            tracing::warn!(error = %Chain(&error), "no echo backend of its own");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Without one it serves all the same.
fn open_store(directory: &Path) -> Option<Store> {
    Store::open(directory)
        .inspect_err(|error| tracing::warn!(error = %Chain(error), "the last good state cannot be kept"))
        .ok()
}

/// Whoever runs this process, such as systemd.
fn service_manager() -> Rc<NotifySocket> {
    let manager = NotifySocket::of_environment().unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager cannot be told anything");
        NotifySocket::nobody()
    });
    Rc::new(manager)
}

/// Counts SIGHUP: each asks for the site file to be read again.
fn hang_ups() -> io::Result<watch::Receiver<u64>> {
    let (counted, count) = watch::channel(0);
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::task::spawn_local(async move {
        while hang_up.recv().await.is_some() {
            counted.send_modify(|count| *count += 1);
        }
    });
    Ok(count)
}

/// Lets connections end.
async fn end(mut proxy: Proxy, dns: Dns, accept_grace: Duration, drain_timeout: Duration) {
    // Load balancers and routers need a moment to see that this node is no longer ready.
    tracing::info!(grace = ?accept_grace, "not ready any more");
    tokio::time::sleep(accept_grace).await;
    // What waits is answered.
    drop(dns);
    match proxy.drain(drain_timeout).await {
        0 => tracing::info!("all connections have ended"),
        left => tracing::warn!(left, "connections were cut at the end of the drain time-out"),
    }
}

fn start_log(args: &Run) {
    let level = match args.verbose {
        0 => tracing::Level::INFO,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match args.log {
        Format::Text => {
            let coloured = output::Style::of(&io::stderr()) == output::Style::Coloured;
            log.with_ansi(coloured).init();
        }
        Format::Json => log.json().init(),
    }
}

/// How this process came to be the one that runs with its state directory.
enum Place {
    /// It is the only one.
    Own(File),
    /// It takes over from another, which still holds the lock at this path.
    TakenOver(Taken, PathBuf),
}

/// Two processes with the same state would each take half of the connections.
fn take_place(args: &Run, directory: &Path) -> anyhow::Result<Place> {
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make the state directory `{shown}` (name another with --state)"))?;
    close_to_others(directory);
    let path = directory.join("lock");
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Place::Own(file)),
        Err(std::fs::TryLockError::WouldBlock) if args.take_over => {
            Ok(Place::TakenOver(handover::take(directory).context("take over from the running dualgate")?, path))
        }
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another dualgate runs with the state directory `{shown}`: take over from it with --take-over, stop it, or \
             name another directory with --state"
        ),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("lock `{}`", path.display())),
    }
}

/// What others have made for this process to begin with, as the kubelet does, is open to all who can look there. Nothing of
/// anybody's is in it yet.
fn close_to_others(directory: &Path) {
    let is_empty = directory.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    if is_empty && let Err(error) = std::fs::set_permissions(directory, Permissions::from_mode(0o700)) {
        tracing::warn!(%error, "the state directory stays as open as it is");
    }
}

fn open_lock(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.with_context(|| format!("open `{}` (name another state directory with --state)", path.display()))
}

/// Once this process serves, the old one may go; once that has gone, this one holds its place.
async fn succeed(taken: Taken, lock: PathBuf, state: State, offer: impl FnOnce() + Send + 'static) {
    while !state.not_ready().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Err(error) = taken.serving() {
        tracing::warn!(%error, "the old process did not hear that it may end");
    }
    let held = tokio::task::spawn_blocking(move || {
        let file = open_lock(&lock)?;
        file.lock()?;
        offer();
        // Held until the process ends.
        std::mem::forget(file);
        anyhow::Ok(())
    });
    match held.await {
        Ok(Ok(())) => tracing::info!("the old process has ended"),
        Ok(Err(error)) => tracing::warn!("{error:#}"),
        Err(error) => tracing::warn!(%error, "waiting for the old process"),
    }
}
