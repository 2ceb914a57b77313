//! Limits across nodes without a common counter: quota on lease. Each window of a limit has an owner among the live nodes,
//! by rendezvous hashing; the owner gives portions of the limit to the nodes, which spend them without asking. What has been
//! given never exceeds the limit, so nodes that all see each other overshoot by nothing. Without I/O and time.
//!
//! With faults: leases of a dead node count as spent. Totals go to the owner's successor as they change, and what the owner
//! gives to itself it spends when the successor has noted it. Who becomes the owner of a window asks all live nodes what they
//! were given before it gives anything. So the death of one node overshoots nothing. A side of a partition that sees n of N
//! members gives at most n/N of the limit, whatever the other side gives meanwhile. A node that ends in good order hands back what
//! it has not spent, and one that was started after a window began is told by the owner what its node had before.
//!
//! | module | what it holds |
//! |---|---|
//! | [`grant`] | what requests spend from |
//! | [`holder`] | a node as one that spends |
//! | [`farewell`] | a node as one that ends |
//! | [`owner`] | a node as one that gives |
//! | [`ledger`] | the books of a window |

mod farewell;
mod grant;
mod holder;
mod ledger;
mod owner;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bincode::{Decode, Encode};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::NodeId;
pub use grant::Grant;
use holder::Held;
pub use ledger::Given;
use ledger::Ledger;

/// The most windows that a node spends from, and the most that it keeps the books of. Past that, those that nobody uses go.
pub const MAX_WINDOWS: usize = 1 << 17;
/// From how many times the number of nodes on a limit is divided; below, the owner decides each request.
pub const DIVIDED_FROM: u64 = 20;
/// How long an owner waits for what it calls back, and for what its successor notes, in milliseconds.
const ROUND: u64 = 100;
/// How long a question waits for its answer before it is asked again, in milliseconds.
const ASK_AGAIN: u64 = 50;
/// For how long nobody asks for more of a window that is used up, in milliseconds: something may be given back.
const USED_UP: u64 = 1_000;
/// How long a node gives nothing of a window that another one has begun to own, in milliseconds: until it sees that node.
const YIELD: u64 = 500;
/// How long a node that was started gives nothing of windows that had begun, while it sees none of those that it knows, in
/// milliseconds: they know what it had. Less than requests wait.
const ALONE: u64 = 400;
/// How long after its end a window is remembered, in milliseconds: clocks differ.
const GRACE: u64 = 1_000;
/// How often windows that are over are taken out, in milliseconds.
const SWEEP: u64 = 5_000;
/// How often room is made among windows that are not over, in milliseconds.
const MAKE_ROOM: u64 = 1_000;
/// Totals that are sent in one tick after nodes have come or gone.
const TELL: usize = 1_000;
/// The most requests of a node that wait for owners.
const MAX_WAITING: usize = 10_000;

/// Names the plugin, the identifier and the period of a window; the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Name(pub u128);

/// A window of a limit: one plugin, one identifier, one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Window {
    pub name: Name,
    pub limit: u64,
    /// When the period begins and ends, in milliseconds since 1970.
    pub since: u64,
    pub until: u64,
}

impl Window {
    /// Whether it need not be remembered any more.
    fn is_over(&self, now: u64) -> bool {
        self.until.saturating_add(GRACE) < now
    }
}

/// What nodes say to each other about quota.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Asks the owner for at least `need`. `had`: all that this node was given and has given back. A number that comes
    /// again is the same question.
    Ask { number: u64, window: Window, need: u64, had: Given },
    /// The owner's answer. 0: the limit is used up. `left` is what the owner can still give; negative when more was spent than
    /// there was. `had`: all that the node was given, this included, and has given back, as far as the owner knows.
    Grant { number: u64, name: Name, amount: u64, left: i64, had: Given },
    /// The owner has nothing left, or has just become the owner, and asks for what is not spent.
    Recall { window: Window },
    /// The answer: all that this node was given and has given back, and what it knows of the others.
    Return { name: Name, had: Given, rows: Vec<(NodeId, Given)> },
    /// The node has spent more than it was given.
    Told { window: Window, had: Given },
    /// To the owner's successor: what the nodes were given. With a number other than 0, it is to be answered.
    Total { number: u64, window: Window, rows: Vec<(NodeId, Given)> },
    /// The answer: the successor has taken note.
    Noted { number: u64, name: Name },
    /// Totals of many windows, to their owners and successors, after nodes have come or gone.
    Totals(Vec<(Window, Vec<(NodeId, Given)>)>),
    /// Of a node that ends, to those who own its windows then: what it was given and has given back, and of windows that it
    /// owned, what all nodes were.
    Farewell { number: u64, books: Vec<(Window, Vec<(NodeId, Given)>)> },
    /// The answer: note is taken of it.
    Heard { number: u64 },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        to: NodeId,
        message: Message,
    },
    /// The decision for a request that had to wait. What was spent is to be given back when nobody waits any more.
    Decide {
        ticket: u64,
        name: Name,
        spent: u64,
        allowed: bool,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// The limit is used up, for this window.
    Refused,
    /// The owner is asked; `Decide` follows with the ticket. The caller sets the limit of its patience.
    Wait,
    /// The owner has not answered in time, or too many requests wait: the caller's own rule for faults applies.
    Unanswered,
    /// There are too many windows in use: the caller counts by itself.
    Full,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Questions to owners, this node among them.
    pub asked: u64,
    /// Portions that this node has given as an owner.
    pub granted: u64,
    /// Times that an owner called back what was not spent.
    pub recalls: u64,
    /// Times that a live node did not answer such a call, or note a total, in time.
    pub unheard: u64,
    /// Windows in use that had to go, or could not be begun, because there were too many.
    pub crowded: u64,
}

