//! The configuration of a node of a cluster. The catalog's actor still is the only writer of what is in effect; what it puts in
//! effect is decided by the cluster, of which this node's writes are a part.
//!
//! | module | what it holds |
//! |---|---|
//! | [`records`] | rows as records of the cluster, and back |
//! | [`commands`] | commands to all nodes as records, and how a node obeys them |
//! | [`disk`] | what the cluster asks of the node |
//! | [`quota`] | limits that the nodes share |
//! | [`orphans`] | marks of targets that are gone |
//! | [`write`] | changes of the Admin API as writes to the cluster |
//! | [`tell`] | commands of the Admin API as writes to the cluster |
//! | [`adopt`] | the rows that a node had before it was one of a cluster |

mod adopt;
#[cfg(test)]
mod bodies_tests;
mod commands;
mod disk;
mod orphans;
mod quota;
mod records;
mod tell;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cluster::engine::{Concern, Draft, MEMBER, Standing};
use cluster::id::{Key, NodeId};
use cluster::{Config, Ended, Handle, Overview, StartError, Token, WriteError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::catalog::Configuration;
use crate::catalog::{Catalog, row};
use crate::store::{Embedded, StoreError};
pub use commands::{Commands, is_command};
pub use quota::{LimitStats, SharedLimits};
pub use write::{Receipt, Wish};

/// How often the overview that metrics are made of is brought up to date.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long what is only shown beside an answer is waited for.
const ASIDE: Duration = Duration::from_millis(250);
/// How long a node waits for each live node before it that could look for them. Milliseconds.
const TURN: u64 = 30_000;
/// How long rows are left after their time, so that another node's edit in the last moment is known. Milliseconds.
const GRACE: u64 = 1_000;
/// Rows that are deleted with one write.
const PORTION: usize = 1_000;

/// A node of a cluster, as the rest of the program sees it.
pub struct Replication {
    handle: Handle,
    configuration: Configuration,
    overview: ArcSwapOption<Overview>,
    commands: Arc<Commands>,
    /// Whether rows are still being brought into the cluster: a change of one of them would be lost.
    adopting: AtomicBool,
    limits: Arc<SharedLimits>,
}

impl Replication {
    /// Joins the cluster. When this returns, what the node has kept is in effect. Needs a runtime that goes on as long as the node.
    pub async fn start(
        config: Config,
        store: Arc<Embedded>,
        configuration: Configuration,
        commands: Commands,
    ) -> Result<Arc<Self>, StartError> {
        let commands = Arc::new(commands);
        let (begun, mut has_begun) = watch::channel(false);
        let clustered = store.is_clustered().map_err(|error| StartError::Load(error.to_string()))?;
        let disk = disk::Disk { store: Arc::clone(&store), configuration: configuration.clone(), commands: Arc::clone(&commands), begun };
        let handle = cluster::start(config, Arc::new(disk)).await?;
        if has_begun.wait_for(|begun| *begun).await.is_err() {
            return Err(StartError::Load("the cluster has ended".to_owned()));
        }
        let rows = configuration.catalog();
        let adopting = AtomicBool::new(!clustered && !rows.is_empty());
        let limits = Arc::new(SharedLimits::new(handle.leases().clone()));
        let replication = Arc::new(Self { handle, configuration, overview: ArcSwapOption::empty(), commands, adopting, limits });
        if !clustered {
            let replication = Arc::clone(&replication);
            tokio::spawn(async move { replication.adopt(&rows, store).await });
        }
        tokio::spawn(Arc::clone(&replication).look());
        tokio::spawn(Arc::clone(&replication).sweep());
        Ok(replication)
    }

    pub fn node(&self) -> NodeId {
        self.handle.node()
    }

    /// Whether the node has what its peers have.
    pub fn is_ready(&self) -> bool {
        self.handle.is_ready()
    }

    /// How the cluster stands.
    pub async fn status(&self) -> Result<Overview, Ended> {
        self.handle.status().await
    }

    /// How it stood about a second ago.
    pub fn overview(&self) -> Option<Arc<Overview>> {
        self.overview.load_full()
    }

    /// Limits that the nodes share.
    pub fn limits(&self) -> &Arc<SharedLimits> {
        &self.limits
    }

    /// The way to what the cluster itself can do.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The name of a member that is not there.
    pub async fn name_of(&self, node: NodeId) -> Option<String> {
        let record = self.handle.record(Key::new(MEMBER, node.to_string())).await.ok()??;
        Some(String::from_utf8_lossy(record.body.as_deref()?).into_owned())
    }

    /// Waits until a write that was answered by another node is in effect here; false when the time is over before.
    pub async fn wait_for(&self, token: Token, at_most: Duration) -> bool {
        timeout(at_most, self.handle.wait_for(token.key, token.version)).await.is_ok_and(|waited| waited.is_ok())
    }

    pub async fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.handle.stop().await;
    }

    async fn look(self: Arc<Self>) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.handle.status().await {
                Ok(overview) => self.overview.store(Some(Arc::new(overview))),
                Err(Ended) => {
                    // What was last known is not shown as if it were so now.
                    self.overview.store(None);
                    return tracing::warn!("the node takes no more part in the cluster");
                }
            }
            self.commands.try_again();
        }
    }

    /// Takes out what is over: windows of limits; and rows, and marks without a target, which the live node with the smallest id
    /// deletes for all of them; the others do when it does not.
    async fn sweep(self: Arc<Self>) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recalled = false;
        loop {
            tick.tick().await;
            self.limits.sweep();
            let Ok(overview) = self.handle.status().await else { return };
            let before = overview.alive.keys().filter(|node| **node < self.node()).count() as u64;
            let until = row::now().saturating_sub(GRACE + before * TURN);
            self.sweep_rows(until).await;
            if self.is_ready() {
                let orphans = async {
                    if !std::mem::replace(&mut recalled, true) {
                        self.recall_orphans().await?;
                    }
                    self.sweep_orphans(until).await
                };
                if orphans.await.is_err() {
                    return;
                }
            }
        }
    }

    /// Deletes rows whose time was over then.
    async fn sweep_rows(&self, until: u64) {
        let catalog = self.configuration.catalog();
        let mut gone: Vec<Draft> = Vec::new();
        for (entity, id) in catalog.ended(until).into_iter().take(PORTION) {
            let mut draft = records::deletion(records::key(entity, id));
            // One that was given more time meanwhile is left.
            if let Ok(version) = self.version(&draft.key, catalog.kept(entity.name, &id)).await {
                draft.expect = Some(version);
                gone.push(draft);
            }
        }
        self.delete(gone, "rows whose time is over").await;
    }

    /// Deletes what is over, or leaves it to the next turn.
    async fn delete(&self, gone: Vec<Draft>, what: &str) {
        if !gone.is_empty()
            && let Err(error) = self.handle.write(gone, Concern::None, Duration::ZERO).await
        {
            tracing::warn!(%error, "{what} are not deleted yet");
        }
    }

    /// How a record stands on this node, and why; nothing when the cluster has no time to tell.
    pub async fn standing(&self, key: Key) -> Option<Standing> {
        timeout(ASIDE, self.handle.standing(key)).await.ok()?.ok()
    }

    /// Takes a node that is gone for good out of the cluster, with what it has told the others.
    pub async fn forget(&self, node: NodeId) -> Result<(), WriteError> {
        self.handle.forget(node).await?;
        let key = Key::new(commands::PURGES, node.to_string());
        let draft = Draft { key, parents: Vec::new(), unique: Vec::new(), body: None, expect: None };
        if let Err(error) = self.handle.write(vec![draft], Concern::None, Duration::ZERO).await {
            tracing::warn!(%error, %node, "the purges of a node that was forgotten stay in the cluster");
        }
        Ok(())
    }
}

/// What a node begins with: what it had before it was one of a cluster, or nothing until the cluster says what is in effect.
pub fn first(store: &Embedded) -> Result<Catalog, StoreError> {
    if store.is_clustered()? { Ok(Catalog::default()) } else { super::catalog::load(store) }
}
