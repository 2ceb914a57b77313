//! The world of a schedule: nodes with disks and clocks, a network, clients, and what must hold in the end.

mod scenes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use cluster::effective::specification;
use cluster::engine::{Action, Answer, Commit, Concern, Config, Draft, Engine, Event, Kept, Meta, Now, State, Unique};
use cluster::id::{Key, NodeId};
use cluster::record::{Record, Version};
use cluster::wire::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const TICK: u64 = 100;
const GOSSIP: u64 = 500;
const DEAD_AFTER: u64 = 2_500;
/// The wall clock at the beginning: some time in 2026, in milliseconds.
const EPOCH: u64 = 1_790_000_000_000;

/// What a schedule is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub nodes: usize,
    /// Per thousand.
    pub loss: u32,
    pub duplication: u32,
    /// The longest that a message takes, in milliseconds.
    pub delay: u64,
    /// How much happens, per thousand and step.
    pub faults: u32,
    pub failing_disk: u32,
    pub skew: i64,
    /// How long clients write and faults happen, in milliseconds.
    pub busy_for: u64,
    pub tombstone_life: u64,
    pub tombstone_max: u64,
}

impl Options {
    pub fn quiet() -> Self {
        Self {
            nodes: 3,
            loss: 0,
            duplication: 0,
            delay: 3,
            faults: 0,
            failing_disk: 0,
            skew: 0,
            busy_for: 10_000,
            tombstone_life: 24 * 3_600_000,
            tombstone_max: 30 * 24 * 3_600_000,
        }
    }

    pub fn any(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
        Self {
            nodes: rng.random_range(2..6),
            loss: if rng.random() { rng.random_range(0..200) } else { 0 },
            duplication: if rng.random() { rng.random_range(0..100) } else { 0 },
            delay: if rng.random() { rng.random_range(1..600) } else { 5 },
            faults: rng.random_range(0..60),
            failing_disk: if rng.random_range(0..4) == 0 { 50 } else { 0 },
            skew: rng.random_range(0..400),
            busy_for: rng.random_range(5_000..40_000),
            tombstone_life: if rng.random() { 10_000 } else { 24 * 3_600_000 },
            tombstone_max: 30 * 24 * 3_600_000,
        }
    }
}

#[derive(Debug)]
enum Happening {
    Deliver {
        from: usize,
        to: usize,
        message: Message,
    },
    Gossip {
        from: usize,
        to: usize,
        state: State,
        sent: u64,
    },
    Tick {
        node: usize,
        life: u64,
    },
    /// The disk has it.
    Written {
        node: usize,
        life: u64,
        commit: u64,
        changes: Commit,
        fails: bool,
    },
    /// The node knows.
    Done {
        node: usize,
        life: u64,
        event: Event,
    },
    Restart {
        node: usize,
    },
}

struct Item {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Node {
    id: NodeId,
    engine: Option<Engine>,
    /// Which start of the node it is: what belongs to an earlier one never arrives.
    life: u64,
    disk: BTreeMap<Key, Record>,
    meta: Meta,
    /// What the node serves, made only of what it was told to put in effect.
    serves: BTreeMap<Key, Record>,
    heard: BTreeMap<usize, u64>,
    shows: Option<State>,
    /// Milliseconds that its wall clock is off.
    clock: i64,
}

/// What a client was promised.
#[derive(Debug)]
struct Acknowledged {
    ticket: u64,
    versions: Vec<(Key, Version)>,
}

pub struct World {
    now: u64,
    rng: SmallRng,
    options: Options,
    nodes: Vec<Node>,
    future: BinaryHeap<Reverse<Item>>,
    order: u64,
    /// Pairs (from, to) that hear nothing of each other.
    cut: BTreeSet<(usize, usize)>,
    acknowledged: Vec<Acknowledged>,
    answers: BTreeMap<u64, Answer>,
    tickets: u64,
    faults: bool,
    busy_until: u64,
    /// The greatest version of each key that was ever on a disk.
    ever: BTreeMap<Key, Version>,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut world = Self {
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            nodes: Vec::new(),
            future: BinaryHeap::new(),
            order: 0,
            cut: BTreeSet::new(),
            acknowledged: Vec::new(),
            answers: BTreeMap::new(),
            tickets: 0,
            faults: true,
            busy_until: 0,
            ever: BTreeMap::new(),
            options,
        };
        for _ in 0..world.options.nodes {
            world.add_node();
        }
        world
    }

    fn add_node(&mut self) -> usize {
        let skew = self.options.skew;
        let clock = if skew > 0 { self.rng.random_range(-skew / 2..=skew / 2) } else { 0 };
        let number = self.nodes.len();
        self.nodes.push(Node {
            id: NodeId(number as u128 + 1),
            engine: None,
            life: 0,
            disk: BTreeMap::new(),
            meta: Meta::default(),
            serves: BTreeMap::new(),
            heard: BTreeMap::new(),
            shows: None,
            clock,
        });
        self.boot(number);
        number
    }

