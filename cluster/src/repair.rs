//! Anti-entropy: how a node finds and exchanges what it and a peer do not have in common. The side that asks keeps the
//! state of the session; the side that answers keeps none, so that it cannot be made to hoard. Without I/O and time.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use crate::id::{Key, NodeId};
use crate::record::{BUCKETS, Record, bucket_of};
use crate::replica::{Digest, Replica};
use crate::wire::{Blob, CHUNK, Cursor, Line, Message, chunks};

/// How many buckets are asked for at once.
const BUCKETS_AT_ONCE: usize = 64;
/// How many records are asked for at once.
const KEYS_AT_ONCE: usize = 1_000;
/// How many bytes of records are in a portion of a snapshot: fewer round trips than with `CHUNK`, for a node that serves nobody yet.
const PORTION: usize = 1024 * 1024;
/// The most bytes of lines in an answer, unless a single bucket has more.
const LINES_BYTES: usize = 1024 * 1024;

/// What the owner of a session is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Message),
    /// Make these durable and effective, then call [`Session::committed`].
    Commit(Vec<Record>),
    /// Bring these to the peer, then call [`Session::pushed`].
    Push(Vec<Record>),
    /// Purge the tombstones up to the peer's horizon, then call [`Session::committed`].
    Adopt(u64),
    /// The end of a complete snapshot: drop what it did not have and what began before the horizon, then call `committed`.
    Drop {
        seen: BTreeSet<Key>,
        horizon: u64,
    },
    /// Everything that the peer had when the session began is here, and the other way round unless `one_way`.
    Done,
    /// There is nothing to gain: the peer has to come to us first.
    GiveUp,
}

#[derive(Debug)]
enum Phase {
    Sums,
    Lists,
    Records,
    Push,
    Snapshot,
    /// Waits for the commit of a portion of the snapshot; asks for the next from here.
    Portion(Option<Cursor>),
    /// Waits for the purge up to the peer's horizon.
    Adopting,
    /// Waits for the last commit.
    Last,
}

/// A session of the side that asks.
#[derive(Debug)]
pub struct Session {
    pub id: u64,
    pub peer: NodeId,
    phase: Phase,
    /// Whether the node's set was complete at a time that is later than the peer's horizon.
    complete_at: u64,
    buckets: VecDeque<u16>,
    fetch: VecDeque<Key>,
    asked: usize,
    push: VecDeque<Vec<Record>>,
    seen: BTreeSet<Key>,
    horizon: u64,
    /// Records that came.
    pub received: u64,
    pub sent: u64,
}

impl Session {
    /// A session that compares. `complete_at`: when this node last had all that a peer had, in milliseconds.
    pub fn compare(id: u64, peer: NodeId, complete_at: u64) -> (Self, Step) {
        (Self::new(id, peer, Phase::Sums, complete_at), Step::Ask(Message::AskSums { session: id }))
    }

    /// A session that takes everything, for a node that has nothing or that was away for too long.
    pub fn snapshot(id: u64, peer: NodeId) -> (Self, Step) {
        (Self::new(id, peer, Phase::Snapshot, 0), Step::Ask(Message::AskSnapshot { session: id, from: Cursor::START }))
    }

    fn new(id: u64, peer: NodeId, phase: Phase, complete_at: u64) -> Self {
        Self {
            id,
            peer,
            phase,
            complete_at,
            buckets: VecDeque::new(),
            fetch: VecDeque::new(),
            asked: 0,
            push: VecDeque::new(),
            seen: BTreeSet::new(),
            horizon: 0,
            received: 0,
            sent: 0,
        }
    }

    /// Whether it takes a complete copy.
    pub fn is_snapshot(&self) -> bool {
        matches!(self.phase, Phase::Snapshot | Phase::Portion(_))
    }

    /// An answer of the peer. `None`: it does not belong here, a late or a repeated one.
    pub fn answered(&mut self, replica: &Replica, message: Message) -> Option<Step> {
        match (&self.phase, message) {
            (Phase::Sums, Message::Sums { session, digest, sums, .. }) if session == self.id && sums.len() == BUCKETS => {
                Some(self.sums(replica, digest, &sums))
            }
            (Phase::Lists, Message::Lists { session, lists }) if session == self.id => self.lists(replica, lists),
            (Phase::Records, Message::Records { session, covered, records }) if session == self.id => {
                let covered = (covered as usize).min(self.asked);
                // An answer that covers nothing would go round in circles.
                self.fetch.drain(..covered.max(1).min(self.fetch.len()));
                Some(Step::Commit(self.open(&records)))
            }
            (Phase::Snapshot, Message::Snapshot { session, digest, records, next }) if session == self.id => {
                if next.as_ref().is_some_and(|next| usize::from(next.bucket) >= BUCKETS) {
                    return None;
                }
                self.horizon = self.horizon.max(digest.horizon);
                let records = self.open(&records);
                self.seen.extend(records.iter().map(|record| record.key.clone()));
                self.phase = Phase::Portion(next);
                Some(Step::Commit(records))
            }
            _ => None,
        }
    }

    fn open(&mut self, records: &[Blob]) -> Vec<Record> {
        // One record that cannot be read must not keep the others away.
        let records: Vec<Record> = records.iter().filter_map(|blob| blob.open().ok()).collect();
        self.received += records.len() as u64;
        records
    }

