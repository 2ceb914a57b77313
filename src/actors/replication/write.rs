//! A change of the Admin API as a write to the cluster: planned against what is in effect here, refused as Kong would refuse it,
//! and written only if nothing that it was planned on has changed meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::engine::{Concern, Draft, Refusal};
use cluster::id::Key;
use cluster::record::Version;
use cluster::{Ended, Token, WriteError as Failed};
use schema::{Object, Value};

use super::{Replication, records, tell};
use crate::catalog::{Catalog, Change, Edit, Plan, Row, WriteError, Written};

/// How often a change is planned anew before it is given up, when others change the same all the time.
const TRIES: u32 = 20;
/// Pause before it is planned anew.
const PAUSE: Duration = Duration::from_millis(5);

/// How many nodes a writer wants to have the change in effect before it is answered, and for how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub concern: Concern,
    pub timeout: Duration,
}

impl Default for Wish {
    fn default() -> Self {
        Self { concern: Concern::Majority, timeout: Duration::from_millis(500) }
    }
}

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Nodes that have it in effect, this one included, of those that are live.
    pub applied: usize,
    pub of: usize,
    /// Live nodes that did not say in time whether new unique values are free.
    pub unasked: usize,
    /// To be shown to another node that is to have the write.
    pub token: Option<Token>,
}

/// What a plan was made on is not there any more.
pub(super) enum Unsteady {
    Refused(WriteError),
    Changed,
}

