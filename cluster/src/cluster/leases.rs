//! The leases of a node for its requests: most are decided by an atomic, the rest by a question to the window's owner.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::id::NodeId;
use crate::lease::{Action, Decision, Grant, Leases, Message, Name, Stats, Window};
use crate::mesh::wall_millis;

/// See [`crate::lease`]. Clones are the same.
#[derive(Clone)]
pub struct LeaseHandle(Arc<Inner>);

/// How messages go to other nodes. They may be lost.
type Post = Box<dyn Fn(NodeId, Message) + Send + Sync>;

struct Inner {
    leases: Mutex<Leases>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
    tickets: AtomicU64,
    post: Post,
    waited: AtomicU64,
    unanswered: AtomicU64,
}

/// How limits across nodes go, on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseStats {
    pub leases: Stats,
    /// Windows that the node spends from, and that it keeps the books of.
    pub held: usize,
    pub owned: usize,
    /// Requests that waited for an owner.
    pub waited: u64,
    /// Requests that waited in vain.
    pub unanswered: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeaseHandle {
    /// Of a node that is alone until it is told otherwise.
    pub fn new(node: NodeId, post: impl Fn(NodeId, Message) + Send + Sync + 'static) -> Self {
        let leases = Mutex::new(Leases::new(node, rand::random(), wall_millis()));
        let [tickets, waited, unanswered] = Default::default();
        Self(Arc::new(Inner { leases, waiting: Mutex::default(), tickets, post: Box::new(post), waited, unanswered }))
    }

    /// The grant of a window, to be kept by the caller for the window's time: `Grant::try_spend` decides most requests. `None`:
    /// there are too many windows in use.
    pub fn grant(&self, window: &Window) -> Option<Arc<Grant>> {
        lock(&self.0.leases).grant(window, wall_millis())
    }

    /// To be called when `try_spend` says so.
    pub fn refill(&self, name: Name) {
        self.0.act(|leases, now| leases.refill(name, now));
    }

    /// Counts what was spent already, whether or not there was as much; less than nothing gives back.
    pub fn charge(&self, window: &Window, cost: i64) {
        self.0.act(|leases, now| leases.charge(window, cost, now));
    }

    /// Decides a request, asking the owner when the node has nothing left. `Unanswered`: not within `patience`.
    pub async fn spend(&self, window: &Window, cost: u64, patience: Duration) -> Decision {
        self.decide(window, cost, false, patience).await
    }

    /// Makes sure that the node has so much to spend; nothing is spent.
    pub async fn ensure(&self, window: &Window, amount: u64, patience: Duration) -> Decision {
        self.decide(window, amount, true, patience).await
    }

    async fn decide(&self, window: &Window, cost: u64, keep: bool, patience: Duration) -> Decision {
        let (tell, told) = oneshot::channel();
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.waiting).insert(ticket, tell);
        let pending = Pending { inner: &self.0, name: window.name, ticket };
        let mut decision = Decision::Wait;
        self.0.act(|leases, now| {
            let (decided, actions) = leases.spend(ticket, window, cost, keep, now);
            decision = decided;
            actions
        });
        if decision == Decision::Wait {
            self.0.waited.fetch_add(1, Ordering::Relaxed);
            decision = match tokio::time::timeout(patience, told).await {
                Ok(Ok(true)) => Decision::Allowed,
                Ok(Ok(false)) => Decision::Refused,
                Ok(Err(_)) | Err(_) => Decision::Unanswered,
            };
        }
        if decision == Decision::Unanswered {
            self.0.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        drop(pending);
        decision
    }

    /// A message of a node.
    pub fn received(&self, from: NodeId, message: Message) {
        self.0.act(|leases, now| leases.received(from, message, now));
    }

    /// When this node became a member of the cluster, in milliseconds since 1970.
    pub fn joined(&self, at: u64) {
        lock(&self.0.leases).joined(at);
    }

    /// The node ends: what it has not spent goes back. Nothing is given or spent from now on.
    pub fn leave(&self) {
        self.0.act(Leases::leave);
    }

    /// Whether all that was handed back has arrived.
    pub fn has_left(&self) -> bool {
        lock(&self.0.leases).has_left()
    }

    /// Who is there, and who belongs to the cluster.
    pub fn members(&self, live: BTreeSet<NodeId>, members: BTreeSet<NodeId>) {
        self.0.act(|leases, now| leases.members(live, members, now));
    }

    /// To be called every 20 ms or so.
    pub fn tick(&self) {
        self.0.act(Leases::tick);
    }

    /// Live nodes, this one included.
    pub fn nodes(&self) -> usize {
        lock(&self.0.leases).nodes()
    }

    pub fn stats(&self) -> LeaseStats {
        let leases = lock(&self.0.leases);
        let (held, owned) = leases.windows();
        let [waited, unanswered] = [&self.0.waited, &self.0.unanswered].map(|counter| counter.load(Ordering::Relaxed));
        LeaseStats { leases: leases.stats(), held, owned, waited, unanswered }
    }
}

