//! The time within one poll of a connection's task.
//!
//! A request asks for the time a dozen times in the few microseconds between two waits. It is read once a poll, and again where
//! something is known to have taken its time.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets time go on when it is dropped, also by a panic: the thread may go on with other connections, or other tests.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

/// Runs a poll, within which [`now`] is the time at which it began.
pub fn hold<T>(poll: impl FnOnce() -> T) -> T {
    NOW.set(Some(Instant::now()));
    let _held = Held;
    poll()
}

/// The time; within [`hold`] that of its beginning, or of the last [`read`].
pub fn now() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// The time, read anew.
pub fn read() -> Instant {
    let now = Instant::now();
    if NOW.get().is_some() {
        NOW.set(Some(now));
    }
    now
}

#[cfg(test)]
mod tests {
    use super::{hold, now, read};

    #[test]
    fn time_stands_still_within_a_poll() {
        let before = now();
        let (first, second, later, last) = hold(|| {
            let first = now();
            while std::time::Instant::now() == first {}
            (first, now(), read(), now())
        });
        assert!(before <= first && first == second && second < later && later == last && last <= now());
        while now() == last {}
    }

    #[test]
    fn time_goes_on_after_a_poll_that_panics() {
        let panicked = std::panic::catch_unwind(|| hold(|| panic!("in the middle of a poll")));
        assert!(panicked.is_err());
        let last = now();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while now() == last {
            assert!(std::time::Instant::now() < limit, "time stands still");
        }
    }
}
