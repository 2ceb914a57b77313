//! Limits across nodes without a common counter: quota on lease. Each window of a limit has an owner among the live nodes,
//! by rendezvous hashing; the owner gives portions of the limit to the nodes, which spend them without asking. What has been
//! given never exceeds the limit, so nodes that all see each other overshoot by nothing. Without I/O and time.
//!
//! With faults: leases of a dead node count as spent; totals go to the owner's successor as they change, so that a dead
//! owner's window does not start from zero, and each question tells what the node was given so far. A side of a partition
//! that sees n of N members gives at most n/N of the limit. What may be overshot is what a dead owner gave in the moment
//! before its death, and across a partition at most what one side had given before it parted.

mod ledger;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bincode::{Decode, Encode};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::NodeId;
use ledger::{Given, Ledger};

/// The most windows that a node spends from, and the most that it owns. Past that, new windows are unavailable.
pub const MAX_WINDOWS: usize = 100_000;
/// From how many times the number of nodes on a limit is divided; below, the owner decides each request.
const DIVIDED_FROM: u64 = 20;
/// How long an owner waits for what it calls back, in milliseconds.
const RECALL_FOR: u64 = 100;
/// How long a question waits for its answer before it is asked again, in milliseconds.
const ASK_AGAIN: u64 = 50;
/// How long after its end a window is remembered, in milliseconds: clocks differ.
const GRACE: u64 = 1_000;

/// A window of a limit: one plugin, one identifier, one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Window {
    /// Names the plugin, the identifier and the period; the same on every node.
    pub name: Arc<str>,
    pub limit: u64,
    /// When the period ends, in milliseconds since 1970.
    pub until: u64,
}

/// What nodes say to each other about quota.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Asks the owner for at least `need`. `had`: all that this node was given and has given back. A number that comes
    /// again is the same question.
    Ask { number: u64, window: Window, need: u64, had: Given },
    /// The owner's answer. 0: the limit is used up. `left` is what the owner can still give.
    Grant { number: u64, name: Arc<str>, amount: u64, left: u64 },
    /// The owner has nothing left and asks for what is not spent.
    Recall { window: Window },
    /// The answer: all that this node was given and has given back.
    Return { name: Arc<str>, had: Given },
    /// To the owner's successor, and to a new owner: what the nodes were given.
    Total { window: Window, rows: Vec<(NodeId, Given)> },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        to: NodeId,
        message: Message,
    },
    /// The decision for a request that had to wait.
    Decide {
        ticket: u64,
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
    /// Too many windows: the caller's own rule for faults applies.
    Unavailable,
}

/// What a node may spend of a window without asking anybody.
#[derive(Debug, Default)]
pub struct Grant {
    remaining: AtomicI64,
    /// What the owner could still give, when it last said so.
    left: AtomicI64,
    /// Below this much a portion should be asked for in advance.
    low: AtomicI64,
}

impl Grant {
    /// Spends if there is enough. `None`: ask [`Leases::spend`], which asks the owner. Otherwise whether the grant runs low,
    /// when [`Leases::refill`] should be called soon. One atomic operation, and a second when it fails.
    pub fn try_spend(&self, cost: u64) -> Option<bool> {
        let cost = i64::try_from(cost).ok()?;
        let taken = |remaining: i64| (remaining >= cost).then(|| remaining - cost);
        let before = self.remaining.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        Some(before - cost < self.low.load(Ordering::Relaxed))
    }

    fn take_all(&self) -> u64 {
        self.remaining.swap(0, Ordering::AcqRel).max(0) as u64
    }

    fn add(&self, amount: u64) {
        self.remaining.fetch_add(amount as i64, Ordering::AcqRel);
    }

    /// About how much of the limit is left, for the answer's headers: what is here and what the owner had.
    pub fn left(&self) -> u64 {
        (self.remaining.load(Ordering::Relaxed) + self.left.load(Ordering::Relaxed)).max(0) as u64
    }
}

#[derive(Debug)]
struct Question {
    number: u64,
    need: u64,
    at: u64,
}

