//! Commands of the Admin API to all nodes, as writes to the cluster.

use cluster::engine::{Draft, Refusal};
use cluster::id::Key;
use cluster::record::{Record, Version};
use cluster::{Ended, Token, WriteError as Failed};
use rand::RngExt;
use serde::Serialize;
use uuid::Uuid;

use super::commands::{self, MARKS, Marks, PURGES, Purges};
use super::{Receipt, Replication, Wish};
use crate::actors::upstreams::Which;
use crate::catalog::{WriteError, row};
use crate::plugin::cache;

/// How often a command is written anew when others of this node come before it.
const TRIES: u32 = 200;
/// Longest pause before that, in milliseconds.
const PAUSE: u64 = 10;

impl Replication {
    /// Makes all nodes forget an answer, or all answers.
    pub async fn purge(&self, key: Option<&cache::Key>, wish: Wish) -> Result<Receipt, WriteError> {
        let own = Key::new(PURGES, self.node().to_string());
        self.tell(own, None, wish, |record| {
            let purges: Purges = match record {
                // It is not known what was purged before: whoever has seen something of it forgets everything.
                Some(record) if !record.is_alive() => Purges::default().and(None, row::now()),
                record => commands::body(record)?,
            };
            Ok(purges.and(key, row::now()))
        })
        .await
    }

    /// Sets the health of a target, or of one of its addresses, on all nodes.
    pub async fn mark(&self, which: &Which, healthy: bool, wish: Wish) -> Result<Receipt, WriteError> {
        let parent = Key::new("targets", which.target.to_string());
        self.tell(marks_of(which.target), Some(parent), wish, |record| {
            let marks: Marks = commands::body(record)?;
            Ok(marks.and(which, healthy, row::now()))
        })
        .await
    }

    /// Writes a command's record, made of the one that is there.
    async fn tell<T: Serialize>(
        &self,
        key: Key,
        parent: Option<Key>,
        wish: Wish,
        next: impl Fn(Option<&Record>) -> Result<T, String>,
    ) -> Result<Receipt, WriteError> {
        for _ in 0..TRIES {
            let ended = |Ended| WriteError::unavailable(Ended);
            let record = self.handle.record(key.clone()).await.map_err(ended)?;
            let body = next(record.as_ref()).map_err(WriteError::unavailable)?;
            let body = serde_json::to_vec(&body).map_err(WriteError::unavailable)?;
            let draft = Draft {
                key: key.clone(),
                parents: parent.iter().cloned().collect(),
                unique: Vec::new(),
                body: Some(body.into()),
                expect: Some(record.map_or(Version::NONE, |record| record.version)),
            };
            match self.handle.write(vec![draft], wish.concern, wish.timeout).await {
                Ok(done) => {
                    let token = done.versions.into_iter().next().map(|(key, version)| Token { key, version });
                    return Ok(Receipt { applied: done.applied, of: done.of, unasked: done.unasked, token });
                }
                Err(Failed::Refused(Refusal::Changed(_))) => {
                    let pause = rand::rng().random_range(1..=PAUSE);
                    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                }
                Err(error) => return Err(WriteError::unavailable(error)),
            }
        }
        Err(WriteError::unavailable("others change the same at the moment"))
    }
}

/// The record of a target's marks.
pub fn marks_of(target: Uuid) -> Key {
    Key::new(MARKS, target.to_string())
}
