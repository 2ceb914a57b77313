//! What is in effect, kept up to date: see [`crate::effective`] for the rules. A change retracts what the old record
//! supported and then asserts the new one, so that a circle of parents cannot hold itself up.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::Stamp;
use crate::effective::{Effective, Value};
use crate::id::Key;
use crate::record::{Claim, Record};

/// An alive record.
#[derive(Debug)]
struct Node {
    record: Record,
    rooted: bool,
    effective: bool,
}

/// The rooted records that claim a value: hardly ever more than one.
#[derive(Debug)]
enum Claimants {
    One(Record),
    /// By the age of their claims, oldest first.
    #[expect(clippy::box_collection, reason = "there is one of these for each value, and a pointer is a third of a set")]
    Several(Box<BTreeSet<(Stamp, Key)>>),
}

impl Claimants {
    /// Who has the value.
    fn owner(&self) -> Option<&Key> {
        match self {
            Self::One(record) => Some(&record.key),
            Self::Several(claims) => claims.first().map(|(_, key)| key),
        }
    }
}

/// The records that name another one as a parent: very often it is one.
#[derive(Debug)]
enum Children {
    One(Key),
    Several(BTreeSet<Key>),
}

#[derive(Debug, Default)]
pub struct Index {
    nodes: HashMap<Key, Node>,
    /// Who names a key as a parent; the key itself need not be there.
    children: HashMap<Key, Children>,
    claims: HashMap<Value, Claimants>,
}

fn value(claim: &Claim) -> Value {
    (claim.field.clone(), claim.value.clone())
}

/// The claim of a record on a value, with its age.
fn claimant(record: &Record, value: &Value) -> (Stamp, Key) {
    let claims = record.claims.iter().filter(|claim| (&claim.field, &claim.value) == (&value.0, &value.1));
    (claims.map(|claim| claim.since).min().unwrap_or(Stamp::ZERO), record.key.clone())
}

impl Index {
    pub fn is_effective(&self, key: &Key) -> bool {
        self.nodes.get(key).is_some_and(|node| node.effective)
    }

    pub fn is_rooted(&self, key: &Key) -> bool {
        self.nodes.get(key).is_some_and(|node| node.rooted)
    }

    pub fn owner(&self, value: &Value) -> Option<&Key> {
        self.claims.get(value)?.owner()
    }

    pub fn effective(&self) -> Effective {
        let effective = self.nodes.iter().filter(|(_, node)| node.effective);
        let owners = self.claims.iter().filter_map(|(value, claims)| Some((value.clone(), claims.owner()?.clone())));
        Effective { records: effective.map(|(key, _)| key.clone()).collect(), owners: owners.collect::<BTreeMap<_, _>>() }
    }

    /// Takes out what stands under the key, if anything does.
    pub fn retract(&mut self, key: &Key, touched: &mut BTreeSet<Key>) {
        let mut doubtful = Vec::new();
        self.unroot(key, &mut doubtful, touched);
        if let Some(node) = self.nodes.remove(key) {
            for parent in &node.record.parents {
                self.disown(parent, key);
            }
        }
        self.settle(doubtful, touched);
    }

    /// Puts in a record whose key has been retracted.
    pub fn assert(&mut self, record: &Record, touched: &mut BTreeSet<Key>) {
        if !record.is_alive() {
            return;
        }
        for parent in &record.parents {
            self.adopt(parent, &record.key);
        }
        self.nodes.insert(record.key.clone(), Node { record: record.clone(), rooted: false, effective: false });
        let mut doubtful = Vec::new();
        self.root(&record.key, &mut doubtful, touched);
        self.settle(doubtful, touched);
    }

    /// Who names a record as a parent.
    pub fn children_of(&self, key: &Key) -> Vec<Key> {
        match self.children.get(key) {
            None => Vec::new(),
            Some(Children::One(child)) => vec![child.clone()],
            Some(Children::Several(children)) => children.iter().cloned().collect(),
        }
    }

    fn adopt(&mut self, parent: &Key, child: &Key) {
        match self.children.entry(parent.clone()) {
            Entry::Vacant(place) => drop(place.insert(Children::One(child.clone()))),
            Entry::Occupied(mut place) => {
                let several = match place.get_mut() {
                    Children::One(other) => BTreeSet::from([other.clone(), child.clone()]),
                    Children::Several(several) => {
                        several.insert(child.clone());
                        return;
                    }
                };
                place.insert(Children::Several(several));
            }
        }
    }

