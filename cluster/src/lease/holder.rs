//! A node as one that spends: it asks owners for portions, and gives back what they call back.

use std::sync::Arc;

use super::ledger::Given;
use super::{ASK_AGAIN, Action, Decision, Grant, Leases, MAX_WAITING, MAX_WINDOWS, Message, Name, Window, order, passed, share, weight};
use crate::id::NodeId;

/// What was asked of an owner and is not answered.
#[derive(Debug)]
pub(super) struct Question {
    number: u64,
    need: u64,
    at: u64,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    ticket: u64,
    cost: u64,
    /// It only wants to know that there is so much.
    keep: bool,
}

/// A window that the node spends from.
#[derive(Debug)]
pub(super) struct Held {
    pub window: Window,
    pub grant: Arc<Grant>,
    pub had: Given,
    /// What was spent or given back beyond the grant before the owner has told what this node had in earlier lives; `None`
    /// once it has, and in windows that began after the node's start.
    pub unsettled: Option<Given>,
    pub question: Option<Question>,
    /// The highest number of a question that was answered.
    answered: u64,
    pub waiting: Vec<Waiting>,
}

impl Held {
    /// Refuses all requests that wait; how many that were.
    pub fn refuse(&mut self, actions: &mut Vec<Action>) -> usize {
        let name = self.window.name;
        let refused = self.waiting.drain(..).map(|waiting| Action::Decide { ticket: waiting.ticket, name, spent: 0, allowed: false });
        let before = actions.len();
        actions.extend(refused);
        actions.len() - before
    }

    /// All that is not spent goes back.
    pub fn give_back(&mut self) {
        self.had.returned += self.grant.take_all();
    }
}

impl Leases {
    /// The grant of a window, for spending without a call. `None`: there are too many windows in use.
    pub fn grant(&mut self, window: &Window, now: u64) -> Option<Arc<Grant>> {
        if let Some(held) = self.held.get_mut(&window.name) {
            if held.window.limit != window.limit {
                // The configuration has changed: what is given from now on is given with the new limit in view.
                held.give_back();
                let grant = Grant::new(window, 0);
                let counted = i64::try_from(held.window.limit).unwrap_or(i64::MAX).saturating_sub(held.grant.left());
                grant.owe(counted.saturating_neg());
                held.window.limit = window.limit;
                held.grant = Arc::new(grant);
            }
            return Some(held.grant.clone());
        }
        if self.held.len() >= MAX_WINDOWS {
            self.make_room(now);
            if self.held.len() >= MAX_WINDOWS {
                self.stats.crowded += 1;
                return None;
            }
        }
        // What this node was given in an earlier life, or has given back as the owner, it is not given again.
        let before = self.ledgers.get(&window.name).and_then(|ledger| ledger.row(self.node));
        let part = share(window.limit, self.members.len());
        let older = self.is_older(window);
        let share = if older || before.is_some() || self.leaving.is_some() { 0 } else { part };
        // An earlier life that was there when the window began may have spent its part without a word.
        let had_part = share > 0 || self.joined.is_some_and(|joined| joined <= window.since);
        let had = before.unwrap_or(Given { given: part, returned: if had_part { 0 } else { part } });
        let grant = Arc::new(Grant::new(window, share));
        let unsettled = older.then(Given::default);
        let held = Held { window: *window, grant: grant.clone(), had, unsettled, question: None, answered: 0, waiting: Vec::new() };
        self.held.insert(window.name, held);
        Some(grant)
    }

