//! A node as the owner of windows: it keeps their books and gives.

use super::ledger::{Given, Ledger, Question};
use super::{ALONE, Leases, MAX_WINDOWS, Message, Name, ROUND, TELL, Window, YIELD, order, passed, share};
use crate::id::NodeId;

/// What an owner gives of a limit that sees so many of the members.
fn cap(limit: u64, live: usize, members: usize) -> i64 {
    let cap = u128::from(limit) * live as u128 / members.max(1) as u128;
    i64::try_from(cap).unwrap_or(i64::MAX)
}

/// What is given to who needs so much, of what there is. Of a limit that is not divided no more than that.
fn portion(pool: u64, need: u64, share: u64, members: u64) -> u64 {
    let portion = if share == 0 { need } else { (pool / (2 * members)).max(need).max(1) };
    portion.min(pool)
}

impl Leases {
    fn ledger(&mut self, window: Window, now: u64) -> Option<&mut Ledger> {
        if self.ledgers.len() >= MAX_WINDOWS && !self.ledgers.contains_key(&window.name) {
            self.make_room(now);
            if self.ledgers.len() >= MAX_WINDOWS {
                self.stats.crowded += 1;
                return None;
            }
        }
        let ledger = self.ledgers.entry(window.name).or_insert_with(|| Ledger::new(window));
        ledger.window.limit = window.limit;
        Some(ledger)
    }

    /// What other nodes say that nodes were given.
    pub(super) fn learn(&mut self, window: Window, rows: impl IntoIterator<Item = (NodeId, Given)>, now: u64) {
        if window.is_over(now) {
            return;
        }
        if let Some(ledger) = self.ledger(window, now) {
            rows.into_iter().for_each(|(node, given)| ledger.learn(node, given));
        }
    }

    pub(super) fn learn_all(&mut self, books: Vec<(Window, Vec<(NodeId, Given)>)>, now: u64) {
        books.into_iter().take(TELL).for_each(|(window, rows)| self.learn(window, rows, now));
    }

    /// Whether the others may know more of a window than this node, which has just been started and sees none of them yet.
    fn is_alone(&self, window: &Window, now: u64) -> bool {
        let waits = self.begun.is_some_and(|begun| !passed(begun, ALONE, now));
        waits && !self.seen && self.is_older(window)
    }

    pub(super) fn asked(&mut self, from: NodeId, number: u64, window: Window, need: u64, had: Given, now: u64) {
        // Who asks sees other nodes than this one does, or not yet that it ends; it will ask again.
        if order(window.name, &self.live).0 != Some(self.node) || window.is_over(now) || self.leaving.is_some() {
            return;
        }
        let Some(ledger) = self.ledger(window, now) else { return };
        ledger.learn(from, had);
        ledger.ask(Question { from, number, need });
        self.serve(window.name, now);
    }

