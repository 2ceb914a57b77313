//! A cluster of nodes with records in memory, each behind a relay that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::engine::{Commit, Draft, Kept, Meta, Unique};
use cluster::id::{Key, NodeId};
use cluster::mesh::ca::{self, Pair};
use cluster::mesh::tls::Tls;
use cluster::mesh::{self, Security};
use cluster::record::Record;
use cluster::replica::{Change, Conflict};
use cluster::{Config, Handle, Storage};

use crate::relay::Relay;

const HOUR: Duration = Duration::from_secs(3_600);

/// A disk and a router in memory.
#[derive(Default)]
pub struct Memory {
    disk: Mutex<(BTreeMap<Key, Record>, Meta)>,
    conflicts: Mutex<BTreeMap<u64, Conflict>>,
    serves: Mutex<BTreeMap<Key, Record>>,
    generation: AtomicU64,
    full: AtomicBool,
    refused: Mutex<BTreeSet<String>>,
}

impl Memory {
    pub fn serves(&self, kind: &str, id: &str) -> bool {
        self.serves.lock().expect("a lock").contains_key(&Key::new(kind, id))
    }

    pub fn served(&self) -> usize {
        self.serves.lock().expect("a lock").len()
    }

    pub fn fail_commits(&self, fail: bool) {
        self.full.store(fail, Ordering::Relaxed);
    }

    /// Records of this id cannot be put in effect.
    pub fn refuse(&self, id: &str) {
        self.refused.lock().expect("a lock").insert(id.to_owned());
    }
}

#[async_trait]
impl Storage for Memory {
    async fn load(&self) -> Result<Kept, String> {
        let disk = self.disk.lock().expect("a lock");
        Ok(Kept { records: disk.0.values().cloned().collect(), meta: disk.1.clone() })
    }

    async fn commit(&self, changes: Commit) -> Result<(), String> {
        if self.full.load(Ordering::Relaxed) {
            return Err("the disk is full".to_owned());
        }
        let mut disk = self.disk.lock().expect("a lock");
        for record in changes.put {
            disk.0.insert(record.key.clone(), record);
        }
        for key in changes.removed {
            disk.0.remove(&key);
        }
        disk.1 = changes.meta;
        Ok(())
    }

    async fn apply(&self, changes: Vec<Change>) -> Vec<(Key, String)> {
        let mut serves = self.serves.lock().expect("a lock");
        let refused = self.refused.lock().expect("a lock");
        let mut rejected = Vec::new();
        for change in changes {
            match change.effective {
                Some(_) if refused.contains(&*change.key.id) => rejected.push((change.key, "it is bad".to_owned())),
                Some(record) => drop(serves.insert(change.key, record)),
                None => drop(serves.remove(&change.key)),
            }
        }
        rejected
    }

    async fn load_conflicts(&self) -> Result<Vec<(u64, Conflict)>, String> {
        Ok(self.conflicts.lock().expect("a lock").clone().into_iter().collect())
    }

    async fn keep_conflicts(&self, news: Vec<(u64, Conflict)>, first: u64) -> Result<(), String> {
        if self.full.load(Ordering::Relaxed) {
            return Err("the disk is full".to_owned());
        }
        let mut conflicts = self.conflicts.lock().expect("a lock");
        conflicts.extend(news);
        conflicts.retain(|number, _| *number >= first);
        Ok(())
    }

