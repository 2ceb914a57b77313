//! Bodies of records that peers have written, as the decoders of `cluster/tests/decoders` are tested: nearly right ones.

use cluster::clock::Stamp;
use cluster::id::{Key, NodeId};
use cluster::record::{Record, Version};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use super::commands::{self, Marks, Purges};
use super::records;
use crate::actors::upstreams::Which;
use crate::catalog::row;
use crate::plugin::cache;

#[path = "../../../cluster/tests/decoders/mutate.rs"]
mod mutate;

const ROUNDS: usize = 10_000;
const ID: &str = "00000000-0000-0000-0000-000000000007";

fn record(kind: &str, body: &[u8]) -> Record {
    let version = Version { life: 1, stamp: Stamp::new(1, 0, NodeId(1)) };
    Record::new(Key::new(kind, ID), version, Version::NONE, version.stamp, Vec::new(), Vec::new(), Some(body.into())).expect("a record")
}

/// Gives bodies made of these to a reader, and sees that it takes some and refuses some.
fn give(kind: &str, seeds: &[&str], take: impl Fn(&Record) -> bool) {
    assert!(seeds.iter().all(|seed| take(&record(kind, seed.as_bytes()))), "{kind}: what is right is refused");
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let mut rng = SmallRng::seed_from_u64(7);
    let taken = (0..ROUNDS).filter(|_| take(&record(kind, &mutate::any(&seeds, &mut rng)))).count();
    assert!((1..ROUNDS).contains(&taken), "{kind}: {taken}");
}

#[test]
fn whatever_body_comes_it_is_a_row_or_refused() {
    let consumer = format!(r#"{{"id":"{ID}","username":"ann","tags":["a"],"created_at":1}}"#);
    let ending = format!("{consumer}\n1790000000000");
    give("consumers", &[&consumer, &ending], |record| {
        let Ok(row) = records::row(record, &[]) else { return false };
        let _ = records::row(record, &["username", "custom_id"]);
        records::is_of(&row, record) && !records::draft(&row).key.id.is_empty()
    });
}

#[test]
fn whatever_body_comes_it_is_a_command_or_refused() {
    let key = cache::entry::tests::key(1);
    let purges = format!(r#"{{"since":5,"keys":[[7,"{key}"],[{},"{key}"]]}}"#, u64::MAX);
    give("proxy_cache_purges", &[&purges], |record| {
        let Ok(purges) = commands::body::<Purges>(Some(record)) else { return false };
        let _ = purges.due(6);
        let _ = purges.and(Some(&key), row::now()).and(None, row::now());
        true
    });
    let marks = format!(r#"{{"upstream":"{ID}","marks":[{{"at":{},"address":"127.0.0.1:9","healthy":false}}]}}"#, u64::MAX);
    let which = Which { upstream: Uuid::nil(), target: Uuid::nil(), address: None };
    give("target_marks", &[&marks], |record| {
        let Ok(marks) = commands::body::<Marks>(Some(record)) else { return false };
        let _ = marks.due(6, true, row::now()).count();
        let _ = marks.and(&which, true, row::now());
        true
    });
}
