//! How a record stands on this node, and why: for people.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::record::Record;
use crate::replica::Conflict;

/// How a record stands on this node.
#[derive(Clone, Debug)]
pub struct Standing {
    pub key: Key,
    /// The version that counts, a tombstone too.
    pub record: Option<Record>,
    /// Whether it is in effect as far as the records say, which is the same on every node. `quarantined` and `unusable` keep it
    /// out of effect on this node alone.
    pub effective: bool,
    /// Fields whose value another record has the older claim to, and that record.
    pub lost: Vec<(Arc<str>, Key)>,
    /// Parents that are not in effect.
    pub missing: Vec<Key>,
    pub quarantined: bool,
    /// Why the node could not put it in effect.
    pub unusable: Option<String>,
    /// Versions that lost, as far as this node remembers, oldest first; and whether somebody has looked since: an edit of the
    /// record that won settles it.
    pub losers: Vec<(Conflict, bool)>,
}

impl Engine {
    pub fn standing(&self, key: &Key) -> Standing {
        let record = self.replica.get(key);
        let alive = record.filter(|record| record.is_alive());
        let parents = alive.map_or(&[][..], |record| &record.parents);
        let values = self.replica.change(key.clone()).lost;
        let owner = |value: Value| Some((value.0.clone(), self.replica.owner(&value)?.clone()));
        let losers = self.replica.conflicts().iter().filter(|conflict| conflict.record.key == *key);
        Standing {
            key: key.clone(),
            record: record.cloned(),
            effective: self.replica.is_effective(key),
            lost: values.into_iter().filter_map(owner).collect(),
            missing: parents.iter().filter(|parent| !self.replica.is_effective(parent)).cloned().collect(),
            quarantined: record.is_some_and(|record| self.quarantined.get(key) == Some(&record.version)),
            unusable: self.bad.get(key).cloned(),
            losers: losers.map(|conflict| (conflict.clone(), self.replica.is_settled(conflict))).collect(),
        }
    }

    /// The records that lost something on account of others and that nobody has set right since, at most `most`.
    pub fn in_conflict(&self, most: usize) -> Vec<Standing> {
        let edits = self.replica.conflicts().iter().filter(|conflict| !self.replica.is_settled(conflict));
        let mut keys: BTreeSet<Key> = edits.map(|conflict| conflict.record.key.clone()).collect();
        keys.extend(self.replica.ineffective().chain(self.replica.losers()).map(|change| change.key).take(most));
        keys.iter().filter(|key| !key.is_internal()).take(most).map(|key| self.standing(key)).collect()
    }

    /// What is left out because it ended the node, at most `most`.
    pub fn in_quarantine(&self, most: usize) -> Vec<Standing> {
        self.quarantined.keys().take(most).map(|key| self.standing(key)).collect()
    }
}
