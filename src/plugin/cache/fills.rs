//! Requests that wait for one that asks the upstream already.
//!
//! The first request that misses a key asks the upstream; others of that key wait until its answer is kept, for a limited time
//! and once only: after that they ask for themselves. They stop waiting as soon as it turns out that the answer will not be kept,
//! and whichever way the first request ends, as it holds the one end of a channel. A key whose last answer could not be kept is
//! not waited for in the next seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::plugin::cache::Key;
use crate::plugin::counters::Moment;

const SHARDS: usize = 16;
/// Longest time to wait for another request.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Milliseconds for which a key is not waited for after an answer that could not be kept.
const PASSING: u64 = 10_000;
/// Keys of a shard that are remembered as such.
const REMEMBERED: usize = 512;

/// Who is asking for which key.
#[derive(Debug)]
pub struct Fills {
    shards: Box<[Mutex<Shard>]>,
    waited: AtomicU64,
    in_vain: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    under_way: HashMap<Key, watch::Receiver<()>, ahash::RandomState>,
    /// Until when keys are not waited for.
    passing: LruCache<Key, Moment, ahash::RandomState>,
}

/// What a request does that has found nothing.
pub enum Turn {
    /// It asks the upstream.
    Ask(Fill),
    /// Another one is asking.
    Wait(Waiting),
}

/// A request that asks the upstream; others may wait for it until this is dropped.
#[derive(Debug)]
pub struct Fill {
    fills: Arc<Fills>,
    key: Key,
    /// Wakes those that wait when it is dropped. Without it nobody waits.
    lead: Option<watch::Sender<()>>,
}

/// A request that waits for another one.
pub struct Waiting {
    fills: Arc<Fills>,
    key: Key,
    end: watch::Receiver<()>,
}

impl Default for Fills {
    fn default() -> Self {
        let remembered = std::num::NonZeroUsize::new(REMEMBERED).expect("more than none");
        let shard = || Shard { under_way: HashMap::default(), passing: LruCache::with_hasher(remembered, ahash::RandomState::new()) };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(), waited: AtomicU64::new(0), in_vain: AtomicU64::new(0) }
    }
}

impl Fills {
    /// The turn of a request that has found nothing under this key.
    pub fn turn(self: &Arc<Self>, key: Key, now: Moment) -> Turn {
        let mut shard = self.shard(&key);
        if shard.passing.get(&key).is_some_and(|until| *until > now) {
            drop(shard);
            return Turn::Ask(self.alone(key));
        }
        if let Some(end) = shard.under_way.get(&key) {
            return Turn::Wait(Waiting { fills: Arc::clone(self), key, end: end.clone() });
        }
        let (sender, receiver) = watch::channel(());
        shard.under_way.insert(key, receiver);
        Turn::Ask(Fill { fills: Arc::clone(self), key, lead: Some(sender) })
    }

    /// A request that asks whoever else does, and that nobody waits for.
    pub fn alone(self: &Arc<Self>, key: Key) -> Fill {
        Fill { fills: Arc::clone(self), key, lead: None }
    }

    /// Requests that have waited for another one, and those that then had to ask for themselves.
    pub fn totals(&self) -> (u64, u64) {
        (self.waited.load(Ordering::Relaxed), self.in_vain.load(Ordering::Relaxed))
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.shards[usize::from(key.0[0]) % SHARDS].lock()
    }
}

impl Fill {
    pub fn key(&self) -> Key {
        self.key
    }

    /// The answer will not be kept: those that wait go on, and nobody waits for this key in the next seconds.
    pub fn give_up(self, now: Moment) {
        self.fills.shard(&self.key).passing.put(self.key, Moment(now.0.saturating_add(PASSING)));
    }

    /// The answer is kept.
    pub fn done(self) {
        self.fills.shard(&self.key).passing.pop(&self.key);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.lead.is_some() {
            self.fills.shard(&self.key).under_way.remove(&self.key);
        }
    }
}

impl Waiting {
    /// Waits until the other request is done, at most for [`PATIENCE`].
    pub async fn over(mut self) -> Waited {
        self.fills.waited.fetch_add(1, Ordering::Relaxed);
        // nothing is ever sent: the channel closes
        if tokio::time::timeout(PATIENCE, self.end.changed()).await.is_err() {
            tracing::debug!(key = %self.key, "another request takes too long to fill the cache, the upstream is asked again");
        }
        Waited { fills: self.fills, key: self.key }
    }
}

/// A request that has waited.
pub struct Waited {
    fills: Arc<Fills>,
    key: Key,
}

impl Waited {
    /// It has still found nothing: it asks for itself.
    pub fn in_vain(self) -> Fill {
        self.fills.in_vain.fetch_add(1, Ordering::Relaxed);
        self.fills.alone(self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::cache::entry::tests::key;

    fn ask(turn: Turn) -> Fill {
        match turn {
            Turn::Ask(fill) => fill,
            Turn::Wait(_) => panic!("waits"),
        }
    }

    fn wait(turn: Turn) -> Waiting {
        match turn {
            Turn::Wait(waiting) => waiting,
            Turn::Ask(_) => panic!("asks"),
        }
    }

    #[actix_rt::test]
    async fn one_asks_and_the_others_wait() {
        let fills = Arc::<Fills>::default();
        let first = ask(fills.turn(key(1), Moment(0)));
        let waiting: Vec<_> = (0..3).map(|_| wait(fills.turn(key(1), Moment(0)))).collect();
        drop(ask(fills.turn(key(2), Moment(0))));
        let end = async {
            tokio::task::yield_now().await;
            first.done();
        };
        let waits = futures_util::future::join_all(waiting.into_iter().map(Waiting::over));
        let (_, mut waited) = tokio::time::timeout(PATIENCE / 2, futures_util::future::join(end, waits)).await.expect("they are woken");
        waited.pop().expect("three").in_vain();
        assert_eq!(fills.totals(), (3, 1));
        drop(ask(fills.turn(key(1), Moment(0))));
    }

    #[actix_rt::test]
    async fn they_go_on_when_the_first_one_ends_without_an_answer() {
        let fills = Arc::<Fills>::default();
        let first = ask(fills.turn(key(1), Moment(0)));
        let waiting = wait(fills.turn(key(1), Moment(0)));
        drop(first);
        tokio::time::timeout(PATIENCE / 2, waiting.over()).await.expect("it is woken");
    }

    #[actix_rt::test]
    async fn patience_ends() {
        let fills = Arc::<Fills>::default();
        let first = ask(fills.turn(key(1), Moment(0)));
        let started = std::time::Instant::now();
        let fill = wait(fills.turn(key(1), Moment(0))).over().await.in_vain();
        assert!(started.elapsed() >= PATIENCE);
        // the one that asks for itself does not end the wait of others
        drop(fill);
        wait(fills.turn(key(1), Moment(0)));
        drop(first);
    }

    #[test]
    fn what_cannot_be_kept_is_not_waited_for() {
        let fills = Arc::<Fills>::default();
        ask(fills.turn(key(1), Moment(0))).give_up(Moment(0));
        let (one, two) = (ask(fills.turn(key(1), Moment(PASSING - 1))), ask(fills.turn(key(1), Moment(1))));
        drop(one);
        // an answer that is kept after all makes it worth waiting for again
        two.done();
        let first = ask(fills.turn(key(1), Moment(1)));
        wait(fills.turn(key(1), Moment(1)));
        first.give_up(Moment(1));
        let _again = ask(fills.turn(key(1), Moment(1 + PASSING)));
        wait(fills.turn(key(1), Moment(1 + PASSING)));
    }
}
