//! A node of the cluster as a state machine: events and the time go in, actions come out. It does no I/O and reads no clock,
//! so that a simulator can drive it through anything.
//!
//! One batch of changes at a time is made durable and then put in effect; what arrives meanwhile is gathered in the next.
//! Only what is in effect is acknowledged.

mod batch;
mod claims;
mod lifecycle;
mod peers;
mod standing;
mod sync;
mod types;
mod writes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use standing::Standing;
pub use types::*;

use crate::clock::Clock;
use crate::effective::Value;
use crate::id::{Key, NodeId};
use crate::record::Version;
use crate::repair::{self, Session};
use crate::replica::{Change, Conflicts, Digest, Replica};
use crate::wire::Message;
use batch::{Batch, Job, Queue};
use claims::{Reservation, Round};
use lifecycle::Suspects;
use peers::{Peer, is_late};
use sync::BarrierWait;
use writes::{Pushes, Wait};

/// The most records of a sort that a status or a list names: as many as can be in quarantine.
pub const MAX_SHOWN: usize = 16_384;
/// Kind of the records that say who belongs to the cluster.
pub const MEMBER: &str = "@member";

/// The node.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    clock: Clock,
    replica: Replica,
    rng: SmallRng,
    started: Option<Now>,
    numbers: u64,
    /// When a node was reached whose state was not known.
    reached_at: Option<u64>,
    ready: bool,
    ever_ready: bool,
    /// When this node last had all that a peer had, milliseconds of wall time.
    complete_at: u64,
    meta_saved_at: u64,
    peers: BTreeMap<NodeId, Peer>,
    queue: Queue,
    inflight: Option<Batch>,
    rounds: BTreeMap<u64, Round>,
    reservations: HashMap<Value, Reservation>,
    waits: BTreeMap<u64, Wait>,
    pushes: Pushes,
    session: Option<Session>,
    session_progress: u64,
    session_push: Option<u64>,
    next_session_at: u64,
    /// A peer that said that this node needs a snapshot.
    stale_for: Option<NodeId>,
    barriers: BTreeMap<u64, BarrierWait>,
    /// Digests that this node had lately: a peer that shows one of them is late and not different.
    recent: VecDeque<(u64, Digest)>,
    published: Option<State>,
    /// When something last came that had been made a while before, wall time: members that were seen to have the same
    /// earlier than that need not have it. What is on disk counts from the start.
    late_at: u64,
    suspects: Suspects,
    quarantined: BTreeMap<Key, Version>,
    bad: BTreeMap<Key, String>,
    scrubbed_at: u64,
    horizon_checked_at: u64,
    member_asked_at: Option<u64>,
    /// When a push of a peer last found the queue full.
    overloaded_at: Option<u64>,
    counters: Counters,
    out: Vec<Action>,
}

impl Engine {
    /// A node with what it has kept.
    pub fn new(config: Config, kept: Kept) -> Self {
        let replica = Replica::load(kept.records, kept.meta.horizon);
        let clock = Clock::new(config.node, replica.last_stamp());
        let (suspects, quarantined) = Suspects::at_start(kept.meta.suspects, &replica);
        let mut engine = Self {
            clock,
            rng: SmallRng::seed_from_u64(config.seed),
            started: None,
            numbers: 0,
            reached_at: None,
            ready: kept.meta.ever_ready || !config.has_seeds,
            ever_ready: kept.meta.ever_ready,
            complete_at: kept.meta.complete_at,
            meta_saved_at: 0,
            peers: BTreeMap::new(),
            queue: Queue::new(config.max_queued),
            inflight: None,
            rounds: BTreeMap::new(),
            reservations: HashMap::new(),
            waits: BTreeMap::new(),
            pushes: Pushes::default(),
            session: None,
            session_progress: 0,
            session_push: None,
            next_session_at: 0,
            stale_for: None,
            barriers: BTreeMap::new(),
            recent: VecDeque::new(),
            published: None,
            late_at: 0,
            suspects,
            quarantined,
            bad: BTreeMap::new(),
            scrubbed_at: 0,
            horizon_checked_at: 0,
            member_asked_at: None,
            overloaded_at: None,
            counters: Counters::default(),
            out: Vec::new(),
            replica,
            config,
        };
        engine.pass_horizon();
        engine
    }

    /// Goes on with the log of conflicts that an earlier start has kept.
    pub fn recall(&mut self, conflicts: Conflicts) {
        self.replica.recall(conflicts);
    }

