//! Who is alive, by chitchat's gossip. The only module that knows chitchat: its messages are tunnelled through the mesh, so
//! that it hears only nodes that have shown a certificate, and it knows no network addresses but the ids of nodes in the form
//! of addresses. docs/adr/cluster-membership.md tells why.

mod packet;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, FailureDetectorConfig, NodeState, Serializable, spawn_chitchat,
};
use tokio::sync::{Mutex, mpsc};

use crate::engine::State;
use crate::id::NodeId;
use crate::mesh;
pub use packet::decode;

/// The most messages of the gossip that wait to be read. More are dropped: the next round says the same again.
const MAX_WAITING: usize = 256;
/// How far apart the failure detector thinks that signs of life are before it has seen enough of them.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node that is gone is remembered by the gossip.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// What a node tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// Where it can be reached: host:port.
    pub advertise: String,
    /// Its software.
    pub version: String,
    pub state: Option<State>,
    /// Rises with each start.
    pub generation: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the gossip cannot be started: {0}")]
pub struct MembershipError(String);

/// The node's part in the gossip, restarted with [`Membership::start`] and a higher generation when it has ended.
pub struct Membership {
    handle: ChitchatHandle,
    node: NodeId,
}

/// The way from the mesh to the gossip, which outlives restarts.
#[derive(Clone)]
pub struct Inlet(mpsc::Sender<(NodeId, Vec<u8>)>);

/// The other end of the inlet.
#[derive(Clone)]
pub struct Outlet(Arc<Mutex<mpsc::Receiver<(NodeId, Vec<u8>)>>>);

pub fn channel() -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Inlet(sender), Outlet(Arc::new(Mutex::new(receiver))))
}

impl Inlet {
    /// Brings a message of a peer; false when too many wait.
    pub fn bring(&self, from: NodeId, bytes: Vec<u8>) -> bool {
        self.0.try_send((from, bytes)).is_ok()
    }
}

/// The id of a node in the form of an address, which is all that chitchat can address. It is never dialed.
fn address_of(node: NodeId) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(node.0).into(), 1)
}

fn node_at(address: SocketAddr) -> Option<NodeId> {
    match address {
        SocketAddr::V6(address) => Some(NodeId(u128::from(*address.ip()))),
        SocketAddr::V4(_) => None,
    }
}

struct Tunnel {
    outlet: Outlet,
    mesh: mesh::Sender,
}

#[async_trait]
impl Transport for Tunnel {
    async fn open(&self, _address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Self { outlet: self.outlet.clone(), mesh: self.mesh.clone() }))
    }
}

#[async_trait]
impl Socket for Tunnel {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if let Some(node) = node_at(to) {
            self.mesh.gossip(node, message.serialize_to_vec());
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.outlet.0.lock().await.recv().await else {
                anyhow::bail!("the mesh has ended");
            };
            match decode(&bytes) {
                Ok(message) => return Ok((address_of(from), message)),
                // A peer, and no stranger: a release whose gossip is another one.
                Err(error) => tracing::debug!(%from, %error, "gossip that cannot be decoded"),
            }
        }
    }
}

impl Membership {
    /// `generation` is higher than that of any earlier start of this node, and durable.
    pub async fn start(
        node: NodeId,
        generation: u64,
        cluster: &str,
        interval: Duration,
        own: &Member,
        outlet: Outlet,
        mesh: mesh::Sender,
    ) -> Result<Self, MembershipError> {
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(node.to_string(), generation, address_of(node)),
            cluster_id: cluster.to_owned(),
            gossip_interval: interval,
            listen_addr: address_of(node),
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: FIRST_INTERVAL.max(interval * 2),
                dead_node_grace_period: REMEMBERED,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: Duration::from_secs(3_600),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let keys = vec![
            ("name".to_owned(), own.name.clone()),
            ("advertise".to_owned(), own.advertise.clone()),
            ("version".to_owned(), own.version.clone()),
        ];
        let handle = spawn_chitchat(config, keys, &Tunnel { outlet, mesh }).await.map_err(|error| MembershipError(error.to_string()))?;
        Ok(Self { handle, node })
    }

