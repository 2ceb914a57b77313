//! The books of a window: what each node was given and has given back.

use std::collections::{BTreeSet, VecDeque};

use bincode::{Decode, Encode};

use super::{GRACE, ROUND, Window, passed};
use crate::id::NodeId;

/// The most nodes in the books of a window: all members, and as many that were forgotten.
const MAX_ROWS: usize = crate::MAX_MEMBERS * 2;

/// Two sums that only rise, so that an older message changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Given {
    pub given: u64,
    pub returned: u64,
}

impl Given {
    /// What is held or spent. Less than nothing when an upstream gave more back than it had taken.
    fn out(self) -> i64 {
        i64::try_from(self.given).unwrap_or(i64::MAX).saturating_sub(i64::try_from(self.returned).unwrap_or(i64::MAX))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub from: NodeId,
    pub number: u64,
    pub need: u64,
}

#[derive(Debug)]
struct Row {
    node: NodeId,
    had: Given,
    /// The last answer to the node, for a question that comes again: number and amount.
    last: Option<(u64, u64)>,
    /// It has given back what it had; what it gets afterwards it needs.
    recalled: bool,
}

/// What is called back, from whom.
#[derive(Debug)]
struct Round {
    missing: BTreeSet<NodeId>,
    since: u64,
    /// The epoch in which all live nodes are asked, since this node has become the owner.
    first: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub window: Window,
    rows: Vec<Row>,
    pub questions: VecDeque<Question>,
    round: Option<Round>,
    /// The epoch in which all live nodes were asked.
    checked: Option<u64>,
    /// A portion that this node gives to itself, and that the successor has yet to note: number, and since when.
    pub unnoted: Option<(u64, u64)>,
    /// When another node has begun to give.
    pub yielded_at: Option<u64>,
    used: bool,
}

impl Ledger {
    pub fn new(window: Window) -> Self {
        let (rows, questions) = (Vec::new(), VecDeque::new());
        Self { window, rows, questions, round: None, checked: None, unnoted: None, yielded_at: None, used: true }
    }

    pub fn learn(&mut self, node: NodeId, had: Given) {
        self.used = true;
        if let Some(row) = self.rows.iter_mut().find(|row| row.node == node) {
            row.had.given = row.had.given.max(had.given);
            row.had.returned = row.had.returned.max(had.returned);
        } else if self.rows.len() < MAX_ROWS {
            self.rows.push(Row { node, had, last: None, recalled: false });
        }
    }

    pub fn ask(&mut self, question: Question) {
        self.questions.retain(|other| other.from != question.from);
        self.questions.push_back(question);
    }

    /// What was answered when this was asked before.
    pub fn repeated(&self, question: &Question) -> Option<u64> {
        let row = self.rows.iter().find(|row| row.node == question.from)?;
        row.last.filter(|(number, _)| *number == question.number).map(|(_, amount)| amount)
    }

    /// What nodes hold or have spent. Each member has its share from the start, whether it has been heard of or not.
    pub fn outstanding(&self, share: u64, members: &BTreeSet<NodeId>) -> i64 {
        let unheard = members.iter().filter(|node| self.row(**node).is_none()).count() as u64;
        let unheard = i64::try_from(unheard * share).unwrap_or(i64::MAX);
        self.rows.iter().map(|row| row.had.out()).fold(unheard, i64::saturating_add)
    }

    pub fn give(&mut self, to: NodeId, number: u64, amount: u64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.node == to) {
            row.had.given = row.had.given.saturating_add(amount);
            row.last = Some((number, amount));
            row.recalled &= amount == 0;
        }
    }

    pub fn row(&self, node: NodeId) -> Option<Given> {
        self.rows.iter().find(|row| row.node == node).map(|row| row.had)
    }

    pub fn rows(&self) -> Vec<(NodeId, Given)> {
        self.rows.iter().map(|row| (row.node, row.had)).collect()
    }

    /// Live nodes that may hold what they do not need, each once until it is given more.
    pub fn holders(&mut self, among: impl Iterator<Item = NodeId>, share: u64) -> BTreeSet<NodeId> {
        let mut holders = BTreeSet::new();
        for node in among {
            let holds = match self.rows.iter_mut().find(|row| row.node == node) {
                Some(row) => row.had.out() > 0 && !std::mem::replace(&mut row.recalled, true),
                None => share > 0,
            };
            if holds {
                holders.insert(node);
            }
        }
        holders
    }

    /// Whether the window began before nodes came or went, or before books were lost, and nobody was asked since.
    pub fn is_unchecked(&self, epoch: u64, changed_at: u64, forgot_at: u64) -> bool {
        match self.checked {
            Some(checked) => checked != epoch && self.window.since < changed_at + GRACE,
            None => self.window.since < changed_at.max(forgot_at) + GRACE,
        }
    }

    pub fn begin(&mut self, missing: BTreeSet<NodeId>, first: Option<u64>, now: u64) {
        self.round = Some(Round { missing, since: now, first });
    }

    pub fn in_round(&self) -> bool {
        self.round.is_some()
    }

    /// Whether nobody has to be waited for.
    pub fn is_over(&self, now: u64) -> bool {
        self.round.as_ref().is_none_or(|round| round.missing.is_empty() || passed(round.since, ROUND, now))
    }

    /// Ends the round; how many nodes have not answered.
    pub fn end(&mut self) -> usize {
        let Some(round) = self.round.take() else { return 0 };
        self.checked = round.first.or(self.checked);
        round.missing.len()
    }

    pub fn returned(&mut self, from: NodeId) {
        if let Some(round) = &mut self.round {
            round.missing.remove(&from);
        }
    }

    /// The node wants nothing any more.
    pub fn part_with(&mut self, node: NodeId) {
        self.questions.retain(|question| question.from != node);
    }

    /// Nodes that are gone are not waited for.
    pub fn lose(&mut self, live: &BTreeSet<NodeId>) {
        if let Some(round) = &mut self.round {
            round.missing.retain(|node| live.contains(node));
        }
    }

    /// Whether anything was learned since this was last asked.
    pub fn was_used(&mut self) -> bool {
        std::mem::replace(&mut self.used, false) || !self.questions.is_empty()
    }
}
