//! When the node repairs with whom, and the barrier.

use std::collections::BTreeSet;

use rand::RngExt;

use super::*;
use crate::record::Record;
use crate::repair::Step;
use crate::wire::Blob;

/// How long a session may go without progress, in milliseconds.
const SESSION_PATIENCE: u64 = 5_000;
/// The most bytes that are fetched ahead by a node that serves requests meanwhile.
const WINDOW: usize = 4 * 1024 * 1024;
/// The same for a node that serves nobody yet.
const FRESH_WINDOW: usize = 32 * 1024 * 1024;
/// How often a barrier asks, in milliseconds.
const BARRIER_ASKS: u64 = 50;
/// The most barriers that are waited for at a time.
const MAX_BARRIERS: usize = 256;

/// A caller that waits until all live nodes have what this node has.
#[derive(Debug)]
pub(super) struct BarrierWait {
    pub missing: BTreeSet<NodeId>,
    /// Peers with which a session has begun after the caller came.
    began: BTreeSet<u64>,
    deadline: u64,
    ask_at: u64,
}

impl Engine {
    /// Begins a session when a live peer has had other records for longer than a gossip interval.
    pub(super) fn begin_session(&mut self, now: Now) {
        // What earlier sessions have fetched may wait for a slow disk.
        if self.session.is_some() || now.mono < self.next_session_at || self.queue.is_full() {
            return;
        }
        let patience = self.config.gossip_interval;
        let fresh = !self.ready;
        let ours = self.replica.digest();
        let wants_barrier = |node: &NodeId| self.barriers.values().any(|barrier| barrier.missing.contains(node));
        let due = |(node, peer): &(&NodeId, &Peer)| {
            let long = peer.differs_since.is_some_and(|since| {
                since + patience <= now.mono || wants_barrier(node) || (fresh && peer.state.is_some_and(|state| state.ready))
            });
            let horizon = peer.state.map_or(0, |state| state.digest.horizon);
            // When the peer repairs with us at the moment, its session serves both; but whose horizon is behind has to go.
            let theirs = peer.asked_us_at.is_some_and(|at| at + 1_000 > now.mono) && !fresh && horizon <= ours.horizon;
            peer.live && long && !theirs && horizon >= ours.horizon
        };
        let stale_for = self.stale_for.take().filter(|node| self.peers.get(node).is_some_and(|peer| peer.live));
        let candidates: Vec<NodeId> = self.peers.iter().filter(due).map(|(node, _)| *node).collect();
        let peer = match (stale_for, candidates.len()) {
            (Some(peer), _) => peer,
            (None, 0) => return,
            (None, many) => candidates[self.rng.random_range(0..many)],
        };
        let id = self.number();
        let empty = ours.count == 0;
        let window = if fresh { FRESH_WINDOW } else { WINDOW };
        let (session, step) = if stale_for.is_some() || (fresh && empty) {
            Session::snapshot(id, peer, window)
        } else {
            Session::compare(id, peer, self.complete_at, window)
        };
        for barrier in self.barriers.values_mut() {
            barrier.began.insert(id);
        }
        self.counters.sessions += 1;
        self.session = Some(session);
        self.session_progress = now.mono;
        self.step(step, now);
    }

    pub(super) fn told_stale(&mut self, from: NodeId, horizon: u64) {
        let peer_knows_more = horizon >= self.replica.digest().horizon;
        if horizon > 0 && peer_knows_more && self.peers.get(&from).is_some_and(|peer| peer.live) {
            self.stale_for = Some(from);
        }
    }

    pub(super) fn session_answered(&mut self, from: NodeId, answer: Message, now: Now) {
        let Some(session) = self.session.as_mut().filter(|session| session.peer == from) else { return };
        let steps = session.answered(&self.replica, answer);
        if !steps.is_empty() {
            self.session_progress = now.mono;
        }
        for step in steps {
            self.step(step, now);
        }
    }

