//! The strategy `memory`: answers in the memory of the node, shared by all workers.
//!
//! The least recently used give way when the budget is used up. Keys are spread over shards by their digest; each shard is a
//! list under a lock that is held for one look-up or one change, well under a microsecond, and never while memory is given back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::plugin::cache::{Entry, Key};
use crate::plugin::counters::Moment;

/// Few, as each has its part of the budget and no answer can be larger than that.
const SHARDS: usize = 8;
/// The largest answer is one in so many parts of the budget.
const LARGEST: usize = 16;
/// Counters of purges. Two keys that share one can only keep each other's answer from being stored.
const EPOCHS: usize = 1024;
/// Entries that are taken out in one go.
const SWEPT: usize = 64;

/// The entries.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    /// How often keys were purged, by a part of their digest.
    epochs: Box<[AtomicU32]>,
    /// Bytes of a shard.
    part: usize,
}

type Entries = LruCache<Key, Arc<Entry>, ahash::RandomState>;

#[derive(Debug)]
struct Shard {
    entries: Entries,
    by_expiry: BTreeSet<(Moment, Key)>,
    bytes: usize,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    hits: u64,
    misses: u64,
    evicted: u64,
    expired: u64,
}

/// What is in the cache, and what has become of look-ups and of entries since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub entries: usize,
    pub bytes: usize,
    /// Bytes that the entries may take.
    pub budget: usize,
    /// Look-ups that found an entry, whether or not it could be given to the client, and those that found none.
    pub hits: u64,
    pub misses: u64,
    /// Entries that gave way to others, and those whose time was over.
    pub evicted: u64,
    pub expired: u64,
}

/// What a purge has taken out; to be dropped where that may take its time.
pub struct Purged(#[expect(dead_code, reason = "it is there to be dropped")] Vec<Entries>);

impl Memory {
    /// Entries of at most `budget` bytes together.
    pub fn new(budget: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: none(), by_expiry: BTreeSet::new(), bytes: 0, counts: Counts::default() });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            epochs: (0..EPOCHS).map(|_| AtomicU32::new(0)).collect(),
            part: budget / SHARDS,
        }
    }

    /// Bytes of the largest entry that is kept.
    pub fn largest(&self) -> usize {
        self.part * SHARDS / LARGEST
    }

    /// The entry of that key, if its time is not over.
    pub fn find(&self, key: &Key, now: Moment) -> Option<Arc<Entry>> {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.entries.get(key) {
            if entry.expires > now {
                let entry = Arc::clone(entry);
                shard.counts.hits += 1;
                return Some(entry);
            }
            let over = shard.remove(key);
            shard.counts.expired += 1;
            shard.counts.misses += 1;
            drop(shard);
            drop(over);
            return None;
        }
        shard.counts.misses += 1;
        None
    }

    /// The entry of that key for an onlooker: this is not counted as use.
    pub fn peek(&self, key: &Key, now: Moment) -> Option<Arc<Entry>> {
        self.shard(key).entries.peek(key).filter(|entry| entry.expires > now).cloned()
    }

    /// The state of that key's purges.
    pub fn epoch(&self, key: &Key) -> u32 {
        self.epoch_of(key).load(Ordering::Relaxed)
    }

    /// Keeps an entry in the place of an older one; the least recently used give way. It is not kept when it is larger than
    /// [`Memory::largest`], or when the key was purged since `epoch`: it may be of before the purge.
    pub fn store(&self, key: Key, entry: Arc<Entry>, epoch: u32) -> bool {
        let size = entry.size();
        if size > self.largest() {
            return false;
        }
        let mut gone: SmallVec<[Option<Arc<Entry>>; 4]> = SmallVec::new();
        let mut shard = self.shard(&key);
        // a purge counts before it takes the lock: one that is not seen here takes the entry out again
        if self.epoch(&key) != epoch {
            return false;
        }
        gone.push(shard.remove(&key));
        shard.bytes += size;
        shard.by_expiry.insert((entry.expires, key));
        shard.entries.put(key, entry);
        while shard.bytes > self.part {
            let Some((oldest, _)) = shard.entries.peek_lru() else { break };
            let oldest = *oldest;
            gone.push(shard.remove(&oldest));
            shard.counts.evicted += 1;
        }
        drop(shard);
        drop(gone);
        true
    }

    /// Forgets one entry; whether it was there.
    pub fn purge(&self, key: &Key) -> bool {
        self.epoch_of(key).fetch_add(1, Ordering::Relaxed);
        let gone = self.shard(key).remove(key);
        gone.is_some()
    }

    /// Forgets all entries. Their memory is given back when what is returned is dropped.
    pub fn purge_all(&self) -> Purged {
        for epoch in &self.epochs {
            epoch.fetch_add(1, Ordering::Relaxed);
        }
        let empty = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            shard.by_expiry = BTreeSet::new();
            shard.bytes = 0;
            std::mem::replace(&mut shard.entries, none())
        };
        Purged(self.shards.iter().map(empty).collect())
    }

    /// Takes out some of what is over; whether there is more of it.
    pub fn sweep(&self, now: Moment) -> bool {
        let mut more = false;
        for shard in &self.shards {
            let mut gone: SmallVec<[Option<Arc<Entry>>; SWEPT]> = SmallVec::new();
            let mut shard = shard.lock();
            while gone.len() < SWEPT
                && let Some((expires, key)) = shard.by_expiry.first().copied()
                && expires <= now
            {
                gone.push(shard.remove(&key));
            }
            shard.counts.expired += gone.len() as u64;
            more |= gone.len() == SWEPT;
            drop(shard);
        }
        more
    }

    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes { budget: self.part * SHARDS, ..Sizes::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            sizes.entries += shard.entries.len();
            sizes.bytes += shard.bytes;
            sizes.hits += shard.counts.hits;
            sizes.misses += shard.counts.misses;
            sizes.evicted += shard.counts.evicted;
            sizes.expired += shard.counts.expired;
        }
        sizes
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.shards[usize::from(key.0[0]) % SHARDS].lock()
    }

    fn epoch_of(&self, key: &Key) -> &AtomicU32 {
        &self.epochs[usize::from(u16::from_le_bytes([key.0[1], key.0[2]])) % EPOCHS]
    }
}

