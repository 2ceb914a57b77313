//! The rows that a node had before it was one of a cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::engine::{Concern, Draft, Refusal};
use cluster::record::Version;
use cluster::{Ended, WriteError};

use super::{Replication, records};
use crate::catalog::Catalog;
use crate::model::ENTITIES;
use crate::store::Embedded;

/// The most rows that are brought with one write, each of which costs a commit.
const ROWS: usize = 4_096;
/// The most unique values of such a write. The cluster asks for those of a write with one question.
const VALUES: usize = 8_192;
/// The most bytes of such a write, unless one row has more.
const BYTES: usize = 4 * 1024 * 1024;
/// Pause before a write is tried again that the cluster does not take at the moment.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows for one write.
#[derive(Default)]
struct Portion {
    drafts: Vec<Draft>,
    values: usize,
    bytes: usize,
}

impl Portion {
    fn fits(&self, draft: &Draft) -> bool {
        let bytes = draft.body.as_ref().map_or(0, |body| body.len());
        let small = self.drafts.len() < ROWS && self.values + draft.unique.len() <= VALUES && self.bytes + bytes <= BYTES;
        self.drafts.is_empty() || small
    }

    fn add(&mut self, draft: Draft) {
        self.values += draft.unique.len();
        self.bytes += draft.body.as_ref().map_or(0, |body| body.len());
        self.drafts.push(draft);
    }
}

impl Replication {
    /// Brings the rows that the node had before it was one of a cluster into the cluster, once it is ready. Then the cluster alone
    /// says what is in effect.
    pub(super) async fn adopt(&self, rows: &Catalog, store: Arc<Embedded>) {
        if self.handle.ready().await.is_err() {
            return;
        }
        let all: Vec<_> = ENTITIES.iter().flat_map(|entity| rows.rows(entity.name)).collect();
        let mut portion = Portion::default();
        for row in &all {
            let draft = records::draft(row);
            if !portion.fits(&draft) && self.bring(std::mem::take(&mut portion)).await.is_err() {
                return;
            }
            portion.add(draft);
        }
        if self.bring(portion).await.is_err() {
            return;
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

    async fn bring(&self, portion: Portion) -> Result<(), Ended> {
        let keys = portion.drafts.iter().map(|draft| draft.key.clone()).collect();
        let there = self.handle.records(keys).await?;
        let new = portion.drafts.into_iter().zip(there).filter(|(_, there)| there.is_none());
        let new: Vec<Draft> = new.map(|(draft, _)| Draft { expect: Some(Version::NONE), ..draft }).collect();
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
