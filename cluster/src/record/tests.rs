use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::id::NodeId;

/// A record of a few keys, lives, times and nodes, so that ties are common.
pub fn any_record(rng: &mut impl Rng) -> Record {
    let stamp = |rng: &mut dyn FnMut(u64) -> u64| Stamp::new(1 + rng(3), rng(2) as u16, NodeId(u128::from(rng(3))));
    let mut pick = |n: u64| rng.random_range(0..n);
    let key = Key::new("thing", format!("{}", pick(2)));
    let version = Version { life: 1 + pick(4), stamp: stamp(&mut pick) };
    let base = if pick(2) == 0 { Version::NONE } else { Version { life: 1, stamp: stamp(&mut pick) } };
    let alive = version.is_alive();
    let claims = if alive && pick(2) == 0 {
        vec![Claim { field: "name".into(), value: format!("{}", pick(2)).into(), since: stamp(&mut pick), exclusive: pick(2) == 0 }]
    } else {
        Vec::new()
    };
    let body = alive.then(|| format!("{{\"n\":{}}}", pick(2)).as_bytes().into());
    Record::new(key, version, base, stamp(&mut pick), Vec::new(), claims, body).expect("within the limits")
}

fn of_one_key(rng: &mut SmallRng) -> Record {
    loop {
        let record = any_record(rng);
        if &*record.key.id == "0" {
            return record;
        }
    }
}

#[test]
fn joining_is_associative_commutative_and_idempotent() {
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let (a, b, c) = (of_one_key(&mut rng), of_one_key(&mut rng), of_one_key(&mut rng));
        assert_eq!(a.clone().join(b.clone()), b.clone().join(a.clone()));
        assert_eq!(a.clone().join(b.clone()).join(c.clone()), a.clone().join(b.clone().join(c)));
        assert_eq!(a.clone().join(a.clone()), a);
        assert_eq!(a.conflicts_with(&b), b.conflicts_with(&a));
        assert!(!a.conflicts_with(&a));
    }
}

#[test]
fn a_delete_beats_an_edit_that_had_not_seen_it_whatever_the_clocks_say() {
    let key = Key::new("credential", "1");
    let at = |life, millis| Version { life, stamp: Stamp::new(millis, 0, NodeId(1)) };
    let born = Stamp::new(1, 0, NodeId(1));
    let delete = Record::new(key.clone(), at(2, 10), at(1, 1), born, vec![], vec![], None).expect("a tombstone");
    let edit = Record::new(key, at(1, 1 << 40), at(1, 1), born, vec![], vec![], Some(b"{}".as_slice().into())).expect("an edit");
    assert!(delete.beats(&edit));
    assert!(delete.conflicts_with(&edit));
}

#[test]
fn a_successor_is_no_conflict_and_neither_is_a_late_copy_of_its_past() {
    let key = Key::new("thing", "1");
    let at = |millis| Version { life: 1, stamp: Stamp::new(millis, 0, NodeId(1)) };
    let make = |version, base| {
        Record::new(key.clone(), version, base, Stamp::ZERO, vec![], vec![], Some(b"{}".as_slice().into())).expect("a record")
    };
    let (first, second, third) = (make(at(1), Version::NONE), make(at(2), at(1)), make(at(3), at(2)));
    assert!(!second.conflicts_with(&first));
    assert!(!third.conflicts_with(&first));
    assert!(make(at(4), at(1)).conflicts_with(&second));
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut rng = SmallRng::seed_from_u64(2);
    for _ in 0..2_000 {
        let record = any_record(&mut rng);
        let read = Record::decode(&record.encode()).expect("a record");
        assert_eq!(read, record);
        assert_eq!(read.hash(), record.hash());
    }
}

/// The envelope as a struct of its own, as the first nodes wrote it and as disks have it.
#[derive(Encode, Decode)]
struct Former {
    kind: Arc<str>,
    id: Arc<str>,
    version: Version,
    base: Version,
    born: Stamp,
    parents: Vec<Key>,
    claims: Vec<Claim>,
    body: Option<Vec<u8>>,
}

#[test]
fn the_wire_form_is_that_of_all_releases() {
    let mut rng = SmallRng::seed_from_u64(5);
    for n in 0..2_000 {
        let mut record = any_record(&mut rng);
        if record.is_alive() {
            let body = if n % 3 == 0 { Body::from(&[0xff; 300][..]) } else { Body::from(vec![b'x'; n]) };
            let parents = vec![Key::new("a parent", "1"); n % 4];
            let claims = record.claims.to_vec();
            record =
                Record::new(record.key.clone(), record.version, record.base, record.born, parents, claims, Some(body)).expect("a record");
        }
        let former = Former {
            kind: record.key.kind.clone(),
            id: record.key.id.clone(),
            version: record.version,
            base: record.base,
            born: record.born,
            parents: record.parents.to_vec(),
            claims: record.claims.to_vec(),
            body: record.body.as_ref().map(|body| body.to_vec()),
        };
        let mut bytes = vec![FORMAT];
        bytes.extend(bincode::encode_to_vec(former, bincode::config::standard()).expect("bytes"));
        assert_eq!(record.encode(), bytes);
        assert_eq!(record.hash(), xxh3_128(&bytes));
        assert_eq!(Record::decode(&bytes).expect("a record"), record);
    }
}

