//! One batch at a time: gathered, made durable, applied to the records, put in effect, acknowledged.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::writes::Prepared;
use super::*;
use crate::record::Record;
use crate::replica::Outcome;
use crate::wire::Blob;

/// The most bytes of records in a batch, unless one job has more.
const MAX_BATCH: usize = 4 * 1024 * 1024;
/// The most records in a batch, unless one job has more: what is put in effect at once is held several times meanwhile.
pub(super) const MAX_RECORDS: usize = 8_192;
/// The most bytes that wait.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// What waits to be made durable.
#[derive(Debug)]
pub(super) enum Job {
    Write(Prepared),
    /// A peer's push, to be acknowledged.
    Push {
        from: NodeId,
        seq: u64,
        records: Vec<Record>,
        unreadable: u32,
    },
    /// What a session of repair has fetched.
    Fetched {
        session: u64,
        records: Vec<Record>,
    },
    /// Purge, and for a session adopt the peer's horizon.
    Horizon {
        millis: u64,
        session: Option<u64>,
    },
    /// The end of a complete snapshot.
    Drop {
        session: u64,
        seen: BTreeSet<Key>,
        horizon: u64,
    },
    /// Write the meta data.
    Meta,
}

impl Job {
    fn size(&self) -> usize {
        match self {
            Self::Write(write) => write.size(),
            Self::Push { records, .. } | Self::Fetched { records, .. } => records.iter().map(|record| record.size()).sum(),
            Self::Horizon { .. } | Self::Drop { .. } | Self::Meta => 0,
        }
    }

    /// How many records it brings.
    fn records(&self) -> usize {
        match self {
            Self::Write(write) => write.drafts(),
            Self::Push { records, .. } | Self::Fetched { records, .. } => records.len(),
            Self::Horizon { .. } | Self::Drop { .. } | Self::Meta => 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    max: usize,
}

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { jobs: VecDeque::new(), bytes: 0, max }
    }

    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn is_full(&self) -> bool {
        self.jobs.len() >= self.max || self.bytes >= MAX_QUEUED_BYTES
    }

    /// Of jobs that others send, the caller asks `is_full` first; the node's own are few.
    pub fn push(&mut self, job: Job) {
        self.bytes += job.size();
        self.jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.bytes = self.bytes.saturating_sub(job.size());
        Some(job)
    }

    /// Whether the next job can be in the batch with those before it.
    fn next_fits(&self, batch: &Batch) -> bool {
        let fits = |job: &Job| !matches!(job, Job::Horizon { .. } | Job::Drop { .. }) && batch.records.len() + job.records() <= MAX_RECORDS;
        batch.done.is_empty() || self.jobs.front().is_none_or(fits)
    }
}

/// What is to happen when the batch is in effect.
#[derive(Debug)]
enum Done {
    Write {
        ticket: u64,
        records: Vec<Record>,
        prepared: Prepared,
    },
    /// `too_old` of the records are not taken, `unreadable` ones are not even known.
    Push {
        from: NodeId,
        seq: u64,
        keys: Vec<Key>,
        too_old: u32,
        unreadable: u32,
    },
    Fetched {
        session: u64,
        too_old: u32,
    },
    Horizon {
        millis: u64,
        session: Option<u64>,
    },
    Drop {
        session: u64,
        seen: BTreeSet<Key>,
        horizon: u64,
    },
    Meta,
}

#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    /// In the order in which they came; a later one of a key beats an earlier one.
    records: Vec<Record>,
    done: Vec<Done>,
    committed: bool,
}

impl Batch {
    pub fn is_committed(&self) -> bool {
        self.committed
    }
}