/// The leases of a node: what it spends, and what it gives as an owner.
#[derive(Debug)]
pub struct Leases {
    node: NodeId,
    live: BTreeSet<NodeId>,
    /// Nodes that have not been forgotten, live or not.
    members: BTreeSet<NodeId>,
    started: u64,
    /// When this node became a member; until it is one, it has had no earlier life.
    joined: Option<u64>,
    /// When it was first told of others, and whether it has seen any of them.
    begun: Option<u64>,
    seen: bool,
    /// Once the node ends: numbers of farewells that were not heard yet.
    leaving: Option<HashSet<u64>>,
    /// How often the live nodes have changed, and when they last did.
    epoch: u64,
    changed_at: u64,
    /// When books of windows were last taken out before their end.
    forgot_at: u64,
    held: HashMap<Name, Held>,
    ledgers: HashMap<Name, Ledger>,
    /// Windows with an open question, and with an open round.
    open: HashSet<Name>,
    rounds: HashSet<Name>,
    /// Windows whose totals are to be told.
    to_tell: VecDeque<Name>,
    waiting: usize,
    numbers: u64,
    swept_at: u64,
    made_room_at: u64,
    actions: Vec<Action>,
    stats: Stats,
}

fn weight(name: Name, node: NodeId) -> (u64, NodeId) {
    (xxh3_64_with_seed(&name.0.to_le_bytes(), node.0 as u64 ^ (node.0 >> 64) as u64), node)
}

/// The first two live nodes in the order in which they would own the window.
fn order(name: Name, live: &BTreeSet<NodeId>) -> (Option<NodeId>, Option<NodeId>) {
    let (mut first, mut second) = (None, None);
    for weighed in live.iter().map(|node| weight(name, *node)) {
        if first < Some(weighed) {
            second = first;
            first = Some(weighed);
        } else if second < Some(weighed) {
            second = Some(weighed);
        }
    }
    (first.map(|(_, node)| node), second.map(|(_, node)| node))
}

/// Whether so many milliseconds have passed; also when the clock was put back in the meantime.
fn passed(since: u64, millis: u64, now: u64) -> bool {
    since > now || since + millis <= now
}

/// What each of so many members has of a limit from the start. 0: the limit is not divided.
fn share(limit: u64, members: usize) -> u64 {
    limit / (DIVIDED_FROM * members.max(1) as u64)
}

