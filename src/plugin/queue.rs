//! A bounded queue of log records on their way to a sink.
//!
//! Workers put records in without waiting; when it is full the oldest ones go, and are counted. One reader takes them out in
//! order, many at a time, so that a busy node wakes it once for many records.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, IntGaugeVec};
use tokio::sync::Notify;

use crate::plugin::metrics::Metrics;

/// How often a queue that stays full says so.
const REMIND: Duration = Duration::from_secs(60);

/// Who fills a queue, what it is called, and what it holds at most.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Name of the plugin, for its metrics.
    pub plugin: &'static str,
    /// Name of the queue, for metrics and the log. Holds no secrets.
    pub name: String,
    pub entries: usize,
    pub bytes: usize,
}

/// A queue of entries, each of so many bytes.
pub struct Queue<T> {
    terms: Terms,
    waiting: Mutex<Waiting<T>>,
    ready: Notify,
    counts: Counts,
}

struct Waiting<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    /// What was taken out is not at its sink yet.
    busy: bool,
    closed: bool,
    /// When it was last said that the queue is full.
    told: Option<Instant>,
}

/// What becomes of the records.
pub struct Counts {
    pub written: IntCounter,
    /// Dropped because the queue was full.
    full: IntCounter,
    /// Dropped because the sink did not take them.
    pub failed: IntCounter,
    depth: IntGauge,
    depths: IntGaugeVec,
}

impl<T> Queue<T> {
    pub fn new(terms: Terms, metrics: &Metrics) -> Self {
        let depths = metrics.gauge("troop_queue_entries", "Log records that wait for their sink", &["queue"]);
        let dropped = metrics.log_records_dropped();
        let counts = Counts {
            written: metrics.log_records_written().with_label_values(&[terms.plugin]),
            full: dropped.with_label_values(&[terms.plugin, "queue full"]),
            failed: dropped.with_label_values(&[terms.plugin, "sink failed"]),
            depth: depths.with_label_values(&[terms.name.as_str()]),
            depths,
        };
        let waiting = Waiting { entries: VecDeque::new(), bytes: 0, busy: false, closed: false, told: None };
        Self { terms, waiting: Mutex::new(waiting), ready: Notify::new(), counts }
    }

    pub fn name(&self) -> &str {
        &self.terms.name
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Puts an entry of so many bytes in; older ones go where there is no room. Never waits. Nothing gets into a closed queue.
    pub fn push(&self, entry: T, bytes: usize) {
        let mut dropped = 0;
        let remind = {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return;
            }
            waiting.entries.push_back((entry, bytes));
            waiting.bytes += bytes;
            while waiting.entries.len() > self.terms.entries || (waiting.bytes > self.terms.bytes && waiting.entries.len() > 1) {
                let Some((_, bytes)) = waiting.entries.pop_front() else { break };
                waiting.bytes -= bytes;
                dropped += 1;
            }
            self.counts.depth.set(i64::try_from(waiting.entries.len()).unwrap_or(i64::MAX));
            let remind = dropped > 0 && waiting.told.is_none_or(|told| told.elapsed() >= REMIND);
            if remind {
                waiting.told = Some(Instant::now());
            }
            remind
        };
        if dropped > 0 {
            self.counts.full.inc_by(dropped);
        }
        if remind {
            tracing::error!(
                queue = self.terms.name,
                entries = self.terms.entries,
                bytes = self.terms.bytes,
                "log queue is full, the oldest records are dropped"
            );
        }
        self.ready.notify_one();
    }

    /// Waits until there is something to take, or the queue is closed.
    pub async fn ready(&self) {
        loop {
            {
                let waiting = self.waiting.lock();
                if waiting.closed || !waiting.entries.is_empty() {
                    return;
                }
            }
            self.ready.notified().await;
        }
    }

    /// The oldest entries, at most so many. The reader says with [`Queue::settled`] when they are at their sink.
    pub fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock();
        let n = waiting.entries.len().min(most);
        let taken: Vec<_> = waiting.entries.drain(..n).collect();
        waiting.bytes -= taken.iter().map(|(_, bytes)| bytes).sum::<usize>();
        waiting.busy = n > 0;
        self.counts.depth.set(i64::try_from(waiting.entries.len()).unwrap_or(i64::MAX));
        taken.into_iter().map(|(entry, _)| entry).collect()
    }

    /// What was taken is at its sink, or given up.
    pub fn settled(&self) {
        self.waiting.lock().busy = false;
    }

    /// Whether everything that was put in is at its sink.
    pub fn is_idle(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.entries.is_empty() && !waiting.busy
    }

    /// Takes no more entries; those that wait can still be taken.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.ready.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // an error says that a queue of the same name has taken it already
        let _ = self.counts.depths.remove_label_values(&[self.terms.name.as_str()]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn queue(metrics: &Metrics, entries: usize, bytes: usize) -> Queue<u32> {
        Queue::new(Terms { plugin: "test", name: "test /tmp/x".to_owned(), entries, bytes }, metrics)
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let metrics = Metrics::default();
        let queue = queue(&metrics, 3, 100);
        (0..5).for_each(|n| queue.push(n, 10));
        assert_eq!(queue.take(10), [2, 3, 4]);
        (5..8).for_each(|n| queue.push(n, 60));
        assert!(metrics.text().contains("troop_queue_entries{queue=\"test /tmp/x\"} 1"));
        assert_eq!(queue.take(10), [7]);
        queue.push(8, 1000);
        assert_eq!(queue.take(10), [8], "one entry always has room");
        assert!(metrics.text().contains("troop_log_records_dropped_total{plugin=\"test\",reason=\"queue full\"} 4"), "{}", metrics.text());
        drop(queue);
        assert!(!metrics.text().contains("troop_queue_entries{"));
    }

    #[test]
    fn entries_are_taken_in_order_and_in_parts() {
        let queue = queue(&Metrics::default(), 10, 100);
        (0..4).for_each(|n| queue.push(n, 1));
        assert_eq!(queue.take(3), [0, 1, 2]);
        assert!(!queue.is_idle());
        assert_eq!(queue.take(3), [3]);
        assert!(!queue.is_idle());
        queue.settled();
        assert!(queue.is_idle());
    }

    #[actix_rt::test]
    async fn the_reader_is_woken() {
        let queue = Arc::new(queue(&Metrics::default(), 10, 100));
        let reader = actix_rt::spawn({
            let queue = Arc::clone(&queue);
            async move {
                let mut all = Vec::new();
                while !queue.is_closed() || !queue.is_idle() {
                    queue.ready().await;
                    all.extend(queue.take(2));
                    queue.settled();
                }
                all
            }
        });
        for n in 0..5 {
            queue.push(n, 1);
            actix_rt::task::yield_now().await;
        }
        queue.close();
        assert_eq!(reader.await.expect("no panic"), [0, 1, 2, 3, 4]);
        queue.push(9, 1);
        assert!(queue.is_idle(), "what comes after the end is dropped");
    }
}
