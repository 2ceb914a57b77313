//! How writing to a store goes, for whoever watches it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::StoreError;

/// Outlives the store, so that to watch it is not to keep its file.
#[derive(Debug, Default)]
pub struct Health {
    errors: AtomicU64,
    failing: AtomicBool,
}

impl Health {
    /// Takes note of what became of a write, and passes it on.
    pub(super) fn note<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        self.failing.store(done.is_err(), Ordering::Relaxed);
        self.errors.fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
        done
    }

    /// Writes that have failed.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Whether the last write did not fail.
    pub fn is_writable(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_says_whether_the_store_can_be_written() {
        let health = Health::default();
        assert!(health.is_writable());
        let failed = health.note::<()>(Err(StoreError::InUse { path: "x".into() }));
        assert!(failed.is_err() && !health.is_writable());
        assert_eq!(health.note(Ok(7)).ok(), Some(7));
        assert_eq!((health.errors(), health.is_writable()), (1, true));
    }
}