fn none() -> Entries {
    LruCache::unbounded_with_hasher(ahash::RandomState::new())
}

impl Shard {
    /// Takes an entry out, for the caller to drop when the lock is gone.
    #[must_use]
    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.pop(key)?;
        self.by_expiry.remove(&(entry.expires, *key));
        self.bytes -= entry.size();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::plugin::cache::entry::tests::{entry, key};

    const NEVER: u64 = u64::MAX;

    fn store(memory: &Memory, key: Key, entry: Entry) -> bool {
        let epoch = memory.epoch(&key);
        memory.store(key, Arc::new(entry), epoch)
    }

    fn body(memory: &Memory, key: &Key, now: u64) -> Option<Bytes> {
        memory.find(key, Moment(now)).map(|entry| entry.body.clone())
    }

    #[test]
    fn entries_are_found_until_their_time_is_over() {
        let memory = Memory::new(1 << 20);
        assert_eq!(body(&memory, &key(1), 0), None);
        assert!(store(&memory, key(1), entry("one", 0, 1000)));
        assert!(store(&memory, key(2), entry("two", 0, NEVER)));
        assert_eq!(body(&memory, &key(1), 999), Some("one".into()));
        assert!(store(&memory, key(1), entry("other", 0, 2000)));
        assert_eq!(body(&memory, &key(1), 1999), Some("other".into()));
        assert_eq!(memory.peek(&key(1), Moment(2000)).map(|_| ()), None);
        assert_eq!(body(&memory, &key(1), 2000), None);
        assert_eq!(body(&memory, &key(2), NEVER - 1), Some("two".into()));
        let sizes = memory.sizes();
        assert_eq!((sizes.entries, sizes.hits, sizes.misses, sizes.expired, sizes.evicted), (1, 3, 2, 1, 0));
        assert_eq!(sizes.bytes, entry("two", 0, 0).size());
    }