    fn boot(&mut self, number: usize) {
        let seed = self.rng.random();
        let options = &self.options;
        let node = &mut self.nodes[number];
        let config = Config {
            seed,
            tombstone_life: options.tombstone_life,
            tombstone_max: options.tombstone_max,
            ..Config::new(node.id, format!("node {number}"))
        };
        let kept = Kept { records: node.disk.values().cloned().collect(), meta: node.meta.clone() };
        let engine = Engine::new(config, kept);
        node.life += 1;
        node.heard.clear();
        node.shows = None;
        node.serves = engine.in_effect().into_iter().filter_map(|change| Some((change.key, change.effective?))).collect();
        node.engine = Some(engine);
        let life = node.life;
        let wait = self.rng.random_range(0..TICK);
        self.plan(wait, Happening::Tick { node: number, life });
    }

    fn plan(&mut self, after: u64, what: Happening) {
        self.order += 1;
        self.future.push(Reverse(Item { at: self.now + after, order: self.order, what }));
    }

    fn number(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    fn chance(&mut self, per_thousand: u32) -> bool {
        self.rng.random_range(0..1_000) < per_thousand
    }

    fn time_of(&self, node: usize) -> Now {
        Now { wall: (EPOCH + self.now).saturating_add_signed(self.nodes[node].clock), mono: self.now }
    }

    fn give(&mut self, number: usize, event: Event) {
        let now = self.time_of(number);
        let Some(engine) = &mut self.nodes[number].engine else { return };
        let actions = engine.handle(event, now);
        for action in actions {
            self.act(number, action);
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        let life = self.nodes[number].life;
        match action {
            Action::Send { to, message } => {
                let to = self.number(to);
                self.transmit(number, to, |from, to| Happening::Deliver { from, to, message: message.clone() });
            }
            Action::Commit { commit, changes } => {
                let fails = self.faults && self.chance(self.options.failing_disk);
                let takes = self.rng.random_range(0..8);
                self.plan(takes, Happening::Written { node: number, life, commit, changes, fails });
            }
            Action::Apply { commit, changes } => {
                let node = &mut self.nodes[number];
                for change in changes {
                    match change.effective {
                        Some(record) => node.serves.insert(change.key, record),
                        None => node.serves.remove(&change.key),
                    };
                }
                let takes = self.rng.random_range(0..4);
                self.plan(takes, Happening::Done { node: number, life, event: Event::Applied { commit, rejected: vec![] } });
            }
            Action::Answer { ticket, answer } => {
                if let Answer::Written { versions, .. } = &answer {
                    self.acknowledged.push(Acknowledged { ticket, versions: versions.clone() });
                }
                self.answers.insert(ticket, answer);
            }
            Action::Publish(state) => self.nodes[number].shows = Some(state),
        }
    }

    fn transmit(&mut self, from: usize, to: usize, what: impl Fn(usize, usize) -> Happening) {
        if to >= self.nodes.len() || self.cut.contains(&(from, to)) || (self.faults && self.chance(self.options.loss)) {
            return;
        }
        let copies = 1 + u32::from(self.faults && self.chance(self.options.duplication));
        for _ in 0..copies {
            let longest = if self.faults { self.options.delay } else { 5 };
            let takes = self.rng.random_range(0..=longest);
            self.plan(takes, what(from, to));
        }
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        let Some(Reverse(Item { at, what, .. })) = self.future.pop() else { return };
        self.now = self.now.max(at);
        match what {
            Happening::Deliver { from, to, message } => {
                let from = self.nodes[from].id;
                self.give(to, Event::Message { from, message });
            }
            Happening::Gossip { from, to, state, sent } => self.gossip_arrives(from, to, state, sent),
            Happening::Tick { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].engine.is_some() {
                    self.tick(node);
                    self.plan(TICK, Happening::Tick { node, life });
                }
            }
            Happening::Written { node: number, life, commit, changes, fails } => {
                let node = &mut self.nodes[number];
                if node.life != life || node.engine.is_none() {
                    return;
                }
                let event = if fails {
                    Event::CommitFailed { commit, reason: "the disk is full".to_owned() }
                } else {
                    for record in changes.put {
                        let ever = self.ever.entry(record.key.clone()).or_insert(Version::NONE);
                        *ever = (*ever).max(record.version);
                        node.disk.insert(record.key.clone(), record);
                    }
                    for key in changes.removed {
                        node.disk.remove(&key);
                    }
                    node.meta = changes.meta;
                    Event::Committed { commit }
                };
                let takes = self.rng.random_range(0..3);
                self.plan(takes, Happening::Done { node: number, life, event });
            }
            Happening::Done { node, life, event } => {
                if self.nodes[node].life == life {
                    self.give(node, event);
                }
            }
            Happening::Restart { node } => {
                if self.nodes[node].engine.is_none() {
                    self.boot(node);
                }
            }
        }
    }

    fn gossip_arrives(&mut self, from: usize, to: usize, state: State, sent: u64) {
        if self.nodes[to].engine.is_none() {
            return;
        }
        let id = self.nodes[from].id;
        let offset = self.nodes[from].clock - self.nodes[to].clock;
        if self.nodes[to].heard.insert(from, self.now).is_none() {
            self.give(to, Event::PeerUp(id));
        }
        self.give(to, Event::ClockOffset { node: id, millis: offset });
        // Gossip never goes back to an older state of a node.
        if sent + 2 * self.options.delay >= self.now {
            self.give(to, Event::PeerState { node: id, state });
        }
    }

    fn tick(&mut self, node: usize) {
        let silent: Vec<usize> =
            self.nodes[node].heard.iter().filter(|(_, at)| **at + DEAD_AFTER < self.now).map(|(peer, _)| *peer).collect();
        for peer in silent {
            self.nodes[node].heard.remove(&peer);
            let id = self.nodes[peer].id;
            self.give(node, Event::PeerDown(id));
        }
        if self.now % GOSSIP < TICK
            && let Some(state) = self.nodes[node].shows
        {
            let sent = self.now;
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                self.transmit(node, to, |from, to| Happening::Gossip { from, to, state, sent });
            }
        }
        self.give(node, Event::Tick);
        if self.faults {
            self.trouble(node);
        }
    }