#[test]
fn a_clone_is_the_same_in_memory() {
    let version = Version { life: 1, stamp: Stamp::new(1, 0, NodeId(1)) };
    let body = Some(Body::from(&b"{}"[..]));
    let record = Record::new(Key::new("k", "1"), version, Version::NONE, version.stamp, vec![], vec![], body).expect("a record");
    assert!(std::ptr::eq(&**record.clone().body.as_ref().expect("a body"), &**record.body.as_ref().expect("a body")));
    let again = Record::decode(&record.encode()).expect("a record");
    let other = Record::decode(&record.encode()).expect("a record");
    assert!(Arc::ptr_eq(&again.key.kind, &other.key.kind), "kinds are shared by all that is read");
}

#[test]
fn fields_of_a_newer_release_are_kept() {
    let record = any_record(&mut SmallRng::seed_from_u64(3));
    let mut newer = record.encode();
    newer.extend_from_slice(b"a field of next year");
    let read = Record::decode(&newer).expect("a record with more behind it");
    assert_eq!(read.encode(), newer);
    assert_ne!(read.hash(), record.hash());
}

#[test]
fn an_unknown_kind_is_as_good_as_a_known_one() {
    let version = Version { life: 1, stamp: Stamp::new(1, 0, NodeId(1)) };
    let body = Body::from(&[0xff, 0, 1][..]);
    let record =
        Record::new(Key::new("of next year", "1"), version, Version::NONE, version.stamp, vec![], vec![], Some(body)).expect("a record");
    assert_eq!(Record::decode(&record.encode()).expect("a record"), record);
}

#[test]
fn limits_are_kept_by_what_is_made_and_by_what_comes() {
    let version = Version { life: 1, stamp: Stamp::new(1, 0, NodeId(1)) };
    let make = |key: Key, version, body: Option<Vec<u8>>, claims| {
        Record::new(key, version, Version::NONE, Stamp::ZERO, vec![], claims, body.map(Body::from))
    };
    let claim = |n: usize| Claim { field: "f".into(), value: "v".repeat(n).into(), since: Stamp::ZERO, exclusive: true };
    let key = || Key::new("k", "i");
    assert!(make(key(), version, Some(vec![0; MAX_BODY]), vec![claim(MAX_NAME)]).is_ok());
    assert!(make(key(), version, Some(vec![0; MAX_BODY + 1]), vec![]).is_err());
    assert!(make(key(), version, Some(vec![]), vec![claim(MAX_NAME + 1)]).is_err());
    assert!(make(key(), version, Some(vec![]), vec![claim(1); MAX_LINKS + 1]).is_err());
    assert!(make(Key::new("", "i"), version, Some(vec![]), vec![]).is_err());
    assert!(make(key(), version, None, vec![]).is_err());
    assert!(make(key(), Version { life: 2, ..version }, Some(vec![]), vec![]).is_err());
    assert!(make(key(), Version::NONE, None, vec![]).is_err());
    assert!(Record::decode(&vec![FORMAT; MAX_RECORD + 1]).is_err());
    // All limits at once are too much; whatever can be made can be read.
    let largest = |body| make(key(), version, Some(vec![0; body]), vec![claim(MAX_NAME); MAX_LINKS]);
    let record = largest(MAX_BODY).expect("claims of a quarter of a mebibyte");
    assert_eq!(Record::decode(&record.encode()).expect("a record"), record);
    assert!(matches!(Record::decode(&[9, 1, 2]), Err(RecordError::Format(9))));
    assert!(Record::decode(&[]).is_err());
}

#[test]
fn keys_are_spread_over_the_buckets() {
    let mut counts = vec![0_u32; BUCKETS];
    for n in 0..40_960 {
        counts[bucket_of(&Key::new("route", format!("{n}")))] += 1;
    }
    assert!(counts.iter().all(|count| *count < 40), "10 are expected in each");
}

#[test]
fn a_life_that_cannot_be_counted_on_from_is_refused() {
    let version = Version { life: u64::MAX, stamp: Stamp::new(5, 0, NodeId(1)) };
    let record = Record::new(Key::new("k", "1"), version, Version::NONE, version.stamp, vec![], vec![], Some(b"{}".as_slice().into()));
    assert!(matches!(record, Err(RecordError::Limit(_))));
}
