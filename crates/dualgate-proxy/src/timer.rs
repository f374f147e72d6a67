//! One deadline per connection.
//!
//! Whoever makes progress moves the deadline; whoever waits waits within [`Timer::limit`]. Moving it to later costs no
//! timer operation: the sleep that is armed wakes up, sees the later deadline and sleeps again.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Expired;

/// The deadline of one connection or stream.
#[derive(Debug)]
pub struct Timer {
    deadline: Cell<Instant>,
    /// Progress moves the deadline this far.
    idle: Cell<Duration>,
    sleep: RefCell<Pin<Box<Sleep>>>,
}

impl Timer {
    /// With a first deadline.
    pub fn new(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            deadline: Cell::new(deadline),
            idle: Cell::new(limit),
            sleep: RefCell::new(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    /// From here on, `limit` without progress is too long.
    pub fn set(&self, limit: Duration) {
        self.idle.set(limit);
        self.deadline.set(Instant::now() + limit);
    }

    /// Something moved.
    pub fn progress(&self) {
        self.deadline.set(Instant::now() + self.idle.get());
    }

    /// Runs `future` until the deadline.
    pub async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_expired(cx).map(Err),
        })
        .await
    }

    fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Expired> {
        let mut sleep = self.sleep.borrow_mut();
        loop {
            let deadline = self.deadline.get();
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            std::task::ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= self.deadline.get() {
                return Poll::Ready(Expired);
            }
            sleep.as_mut().reset(self.deadline.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_moves_the_deadline_and_silence_reaches_it() {
        let timer = Timer::new(Duration::from_secs(10));
        let start = Instant::now();
        let outcome = timer
            .limit(async {
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_secs(8)).await;
                    timer.progress();
                }
                std::future::pending::<()>().await;
            })
            .await;
        assert_eq!((outcome, start.elapsed()), (Err(Expired), Duration::from_secs(34)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_wakes_earlier() {
        let timer = Timer::new(Duration::from_secs(100));
        let start = Instant::now();
        let _ = timer.limit(tokio::time::sleep(Duration::from_secs(1))).await;
        timer.set(Duration::from_secs(5));
        assert_eq!(timer.limit(std::future::pending::<()>()).await, Err(Expired));
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }
}
