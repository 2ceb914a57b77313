//! Whether a new unique value is free: a write asks the live peers, for a quarter of a second at most.

use std::collections::BTreeSet;

use super::writes::Prepared;
use super::*;
use crate::clock::Stamp;
use crate::record::Record;
use crate::wire::{CHUNK, Wanted};

/// How long a peer's interest in a value is remembered, in milliseconds: until its record has come or will not.
const KEEP: u64 = 5_000;
/// The most values that are reserved at a time.
const MAX_RESERVED: usize = 100_000;

/// A value that somebody is about to give to a record.
#[derive(Debug)]
pub(super) struct Reservation {
    stamp: Stamp,
    key: Key,
    /// The round of this node that made it, while it is asking.
    round: Option<u64>,
    ours: bool,
    until: u64,
}

/// A write that waits for its peers' word.
#[derive(Debug)]
pub(super) struct Round {
    wanted: Vec<Wanted>,
    /// Where each message's part of them begins. The first has the number of the round, and the others those that follow.
    parts: Vec<usize>,
    /// Who has not answered which message.
    missing: BTreeSet<(NodeId, u64)>,
    taken: Option<Wanted>,
    deadline: u64,
    write: Prepared,
}

fn value(wanted: &Wanted) -> Value {
    (wanted.field.clone(), wanted.value.clone())
}

/// Where the parts begin that are put in one message each.
fn parts(wanted: &[Wanted]) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut bytes = usize::MAX;
    for (at, wanted) in wanted.iter().enumerate() {
        let more = wanted.key.kind.len() + wanted.key.id.len() + wanted.field.len() + wanted.value.len() + 16;
        bytes = bytes.saturating_add(more);
        if bytes > CHUNK {
            parts.push(at);
            bytes = more;
        }
    }
    parts
}

impl Engine {
    /// Reserves the new values of a write and asks the peers about them. The first value that is known to be taken ends it.
    pub(super) fn begin_round(&mut self, mut write: Prepared, wanted: Vec<Wanted>, now: Now) {
        let owner = |value: &Value, key: &Key| self.replica.owner(value).filter(|owner| *owner != key);
        let mut seen = BTreeSet::new();
        for wanted in &wanted {
            let value = value(wanted);
            let owned = owner(&value, &wanted.key).is_some_and(|owner| !write.gives_up(owner, &value));
            let reserved = self.reservations.get(&value).is_some_and(|r| r.key != wanted.key && (r.ours || r.until > now.mono));
            if owned || reserved || !seen.insert(value) {
                let (key, field, value) = (wanted.key.clone(), wanted.field.clone(), wanted.value.clone());
                return self.answer(write.ticket, Answer::Taken { key, field, value });
            }
        }
        if self.reservations.len() + wanted.len() > MAX_RESERVED {
            return self.answer(write.ticket, Answer::Refused(Refusal::Busy));
        }
        // Of a value that the same write takes from another record the peers know that it is taken.
        let asked: Vec<Wanted> = wanted.iter().filter(|wanted| owner(&value(wanted), &wanted.key).is_none()).cloned().collect();
        let stamp = self.clock.tick(now.wall);
        let parts = parts(&asked);
        let peers: Vec<NodeId> = self.live().filter(|_| !asked.is_empty()).collect();
        let number = self.number();
        let round = (!peers.is_empty()).then_some(number);
        for wanted in &wanted {
            let reservation = Reservation { stamp, key: wanted.key.clone(), round, ours: true, until: u64::MAX };
            self.reservations.insert(value(wanted), reservation);
        }
        write.claimed_at = Some(stamp);
        write.reserved = wanted.iter().map(value).collect();
        if peers.is_empty() {
            return self.queue.push(Job::Write(write));
        }
        let mut missing = BTreeSet::new();
        for (at, start) in parts.iter().enumerate() {
            let part = if at == 0 { number } else { self.number() };
            let wanted = &asked[*start..parts.get(at + 1).copied().unwrap_or(asked.len())];
            for peer in &peers {
                missing.insert((*peer, part));
                self.send(*peer, Message::Claim { round: part, stamp, wanted: wanted.to_vec() });
            }
        }
        let deadline = now.mono + self.config.claim_timeout;
        self.rounds.insert(number, Round { wanted: asked, parts, missing, taken: None, deadline, write });
    }

