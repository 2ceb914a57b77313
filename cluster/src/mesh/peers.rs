//! What is known of each peer: where it can be reached, what waits for it, and what is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{MAX_WAITING, MAX_WAITING_BYTES, Mesh, Shared, frame, lock, outbound};
use crate::MAX_MEMBERS;
use crate::id::NodeId;

/// The most frames that wait for the connection that a peer has opened.
pub(super) const MAX_LENT: usize = 16;
/// For how long a message that was dropped is the last error of a peer.
const SHOWN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Peer {
    pub advertise: String,
    /// Where it answered as a seed.
    pub found: Option<SocketAddr>,
    /// The connection that it has opened itself, for frames to it where it cannot be dialed.
    pub lent: Option<mpsc::Sender<Vec<u8>>>,
    pub queue: mpsc::Sender<Vec<u8>>,
    pub waiting: Arc<AtomicUsize>,
    pub up: bool,
    /// It was heard of, and is to be dialed again without waiting any longer.
    pub wake: Arc<Notify>,
    /// Why it cannot be reached at the address that it tells.
    unreachable: Option<String>,
    /// It cannot reach this node and uses the connection that this node has opened.
    pub borrows: bool,
    /// When a message to it was last dropped, why, and how many were since the start.
    dropped: Option<(Instant, &'static str)>,
    drops: u64,
}

impl Peer {
    /// Takes a frame, unless it is too large or too much waits.
    pub fn send(&mut self, frame: Vec<u8>) -> bool {
        let bytes = frame.len();
        let reason = if bytes > frame::MAX_FRAME {
            "it is too large"
        } else if self.waiting.load(Ordering::Relaxed) + bytes > MAX_WAITING_BYTES || self.queue.try_send(frame).is_err() {
            "too much waits for it"
        } else {
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
            return true;
        };
        self.drops += 1;
        let seldom = self.dropped.is_none_or(|(at, _)| at.elapsed() >= SHOWN);
        self.dropped = Some((Instant::now(), reason));
        if seldom {
            tracing::warn!(address = self.advertise, reason, bytes, "a message to a peer is dropped, repair takes its place");
        }
        false
    }

    /// What is wrong with it at the moment.
    fn trouble(&self) -> Option<String> {
        let dropped = self.dropped.filter(|(at, _)| at.elapsed() < SHOWN);
        let dropped = dropped.map(|(_, reason)| format!("messages to it are dropped, {} since the start: {reason}", self.drops));
        self.unreachable.clone().or(dropped)
    }
}

impl Mesh {
    /// What is wrong with peers, and with the address that this node tells of itself.
    pub fn troubles(&self) -> BTreeMap<NodeId, String> {
        let peers = lock(&self.shared.peers);
        let mut troubles: BTreeMap<NodeId, String> = peers.iter().filter_map(|(node, peer)| Some((*node, peer.trouble()?))).collect();
        let borrows: Vec<String> = peers.iter().filter(|(_, peer)| peer.up && peer.borrows).map(|(node, _)| node.to_string()).collect();
        if !borrows.is_empty() {
            let config = &self.shared.config;
            let text = format!("cannot be reached at {} (cluster_advertise) by {}", config.advertise, borrows.join(", "));
            troubles.insert(config.node, text);
        }
        troubles
    }
}

/// Takes note of a node and begins to dial it; a known one's address is replaced.
pub(super) fn learn(shared: &Arc<Shared>, node: NodeId, advertise: &str) {
    if node == shared.config.node || advertise.is_empty() || advertise.len() > 300 {
        return;
    }
    let mut peers = lock(&shared.peers);
    if let Some(peer) = peers.get_mut(&node) {
        if peer.advertise != advertise {
            advertise.clone_into(&mut peer.advertise);
        }
        return;
    }
    if peers.len() >= MAX_MEMBERS - 1 {
        drop(peers);
        shared.refuse(&node.to_string(), "the cluster has as many members as it may have");
        return;
    }
    let (queue, queued) = mpsc::channel(MAX_WAITING);
    let waiting = Arc::new(AtomicUsize::new(0));
    let wake = Arc::new(Notify::new());
    let peer = Peer {
        advertise: advertise.to_owned(),
        found: None,
        lent: None,
        queue,
        waiting: waiting.clone(),
        up: false,
        wake: wake.clone(),
        unreachable: None,
        borrows: false,
        dropped: None,
        drops: 0,
    };
    peers.insert(node, peer);
    drop(peers);
    let mut tasks = lock(&shared.tasks);
    // Those of peers that were forgotten have ended.
    while tasks.try_join_next().is_some() {}
    tasks.spawn(outbound::link(shared.clone(), node, queued, waiting, wake));
}

/// Learns of a node that has just been spoken with, as a seed at this address: it can be reached now.
pub(super) fn meet(shared: &Arc<Shared>, node: NodeId, advertise: &str, found: Option<SocketAddr>) {
    learn(shared, node, advertise);
    if let Some(peer) = lock(&shared.peers).get_mut(&node) {
        peer.found = found.or(peer.found);
        if !peer.up {
            peer.wake.notify_one();
        }
    }
}

/// A peer has opened a connection, on which frames may go to it.
pub(super) fn lend(shared: &Shared, node: NodeId, frames: mpsc::Sender<Vec<u8>>) {
    if let Some(peer) = lock(&shared.peers).get_mut(&node) {
        peer.lent = Some(frames);
        // If it was by another one that it found this node, it does not need ours any more.
        peer.borrows = false;
        if !peer.up {
            peer.wake.notify_one();
        }
    }
}

/// A peer uses the connection that this node has opened.
pub(super) fn borrowed(shared: &Shared, node: NodeId) {
    let mut peers = lock(&shared.peers);
    if let Some(peer) = peers.get_mut(&node).filter(|peer| !peer.borrows) {
        peer.borrows = true;
        drop(peers);
        let address = &shared.config.advertise;
        tracing::warn!(%node, address, "a peer cannot reach this node at the address that it tells (cluster_advertise)");
    }
}

/// Takes note of whether a peer can be reached at the address that it tells, and by which way it is reached otherwise.
pub(super) fn note_reach(shared: &Shared, node: NodeId, unreachable: Option<(String, Option<&str>)>) {
    let mut peers = lock(&shared.peers);
    let Some(peer) = peers.get_mut(&node) else { return };
    let text = unreachable.as_ref().map(|(error, other)| {
        let other = other.map(|other| format!("; {other} is used")).unwrap_or_default();
        format!("cannot be reached at {}: {error}{other}", peer.advertise)
    });
    if peer.unreachable == text {
        return;
    }
    peer.unreachable = text;
    let address = peer.advertise.clone();
    drop(peers);
    match unreachable {
        Some((error, Some(other))) => {
            tracing::warn!(%node, address, error, instead = other, "a peer cannot be reached at the address that it tells (cluster_advertise)");
        }
        Some((error, None)) => tracing::debug!(%node, address, error, "cannot connect to a peer"),
        None => (),
    }
}