    /// Decides a request, here or by asking the owner. With `keep` nothing is spent: the node makes sure that it could.
    pub fn spend(&mut self, ticket: u64, window: &Window, cost: u64, keep: bool, now: u64) -> (Decision, Vec<Action>) {
        let Some(grant) = self.grant(window, now) else { return (Decision::Full, Vec::new()) };
        let spent = if keep { grant.has(cost).then_some(false) } else { grant.try_spend(cost) };
        if let Some(low) = spent {
            if low {
                self.ask(window.name, now);
            }
            return (Decision::Allowed, std::mem::take(&mut self.actions));
        }
        if grant.is_used_up(now) || cost > window.limit {
            return (Decision::Refused, Vec::new());
        }
        let Some(held) = self.held.get_mut(&window.name) else { return (Decision::Full, Vec::new()) };
        if self.waiting >= MAX_WAITING || self.leaving.is_some() {
            return (Decision::Unanswered, Vec::new());
        }
        self.waiting += 1;
        held.waiting.push(Waiting { ticket, cost, keep });
        self.ask(window.name, now);
        let mut actions = std::mem::take(&mut self.actions);
        // The owner may be this node, which has decided by now.
        let here = actions.iter().position(|action| matches!(action, Action::Decide { ticket: of, .. } if *of == ticket));
        match here.map(|at| actions.remove(at)) {
            Some(Action::Decide { allowed: true, .. }) => (Decision::Allowed, actions),
            Some(_) => (Decision::Refused, actions),
            None => (Decision::Wait, actions),
        }
    }

