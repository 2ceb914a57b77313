//! What is in effect of a set of records: a function of the set alone, so that nodes with the same records serve the same
//! configuration. Here from scratch, as the specification; [`crate::replica`] keeps the same answer up to date incrementally.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Stamp;
use crate::id::Key;
use crate::record::Record;

/// A unique value: the field and what stands in it.
pub type Value = (std::sync::Arc<str>, std::sync::Arc<str>);

/// The answer: which records are in effect, and which record answers to each value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effective {
    pub records: BTreeSet<Key>,
    pub owners: BTreeMap<Value, Key>,
}

/// Three rules, one upon the other:
/// 1. a record is *rooted* when it is alive and all its parents are rooted (the least such set: a circle is not rooted);
/// 2. a value belongs to the rooted record with the oldest claim, and of equally old ones to the first key;
/// 3. a record is *in effect* when it is rooted, owns all its exclusive values, and all its parents are in effect.
pub fn specification<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Effective {
    let alive: BTreeMap<&Key, &Record> = records.filter(|r| r.is_alive()).map(|r| (&r.key, r)).collect();
    let rooted = least(&alive, |_| true);
    let mut oldest: BTreeMap<Value, (Stamp, Key)> = BTreeMap::new();
    for record in alive.values().filter(|r| rooted.contains(&r.key)) {
        for claim in &record.claims {
            let claimant = (claim.since, record.key.clone());
            let value = (claim.field.clone(), claim.value.clone());
            let owner = oldest.entry(value).or_insert_with(|| claimant.clone());
            if claimant < *owner {
                *owner = claimant;
            }
        }
    }
    let owners: BTreeMap<Value, Key> = oldest.into_iter().map(|(value, (_, key))| (value, key)).collect();
    let owns = |record: &Record| {
        let mut exclusive = record.claims.iter().filter(|claim| claim.exclusive);
        exclusive.all(|claim| owners.get(&(claim.field.clone(), claim.value.clone())) == Some(&record.key))
    };
    let in_effect = least(&alive, |record| rooted.contains(&record.key) && owns(record));
    Effective { records: in_effect, owners }
}

/// The least set of records that keep the condition and whose parents are all in the set.
fn least(alive: &BTreeMap<&Key, &Record>, condition: impl Fn(&Record) -> bool) -> BTreeSet<Key> {
    let mut set = BTreeSet::new();
    loop {
        let before = set.len();
        for record in alive.values() {
            if record.parents.iter().all(|parent| set.contains(parent)) && condition(record) {
                set.insert(record.key.clone());
            }
        }
        if set.len() == before {
            return set;
        }
    }
}
