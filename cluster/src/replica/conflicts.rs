//! What lost: the bodies of edits that were made without knowledge of the one that won. Bounded; the oldest go first.

use std::collections::VecDeque;

use crate::record::Record;

/// The most losers that are kept.
const MAX_ENTRIES: usize = 1_000;
/// The most bytes that they take.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a record is not the one of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another edit, made without knowledge of this one, has the greater version.
    Concurrent,
    /// It is from before the time to which deletions are remembered.
    TooOld,
}

/// A record that lost.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub record: Record,
    pub reason: Reason,
}

/// The log of losers of this node: each node has seen other losers.
#[derive(Debug, Default)]
pub struct Conflicts {
    entries: VecDeque<Conflict>,
    bytes: usize,
    total: u64,
}

impl Conflicts {
    pub(super) fn add(&mut self, record: Record, reason: Reason) {
        let same = |entry: &Conflict| entry.record.key == record.key && entry.record.hash() == record.hash();
        if self.entries.iter().rev().take(100).any(same) {
            return;
        }
        self.total += 1;
        self.bytes += record.size();
        self.entries.push_back(Conflict { record, reason });
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(gone) = self.entries.pop_front() else { break };
            self.bytes -= gone.record.size();
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Conflict> {
        self.entries.iter()
    }

    /// How many there have been since the start of the node, with those that are no longer kept.
    pub fn total(&self) -> u64 {
        self.total
    }
}
