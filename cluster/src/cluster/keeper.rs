//! Keeps the log of conflicts, beside the commits of records: it changes seldom, and nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Storage;
use crate::replica::{Conflict, Conflicts};

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    storage: Arc<dyn Storage>,
    /// The number of the newest conflict that is kept.
    kept: u64,
    /// What is on its way, and the number that is kept with it.
    keeping: Option<(JoinHandle<Result<(), String>>, u64)>,
    /// Not before then.
    next: Instant,
}

impl Keeper {
    /// Of a log that is kept as it is.
    pub fn new(storage: Arc<dyn Storage>, log: &Conflicts) -> Self {
        Self { storage, kept: log.last(), keeping: None, next: Instant::now() }
    }

    /// Goes on with it; whether there is nothing more to do at the moment.
    pub async fn go_on(&mut self, log: &Conflicts) -> bool {
        if let Some((keeping, last)) = self.keeping.take_if(|(keeping, _)| keeping.is_finished()) {
            match keeping.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(()) => self.kept = last,
                Err(reason) => {
                    tracing::debug!(reason, "the log of conflicts cannot be kept yet");
                    self.next = Instant::now() + AGAIN;
                }
            }
        }
        if self.keeping.is_none() && self.kept < log.last() && self.next <= Instant::now() {
            let news: Vec<(u64, Conflict)> = log.since(self.kept).map(|(number, conflict)| (number, conflict.clone())).collect();
            let (storage, first) = (Arc::clone(&self.storage), log.first());
            let keeping = tokio::spawn(async move { storage.keep_conflicts(news, first).await });
            self.keeping = Some((keeping, log.last()));
        }
        self.keeping.is_none()
    }
}
