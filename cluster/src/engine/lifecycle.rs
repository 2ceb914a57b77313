//! Beginning and end of things: readiness, membership, tombstones, and records that end the node.

use std::collections::HashSet;

use super::*;
use crate::clock::Stamp;
use crate::record::Record;

/// How long a record has to be in effect without the node ending, in milliseconds, to be no suspect.
const PROVEN_AFTER: u64 = 2_000;
/// The most suspects, which are written with each commit: all records of the last two batches, so that none of them can end the
/// node again and again.
const MAX_SUSPECTS: usize = 2 * super::batch::MAX_RECORDS;
/// The most bytes of their keys.
const MAX_SUSPECT_BYTES: usize = 4 * 1024 * 1024;
/// How many ends of the node put a record in quarantine.
const CRASHES: u32 = 2;
/// How often `complete_at` is written when nothing else is, in milliseconds.
const SAVE_EVERY: u64 = 60_000;
const SCRUB_EVERY: u64 = 3_600_000;
/// Horizons are whole multiples of the life of a tombstone divided by this, so that nodes choose the same.
const HORIZON_STEPS: u64 = 24;
/// How often a node looks for tombstones to purge, at most, in milliseconds.
const HORIZON_EVERY: u64 = 60_000;
/// How long the node waits before it writes again that it is a member, in milliseconds.
const JOIN_AGAIN: u64 = 5_000;

/// The records that were put in effect lately.
#[derive(Debug, Default)]
pub(super) struct Suspects(VecDeque<(u64, Suspect)>);

impl Suspects {
    /// After a start: whoever was a suspect when the node ended has one more crash to answer for. Those with too many are
    /// put in quarantine.
    pub fn at_start(kept: Vec<Suspect>, replica: &Replica) -> (Self, BTreeMap<Key, Version>) {
        let mut suspects = Self::default();
        let mut quarantined = BTreeMap::new();
        let here = |suspect: &Suspect| replica.version(&suspect.key) == suspect.version;
        for mut suspect in kept.into_iter().filter(here).take(MAX_SUSPECTS) {
            suspect.crashes += 1;
            if suspect.crashes >= CRASHES {
                quarantined.insert(suspect.key.clone(), suspect.version);
            }
            suspects.0.push_back((0, suspect));
        }
        (suspects, quarantined)
    }

    pub fn add(&mut self, records: &[Record], mono: u64) {
        let keys: HashSet<&Key> = records.iter().map(|record| &record.key).collect();
        self.0.retain(|(_, suspect)| !keys.contains(&suspect.key));
        for record in records.iter().filter(|record| record.is_alive() && !record.key.is_internal()).rev().take(MAX_SUSPECTS) {
            self.0.push_back((mono, Suspect { key: record.key.clone(), version: record.version, crashes: 0 }));
        }
        let size = |suspect: &Suspect| suspect.key.kind.len() + suspect.key.id.len();
        let mut bytes: usize = self.0.iter().map(|(_, suspect)| size(suspect)).sum();
        while self.0.len() > MAX_SUSPECTS || bytes > MAX_SUSPECT_BYTES {
            let Some((_, gone)) = self.0.pop_front() else { break };
            bytes -= size(&gone);
        }
    }

    /// Those that have been in effect for long enough are cleared; whether there were any.
    fn clear(&mut self, mono: u64, quarantined: &BTreeMap<Key, Version>) -> bool {
        let before = self.0.len();
        // What is in quarantine is not in effect, so that time proves nothing.
        let proven = |at: u64, key: &Key| at + PROVEN_AFTER <= mono && !quarantined.contains_key(key);
        self.0.retain(|(at, suspect)| !proven(*at, &suspect.key));
        self.0.len() < before
    }

    /// It is put in effect once more: it may end the node as often as a new one before it is left out again.
    fn suspect_again(&mut self, key: &Key, mono: u64) {
        for (at, suspect) in self.0.iter_mut().filter(|(_, suspect)| suspect.key == *key) {
            *at = mono;
            suspect.crashes = 0;
        }
    }

