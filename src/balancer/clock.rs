//! Instants as numbers, so that atomics hold them.

use std::sync::LazyLock;
use std::time::Instant;

/// Nanoseconds since this was first asked; 0 for what was before.
pub fn nanos(at: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    at.saturating_duration_since(*START).as_nanos() as u64
}