    /// Takes an event and answers what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        if self.started.is_none() {
            self.start(now);
        }
        match event {
            Event::Tick => self.tick(now),
            Event::Write { ticket, drafts, concern, timeout } => self.write(ticket, drafts, concern, timeout, now),
            Event::Committed { commit } => self.committed(commit, now),
            Event::CommitFailed { commit, reason } => self.commit_failed(commit, &reason, now),
            Event::Applied { commit, rejected } => self.applied(commit, rejected, now),
            Event::Message { from, message } => self.message(from, message, now),
            Event::Reached(node) => self.reached(node, now),
            Event::PeerUp(node) => self.peer_up(node, now),
            Event::PeerDown(node) => self.peer_down(node, now),
            Event::PeerState { node, state } => self.peer_state(node, state, now),
            Event::ClockOffset { node, millis } => self.clock_offset(node, millis),
            Event::Barrier { ticket, timeout } => self.barrier(ticket, timeout, now),
            Event::Forget { ticket, node } => self.forget(ticket, node, now),
            Event::Release { ticket, key } => self.release_from_quarantine(ticket, key, now),
            Event::LookAgain(keys) => self.look_again(keys),
            Event::Stop => self.stop(),
        }
        self.pump(now);
        self.publish();
        std::mem::take(&mut self.out)
    }

    fn message(&mut self, from: NodeId, message: Message, now: Now) {
        self.counters.messages += 1;
        if let Some(answer) = repair::answer(&self.replica, self.ready, &message) {
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.asked_us_at = Some(now.mono);
            }
            self.send(from, answer);
            return;
        }
        match message {
            Message::Push { seq, records } => self.pushed_here(from, seq, &records, now),
            Message::Ack { seq, refused } => self.acknowledged(from, seq, refused, now),
            Message::Claim { round, stamp, wanted } => self.claim_asked(from, round, stamp, &wanted, now),
            Message::Claimed { round, taken } => self.claim_answered(from, round, &taken, now),
            Message::Stale { horizon } => self.told_stale(from, horizon),
            Message::AskDigest { round } => self.send(from, Message::DigestIs { round, digest: self.replica.digest() }),
            Message::DigestIs { round, digest } => self.digest_answered(from, round, digest),
            answer => self.session_answered(from, answer, now),
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push(Action::Send { to, message });
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        // Ticket 0 is the node's own.
        if ticket != 0 {
            self.out.push(Action::Answer { ticket, answer });
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn live(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.live).map(|(node, _)| *node)
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether changes are among the records that are not in effect yet.
    pub fn is_applying(&self) -> bool {
        self.inflight.as_ref().is_some_and(Batch::is_committed)
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Members of the cluster: all that have joined and have not been forgotten.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let alive = self.replica.records().filter(|record| record.is_alive() && &*record.key.kind == MEMBER);
        alive.filter_map(|record| record.key.id.parse().ok()).collect()
    }

    /// All that is in effect, for the start: as changes of nothing. What is in quarantine is left out.
    pub fn in_effect(&self) -> Vec<Change> {
        let effective = self.replica.records().filter(|record| self.replica.is_effective(&record.key) && !record.key.is_internal());
        let changes = effective.map(|record| self.replica.change(record.key.clone()));
        changes.filter(|change| !self.is_quarantined(change)).collect()
    }

    fn is_quarantined(&self, change: &Change) -> bool {
        change.effective.as_ref().is_some_and(|record| self.quarantined.get(&record.key) == Some(&record.version))
    }

    /// How things stand, for whoever looks.
    pub fn status(&self, now: Now) -> Status {
        let digest = self.replica.digest();
        let peers = self.peers.iter().map(|(node, peer)| peer.status(*node, digest, now)).collect();
        Status {
            ready: self.ready,
            digest,
            alive: self.replica.alive(),
            members: self.members(),
            clock_offset: self.skew(),
            accepts_writes: self.refusal().is_none(),
            repairing: self.session.as_ref().map(|session| session.peer),
            queued: self.queue.len(),
            overloaded: is_late(self.overloaded_at, now),
            conflicts: self.replica.conflicts().total(),
            quarantined: self.quarantined.keys().take(MAX_SHOWN).cloned().collect(),
            bad: self.bad.iter().take(MAX_SHOWN).map(|(key, reason)| (key.clone(), reason.clone())).collect(),
            peers,
            counters: self.counters,
        }
    }
}
