//! Writes of this node: drawn up from drafts, pushed to the peers, answered when enough of them have it in effect.

use std::collections::BTreeSet;

use super::*;
use crate::clock::Stamp;
use crate::record::{Claim, MAX_BODY, MAX_LINKS, Record};
use crate::wire::{Blob, Wanted, chunks};

/// The most drafts of one write.
pub const MAX_DRAFTS: usize = 10_000;
/// The most unique values that a write gives for the first time.
pub const MAX_NEW_VALUES: usize = 10_000;
/// The most bytes that a peer may owe acknowledgements for; past that, repair brings it what it lacks.
const MAX_OWED: usize = 8 * 1024 * 1024;
/// How long an acknowledgement is waited for, in milliseconds.
const OWED_FOR: u64 = 10_000;

/// A write on its way to the disk.
#[derive(Debug)]
pub(super) struct Prepared {
    pub ticket: u64,
    pub drafts: Vec<Draft>,
    pub concern: Concern,
    pub deadline: u64,
    /// When its new values were claimed.
    pub claimed_at: Option<Stamp>,
    pub reserved: Vec<Value>,
    /// Peers that did not answer whether the values are free.
    pub unasked: usize,
}

impl Prepared {
    pub fn size(&self) -> usize {
        self.drafts.iter().map(|draft| 200 + draft.body.as_ref().map_or(0, |body| body.len())).sum()
    }

    pub fn drafts(&self) -> usize {
        self.drafts.len()
    }

    /// Whether the write leaves a record without a value.
    pub fn gives_up(&self, key: &Key, (field, value): &Value) -> bool {
        let draft = self.drafts.iter().rev().find(|draft| draft.key == *key);
        let has = |draft: &Draft| draft.unique.iter().any(|unique| unique.field == *field && unique.value == *value);
        draft.is_some_and(|draft| draft.body.is_none() || !has(draft))
    }
}

/// A write that is in effect here and waits for its peers.
#[derive(Debug)]
pub(super) struct Wait {
    versions: Vec<(Key, Version)>,
    applied: usize,
    of: usize,
    needed: usize,
    deadline: u64,
    unasked: usize,
    /// Peers that may still acknowledge.
    open: usize,
}

/// The pushes of a batch to one peer.
#[derive(Debug)]
struct Group {
    left: usize,
    ok: bool,
    tickets: Vec<u64>,
}

#[derive(Debug)]
struct Owed {
    to: NodeId,
    group: u64,
    bytes: usize,
    since: u64,
}

/// What was pushed and is not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    groups: HashMap<u64, Group>,
    owed: BTreeMap<u64, Owed>,
    bytes: HashMap<NodeId, usize>,
}

