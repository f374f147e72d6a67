//! What the service manager that runs this process hears of it.
//!
//! It is told `READY` as soon as all is done that needs nobody else: the tunnel's interface is there, and what lay on disk is
//! served. It does not wait for home or for a cluster: whoever is ordered behind it may be what these need. How it is then
//! stands in the status line.

use std::rc::Rc;
use std::time::Duration;

use dualgate_host::service_manager::{NotifySocket, Word};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::state::State;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the tunnel's interface is waited for: without a key it never comes, and the gates serve all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells the service manager, if there is one, how this process is, until it is dropped.
pub fn watch(manager: Rc<NotifySocket>, state: State, hang_ups: watch::Receiver<u64>) {
    if manager.is_there() {
        tokio::task::spawn_local(tell(manager, state, hang_ups));
    }
}

/// Says that it ends.
pub fn stopping(manager: &NotifySocket) {
    said(manager, &[Word::Stopping, Word::Status("connections may end")]);
}

async fn tell(manager: Rc<NotifySocket>, state: State, mut hang_ups: watch::Receiver<u64>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut ready, mut status, mut reloading) = (false, String::new(), None);
    let give_up = Instant::now() + PATIENCE;
    while !state.is_draining() {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = hang_ups.changed(), if ready => {
                reloading = Some(*hang_ups.borrow_and_update());
                said(&manager, &[Word::Reloading]);
            }
        }
        let now = state.service();
        if !ready && now.begun && (now.tunnel_made || Instant::now() >= give_up) {
            ready = true;
            said(&manager, &[Word::Ready]);
        }
        if reloading.is_some_and(|asked| now.reloads >= asked) {
            reloading = None;
            said(&manager, &[Word::Ready]);
        }
        if now.status != status {
            status = now.status;
            said(&manager, &[Word::Status(&status)]);
        }
    }
}

fn said(manager: &NotifySocket, words: &[Word<'_>]) {
    if let Err(error) = manager.tell(words) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
