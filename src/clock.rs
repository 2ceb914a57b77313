//! The time within one poll of a connection's task.
//!
//! A request asks for the time a dozen times in the few microseconds between two waits. It is read once a poll, and again where
//! something is known to have taken its time.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs a poll, within which [`now`] is the time at which it began.
pub fn hold<T>(poll: impl FnOnce() -> T) -> T {
    NOW.set(Some(Instant::now()));
    let result = poll();
    NOW.set(None);
    result
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
}
