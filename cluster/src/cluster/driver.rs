//! The task that owns the state machine of the node: brings it events and does what it says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::keeper::Keeper;
use super::{Call, Config, LeaseHandle, Overview, StartError, Storage, Traffic};
use crate::engine::{Action, Answer, Engine, Event, Kept, MAX_SHOWN, MEMBER, Now, State};
use crate::id::{Key, NodeId};
use crate::membership::{self, Inlet, Member, Membership, Outlet};
use crate::mesh::{self, Mesh, wall_millis};
use crate::record::Version;
use crate::replica::{Change, Conflicts};
use crate::wire::Message;

const TICK: Duration = Duration::from_millis(20);
/// How often nodes are given up that are neither there nor members.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// How often the log says that changes cannot be stored.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// The most callers that wait for a version.
const MAX_WAITING: usize = 10_000;
/// How long after a failed start of the gossip the next is tried.
const GOSSIP_AGAIN: Duration = Duration::from_secs(1);
/// For how long limits take a node for live that was just reached and that the gossip does not know yet.
const NEWLY_REACHED: Duration = Duration::from_secs(2);
/// How long a node that ends waits until the others have heard what it hands back.
const FAREWELL: Duration = Duration::from_millis(500);

static TICKETS: AtomicU64 = AtomicU64::new(1);

/// A number for a question, never 0.
pub(super) fn ticket() -> u64 {
    TICKETS.fetch_add(1, Ordering::Relaxed)
}

pub(super) struct Driver {
    config: Config,
    storage: Arc<dyn Storage>,
    mesh: Mesh,
    sender: mesh::Sender,
    engine: Engine,
    keeper: Keeper,
    membership: Membership,
    inlet: Inlet,
    outlet: Outlet,
    own: Member,
    ready: watch::Sender<bool>,
    changes: broadcast::Sender<Arc<Vec<Change>>>,
    leases: LeaseHandle,
    /// Peers that the mesh reaches, and since when, and those that gossip says are alive; live is who is both.
    reached: BTreeMap<NodeId, Instant>,
    alive: BTreeMap<NodeId, Member>,
    live: BTreeSet<NodeId>,
    /// Those that limits take for live.
    lessors: BTreeSet<NodeId>,
    published: Option<State>,
    /// The commit with which members come or go.
    meeting: Option<u64>,
    started: bool,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    versions: Vec<(Key, Version, oneshot::Sender<()>)>,
    done: mpsc::Sender<Event>,
    finished: Option<mpsc::Receiver<Event>>,
    begin: Instant,
    /// Until then the gossip is not started again.
    no_gossip_until: Instant,
    /// Who waits for the end, and since when.
    stopping: Option<(oneshot::Sender<()>, Instant)>,
    busy: usize,
    /// Why the last changes could not be stored.
    unstored: Option<String>,
    /// When the log last said that changes cannot be stored.
    complained: Option<Instant>,
    /// When it last said that pushes were dropped, and how many it knows of.
    told_dropped: (Option<Instant>, u64),
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub async fn new(
        config: Config,
        storage: Arc<dyn Storage>,
        mesh: Mesh,
        kept: Kept,
        conflicts: Conflicts,
        generation: u64,
        ready: watch::Sender<bool>,
        changes: broadcast::Sender<Arc<Vec<Change>>>,
        leases: LeaseHandle,
    ) -> Result<Self, StartError> {
        let mut engine = Engine::new(config.engine.clone(), kept);
        let keeper = Keeper::new(storage.clone(), &conflicts);
        engine.recall(conflicts);
        let (inlet, outlet) = membership::channel();
        let own = Member {
            name: config.engine.name.clone(),
            advertise: mesh.advertise().to_owned(),
            version: config.version.clone(),
            state: None,
            generation,
        };
        let sender = mesh.sender();
        let membership = begin(&config, &own, generation, outlet.clone(), sender.clone()).await?;
        let (done, finished) = mpsc::channel(64);
        Ok(Self {
            config,
            storage,
            mesh,
            sender,
            engine,
            keeper,
            membership,
            inlet,
            outlet,
            own,
            ready,
            changes,
            leases,
            reached: BTreeMap::new(),
            alive: BTreeMap::new(),
            live: BTreeSet::new(),
            lessors: BTreeSet::new(),
            published: None,
            meeting: None,
            started: false,
            answers: HashMap::new(),
            versions: Vec::new(),
            done,
            finished: Some(finished),
            begin: Instant::now(),
            no_gossip_until: Instant::now(),
            stopping: None,
            busy: 0,
            unstored: None,
            complained: None,
            told_dropped: (None, 0),
        })
    }

