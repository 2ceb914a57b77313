//! The connections between the nodes: each node dials every other one and sends on the connection that it has dialed; to one that
//! it cannot dial it sends on the connection that the other has dialed. Only
//! nodes with a certificate of the cluster's authority get past the handshake, and all that is said on a connection is said
//! by the node that the certificate names.

pub mod ca;
pub mod frame;
mod inbound;
mod limit;
mod outbound;
mod peers;
mod seeds;
pub mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::id::NodeId;
use crate::wire::Message;
use frame::{Frame, Hello};
use peers::Peer;
use tls::{Stream, Tls, TlsError};

/// How long a handshake, and a first frame, may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long until there is a connection at all. TCP asks again ever more seldom: a new attempt is there sooner when the way is
/// open again.
const CONNECT: Duration = Duration::from_secs(2);
/// The most frames that wait for a peer.
const MAX_WAITING: usize = 1_024;
/// The most bytes that wait for a peer.
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// The most KiB of all peers' messages that wait to be dealt with here.
const MAX_UNREAD_KIB: usize = 64 * 1024;

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    Tls(Arc<Tls>),
    /// Neither secret nor authenticated: for trying things out on one machine. Only loopback addresses are spoken to.
    Plaintext,
}

/// Where a node is and whom it looks for.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// Nodes of other clusters are refused even if their certificates are good.
    pub cluster: String,
    pub listen: SocketAddr,
    /// What the others are told: host:port. Names are resolved by them, again for every connection.
    pub advertise: String,
    /// host:port each; names are resolved again and again, and all their addresses are tried.
    pub seeds: Vec<String>,
    pub security: Security,
}

#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("without TLS a node can only be reached on a loopback address, which {0} is not")]
    NotLoopback(SocketAddr),
    #[error("the certificate is that of node {certificate}, and this is node {node}")]
    OtherNode { certificate: NodeId, node: NodeId },
}

/// What the mesh tells its owner.
#[derive(Debug)]
pub enum Event {
    /// The node can be sent to.
    Up(NodeId),
    Down(NodeId),
    /// `room` is to be dropped when the message has been dealt with: until then, its bytes count as waiting.
    Message {
        from: NodeId,
        message: Message,
        room: Room,
    },
    Gossip {
        from: NodeId,
        bytes: Vec<u8>,
    },
    /// How far the peer's clock is ahead of ours, in milliseconds.
    ClockOffset {
        node: NodeId,
        millis: i64,
    },
}

/// The place of a message among those that wait to be dealt with. While there is none, peers wait.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// Since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    /// Connections that were ended because of who or what was on the other side.
    pub refused: AtomicU64,
    /// Frames that could not be decoded, and messages of a kind that this release does not know.
    pub undecodable: AtomicU64,
    pub frames_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub frames_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Frames for peers that were not connected or too slow, or too large, and gossip that came too fast.
    pub dropped: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    peers: Mutex<HashMap<NodeId, Peer>>,
    events: mpsc::Sender<Event>,
    counters: Counters,
    /// What pings count from.
    begin: Instant,
    /// Links to peers: ended with the mesh.
    tasks: Mutex<JoinSet<()>>,
    refusals: Mutex<Refusals>,
    /// For messages that wait to be dealt with, in KiB.
    room: Arc<Semaphore>,
}

/// So that a stranger cannot fill the log: one line in ten seconds, with the number of those that had none.
#[derive(Debug, Default)]
struct Refusals {
    last: Option<Instant>,
    silent: u64,
}

/// The mesh of a node. Dropping it ends all connections.
#[derive(Debug)]
pub struct Mesh {
    shared: Arc<Shared>,
    address: SocketAddr,
    _listening: JoinSet<()>,
}

