use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use parking_lot::Mutex;
use schema::json;

use super::*;
use crate::catalog::{Key, Row};
use crate::model;
use crate::store::{Embedded, Loaded, Memory};

/// A store that counts commits and fails when told to.
#[derive(Default)]
struct Fussy {
    commits: AtomicUsize,
    fails: AtomicBool,
}

impl Store for Fussy {
    fn load(&self) -> Result<Loaded, StoreError> {
        Memory.load()
    }

    fn commit(&self, _: &[Edit]) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::InUse { path: "x".into() });
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "fussy"
    }
}

fn schemas() -> Schemas {
    Schemas { choose: Arc::new(|_, _| None), features: Vec::new() }
}

fn start(store: Arc<dyn Store>, publish: Arc<Publish>) -> Configuration {
    let catalog = load(&*store).expect("a store that can be read");
    Configuration::start(&actix_rt::Arbiter::current(), store, catalog, schemas(), publish)
}

fn consumer(name: &str) -> Change {
    let input = json!({"username": name}).as_object().cloned().expect("an object");
    Change::Create { entity: model::entity("consumers").expect("an entity"), input }
}

#[actix_rt::test]
async fn a_change_is_live_when_it_is_answered() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shown = seen.clone();
    let publish = move |catalog: &Arc<Catalog>, edits: &[Edit]| shown.lock().push((catalog.len("consumers"), edits.len()));
    let configuration = start(Arc::new(Memory), Arc::new(publish));
    let written = configuration.write(consumer("a")).await.expect("a new consumer");
    assert!(written.created);
    assert_eq!(*seen.lock(), [(1, 1)]);
    assert!(configuration.catalog().find("consumers", "username", "a").is_some());
    let error = configuration.write(consumer("a")).await.expect_err("the name is taken");
    assert_eq!(error.code, 5);
    assert_eq!(seen.lock().len(), 1, "nothing changed, nothing is published");
}

#[actix_rt::test]
async fn changes_that_wait_are_made_together() {
    let store = Arc::new(Fussy::default());
    let configuration = start(store.clone(), Arc::new(|_, _| {}));
    let writes = (0..200).map(|n| configuration.write(consumer(&format!("user-{}", n % 150))));
    let answers = join_all(writes).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 150);
    assert_eq!(configuration.catalog().len("consumers"), 150);
    let commits = store.commits.load(Ordering::Relaxed);
    assert!(commits < 20, "{commits} commits for 200 changes");
}

#[actix_rt::test]
async fn a_change_that_cannot_be_stored_is_not_made() {
    let store = Arc::new(Fussy::default());
    let configuration = start(store.clone(), Arc::new(|_, _| {}));
    store.fails.store(true, Ordering::Relaxed);
    let error = configuration.write(consumer("a")).await.expect_err("the store fails");
    assert_eq!((error.status(), error.body()), (500, json!({"message": "An unexpected error occurred"})));
    assert!(configuration.catalog().is_empty());
    store.fails.store(false, Ordering::Relaxed);
    configuration.write(consumer("a")).await.expect("the store works again");
}

#[actix_rt::test]
async fn a_panic_costs_one_batch() {
    let publish = |catalog: &Arc<Catalog>, _: &[Edit]| assert_ne!(catalog.len("consumers"), 1, "a panic that the test asks for");
    let configuration = start(Arc::new(Memory), Arc::new(publish));
    configuration.write(consumer("a")).await.expect_err("publishing panics");
    configuration.write(consumer("b")).await.expect("the actor goes on");
    assert_eq!(configuration.catalog().len("consumers"), 2);
}

#[actix_rt::test]
async fn what_is_stored_is_read_again() {
    let prefix = tempfile::tempdir().expect("a directory");
    let open = || start(Arc::new(Embedded::open(prefix.path()).expect("a store")), Arc::new(|_, _| {}));
    let configuration = open();
    configuration.write(consumer("a")).await.expect("a new consumer");
    configuration.write(consumer("b")).await.expect("a new consumer");
    let key = Key::Unique { field: "username", value: "a".to_owned() };
    let entity = model::entity("consumers").expect("an entity");
    configuration.write(Change::Delete { entity, key, scope: None }).await.expect("a deletion");
    configuration.close().await;
    let store = loop {
        // The last hands let go of the file a moment later.
        match Embedded::open(prefix.path()) {
            Ok(store) => break store,
            Err(_) => actix_rt::task::yield_now().await,
        }
    };
    let catalog = load(&store).expect("a store that can be read");
    assert_eq!(catalog.rows("consumers").count(), 1);
    assert!(catalog.find("consumers", "username", "b").is_some());
}