    /// A peer asks whether values are free.
    pub(super) fn claim_asked(&mut self, from: NodeId, round: u64, stamp: Stamp, wanted: &[Wanted], now: Now) {
        self.clock.observe(stamp);
        let mut taken = Vec::new();
        for (at, wanted) in wanted.iter().enumerate() {
            let value = value(wanted);
            let owned = self.replica.owner(&value).is_some_and(|owner| *owner != wanted.key);
            let other = self.reservations.get(&value).filter(|other| other.key != wanted.key && other.until > now.mono);
            let (refuse, beaten) = match other {
                // The peer was first, and ours is still asking: ours loses.
                Some(other) if stamp < other.stamp && other.round.is_some() => (false, other.round),
                // The peer was first, but there is another peer that does not know yet: the record's claims will settle it.
                Some(other) if stamp < other.stamp && !other.ours => (false, None),
                Some(_) => (true, None),
                None => (false, None),
            };
            if owned || refuse {
                taken.push(at as u32);
                continue;
            }
            if let Some(beaten) = beaten.and_then(|beaten| self.rounds.get_mut(&beaten)) {
                beaten.taken = Some(wanted.clone());
            }
            if self.reservations.len() < MAX_RESERVED {
                let reservation = Reservation { stamp, key: wanted.key.clone(), round: None, ours: false, until: now.mono + KEEP };
                self.reservations.insert(value, reservation);
            }
        }
        self.send(from, Message::Claimed { round, taken });
        self.end_rounds(now);
    }

    pub(super) fn claim_answered(&mut self, from: NodeId, round: u64, taken: &[u32], now: Now) {
        if let Some((first, open)) = self.rounds.range_mut(..=round).next_back()
            && open.missing.remove(&(from, round))
            && let Some(start) = open.parts.get((round - first) as usize)
            && let Some(taken) = taken.first().and_then(|at| open.wanted.get(start + *at as usize))
        {
            open.taken = Some(taken.clone());
        }
        self.end_rounds(now);
    }

    /// Ends the rounds that are decided, answered by all, or out of time.
    pub(super) fn end_rounds(&mut self, now: Now) {
        let over = |round: &Round| round.taken.is_some() || round.missing.is_empty() || round.deadline <= now.mono;
        let ended: Vec<u64> = self.rounds.iter().filter(|(_, round)| over(round)).map(|(number, _)| *number).collect();
        for number in ended {
            let Some(mut round) = self.rounds.remove(&number) else { continue };
            if let Some(Wanted { key, field, value }) = round.taken {
                self.release(&round.write);
                self.answer(
                    round.write.ticket,
                    Answer::Taken { key: self.key_of(&round.wanted, &field, &value).unwrap_or(key), field, value },
                );
                continue;
            }
            for value in &round.write.reserved {
                if let Some(reservation) = self.reservations.get_mut(value).filter(|r| r.round == Some(number)) {
                    reservation.round = None;
                }
            }
            let silent: BTreeSet<NodeId> = round.missing.iter().map(|(peer, _)| *peer).collect();
            round.write.unasked += silent.len();
            self.queue.push(Job::Write(round.write));
        }
    }

    /// The key of our own draft that wanted the value.
    fn key_of(&self, wanted: &[Wanted], field: &str, value: &str) -> Option<Key> {
        wanted.iter().find(|wanted| &*wanted.field == field && &*wanted.value == value).map(|wanted| wanted.key.clone())
    }

    /// Gives up what a write has reserved: it is in effect, or it has failed.
    pub(super) fn release(&mut self, write: &Prepared) {
        for value in &write.reserved {
            if self.reservations.get(value).is_some_and(|r| r.ours && Some(r.stamp) == write.claimed_at) {
                self.reservations.remove(value);
            }
        }
    }

    /// The record has come for which a peer had reserved its values: from now on they are taken for as long as it has them.
    pub(super) fn has_come(&mut self, record: &Record) {
        for claim in &record.claims {
            let value = (claim.field.clone(), claim.value.clone());
            if self.reservations.get(&value).is_some_and(|r| !r.ours && r.key == record.key) {
                self.reservations.remove(&value);
            }
        }
    }

    pub(super) fn forget_reservations(&mut self, now: Now) {
        self.reservations.retain(|_, reservation| reservation.until > now.mono);
    }

    pub(super) fn rounds_without(&mut self, peer: NodeId, now: Now) {
        for round in self.rounds.values_mut() {
            let before = round.missing.len();
            round.missing.retain(|(node, _)| *node != peer);
            round.write.unasked += usize::from(round.missing.len() < before);
        }
        self.end_rounds(now);
    }
}