impl Replication {
    /// Makes a change. When the answer comes the change is durable and in effect here; the receipt says where else. A change of
    /// nothing has no receipt.
    pub async fn write(&self, change: Change, wish: Wish) -> Result<(Written, Option<Receipt>), WriteError> {
        if self.adopting.load(Ordering::Acquire) {
            return Err(WriteError::unavailable("the node is bringing the rows that it had into the cluster"));
        }
        for _ in 0..TRIES {
            match self.attempt(change.clone(), wish).await {
                Ok(done) => return Ok(done),
                Err(Unsteady::Refused(error)) => return Err(error),
                Err(Unsteady::Changed) => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(WriteError::unavailable("others change the same at the moment"))
    }

    async fn attempt(&self, change: Change, wish: Wish) -> Result<(Written, Option<Receipt>), Unsteady> {
        let catalog = self.configuration.catalog();
        let plan = self.plan(Arc::clone(&catalog), change).await.map_err(Unsteady::Refused)?;
        if plan.edits.is_empty() {
            return Ok((plan.written(), None));
        }
        let drafts = self.drafts(&catalog, &plan).await?;
        match self.handle.write(drafts, wish.concern, wish.timeout).await {
            Ok(done) => {
                let token = done.versions.into_iter().max_by_key(|(_, version)| version.stamp).map(|(key, version)| Token { key, version });
                let receipt = Receipt { applied: done.applied, of: done.of, unasked: done.unasked, token };
                Ok((plan.written(), Some(receipt)))
            }
            Err(Failed::Refused(Refusal::Changed(_))) => Err(Unsteady::Changed),
            Err(Failed::Taken { key, field, value }) => Err(Unsteady::Refused(taken(&plan, &key, &field, &value))),
            // The disk is full, as a rule, which the cluster has logged: the writer can go to another node.
            Err(Failed::Refused(Refusal::Storage(_))) => {
                Err(Unsteady::Refused(WriteError::unavailable("the node cannot write to its disk, its log says why")))
            }
            Err(Failed::Refused(refusal @ Refusal::TooLarge { .. })) => Err(Unsteady::Refused(WriteError::too_large(refusal))),
            Err(error @ Failed::Refused(Refusal::Invalid(_))) => {
                tracing::error!(%error, "a change could not be made");
                Err(Unsteady::Refused(WriteError::database()))
            }
            Err(error) => Err(Unsteady::Refused(WriteError::unavailable(error))),
        }
    }

    async fn plan(&self, catalog: Arc<Catalog>, change: Change) -> Result<Plan, WriteError> {
        let schemas = self.configuration.schemas().clone();
        let planned = tokio::task::spawn_blocking(move || catalog.plan(change, &schemas.context())).await;
        planned.unwrap_or_else(|error| {
            tracing::error!(%error, "planning a change broke off");
            Err(WriteError::database())
        })
    }

    /// The edits of a plan, the last of each row, each with the version that the plan was made on, and with deletions of what
    /// is in their way and not in effect any more.
    async fn drafts(&self, catalog: &Catalog, plan: &Plan) -> Result<Vec<Draft>, Unsteady> {
        let mut drafts: Vec<Draft> = Vec::with_capacity(plan.edits.len());
        let mut seen = ahash::HashSet::default();
        for edit in plan.edits.iter().rev().filter(|edit| seen.insert((edit.entity().name, edit.id()))) {
            let mut draft = match edit {
                Edit::Put(row) => records::draft(row),
                Edit::Remove(entity, id) => records::deletion(records::key(entity, *id)),
            };
            draft.expect = Some(self.version(&draft.key, catalog.kept(edit.entity().name, &edit.id())).await?);
            drafts.push(draft);
        }
        drafts.reverse();
        let mut gone = Vec::new();
        for edit in &plan.edits {
            match edit {
                // Rows whose time is over give up their unique values when another row is to have them.
                Edit::Put(row) => {
                    for holder in catalog.expired_holders(row) {
                        if seen.insert((holder.schema.name, holder.id)) {
                            let mut draft = records::deletion(records::key(holder.schema, holder.id));
                            draft.expect = Some(self.version(&draft.key, Some(&holder)).await?);
                            gone.push(draft);
                        }
                    }
                }
                // What was set by hand for a target goes with it.
                Edit::Remove(entity, id) if entity.name == "targets" => {
                    let key = tell::marks_of(*id);
                    if self.handle.record(key.clone()).await.map_err(ended)?.is_some_and(|record| record.is_alive()) {
                        gone.push(Draft { key, parents: Vec::new(), unique: Vec::new(), body: None, expect: None });
                    }
                }
                Edit::Remove(..) => {}
            }
        }
        gone.extend(drafts);
        Ok(gone)
    }

    /// The version of a record that a row was made of, or that of a record without a row.
    pub(super) async fn version(&self, key: &Key, present: Option<&Arc<Row>>) -> Result<Version, Unsteady> {
        let record = self.handle.record(key.clone()).await.map_err(ended)?;
        match (present, &record) {
            (Some(present), Some(record)) if !records::is_of(present, record) => return Err(Unsteady::Changed),
            (None, Some(record)) if record.is_alive() => {
                let standing = self.handle.standing(key.clone()).await.map_err(ended)?;
                if standing.effective && !standing.quarantined && standing.unusable.is_none() {
                    // It has just come and is about to have a row.
                    return Err(Unsteady::Changed);
                }
            }
            _ => {}
        }
        Ok(record.map_or(Version::NONE, |record| record.version))
    }
}

fn ended(ended: Ended) -> Unsteady {
    Unsteady::Refused(WriteError::unavailable(ended))
}

/// Kong's refusal of a value that another entity has.
fn taken(plan: &Plan, key: &Key, field: &str, value: &str) -> WriteError {
    let row = plan.edits.iter().rev().find_map(|edit| match edit {
        Edit::Put(row) if records::key(row.schema, row.id) == *key => Some(row),
        _ => None,
    });
    let field = field.strip_prefix(&*key.kind).and_then(|rest| rest.strip_prefix('.')).unwrap_or(field);
    let Some(row) = row else { return WriteError::unique_violation(Object::from_iter([(field.to_owned(), value.into())])) };
    let body = row.object();
    let fields = if field == "cache_key" { row.schema.cache_key } else { &[field][..] };
    let shown = fields.iter().map(|name| ((*name).to_owned(), body.get(*name).cloned().unwrap_or(Value::Null)));
    WriteError::unique_violation(shown.collect())
}