    /// Answers the questions about a window, as far as there is something to give or it is known that there is not.
    pub(super) fn serve(&mut self, name: Name, now: u64) {
        let (owner, successor) = order(name, &self.live);
        if self.leaving.is_some() || self.ledgers.get(&name).is_some_and(|ledger| self.is_alone(&ledger.window, now)) {
            return;
        }
        let Some(ledger) = self.ledgers.get_mut(&name) else { return };
        if owner != Some(self.node) || ledger.yielded_at.is_some_and(|at| !passed(at, YIELD, now)) {
            return;
        }
        let (me, members) = (self.node, self.members.len() as u64);
        let share = share(ledger.window.limit, self.members.len());
        let cap = cap(ledger.window.limit, self.live.len(), self.members.len());
        let others = || self.live.iter().copied().filter(|node| *node != me);
        let mut messages = Vec::new();
        let (mut collected, mut changed) = (false, false);
        while let Some(question) = ledger.questions.front().copied() {
            if ledger.in_round() {
                if !ledger.is_over(now) {
                    break;
                }
                self.stats.unheard += ledger.end() as u64;
                collected = true;
            }
            // Others may know more.
            if ledger.is_unchecked(self.epoch, self.changed_at, self.forgot_at) {
                if let Some(held) = self.held.get(&name) {
                    ledger.learn(me, held.had);
                }
                ledger.begin(others().collect(), Some(self.epoch), now);
                messages.extend(others().map(|to| (to, Message::Recall { window: ledger.window })));
                self.rounds.insert(name);
                continue;
            }
            let before = ledger.repeated(&question);
            let amount = match before {
                Some(amount) => amount,
                None => {
                    let need = i64::try_from(question.need).unwrap_or(i64::MAX);
                    if cap.saturating_sub(ledger.outstanding(share, &self.members)) < need {
                        if question.from != me {
                            let own = self.held.get_mut(&name).map(|held| {
                                held.give_back();
                                held.had
                            });
                            // What it has from the start and has not needed, it does not get any more.
                            ledger.learn(me, own.or(ledger.row(me)).unwrap_or(Given { given: share, returned: share }));
                        }
                        let among = others().filter(|node| *node != question.from && !collected);
                        let holders = ledger.holders(among, share);
                        if !holders.is_empty() {
                            self.stats.recalls += 1;
                            messages.extend(holders.iter().map(|to| (*to, Message::Recall { window: ledger.window })));
                            ledger.begin(holders, None, now);
                            self.rounds.insert(name);
                            break;
                        }
                    }
                    let pool = cap.saturating_sub(ledger.outstanding(share, &self.members)).max(0) as u64;
                    let amount = portion(pool, question.need, share, members);
                    ledger.give(question.from, question.number, amount);
                    self.stats.granted += u64::from(amount > 0);
                    amount
                }
            };
            ledger.questions.pop_front();
            if question.from == me && amount > 0 && before.is_none() && successor.is_some() {
                ledger.unnoted = Some((question.number, now));
            }
            // What it gives to itself nobody else would know of.
            if let (true, Some(to), Some((number, since))) = (question.from == me, successor, ledger.unnoted)
                && number == question.number
            {
                if !passed(since, ROUND, now) {
                    messages.push((to, Message::Total { number, window: ledger.window, rows: ledger.rows() }));
                    continue;
                }
                self.stats.unheard += 1;
                ledger.unnoted = None;
            }
            let left = cap.saturating_sub(ledger.outstanding(share, &self.members));
            let had = ledger.row(question.from).unwrap_or_default();
            messages.push((question.from, Message::Grant { number: question.number, name, amount, left, had }));
            changed |= before.is_none() && amount > 0;
        }
        if let (true, Some(to)) = (changed, successor) {
            messages.push((to, Message::Total { number: 0, window: ledger.window, rows: ledger.rows() }));
        }
        for (to, message) in messages {
            self.send(to, message, now);
        }
    }

    /// The successor knows what this node has given to itself, which is its own now, whoever the owner is by now.
    pub(super) fn noted(&mut self, name: Name, number: u64, now: u64) {
        let Some(ledger) = self.ledgers.get_mut(&name) else { return };
        let question = Question { from: self.node, number, need: 0 };
        if ledger.unnoted.take_if(|(of, _)| *of == number).is_some()
            && let Some(amount) = ledger.repeated(&question)
        {
            let share = share(ledger.window.limit, self.members.len());
            let left =
                cap(ledger.window.limit, self.live.len(), self.members.len()).saturating_sub(ledger.outstanding(share, &self.members));
            let had = ledger.row(self.node).unwrap_or_default();
            self.granted(name, number, amount, left, had, now);
        }
    }

    pub(super) fn returned(&mut self, from: NodeId, name: Name, had: Given, rows: Vec<(NodeId, Given)>, now: u64) {
        let Some(ledger) = self.ledgers.get_mut(&name) else { return };
        rows.into_iter().for_each(|(node, given)| ledger.learn(node, given));
        ledger.learn(from, had);
        ledger.returned(from);
        if ledger.in_round() && ledger.is_over(now) {
            self.rounds.remove(&name);
            self.serve(name, now);
        }
    }
}
