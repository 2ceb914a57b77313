//! The records of a node: kept by bucket, with their digests, and with what of them is in effect. Without I/O and time.

mod conflicts;
mod index;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use conflicts::{Conflict, ConflictError, Conflicts, Reason};
use index::Index;

use crate::clock::Stamp;
use crate::effective::{Effective, Value};
use crate::id::Key;
use crate::record::{BUCKETS, Record, Version, bucket_of};

/// What a node has, in a few bytes: the sum of its records' hashes, their number, and how far tombstones are purged. Nodes
/// with equal digests have equal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Digest {
    pub root: u128,
    pub count: u64,
    /// Milliseconds: tombstones of this time and older are gone, here and in the sum.
    pub horizon: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    sum: u128,
    records: BTreeMap<Key, Record>,
}

/// What became of a record that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the version of its key now.
    Applied,
    /// The same or a greater version was here.
    Known,
    /// It belongs to a life that began before the horizon and that is over: it may have been deleted, and nobody would know.
    TooOld,
}

/// Something that the node has to look at again: the record of the key has changed, or whether it is in effect, or whether
/// it answers to its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    /// The record when it is in effect; `None` when there is none, it is deleted, an orphan, or has lost an exclusive value.
    pub effective: Option<Record>,
    /// The values of this record that another one answers to; an orphan claims none.
    pub lost: Vec<Value>,
}

/// The records of a node.
#[derive(Debug)]
pub struct Replica {
    buckets: Vec<Bucket>,
    digest: Digest,
    /// Records that are not tombstones.
    alive: u64,
    index: Index,
    conflicts: Conflicts,
    /// Keys to look at again, since the last call of `take_changes`.
    touched: BTreeSet<Key>,
}

impl Default for Replica {
    fn default() -> Self {
        Self {
            buckets: std::iter::repeat_with(Bucket::default).take(BUCKETS).collect(),
            digest: Digest::default(),
            alive: 0,
            index: Index::default(),
            conflicts: Conflicts::default(),
            touched: BTreeSet::new(),
        }
    }
}

