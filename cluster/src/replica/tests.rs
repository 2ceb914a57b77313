use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::effective::specification;
use crate::id::NodeId;
use crate::record::Claim;

fn stamp(millis: u64) -> Stamp {
    Stamp::new(millis, 0, NodeId(1))
}

/// A record among a dozen keys that name one another as parents and claim a few values.
fn any(rng: &mut SmallRng) -> Record {
    let key = |n: u32| Key::new("t", format!("{n}"));
    let version = Version { life: rng.random_range(1..6), stamp: Stamp::new(rng.random_range(1..50), 0, NodeId(rng.random_range(1..4))) };
    let alive = version.is_alive();
    let own = rng.random_range(0..12);
    let parents = if alive { (0..rng.random_range(0..3)).map(|_| key(rng.random_range(0..12))).collect() } else { vec![] };
    let claim = |rng: &mut SmallRng| Claim {
        field: Arc::from(if rng.random() { "name" } else { "key" }),
        value: format!("{}", rng.random_range(0..3)).into(),
        since: stamp(rng.random_range(1..6)),
        exclusive: rng.random(),
    };
    let claims = if alive { (0..rng.random_range(0..3)).map(|_| claim(rng)).collect() } else { vec![] };
    let body = alive.then(|| b"{}".as_slice().into());
    Record::new(key(own), version, Version::NONE, version.stamp, parents, claims, body).expect("within the limits")
}

fn alive(kind: &str, id: &str, millis: u64, parents: &[&Key], claims: &[(&str, &str, bool)]) -> Record {
    let version = Version { life: 1, stamp: stamp(millis) };
    let claim = |(field, value, exclusive): &(&str, &str, bool)| Claim {
        field: Arc::from(*field),
        value: Arc::from(*value),
        since: stamp(millis),
        exclusive: *exclusive,
    };
    let parents = parents.iter().map(|key| (*key).clone()).collect();
    let claims = claims.iter().map(claim).collect();
    let body = Some(b"{}".as_slice().into());
    Record::new(Key::new(kind, id), version, Version::NONE, version.stamp, parents, claims, body).expect("a record")
}

fn deleted(record: &Record, millis: u64) -> Record {
    let version = Version { life: record.version.life + 1, stamp: stamp(millis) };
    Record::new(record.key.clone(), version, record.version, record.born, vec![], vec![], None).expect("a tombstone")
}

#[test]
fn what_is_kept_up_to_date_is_what_the_specification_says() {
    for seed in 0..100 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut replica = Replica::default();
        for step in 0..50 {
            if rng.random_range(0..15) == 0 {
                let key = Key::new("t", format!("{}", rng.random_range(0..12)));
                replica.remove(&key);
            } else {
                replica.apply(any(&mut rng));
            }
            assert_eq!(replica.effective(), specification(replica.records()), "seed {seed}, step {step}");
        }
        assert!(replica.scrub(), "seed {seed}");
    }
}

#[test]
fn what_changed_is_named() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut replica = Replica::default();
        let all: Vec<Key> = (0..12).map(|n| Key::new("t", format!("{n}"))).collect();
        for _ in 0..60 {
            let before: Vec<Change> = all.iter().map(|key| replica.change(key.clone())).collect();
            replica.apply(any(&mut rng));
            let named = replica.take_changes();
            for before in before {
                let after = replica.change(before.key.clone());
                if before != after {
                    assert!(named.contains(&after), "seed {seed}: {after:?} was {before:?}");
                }
            }
        }
    }
}

#[test]
fn the_order_of_arrival_leaves_no_trace() {
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut records: Vec<Record> = (0..40).map(|_| any(&mut rng)).collect();
        let mut first = Replica::default();
        for record in &records {
            first.apply(record.clone());
        }
        records.shuffle(&mut rng);
        let mut second = Replica::default();
        for record in records.iter().chain(&records) {
            second.apply(record.clone());
        }
        assert_eq!(first.digest(), second.digest());
        assert_eq!(first.sums(), second.sums());
        assert_eq!(first.effective(), second.effective());
        assert_eq!(first.effective(), specification(first.records()));
    }
}