impl Engine {
    /// Starts the next batch if none is on its way.
    pub(super) fn pump(&mut self, now: Now) {
        while self.inflight.is_none() && self.queue.len() > 0 {
            let number = self.number();
            let mut batch = Batch { number, records: Vec::new(), done: Vec::new(), committed: false };
            let mut overlay: HashMap<Key, Record> = HashMap::new();
            let mut removed = Vec::new();
            let mut bytes = 0;
            let mut horizon = self.replica.digest().horizon;
            let mut must = false;
            while bytes < MAX_BATCH && self.queue.next_fits(&batch) {
                let Some(job) = self.queue.pop() else { break };
                bytes += job.size();
                match job {
                    Job::Write(prepared) => self.join_write(prepared, &mut batch, &mut overlay, now),
                    Job::Push { from, seq, records, unreadable } => {
                        let keys = records.iter().map(|record| record.key.clone()).collect();
                        let too_old = self.join_all(records, &mut batch, &mut overlay);
                        batch.done.push(Done::Push { from, seq, keys, too_old, unreadable });
                    }
                    Job::Fetched { session, records } => {
                        let too_old = self.join_all(records, &mut batch, &mut overlay);
                        batch.done.push(Done::Fetched { session, too_old });
                    }
                    Job::Horizon { millis, session } => {
                        horizon = horizon.max(millis);
                        removed.extend(self.replica.purged_by(millis));
                        batch.done.push(Done::Horizon { millis, session });
                    }
                    Job::Drop { session, seen, horizon: of } => {
                        horizon = horizon.max(of);
                        removed.extend(self.replica.unseen(&seen, of));
                        removed.extend(self.replica.purged_by(of));
                        batch.done.push(Done::Drop { session, seen, horizon: of });
                    }
                    Job::Meta => {
                        must = true;
                        batch.done.push(Done::Meta);
                    }
                }
                if matches!(batch.done.last(), Some(Done::Horizon { .. } | Done::Drop { .. })) {
                    must = true;
                    break;
                }
            }
            if batch.records.is_empty() && !must {
                self.finish(batch, &BTreeSet::new(), now);
                continue;
            }
            let mut put: Vec<Record> = overlay.into_values().collect();
            put.sort_by(|a, b| a.key.cmp(&b.key));
            self.suspects.add(&put, now.mono);
            self.meta_saved_at = now.mono;
            let meta = Meta { horizon, complete_at: self.complete_at, ever_ready: self.ever_ready, suspects: self.suspects.list() };
            removed.sort();
            removed.dedup();
            self.out.push(Action::Commit { commit: number, changes: Commit { put, removed, meta } });
            self.inflight = Some(batch);
        }
    }

    fn join_write(&mut self, prepared: Prepared, batch: &mut Batch, overlay: &mut HashMap<Key, Record>, now: Now) {
        match self.draw_up(&prepared, overlay, now) {
            Ok(records) => {
                for record in &records {
                    overlay.insert(record.key.clone(), record.clone());
                    batch.records.push(record.clone());
                }
                batch.done.push(Done::Write { ticket: prepared.ticket, records, prepared });
            }
            Err(refusal) => {
                self.release(&prepared);
                self.answer(prepared.ticket, Answer::Refused(refusal));
            }
        }
    }

    /// Takes the records that are news; answers how many are too old to be taken.
    fn join_all(&mut self, records: Vec<Record>, batch: &mut Batch, overlay: &mut HashMap<Key, Record>) -> u32 {
        let mut refused = 0;
        for record in records {
            self.clock.observe(record.version.stamp);
            match self.replica.would(&record) {
                Outcome::Applied if overlay.get(&record.key).is_none_or(|planned| record.beats(planned)) => {
                    self.counters.received += 1;
                    overlay.insert(record.key.clone(), record.clone());
                    batch.records.push(record);
                }
                // It lost against one that comes with this batch; when that is in, the loser is looked at again.
                Outcome::Applied => batch.records.push(record),
                outcome => {
                    refused += u32::from(outcome == Outcome::TooOld);
                    // Changes nothing but the log of conflicts.
                    self.replica.apply(record);
                }
            }
        }
        self.counters.too_old += u64::from(refused);
        refused
    }

    pub(super) fn pushed_here(&mut self, from: NodeId, seq: u64, records: &[Blob], now: Now) {
        if self.queue.is_full() {
            // Without an acknowledgement the sender knows; repair will bring it.
            self.counters.dropped += 1;
            self.overloaded_at = Some(now.mono);
            return;
        }
        let all = records.len();
        let records: Vec<Record> = records.iter().filter_map(|blob| blob.open().ok()).collect();
        let unreadable = (all - records.len()) as u32;
        self.counters.unreadable += u64::from(unreadable);
        self.queue.push(Job::Push { from, seq, records, unreadable });
    }