impl Engine {
    /// Why the node takes no writes at the moment.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if !self.ready {
            return Some(Refusal::NotReady);
        }
        let skew = self.skew();
        (skew.unsigned_abs() > self.config.max_skew).then_some(Refusal::Skewed(skew))
    }

    pub(super) fn write(&mut self, ticket: u64, drafts: Vec<Draft>, concern: Concern, timeout: u64, now: Now) {
        if let Some(refusal) = self.refusal() {
            return self.answer(ticket, Answer::Refused(refusal));
        }
        if drafts.iter().any(|draft| draft.key.is_internal()) {
            let reason = "none of the cluster's own kinds can be written".to_owned();
            return self.answer(ticket, Answer::Refused(Refusal::Invalid(reason)));
        }
        if let Some(refusal) = too_large(&drafts) {
            return self.answer(ticket, Answer::Refused(refusal));
        }
        let max = self.config.max_queued;
        if self.queue.is_full() || self.rounds.len() >= max || self.waits.len() >= max * 4 {
            return self.answer(ticket, Answer::Refused(Refusal::Busy));
        }
        self.counters.writes += 1;
        self.prepare(ticket, drafts, concern, now.mono + timeout, now);
    }

    pub(super) fn prepare(&mut self, ticket: u64, drafts: Vec<Draft>, concern: Concern, deadline: u64, now: Now) {
        let wanted = self.new_values(&drafts);
        let write = Prepared { ticket, drafts, concern, deadline, claimed_at: None, reserved: Vec::new(), unasked: 0 };
        if wanted.len() > MAX_NEW_VALUES {
            let what = "new unique values in one change".to_owned();
            let refusal = Refusal::TooLarge { what, has: wanted.len(), most: MAX_NEW_VALUES };
            return self.answer(ticket, Answer::Refused(refusal));
        }
        if wanted.is_empty() {
            self.queue.push(Job::Write(write));
        } else {
            self.begin_round(write, wanted, now);
        }
    }

    /// The unique values of a write that its entities do not have yet.
    fn new_values(&self, drafts: &[Draft]) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for draft in drafts.iter().filter(|draft| draft.body.is_some()) {
            let here = self.replica.get(&draft.key);
            for unique in &draft.unique {
                if here.and_then(|here| claim_of(here, unique)).is_none() {
                    wanted.push(Wanted { key: draft.key.clone(), field: unique.field.clone(), value: unique.value.clone() });
                }
            }
        }
        wanted
    }

    /// Makes records of drafts, on top of what is here and what comes before them in the batch.
    pub(super) fn draw_up(&mut self, write: &Prepared, overlay: &HashMap<Key, Record>, now: Now) -> Result<Vec<Record>, Refusal> {
        let mut records: Vec<Record> = Vec::new();
        let mut own: HashMap<Key, Record> = HashMap::new();
        for draft in &write.drafts {
            let here = own.get(&draft.key).or_else(|| overlay.get(&draft.key)).or_else(|| self.replica.get(&draft.key));
            let base = here.map_or(Version::NONE, |here| here.version);
            if draft.expect.is_some_and(|expect| expect != base) {
                return Err(Refusal::Changed(draft.key.clone()));
            }
            // What is not there needs no deleting.
            if draft.body.is_none() && !base.is_alive() {
                continue;
            }
            let stamp = self.clock.tick(now.wall);
            let life = match here {
                None => first_life(stamp),
                Some(_) => base.life + u64::from(draft.body.is_none() || !base.is_alive()),
            };
            let same_life = here.filter(|_| life == base.life);
            let claims = draft.unique.iter().map(|unique| {
                let since = same_life.and_then(|here| claim_of(here, unique)).map(|claim| claim.since);
                let since = since.or(write.claimed_at).unwrap_or(stamp);
                Claim { field: unique.field.clone(), value: unique.value.clone(), since, exclusive: unique.exclusive }
            });
            let deleted = draft.body.is_none();
            let claims = if deleted { Vec::new() } else { claims.collect() };
            let parents = if deleted { Vec::new() } else { draft.parents.clone() };
            let born = if deleted { here.map_or(stamp, |here| here.born) } else { same_life.map_or(stamp, |here| here.born) };
            let version = Version { life, stamp };
            let record = Record::new(draft.key.clone(), version, base, born, parents, claims, draft.body.clone())
                .map_err(|error| Refusal::Invalid(error.to_string()))?;
            own.insert(draft.key.clone(), record.clone());
            records.push(record);
        }
        Ok(records)
    }

    /// Brings what this node has written to its live peers, and makes the writers wait for as many as they want. What is
    /// `unusable` here may be in effect elsewhere.
    pub(super) fn push_out(&mut self, written: Vec<(u64, Vec<Record>, Prepared)>, unusable: &BTreeSet<Key>, now: Now) {
        if written.is_empty() {
            return;
        }
        let peers: Vec<NodeId> = self.live().collect();
        let of = peers.len() + 1;
        let tickets: Vec<u64> = written.iter().map(|(ticket, ..)| *ticket).collect();
        let mut records = Vec::new();
        for (ticket, own, prepared) in written {
            let wanted = match prepared.concern {
                Concern::None => 1,
                Concern::Nodes(nodes) => nodes,
                Concern::Majority => of / 2 + 1,
                Concern::All => of,
            };
            let versions = own.iter().map(|record| (record.key.clone(), record.version)).collect();
            let here = !own.iter().any(|record| unusable.contains(&record.key));
            records.extend(own);
            let (unasked, deadline) = (prepared.unasked, prepared.deadline);
            let wait = Wait { versions, applied: usize::from(here), of, needed: wanted.min(of), deadline, unasked, open: peers.len() };
            self.waits.insert(ticket, wait);
        }
        let chunks = chunks(records);
        if chunks.is_empty() {
            for ticket in &tickets {
                if let Some(wait) = self.waits.get_mut(ticket) {
                    wait.applied = wait.of;
                }
            }
        } else {
            for peer in peers {
                self.push_to(peer, &chunks, &tickets, now);
            }
        }
        self.answer_waits(now);
    }

    fn push_to(&mut self, peer: NodeId, chunks: &[Vec<Record>], tickets: &[u64], now: Now) {
        let bytes: usize = chunks.iter().flatten().map(Record::size).sum();
        let owed = self.pushes.bytes.entry(peer).or_default();
        if *owed > 0 && *owed + bytes > MAX_OWED {
            self.counters.dropped += 1;
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.skipped_at = Some(now.mono);
            }
            self.close(tickets);
            return;
        }
        *owed += bytes;
        let group = self.number();
        self.pushes.groups.insert(group, Group { left: chunks.len(), ok: true, tickets: tickets.to_vec() });
        for chunk in chunks {
            let seq = self.number();
            let bytes = chunk.iter().map(Record::size).sum();
            self.pushes.owed.insert(seq, Owed { to: peer, group, bytes, since: now.mono });
            self.send(peer, Message::Push { seq, records: chunk.iter().map(Blob::of).collect() });
        }
    }

    pub(super) fn acknowledged(&mut self, from: NodeId, seq: u64, refused: u32, now: Now) {
        if self.session_push == Some(seq) && self.session.as_ref().is_some_and(|session| session.peer == from) {
            self.session_push = None;
            return self.session_pushed(now);
        }
        if self.pushes.owed.get(&seq).is_some_and(|owed| owed.to == from) {
            self.settle(seq, refused == 0);
            self.answer_waits(now);
        }
    }

    /// One push is acknowledged, or never will be.
    fn settle(&mut self, seq: u64, ok: bool) {
        let Some(owed) = self.pushes.owed.remove(&seq) else { return };
        if let Some(bytes) = self.pushes.bytes.get_mut(&owed.to) {
            *bytes = bytes.saturating_sub(owed.bytes);
        }
        let Some(group) = self.pushes.groups.get_mut(&owed.group) else { return };
        group.left -= 1;
        group.ok &= ok;
        if group.left > 0 {
            return;
        }
        let Some(group) = self.pushes.groups.remove(&owed.group) else { return };
        if group.ok {
            for ticket in &group.tickets {
                if let Some(wait) = self.waits.get_mut(ticket) {
                    wait.applied += 1;
                }
            }
        }
        self.close(&group.tickets);
    }

    fn close(&mut self, tickets: &[u64]) {
        for ticket in tickets {
            if let Some(wait) = self.waits.get_mut(ticket) {
                wait.open = wait.open.saturating_sub(1);
            }
        }
    }

    /// Nothing more is expected of the peer.
    pub(super) fn give_up_on(&mut self, peer: NodeId, now: Now) {
        let lost: Vec<u64> = self.pushes.owed.iter().filter(|(_, owed)| owed.to == peer).map(|(seq, _)| *seq).collect();
        for seq in lost {
            self.settle(seq, false);
        }
        self.pushes.bytes.remove(&peer);
        self.answer_waits(now);
    }

    pub(super) fn give_up_on_late(&mut self, now: Now) {
        let late = self.pushes.owed.iter().filter(|(_, owed)| owed.since + OWED_FOR <= now.mono);
        for seq in late.map(|(seq, _)| *seq).collect::<Vec<_>>() {
            self.settle(seq, false);
        }
        self.answer_waits(now);
    }

    /// Answers the writers whose wish is fulfilled, cannot be fulfilled any more, or has taken too long.
    fn answer_waits(&mut self, now: Now) {
        let over = |wait: &Wait| wait.applied >= wait.needed || wait.open == 0 || wait.deadline <= now.mono;
        let answered: Vec<u64> = self.waits.iter().filter(|(_, wait)| over(wait)).map(|(ticket, _)| *ticket).collect();
        for ticket in answered {
            if let Some(Wait { versions, applied, of, unasked, .. }) = self.waits.remove(&ticket) {
                self.answer(ticket, Answer::Written { versions, applied, of, unasked });
            }
        }
    }
}

