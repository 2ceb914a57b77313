//! What is in effect, kept up to date: see [`crate::effective`] for the rules. A change retracts what the old record
//! supported and then asserts the new one, so that a circle of parents cannot hold itself up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::clock::Stamp;
use crate::effective::{Effective, Value};
use crate::id::Key;
use crate::record::{Claim, Record};

/// What the index needs of an alive record.
#[derive(Debug)]
struct Node {
    parents: Vec<Key>,
    claims: Vec<Claim>,
    rooted: bool,
    effective: bool,
}

#[derive(Debug, Default)]
pub struct Index {
    nodes: HashMap<Key, Node>,
    /// Who names a key as a parent; the key itself need not be there.
    children: HashMap<Key, HashSet<Key>>,
    /// The claims of rooted records, oldest first.
    claims: HashMap<Value, BTreeSet<(Stamp, Key)>>,
}

fn value(claim: &Claim) -> Value {
    (claim.field.clone(), claim.value.clone())
}

impl Index {
    pub fn is_effective(&self, key: &Key) -> bool {
        self.nodes.get(key).is_some_and(|node| node.effective)
    }

    pub fn is_rooted(&self, key: &Key) -> bool {
        self.nodes.get(key).is_some_and(|node| node.rooted)
    }

    pub fn owner(&self, value: &Value) -> Option<&Key> {
        Some(&self.claims.get(value)?.first()?.1)
    }

    pub fn effective(&self) -> Effective {
        let effective = self.nodes.iter().filter(|(_, node)| node.effective);
        let owners = self.claims.iter().filter_map(|(value, claims)| Some((value.clone(), claims.first()?.1.clone())));
        Effective { records: effective.map(|(key, _)| key.clone()).collect(), owners: owners.collect::<BTreeMap<_, _>>() }
    }

    /// Takes out what stands under the key, if anything does.
    pub fn retract(&mut self, key: &Key, touched: &mut BTreeSet<Key>) {
        let mut doubtful = Vec::new();
        self.unroot(key, &mut doubtful, touched);
        if let Some(node) = self.nodes.remove(key) {
            for parent in &node.parents {
                if let Some(children) = self.children.get_mut(parent) {
                    children.remove(key);
                    if children.is_empty() {
                        self.children.remove(parent);
                    }
                }
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
            self.children.entry(parent.clone()).or_default().insert(record.key.clone());
        }
        let node = Node { parents: record.parents.clone(), claims: record.claims.clone(), rooted: false, effective: false };
        self.nodes.insert(record.key.clone(), node);
        let mut doubtful = Vec::new();
        self.root(&record.key, &mut doubtful, touched);
        self.settle(doubtful, touched);
    }

    /// Who names a record as a parent.
    pub fn children_of(&self, key: &Key) -> Vec<Key> {
        self.children.get(key).map_or(Vec::new(), |children| children.iter().cloned().collect())
    }

    /// Makes a record and all below it rooted, as far as their parents are.
    fn root(&mut self, key: &Key, doubtful: &mut Vec<Key>, touched: &mut BTreeSet<Key>) {
        let mut open = vec![key.clone()];
        while let Some(key) = open.pop() {
            let Some(node) = self.nodes.get(&key) else { continue };
            let supported = node.parents.iter().all(|parent| self.nodes.get(parent).is_some_and(|parent| parent.rooted));
            if node.rooted || !supported {
                continue;
            }
            for claim in node.claims.clone() {
                self.claim(&key, &claim, true, doubtful, touched);
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
            for claim in node.claims.clone() {
                self.claim(&key, &claim, false, doubtful, touched);
            }
            open.extend(self.children_of(&key));
            // What it held up is in doubt even when the record itself is about to be taken out.
            doubtful.extend(self.children_of(&key));
            doubtful.push(key);
        }
    }

    /// Enters or withdraws a claim. When the value changes hands, old and new owner are in doubt and touched.
    fn claim(&mut self, key: &Key, claim: &Claim, enter: bool, doubtful: &mut Vec<Key>, touched: &mut BTreeSet<Key>) {
        let value = value(claim);
        let claims = self.claims.entry(value.clone()).or_default();
        let before = claims.first().map(|(_, key)| key.clone());
        let claimant = (claim.since, key.clone());
        if enter {
            claims.insert(claimant);
        } else {
            claims.remove(&claimant);
        }
        let after = claims.first().map(|(_, key)| key.clone());
        if claims.is_empty() {
            self.claims.remove(&value);
        }
        touched.insert(key.clone());
        if before != after {
            let owners = || before.iter().chain(&after).cloned();
            doubtful.extend(owners());
            touched.extend(owners());
        }
    }

    /// Works out anew which of the records in doubt are in effect, and which below them.
    fn settle(&mut self, mut doubtful: Vec<Key>, touched: &mut BTreeSet<Key>) {
        while let Some(key) = doubtful.pop() {
            let Some(node) = self.nodes.get(&key) else { continue };
            let owns = |claim: &Claim| !claim.exclusive || self.owner(&value(claim)) == Some(&key);
            let supported = node.parents.iter().all(|parent| self.is_effective(parent));
            let effective = node.rooted && supported && node.claims.iter().all(owns);
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