    fn disown(&mut self, parent: &Key, child: &Key) {
        let none = match self.children.get_mut(parent) {
            None => return,
            Some(Children::One(other)) if other != child => return,
            Some(Children::One(_)) => true,
            Some(Children::Several(several)) => {
                several.remove(child);
                several.is_empty()
            }
        };
        if none {
            self.children.remove(parent);
        }
    }

    /// Makes a record and all below it rooted, as far as their parents are.
    fn root(&mut self, key: &Key, doubtful: &mut Vec<Key>, touched: &mut BTreeSet<Key>) {
        let mut open = vec![key.clone()];
        while let Some(key) = open.pop() {
            let Some(node) = self.nodes.get(&key) else { continue };
            let supported = node.record.parents.iter().all(|parent| self.nodes.get(parent).is_some_and(|parent| parent.rooted));
            if node.rooted || !supported {
                continue;
            }
            let record = node.record.clone();
            for claim in &record.claims {
                self.claim(&record, claim, true, doubtful, touched);
            }
            if let Some(node) = self.nodes.get_mut(&key) {
                node.rooted = true;
            }
            open.extend(self.children_of(&key));
            doubtful.push(key);
        }
    }

    /// Takes the root from a record and from all below it.
    fn unroot(&mut self, key: &Key, doubtful: &mut Vec<Key>, touched: &mut BTreeSet<Key>) {
        let mut open = vec![key.clone()];
        while let Some(key) = open.pop() {
            let Some(node) = self.nodes.get_mut(&key) else { continue };
            if !std::mem::replace(&mut node.rooted, false) {
                continue;
            }
            let record = node.record.clone();
            for claim in &record.claims {
                self.claim(&record, claim, false, doubtful, touched);
            }
            open.extend(self.children_of(&key));
            // What it held up is in doubt even when the record itself is about to be taken out.
            doubtful.extend(self.children_of(&key));
            doubtful.push(key);
        }
    }

    /// Enters or withdraws a claim. When the value changes hands, old and new owner are in doubt and touched.
    fn claim(&mut self, record: &Record, claim: &Claim, enter: bool, doubtful: &mut Vec<Key>, touched: &mut BTreeSet<Key>) {
        let value = value(claim);
        let before = self.owner(&value).cloned();
        if enter {
            self.enter(record, value.clone());
        } else {
            self.withdraw(record, &value);
        }
        let after = self.owner(&value).cloned();
        touched.insert(record.key.clone());
        if before != after {
            let owners = || before.iter().chain(&after).cloned();
            doubtful.extend(owners());
            touched.extend(owners());
        }
    }

    fn enter(&mut self, record: &Record, value: Value) {
        let own = claimant(record, &value);
        match self.claims.entry(value) {
            Entry::Vacant(place) => drop(place.insert(Claimants::One(record.clone()))),
            Entry::Occupied(mut place) => {
                let other = match place.get_mut() {
                    Claimants::One(other) if other.key == record.key => return,
                    Claimants::One(other) => other.clone(),
                    Claimants::Several(several) => {
                        several.insert(own);
                        return;
                    }
                };
                let several = BTreeSet::from([claimant(&other, place.key()), own]);
                place.insert(Claimants::Several(Box::new(several)));
            }
        }
    }

    fn withdraw(&mut self, record: &Record, value: &Value) {
        let left = match self.claims.get_mut(value) {
            None => return,
            Some(Claimants::One(other)) if other.key != record.key => return,
            Some(Claimants::One(_)) => None,
            Some(Claimants::Several(several)) => {
                several.remove(&claimant(record, value));
                if several.len() > 1 {
                    return;
                }
                several.first().and_then(|(_, key)| self.nodes.get(key)).map(|node| node.record.clone())
            }
        };
        match left {
            Some(left) => drop(self.claims.insert(value.clone(), Claimants::One(left))),
            None => drop(self.claims.remove(value)),
        }
    }

    /// Works out anew which of the records in doubt are in effect, and which below them.
    fn settle(&mut self, mut doubtful: Vec<Key>, touched: &mut BTreeSet<Key>) {
        while let Some(key) = doubtful.pop() {
            let Some(node) = self.nodes.get(&key) else { continue };
            let owns = |claim: &Claim| !claim.exclusive || self.owner(&value(claim)) == Some(&key);
            let supported = node.record.parents.iter().all(|parent| self.is_effective(parent));
            let effective = node.rooted && supported && node.record.claims.iter().all(owns);
            if effective == node.effective {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&key) {
                node.effective = effective;
            }
            doubtful.extend(self.children_of(&key));
            touched.insert(key);
        }
    }
}
