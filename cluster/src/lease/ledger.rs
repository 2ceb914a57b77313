//! The books of a window: what each node was given and has given back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bincode::{Decode, Encode};

use super::{Message, RECALL_FOR, Window};
use crate::id::NodeId;

/// Two sums that only rise, so that an older message changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Given {
    pub given: u64,
    pub returned: u64,
}

#[derive(Debug)]
pub(super) struct Question {
    pub from: NodeId,
    pub number: u64,
    pub need: u64,
}

#[derive(Debug)]
struct Recall {
    missing: BTreeSet<NodeId>,
    since: u64,
    sent: bool,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub window: Window,
    rows: BTreeMap<NodeId, Given>,
    /// The last answer to each node, for a question that comes again.
    last: BTreeMap<NodeId, (u64, u64)>,
    pub questions: VecDeque<Question>,
    recall: Option<Recall>,
    /// Nodes that have given back what they had; what they get afterwards they need.
    recalled: BTreeSet<NodeId>,
}

impl Ledger {
    pub fn new(window: Window) -> Self {
        let (rows, last, recalled) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { window, rows, last, questions: VecDeque::new(), recall: None, recalled }
    }

    pub fn learn(&mut self, node: NodeId, had: Given) {
        if self.rows.len() >= crate::MAX_MEMBERS * 2 && !self.rows.contains_key(&node) {
            return;
        }
        let row = self.rows.entry(node).or_default();
        row.given = row.given.max(had.given);
        row.returned = row.returned.max(had.returned.min(row.given));
    }

    pub fn ask(&mut self, from: NodeId, number: u64, need: u64) {
        self.questions.retain(|question| question.from != from);
        self.questions.push_back(Question { from, number, need });
    }

    pub fn repeated(&self, from: NodeId, number: u64) -> Option<u64> {
        self.last.get(&from).filter(|(last, _)| *last == number).map(|(_, amount)| *amount)
    }

    /// What nodes hold or have spent. Each member has its share from the start, whether it has been heard of or not.
    pub fn outstanding(&self, share: u64, members: usize) -> u64 {
        let unheard = members.saturating_sub(self.rows.len()) as u64;
        self.rows.values().map(|row| row.given.max(share) - row.returned).sum::<u64>() + unheard * share
    }

    pub fn give(&mut self, to: NodeId, number: u64, amount: u64, share: u64) {
        let row = self.rows.entry(to).or_insert(Given { given: share, returned: 0 });
        row.given += amount;
        self.last.insert(to, (number, amount));
        if amount > 0 {
            self.recalled.remove(&to);
        }
    }

    /// Whether there is something to wait for: nodes that may hold what they do not need are being asked for it.
    pub fn recall(&mut self, asker: NodeId, live: &BTreeSet<NodeId>, share: u64, now: u64) -> bool {
        if let Some(recall) = &self.recall {
            let waiting = !recall.missing.is_empty() && recall.since + RECALL_FOR > now;
            if !waiting {
                self.recall = None;
            }
            return waiting;
        }
        // A limit that is not divided is spent as it is given.
        let holds = |node: &NodeId| *node != asker && !self.recalled.contains(node);
        let missing: BTreeSet<NodeId> = live.iter().copied().filter(holds).collect();
        if share == 0 || missing.is_empty() {
            return false;
        }
        self.recalled.extend(&missing);
        self.recall = Some(Recall { missing, since: now, sent: false });
        true
    }

    /// Whom to ask to give back, once.
    pub fn newly_recalled(&mut self) -> Vec<NodeId> {
        let Some(recall) = &mut self.recall else { return Vec::new() };
        if std::mem::replace(&mut recall.sent, true) {
            return Vec::new();
        }
        recall.missing.iter().copied().collect()
    }

    pub fn returned(&mut self, from: NodeId) {
        if let Some(recall) = &mut self.recall {
            recall.missing.remove(&from);
        }
    }

    pub fn recall_is_over(&self, now: u64) -> bool {
        self.recall.as_ref().is_some_and(|recall| recall.since + RECALL_FOR <= now)
    }

    pub fn total(&self) -> Message {
        Message::Total { window: self.window.clone(), rows: self.rows.iter().map(|(node, given)| (*node, *given)).collect() }
    }
}
