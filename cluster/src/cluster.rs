//! What a node of the gateway holds: starts everything, and is asked and told through a [`Handle`].

mod driver;
mod keeper;
mod leases;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock::Stamp;
use crate::engine::{self, Answer, Commit, Concern, Draft, Kept, Refusal, Standing, Status};
use crate::id::{Key, NodeId};
use crate::membership::Member;
use crate::mesh::{self, Mesh, MeshError};
use crate::record::{Record, Version};
use crate::replica::{Change, Conflict, Conflicts};
pub use leases::{LeaseHandle, LeaseStats};

/// How many calls may wait for the node.
const MAX_CALLS: usize = 1_024;
/// How many groups of changes a slow listener may be behind.
const MAX_BEHIND: usize = 1_024;

/// What the node does for the cluster: keeps its records and puts them in effect.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// All that `commit` has kept.
    async fn load(&self) -> Result<Kept, String>;

    /// Makes a step durable, all of it or nothing. When this returns an error, nothing of it has happened.
    async fn commit(&self, changes: Commit) -> Result<(), String>;

    /// Puts changes in effect: validates them and swaps what requests see. Answers those that it could not use, with the
    /// reason; they do not keep the others away. Never called for two groups at once. The first group is all that was kept and is
    /// in effect, and comes even when that is nothing.
    async fn apply(&self, changes: Vec<Change>) -> Vec<(Key, String)>;

    /// The log of conflicts that `keep_conflicts` has kept, oldest first, with the number of each.
    async fn load_conflicts(&self) -> Result<Vec<(u64, Conflict)>, String>;

    /// Adds conflicts to the log, under their numbers, and drops those whose number is below `first`.
    async fn keep_conflicts(&self, news: Vec<(u64, Conflict)>, first: u64) -> Result<(), String>;

    /// A number that is higher than all that this has returned before, also before a restart.
    async fn next_generation(&self) -> Result<u64, String>;
}

/// What a node of a cluster is.
#[derive(Clone, Debug)]
pub struct Config {
    pub mesh: mesh::Config,
    pub engine: engine::Config,
    /// The software, for the others to see.
    pub version: String,
}

impl Config {
    pub fn new(mesh: mesh::Config, name: &str, version: &str) -> Self {
        let mut engine = engine::Config::new(mesh.node, name);
        engine.has_seeds = !mesh.seeds.is_empty();
        engine.seed = rand::random();
        Self { mesh, engine, version: version.to_owned() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("the kept records cannot be read: {0}")]
    Load(String),
    #[error("the number of this start cannot be kept: {0}")]
    Generation(String),
    #[error(transparent)]
    Membership(#[from] crate::membership::MembershipError),
}

/// The node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster node has ended")]
pub struct Ended;

/// Why a write has not happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The value may be a secret and is no part of the text.
    #[error("another entity has the value of {field}")]
    Taken { key: Key, field: Arc<str>, value: Arc<str> },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// A write that is durable and in effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub versions: Vec<(Key, Version)>,
    /// Nodes that have it in effect, this one included, of those that were live.
    pub applied: usize,
    pub of: usize,
    /// Live nodes that did not answer in time whether the new unique values are free.
    pub unasked: usize,
}

/// How the cluster stands, as this node sees it.
#[derive(Clone, Debug)]
pub struct Overview {
    pub node: NodeId,
    pub address: SocketAddr,
    pub status: Status,
    pub alive: BTreeMap<NodeId, Member>,
    pub traffic: Traffic,
    /// What is wrong with the ways to nodes, and to this one.
    pub troubles: BTreeMap<NodeId, String>,
    /// Why the last changes could not be made durable; nothing when they were.
    pub unstored: Option<String>,
}

/// Counters of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub accepted: u64,
    pub refused: u64,
    pub undecodable: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub dropped: u64,
}

impl Traffic {
    fn of(counters: &mesh::Counters) -> Self {
        Self {
            accepted: counters.accepted.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            undecodable: counters.undecodable.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
        }
    }
}

enum Call {
    Engine(engine::Event, Option<oneshot::Sender<Answer>>),
    Status(oneshot::Sender<Overview>),
    Records(Vec<Key>, oneshot::Sender<Vec<Option<Record>>>),
    Standing(Key, oneshot::Sender<Standing>),
    Conflicts(oneshot::Sender<Vec<Standing>>),
    Quarantine(oneshot::Sender<Vec<Standing>>),
    WaitFor { key: Key, version: Version, reply: oneshot::Sender<()> },
    Stop(oneshot::Sender<()>),
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Handle {
    node: NodeId,
    calls: mpsc::Sender<Call>,
    ready: watch::Receiver<bool>,
    changes: broadcast::Sender<Arc<Vec<Change>>>,
    leases: LeaseHandle,
}

/// Starts a node: loads what it has kept, puts that in effect, and looks for the others.
pub async fn start(config: Config, storage: Arc<dyn Storage>) -> Result<Handle, StartError> {
    let (events, heard) = mpsc::channel(4_096);
    let generation = storage.next_generation().await.map_err(StartError::Generation)?;
    let kept = storage.load().await.map_err(StartError::Load)?;
    let conflicts = Conflicts::recall(storage.load_conflicts().await.map_err(StartError::Load)?);
    let mesh = Mesh::start(config.mesh.clone(), events).await?;
    let (calls, called) = mpsc::channel(MAX_CALLS);
    let (ready, is_ready) = watch::channel(false);
    let (changes, _) = broadcast::channel(MAX_BEHIND);
    let sender = mesh.sender();
    let post = move |to, message| sender.message(to, &crate::wire::Message::Lease(message));
    let leases = LeaseHandle::new(config.mesh.node, post);
    let handle = Handle { node: config.mesh.node, calls, ready: is_ready, changes: changes.clone(), leases: leases.clone() };
    let driver = driver::Driver::new(config, storage, mesh, kept, conflicts, generation, ready, changes, leases).await?;
    tokio::spawn(driver.run(called, heard));
    Ok(handle)
}

impl Handle {
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Writes entities, all of them or none, and waits until as many nodes as `concern` says have them in effect, or the
    /// timeout is over: `Written::applied` tells.
    pub async fn write(&self, drafts: Vec<Draft>, concern: Concern, timeout: Duration) -> Result<Written, WriteError> {
        let timeout = timeout.as_millis() as u64;
        match self.ask(|ticket| engine::Event::Write { ticket, drafts, concern, timeout }).await? {
            Answer::Written { versions, applied, of, unasked } => Ok(Written { versions, applied, of, unasked }),
            Answer::Taken { key, field, value } => Err(WriteError::Taken { key, field, value }),
            Answer::Refused(refusal) => Err(refusal.into()),
            Answer::Barrier { .. } | Answer::Released => Err(Ended.into()),
        }
    }

