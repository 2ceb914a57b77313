//! The rows that a node had before it was one of a cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::engine::{Concern, Draft, Refusal};
use cluster::record::Version;
use cluster::{Ended, WriteError};

use super::{PORTION, Replication, records};
use crate::catalog::{Catalog, Row};
use crate::model::ENTITIES;
use crate::store::Embedded;

/// Pause before a write is tried again that the cluster does not take at the moment.
const PAUSE: Duration = Duration::from_secs(1);

impl Replication {
    /// Brings the rows that the node had before it was one of a cluster into the cluster, once it is ready. Then the cluster alone
    /// says what is in effect.
    pub(super) async fn adopt(&self, rows: &Catalog, store: Arc<Embedded>) {
        if self.handle.ready().await.is_err() {
            return;
        }
        let all: Vec<_> = ENTITIES.iter().flat_map(|entity| rows.rows(entity.name)).collect();
        for portion in all.chunks(PORTION) {
            if self.bring(portion).await.is_err() {
                return;
            }
        }
        // What the cluster had already, or does not take, is not in effect as the node had it.
        let keys = all.iter().map(|row| records::key(row.schema, row.id)).collect();
        if self.handle.look_again(keys).await.is_err() {
            return;
        }
        let become_clustered = move || store.become_clustered();
        match tokio::task::spawn_blocking(become_clustered).await {
            Ok(Ok(())) => tracing::info!(rows = all.len(), "the node keeps its configuration with the cluster"),
            Ok(Err(error)) => tracing::error!(%error, "it cannot be kept that rows are in the cluster; the next start looks again"),
            Err(error) => tracing::error!(%error, "it cannot be kept that rows are in the cluster; the next start looks again"),
        }
        self.adopting.store(false, Ordering::Release);
    }

    async fn bring(&self, portion: &[&Arc<Row>]) -> Result<(), Ended> {
        let mut new = Vec::with_capacity(portion.len());
        for row in portion {
            if self.handle.record(records::key(row.schema, row.id)).await?.is_none() {
                new.push(Draft { expect: Some(Version::NONE), ..records::draft(row) });
            }
        }
        if new.is_empty() || self.insist(&new).await?.is_ok() {
            return Ok(());
        }
        // One of them is in the way of the others.
        for draft in new {
            let key = draft.key.clone();
            if let Err(error) = self.insist(&[draft]).await? {
                tracing::warn!(%key, %error, "a row that this node had cannot be brought into the cluster");
            }
        }
        Ok(())
    }

    /// Writes until it is done or refused for good.
    async fn insist(&self, drafts: &[Draft]) -> Result<Result<(), WriteError>, Ended> {
        let mut told = false;
        loop {
            match self.handle.write(drafts.to_vec(), Concern::None, Duration::ZERO).await {
                Ok(_) => return Ok(Ok(())),
                Err(WriteError::Ended(ended)) => return Err(ended),
                Err(
                    error @ (WriteError::Taken { .. }
                    | WriteError::Refused(Refusal::Invalid(_) | Refusal::TooLarge { .. } | Refusal::Changed(_))),
                ) => {
                    return Ok(Err(error));
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "rows that this node had are not in the cluster yet");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