/// What of a write is more than a record, or a write, may have.
fn too_large(drafts: &[Draft]) -> Option<Refusal> {
    let refusal = |what: String, has, most| (has > most).then_some(Refusal::TooLarge { what, has, most });
    refusal("entities in one change".to_owned(), drafts.len(), MAX_DRAFTS).or_else(|| {
        drafts.iter().find_map(|draft| {
            let of = |what: &str| format!("{what} of {}", draft.key);
            let bytes = draft.body.as_ref().map_or(0, |body| body.len());
            refusal(of("bytes"), bytes, MAX_BODY)
                .or_else(|| refusal(of("unique values"), draft.unique.len(), MAX_LINKS))
                .or_else(|| refusal(of("references"), draft.parents.len(), MAX_LINKS))
        })
    })
}

/// The number of the first life of a key that is not there. It grows with time, so that it is greater than any life that the
/// key had before and that has been forgotten with its tombstone; odd, as all lives are.
fn first_life(stamp: Stamp) -> u64 {
    (stamp.millis() << 1) | 1
}

/// The claim of an alive record on a value.
fn claim_of<'a>(record: &'a Record, unique: &Unique) -> Option<&'a Claim> {
    let same = |claim: &&Claim| claim.field == unique.field && claim.value == unique.value;
    record.claims.iter().filter(|_| record.is_alive()).find(same)
}
