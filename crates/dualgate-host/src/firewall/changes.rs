//! Tells when rules of this host have changed, by whomever.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::netfilter::Watch;

/// How often to look where the kernel does not tell.
const POLL: Duration = Duration::from_secs(5);
/// Changes that follow each other are told once: kube-proxy makes many.
const REST: Duration = Duration::from_millis(200);

/// Changes of the rules of one network.
#[derive(Debug)]
pub struct Changes {
    /// `None` where the kernel does not tell.
    watch: Option<AsyncFd<Socket>>,
}

#[derive(Debug)]
struct Socket(Watch);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    /// Watches the network of the calling thread, which runs a runtime with IO.
    #[must_use]
    pub fn open() -> Self {
        Self {
            watch: open().inspect_err(|error| tracing::debug!(%error, "rules are looked at from time to time")).ok(),
        }
    }

    /// Waits until rules may have changed: it is time to look. It may be dropped at any moment.
    pub async fn next(&mut self) {
        let Some(watch) = &mut self.watch else { return tokio::time::sleep(POLL).await };
        loop {
            let Ok(mut ready) = watch.readable_mut().await else { break };
            let changed = ready.get_inner_mut().0.changed();
            ready.clear_ready();
            match changed {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "rules are looked at from time to time");
                    self.watch = None;
                    return;
                }
            }
        }
        tokio::time::sleep(REST).await;
    }
}

#[expect(deprecated, reason = "its successor is unsafe for the sake of other types; a `Watch` keeps its descriptor")]
fn open() -> std::io::Result<AsyncFd<Socket>> {
    let watch = Watch::open().map_err(std::io::Error::other)?;
    AsyncFd::with_interest(Socket(watch), Interest::READABLE)
}
