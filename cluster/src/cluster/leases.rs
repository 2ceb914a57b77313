//! The leases of a node for its requests: most are decided by an atomic, the rest by a question to the window's owner.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::id::NodeId;
use crate::lease::{Action, Decision, Grant, Leases, Message, Window};
use crate::mesh::{self, wall_millis};
use crate::wire;

/// See [`crate::lease`]. Clones are the same.
#[derive(Clone)]
pub struct LeaseHandle(Arc<Inner>);

struct Inner {
    leases: Mutex<Leases>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
    tickets: AtomicU64,
    mesh: mesh::Sender,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeaseHandle {
    pub(super) fn new(node: NodeId, mesh: mesh::Sender) -> Self {
        let leases = Mutex::new(Leases::new(node));
        Self(Arc::new(Inner { leases, waiting: Mutex::default(), tickets: AtomicU64::new(0), mesh }))
    }

    /// The grant of a window, to be kept by the caller for the window's time: `Grant::try_spend` decides most requests.
    pub fn grant(&self, window: &Window) -> Option<Arc<Grant>> {
        lock(&self.0.leases).grant(window)
    }

    /// To be called when `try_spend` says that the grant runs low.
    pub fn refill(&self, name: &str) {
        let actions = lock(&self.0.leases).refill(name, wall_millis());
        self.act(actions);
    }

    /// Decides a request, asking the owner when the node has nothing left. `Unavailable`: the owner did not answer within
    /// `patience`, or there are too many windows; what then is the caller's rule.
    pub async fn spend(&self, window: &Window, cost: u64, patience: Duration) -> Decision {
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        let (tell, decision) = oneshot::channel();
        lock(&self.0.waiting).insert(ticket, tell);
        let (outcome, actions) = lock(&self.0.leases).spend(ticket, window, cost, wall_millis());
        self.act(actions);
        let outcome = match outcome {
            Decision::Wait => match tokio::time::timeout(patience, decision).await {
                Ok(Ok(true)) => Decision::Allowed,
                Ok(Ok(false)) => Decision::Refused,
                Ok(Err(_)) | Err(_) => {
                    lock(&self.0.leases).give_up(&window.name, ticket);
                    Decision::Unavailable
                }
            },
            decided => decided,
        };
        lock(&self.0.waiting).remove(&ticket);
        outcome
    }

    pub(super) fn received(&self, from: NodeId, message: Message) {
        let actions = lock(&self.0.leases).received(from, message, wall_millis());
        self.act(actions);
    }

    pub(super) fn members(&self, live: BTreeSet<NodeId>, members: usize) {
        let actions = lock(&self.0.leases).members(live, members);
        self.act(actions);
    }

    pub(super) fn tick(&self) {
        let actions = lock(&self.0.leases).tick(wall_millis());
        self.act(actions);
    }

    fn act(&self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => self.0.mesh.message(to, &wire::Message::Lease(message)),
                Action::Decide { ticket, allowed } => {
                    let waiting = lock(&self.0.waiting).remove(&ticket);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(allowed);
                    }
                }
            }
        }
    }
}
