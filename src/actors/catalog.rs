//! The configuration: the catalog and the store, and the only writer of both.
//!
//! Changes that arrive while others are being made wait and are made together: one commit, one build of what requests see.
//! A change is answered when it is durable and live. Planning, the commit and the build run on a thread that may block.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::ArbiterHandle;
use ahash::{HashSet, HashSetExt};
use arc_swap::ArcSwap;
use schema::EntitySchema;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::supervise::{Supervised, supervise};
use crate::catalog::{Catalog, Change, Edit, Row, Schemas, WriteError, Written, row};
use crate::model::ENTITIES;
use crate::store::{Memory, Store, StoreError};

/// Messages that the mailbox holds before senders wait.
const MAILBOX: usize = 1024;
/// Changes that wait for their turn; more are refused.
const WAITING: usize = 8192;
/// Changes that are made together at most.
const TOGETHER: usize = 512;
/// How often rows whose time is over are looked for. Look-ups do not see them in between.
const SWEEP: Duration = Duration::from_secs(10);

/// Makes what requests see from a catalog, and puts it in place. Told which rows changed; called on a thread that may block.
pub type Publish = dyn Fn(&Arc<Catalog>, &[Edit]) + Send + Sync;

/// Reads the configuration that a store holds. Rows that cannot be read are named in the log and are not in effect.
pub fn load(store: &dyn Store) -> Result<Catalog, StoreError> {
    let loaded = store.load()?;
    for row in &loaded.left_out {
        tracing::warn!(row, store = store.name(), "row is left out, this version cannot read it");
    }
    Ok(Catalog::of(loaded.rows))
}

/// The way to the configuration: reads at once, writes through the actor.
#[derive(Clone)]
pub struct Configuration {
    shared: Arc<Shared>,
    actor: Supervised<CatalogActor>,
}

impl Configuration {
    /// Starts the actor on an arbiter, with the catalog that the store was read into.
    pub fn start(arbiter: &ArbiterHandle, store: Arc<dyn Store>, catalog: Catalog, schemas: Schemas, publish: Arc<Publish>) -> Self {
        Self::begin(arbiter, store, catalog, schemas, publish, false)
    }

    /// The same for a node of a cluster, which decides what is in effect: rows are put in and taken out by `follow` alone.
    pub fn following(arbiter: &ArbiterHandle, catalog: Catalog, schemas: Schemas, publish: Arc<Publish>) -> Self {
        Self::begin(arbiter, Arc::new(Memory), catalog, schemas, publish, true)
    }

    fn begin(
        arbiter: &ArbiterHandle,
        store: Arc<dyn Store>,
        catalog: Catalog,
        schemas: Schemas,
        publish: Arc<Publish>,
        follows: bool,
    ) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(catalog));
        let shared = Arc::new(Shared { current, store, schemas, publish, follows });
        let of_actor = shared.clone();
        let actor = supervise("catalog", arbiter, MAILBOX, move || CatalogActor::new(of_actor.clone()));
        Self { shared, actor }
    }

    /// The catalog at this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.current.load_full()
    }

    /// Where the catalog of each moment is found.
    pub fn current(&self) -> Arc<ArcSwap<Catalog>> {
        self.shared.current.clone()
    }

    /// Makes a change. When the answer comes the change is durable and live, or refused.
    pub async fn write(&self, change: Change) -> Result<Written, WriteError> {
        match self.actor.address().send(Write(change)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a change found no catalog actor");
                Err(WriteError::database())
            }
        }
    }

    /// Puts rows in effect that are durable already, and takes others out, with one new snapshot. A row that cannot be used does
    /// not keep the others away; it is answered with the reason.
    pub async fn follow(&self, edits: Vec<Edit>) -> Vec<Unusable> {
        let all: Vec<_> = edits.iter().map(|edit| (edit.entity(), edit.id())).collect();
        self.actor.address().send(Follow(edits)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "changes of the cluster found no catalog actor");
            all.into_iter().map(|(entity, id)| (entity, id, "it could not be put in effect".to_owned())).collect()
        })
    }

    /// What the schemas of rows depend on.
    pub fn schemas(&self) -> &Schemas {
        &self.shared.schemas
    }

    /// Makes what waits and lets go of the store. Changes that come later are refused.
    pub async fn close(self) {
        // An error says that the actor is gone already.
        let _ = self.actor.address().send(Close).await;
    }
}

/// Asks the actor to make what waits and to let go of the store.
#[derive(Message)]
#[rtype(result = "()")]
struct Close;

/// What the actor owns and every incarnation of it shares.
struct Shared {
    current: Arc<ArcSwap<Catalog>>,
    store: Arc<dyn Store>,
    schemas: Schemas,
    publish: Arc<Publish>,
    /// Whether a cluster decides what is in effect.
    follows: bool,
}

/// Puts in effect what a cluster has decided. Answers the rows that could not be used, with the reason.
#[derive(Message)]
#[rtype(result = "Vec<Unusable>")]
struct Follow(Vec<Edit>);