    fn after_a_good_end(&mut self, quarantined: &BTreeMap<Key, Version>) {
        self.0.retain(|(_, suspect)| quarantined.contains_key(&suspect.key));
        // The next start adds one again.
        self.0.iter_mut().for_each(|(_, suspect)| suspect.crashes = suspect.crashes.saturating_sub(1));
    }

    pub fn list(&self) -> Vec<Suspect> {
        self.0.iter().map(|(_, suspect)| suspect.clone()).collect()
    }
}

impl Engine {
    pub(super) fn start(&mut self, now: Now) {
        self.started = Some(now);
        self.scrubbed_at = now.mono;
        self.horizon_checked_at = now.mono;
        self.recent.push_back((now.mono, self.replica.digest()));
        self.late_at = now.wall;
        self.suspects.0.iter_mut().for_each(|(at, _)| *at = now.mono);
        // Before anything is put in effect, the crashes are on disk.
        self.queue.push(Job::Meta);
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.end_rounds(now);
        self.forget_reservations(now);
        self.give_up_on_late(now);
        self.ask_barriers(now);
        self.abort_stuck_session(now);
        let live: Vec<NodeId> = self.live().collect();
        for node in live {
            self.compare(node, now);
        }
        self.look_around(now);
        self.begin_session(now);
        self.join_members(now);
        self.purge(now);
        let cleared = self.suspects.clear(now.mono, &self.quarantined);
        let waiting = self.queue.len() > 0 || self.inflight.is_some();
        if !waiting && (cleared || self.meta_saved_at + SAVE_EVERY <= now.mono) {
            self.queue.push(Job::Meta);
        }
        if self.scrubbed_at + SCRUB_EVERY <= now.mono {
            self.scrubbed_at = now.mono;
            self.counters.scrubs_wrong += u64::from(!self.replica.scrub());
        }
    }

    /// A fresh node that finds no cluster to receive its configuration from begins one.
    fn look_around(&mut self, now: Now) {
        // Whoever has just been reached is going to tell what it has.
        let since = self.started.map_or(0, |started| started.mono).max(self.reached_at.unwrap_or(0));
        let alone_for = now.mono.saturating_sub(since);
        if self.ready || alone_for < self.config.alone_after {
            return;
        }
        let digest = self.replica.digest();
        // Peers that are all as fresh as this node, and have the same.
        let fresh = |peer: &Peer| peer.state.is_some_and(|state| !state.ready && state.digest == digest);
        if self.peers.values().filter(|peer| peer.live).all(fresh) {
            self.become_ready();
        }
    }

    pub(super) fn become_ready(&mut self) {
        self.ready = true;
        if !self.ever_ready {
            self.ever_ready = true;
            self.queue.push(Job::Meta);
        }
    }

    /// The caller says that these may stand otherwise in the node than they do here: they are put in effect anew.
    pub(super) fn look_again(&mut self, keys: Vec<Key>) {
        keys.into_iter().for_each(|key| self.replica.look_again(key));
        self.queue.push(Job::Meta);
    }

    /// Each node writes that it belongs to the cluster; forgetting it deletes the record.
    fn join_members(&mut self, now: Now) {
        let key = Key::new(MEMBER, self.config.node.to_string());
        let here = self.replica.version(&key).is_alive();
        if self.ready && !here && self.member_asked_at.is_none_or(|at| at + JOIN_AGAIN <= now.mono) {
            self.member_asked_at = Some(now.mono);
            let body = Some(self.config.name.as_bytes().into());
            let draft = Draft { key, parents: Vec::new(), unique: Vec::new(), body, expect: None };
            self.prepare(0, vec![draft], Concern::None, now.mono, now);
        }
    }