#[derive(Debug)]
struct Held {
    window: Window,
    grant: Arc<Grant>,
    had: Given,
    question: Option<Question>,
    /// Requests that wait: ticket and cost.
    waiting: Vec<(u64, u64)>,
    used_up: bool,
}

/// The leases of a node: what it spends, and what it gives as an owner.
#[derive(Debug)]
pub struct Leases {
    node: NodeId,
    live: BTreeSet<NodeId>,
    /// Members, live or not: all that have not been forgotten.
    members: usize,
    held: HashMap<Arc<str>, Held>,
    ledgers: HashMap<Arc<str>, Ledger>,
    numbers: u64,
    actions: Vec<Action>,
}

/// The live nodes in the order in which they would own the window.
fn order(name: &str, live: &BTreeSet<NodeId>) -> (Option<NodeId>, Option<NodeId>) {
    let weight = |node: &NodeId| (xxh3_64_with_seed(name.as_bytes(), node.0 as u64 ^ (node.0 >> 64) as u64), *node);
    let (mut first, mut second) = (None, None);
    for weighed in live.iter().map(weight) {
        if first < Some(weighed) {
            second = first;
            first = Some(weighed);
        } else if second < Some(weighed) {
            second = Some(weighed);
        }
    }
    (first.map(|(_, node)| node), second.map(|(_, node)| node))
}