/// A change to make.
#[derive(Message)]
#[rtype(result = "Result<Written, WriteError>")]
struct Write(Change);

/// A change and where its answer goes. The actor's own changes have nowhere.
struct Pending {
    change: Change,
    answer: Option<oneshot::Sender<Result<Written, WriteError>>>,
}

struct CatalogActor {
    shared: Arc<Shared>,
    waiting: VecDeque<Pending>,
    busy: bool,
    /// Who waits for the end, once it was asked for.
    closing: Option<oneshot::Sender<()>>,
}

impl CatalogActor {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, waiting: VecDeque::new(), busy: false, closing: None }
    }

    /// Makes what waits, unless changes are being made already.
    fn work(&mut self, context: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if self.waiting.is_empty() {
            if self.closing.take().is_some() {
                context.stop();
            }
            return;
        }
        self.busy = true;
        let batch: Vec<_> = self.waiting.drain(..self.waiting.len().min(TOGETHER)).collect();
        let shared = self.shared.clone();
        let made = actix_rt::task::spawn_blocking(move || shared.make(batch));
        context.spawn(made.into_actor(self).map(|made, actor, context| {
            if let Err(error) = made {
                // Whoever waited sees the channel close.
                tracing::error!(%error, "changes broke off");
            }
            actor.busy = false;
            actor.work(context);
        }));
    }
}

impl Actor for CatalogActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if self.shared.follows {
            // The cluster deletes them on all nodes.
            return;
        }
        context.run_interval(SWEEP, |actor, context| {
            let due = actor.shared.current.load().next_end().is_some_and(|end| end <= row::now());
            if due {
                actor.waiting.push_back(Pending { change: Change::Sweep, answer: None });
                actor.work(context);
            }
        });
    }
}

impl Handler<Write> for CatalogActor {
    type Result = actix::ResponseFuture<Result<Written, WriteError>>;

    fn handle(&mut self, Write(change): Write, context: &mut Self::Context) -> Self::Result {
        if self.waiting.len() >= WAITING {
            tracing::warn!(waiting = self.waiting.len(), "too many changes wait, one is refused");
            return Box::pin(async { Err(WriteError::database()) });
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.push_back(Pending { change, answer: Some(answer) });
        self.work(context);
        Box::pin(async { answered.await.unwrap_or_else(|_| Err(WriteError::database())) })
    }
}

impl Handler<Follow> for CatalogActor {
    type Result = actix::ResponseFuture<Vec<Unusable>>;

    /// The cluster sends one group after the other, and there are no other changes.
    fn handle(&mut self, Follow(edits): Follow, _: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move {
            let all: Vec<_> = edits.iter().map(|edit| (edit.entity(), edit.id())).collect();
            actix_rt::task::spawn_blocking(move || shared.follow(edits)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "changes of the cluster broke off");
                all.into_iter().map(|(entity, id)| (entity, id, "it could not be put in effect".to_owned())).collect()
            })
        })
    }
}

impl Handler<Close> for CatalogActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Close, context: &mut Self::Context) -> Self::Result {
        let (ended, end) = oneshot::channel();
        self.closing = Some(ended);
        self.work(context);
        Box::pin(async {
            // The sender is never used: it goes when the actor goes.
            let _ = end.await;
        })
    }
}

impl Shared {
    /// Makes changes one after the other, commits them as one, puts the result in place and answers.
    fn make(&self, batch: Vec<Pending>) {
        let before = self.current.load_full();
        let mut catalog = Catalog::clone(&before);
        let mut edits = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for Pending { change, answer } in batch {
            let made = self.plan(&catalog, change).map(|plan| {
                let written = plan.written();
                catalog = plan.next;
                edits.extend(plan.edits);
                written
            });
            answers.extend(answer.map(|answer| (answer, made)));
        }
        let done = edits.is_empty() || self.commit(catalog, &edits);
        for (answer, made) in answers {
            // A client that did not wait for its answer is no concern.
            let _ = answer.send(if done { made } else { Err(WriteError::database()) });
        }
    }

    /// Puts in what can be used, and answers the rest with the reasons. When what requests see cannot be made of all of it, halves
    /// are tried, so that one row does not keep the others away.
    fn follow(&self, edits: Vec<Edit>) -> Vec<Unusable> {
        let before = self.current.load_full();
        let (mut edits, mut unusable) = usable(&before, edits);
        if edits.is_empty() || self.commit(before.edited(&edits), &edits) {
            return unusable;
        }
        self.current.store(Arc::clone(&before));
        match &edits[..] {
            [Edit::Put(row)] => {
                let (entity, id) = (row.schema, row.id);
                let below = below(&before, entity, id, |_| true);
                let gone = below.iter().map(|(child, id, _)| Edit::Remove(child, *id)).chain([Edit::Remove(entity, id)]);
                unusable.extend(self.follow(gone.collect()));
                unusable.extend(below);
                unusable.push((entity, id, "what requests see cannot be made of it".to_owned()));
            }
            [edit] => unusable.push((edit.entity(), edit.id(), "it could not be taken out".to_owned())),
            _ => {
                let later = edits.split_off(edits.len() / 2);
                unusable.extend(self.follow(edits));
                unusable.extend(self.follow(later));
            }
        }
        unusable
    }

