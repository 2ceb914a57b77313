//! Marks of targets that are gone. Whoever deletes a target deletes its marks with it; one that was set meanwhile on another node,
//! which had not heard of that, is left over. The live node with the smallest id deletes it for all of them, as it does with rows
//! whose time is over; the others do when it does not.

use cluster::Ended;
use cluster::engine::Draft;
use cluster::id::Key;
use uuid::Uuid;

use super::commands::MARKS;
use super::tell::marks_of;
use super::{PORTION, Replication, records};

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

    /// Deletes those whose target was deleted until then.
    pub(super) async fn sweep_orphans(&self, until: u64) -> Result<(), Ended> {
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
                gone.push(Draft { expect: Some(marks.version), ..records::deletion(marks.key.clone()) });
            }
        }
        self.delete(gone, "marks of targets that are gone").await;
        Ok(())
    }
}