impl Leases {
    /// `seed` is another one at each start, so that questions of an earlier life are not taken for new ones.
    pub fn new(node: NodeId, seed: u64, now: u64) -> Self {
        Self {
            node,
            live: BTreeSet::from([node]),
            members: BTreeSet::from([node]),
            started: now,
            joined: None,
            begun: None,
            seen: false,
            leaving: None,
            epoch: 0,
            changed_at: now,
            forgot_at: 0,
            held: HashMap::new(),
            ledgers: HashMap::new(),
            open: HashSet::new(),
            rounds: HashSet::new(),
            to_tell: VecDeque::new(),
            waiting: 0,
            numbers: seed >> 1,
            swept_at: now,
            made_room_at: 0,
            actions: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Who is there, and who belongs to the cluster. Totals go to new owners and successors.
    pub fn members(&mut self, mut live: BTreeSet<NodeId>, mut members: BTreeSet<NodeId>, now: u64) -> Vec<Action> {
        live.insert(self.node);
        members.extend(&live);
        let before = std::mem::replace(&mut self.members, members);
        // What one that is forgotten has had from the start counts as spent.
        for gone in before.difference(&self.members) {
            for ledger in self.ledgers.values_mut().filter(|ledger| ledger.row(*gone).is_none()) {
                ledger.learn(*gone, Given { given: share(ledger.window.limit, before.len()), returned: 0 });
            }
        }
        if self.members.len() > 1 {
            self.begun.get_or_insert(now);
        }
        self.seen |= live.len() > 1;
        if live != self.live {
            self.live = live;
            self.epoch += 1;
            self.changed_at = now;
            self.to_tell = self.ledgers.keys().copied().collect();
            for ledger in self.ledgers.values_mut() {
                ledger.lose(&self.live);
            }
            self.ask_others();
        }
        std::mem::take(&mut self.actions)
    }

    /// When this node became a member of the cluster, in milliseconds since 1970.
    pub fn joined(&mut self, at: u64) {
        self.joined = Some(at);
    }

    /// A message of a node.
    pub fn received(&mut self, from: NodeId, message: Message, now: u64) -> Vec<Action> {
        self.handle(from, message, now);
        std::mem::take(&mut self.actions)
    }

    fn handle(&mut self, from: NodeId, message: Message, now: u64) {
        match message {
            Message::Ask { number, window, need, had } => self.asked(from, number, window, need, had, now),
            Message::Grant { number, name, amount, left, had } => self.granted(name, number, amount, left, had, now),
            Message::Recall { window } => self.recalled(from, window, now),
            Message::Return { name, had, rows } => self.returned(from, name, had, rows, now),
            Message::Told { window, had } => self.learn(window, [(from, had)], now),
            Message::Total { number, window, rows } => {
                self.learn(window, rows, now);
                if number > 0 && self.ledgers.contains_key(&window.name) {
                    self.send(from, Message::Noted { number, name: window.name }, now);
                }
            }
            Message::Noted { number, name } => self.noted(name, number, now),
            Message::Totals(all) => self.learn_all(all, now),
            Message::Farewell { number, books } => {
                for (window, _) in &books {
                    if let Some(ledger) = self.ledgers.get_mut(&window.name) {
                        ledger.part_with(from);
                    }
                }
                self.learn_all(books, now);
                self.send(from, Message::Heard { number }, now);
            }
            Message::Heard { number } => self.heard(number),
        }
    }

    fn send(&mut self, to: NodeId, message: Message, now: u64) {
        if to == self.node {
            self.handle(to, message, now);
        } else {
            self.actions.push(Action::Send { to, message });
        }
    }

    /// Asks again what was not answered, goes on with rounds that took too long, forgets windows that are over.
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        let due: Vec<Name> = self.open.iter().copied().filter(|name| self.is_due(*name, now)).collect();
        for name in due {
            self.ask_again(name, now);
        }
        let over: Vec<Name> = self.rounds.iter().copied().filter(|name| self.ledgers.get(name).is_none_or(|l| l.is_over(now))).collect();
        for name in over {
            self.rounds.remove(&name);
            self.serve(name, now);
        }
        self.tell();
        if passed(self.swept_at, SWEEP, now) {
            self.swept_at = now;
            self.sweep(|window| window.is_over(now));
        }
        std::mem::take(&mut self.actions)
    }

    /// Totals of windows go to those who own them, or would if this node died, some at a time.
    fn tell(&mut self) {
        let mut messages: HashMap<NodeId, Vec<(Window, Vec<(NodeId, Given)>)>> = HashMap::new();
        for name in self.to_tell.drain(..self.to_tell.len().min(TELL)) {
            let Some(ledger) = self.ledgers.get(&name) else { continue };
            let (owner, successor) = order(name, &self.live);
            let to = if owner == Some(self.node) { successor } else { owner };
            if let Some(to) = to {
                messages.entry(to).or_default().push((ledger.window, ledger.rows()));
            }
        }
        self.actions.extend(messages.into_iter().map(|(to, all)| Action::Send { to, message: Message::Totals(all) }));
    }

    /// Takes out windows. Requests that wait for one of them are refused.
    fn sweep(&mut self, gone: impl Fn(&Window) -> bool) {
        let (actions, waiting) = (&mut self.actions, &mut self.waiting);
        self.held.retain(|_, held| {
            let gone = gone(&held.window);
            if gone {
                *waiting -= held.refuse(actions);
            }
            !gone
        });
        self.ledgers.retain(|_, ledger| !gone(&ledger.window));
        self.open.retain(|name| self.held.contains_key(name));
    }

    /// Takes out what nobody has used since the last time, at most once in a second.
    fn make_room(&mut self, now: u64) {
        if !passed(self.made_room_at, MAKE_ROOM, now) {
            return;
        }
        self.made_room_at = now;
        let before = self.held.len() + self.ledgers.len();
        if self.held.len() >= MAX_WINDOWS {
            self.held.retain(|_, held| held.question.is_some() || !held.waiting.is_empty() || held.grant.was_used());
        }
        if self.ledgers.len() >= MAX_WINDOWS {
            self.forgot_at = now;
            self.ledgers.retain(|_, ledger| ledger.was_used());
        }
        self.stats.crowded += (before - self.held.len() - self.ledgers.len()) as u64;
    }

    /// Windows that this node spends from, and that it keeps the books of.
    pub fn windows(&self) -> (usize, usize) {
        (self.held.len(), self.ledgers.len())
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Live nodes, this one included.
    pub fn nodes(&self) -> usize {
        self.live.len()
    }
}
