//! Reads of a catalog: keys, parents, pages, tags.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use schema::{Value, json};

use super::*;
use crate::model;

fn row(entity: &str, id: u128, body: Value) -> Arc<Row> {
    let schema = model::entity(entity).expect("an entity of the model");
    let id = Uuid::from_u128(id);
    let mut body = body.as_object().cloned().unwrap_or_default();
    body.insert("id".to_owned(), id.to_string().into());
    Arc::new(Row::new(schema, id, &body))
}

fn of(id: u128) -> Value {
    json!({ "id": Uuid::from_u128(id).to_string() })
}

#[test]
fn a_tag_is_in_memory_once() {
    let schema = model::entity("consumers").expect("an entity");
    let tagged = |n: u128| {
        let id = Uuid::from_u128(n);
        Arc::new(Row::from_text(schema, id, format!(r#"{{"id":"{id}","username":"{n}","tags":["a","b"]}}"#).into()))
    };
    let catalog = Catalog::of((1..=3).map(tagged));
    let table = catalog.table("consumers").expect("a table");
    let texts: std::collections::HashSet<*const u8> = table.tags.iter().map(|(tag, _)| tag.as_ptr()).collect();
    assert_eq!((table.tags.len(), texts.len()), (6, 2));
}

#[test]
fn rows_are_found_by_their_keys() {
    let catalog = Catalog::of([
        row("services", 1, json!({"name": "a", "host": "h"})),
        row("routes", 2, json!({"name": "r", "service": of(1)})),
        row("plugins", 3, json!({"name": "cors", "service": of(1), "route": null})),
        row("upstreams", 4, json!({"name": "u"})),
        row("targets", 5, json!({"upstream": of(4), "target": "h:80"})),
    ]);
    let parent = Uuid::from_u128(1);
    assert_eq!(catalog.find("services", "name", "a").map(|r| r.id), Some(parent));
    assert!(catalog.find("services", "host", "h").is_none());
    assert_eq!(catalog.children("routes", "service", parent).count(), 1);
    let same = json!({"name": "cors", "service": of(1)});
    assert!(catalog.find_compound("plugins", same.as_object().unwrap()).is_some());
    let other = json!({"name": "cors", "service": null});
    assert!(catalog.find_compound("plugins", other.as_object().unwrap()).is_none());
    let key = Key::Unique { field: "target", value: "h:80".to_owned() };
    let scope = |parent| Some(Scope { field: "upstream", parent: Uuid::from_u128(parent) });
    assert!(catalog.select("targets", &key, scope(4)).is_some());
    assert!(catalog.select("targets", &key, scope(9)).is_none());
    assert!(catalog.select("targets", &Key::Id(Uuid::from_u128(5)), scope(9)).is_none());
}

#[test]
fn a_version_does_not_change() {
    let before = Catalog::of([row("consumers", 1, json!({"username": "a"}))]);
    let mut after = before.clone();
    after.insert(row("consumers", 1, json!({"username": "b"})));
    assert!(before.find("consumers", "username", "a").is_some());
    assert!(after.find("consumers", "username", "a").is_none());
    assert!(after.find("consumers", "username", "b").is_some());
}

#[test]
fn expired_rows_are_not_seen() {
    let schema = model::entity("consumers").unwrap();
    let end = |at| Arc::new(Row::from_text(schema, Uuid::from_u128(1), r#"{"username":"a"}"#.into()).expiring(Some(at)));
    let gone = Catalog::of([end(row::now() - 1)]);
    assert!(gone.find("consumers", "username", "a").is_none());
    assert_eq!(gone.rows("consumers").count(), 0);
    let live = Catalog::of([end(row::now() + 60_000)]);
    let row = live.find("consumers", "username", "a").expect("a minute is left");
    assert_eq!(row.ttl(), Some(60));
}

#[test]
fn pages_follow_one_another() {
    let catalog = Catalog::of((1..=25).map(|n| row("consumers", n, json!({"username": n.to_string()}))));
    let mut from = Some(Uuid::nil());
    let mut seen = Vec::new();
    while let Some(start) = from {
        let page = catalog.page("consumers", &Page::new(start, 10));
        seen.extend(page.rows.iter().map(|row| row.id.as_u128()));
        from = page.next;
    }
    assert_eq!(seen, (1..=25).collect::<Vec<u128>>());
}

#[test]
fn tags_join_and_meet() {
    let tagged = |n: u128, tags: &[&str]| row("consumers", n, json!({"username": n.to_string(), "tags": tags}));
    let catalog = Catalog::of([tagged(1, &["a", "b"]), tagged(2, &["b"]), tagged(3, &["a"]), tagged(4, &["a", "b", "c"])]);
    let ids = |tags| {
        let page = catalog.page("consumers", &Page::new(Uuid::nil(), 10).tagged(tags));
        page.rows.iter().map(|row| row.id.as_u128()).collect::<Vec<_>>()
    };
    let list = |tags: &[&str]| tags.iter().map(|tag| tag.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(TagFilter::All(list(&["a", "b"]))), [1, 4]);
    assert_eq!(ids(TagFilter::All(list(&["a", "x"]))), [0; 0]);
    assert_eq!(ids(TagFilter::Any(list(&["c", "a"]))), [1, 3, 4]);
    let (lines, next) = catalog.tagged(None, None, 3);
    assert_eq!(lines.iter().map(|l| (&*l.tag, l.entity_id.as_u128())).collect::<Vec<_>>(), [("a", 1), ("a", 3), ("a", 4)]);
    let (lines, next) = catalog.tagged(None, next.as_ref(), 10);
    assert_eq!(lines.len(), 4);
    assert!(next.is_none());
    assert_eq!(catalog.tagged(Some("c"), None, 10).0.len(), 1);
}

/// Time that this thread has computed, whatever else the machine does.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock is always there").into()
}

/// The bound of the contract is 20 ms; a page must not cost more with the rows that are not on it.
#[test]
fn a_page_of_many_rows_is_fast() {
    let tags = |n: u128| if n.is_multiple_of(2) { json!(["all", "half"]) } else { json!(["all"]) };
    let body = |n: u128| json!({"username": format!("user-{n}"), "tags": tags(n)});
    let catalog = Catalog::of((0..100_000).map(|n| row("consumers", n * 7919, body(n))));
    let pages = [
        Page::new(Uuid::from_u128(50_000 * 7919), 1000),
        Page::new(Uuid::nil(), 1000).tagged(TagFilter::All(vec!["half".into()])),
        Page::new(Uuid::nil(), 1000).tagged(TagFilter::All(vec!["all".into(), "half".into()])),
        Page::new(Uuid::nil(), 1000).tagged(TagFilter::Any(vec!["all".into(), "half".into()])),
    ];
    for page in pages {
        let start = cpu_time();
        let rows = catalog.page("consumers", &page);
        let took = cpu_time() - start;
        assert_eq!(rows.rows.len(), 1000);
        assert!(took.as_millis() < 100, "{page:?} took {took:?}");
    }
}