    async fn next_generation(&self) -> Result<u64, String> {
        Ok(self.generation.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

pub struct Node {
    pub node: NodeId,
    pub handle: Handle,
    pub storage: Arc<Memory>,
    pub tls: Arc<Tls>,
    pub address: SocketAddr,
    relay: Relay,
    seeds: Vec<String>,
    advertise: String,
}

impl Node {
    /// Where others find it.
    pub fn seed_address(&self) -> SocketAddr {
        self.relay.address()
    }

    pub fn renew(&self, ca: &Pair, life: Duration) {
        let pair = ca::issue(ca, self.node, life).expect("a certificate");
        self.tls.reload(pair.certificate.as_bytes(), pair.key.as_bytes(), ca.certificate.as_bytes()).expect("certificates");
    }
}

pub struct Cloud {
    pub ca: Pair,
    pub nodes: Vec<Node>,
}

/// A loopback address of its own for each node of each test, so that relays can tell nodes by where they dial from.
fn own_address() -> [u8; 4] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    [127, 1 + (process % 250) as u8, (process / 250 % 250) as u8, NEXT.fetch_add(1, Ordering::Relaxed)]
}

pub fn draft(id: &str, body: &str) -> Draft {
    Draft { key: Key::new("things", id), parents: vec![], unique: vec![], body: Some(body.as_bytes().into()), expect: None }
}

pub fn named(id: &str, name: &str) -> Draft {
    Draft { unique: vec![Unique { field: "name".into(), value: name.into(), exclusive: true }], ..draft(id, "{}") }
}

/// Waits until something is so.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "it takes too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn tls(ca: &Pair, node: NodeId) -> Arc<Tls> {
    let pair = ca::issue(ca, node, HOUR).expect("a certificate");
    Arc::new(Tls::new(pair.certificate.as_bytes(), pair.key.as_bytes(), ca.certificate.as_bytes()).expect("certificates"))
}

async fn run(node: NodeId, listen: SocketAddr, advertise: &str, seeds: &[String], tls: &Arc<Tls>, storage: &Arc<Memory>) -> Handle {
    let mesh = mesh::Config {
        node,
        cluster: "test".to_owned(),
        listen,
        advertise: advertise.to_owned(),
        seeds: seeds.to_vec(),
        security: Security::Tls(tls.clone()),
    };
    let mut config = Config::new(mesh, &format!("node {node}"), "1.0");
    config.engine.gossip_interval = 100;
    config.engine.alone_after = 1_000;
    cluster::start(config, storage.clone()).await.expect("a node")
}

impl Cloud {
    /// Without any node yet.
    pub fn alone() -> Self {
        Self { ca: ca::create("test").expect("an authority"), nodes: Vec::new() }
    }

    /// Nodes that all know each other. The first is the seed of the others.
    pub async fn start(nodes: usize) -> Self {
        let mut cloud = Self::alone();
        for _ in 0..nodes {
            cloud.add().await;
        }
        for node in 0..nodes {
            cloud.until_live(node, nodes - 1).await;
            cloud.nodes[node].handle.ready().await.expect("it runs");
        }
        cloud.until_equal().await;
        cloud
    }

    pub async fn add(&mut self) -> usize {
        self.add_telling(None).await
    }

    /// Adds a node that tells another address than the one that leads to it.
    pub async fn add_telling(&mut self, advertise: Option<&str>) -> usize {
        let node = NodeId::random();
        let ip = own_address();
        let relay = Relay::start(SocketAddr::from((ip, 0)), SocketAddr::from((ip, 0))).await;
        let seeds: Vec<String> = self.nodes.first().map(|seed| seed.relay.address().to_string()).into_iter().collect();
        let (tls, storage) = (tls(&self.ca, node), Arc::new(Memory::default()));
        let advertise = advertise.map_or_else(|| relay.address().to_string(), str::to_owned);
        let handle = run(node, SocketAddr::from((ip, 0)), &advertise, &seeds, &tls, &storage).await;
        let address = handle.status().await.expect("a status").address;
        relay.lead_to(address);
        self.nodes.push(Node { node, handle, storage, tls, address, relay, seeds, advertise });
        self.nodes.len() - 1
    }

    /// Starts a node that was stopped, with what it has kept.
    pub async fn restart(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let listen = SocketAddr::new(node.address.ip(), 0);
        node.handle = run(node.node, listen, &node.advertise, &node.seeds, &node.tls, &node.storage).await;
        node.address = node.handle.status().await.expect("a status").address;
        node.relay.lead_to(node.address);
        node.handle.ready().await.expect("it runs");
    }

    /// Lets nothing through between two groups of nodes.
    pub fn cut(&self, these: &[usize], those: &[usize]) {
        for (here, there) in these.iter().flat_map(|here| those.iter().map(move |there| (*here, *there))) {
            self.nodes[here].relay.refuse(self.nodes[there].address.ip());
            self.nodes[there].relay.refuse(self.nodes[here].address.ip());
        }
    }

    pub fn heal(&self) {
        self.nodes.iter().for_each(|node| node.relay.heal());
    }

    /// Waits until a node sees so many others alive.
    pub async fn until_live(&self, node: usize, others: usize) {
        until("the others are seen", async || {
            let status = self.nodes[node].handle.status().await.expect("a status").status;
            status.peers.iter().filter(|peer| peer.live).count() == others
        })
        .await;
    }

    /// How things stand, for a failure's message.
    pub async fn describe(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let overview = node.handle.status().await.expect("a status");
            text += &format!("\n{}: {:?} {:?} {:?}", node.node, overview.traffic, overview.status.peers, overview.status.counters);
        }
        text
    }

    pub async fn equal(&self) -> bool {
        let mut digests = Vec::new();
        for node in &self.nodes {
            digests.push(node.handle.status().await.expect("a status").status.digest);
        }
        digests.iter().all(|digest| *digest == digests[0] && digest.count >= self.nodes.len() as u64)
    }

    pub async fn until_equal(&self) {
        until("all have the same", async || self.equal().await).await;
    }
}