    /// A step of a session is in effect; of one that was given up meanwhile nobody wants to know.
    pub(super) fn session_committed(&mut self, of: u64, now: Now) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == of) else { return };
        self.session_progress = now.mono;
        if let Some(step) = session.committed() {
            self.step(step, now);
        }
    }

    pub(super) fn session_pushed(&mut self, now: Now) {
        self.session_progress = now.mono;
        if let Some(step) = self.session.as_mut().and_then(Session::pushed) {
            self.step(step, now);
        }
    }

    fn step(&mut self, step: Step, now: Now) {
        let Some((peer, session)) = self.session.as_ref().map(|session| (session.peer, session.id)) else { return };
        match step {
            Step::Ask(message) => self.send(peer, message),
            Step::Commit(records) => self.queue.push(Job::Fetched { session, records }),
            Step::Push(records) => self.push_in_session(peer, &records),
            Step::Adopt(millis) => self.queue.push(Job::Horizon { millis, session: Some(session) }),
            Step::Drop { seen, horizon } => self.queue.push(Job::Drop { session, seen, horizon }),
            Step::Done => self.end_session(peer, now),
            Step::GiveUp => {
                self.session = None;
                self.pause(now);
            }
        }
    }

    fn push_in_session(&mut self, peer: NodeId, records: &[Record]) {
        let seq = self.number();
        self.session_push = Some(seq);
        self.send(peer, Message::Push { seq, records: records.iter().map(Blob::of).collect() });
    }

    /// A session that came to its end: the peer and this node have had everything of each other.
    fn end_session(&mut self, peer: NodeId, now: Now) {
        let Some(session) = self.session.take() else { return };
        for barrier in self.barriers.values_mut() {
            if barrier.began.contains(&session.id) {
                barrier.missing.remove(&peer);
            }
        }
        if let Some(other) = self.peers.get_mut(&peer) {
            other.differs_since = None;
            if other.state.is_some_and(|state| state.ready) {
                self.complete_at = self.complete_at.max(now.wall);
                self.become_ready();
            }
        }
        self.pause(now);
    }

    pub(super) fn abort_session(&mut self, now: Now) {
        if self.session.take().is_some() {
            self.counters.sessions_failed += 1;
            self.session_push = None;
            self.pause(now);
        }
    }

    /// Gives a session up, unless it is over already.
    pub(super) fn abort_session_of(&mut self, id: u64, now: Now) {
        if self.session.as_ref().is_some_and(|session| session.id == id) {
            self.abort_session(now);
        }
    }

    pub(super) fn abort_stuck_session(&mut self, now: Now) {
        // While the disk is slow, the session waits for this node itself.
        let waits = self.inflight.is_some() || self.queue.len() > 0;
        if self.session.is_some() && !waits && self.session_progress + SESSION_PATIENCE <= now.mono {
            self.abort_session(now);
        }
    }

    /// Nodes that see the same difference at the same moment do not all begin at once.
    fn pause(&mut self, now: Now) {
        let interval = self.config.gossip_interval.max(2);
        let pause = self.rng.random_range(interval / 2..interval * 2);
        self.next_session_at = now.mono + if self.ready && self.barriers.is_empty() { pause } else { interval / 10 };
    }

    pub(super) fn barrier(&mut self, ticket: u64, timeout: u64, now: Now) {
        if self.barriers.len() >= MAX_BARRIERS {
            return self.answer(ticket, Answer::Refused(Refusal::Busy));
        }
        let missing: BTreeSet<NodeId> = self.live().collect();
        let barrier = BarrierWait { missing, began: BTreeSet::new(), deadline: now.mono + timeout, ask_at: now.mono };
        self.barriers.insert(ticket, barrier);
        self.next_session_at = self.next_session_at.min(now.mono);
        self.ask_barriers(now);
    }

    /// Asks the nodes that are missing in a barrier again, and ends barriers that are reached or out of time.
    pub(super) fn ask_barriers(&mut self, now: Now) {
        let mut questions = Vec::new();
        let mut over = Vec::new();
        for (ticket, barrier) in &mut self.barriers {
            if barrier.missing.is_empty() || barrier.deadline <= now.mono {
                over.push(*ticket);
            } else if barrier.ask_at <= now.mono {
                barrier.ask_at = now.mono + BARRIER_ASKS;
                questions.extend(barrier.missing.iter().map(|node| (*node, *ticket)));
            }
        }
        for (node, ticket) in questions {
            self.send(node, Message::AskDigest { round: ticket });
        }
        for ticket in over {
            if let Some(barrier) = self.barriers.remove(&ticket) {
                self.answer(ticket, Answer::Barrier { missing: barrier.missing.into_iter().collect() });
            }
        }
    }

    pub(super) fn digest_answered(&mut self, from: NodeId, round: u64, digest: Digest) {
        // What was written here and waits for the disk is not in the digest yet.
        let same = digest == self.replica.digest() && self.inflight.is_none() && self.queue.len() == 0;
        if let Some(barrier) = self.barriers.get_mut(&round)
            && same
        {
            barrier.missing.remove(&from);
        }
        if let Some(peer) = self.peers.get_mut(&from)
            && let Some(state) = &mut peer.state
        {
            state.digest = digest;
        }
    }
}