    fn trouble(&mut self, node: usize) {
        if self.now >= self.busy_until {
            return;
        }
        if self.chance(250) {
            self.client(node);
        }
        if !self.chance(self.options.faults) {
            return;
        }
        match self.rng.random_range(0..5) {
            0 => self.crash(node),
            1 => {
                let other = self.rng.random_range(0..self.nodes.len());
                self.cut.insert((node, other));
                if self.chance(700) {
                    self.cut.insert((other, node));
                }
            }
            2 => {
                let side: Vec<bool> = (0..self.nodes.len()).map(|_| self.rng.random()).collect();
                let all = (0..side.len()).flat_map(|a| (0..side.len()).map(move |b| (a, b)));
                self.cut = all.filter(|(a, b)| side[*a] != side[*b]).collect();
            }
            _ => self.cut.clear(),
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].engine = None;
        let away = self.rng.random_range(0..8_000);
        self.plan(away, Happening::Restart { node });
    }

    fn draft(&mut self) -> Draft {
        let rng = &mut self.rng;
        let kind = if rng.random() { "service" } else { "route" };
        let key = Key::new(kind, format!("{}", rng.random_range(0..8)));
        if rng.random_range(0..4) == 0 {
            return Draft { key, parents: vec![], unique: vec![], body: None, expect: None };
        }
        let parents = if kind == "route" { vec![Key::new("service", format!("{}", rng.random_range(0..8)))] } else { vec![] };
        let unique = (0..rng.random_range(0..2)).map(|_| Unique {
            field: if rng.random() { "name".into() } else { "key".into() },
            value: format!("{}", rng.random_range(0..5)).into(),
            exclusive: false,
        });
        let mut unique: Vec<Unique> = unique.collect();
        unique.iter_mut().for_each(|unique| unique.exclusive = &*unique.field == "key");
        let body = format!("{{\"n\":{}}}", rng.random::<u32>()).into_bytes();
        Draft { key, parents, unique, body: Some(body.into()), expect: None }
    }

    fn client(&mut self, node: usize) {
        let drafts = (0..self.rng.random_range(1..4)).map(|_| self.draft()).collect();
        let concern = match self.rng.random_range(0..4) {
            0 => Concern::None,
            1 => Concern::Nodes(2),
            2 => Concern::Majority,
            _ => Concern::All,
        };
        self.write(node, drafts, concern);
    }