    /// Says hello to a node that the mesh has just reached; the gossip has no seeds of its own.
    pub fn greet(&self, node: NodeId) {
        // When the gossip has ended, its restart greets everybody.
        let _ = self.handle.gossip(address_of(node));
    }

    /// Tells the others what this node has.
    pub async fn publish(&self, state: State) {
        let text = text_of(state);
        self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set("state", &text)).await;
    }

    /// The nodes that are alive, this one excepted. Of a node that was restarted, the newest start.
    pub async fn alive(&self) -> BTreeMap<NodeId, Member> {
        let read = |chitchat: &mut chitchat::Chitchat| {
            let mut alive: BTreeMap<NodeId, Member> = BTreeMap::new();
            for id in chitchat.live_nodes() {
                let node = id.node_id.parse().ok().filter(|node| *node != self.node && node_at(id.gossip_advertise_addr) == Some(*node));
                let (Some(node), Some(state)) = (node, chitchat.node_state(id)) else { continue };
                let member = member_of(id, state);
                if alive.get(&node).is_none_or(|other| other.generation < member.generation) {
                    alive.insert(node, member);
                }
            }
            alive
        };
        self.handle.with_chitchat(read).await
    }

    /// Returns when the gossip has ended, which it does by itself only after a fault.
    pub async fn ended(&self) -> String {
        match self.handle.termination_watcher().await {
            Ok(()) => "it was told to".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

fn member_of(id: &ChitchatId, state: &NodeState) -> Member {
    let text = |key: &str| state.get(key).unwrap_or_default().to_owned();
    Member {
        name: text("name"),
        advertise: text("advertise"),
        version: text("version"),
        state: state.get("state").and_then(state_of),
        generation: id.generation_id,
    }
}

/// A state as a short text, since gossip has only texts.
fn text_of(State { ready, digest }: State) -> String {
    format!("{}:{:x}:{}:{}", u8::from(ready), digest.root, digest.count, digest.horizon)
}

/// The state that a text stands for.
pub fn state_of(text: &str) -> Option<State> {
    let mut parts = text.split(':');
    let ready = parts.next()? == "1";
    let root = u128::from_str_radix(parts.next()?, 16).ok()?;
    let count = parts.next()?.parse().ok()?;
    let horizon = parts.next()?.parse().ok()?;
    Some(State { ready, digest: crate::replica::Digest { root, count, horizon } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Digest;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = State { ready: true, digest: Digest { root: u128::MAX - 3, count: 12, horizon: 99 } };
        assert_eq!(state_of(&text_of(state)), Some(state));
        for text in ["", "1", "1:xyz:1:1", "1:ff:1", "1:ff:a:1"] {
            assert_eq!(state_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_its_node() {
        let node = NodeId::random();
        assert_eq!(node_at(address_of(node)), Some(node));
    }

    #[tokio::test]
    async fn its_end_is_noticed_and_it_can_be_started_again() {
        let node = NodeId::random();
        let config = mesh::Config {
            node,
            cluster: "test".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: String::new(),
            seeds: Vec::new(),
            security: mesh::Security::Plaintext,
        };
        let (events, _heard) = mpsc::channel(1);
        let mesh = mesh::Mesh::start(config, events).await.expect("a mesh");
        let own = Member { name: "n".into(), advertise: mesh.advertise().into(), version: "1".into(), state: None, generation: 1 };
        let start = |generation, outlet| {
            let (own, sender) = (own.clone(), mesh.sender());
            async move { Membership::start(node, generation, "test", Duration::from_millis(20), &own, outlet, sender).await.expect("it starts") }
        };
        let (inlet, outlet) = channel();
        let first = start(1, outlet).await;
        // Nonsense ends nothing.
        inlet.bring(NodeId(7), vec![0xff; 300]);
        assert!(tokio::time::timeout(Duration::from_millis(200), first.ended()).await.is_err());
        assert!(first.alive().await.is_empty());
        drop(inlet);
        assert!(first.ended().await.contains("mesh"));
        let (_inlet, outlet) = channel();
        let second = start(2, outlet).await;
        second.publish(State { ready: true, digest: Digest::default() }).await;
        assert!(tokio::time::timeout(Duration::from_millis(200), second.ended()).await.is_err());
    }
}
