//! The configuration of a node of a cluster. The catalog's actor still is the only writer of what is in effect; what it puts in
//! effect is decided by the cluster, of which this node's writes are a part.
//!
//! | module | what it holds |
//! |---|---|
//! | [`records`] | rows as records of the cluster, and back |
//! | [`disk`] | what the cluster asks of the node |
//! | [`quota`] | limits that the nodes share |
//! | [`write`] | changes of the Admin API as writes to the cluster |

mod disk;
mod quota;
mod records;
mod write;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cluster::engine::{Concern, MEMBER};
use cluster::id::{Key, NodeId};
use cluster::{Config, Ended, Handle, Overview, StartError, Token};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::catalog::Configuration;
use crate::catalog::{Catalog, row};
use crate::model::ENTITIES;
use crate::store::{Embedded, StoreError};
pub use quota::{LimitStats, SharedLimits};
pub use write::{Receipt, Wish};

/// How often the overview that metrics are made of is brought up to date.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Rows that are brought into the cluster with one write.
const PORTION: usize = 1_000;

/// A node of a cluster, as the rest of the program sees it.
pub struct Replication {
    handle: Handle,
    configuration: Configuration,
    overview: ArcSwapOption<Overview>,
    limits: Arc<SharedLimits>,
}

impl Replication {
    /// Joins the cluster. When this returns, what the node has kept is in effect. Needs a runtime that goes on as long as the node.
    pub async fn start(config: Config, store: Arc<Embedded>, configuration: Configuration) -> Result<Arc<Self>, StartError> {
        let (begun, mut has_begun) = watch::channel(false);
        let clustered = store.is_clustered().map_err(|error| StartError::Load(error.to_string()))?;
        let disk = disk::Disk { store: Arc::clone(&store), configuration: configuration.clone(), begun };
        let handle = cluster::start(config, Arc::new(disk)).await?;
        if has_begun.wait_for(|begun| *begun).await.is_err() {
            return Err(StartError::Load("the cluster has ended".to_owned()));
        }
        let limits = Arc::new(SharedLimits::new(handle.leases().clone()));
        let replication = Arc::new(Self { handle, configuration, overview: ArcSwapOption::empty(), limits });
        if !clustered {
            let (replication, rows) = (Arc::clone(&replication), replication.configuration.catalog());
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
            let Ok(overview) = self.handle.status().await else { return };
            self.overview.store(Some(Arc::new(overview)));
        }
    }

    /// Takes out what is over: windows of limits, and rows, which the live node with the smallest id deletes for all.
    async fn sweep(self: Arc<Self>) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.limits.sweep();
            let catalog = self.configuration.catalog();
            if catalog.next_end().is_none_or(|end| end > row::now()) {
                continue;
            }
            let Ok(overview) = self.handle.status().await else { return };
            if overview.alive.keys().any(|node| *node < self.node()) {
                continue;
            }
            let gone = catalog.ended(row::now()).into_iter().take(PORTION).map(|(entity, id)| records::deletion(entity, id));
            if let Err(error) = self.handle.write(gone.collect(), Concern::None, Duration::ZERO).await {
                tracing::warn!(%error, "rows whose time is over are not deleted yet");
            }
        }
    }

    /// Brings the rows that the node had before it was one of a cluster into the cluster, once it is ready.
    async fn adopt(&self, rows: &Catalog, store: Arc<Embedded>) {
        if self.handle.ready().await.is_err() {
            return;
        }
        let all: Vec<_> = ENTITIES.iter().flat_map(|entity| rows.rows(entity.name)).collect();
        for portion in all.chunks(PORTION) {
            let mut new = Vec::with_capacity(portion.len());
            for row in portion {
                match self.handle.record(records::key(row.schema, row.id)).await {
                    Ok(None) => new.push(records::draft(row)),
                    Ok(Some(_)) => {}
                    Err(Ended) => return,
                }
            }
            if new.is_empty() || self.handle.write(new.clone(), Concern::None, Duration::ZERO).await.is_ok() {
                continue;
            }
            // One of them is in the way of the others.
            for draft in new {
                let key = draft.key.clone();
                if let Err(error) = self.handle.write(vec![draft], Concern::None, Duration::ZERO).await {
                    tracing::warn!(%key, %error, "a row that this node had cannot be brought into the cluster");
                }
            }
        }
        let become_clustered = move || store.become_clustered();
        match tokio::task::spawn_blocking(become_clustered).await {
            Ok(Ok(())) => tracing::info!(rows = all.len(), "the node keeps its configuration with the cluster"),
            Ok(Err(error)) => tracing::error!(%error, "it cannot be kept that rows are in the cluster; the next start looks again"),
            Err(error) => tracing::error!(%error, "it cannot be kept that rows are in the cluster; the next start looks again"),
        }
    }
}

/// What a node begins with: what it had before it was one of a cluster, or nothing until the cluster says what is in effect.
pub fn first(store: &Embedded) -> Result<Catalog, StoreError> {
    if store.is_clustered()? { Ok(Catalog::default()) } else { super::catalog::load(store) }
}