    /// A panic while a change is planned costs that change alone.
    fn plan(&self, catalog: &Catalog, change: Change) -> Result<crate::catalog::Plan, WriteError> {
        let planned = catch_unwind(AssertUnwindSafe(|| catalog.plan(change, &self.schemas.context())));
        planned.unwrap_or_else(|_| {
            tracing::error!("planning a change panicked");
            Err(WriteError::database())
        })
    }

    fn commit(&self, catalog: Catalog, edits: &[Edit]) -> bool {
        if let Err(error) = self.store.commit(edits) {
            tracing::error!(%error, store = self.store.name(), "a change could not be stored");
            return false;
        }
        let catalog = Arc::new(catalog);
        self.current.store(catalog.clone());
        let published = catch_unwind(AssertUnwindSafe(|| (self.publish)(&catalog, edits)));
        if published.is_err() {
            tracing::error!("the configuration is stored, and putting it in effect panicked");
        }
        published.is_ok()
    }
}

/// A row that could not be used, and why.
pub type Unusable = (&'static EntitySchema, Uuid, String);

/// What of a group can be used: rows whose struct can be made and whose parents are there. The others are taken out, with what
/// refers to them. Parents come before children, and what goes, goes before that, children first.
fn usable(before: &Catalog, mut edits: Vec<Edit>) -> (Vec<Edit>, Vec<Unusable>) {
    let place = |edit: &Edit| ENTITIES.iter().position(|entity| entity.name == edit.entity().name).unwrap_or_default();
    edits.sort_by_key(|edit| match edit {
        Edit::Remove(..) => (0, ENTITIES.len() - place(edit)),
        Edit::Put(_) => (1, place(edit)),
    });
    let put: HashSet<_> = edits.iter().filter(|edit| matches!(edit, Edit::Put(_))).map(|edit| (edit.entity().name, edit.id())).collect();
    let gone: HashSet<_> = edits.iter().map(|edit| (edit.entity().name, edit.id())).filter(|key| !put.contains(key)).collect();
    let mut unusable = Vec::new();
    let mut bad = HashSet::new();
    for edit in &mut edits {
        let Edit::Put(row) = edit else { continue };
        let key = |(entity, id): &(&'static str, Uuid)| (*entity, *id);
        let there = |parent: &(&'static str, Uuid)| {
            let comes = put.contains(&key(parent)) && !bad.contains(&key(parent));
            comes || (!gone.contains(parent) && !put.contains(parent) && before.get(parent.0, &parent.1).is_some())
        };
        let reason = match row.parents().iter().find(|parent| !there(parent)) {
            Some((entity, id)) => format!("{entity} {id}, which it refers to, is not in effect"),
            None if !row.fits() => "it does not have the fields that it should have".to_owned(),
            None => continue,
        };
        bad.insert((row.schema.name, row.id));
        unusable.push((row.schema, row.id, reason));
        *edit = Edit::Remove(row.schema, row.id);
    }
    // What refers to a row that could be used before and cannot any more goes with it.
    let refused: Vec<_> = unusable.iter().map(|(entity, id, _)| (*entity, *id)).collect();
    for (entity, id) in refused {
        let stays = |key: &(&'static str, Uuid)| !put.contains(key) && !gone.contains(key) && bad.insert(*key);
        let below = below(before, entity, id, stays);
        edits.extend(below.iter().map(|(child, id, _)| Edit::Remove(child, *id)));
        unusable.extend(below);
    }
    edits.retain(|edit| match edit {
        Edit::Put(row) => !stands(before, row),
        Edit::Remove(entity, id) => before.get(entity.name, id).is_some(),
    });
    (edits, unusable)
}

/// Whether the row is in effect as it is: the cluster may have it from this node.
fn stands(before: &Catalog, row: &Row) -> bool {
    before.kept(row.schema.name, &row.id).is_some_and(|there| there.says_the_same(row))
}

/// The rows that refer to a row, or to one of those, as far as `stays` says of each that it would be left.
fn below(before: &Catalog, entity: &'static EntitySchema, id: Uuid, mut stays: impl FnMut(&(&'static str, Uuid)) -> bool) -> Vec<Unusable> {
    let mut found = Vec::new();
    let mut seen = HashSet::from_iter([(entity.name, id)]);
    let mut open = vec![(entity, id)];
    while let Some((parent, id)) = open.pop() {
        for child in before.referring_to(parent, id) {
            let key = (child.schema.name, child.id);
            if seen.insert(key) && stays(&key) {
                found.push((child.schema, child.id, format!("{} {id}, which it refers to, is not in effect", parent.name)));
                open.push((child.schema, child.id));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
