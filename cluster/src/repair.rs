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
/// How many records are in a portion of a snapshot at most.
const RECORDS_AT_ONCE: usize = 4_096;
/// The most bytes of lines in an answer, unless a single bucket has more.
const LINES_BYTES: usize = 1024 * 1024;

/// What the owner of a session is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Message),
    /// Make these durable and effective, then call [`Session::committed`]. Several of these may be on their way; their ends are
    /// told in their order.
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

/// Which answer is waited for, or what else.
#[derive(Debug)]
enum Phase {
    Sums,
    Lists,
    Records,
    Push,
    Snapshot,
    /// For the commits of a snapshot of which everything is here.
    Taken,
    /// For the purge up to the peer's horizon.
    Adopting,
    /// For the last commit.
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
    /// How many questions there were. Each has a number of its own, so that an answer that comes twice is taken once.
    questions: u32,
    /// The next question, while there is no room for its answer.
    held: Option<Message>,
    /// The most bytes that are fetched while what came before is being committed, and one answer more.
    window: usize,
    /// Bytes of each commit that is on its way.
    commits: VecDeque<usize>,
    push: VecDeque<Vec<Record>>,
    seen: BTreeSet<Key>,
    horizon: u64,
    /// Records that came.
    pub received: u64,
    pub sent: u64,
}

impl Session {
    /// A session that compares. `complete_at`: when this node last had all that a peer had, in milliseconds. `window`: how many
    /// bytes may be here and not in effect yet before the peer is asked for more.
    pub fn compare(id: u64, peer: NodeId, complete_at: u64, window: usize) -> (Self, Step) {
        let mut session = Self::new(id, peer, Phase::Sums, complete_at, window);
        let question = Message::AskSums { session: session.number() };
        (session, Step::Ask(question))
    }

    /// A session that takes everything, for a node that has nothing or that was away for too long.
    pub fn snapshot(id: u64, peer: NodeId, window: usize) -> (Self, Step) {
        let mut session = Self::new(id, peer, Phase::Snapshot, 0, window);
        let question = Message::AskSnapshot { session: session.number(), from: Cursor::START };
        (session, Step::Ask(question))
    }

    /// A number for the next question: none of another session has it.
    fn number(&mut self) -> u64 {
        self.questions += 1;
        self.open()
    }

    /// The number of the question that is open.
    fn open(&self) -> u64 {
        (self.id << 32) | u64::from(self.questions)
    }

    fn new(id: u64, peer: NodeId, phase: Phase, complete_at: u64, window: usize) -> Self {
        Self {
            id,
            peer,
            phase,
            complete_at,
            buckets: VecDeque::new(),
            fetch: VecDeque::new(),
            asked: 0,
            questions: 0,
            held: None,
            window,
            commits: VecDeque::new(),
            push: VecDeque::new(),
            seen: BTreeSet::new(),
            horizon: 0,
            received: 0,
            sent: 0,
        }
    }

    /// Whether it takes a complete copy.
    pub fn is_snapshot(&self) -> bool {
        matches!(self.phase, Phase::Snapshot | Phase::Taken)
    }

