use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use parking_lot::Mutex;
use schema::json;

use super::*;
use crate::catalog::Key;
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
