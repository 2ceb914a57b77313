//! Marks of targets that are gone. Whoever deletes a target deletes its marks with it; one that was set meanwhile on another node,
//! which had not heard of that, is left over. The live node with the smallest id deletes it for all of them, as it does with rows
//! whose time is over; the others do when it does not.

use std::time::Duration;

use cluster::Ended;
use cluster::engine::{Concern, Draft};
use cluster::id::Key;
use uuid::Uuid;

use super::commands::MARKS;
use super::tell::marks_of;
use super::{GRACE, PORTION, Replication, TURN};
use crate::catalog::row;

/// A target that is not even known to be deleted may be about to come for so long after its mark was set. Milliseconds.
const LATE: u64 = 3_600_000;

impl Replication {
    /// Finds those that were left over before the node started.
    pub(super) async fn recall_orphans(&self) -> Result<(), Ended> {
        let found = self.handle.conflicts().await?;
        let marks = found.iter().filter(|standing| &*standing.key.kind == MARKS && !standing.missing.is_empty());
        marks.filter_map(|standing| Uuid::try_parse(&standing.key.id).ok()).for_each(|target| self.commands.doubt(target));
        Ok(())
    }

    /// Deletes those whose target was deleted long enough ago, at the turn of this node: `before` live nodes come before it.
    pub(super) async fn sweep_orphans(&self, before: u64) -> Result<(), Ended> {
        let until = row::now().saturating_sub(GRACE + before * TURN);
        let mut gone = Vec::new();
        for target in self.commands.doubtful().into_iter().take(PORTION) {
            let Some(marks) = self.handle.record(marks_of(target)).await?.filter(|marks| marks.is_alive()) else {
                self.commands.trust(target);
                continue;
            };
            let over = match self.handle.record(Key::new("targets", target.to_string())).await? {
                Some(target) => !target.is_alive() && target.version.stamp.millis() <= until,
                None => marks.version.stamp.millis().saturating_add(LATE) <= until,
            };
            if over {
                let key = marks.key.clone();
                gone.push(Draft { key, parents: Vec::new(), unique: Vec::new(), body: None, expect: Some(marks.version) });
            }
        }
        if !gone.is_empty()
            && let Err(error) = self.handle.write(gone, Concern::None, Duration::ZERO).await
        {
            tracing::warn!(%error, "marks of targets that are gone are not deleted yet");
        }
        Ok(())
    }
}