    pub(super) fn committed(&mut self, commit: u64, now: Now) {
        let Some(mut batch) = self.inflight.take_if(|batch| batch.number == commit && !batch.committed) else { return };
        batch.committed = true;
        self.counters.commits += 1;
        for record in std::mem::take(&mut batch.records) {
            self.note_arrival(&record, now);
            self.quarantined.remove(&record.key);
            self.has_come(&record);
            self.replica.apply(record);
        }
        for done in &batch.done {
            let purged = match done {
                Done::Horizon { millis, .. } => self.replica.raise_horizon(*millis),
                Done::Drop { seen, horizon, .. } => {
                    self.counters.snapshots += 1;
                    self.replica.drop_unseen(seen, *horizon);
                    self.replica.raise_horizon(*horizon)
                }
                _ => continue,
            };
            self.counters.purged += purged.len() as u64;
        }
        self.pass_horizon();
        self.inflight = Some(batch);
        self.recent.push_back((now.mono, self.replica.digest()));
        if self.recent.len() > 256 {
            self.recent.pop_front();
        }
        let changes = self.changes();
        if changes.is_empty() {
            self.applied(commit, Vec::new(), now);
        } else {
            self.out.push(Action::Apply { commit, changes });
        }
    }

    /// What is to be looked at again: what has changed, and below it what could not be used before.
    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            let mut more: Vec<Change> = self.replica.take_changes();
            if more.is_empty() {
                return changes;
            }
            more.retain(|change| !change.key.is_internal());
            for change in &mut more {
                self.bad.remove(&change.key);
                if self.is_quarantined(change) {
                    change.effective = None;
                }
            }
            for parent in more.iter().filter(|change| change.effective.is_some()) {
                for child in self.replica.children(&parent.key) {
                    if self.bad.contains_key(&child) {
                        self.replica.look_again(child);
                    }
                }
            }
            changes.append(&mut more);
        }
    }

    pub(super) fn commit_failed(&mut self, commit: u64, reason: &str, now: Now) {
        let Some(batch) = self.inflight.take_if(|batch| batch.number == commit && !batch.committed) else { return };
        self.counters.commits_failed += 1;
        for done in batch.done {
            match done {
                Done::Write { ticket, prepared, .. } => {
                    self.release(&prepared);
                    self.answer(ticket, Answer::Refused(Refusal::Storage(reason.to_owned())));
                }
                // Not acknowledged: the peer's next repair brings it again.
                Done::Push { .. } | Done::Meta => (),
                Done::Fetched { session, .. } | Done::Horizon { session: Some(session), .. } | Done::Drop { session, .. } => {
                    self.abort_session_of(session, now);
                }
                // The next look at the tombstones finds the same.
                Done::Horizon { session: None, .. } => (),
            }
        }
    }

    pub(super) fn applied(&mut self, commit: u64, rejected: Vec<(Key, String)>, now: Now) {
        let Some(batch) = self.inflight.take_if(|batch| batch.number == commit && batch.committed) else { return };
        let unusable = rejected.iter().map(|(key, _)| key.clone()).collect();
        self.note_bad(rejected);
        self.finish(batch, &unusable, now);
    }

    /// Records that the node could not put in effect: fewer than there are records.
    pub fn note_bad(&mut self, rejected: Vec<(Key, String)>) {
        self.bad.extend(rejected);
    }

    /// `unusable`: those of the batch that the node could not put in effect.
    fn finish(&mut self, batch: Batch, unusable: &BTreeSet<Key>, now: Now) {
        let mut written = Vec::new();
        for done in batch.done {
            match done {
                Done::Write { ticket, records, prepared } => {
                    self.release(&prepared);
                    written.push((ticket, records, prepared));
                }
                Done::Push { from, seq, keys, too_old, unreadable } => {
                    let unusable = keys.iter().filter(|key| unusable.contains(key)).count() as u32;
                    self.send(from, Message::Ack { seq, refused: too_old + unreadable + unusable });
                    if too_old > 0 {
                        self.send(from, Message::Stale { horizon: self.replica.digest().horizon });
                    }
                }
                Done::Fetched { session: of, too_old } => {
                    if too_old > 0
                        && let Some(peer) = self.session.as_ref().filter(|session| session.id == of).map(|session| session.peer)
                    {
                        self.send(peer, Message::Stale { horizon: self.replica.digest().horizon });
                    }
                    self.session_committed(of, now);
                }
                Done::Horizon { session: Some(session), .. } | Done::Drop { session, .. } => self.session_committed(session, now),
                Done::Horizon { session: None, .. } => (),
                Done::Meta => (),
            }
        }
        self.push_out(written, unusable, now);
    }
}