impl Leases {
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            live: BTreeSet::from([node]),
            members: 1,
            held: HashMap::new(),
            ledgers: HashMap::new(),
            numbers: 0,
            actions: Vec::new(),
        }
    }

    /// Who is there, this node included, and of how many. Totals go to new owners.
    pub fn members(&mut self, live: BTreeSet<NodeId>, members: usize) -> Vec<Action> {
        self.members = members.max(live.len()).max(1);
        if live != self.live {
            self.live = live;
            self.live.insert(self.node);
            for ledger in self.ledgers.values_mut() {
                let (owner, successor) = order(&ledger.window.name, &self.live);
                let to = if owner == Some(self.node) { successor } else { owner };
                self.actions.extend(to.map(|to| Action::Send { to, message: ledger.total() }));
            }
            for held in self.held.values_mut() {
                // The owner may be another one now: ask it instead.
                if let Some(question) = &mut held.question {
                    question.at = 0;
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn share(&self, limit: u64) -> u64 {
        limit / (DIVIDED_FROM * self.members as u64)
    }

    /// The grant of a window, for spending without a call. `None`: there are too many windows.
    pub fn grant(&mut self, window: &Window) -> Option<Arc<Grant>> {
        if let Some(held) = self.held.get(&window.name) {
            return Some(held.grant.clone());
        }
        if self.held.len() >= MAX_WINDOWS {
            return None;
        }
        let share = self.share(window.limit);
        let grant = Arc::new(Grant::default());
        grant.add(share);
        grant.left.store(window.limit.saturating_sub(share).min(i64::MAX as u64) as i64, Ordering::Relaxed);
        grant.low.store((share / 2) as i64, Ordering::Relaxed);
        let had = Given { given: share, returned: 0 };
        let held = Held { window: window.clone(), grant: grant.clone(), had, question: None, waiting: Vec::new(), used_up: false };
        self.held.insert(window.name.clone(), held);
        Some(grant)
    }

    /// Decides a request, here or by asking the owner.
    pub fn spend(&mut self, ticket: u64, window: &Window, cost: u64, now: u64) -> (Decision, Vec<Action>) {
        let Some(grant) = self.grant(window) else { return (Decision::Unavailable, Vec::new()) };
        if let Some(low) = grant.try_spend(cost) {
            if low {
                self.ask(&window.name, now);
            }
            return (Decision::Allowed, std::mem::take(&mut self.actions));
        }
        let Some(held) = self.held.get_mut(&window.name) else { return (Decision::Unavailable, Vec::new()) };
        if held.used_up || cost > window.limit {
            return (Decision::Refused, Vec::new());
        }
        held.waiting.push((ticket, cost));
        self.ask(&window.name, now);
        let mut actions = std::mem::take(&mut self.actions);
        // The owner may be this node, which has decided by now.
        let here = actions.iter().position(|action| matches!(action, Action::Decide { ticket: of, .. } if *of == ticket));
        match here.map(|at| actions.remove(at)) {
            Some(Action::Decide { allowed: true, .. }) => (Decision::Allowed, actions),
            Some(_) => (Decision::Refused, actions),
            None => (Decision::Wait, actions),
        }
    }

    /// Asks for a portion in advance, when the grant of a window runs low.
    pub fn refill(&mut self, name: &str, now: u64) -> Vec<Action> {
        self.ask(name, now);
        std::mem::take(&mut self.actions)
    }

    /// The caller no longer waits for the decision.
    pub fn give_up(&mut self, name: &str, ticket: u64) {
        if let Some(held) = self.held.get_mut(name) {
            held.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    fn ask(&mut self, name: &str, now: u64) {
        let share = self.held.get(name).map_or(0, |held| self.share(held.window.limit));
        let Some(held) = self.held.get_mut(name) else { return };
        // A limit that is not divided is only asked for what waits.
        if held.used_up || held.question.is_some() || (share == 0 && held.waiting.is_empty()) {
            return;
        }
        self.numbers += 1;
        let need = held.waiting.iter().map(|(_, cost)| cost).sum::<u64>();
        held.question = Some(Question { number: self.numbers, need, at: now });
        self.put(name, now);
    }

    /// Sends the open question of a window to its owner.
    fn put(&mut self, name: &str, now: u64) {
        let Some(held) = self.held.get(name) else { return };
        let Some(question) = &held.question else { return };
        let message = Message::Ask { number: question.number, window: held.window.clone(), need: question.need, had: held.had };
        match order(name, &self.live).0 {
            Some(owner) if owner != self.node => self.actions.push(Action::Send { to: owner, message }),
            _ => self.handle(self.node, message, now),
        }
    }

    /// A message of a node.
    pub fn received(&mut self, from: NodeId, message: Message, now: u64) -> Vec<Action> {
        self.handle(from, message, now);
        std::mem::take(&mut self.actions)
    }

    fn handle(&mut self, from: NodeId, message: Message, now: u64) {
        match message {
            Message::Ask { number, window, need, had } => self.asked(from, number, window, need, had, now),
            Message::Grant { number, name, amount, left } => self.granted(&name, number, amount, left, now),
            Message::Recall { window } => self.recalled(from, &window),
            Message::Return { name, had } => {
                if let Some(ledger) = self.ledgers.get_mut(&name) {
                    ledger.learn(from, had);
                    ledger.returned(from);
                    self.serve(&name, now);
                }
            }
            Message::Total { window, rows } => {
                if let Some(ledger) = self.ledger(&window) {
                    for (node, given) in rows.into_iter().take(crate::MAX_MEMBERS * 2) {
                        ledger.learn(node, given);
                    }
                }
            }
        }
    }

    fn ledger(&mut self, window: &Window) -> Option<&mut Ledger> {
        if self.ledgers.len() >= MAX_WINDOWS && !self.ledgers.contains_key(&window.name) {
            return None;
        }
        Some(self.ledgers.entry(window.name.clone()).or_insert_with(|| Ledger::new(window.clone())))
    }

    fn asked(&mut self, from: NodeId, number: u64, window: Window, need: u64, had: Given, now: u64) {
        let Some(ledger) = self.ledger(&window) else { return };
        ledger.learn(from, had);
        ledger.ask(from, number, need);
        self.serve(&window.name, now);
    }

    /// Answers the questions about a window, as far as there is something to give or it is known that there is not.
    fn serve(&mut self, name: &Arc<str>, now: u64) {
        let (members, live) = (self.members, self.live.clone());
        let successor = order(name, &live).1.filter(|_| order(name, &live).0 == Some(self.node));
        let Some(ledger) = self.ledgers.get_mut(name) else { return };
        let share = ledger.window.limit / (DIVIDED_FROM * members as u64);
        let cap = ledger.window.limit.saturating_mul(live.len() as u64) / members as u64;
        let mut answers = Vec::new();
        while let Some(question) = ledger.questions.pop_front() {
            let amount = match ledger.repeated(question.from, question.number) {
                Some(amount) => amount,
                None => {
                    let pool = cap.saturating_sub(ledger.outstanding(share, members));
                    let portion = if share == 0 { question.need } else { (pool / (2 * members as u64)).max(question.need).max(1) };
                    let amount = portion.min(pool);
                    if pool < question.need && ledger.recall(question.from, &live, share, now) {
                        ledger.questions.push_front(question);
                        break;
                    }
                    ledger.give(question.from, question.number, amount, share);
                    amount
                }
            };
            let left = cap.saturating_sub(ledger.outstanding(share, members));
            answers.push((question.from, Message::Grant { number: question.number, name: name.clone(), amount, left }));
        }
        for to in ledger.newly_recalled() {
            answers.push((to, Message::Recall { window: ledger.window.clone() }));
        }
        if let Some(to) = successor
            && answers.iter().any(|(_, message)| matches!(message, Message::Grant { amount: 1.., .. }))
        {
            answers.push((to, ledger.total()));
        }
        for (to, message) in answers {
            if to == self.node {
                self.handle(to, message, now);
            } else {
                self.actions.push(Action::Send { to, message });
            }
        }
    }

    fn granted(&mut self, name: &str, number: u64, amount: u64, left: u64, now: u64) {
        let Some(held) = self.held.get_mut(name) else { return };
        let Some(question) = held.question.take_if(|question| question.number == number) else { return };
        held.had.given += amount;
        held.grant.add(amount);
        held.grant.left.store(left.min(i64::MAX as u64) as i64, Ordering::Relaxed);
        held.grant.low.store((amount / 2) as i64, Ordering::Relaxed);
        let refused = amount < question.need;
        // Nothing for a question that needed nothing: there is none to give in advance, but some may come back.
        held.used_up = amount == 0 && question.need > 0 && left == 0;
        for (ticket, cost) in std::mem::take(&mut held.waiting) {
            if held.grant.try_spend(cost).is_some() {
                self.actions.push(Action::Decide { ticket, allowed: true });
            } else if refused {
                self.actions.push(Action::Decide { ticket, allowed: false });
            } else {
                held.waiting.push((ticket, cost));
            }
        }
        if !held.waiting.is_empty() {
            self.ask(name, now);
        }
    }

    fn recalled(&mut self, from: NodeId, window: &Window) {
        if self.grant(window).is_none() {
            return;
        }
        let Some(held) = self.held.get_mut(&window.name) else { return };
        held.had.returned += held.grant.take_all();
        held.grant.low.store(0, Ordering::Relaxed);
        held.grant.left.store(0, Ordering::Relaxed);
        let message = Message::Return { name: window.name.clone(), had: held.had };
        if from == self.node {
            self.handle(from, message, 0);
        } else {
            self.actions.push(Action::Send { to: from, message });
        }
    }

    /// Asks again what was not answered, decides what was called back in vain, forgets windows that are over.
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        let over = |window: &Window| window.until + GRACE < now;
        for held in self.held.values().filter(|held| over(&held.window)) {
            let refuse = |(ticket, _): &(u64, u64)| Action::Decide { ticket: *ticket, allowed: false };
            self.actions.extend(held.waiting.iter().map(refuse));
        }
        self.held.retain(|_, held| !over(&held.window));
        self.ledgers.retain(|_, ledger| !over(&ledger.window));
        let due = |held: &&mut Held| held.question.as_ref().is_some_and(|question| question.at + ASK_AGAIN <= now);
        let mut again = Vec::new();
        for held in self.held.values_mut().filter(due) {
            if let Some(question) = &mut held.question {
                question.at = now;
            }
            again.push(held.window.name.clone());
        }
        for name in again {
            self.put(&name, now);
        }
        let waiting = self.ledgers.iter_mut().filter(|(_, ledger)| ledger.recall_is_over(now));
        let names: Vec<Arc<str>> = waiting.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.serve(&name, now);
        }
        std::mem::take(&mut self.actions)
    }

    /// Windows that this node spends from, and that it keeps the books of.
    pub fn windows(&self) -> (usize, usize) {
        (self.held.len(), self.ledgers.len())
    }
}
