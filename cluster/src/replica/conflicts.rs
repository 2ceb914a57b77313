//! What lost: the bodies of edits that were made without knowledge of the one that won. Bounded; the oldest go first.

use std::collections::VecDeque;

use crate::record::{Record, RecordError};

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

const CONCURRENT: u8 = 0;
const TOO_OLD: u8 = 1;

/// A record that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub record: Record,
    pub reason: Reason,
}

/// Bytes that are not a conflict.
#[derive(Debug, thiserror::Error)]
pub enum ConflictError {
    #[error("a conflict for a reason that this release does not know")]
    Reason,
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Conflict {
    /// As it is kept: a byte for the reason, then the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![match self.reason {
            Reason::Concurrent => CONCURRENT,
            Reason::TooOld => TOO_OLD,
        }];
        bytes.extend(self.record.encode());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ConflictError> {
        let (reason, record) = match bytes.split_first() {
            Some((&CONCURRENT, record)) => (Reason::Concurrent, record),
            Some((&TOO_OLD, record)) => (Reason::TooOld, record),
            _ => return Err(ConflictError::Reason),
        };
        Ok(Self { record: Record::decode(record)?, reason })
    }
}

/// The log of losers of this node: each node has seen other losers.
#[derive(Debug, Default)]
pub struct Conflicts {
    entries: VecDeque<Conflict>,
    bytes: usize,
    /// The number of the newest entry; they are numbered one by one, over restarts too.
    last: u64,
    total: u64,
}

impl Conflicts {
    /// The log as it was kept, oldest first, with the number of each.
    pub fn recall(kept: Vec<(u64, Conflict)>) -> Self {
        let mut log = Self::default();
        for (number, conflict) in kept {
            // One that could not be read has left a gap: those before it get the numbers next to those behind it.
            log.last = number;
            log.push(conflict);
        }
        log
    }

    pub(super) fn add(&mut self, record: Record, reason: Reason) {
        let same = |entry: &Conflict| entry.record.key == record.key && entry.record.hash() == record.hash();
        if self.entries.iter().rev().take(100).any(same) {
            return;
        }
        self.total += 1;
        self.last += 1;
        self.push(Conflict { record, reason });
    }

    fn push(&mut self, conflict: Conflict) {
        self.bytes += conflict.record.size();
        self.entries.push_back(conflict);
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(gone) = self.entries.pop_front() else { break };
            self.bytes -= gone.record.size();
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Conflict> {
        self.entries.iter()
    }

    /// The number of the newest that there has been.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number of the oldest that is there, or would be.
    pub fn first(&self) -> u64 {
        self.last + 1 - self.entries.len() as u64
    }

    /// Those that came behind the number, oldest first, with their own.
    pub fn since(&self, number: u64) -> impl Iterator<Item = (u64, &Conflict)> {
        (self.first()..).zip(&self.entries).filter(move |(own, _)| *own > number)
    }

    /// How many there have been since the start of the node, with those that are no longer kept.
    pub fn total(&self) -> u64 {
        self.total
    }
}