    fn write(&mut self, node: usize, drafts: Vec<Draft>, concern: Concern) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.give(node, Event::Write { ticket, drafts, concern, timeout: 500 });
        ticket
    }

    fn run_until(&mut self, time: u64) {
        while self.future.peek().is_some_and(|Reverse(item)| item.at <= time) {
            self.step();
        }
        self.now = self.now.max(time);
    }

    /// Ends all faults and brings back every node.
    fn heal(&mut self) {
        self.faults = false;
        self.cut.clear();
        for node in 0..self.nodes.len() {
            if self.nodes[node].engine.is_none() {
                self.boot(node);
            }
        }
    }

    fn agree(&self) -> bool {
        let digests: BTreeSet<_> =
            self.nodes.iter().map(|node| format!("{:?}", node.engine.as_ref().map(|e| e.replica().digest()))).collect();
        digests.len() == 1 && self.nodes.iter().all(|node| node.engine.as_ref().is_some_and(Engine::is_ready))
    }

    /// Waits until all nodes have the same for a while.
    fn converge(&mut self, within: u64) -> Result<(), String> {
        let end = self.now + within;
        let mut agreed = 0;
        while self.now < end {
            self.run_until(self.now + GOSSIP);
            agreed = if self.agree() { agreed + 1 } else { 0 };
            if agreed > 6 {
                return Ok(());
            }
        }
        let states = self.nodes.iter().map(|node| node.engine.as_ref().map(|e| (e.replica().digest(), e.is_ready(), e.counters())));
        Err(format!("no convergence within {within} ms: {:#?}", states.collect::<Vec<_>>()))
    }

    /// The whole schedule.
    pub fn run(&mut self) -> Result<(), String> {
        if self.options.tombstone_life < self.options.busy_for {
            // Nodes that have never met cannot know of each other's deletions.
            self.faults = false;
            self.converge(20_000)?;
            self.faults = true;
        }
        self.busy_until = self.now + self.options.busy_for;
        self.run_until(self.busy_until);
        self.heal();
        for _ in 0..10 {
            self.converge(90_000)?;
            self.finish_commits();
            // A horizon that was just being raised is a difference again.
            if self.agree() {
                break;
            }
        }
        self.check()
    }

    /// Lets no commit be half done.
    fn finish_commits(&mut self) {
        let half = |item: &Reverse<Item>| matches!(item.0.what, Happening::Written { .. } | Happening::Done { .. });
        while self.future.iter().any(half) {
            self.step();
        }
    }

    /// What must hold when all have converged.
    fn check(&self) -> Result<(), String> {
        let first = self.nodes[0].engine.as_ref().ok_or("a node is down")?.replica();
        let horizon = first.digest().horizon;
        for (number, node) in self.nodes.iter().enumerate() {
            let replica = node.engine.as_ref().ok_or("a node is down")?.replica();
            if !replica.records().eq(first.records()) {
                return Err(format!("node {number} has other records"));
            }
            let effective = replica.effective();
            if effective != specification(replica.records()) {
                return Err(format!("node {number}: what is in effect is not what the specification says"));
            }
            // A node that was ended twice within seconds suspects what it had just put in effect.
            let quarantined = node.engine.as_ref().map(|engine| engine.status(self.time_of(number)).quarantined).unwrap_or_default();
            let serves: BTreeMap<Key, Record> = effective
                .records
                .iter()
                .filter(|key| !key.is_internal() && !quarantined.contains(key))
                .filter_map(|key| Some((key.clone(), replica.get(key)?.clone())))
                .collect();
            if serves != node.serves {
                return Err(format!("node {number} serves something else than what is in effect"));
            }
            let disk: BTreeMap<Key, Record> = replica.records().map(|record| (record.key.clone(), record.clone())).collect();
            if disk != node.disk || node.meta.horizon != horizon {
                let only = |these: &BTreeMap<Key, Record>, those: &BTreeMap<Key, Record>| {
                    these
                        .iter()
                        .filter(|(key, record)| those.get(key) != Some(record))
                        .map(|(_, r)| format!("{} {:?}", r.key, r.version))
                        .collect::<Vec<_>>()
                };
                let (memory, kept) = (only(&disk, &node.disk), only(&node.disk, &disk));
                return Err(format!(
                    "node {number}: only in memory {memory:?}, only on disk {kept:?}, horizon {} and {horizon}",
                    node.meta.horizon
                ));
            }
            let mut owners: BTreeMap<_, &Key> = BTreeMap::new();
            for record in serves.values() {
                for claim in record.claims.iter().filter(|claim| claim.exclusive) {
                    if owners.insert((claim.field.clone(), claim.value.clone()), &record.key).is_some() {
                        return Err(format!("node {number}: two records in effect with {claim:?}"));
                    }
                }
            }
        }
        for Acknowledged { ticket, versions } in &self.acknowledged {
            for (key, version) in versions {
                let here = first.version(key);
                let last = self.ever.get(key).copied().unwrap_or(Version::NONE);
                let purged = here == Version::NONE && !last.is_alive() && last.stamp.millis() <= horizon;
                if here < *version && !(purged && last >= *version) {
                    return Err(format!("write {ticket} of {key} at {version:?} is lost: there is {here:?}"));
                }
            }
        }
        Ok(())
    }
}
