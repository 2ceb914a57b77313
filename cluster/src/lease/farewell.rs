//! A node as one that ends: it hands back what it has not spent, so that the others do not take it for spent.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::ledger::Given;
use super::{Action, Leases, Message, Name, TELL, Window, order};
use crate::id::NodeId;

impl Leases {
    /// The node ends. From now on it gives nothing, spends nothing and keeps nothing that it is given.
    pub fn leave(&mut self, now: u64) -> Vec<Action> {
        self.leaving = Some(HashSet::new());
        self.open.clear();
        let names: Vec<Name> = self.held.keys().copied().collect();
        self.hand_back(names, now);
        std::mem::take(&mut self.actions)
    }

    /// Whether all that was handed back has arrived.
    pub fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(HashSet::is_empty)
    }

    /// Hands these windows to those who own them when this node is gone.
    pub(super) fn hand_back(&mut self, names: impl IntoIterator<Item = Name>, now: u64) {
        let rest: BTreeSet<NodeId> = self.live.iter().copied().filter(|node| *node != self.node).collect();
        let mut books: HashMap<NodeId, Vec<(Window, Vec<(NodeId, Given)>)>> = HashMap::new();
        for name in names {
            let owned = order(name, &self.live).0 == Some(self.node);
            let (Some(to), Some(held)) = (order(name, &rest).0, self.held.get_mut(&name)) else { continue };
            if held.window.is_over(now) {
                continue;
            }
            held.question = None;
            held.give_back();
            let mut had = held.had;
            let mut rows = Vec::new();
            if let Some(ledger) = self.ledgers.get(&name).filter(|_| owned) {
                // A portion that it has given to itself and that nobody has noted, it does not take any more.
                let own = ledger.row(self.node).filter(|_| held.unsettled.is_none());
                let unnoted = own.map_or(0, |own| own.given.saturating_sub(had.given));
                had.given = had.given.saturating_add(unnoted);
                had.returned = had.returned.saturating_add(unnoted);
                rows = ledger.rows();
                rows.retain(|(node, _)| *node != self.node);
            }
            rows.push((self.node, had));
            books.entry(to).or_default().push((held.window, rows));
        }
        for (to, books) in books {
            for books in books.chunks(TELL) {
                self.numbers += 1;
                let message = Message::Farewell { number: self.numbers, books: books.to_vec() };
                self.leaving.get_or_insert_default().insert(self.numbers);
                self.actions.push(Action::Send { to, message });
            }
        }
    }

    pub(super) fn heard(&mut self, number: u64) {
        if let Some(leaving) = &mut self.leaving {
            leaving.remove(&number);
        }
    }
}