    /// Waits until every live node has what this node has at the moment; answers the nodes that are not known to.
    pub async fn barrier(&self, timeout: Duration) -> Result<Vec<NodeId>, WriteError> {
        let timeout = timeout.as_millis() as u64;
        match self.ask(|ticket| engine::Event::Barrier { ticket, timeout }).await? {
            Answer::Barrier { missing } => Ok(missing),
            Answer::Refused(refusal) => Err(refusal.into()),
            _ => Err(Ended.into()),
        }
    }

    /// Takes a node that is gone for good out of the cluster.
    pub async fn forget(&self, node: NodeId) -> Result<(), WriteError> {
        match self.ask(|ticket| engine::Event::Forget { ticket, node }).await? {
            Answer::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// Puts a record in effect that the node has in quarantine.
    pub async fn release(&self, key: Key) -> Result<(), WriteError> {
        match self.ask(|ticket| engine::Event::Release { ticket, key }).await? {
            Answer::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    pub async fn status(&self) -> Result<Overview, Ended> {
        self.call(Call::Status).await
    }

    /// A record as this node has it, a tombstone too.
    pub async fn record(&self, key: Key) -> Result<Option<Record>, Ended> {
        Ok(self.records(vec![key]).await?.pop().flatten())
    }

    /// The same of several, in their order.
    pub async fn records(&self, keys: Vec<Key>) -> Result<Vec<Option<Record>>, Ended> {
        self.call(|reply| Call::Records(keys, reply)).await
    }

    /// Puts in effect anew how these stand, for a caller that knows of other things in effect.
    pub async fn look_again(&self, keys: Vec<Key>) -> Result<(), Ended> {
        self.calls.send(Call::Engine(engine::Event::LookAgain(keys), None)).await.map_err(|_| Ended)
    }

    /// How a record stands on this node, and why.
    pub async fn standing(&self, key: Key) -> Result<Standing, Ended> {
        self.call(|reply| Call::Standing(key, reply)).await
    }

    /// Records that lost on account of others: edits made at the same time, unique values, parents. At most 16,384.
    pub async fn conflicts(&self) -> Result<Vec<Standing>, Ended> {
        self.call(Call::Conflicts).await
    }

    /// Records that are left out because they ended the node. At most 16,384.
    pub async fn quarantine(&self) -> Result<Vec<Standing>, Ended> {
        self.call(Call::Quarantine).await
    }

    /// Waits until a write of another node is in effect here, or something newer is.
    pub async fn wait_for(&self, key: Key, version: Version) -> Result<(), Ended> {
        self.call(|reply| Call::WaitFor { key, version, reply }).await
    }

    /// Whether the node has what its peers have, so that it may take traffic.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until the node is ready.
    pub async fn ready(&self) -> Result<(), Ended> {
        self.ready.clone().wait_for(|ready| *ready).await.map(|_| ()).map_err(|_| Ended)
    }

    /// All that is put in effect from now on. A listener that falls behind misses groups, which it is told.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Vec<Change>>> {
        self.changes.subscribe()
    }

    /// Limits across nodes.
    pub fn leases(&self) -> &LeaseHandle {
        &self.leases
    }

    /// Ends the node in good order.
    pub async fn stop(&self) -> Result<(), Ended> {
        self.call(Call::Stop).await
    }

    async fn ask(&self, event: impl FnOnce(u64) -> engine::Event) -> Result<Answer, Ended> {
        let (reply, answer) = oneshot::channel();
        let ticket = driver::ticket();
        self.calls.send(Call::Engine(event(ticket), Some(reply))).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    async fn call<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(call(reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}

/// What a writer hands to a reader on another node, so that it reads its own write: a key and its version, as one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub key: Key,
    pub version: Version,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{};{};{};{}", self.version.life, self.version.stamp, self.key.kind, self.key.id)
    }
}

/// A text that is not a token.
#[derive(Debug, thiserror::Error)]
#[error("not the stamp of a configuration")]
pub struct NotAToken;

impl std::str::FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let mut parts = text.splitn(4, ';');
        let mut part = || parts.next().ok_or(NotAToken);
        let life = part()?.parse().map_err(|_| NotAToken)?;
        let stamp: Stamp = part()?.parse().map_err(|_| NotAToken)?;
        let key = Key::new(part()?, part()?);
        Ok(Self { key, version: Version { life, stamp } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let version = Version { life: 3, stamp: Stamp::new(5, 1, NodeId::random()) };
        let token = Token { key: Key::new("routes", "a;b"), version };
        assert_eq!(token.to_string().parse::<Token>().expect("a token"), token);
        assert!("1;2;3".parse::<Token>().is_err());
    }
}