    pub async fn run(mut self, mut calls: mpsc::Receiver<Call>, mut heard: mpsc::Receiver<mesh::Event>) {
        let Some(mut finished) = self.finished.take() else { return };
        self.start(&mut finished).await;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gossip = interval(Duration::from_millis((self.config.engine.gossip_interval / 5).max(10)));
        gossip.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgetting = interval_at(Instant::now() + FORGET_EVERY, FORGET_EVERY);
        loop {
            tokio::select! {
                Some(event) = finished.recv() => {
                    self.busy -= 1;
                    let met = matches!(&event, Event::Committed { commit } if self.meeting == Some(*commit));
                    self.give(event).await;
                    if met {
                        self.meeting = None;
                        self.tell_leases();
                    }
                }
                call = calls.recv() => match call {
                    Some(call) => self.call(call).await,
                    // Nobody holds the node any more.
                    None => return,
                },
                Some(event) = heard.recv() => self.heard(event).await,
                _ = tick.tick() => {
                    self.give(Event::Tick).await;
                    self.leases.tick();
                }
                _ = gossip.tick() => self.look_at_members().await,
                _ = forgetting.tick() => self.forget_strangers(),
                reason = gossip_ended(&self.membership, self.no_gossip_until) => self.begin_gossip_again(&reason).await,
            }
            let ends = |(_, since): &mut (_, Instant)| self.leases.has_left() || since.elapsed() >= FAREWELL;
            let kept = self.keeper.go_on(self.engine.replica().conflicts()).await;
            if kept
                && self.busy == 0
                && let Some((stopping, _)) = self.stopping.take_if(ends)
            {
                let _ = stopping.send(());
                return;
            }
        }
    }

    /// What is kept is served, before there is any peer.
    async fn start(&mut self, finished: &mut mpsc::Receiver<Event>) {
        // The first event writes down who is a suspect, before anything of it is put in effect.
        self.give(Event::Tick).await;
        while self.busy > 0 {
            let Some(event) = finished.recv().await else { return };
            self.busy -= 1;
            self.give(event).await;
        }
        let kept = self.engine.in_effect();
        let rejected = self.storage.apply(kept).await;
        for (key, reason) in &rejected {
            tracing::warn!(%key, reason, "a kept record cannot be put in effect");
        }
        self.engine.note_bad(rejected);
        self.started = true;
        // Those that it had met before count from the start: alone, the node has its part of a limit and not all of it.
        self.tell_leases();
        self.show_ready();
    }

    /// Who is there, who belongs to the cluster, and since when this node does.
    fn tell_leases(&self) {
        let own = self.engine.replica().get(&Key::new(MEMBER, self.config.mesh.node.to_string()));
        if let Some(own) = own.filter(|own| own.is_alive()) {
            self.leases.joined(own.born.millis());
        }
        self.leases.members(self.lessors.clone(), self.engine.members());
    }

    /// A node that has just been started asks others what it had before the gossip knows of them.
    fn compare_lessors(&mut self) {
        let counts = |(node, since): &(&NodeId, &Instant)| self.live.contains(node) || since.elapsed() < NEWLY_REACHED;
        let lessors: BTreeSet<NodeId> = self.reached.iter().filter(counts).map(|(node, _)| *node).collect();
        if lessors != self.lessors {
            self.lessors = lessors;
            self.tell_leases();
        }
    }

    /// A node is ready for traffic when it has what its peers have, and what it has kept is in effect.
    fn show_ready(&self) {
        let now = self.started && self.published.is_some_and(|state| state.ready);
        self.ready.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }

    /// Peers offer again and again what cannot be stored, and the log may be on the disk that is full.
    fn storage_failed(&mut self, reason: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::error!(reason, "changes of the cluster cannot be stored");
        }
        self.unstored = Some(reason.to_owned());
    }

    fn now(&self) -> Now {
        Now { wall: wall_millis(), mono: self.begin.elapsed().as_millis() as u64 }
    }

    async fn give(&mut self, event: Event) {
        match &event {
            Event::CommitFailed { reason, .. } => self.storage_failed(reason),
            Event::Committed { .. } => self.unstored = None,
            _ => (),
        }
        let now = self.now();
        for action in self.engine.handle(event, now) {
            match action {
                Action::Send { to, message } => self.sender.message(to, &message),
                Action::Commit { commit, changes } => {
                    if changes.put.iter().any(|record| &*record.key.kind == MEMBER) {
                        self.meeting = Some(commit);
                    }
                    let (storage, done) = (self.storage.clone(), self.done.clone());
                    self.busy += 1;
                    // In a task of its own, so that a panic is an error too.
                    let work = tokio::spawn(async move { storage.commit(changes).await });
                    tokio::spawn(async move {
                        let event = match work.await.unwrap_or_else(|error| Err(error.to_string())) {
                            Ok(()) => Event::Committed { commit },
                            Err(reason) => Event::CommitFailed { commit, reason },
                        };
                        let _ = done.send(event).await;
                    });
                }
                Action::Apply { commit, changes } => {
                    let (storage, done, listeners) = (self.storage.clone(), self.done.clone(), self.changes.clone());
                    self.busy += 1;
                    let told = (listeners.receiver_count() > 0).then(|| Arc::new(changes.clone()));
                    let all: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
                    let work = tokio::spawn(async move { storage.apply(changes).await });
                    tokio::spawn(async move {
                        let rejected = work.await.unwrap_or_else(|error| {
                            tracing::error!(%error, "putting changes of the cluster in effect broke off");
                            all.into_iter().map(|key| (key, "putting it in effect broke off".to_owned())).collect()
                        });
                        for (key, reason) in &rejected {
                            tracing::warn!(%key, reason, "a record of the cluster cannot be put in effect");
                        }
                        if let Some(told) = told {
                            let _ = listeners.send(told);
                        }
                        let _ = done.send(Event::Applied { commit, rejected }).await;
                    });
                }
                Action::Answer { ticket, answer } => {
                    if let Some(reply) = self.answers.remove(&ticket) {
                        let _ = reply.send(answer);
                    }
                }
                Action::Publish(state) => {
                    self.published = Some(state);
                    self.show_ready();
                    self.membership.publish(state).await;
                }
            }
        }
        self.tell_dropped();
        self.tell_waiting();
    }

    /// Pushes that found the queue full here, or that a peer is too slow for.
    fn tell_dropped(&mut self) {
        let dropped = self.engine.counters().dropped;
        let (told, known) = self.told_dropped;
        if dropped > known && told.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.told_dropped = (Some(Instant::now()), dropped);
            tracing::warn!(dropped = dropped - known, "pushes of changes are dropped, repair takes their place");
        }
    }

    /// Callers that wait for a version that is in effect by now.
    fn tell_waiting(&mut self) {
        if self.versions.is_empty() || self.engine.is_applying() {
            return;
        }
        let replica = self.engine.replica();
        for (_, _, reply) in self.versions.extract_if(.., |(key, version, reply)| replica.version(key) >= *version || reply.is_closed()) {
            let _ = reply.send(());
        }
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Engine(event, reply) => {
                if let (Some(ticket), Some(reply)) = (event.ticket(), reply) {
                    self.answers.insert(ticket, reply);
                }
                self.give(event).await;
            }
            Call::Status(reply) => {
                let overview = Overview {
                    node: self.config.mesh.node,
                    address: self.mesh.address(),
                    status: self.engine.status(self.now()),
                    alive: self.alive.clone(),
                    traffic: Traffic::of(self.mesh.counters()),
                    troubles: self.mesh.troubles(),
                    unstored: self.unstored.clone(),
                };
                let _ = reply.send(overview);
            }
            Call::Records(keys, reply) => {
                let replica = self.engine.replica();
                drop(reply.send(keys.iter().map(|key| replica.get(key).cloned()).collect()));
            }
            Call::Standing(key, reply) => drop(reply.send(self.engine.standing(&key))),
            Call::Conflicts(reply) => drop(reply.send(self.engine.in_conflict(MAX_SHOWN))),
            Call::Quarantine(reply) => drop(reply.send(self.engine.in_quarantine(MAX_SHOWN))),
            Call::WaitFor { key, version, reply } => {
                if self.versions.len() < MAX_WAITING {
                    self.versions.push((key, version, reply));
                    self.tell_waiting();
                }
            }
            Call::Stop(reply) => {
                self.stopping = Some((reply, Instant::now()));
                self.leases.leave();
                self.give(Event::Stop).await;
            }
        }
    }

    async fn heard(&mut self, event: mesh::Event) {
        match event {
            mesh::Event::Up(node) => {
                self.reached.insert(node, Instant::now());
                self.membership.greet(node);
                self.give(Event::Reached(node)).await;
                self.compare_live().await;
            }
            mesh::Event::Down(node) => {
                self.reached.remove(&node);
                self.compare_live().await;
            }
            mesh::Event::Message { from, message: Message::Lease(message), .. } => self.leases.received(from, message),
            mesh::Event::Message { from, message, room } => {
                self.give(Event::Message { from, message }).await;
                drop(room);
            }
            mesh::Event::Gossip { from, bytes } => {
                if !self.inlet.bring(from, bytes) {
                    self.mesh.counters().dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            mesh::Event::ClockOffset { node, millis } => self.give(Event::ClockOffset { node, millis }).await,
        }
    }

    async fn look_at_members(&mut self) {
        self.compare_lessors();
        let alive = self.membership.alive().await;
        if alive == self.alive {
            return;
        }
        let before = std::mem::replace(&mut self.alive, alive);
        for (node, member) in &self.alive {
            self.mesh.learn(*node, &member.advertise);
        }
        self.compare_live().await;
        let alive = self.alive.clone();
        for (node, member) in alive {
            let known = before.get(&node).and_then(|member| member.state);
            if let Some(state) = member.state.filter(|state| known != Some(*state)) {
                self.give(Event::PeerState { node, state }).await;
            }
        }
    }

    async fn compare_live(&mut self) {
        let live: BTreeSet<NodeId> = self.reached.keys().copied().filter(|node| self.alive.contains_key(node)).collect();
        if live == self.live {
            return self.compare_lessors();
        }
        let before = std::mem::replace(&mut self.live, live.clone());
        for node in before.difference(&live) {
            self.give(Event::PeerDown(*node)).await;
        }
        for node in live.difference(&before) {
            self.give(Event::PeerUp(*node)).await;
            if let Some(state) = self.alive.get(node).and_then(|member| member.state) {
                self.give(Event::PeerState { node: *node, state }).await;
            }
        }
        self.compare_lessors();
    }

    /// Nodes that were forgotten, or that never joined, are no longer dialed.
    fn forget_strangers(&mut self) {
        let members = self.engine.members();
        let keep = |node: &NodeId| members.contains(node) || self.alive.contains_key(node) || self.reached.contains_key(node);
        self.mesh.retain(keep);
    }

    /// Nothing else waits for the gossip: what can be tried again is tried later.
    async fn begin_gossip_again(&mut self, reason: &str) {
        self.no_gossip_until = Instant::now() + GOSSIP_AGAIN;
        tracing::error!(reason, "the gossip has ended and is started again");
        let generation = match self.storage.next_generation().await {
            Ok(generation) => generation,
            Err(error) => {
                tracing::error!(error, "the number of the gossip's start cannot be kept");
                return;
            }
        };
        match begin(&self.config, &self.own, generation, self.outlet.clone(), self.sender.clone()).await {
            Ok(membership) => {
                self.membership = membership;
                if let Some(state) = self.published {
                    self.membership.publish(state).await;
                }
                self.reached.keys().for_each(|node| self.membership.greet(*node));
            }
            Err(error) => tracing::error!(%error, "the gossip cannot be started again"),
        }
    }
}

/// Returns the reason when the gossip has ended, and not before that moment.
async fn gossip_ended(membership: &Membership, not_before: Instant) -> String {
    tokio::time::sleep_until(not_before).await;
    membership.ended().await
}

async fn begin(
    config: &Config,
    own: &Member,
    generation: u64,
    outlet: Outlet,
    sender: mesh::Sender,
) -> Result<Membership, membership::MembershipError> {
    let interval = Duration::from_millis(config.engine.gossip_interval);
    Membership::start(config.mesh.node, generation, &config.mesh.cluster, interval, own, outlet, sender).await
}
