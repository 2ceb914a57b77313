//! When requests are due in an open loop, and who sends the next one.
//!
//! Latency counts from the moment at which a request was due, not from the moment at which a connection was free for it: a
//! server that stalls is charged with everything that had to wait (no coordinated omission).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe;

/// A constant rate from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    interval: Duration,
}

impl Schedule {
    /// `rate` a second, greater than 0.
    pub fn new(start: Instant, rate: f64) -> Self {
        Self { start, interval: Duration::from_secs_f64(1.0 / rate) }
    }

    /// When number `n`, from 0, is due.
    pub fn at(&self, n: u64) -> Instant {
        self.start + Duration::from_nanos(nanoseconds(self.interval).saturating_mul(n))
    }

    /// How many were due up to `now`.
    pub fn due(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.start) {
            None => 0,
            Some(passed) => nanoseconds(passed) / nanoseconds(self.interval).max(1) + 1,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Hands out what is due to whoever is free, oldest first.
pub struct Pacer {
    schedule: Schedule,
    next: Cell<u64>,
    /// After this many nothing more is due.
    count: u64,
    waiting: RefCell<Vec<Waker>>,
}

impl Pacer {
    pub fn new(schedule: Schedule, count: u64) -> Self {
        Self { schedule, next: Cell::new(0), count, waiting: RefCell::default() }
    }

    /// How many are handed out in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next number and when it was due; waits until it is. `None` when all were handed out.
    pub async fn take(&self) -> Option<(u64, Instant)> {
        poll_fn(|cx| {
            let next = self.next.get();
            if next >= self.count {
                return Poll::Ready(None);
            }
            if self.schedule.due(Instant::now()) > next {
                self.next.set(next + 1);
                return Poll::Ready(Some((next, self.schedule.at(next))));
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Wakes those that wait, at each moment at which something is due. Ends with the last.
    pub async fn run(&self) -> Result<()> {
        // tokio's own timer is good to a millisecond, which is longer than most requests take
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::Interval(TimeSpec::from_duration(self.schedule.interval)), TimerSetTimeFlags::empty())?;
        // it is read like a pipe: eight bytes whenever it has expired
        let ticks = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(timer))?;
        loop {
            ticks.readable().await?;
            match ticks.try_read(&mut [0; 8]) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
            let due = self.schedule.due(Instant::now()).min(self.count);
            let mut waiting = self.waiting.borrow_mut();
            if self.next.get() >= self.count {
                waiting.drain(..).for_each(Waker::wake);
                return Ok(());
            }
            let wake = usize::try_from(due.saturating_sub(self.next.get())).unwrap_or(usize::MAX).min(waiting.len());
            waiting.drain(..wake).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_is_due() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0);
        assert_eq!(schedule.at(0), start);
        assert_eq!(schedule.at(5), start + Duration::from_millis(5));
        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(start + Duration::from_micros(1999)), 2);
        assert_eq!(schedule.due(start + Duration::from_secs(1)), 1001);
        assert_eq!(Schedule::new(start + Duration::from_secs(9), 1.0).due(start), 0);
    }

    #[tokio::test]
    async fn one_who_comes_late_is_told_when_it_was_due() {
        let start = Instant::now().checked_sub(Duration::from_secs(1)).expect("the machine is older than a second");
        let pacer = Pacer::new(Schedule::new(start, 10.0), 3);
        for n in 0..3 {
            assert_eq!(pacer.take().await, Some((n, start + Duration::from_millis(100 * n))));
        }
        assert_eq!(pacer.take().await, None);
    }

    #[tokio::test]
    async fn waits_until_it_is_due() {
        let start = Instant::now();
        let pacer = Rc::new(Pacer::new(Schedule::new(start, 200.0), 4));
        let all = async {
            let mut seen = Vec::new();
            while let Some((n, at)) = pacer.take().await {
                assert!(Instant::now() >= at);
                seen.push(n);
            }
            seen
        };
        let (ran, seen) = tokio::join!(pacer.run(), all);
        ran.expect("the timer runs");
        assert_eq!(seen, [0, 1, 2, 3]);
        assert!(start.elapsed() >= Duration::from_millis(15));
    }
}