    /// Spends what has been spent already, whether or not there is as much. Less than nothing gives back.
    pub fn charge(&mut self, window: &Window, cost: i64, now: u64) -> Vec<Action> {
        let Some(grant) = self.grant(window, now) else { return Vec::new() };
        let amount = cost.unsigned_abs();
        let over = if cost < 0 { amount } else { amount - grant.spend_some(amount) };
        if over > 0
            && let Some(held) = self.held.get_mut(&window.name)
        {
            // What is given back goes to the owner: others may have spent more than there was.
            let had = held.unsettled.as_mut().unwrap_or(&mut held.had);
            let sum = if cost < 0 { &mut had.returned } else { &mut had.given };
            *sum = sum.saturating_add(over);
            grant.owe(if cost < 0 { cost.saturating_neg() } else { -(over.min(i64::MAX as u64) as i64) });
            if held.unsettled.is_some() {
                self.ask(window.name, now);
            } else {
                self.tell_owner(window.name, now);
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn tell_owner(&mut self, name: Name, now: u64) {
        let Some(held) = self.held.get(&name) else { return };
        let (message, owner) = (Message::Told { window: held.window, had: held.had }, order(name, &self.live).0);
        self.send(owner.unwrap_or(self.node), message, now);
    }

    /// Whether the window began before this node was started, which may have had some of it in an earlier life.
    pub(super) fn is_older(&self, window: &Window) -> bool {
        window.since < self.started
    }

    /// Asks for a portion in advance, when the grant of a window runs low.
    pub fn refill(&mut self, name: Name, now: u64) -> Vec<Action> {
        self.ask(name, now);
        std::mem::take(&mut self.actions)
    }

    /// Gives back what was spent for a request that nobody waits for any more.
    pub fn give_back(&self, name: Name, amount: u64) {
        if let Some(held) = self.held.get(&name) {
            held.grant.give_back(amount);
        }
    }

    /// The caller no longer waits for the decision.
    pub fn give_up(&mut self, name: Name, ticket: u64) {
        if let Some(held) = self.held.get_mut(&name) {
            let before = held.waiting.len();
            held.waiting.retain(|waiting| waiting.ticket != ticket);
            self.waiting -= before - held.waiting.len();
        }
    }

    fn ask(&mut self, name: Name, now: u64) {
        let members = self.members.len();
        let Some(held) = self.held.get_mut(&name) else { return };
        if held.question.is_some() {
            return;
        }
        // A limit that is not divided is only asked for what waits.
        if held.waiting.is_empty() && held.unsettled.is_none() && (held.grant.is_used_up(now) || share(held.window.limit, members) == 0) {
            held.grant.unasked();
            return;
        }
        self.numbers += 1;
        let need = held.waiting.iter().map(|waiting| waiting.cost).fold(0, u64::saturating_add);
        held.question = Some(Question { number: self.numbers, need, at: now });
        self.open.insert(name);
        self.stats.asked += 1;
        self.put(name, now);
    }

    pub(super) fn is_due(&self, name: Name, now: u64) -> bool {
        let question = self.held.get(&name).and_then(|held| held.question.as_ref());
        question.is_none_or(|question| passed(question.at, ASK_AGAIN, now))
    }

    /// Asks an open question once more, as long as somebody wants to know.
    pub(super) fn ask_again(&mut self, name: Name, now: u64) {
        let Some(held) = self.held.get_mut(&name) else {
            self.open.remove(&name);
            return;
        };
        let over = held.window.is_over(now);
        let owes = held.unsettled.is_some_and(|unsettled| unsettled != Given::default());
        match &mut held.question {
            // A portion in advance that nobody needs, and a window that is over.
            Some(question) if over || (question.need > 0 && held.waiting.is_empty() && !owes) => {
                held.question = None;
                held.grant.unasked();
                self.open.remove(&name);
            }
            Some(question) => {
                question.at = now;
                self.put(name, now);
            }
            None => drop(self.open.remove(&name)),
        }
    }

    /// Asks whom the windows have now, with the next tick. An answer that is under way is another one's.
    pub(super) fn ask_others(&mut self) {
        for name in &self.open {
            if let Some(question) = self.held.get_mut(name).and_then(|held| held.question.as_mut()) {
                self.numbers += 1;
                question.number = self.numbers;
                question.at = 0;
            }
        }
    }

    /// Sends the open question of a window to its owner.
    fn put(&mut self, name: Name, now: u64) {
        let Some(held) = self.held.get(&name) else { return };
        let Some(question) = &held.question else { return };
        let message = Message::Ask { number: question.number, window: held.window, need: question.need, had: held.had };
        let owner = order(name, &self.live).0.unwrap_or(self.node);
        self.send(owner, message, now);
    }

    pub(super) fn granted(&mut self, name: Name, number: u64, amount: u64, left: i64, had: Given, now: u64) {
        let Some(held) = self.held.get_mut(&name) else { return };
        // Numbers rise: this was answered before, here or by another owner.
        if number <= held.answered {
            return;
        }
        held.answered = number;
        held.had.given = held.had.given.saturating_add(amount).max(had.given);
        held.had.returned = held.had.returned.max(had.returned);
        held.grant.add(amount, left);
        let unsettled = held.unsettled.take().unwrap_or_default();
        held.had.given = held.had.given.saturating_add(unsettled.given);
        held.had.returned = held.had.returned.saturating_add(unsettled.returned);
        if self.leaving.is_some() {
            return self.hand_back([name], now);
        }
        // Who asked may have lost patience, or asks another owner by now; what was given is there all the same.
        let need = held.question.take_if(|question| question.number == number).map_or(0, |question| question.need);
        if held.question.is_none() {
            self.open.remove(&name);
        }
        let refused = amount < need;
        if amount == 0 && need > 0 && left <= 0 {
            held.grant.use_up(now);
        }
        for waiting in std::mem::take(&mut held.waiting) {
            let Waiting { ticket, cost, keep } = waiting;
            let spent = if keep { held.grant.has(cost) } else { held.grant.try_spend(cost).is_some() };
            if spent {
                self.actions.push(Action::Decide { ticket, name, spent: if keep { 0 } else { cost }, allowed: true });
            } else if refused {
                self.actions.push(Action::Decide { ticket, name, spent: 0, allowed: false });
            } else {
                held.waiting.push(waiting);
                continue;
            }
            self.waiting -= 1;
        }
        // Spending may have seen that it runs low; nobody has asked because of that.
        held.grant.unasked();
        let waits = !held.waiting.is_empty();
        if unsettled != Given::default() {
            self.tell_owner(name, now);
        }
        if waits {
            self.ask(name, now);
        }
    }

    /// The owner calls back what is not spent.
    pub(super) fn recalled(&mut self, from: NodeId, window: Window, now: u64) {
        // What the node has from the start goes back too, even if it was never needed.
        if share(window.limit, self.members.len()) > 0 {
            self.grant(&window, now);
        }
        let had = self.held.get_mut(&window.name).map(|held| {
            held.give_back();
            held.had
        });
        let mut rows = Vec::new();
        if let Some(ledger) = self.ledgers.get_mut(&window.name) {
            rows = ledger.rows();
            // Another node owns the window and this one does not see it yet: it will, and until then it gives nothing.
            if from != self.node && weight(window.name, from) > weight(window.name, self.node) {
                ledger.yielded_at = Some(now);
            }
        }
        self.send(from, Message::Return { name: window.name, had: had.unwrap_or_default(), rows }, now);
    }
}