    /// An answer of the peer; what is to be done, in this order. Nothing: it does not belong here, a late or a repeated one, or
    /// the session goes on when something is committed.
    pub fn answered(&mut self, replica: &Replica, message: Message) -> Vec<Step> {
        match (&self.phase, message) {
            (Phase::Sums, Message::Sums { session, digest, sums, .. }) if session == self.open() && sums.len() == BUCKETS => {
                self.sums(replica, digest, &sums).into_iter().collect()
            }
            (Phase::Lists, Message::Lists { session, lists }) if session == self.open() => self.lists(replica, lists).into_iter().collect(),
            (Phase::Records, Message::Records { session, covered, records }) if session == self.open() => {
                let covered = (covered as usize).min(self.asked);
                // An answer that covers nothing would go round in circles.
                self.fetch.drain(..covered.max(1).min(self.fetch.len()));
                let commit = self.take(&records);
                [commit].into_iter().chain(self.next()).collect()
            }
            (Phase::Snapshot, Message::Snapshot { session, digest, records, next }) if session == self.open() => {
                if next.as_ref().is_some_and(|next| usize::from(next.bucket) >= BUCKETS) {
                    return Vec::new();
                }
                self.horizon = self.horizon.max(digest.horizon);
                let commit = self.take(&records);
                if let Step::Commit(records) = &commit {
                    self.seen.extend(records.iter().map(|record| record.key.clone()));
                }
                let more = match next {
                    Some(from) => self.ask(|session| Message::AskSnapshot { session, from }),
                    None => {
                        self.phase = Phase::Taken;
                        None
                    }
                };
                [commit].into_iter().chain(more).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Records that came, to be committed.
    fn take(&mut self, records: &[Blob]) -> Step {
        // One record that cannot be read must not keep the others away.
        let records: Vec<Record> = records.iter().filter_map(|blob| blob.open().ok()).collect();
        self.received += records.len() as u64;
        self.commits.push_back(records.iter().map(|record| record.size()).sum());
        Step::Commit(records)
    }

    /// The next question, now or when there is room for its answer.
    fn ask(&mut self, question: impl FnOnce(u64) -> Message) -> Option<Step> {
        let question = question(self.number());
        self.ask_or_hold(question)
    }

    fn ask_or_hold(&mut self, question: Message) -> Option<Step> {
        if self.commits.iter().sum::<usize>() >= self.window {
            self.held = Some(question);
            return None;
        }
        Some(Step::Ask(question))
    }

    fn sums(&mut self, replica: &Replica, theirs: Digest, sums: &[u128]) -> Option<Step> {
        let ours = replica.digest();
        if theirs.horizon < ours.horizon {
            self.phase = Phase::Last;
            return Some(Step::GiveUp);
        }
        if theirs.horizon > ours.horizon {
            if self.complete_at >= theirs.horizon {
                self.phase = Phase::Adopting;
                self.commits.push_back(0);
                return Some(Step::Adopt(theirs.horizon));
            }
            self.phase = Phase::Snapshot;
            return self.ask(|session| Message::AskSnapshot { session, from: Cursor::START });
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
        if !covered {
            return None;
        }
        self.push.extend(chunks(send));
        self.next()
    }

    /// The first of what was to be committed is in effect.
    pub fn committed(&mut self) -> Option<Step> {
        self.commits.pop_front()?;
        if let Some(question) = self.held.take() {
            return self.ask_or_hold(question);
        }
        if !self.commits.is_empty() {
            return None;
        }
        match self.phase {
            Phase::Adopting => {
                self.phase = Phase::Sums;
                Some(Step::Ask(Message::AskSums { session: self.number() }))
            }
            Phase::Taken => {
                self.phase = Phase::Last;
                self.commits.push_back(0);
                Some(Step::Drop { seen: std::mem::take(&mut self.seen), horizon: self.horizon })
            }
            Phase::Last => Some(Step::Done),
            _ => None,
        }
    }

    /// The peer has what was pushed.
    pub fn pushed(&mut self) -> Option<Step> {
        if matches!(self.phase, Phase::Push) { self.next() } else { None }
    }

    fn next(&mut self) -> Option<Step> {
        if !self.fetch.is_empty() {
            self.phase = Phase::Records;
            let keys: Vec<Key> = self.fetch.iter().take(KEYS_AT_ONCE).cloned().collect();
            self.asked = keys.len();
            return self.ask(|session| Message::AskRecords { session, keys });
        }
        if let Some(records) = self.push.pop_front() {
            self.phase = Phase::Push;
            self.sent += records.len() as u64;
            return Some(Step::Push(records));
        }
        if !self.buckets.is_empty() {
            self.phase = Phase::Lists;
            let buckets = self.buckets.iter().take(BUCKETS_AT_ONCE).copied().collect();
            return self.ask(|session| Message::AskLists { session, buckets });
        }
        self.phase = Phase::Last;
        self.commits.is_empty().then_some(Step::Done)
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
            if (bytes > PORTION || records.len() >= RECORDS_AT_ONCE) && !records.is_empty() {
                return (records, Some(last));
            }
            records.push(Blob::of(record));
            last = Cursor { bucket: bucket as u16, after: Some(record.key.clone()) };
        }
    }
    (records, None)
}