    #[test]
    fn the_least_recently_used_give_way() {
        let size = entry("", 0, 0).size();
        let memory = Memory::new(SHARDS * size * 3);
        // all in one shard
        let key = |n: u8| Key(std::array::from_fn(|i| if i == 0 { 0 } else { n }));
        // no larger than the largest: three of these would not fit in a shard of 16 parts
        assert!(memory.largest() > size);
        for n in 0..3 {
            assert!(store(&memory, key(n), entry("", 0, NEVER)));
        }
        assert!(body(&memory, &key(0), 0).is_some());
        assert!(store(&memory, key(3), entry("", 0, NEVER)));
        assert_eq!([0, 1, 2, 3].map(|n| memory.find(&key(n), Moment(0)).is_some()), [true, false, true, true]);
        let sizes = memory.sizes();
        assert_eq!((sizes.entries, sizes.bytes, sizes.evicted), (3, 3 * size, 1));
    }

    #[test]
    fn an_entry_that_is_too_large_is_not_kept() {
        let memory = Memory::new(1 << 20);
        let large = |bytes: usize| Entry { body: vec![0; bytes].into(), ..entry("", 0, NEVER) };
        let overhead = entry("", 0, 0).size();
        assert_eq!(memory.largest(), (1 << 20) / LARGEST);
        assert!(!store(&memory, key(1), large(memory.largest() - overhead + 1)));
        assert!(store(&memory, key(1), large(memory.largest() - overhead)));
    }

    #[test]
    fn purges() {
        let memory = Memory::new(1 << 20);
        for n in 0..4 {
            assert!(store(&memory, key(n), entry("", 0, NEVER)));
        }
        assert!(memory.purge(&key(1)));
        assert!(!memory.purge(&key(1)));
        assert_eq!(memory.sizes().entries, 3);
        drop(memory.purge_all());
        assert_eq!((memory.sizes().entries, memory.sizes().bytes), (0, 0));
        assert!(!memory.sweep(Moment(NEVER)));
    }

    #[test]
    fn what_was_asked_for_before_a_purge_is_not_kept_after_it() {
        let memory = Memory::new(1 << 20);
        let epoch = memory.epoch(&key(1));
        memory.purge(&key(1));
        assert!(!memory.store(key(1), Arc::new(entry("old", 0, NEVER)), epoch));
        let epoch = memory.epoch(&key(1));
        drop(memory.purge_all());
        assert!(!memory.store(key(1), Arc::new(entry("old", 0, NEVER)), epoch));
        assert!(store(&memory, key(1), entry("new", 0, NEVER)));
    }

    #[test]
    fn what_is_over_is_swept_bit_by_bit() {
        let memory = Memory::new(1 << 20);
        for n in 0..200_u8 {
            let key = Key(std::array::from_fn(|i| if i == 0 { 0 } else { n }));
            assert!(store(&memory, key, entry("", 0, 1000 + u64::from(n))));
        }
        assert!(!memory.sweep(Moment(999)));
        let mut rounds = 1;
        while memory.sweep(Moment(1149)) {
            rounds += 1;
        }
        assert_eq!((memory.sizes().entries, memory.sizes().expired, rounds), (50, 150, 150 / SWEPT + 1));
    }

    /// The books are right after many threads have stored, found, purged and swept.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "threads of a test")]
    fn the_books_are_right() {
        let memory = Memory::new(200_000);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let memory = &memory;
                scope.spawn(move || {
                    for n in 0..5000_u64 {
                        let mut digest = [0; 32];
                        digest[..8].copy_from_slice(&(n * 7 % 997).to_le_bytes());
                        let key = Key(digest);
                        match (n + thread) % 5 {
                            0 => drop(memory.purge(&key)),
                            1 => drop(memory.sweep(Moment(n / 2))),
                            _ if memory.find(&key, Moment(n / 2)).is_none() => drop(store(memory, key, entry("abc", n, n))),
                            _ => {}
                        }
                    }
                });
            }
        });
        for shard in &memory.shards {
            let shard = shard.lock();
            let bytes: usize = shard.entries.iter().map(|(_, entry)| entry.size()).sum();
            assert_eq!((shard.bytes, shard.by_expiry.len()), (bytes, shard.entries.len()));
            assert!(shard.bytes <= memory.part);
        }
        while memory.sweep(Moment(NEVER)) {}
        assert_eq!((memory.sizes().entries, memory.sizes().bytes), (0, 0));
    }
}
