//! Answers of upstreams that are kept and given again: what plugins that cache have in common.
//!
//! | module | what it holds |
//! |---|---|
//! | [`caching`] | the way of a request past the cache, phase by phase |
//! | [`entry`] | a kept answer and the key that names it |
//! | [`key`] | what of a request its key is made of |
//! | [`control`] | `Cache-Control` (RFC 9111) |
//! | [`conditional`] | `If-None-Match` and `If-Modified-Since` |
//! | [`media_type`] | `Content-Type`, compared with the configuration |
//! | [`memory`] | the strategy `memory` |
//! | [`fills`] | requests that wait for one that asks the upstream already |
//!
//! A look-up is one lock of a shard, held for the time it takes to find an entry and to count one more owner of it: a view that
//! is published now and then would answer with what it did not know yet, so that a client that has just been answered would miss.
//! No request messages the cache's owner (`actors::cache`), which takes out what is over and purges for the Admin API.

pub mod caching;
pub mod conditional;
pub mod control;
pub mod entry;
pub mod fills;
pub mod key;
pub mod media_type;
pub mod memory;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use caching::Caching;
pub use entry::{Entry, Key};
pub use fills::{Fill, Fills, Turn};
pub use memory::{Memory, Sizes};

use crate::plugin::counters::Moment;

/// Share of the budget that answers may take while they arrive: one in so many.
const ARRIVING: usize = 4;
/// The default of the setting `mem_cache_size`.
const DEFAULT_BUDGET: usize = 128 << 20;

/// Where answers are kept, and who is asking for which.
#[derive(Debug)]
pub struct Cache {
    pub memory: Memory,
    pub fills: Arc<Fills>,
    /// Bytes of answers that are arriving.
    arriving: AtomicUsize,
    most_arriving: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(DEFAULT_BUDGET)
    }
}

impl Cache {
    /// A cache of at most `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self { memory: Memory::new(budget), fills: Arc::default(), arriving: AtomicUsize::new(0), most_arriving: budget / ARRIVING }
    }
}

/// Where the answers of a configuration are kept: `config.strategy`. A strategy that asks over the network has its own time
/// limit, and finds nothing when it is not answered in time.
#[derive(Clone, Debug)]
pub enum Storage {
    Memory(Arc<Cache>),
}

impl Storage {
    /// The answer of that key, as long as it is kept; fresh or not.
    pub async fn find(&self, key: &Key, now: Moment) -> Option<Arc<Entry>> {
        match self {
            Self::Memory(cache) => cache.memory.find(key, now),
        }
    }

    /// The state of that key's purges, to be told when an answer that is asked for now is stored.
    pub fn epoch(&self, key: &Key) -> u32 {
        match self {
            Self::Memory(cache) => cache.memory.epoch(key),
        }
    }

    /// Keeps an answer, unless it is too large or the key was purged since that epoch.
    pub fn store(&self, key: Key, entry: Entry, epoch: u32) {
        match self {
            Self::Memory(cache) => cache.memory.store(key, Arc::new(entry), epoch),
        };
    }

    /// The cache of this node, which knows who waits for whom whatever the strategy.
    pub fn local(&self) -> &Arc<Cache> {
        match self {
            Self::Memory(cache) => cache,
        }
    }
}

/// The body of an answer while it arrives. The bytes of all of them together are limited.
#[derive(Debug)]
pub struct Arriving {
    cache: Arc<Cache>,
    bytes: Vec<u8>,
}

impl Arriving {
    /// `length` is that of the whole body, if it is known.
    pub fn new(cache: Arc<Cache>, length: Option<u64>) -> Self {
        let expected = length.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= cache.memory.largest());
        Self { cache, bytes: Vec::with_capacity(expected.unwrap_or(0)) }
    }

    /// Adds a piece; false when the body has become too large, or too much is arriving at the same time.
    #[must_use]
    pub fn push(&mut self, piece: &[u8]) -> bool {
        if self.bytes.len() + piece.len() > self.cache.memory.largest() {
            return false;
        }
        let before = self.cache.arriving.fetch_add(piece.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(piece);
        before + piece.len() <= self.cache.most_arriving
    }

    /// The body, in memory of exactly its size.
    pub fn take(&mut self) -> bytes::Bytes {
        self.cache.arriving.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        std::mem::take(&mut self.bytes).into_boxed_slice().into()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.cache.arriving.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// What the Admin API asks of the cache. `actors::cache` implements it.
pub trait Owner: Send + Sync {
    /// The answer of that key, as long as it is kept.
    fn find(&self, key: Key) -> Answer<Option<Arc<Entry>>>;

    /// Forgets one answer; whether it was there.
    fn purge(&self, key: Key) -> Answer<bool>;

    /// Forgets all answers.
    fn purge_all(&self) -> Answer<()>;
}

/// What an [`Owner`] answers in time.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>>>>;

/// The cache cannot be asked at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache's owner is not there")]
pub struct Unavailable;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_limited() {
        let cache = Arc::new(Cache::new(1 << 20));
        let arriving = || Arriving::new(Arc::clone(&cache), None);
        let piece = vec![0; cache.memory.largest()];
        let mut one = arriving();
        assert!(one.push(&piece));
        assert!(!one.push(b"more"), "larger than what is kept");
        let mut many: Vec<_> = (0..3).map(|_| arriving()).collect();
        assert!(many.iter_mut().all(|a| a.push(&piece)));
        let mut over = arriving();
        assert!(!over.push(&piece), "too much at the same time");
        drop((over, many));
        assert_eq!(one.take().len(), piece.len());
        assert_eq!(cache.arriving.load(Ordering::Relaxed), 0);
        let mut again = Arriving::new(Arc::clone(&cache), Some(3));
        assert!(again.push(b"abc"));
        assert_eq!(again.take(), "abc");
        drop(again);
        assert_eq!(cache.arriving.load(Ordering::Relaxed), 0);
    }
}