/// Writers that wait for one another's commits are slow; together they are not.
#[actix_rt::test]
async fn a_thousand_writes_share_their_commits() {
    let prefix = tempfile::tempdir().expect("a directory");
    let configuration = start(Arc::new(Embedded::open(prefix.path()).expect("a store")), Arc::new(|_, _| {}));
    let started = Instant::now();
    let answers = join_all((0..1000).map(|n| configuration.write(consumer(&format!("user-{n}"))))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

fn row(entity: &str, id: u128, body: schema::Value) -> Edit {
    let mut body = body.as_object().cloned().expect("an object");
    body.insert("id".to_owned(), Uuid::from_u128(id).to_string().into());
    Edit::Put(Arc::new(Row::new(model::entity(entity).expect("an entity"), Uuid::from_u128(id), &body)))
}

/// What is refused: kind and number.
async fn follow(configuration: &Configuration, edits: Vec<Edit>) -> Vec<(&'static str, u128)> {
    let refused = configuration.follow(edits).await;
    refused.into_iter().map(|(entity, id, _)| (entity.name, id.as_u128())).collect()
}

#[actix_rt::test]
async fn what_refers_to_a_row_that_can_no_longer_be_used_goes_with_it() {
    let arbiter = actix_rt::Arbiter::current();
    let configuration = Configuration::following(&arbiter, Catalog::default(), schemas(), Arc::new(|_, _| {}));
    let consumer = || row("consumers", 1, json!({"username": "a", "custom_id": null, "tags": null, "created_at": 1, "updated_at": 1}));
    let of_consumer = json!({"group": "g", "consumer": {"id": Uuid::from_u128(1).to_string()}, "tags": null, "created_at": 1});
    let group = || row("acls", 2, of_consumer.clone());
    // Children that come without their parent are refused, and come again with it.
    assert_eq!(follow(&configuration, vec![group()]).await, [("acls", 2)]);
    assert!(follow(&configuration, vec![group(), consumer()]).await.is_empty());
    assert_eq!(configuration.catalog().len("acls"), 1);
    let broken = row("consumers", 1, json!({"username": ["not", "a", "name"]}));
    assert_eq!(follow(&configuration, vec![broken]).await, [("consumers", 1), ("acls", 2)]);
    assert!(configuration.catalog().is_empty());
    configuration.catalog().check_invariants();
}

#[actix_rt::test]
async fn what_is_in_effect_as_it_comes_is_left_as_it_is() {
    let arbiter = actix_rt::Arbiter::current();
    let snapshots = Arc::new(AtomicUsize::new(0));
    let made = snapshots.clone();
    let publish = move |_: &Arc<Catalog>, _: &[Edit]| {
        made.fetch_add(1, Ordering::Relaxed);
    };
    let consumer = |id: u128, name: &str| {
        row("consumers", id, json!({"username": name, "custom_id": null, "tags": ["t"], "created_at": 1, "updated_at": 1}))
    };
    let both = || vec![consumer(1, "a"), consumer(2, "b")];
    let configuration = Configuration::following(&arbiter, Catalog::default(), schemas(), Arc::new(publish));
    assert!(follow(&configuration, both()).await.is_empty());
    let there = configuration.catalog().get("consumers", &Uuid::from_u128(1)).cloned().expect("a row");
    assert!(follow(&configuration, both()).await.is_empty());
    assert_eq!(snapshots.load(Ordering::Relaxed), 1, "a group of rows is one snapshot, and none when nothing is new");
    assert!(follow(&configuration, vec![consumer(1, "a"), consumer(2, "c")]).await.is_empty());
    let catalog = configuration.catalog();
    assert!(Arc::ptr_eq(catalog.get("consumers", &Uuid::from_u128(1)).expect("a row"), &there));
    assert!(catalog.find("consumers", "username", "c").is_some() && catalog.find("consumers", "username", "b").is_none());
}

#[test]
fn a_row_whose_time_is_over_is_found_by_its_values() {
    let Edit::Put(short) = row("keyauth_credentials", 1, json!({"key": "k", "consumer": null, "tags": null, "created_at": 1})) else {
        panic!("a row")
    };
    let at = |end| Arc::new(Row::new(short.schema, short.id, &short.object()).expiring(Some(end)));
    let Edit::Put(other) = row("keyauth_credentials", 2, json!({"key": "k", "consumer": null, "tags": null, "created_at": 1})) else {
        panic!("a row")
    };
    let over = Catalog::of([at(1)]);
    assert_eq!(over.expired_holders(&other).iter().map(|row| row.id).collect::<Vec<_>>(), [short.id]);
    assert!(over.expired_holders(&short).is_empty() && over.kept("keyauth_credentials", &short.id).is_some());
    assert!(Catalog::of([at(u64::MAX)]).expired_holders(&other).is_empty());
}

#[actix_rt::test]
async fn a_row_that_no_snapshot_can_be_made_of_keeps_no_others_away() {
    let arbiter = actix_rt::Arbiter::current();
    let seen = Arc::new(Mutex::new(0));
    let shown = seen.clone();
    let publish = move |catalog: &Arc<Catalog>, _: &[Edit]| {
        assert!(catalog.find("consumers", "username", "bad").is_none(), "a panic that the test asks for");
        *shown.lock() = catalog.len("consumers") + catalog.len("acls");
    };
    let configuration = Configuration::following(&arbiter, Catalog::default(), schemas(), Arc::new(publish));
    let consumer = |id: u128, name: &str| {
        row("consumers", id, json!({"username": name, "custom_id": null, "tags": null, "created_at": 1, "updated_at": 1}))
    };
    let group = |id: u128| {
        let of = json!({"id": Uuid::from_u128(id).to_string()});
        row("acls", id, json!({"group": "g", "consumer": of, "tags": null, "created_at": 1}))
    };
    let mut edits: Vec<Edit> = (0..20).map(|id| consumer(id, &format!("user-{id}"))).chain((0..20).map(group)).collect();
    edits[7] = consumer(7, "bad");
    let mut refused = follow(&configuration, edits).await;
    refused.sort_unstable();
    assert_eq!(refused, [("acls", 7), ("consumers", 7)]);
    assert_eq!(*seen.lock(), 38);
    // One that could be used before is taken out, with what refers to it.
    let mut refused = follow(&configuration, vec![consumer(3, "bad"), consumer(30, "good")]).await;
    refused.sort_unstable();
    assert_eq!(refused, [("acls", 3), ("consumers", 3)]);
    assert_eq!(*seen.lock(), 37);
    configuration.catalog().check_invariants();
}