    pub(super) fn forget(&mut self, ticket: u64, node: NodeId, now: Now) {
        if node == self.config.node || self.peers.get(&node).is_some_and(|peer| peer.live) {
            return self.answer(ticket, Answer::Refused(Refusal::Alive));
        }
        let key = Key::new(MEMBER, node.to_string());
        if !self.replica.version(&key).is_alive() {
            return self.answer(ticket, Answer::Refused(Refusal::Unknown));
        }
        self.peers.remove(&node);
        let draft = Draft { key, parents: Vec::new(), unique: Vec::new(), body: None, expect: None };
        self.prepare(ticket, vec![draft], Concern::None, now.mono, now);
    }

    /// Takes note of a record that is about to be applied, if it is one that the horizon has to wait for.
    pub(super) fn note_arrival(&mut self, record: &Record, now: Now) {
        let made = if record.is_alive() { record.born } else { record.version.stamp };
        // Another life of a key that is here counts too: who has only the former one, as a tombstone, may be about to purge it.
        let news = !record.is_alive() || self.replica.version(&record.key).life != record.version.life;
        if news && made.millis() + self.horizon_margin() < now.wall {
            self.late_at = now.wall;
        }
    }

    /// What is made here from now on is later than the horizon, whatever the wall clock shows: it would be taken for old.
    pub(super) fn pass_horizon(&mut self) {
        self.clock.observe(Stamp::new(self.replica.digest().horizon, u16::MAX, self.config.node));
    }

    /// How far the horizon stays behind the time at which all members had the same. Their word was on its way for a while,
    /// and their clocks may differ.
    fn horizon_margin(&self) -> u64 {
        self.horizon_step().max(2 * self.config.max_skew + 4 * self.config.gossip_interval)
    }

    fn horizon_step(&self) -> u64 {
        (self.config.tombstone_life / HORIZON_STEPS).max(1)
    }

    /// The live ready node with the smallest id raises the horizon: to what every member has passed, once it is old enough,
    /// and to what is too old in any case.
    fn purge(&mut self, now: Now) {
        let step = self.horizon_step();
        // A node whose clock is wrong would purge what is new, and have the others refuse it.
        if self.horizon_checked_at + step.min(HORIZON_EVERY) > now.mono || self.refusal().is_some() {
            return;
        }
        self.horizon_checked_at = now.mono;
        if self.live().any(|peer| peer < self.config.node) {
            return;
        }
        // Live nodes count before their membership has arrived.
        let others = self.members().into_iter().chain(self.live()).filter(|member| *member != self.config.node);
        let passed = others.map(|member| self.peers.get(&member).map_or(0, |peer| peer.passed_at)).min().unwrap_or(u64::MAX);
        // What a member has taken since it was last seen to have the same must not be older than the horizon.
        let margin = self.horizon_margin();
        let whole = |millis: u64| millis - millis % step;
        let old = whole(now.wall.saturating_sub(self.config.tombstone_life).min(passed.saturating_sub(margin)));
        let too_old = whole(now.wall.saturating_sub(self.config.tombstone_max));
        if self.late_at < passed && !self.replica.purged_by(old).is_empty() {
            self.queue.push(Job::Horizon { millis: old, session: None });
        } else if !self.replica.purged_by(too_old).is_empty() {
            self.queue.push(Job::Horizon { millis: too_old, session: None });
        }
    }

    /// Tells the others what this node has, when that has changed.
    pub(super) fn publish(&mut self) {
        let state = State { ready: self.ready, digest: self.replica.digest() };
        if self.published != Some(state) {
            self.published = Some(state);
            self.out.push(Action::Publish(state));
        }
    }

    /// An operator says that a record in quarantine is to be put in effect.
    pub(super) fn release_from_quarantine(&mut self, ticket: u64, key: Key, now: Now) {
        if self.quarantined.remove(&key).is_none() {
            return self.answer(ticket, Answer::Refused(Refusal::Unknown));
        }
        self.suspects.suspect_again(&key, now.mono);
        self.replica.look_again(key);
        self.queue.push(Job::Meta);
        self.answer(ticket, Answer::Released);
    }

    /// The last commit of a node that ends in good order: nobody is a suspect.
    pub(super) fn stop(&mut self) {
        self.suspects.after_a_good_end(&self.quarantined);
        self.queue.push(Job::Meta);
    }
}
