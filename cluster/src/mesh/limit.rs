//! How much a peer may send: a bucket that fills with time. Reading waits while it is empty, which slows the sender down.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second that a peer may send on average.
const BYTES_A_SECOND: f64 = 128.0 * 1024.0 * 1024.0;
/// Frames a second.
const FRAMES_A_SECOND: f64 = 50_000.0;

#[derive(Debug)]
pub struct Limit {
    bytes: f64,
    frames: f64,
    at: Instant,
}

impl Limit {
    pub fn new() -> Self {
        Self { bytes: BYTES_A_SECOND, frames: FRAMES_A_SECOND, at: Instant::now() }
    }

    /// Takes a frame of so many bytes; answers how long to wait before the next is read.
    pub fn take(&mut self, bytes: usize) -> Option<Duration> {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.bytes = (self.bytes + passed * BYTES_A_SECOND).min(BYTES_A_SECOND) - bytes as f64;
        self.frames = (self.frames + passed * FRAMES_A_SECOND).min(FRAMES_A_SECOND) - 1.0;
        let wait = (-self.bytes / BYTES_A_SECOND).max(-self.frames / FRAMES_A_SECOND);
        (wait > 0.0).then(|| Duration::from_secs_f64(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_much_has_to_wait_and_then_may_again() {
        let mut limit = Limit::new();
        assert_eq!(limit.take(64 * 1024 * 1024), None);
        let wait = limit.take(128 * 1024 * 1024).expect("half a second");
        assert!((0.4..0.6).contains(&wait.as_secs_f64()), "{wait:?}");
        tokio::time::advance(wait * 2).await;
        assert_eq!(limit.take(1_000), None);
    }
}