#[test]
fn children_of_a_deleted_parent_are_orphans_until_it_is_there_again() {
    let mut replica = Replica::default();
    let service = alive("services", "s", 1, &[], &[]);
    let route = alive("routes", "r", 2, &[&service.key], &[]);
    let plugin = alive("plugins", "p", 3, &[&route.key], &[]);
    replica.apply(plugin.clone());
    replica.apply(route.clone());
    assert!(!replica.is_effective(&route.key));
    replica.apply(service.clone());
    assert!(replica.is_effective(&plugin.key));
    replica.take_changes();
    replica.apply(deleted(&service, 9));
    assert!(!replica.is_effective(&plugin.key) && replica.get(&plugin.key).is_some());
    assert_eq!(replica.ineffective().count(), 2);
    assert_eq!(replica.take_changes().len(), 3);
}

#[test]
fn the_oldest_claim_answers_and_the_loser_of_a_name_stays() {
    let mut replica = Replica::default();
    let (first, second) =
        (alive("consumers", "b", 1, &[], &[("name", "x", false)]), alive("consumers", "a", 2, &[], &[("name", "x", false)]));
    replica.apply(second.clone());
    replica.apply(first.clone());
    assert_eq!(replica.owner(&("name".into(), "x".into())), Some(&first.key));
    assert!(replica.is_effective(&second.key));
    assert_eq!(replica.change(second.key.clone()).lost.len(), 1);
    replica.apply(deleted(&first, 5));
    assert_eq!(replica.owner(&("name".into(), "x".into())), Some(&second.key));
    assert!(replica.take_changes().iter().any(|change| change.key == second.key && change.lost.is_empty()));
}

#[test]
fn the_loser_of_an_exclusive_value_is_not_in_effect_and_neither_is_what_belongs_to_it() {
    let mut replica = Replica::default();
    let first = alive("upstreams", "1", 1, &[], &[("name", "u", true)]);
    let second = alive("upstreams", "2", 2, &[], &[("name", "u", true)]);
    let target = alive("targets", "t", 3, &[&second.key], &[]);
    for record in [&first, &second, &target] {
        replica.apply(record.clone());
    }
    assert!(replica.is_effective(&first.key) && !replica.is_effective(&second.key) && !replica.is_effective(&target.key));
    replica.apply(deleted(&first, 4));
    assert!(replica.is_effective(&second.key) && replica.is_effective(&target.key));
}

#[test]
fn a_value_of_an_orphan_is_free() {
    let mut replica = Replica::default();
    let gone = Key::new("consumers", "gone");
    let orphan = alive("keys", "1", 1, &[&gone], &[("key", "secret", true)]);
    let other = alive("keys", "2", 2, &[], &[("key", "secret", true)]);
    replica.apply(orphan);
    replica.apply(other.clone());
    assert!(replica.is_effective(&other.key));
}

#[test]
fn a_concurrent_edit_that_lost_is_kept_once() {
    let mut replica = Replica::default();
    let (first, second) = (alive("t", "1", 1, &[], &[]), alive("t", "1", 2, &[], &[]));
    replica.apply(first.clone());
    replica.apply(second.clone());
    replica.apply(first.clone());
    assert_eq!(replica.conflicts().iter().map(|c| c.record.version).collect::<Vec<_>>(), [first.version]);
    assert_eq!(replica.conflicts().total(), 1);
}

#[test]
fn conflicts_are_bounded() {
    let mut replica = Replica::default();
    for n in 1..3_000 {
        replica.apply(alive("t", "1", n, &[], &[]));
    }
    assert_eq!(replica.conflicts().iter().count(), 1_000);
    assert_eq!(replica.conflicts().total(), 2_998);
}