/// Sends to peers.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn wall_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Mesh {
    /// Begins to listen and to look for the others. What happens is told to `events`; while nobody takes it, peers wait.
    pub async fn start(config: Config, events: mpsc::Sender<Event>) -> Result<Self, MeshError> {
        match &config.security {
            Security::Plaintext if !config.listen.ip().is_loopback() => return Err(MeshError::NotLoopback(config.listen)),
            Security::Tls(tls) if tls.node() != config.node => {
                return Err(MeshError::OtherNode { certificate: tls.node(), node: config.node });
            }
            _ => (),
        }
        let listener = TcpListener::bind(config.listen).await.map_err(|error| MeshError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| MeshError::Listen(config.listen, error))?;
        let mut config = config;
        if config.advertise.is_empty() {
            config.advertise = address.to_string();
        }
        let shared = Arc::new(Shared {
            config,
            peers: Mutex::default(),
            events,
            counters: Counters::default(),
            begin: Instant::now(),
            tasks: Mutex::new(JoinSet::new()),
            refusals: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_UNREAD_KIB)),
        });
        let mut listening = JoinSet::new();
        listening.spawn(inbound::listen(shared.clone(), listener));
        listening.spawn(seeds::look(shared.clone()));
        Ok(Self { shared, address, _listening: listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn advertise(&self) -> &str {
        &self.shared.config.advertise
    }

    pub fn sender(&self) -> Sender {
        Sender(self.shared.clone())
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Learns of a node, as gossip does.
    pub fn learn(&self, node: NodeId, advertise: &str) {
        peers::learn(&self.shared, node, advertise);
    }

    /// Stops dialing all nodes but these.
    pub fn retain(&self, keep: impl Fn(&NodeId) -> bool) {
        lock(&self.shared.peers).retain(|node, _| keep(node));
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // The links hold the shared state and would live as long as one another.
        lock(&self.shared.tasks).abort_all();
    }
}

impl Sender {
    pub fn message(&self, to: NodeId, message: &Message) {
        self.send(to, &Frame::Message(message.encode()));
    }

    pub fn gossip(&self, to: NodeId, bytes: Vec<u8>) {
        self.send(to, &Frame::Gossip(bytes));
    }

    fn send(&self, to: NodeId, frame: &Frame) {
        let frame = frame.encode();
        let sent = lock(&self.0.peers).get_mut(&to).filter(|peer| peer.up).is_some_and(|peer| peer.send(frame));
        if !sent {
            self.0.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn hello(&self, probe: bool) -> Hello {
        Hello {
            protocol: frame::PROTOCOL,
            oldest: frame::PROTOCOL,
            cluster: self.config.cluster.clone(),
            node: self.config.node,
            advertise: self.config.advertise.clone(),
            probe,
        }
    }

    /// Whether a first frame comes from a node that can be spoken to: `None`, or what is wrong with it.
    fn objection(&self, hello: &Hello, certified: Option<NodeId>) -> Option<&'static str> {
        if certified.is_some_and(|node| node != hello.node) {
            return Some("it says that it is another node than its certificate names");
        }
        if hello.cluster != self.config.cluster {
            return Some("it belongs to another cluster");
        }
        if hello.oldest > frame::PROTOCOL || hello.protocol < frame::PROTOCOL {
            return Some("its release has no protocol in common with this one");
        }
        None
    }

    fn refuse(&self, who: &str, reason: &str) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let mut refusals = lock(&self.refusals);
        let now = Instant::now();
        if refusals.last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(10)) {
            refusals.silent += 1;
            return;
        }
        refusals.last = Some(now);
        let others = std::mem::take(&mut refusals.silent);
        drop(refusals);
        tracing::warn!(who, reason, others, "connection to the cluster refused");
    }

    /// Dials an address and exchanges the first frames.
    async fn dial(&self, address: SocketAddr, probe: bool) -> Result<(Box<dyn Stream>, Hello), DialError> {
        let (mut stream, certified) = self.open(address).await?;
        frame::write(&mut stream, &Frame::Hello(self.hello(probe))).await?;
        tokio::io::AsyncWriteExt::flush(&mut stream).await.map_err(frame::FrameError::Io)?;
        let bytes = frame::read(&mut stream, frame::MAX_HELLO).await?.ok_or(DialError::Closed)?;
        let Frame::Hello(hello) = Frame::decode(&bytes)? else { return Err(DialError::Closed) };
        match self.objection(&hello, certified) {
            Some(objection) => Err(DialError::Objection(objection)),
            None => Ok((stream, hello)),
        }
    }

    async fn open(&self, address: SocketAddr) -> Result<(Box<dyn Stream>, Option<NodeId>), DialError> {
        let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
        let socket = socket.map_err(TlsError::Io)?;
        // Other nodes, and firewalls between them, see the address that the node listens on.
        let own = self.config.listen.ip();
        if !own.is_unspecified() && own.is_ipv4() == address.is_ipv4() {
            socket.bind(SocketAddr::new(own, 0)).map_err(TlsError::Io)?;
        }
        let connected = timeout(CONNECT, socket.connect(address)).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream: TcpStream = connected.map_err(TlsError::Io)?;
        stream.set_nodelay(true).map_err(TlsError::Io)?;
        match &self.config.security {
            Security::Tls(tls) => {
                let (stream, node) = tls.connect(stream).await?;
                Ok((stream, Some(node)))
            }
            Security::Plaintext if address.ip().is_loopback() => Ok((Box::new(stream), None)),
            Security::Plaintext => Err(DialError::Objection("without TLS only loopback addresses are dialed")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error("the other side closed the connection")]
    Closed,
    #[error("{0}")]
    Objection(&'static str),
    #[error("it took too long")]
    Slow(#[from] tokio::time::error::Elapsed),
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn mesh(seeds: Vec<String>) -> (Mesh, mpsc::Receiver<Event>) {
        let (events, heard) = mpsc::channel(100);
        let config = Config {
            node: NodeId::random(),
            cluster: "test".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: String::new(),
            seeds,
            security: Security::Plaintext,
        };
        (Mesh::start(config, events).await.expect("a mesh"), heard)
    }

    #[tokio::test]
    async fn a_peer_that_is_forgotten_and_learned_of_again_has_one_connection() {
        let (target, _heard) = mesh(Vec::new()).await;
        let node = target.shared.config.node;
        let (mesh, mut heard) = mesh(Vec::new()).await;
        for _ in 0..5 {
            mesh.learn(node, target.advertise());
            mesh.retain(|_| false);
        }
        mesh.learn(node, target.advertise());
        // Those before it may have been reached and given up.
        let mut up = 0_i32;
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(700), heard.recv()).await {
            match event {
                Event::Up(of) if of == node => up += 1,
                Event::Down(of) if of == node => up -= 1,
                _ => (),
            }
            if up == 1 && matches!(event, Event::ClockOffset { .. }) {
                break;
            }
        }
        assert_eq!(up, 1);
        let accepted = target.counters().accepted.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(target.counters().accepted.load(Ordering::Relaxed), accepted, "nobody dials again");
    }

    #[tokio::test]
    async fn a_message_that_is_dropped_is_counted_and_told_of() {
        let (target, _heard) = mesh(Vec::new()).await;
        let node = target.shared.config.node;
        let (mesh, mut heard) = mesh(Vec::new()).await;
        mesh.learn(node, target.advertise());
        while !matches!(heard.recv().await, Some(Event::Up(_))) {}
        let dropped = || mesh.counters().dropped.load(Ordering::Relaxed);
        let told = || mesh.troubles().get(&node).cloned().unwrap_or_default();
        assert_eq!((dropped(), told()), (0, String::new()));
        let sender = mesh.sender();
        let push = |bytes: usize| Message::Push { seq: 1, records: vec![crate::wire::Blob(vec![7; bytes])] };
        sender.message(node, &push(frame::MAX_FRAME));
        assert_eq!((dropped(), told()), (1, "messages to it are dropped, 1 since the start: it is too large".to_owned()));
        // Nothing leaves while this test does not wait.
        for _ in 0..MAX_WAITING + 3 {
            sender.message(node, &push(1));
        }
        assert_eq!((dropped(), told()), (4, "messages to it are dropped, 4 since the start: too much waits for it".to_owned()));
        tokio::time::timeout(Duration::from_secs(20), async {
            while lock(&mesh.shared.peers)[&node].waiting.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("what waits is sent");
        for _ in 0..7 {
            sender.message(node, &push(5_000_000));
        }
        assert_eq!(dropped(), 5, "the seventh is past 32 MiB");
    }
}
