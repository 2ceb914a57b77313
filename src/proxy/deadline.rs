//! A time limit that costs nothing to move.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock;

/// A time limit for a connection or a stream. Moving it further away is an assignment: the timer underneath fires at the earlier time,
/// sees that the limit has moved, and sleeps on.
#[derive(Debug)]
pub struct Deadline {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

impl Deadline {
    pub fn new(limit: Duration) -> Self {
        let at = Instant::now() + limit;
        Self { sleep: Box::pin(tokio::time::sleep_until(at)), at }
    }

    /// Moves the limit to `limit` from now.
    pub fn set(&mut self, limit: Duration) {
        self.at = Instant::from_std(clock::now()) + limit;
        if self.at < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.at);
        }
    }

    /// Whether the limit has passed; wakes the task when it does.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= self.at => return true,
                Poll::Ready(()) => self.sleep.as_mut().reset(self.at),
            }
        }
    }
}