#[test]
fn a_log_that_is_recalled_goes_on_where_it_was() {
    let mut replica = Replica::default();
    for n in 1..=6 {
        replica.apply(alive("t", "1", n, &[], &[]));
    }
    let log = replica.conflicts();
    assert_eq!((log.first(), log.last(), log.since(3).map(|(number, _)| number).collect::<Vec<_>>()), (1, 5, vec![4, 5]));
    let kept: Vec<_> = log.since(2).map(|(number, conflict)| (number, conflict.clone())).collect();
    let mut again = Replica::load(replica.records().cloned(), 0);
    again.recall(Conflicts::recall(kept));
    assert_eq!((again.conflicts().first(), again.conflicts().last(), again.conflicts().total()), (3, 5, 0));
    let (known, new) = (alive("t", "1", 5, &[], &[]), alive("t", "1", 7, &[], &[]));
    again.apply(known);
    assert_eq!(again.conflicts().last(), 5, "it is in the log");
    again.apply(new);
    assert_eq!((again.conflicts().last(), again.conflicts().total()), (6, 1));
}

#[test]
fn a_conflict_about_what_is_gone_for_long_is_settled() {
    let mut replica = Replica::default();
    let (first, second) = (alive("t", "1", 1, &[], &[]), alive("t", "1", 2, &[], &[]));
    replica.apply(first);
    replica.apply(second.clone());
    let settled = |replica: &Replica| replica.conflicts().iter().all(|conflict| replica.is_settled(conflict));
    assert!(!settled(&replica));
    replica.apply(deleted(&second, 3));
    assert!(settled(&replica));
    replica.raise_horizon(3);
    assert!(replica.get(&second.key).is_none() && settled(&replica));
}

#[test]
fn a_raised_horizon_purges_and_refuses_what_may_have_been_deleted() {
    let mut replica = Replica::default();
    let (gone, kept) = (alive("t", "1", 10, &[], &[]), alive("t", "2", 10, &[], &[]));
    replica.apply(gone.clone());
    replica.apply(kept.clone());
    let tombstone = deleted(&gone, 20);
    replica.apply(tombstone.clone());
    assert_eq!(replica.raise_horizon(19), []);
    assert_eq!(replica.raise_horizon(20), std::slice::from_ref(&gone.key));
    assert_eq!(replica.digest().count, 1);
    assert_eq!(replica.apply(tombstone), Outcome::Known);
    assert_eq!(replica.apply(gone.clone()), Outcome::TooOld);
    assert_eq!(replica.digest().count, 1);
    // An edit of what is here is as welcome as ever, and so is an entity that was made later.
    let edit = Version { life: 1, stamp: stamp(30) };
    let edit = Record::new(kept.key.clone(), edit, kept.version, kept.born, vec![], vec![], kept.body.clone()).expect("a record");
    assert_eq!(replica.apply(edit), Outcome::Applied);
    assert_eq!(replica.apply(alive("t", "3", 21, &[], &[])), Outcome::Applied);
    assert_eq!(replica.conflicts().iter().filter(|c| c.reason == Reason::TooOld).count(), 1);
}

#[test]
fn after_a_complete_snapshot_only_what_is_young_survives_unseen() {
    let mut replica = Replica::default();
    let (old, young, seen) = (alive("t", "1", 10, &[], &[]), alive("t", "2", 50, &[], &[]), alive("t", "3", 10, &[], &[]));
    for record in [&old, &young, &seen] {
        replica.apply(record.clone());
    }
    assert_eq!(replica.drop_unseen(&BTreeSet::from([seen.key.clone()]), 40), std::slice::from_ref(&old.key));
    assert!(replica.get(&young.key).is_some() && replica.get(&seen.key).is_some());
    assert_eq!(replica.conflicts().iter().filter(|c| c.reason == Reason::TooOld).count(), 1);
}

#[test]
fn scrubbing_finds_and_corrects_a_wrong_sum() {
    let mut replica = Replica::default();
    let record = alive("t", "1", 1, &[], &[]);
    replica.apply(record.clone());
    let right = replica.digest();
    replica.buckets[bucket_of(&record.key)].sum ^= 1;
    assert!(!replica.scrub());
    assert!(replica.scrub());
    assert_eq!(replica.digest(), right);
}