impl Inner {
    /// Does something with the leases, and what that leads to.
    fn act(&self, act: impl FnOnce(&mut Leases, u64) -> Vec<Action>) {
        let actions = act(&mut lock(&self.leases), wall_millis());
        for action in actions {
            match action {
                Action::Send { to, message } => (self.post)(to, message),
                Action::Decide { ticket, name, spent, allowed } => {
                    let waiting = lock(&self.waiting).remove(&ticket);
                    let taken = waiting.is_some_and(|waiting| waiting.send(allowed).is_ok());
                    if !taken && spent > 0 {
                        lock(&self.leases).give_back(name, spent);
                    }
                }
            }
        }
    }
}

/// A request that may wait. When it is dropped, nobody waits any more.
struct Pending<'a> {
    inner: &'a Inner,
    name: Name,
    ticket: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Gone when it was decided.
        if lock(&self.inner.waiting).remove(&self.ticket).is_some() {
            lock(&self.inner.leases).give_up(self.name, self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Given;

    /// A node with a peer, which owns every second window, and what the node has sent.
    fn pair() -> (LeaseHandle, Arc<Mutex<Vec<Message>>>) {
        let sent: Arc<Mutex<Vec<Message>>> = Arc::default();
        let post = sent.clone();
        let handle = LeaseHandle::new(NodeId(1), move |_, message| lock(&post).push(message));
        let both = BTreeSet::from([NodeId(1), NodeId(2)]);
        handle.members(both.clone(), both);
        (handle, sent)
    }

    fn window(sent: &Mutex<Vec<Message>>, handle: &LeaseHandle) -> (Window, u64) {
        // The first that the peer owns: the node asks.
        (1..100)
            .find_map(|name| {
                let window = Window { name: Name(name), limit: 5, since: 0, until: wall_millis() + 60_000 };
                handle.0.act(|leases, now| leases.spend(u64::MAX, &window, 1, false, now).1);
                handle.0.act(|leases, _| {
                    leases.give_up(window.name, u64::MAX);
                    Vec::new()
                });
                match lock(sent).last() {
                    Some(Message::Ask { number, window: asked, .. }) if *asked == window => Some((window, *number)),
                    _ => None,
                }
            })
            .expect("a window of the peer")
    }

    #[tokio::test]
    async fn what_is_granted_to_nobody_is_there_for_the_next() {
        let (handle, sent) = pair();
        let (window, number) = window(&sent, &handle);
        // Who asked is gone; what comes is kept.
        handle.received(NodeId(2), Message::Grant { number, name: window.name, amount: 1, left: 4, had: Given::default() });
        assert_eq!(handle.spend(&window, 1, Duration::ZERO).await, Decision::Allowed);
        assert_eq!(handle.spend(&window, 1, Duration::from_millis(1)).await, Decision::Unanswered);
        let Some(Message::Ask { number, had, .. }) = lock(&sent).last().cloned() else { panic!("it asks") };
        assert_eq!(had.given, 1);
        // A request that is dropped while it waits, whose answer has come.
        let mut waiting = Box::pin(handle.spend(&window, 1, Duration::from_secs(5)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let Some(Message::Ask { number: again, .. }) = lock(&sent).last().cloned() else { panic!("it asks") };
        handle.received(
            NodeId(2),
            Message::Grant { number: again.max(number), name: window.name, amount: 1, left: 3, had: Given::default() },
        );
        drop(waiting);
        assert_eq!(lock(&handle.0.waiting).len(), 0);
        let stats = handle.stats();
        assert_eq!((stats.waited, stats.unanswered), (2, 1));
    }

    #[tokio::test]
    async fn a_decision_that_comes_is_told() {
        let (handle, sent) = pair();
        let (window, number) = window(&sent, &handle);
        let spend = tokio::spawn({
            let handle = handle.clone();
            async move { handle.spend(&window, 1, Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        handle.received(NodeId(2), Message::Grant { number, name: window.name, amount: 1, left: 4, had: Given::default() });
        assert_eq!(spend.await.expect("a decision"), Decision::Allowed);
        assert_eq!(handle.grant(&window).expect("a grant").left(), 4);
    }
}
