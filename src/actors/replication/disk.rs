//! What the cluster asks of the node: to keep records, and to put them in effect.

use std::sync::Arc;

use async_trait::async_trait;
use cluster::Storage;
use cluster::engine::{Commit, Kept, Meta};
use cluster::id::Key;
use cluster::record::Record;
use cluster::replica::{Change, Conflict};
use tokio::sync::watch;

use super::commands::{Commands, is_command};
use super::records;
use crate::actors::catalog::Configuration;
use crate::catalog::Edit;
use crate::store;
use crate::store::{Embedded, StoreError};

/// The store of the node and its configuration.
pub struct Disk {
    pub store: Arc<Embedded>,
    pub configuration: Configuration,
    pub commands: Arc<Commands>,
    /// Becomes true when what was kept is in effect.
    pub begun: watch::Sender<bool>,
}

fn name(key: &Key) -> store::Name<'_> {
    (&key.kind, &key.id)
}

impl store::Kept for Record {
    fn name(&self) -> store::Name<'_> {
        name(&self.key)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        self.encode_into(bytes);
    }
}

impl Disk {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Embedded) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, String> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Obeys commands, when the rows that came with them are in effect.
    async fn obey(&self, changes: Vec<Change>) -> Vec<(Key, String)> {
        let (commands, catalog) = (Arc::clone(&self.commands), self.configuration.catalog());
        let obey = move || {
            let refused = |change: Change| commands.obey(&change, &catalog).err().map(|reason| (change.key, reason));
            changes.into_iter().filter_map(refused).collect()
        };
        tokio::task::spawn_blocking(obey).await.unwrap_or_else(|error| {
            tracing::error!(%error, "commands of the cluster broke off");
            Vec::new()
        })
    }
}

#[async_trait]
impl Storage for Disk {
    async fn load(&self) -> Result<Kept, String> {
        let load = |store: &Embedded| {
            let mut records = Vec::new();
            let meta = store.load_records(|bytes| match Record::decode(bytes) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(%error, "a kept record is left out, this version cannot read it"),
            })?;
            Ok((records, meta))
        };
        let (records, meta) = self.blocking(load).await?;
        let meta = if meta.is_empty() { Meta::default() } else { Meta::decode(&meta).map_err(|error| error.to_string())? };
        Ok(Kept { records, meta })
    }

    async fn commit(&self, changes: Commit) -> Result<(), String> {
        self.blocking(move |store| store.commit_records(&changes.put, changes.removed.iter().map(name), &changes.meta.encode())).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Vec<(Key, String)> {
        let mut edits = Vec::with_capacity(changes.len());
        let mut rejected = Vec::new();
        let (commands, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| is_command(&change.key));
        for change in changes {
            let named = records::named(&change.key);
            let Some(record) = change.effective else {
                edits.extend(named.map(|(entity, id)| Edit::Remove(entity, id)));
                continue;
            };
            let prefix = format!("{}.", change.key.kind);
            let lost: Vec<&str> = change.lost.iter().filter_map(|(field, _)| field.strip_prefix(&prefix)).collect();
            match records::row(&record, &lost) {
                Ok(row) => edits.push(Edit::Put(Arc::new(row))),
                Err(reason) => {
                    edits.extend(named.map(|(entity, id)| Edit::Remove(entity, id)));
                    rejected.push((change.key, reason));
                }
            }
        }
        if !edits.is_empty() {
            let unusable = self.configuration.follow(edits).await;
            rejected.extend(unusable.into_iter().map(|(entity, id, reason)| (records::key(entity, id), reason)));
        }
        if !commands.is_empty() {
            rejected.extend(self.obey(commands).await);
        }
        self.begun.send_replace(true);
        rejected
    }

    async fn load_conflicts(&self) -> Result<Vec<(u64, Conflict)>, String> {
        let loaded = self.blocking(Embedded::load_conflicts).await?;
        let mut kept = Vec::with_capacity(loaded.len());
        for (number, bytes) in &loaded {
            match Conflict::decode(bytes) {
                Ok(conflict) => kept.push((*number, conflict)),
                Err(error) => tracing::warn!(%error, "an entry of the log of conflicts is left out, this version cannot read it"),
            }
        }
        Ok(kept)
    }

    async fn keep_conflicts(&self, news: Vec<(u64, Conflict)>, first: u64) -> Result<(), String> {
        self.blocking(move |store| {
            let news: Vec<_> = news.iter().map(|(number, conflict)| (*number, conflict.encode())).collect();
            store.keep_conflicts(&news, first)
        })
        .await
    }

    async fn next_generation(&self) -> Result<u64, String> {
        self.blocking(Embedded::next_generation).await
    }
}