impl Replica {
    /// The records that a node has kept, and the horizon that it had.
    pub fn load(records: impl IntoIterator<Item = Record>, horizon: u64) -> Self {
        let mut replica = Self::default();
        for record in records {
            replica.apply(record);
        }
        replica.raise_horizon(horizon);
        replica.conflicts = Conflicts::default();
        replica.touched.clear();
        replica
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Records that are alive, in effect or not.
    pub fn alive(&self) -> u64 {
        self.alive
    }

    pub fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    /// Goes on with the log of conflicts that an earlier start has kept.
    pub fn recall(&mut self, conflicts: Conflicts) {
        self.conflicts = conflicts;
    }

    /// Whether a loser is of the past: the record that won was edited since by somebody who knew it, or deleted so long ago that
    /// nobody remembers, or what was dropped as too old was made anew.
    pub fn is_settled(&self, conflict: &Conflict) -> bool {
        let here = self.get(&conflict.record.key);
        match conflict.reason {
            Reason::Concurrent => here.is_none_or(|here| here.base >= conflict.record.version),
            Reason::TooOld => here.is_some_and(Record::is_alive),
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.bucket(key).records.get(key)
    }

    pub fn version(&self, key: &Key) -> Version {
        self.get(key).map_or(Version::NONE, |record| record.version)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> + Clone {
        self.buckets.iter().flat_map(|bucket| bucket.records.values())
    }

    /// The sums of all buckets, in their order.
    pub fn sums(&self) -> Vec<u128> {
        self.buckets.iter().map(|bucket| bucket.sum).collect()
    }

    /// The records of a bucket by key; nothing for a number that is none.
    pub fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = &Record> {
        self.buckets.get(bucket).into_iter().flat_map(|bucket| bucket.records.values())
    }

    /// Whether a record of the key is in effect.
    pub fn is_effective(&self, key: &Key) -> bool {
        self.index.is_effective(key)
    }

    /// The records that name this one as a parent, in effect or not.
    pub fn children(&self, key: &Key) -> Vec<Key> {
        self.index.children_of(key)
    }

    /// The record that answers to a value.
    pub fn owner(&self, value: &Value) -> Option<&Key> {
        self.index.owner(value)
    }

    /// All that is in effect, as the specification puts it.
    pub fn effective(&self) -> Effective {
        self.index.effective()
    }

    /// The greatest stamp of all records.
    pub fn last_stamp(&self) -> Stamp {
        self.records().map(|record| record.version.stamp).max().unwrap_or(Stamp::ZERO)
    }

    /// What `apply` would make of a record, without doing it.
    pub fn would(&self, record: &Record) -> Outcome {
        match self.get(&record.key) {
            Some(here) if record.beats(here) => Outcome::Applied,
            Some(_) => Outcome::Known,
            None if !record.is_alive() && record.version.stamp.millis() <= self.digest.horizon => Outcome::Known,
            None if record.is_alive() && self.digest.horizon > 0 && record.born.millis() <= self.digest.horizon => Outcome::TooOld,
            None => Outcome::Applied,
        }
    }

    /// Joins a record with the one of its key.
    pub fn apply(&mut self, record: Record) -> Outcome {
        let outcome = self.would(&record);
        let bucket = bucket_of(&record.key);
        match outcome {
            Outcome::TooOld => self.conflicts.add(record, Reason::TooOld),
            Outcome::Known => {
                if let Some(here) = self.buckets[bucket].records.get(&record.key)
                    && record.conflicts_with(here)
                {
                    self.conflicts.add(record, Reason::Concurrent);
                }
            }
            Outcome::Applied => self.replace(bucket, record),
        }
        outcome
    }

    fn replace(&mut self, bucket: usize, record: Record) {
        self.index.retract(&record.key, &mut self.touched);
        self.touched.insert(record.key.clone());
        self.account(bucket, &record, true);
        self.index.assert(&record, &mut self.touched);
        let key = record.key.clone();
        if let Some(old) = self.buckets[bucket].records.insert(key, record) {
            self.account(bucket, &old, false);
            let new = self.buckets[bucket].records.get(&old.key);
            if new.is_some_and(|new| new.conflicts_with(&old)) {
                self.conflicts.add(old, Reason::Concurrent);
            }
        }
    }

    /// Takes a record out without a trace: a purged tombstone, or one that a complete snapshot did not have.
    fn remove(&mut self, key: &Key) -> Option<Record> {
        let bucket = bucket_of(key);
        let old = self.buckets[bucket].records.remove(key)?;
        self.account(bucket, &old, false);
        if old.is_alive() {
            self.touched.insert(key.clone());
        }
        self.index.retract(key, &mut self.touched);
        Some(old)
    }

    fn account(&mut self, bucket: usize, record: &Record, add: bool) {
        let sum = |sum: u128| if add { sum.wrapping_add(record.hash()) } else { sum.wrapping_sub(record.hash()) };
        self.buckets[bucket].sum = sum(self.buckets[bucket].sum);
        self.digest.root = sum(self.digest.root);
        let count = |count: u64, one: u64| if add { count + one } else { count - one };
        self.digest.count = count(self.digest.count, 1);
        self.alive = count(self.alive, u64::from(record.is_alive()));
    }

    /// The tombstones that the horizon would purge.
    pub fn purged_by(&self, horizon: u64) -> Vec<Key> {
        let purged = |record: &&Record| !record.is_alive() && record.version.stamp.millis() <= horizon;
        self.records().filter(purged).map(|record| record.key.clone()).collect()
    }

    /// Purges tombstones of this time and older, and answers which. The horizon is never lowered.
    pub fn raise_horizon(&mut self, millis: u64) -> Vec<Key> {
        if millis <= self.digest.horizon {
            return Vec::new();
        }
        self.digest.horizon = millis;
        let purged = self.purged_by(millis);
        for key in &purged {
            self.remove(key);
        }
        purged
    }

    /// What a node that was away for too long drops after a complete snapshot: records that the snapshot does not have and
    /// whose life began before the horizon. They may have been deleted while it was away, so they go to the conflict log.
    pub fn drop_unseen(&mut self, seen: &BTreeSet<Key>, horizon: u64) -> Vec<Key> {
        let unseen: Vec<Key> = self.unseen(seen, horizon);
        for key in &unseen {
            if let Some(record) = self.remove(key)
                && record.is_alive()
            {
                self.conflicts.add(record, Reason::TooOld);
            }
        }
        unseen
    }

    /// The records that `drop_unseen` would drop.
    pub fn unseen(&self, seen: &BTreeSet<Key>, horizon: u64) -> Vec<Key> {
        let old = self.records().filter(|record| record.born.millis() <= horizon);
        old.filter(|record| !seen.contains(&record.key)).map(|record| record.key.clone()).collect()
    }

    /// The keys that are to be looked at again since the last call, with what stands there now.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.touched).into_iter().map(|key| self.change(key)).collect()
    }

    /// Names the key among the next changes.
    pub fn look_again(&mut self, key: Key) {
        self.touched.insert(key);
    }

    /// How a key stands.
    pub fn change(&self, key: Key) -> Change {
        let record = self.get(&key);
        let effective = record.filter(|_| self.index.is_effective(&key)).cloned();
        let claims = record.filter(|_| self.index.is_rooted(&key)).map_or(&[][..], |record| &record.claims);
        let values = claims.iter().map(|claim| (claim.field.clone(), claim.value.clone()));
        let lost = values.filter(|value| self.index.owner(value).is_some_and(|owner| *owner != key)).collect();
        Change { key, effective, lost }
    }

    /// Records that are alive and not in effect, with the values that each has lost: orphans and losers.
    pub fn ineffective(&self) -> impl Iterator<Item = Change> {
        let records = self.records().filter(|record| record.is_alive() && !self.index.is_effective(&record.key));
        records.map(|record| self.change(record.key.clone()))
    }

    /// Records that are in effect without some of their values.
    pub fn losers(&self) -> impl Iterator<Item = Change> {
        let records = self.records().filter(|record| !record.claims.is_empty() && self.index.is_effective(&record.key));
        records.map(|record| self.change(record.key.clone())).filter(|change| !change.lost.is_empty())
    }

    /// Recomputes all sums from the records and corrects them; answers whether they were right. What was wrong would be a
    /// fault of the program or of the memory.
    pub fn scrub(&mut self) -> bool {
        let mut root = 0_u128;
        let mut count = 0_u64;
        let mut right = true;
        for bucket in &mut self.buckets {
            let sum = bucket.records.values().fold(0_u128, |sum, record| sum.wrapping_add(record.hash()));
            right &= sum == bucket.sum;
            bucket.sum = sum;
            root = root.wrapping_add(sum);
            count += bucket.records.len() as u64;
        }
        right &= root == self.digest.root && count == self.digest.count;
        self.digest.root = root;
        self.digest.count = count;
        right
    }

    fn bucket(&self, key: &Key) -> &Bucket {
        &self.buckets[bucket_of(key)]
    }
}