    fn sums(&mut self, replica: &Replica, theirs: Digest, sums: &[u128]) -> Step {
        let ours = replica.digest();
        if theirs.horizon < ours.horizon {
            return Step::GiveUp;
        }
        if theirs.horizon > ours.horizon {
            if self.complete_at >= theirs.horizon {
                self.phase = Phase::Adopting;
                return Step::Adopt(theirs.horizon);
            }
            self.phase = Phase::Snapshot;
            return Step::Ask(Message::AskSnapshot { session: self.id, from: Cursor::START });
        }
        let pairs = replica.sums().into_iter().zip(sums).enumerate();
        self.buckets = pairs.filter(|(_, (ours, theirs))| ours != *theirs).map(|(bucket, _)| bucket as u16).collect();
        self.next()
    }

    fn lists(&mut self, replica: &Replica, lists: Vec<(u16, Vec<Line>)>) -> Option<Step> {
        let mut send = Vec::new();
        let mut covered = false;
        for (bucket, lines) in lists {
            let Some(at) = self.buckets.iter().position(|wanted| *wanted == bucket) else { continue };
            self.buckets.remove(at);
            covered = true;
            let mut theirs = BTreeSet::new();
            for line in lines {
                if bucket_of(&line.key) != usize::from(bucket) {
                    continue;
                }
                let here = replica.get(&line.key).map(Line::of);
                if here.as_ref().is_none_or(|here| (here.version, here.hash) != (line.version, line.hash)) {
                    if here.as_ref().is_none_or(|here| here.version <= line.version) {
                        self.fetch.push_back(line.key.clone());
                    }
                    if here.as_ref().is_some_and(|here| here.version >= line.version) {
                        send.extend(replica.get(&line.key).cloned());
                    }
                }
                theirs.insert(line.key);
            }
            send.extend(replica.in_bucket(usize::from(bucket)).filter(|record| !theirs.contains(&record.key)).cloned());
        }
        // Only an answer that covers a bucket moves the session on.
        covered.then(|| {
            self.push.extend(chunks(send));
            self.next()
        })
    }

    /// What was to be committed is in effect.
    pub fn committed(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.phase, Phase::Last) {
            Phase::Records => Some(self.next()),
            Phase::Adopting => {
                self.phase = Phase::Sums;
                Some(Step::Ask(Message::AskSums { session: self.id }))
            }
            Phase::Portion(Some(from)) => {
                self.phase = Phase::Snapshot;
                Some(Step::Ask(Message::AskSnapshot { session: self.id, from }))
            }
            Phase::Portion(None) => Some(Step::Drop { seen: std::mem::take(&mut self.seen), horizon: self.horizon }),
            Phase::Last => Some(Step::Done),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The peer has what was pushed.
    pub fn pushed(&mut self) -> Option<Step> {
        matches!(self.phase, Phase::Push).then(|| self.next())
    }

    fn next(&mut self) -> Step {
        if !self.fetch.is_empty() {
            self.phase = Phase::Records;
            let keys: Vec<Key> = self.fetch.iter().take(KEYS_AT_ONCE).cloned().collect();
            self.asked = keys.len();
            return Step::Ask(Message::AskRecords { session: self.id, keys });
        }
        if let Some(records) = self.push.pop_front() {
            self.phase = Phase::Push;
            self.sent += records.len() as u64;
            return Step::Push(records);
        }
        if !self.buckets.is_empty() {
            self.phase = Phase::Lists;
            let buckets = self.buckets.iter().take(BUCKETS_AT_ONCE).copied().collect();
            return Step::Ask(Message::AskLists { session: self.id, buckets });
        }
        self.phase = Phase::Last;
        Step::Done
    }
}

/// The answer of the side that is asked; `None` for messages that are no questions of repair.
pub fn answer(replica: &Replica, ready: bool, question: &Message) -> Option<Message> {
    Some(match question {
        Message::AskSums { session } => Message::Sums { session: *session, digest: replica.digest(), ready, sums: replica.sums() },
        Message::AskLists { session, buckets } => {
            let mut lists: Vec<(u16, Vec<Line>)> = Vec::new();
            let mut bytes = 0;
            for bucket in buckets.iter().take(BUCKETS_AT_ONCE).copied() {
                let list: Vec<Line> = replica.in_bucket(usize::from(bucket)).map(Line::of).collect();
                bytes += list.iter().map(Line::size).sum::<usize>();
                if bytes > LINES_BYTES && !lists.is_empty() {
                    break;
                }
                lists.push((bucket, list));
            }
            Message::Lists { session: *session, lists }
        }
        Message::AskRecords { session, keys } => {
            let mut covered = 0;
            let mut bytes = 0;
            let mut records = Vec::new();
            for key in keys.iter().take(KEYS_AT_ONCE) {
                if let Some(record) = replica.get(key) {
                    bytes += record.size();
                    if bytes > CHUNK && !records.is_empty() {
                        break;
                    }
                    records.push(Blob::of(record));
                }
                covered += 1;
            }
            Message::Records { session: *session, covered, records }
        }
        Message::AskSnapshot { session, from } => {
            let (records, next) = portion(replica, from);
            Message::Snapshot { session: *session, digest: replica.digest(), records, next }
        }
        _ => return None,
    })
}

/// Records from the cursor on, and where to go on.
fn portion(replica: &Replica, from: &Cursor) -> (Vec<Blob>, Option<Cursor>) {
    let mut bytes = 0;
    let mut records: Vec<Blob> = Vec::new();
    let mut last = from.clone();
    for bucket in usize::from(from.bucket)..BUCKETS {
        let after = if bucket == usize::from(from.bucket) { from.after.as_ref() } else { None };
        for record in replica.in_bucket(bucket).filter(|record| after.is_none_or(|after| record.key > *after)) {
            bytes += record.size();
            if bytes > PORTION && !records.is_empty() {
                return (records, Some(last));
            }
            records.push(Blob::of(record));
            last = Cursor { bucket: bucket as u16, after: Some(record.key.clone()) };
        }
    }
    (records, None)
}
