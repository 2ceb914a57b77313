//! The peers as this node sees them, and whose clock is right.

use super::*;

/// For how long a message that was dropped is shown, in milliseconds.
const SHOWN: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub live: bool,
    pub state: Option<State>,
    /// Since when it has shown another digest than ours.
    pub differs_since: Option<u64>,
    pub clock_offset: Option<i64>,
    /// When we last had the same digest, wall time: it had all that we had by then.
    pub passed_at: u64,
    /// When it last asked us something in a session of its own.
    pub asked_us_at: Option<u64>,
    /// When a push to it was last left out, because it owes too many acknowledgements.
    pub skipped_at: Option<u64>,
}

impl Peer {
    pub fn status(&self, node: NodeId, _ours: Digest, now: Now) -> PeerStatus {
        PeerStatus {
            node,
            live: self.live,
            state: self.state,
            differs_for: self.differs_since.map(|since| now.mono.saturating_sub(since)),
            clock_offset: self.clock_offset,
            skipped: is_late(self.skipped_at, now),
        }
    }
}

/// Whether something has happened so lately that it is still shown.
pub(super) fn is_late(at: Option<u64>, now: Now) -> bool {
    at.is_some_and(|at| at + SHOWN > now.mono)
}

impl Engine {
    pub(super) fn reached(&mut self, node: NodeId, now: Now) {
        if self.peers.get(&node).is_none_or(|peer| peer.state.is_none()) {
            self.reached_at = Some(now.mono);
        }
    }

    pub(super) fn peer_up(&mut self, node: NodeId, _now: Now) {
        if node != self.config.node && (self.peers.len() < crate::MAX_MEMBERS * 2 || self.peers.contains_key(&node)) {
            self.peers.entry(node).or_default().live = true;
        }
    }

    pub(super) fn peer_down(&mut self, node: NodeId, now: Now) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.live = false;
            // When it comes back, it is not what it was.
            peer.state = None;
            peer.differs_since = None;
            peer.asked_us_at = None;
        }
        if self.session.as_ref().is_some_and(|session| session.peer == node) {
            self.abort_session(now);
        }
        self.give_up_on(node, now);
        self.rounds_without(node, now);
        for barrier in self.barriers.values_mut() {
            barrier.missing.remove(&node);
        }
    }

    pub(super) fn peer_state(&mut self, node: NodeId, state: State, now: Now) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.state = Some(state);
        }
        self.compare(node, now);
    }

    /// Takes note of whether a peer has what we have.
    pub(super) fn compare(&mut self, node: NodeId, now: Now) {
        let ours = self.replica.digest();
        let settled = self.inflight.is_none();
        // A digest that was ours a moment ago is on its way to ours.
        let oldest = now.mono.saturating_sub(2 * self.config.gossip_interval);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(state) = peer.state else { return };
        if state.digest == ours {
            peer.differs_since = None;
            if settled && peer.live {
                peer.passed_at = now.wall;
                if state.ready {
                    self.complete_at = self.complete_at.max(now.wall);
                    self.become_ready();
                }
            }
        } else if self.recent.iter().rev().any(|(at, digest)| *at >= oldest && *digest == state.digest) {
            peer.differs_since = None;
        } else {
            peer.differs_since.get_or_insert(now.mono);
        }
    }

    pub(super) fn clock_offset(&mut self, node: NodeId, millis: i64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.clock_offset = Some(millis);
        }
    }

    /// How far the median of the clocks of all live nodes is ahead of ours, in milliseconds. Of two nodes neither can be
    /// said to be right: each is off by half of the difference.
    pub(super) fn skew(&self) -> i64 {
        let live = self.peers.values().filter(|peer| peer.live);
        let mut offsets: Vec<i64> = live.filter_map(|peer| peer.clock_offset).chain([0]).collect();
        offsets.sort_unstable();
        let middle = offsets.len() / 2;
        if offsets.len() % 2 == 1 { offsets[middle] } else { i64::midpoint(offsets[middle - 1], offsets[middle]) }
    }
}
