//! The way to a peer: it is dialed again whenever the connection is lost, for as long as the peer is known. Where the address that
//! it tells leads nowhere, it is dialed where it was found as a seed, or else what it has dialed itself is used.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::frame::{self, Frame, FrameError};
use super::inbound::{source_of, take};
use super::limit::Limit;
use super::peers::{self, MAX_LENT, Peer};
use super::tls::Stream;
use super::{DialError, Event, HANDSHAKE, Shared, lock};
use crate::id::NodeId;

const PING_EVERY: Duration = Duration::from_secs(1);
/// After how long without an answer the peer is not there.
const SILENCE: Duration = Duration::from_secs(4);
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A partition is to be over soon after the network is whole, and a connection that is asked for costs next to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a peer is dialed whose own connection is used.
const DIAL_AGAIN: Duration = Duration::from_secs(10);

type Queue = mpsc::Receiver<Vec<u8>>;

/// What leads to a peer.
enum Way {
    Dialed(Box<dyn Stream>),
    /// The connection that the peer has opened.
    Lent(mpsc::Sender<Vec<u8>>),
}

pub(super) async fn link(shared: Arc<Shared>, node: NodeId, mut queue: Queue, waiting: Arc<AtomicUsize>, wake: Arc<Notify>) {
    let mut wait = FIRST_WAIT;
    loop {
        // The peer may have been forgotten, and learned of again: then another task has its new queue.
        if own(&mut lock(&shared.peers), node, &waiting).is_none() {
            return;
        }
        let way = match dial(&shared, node).await {
            Ok(stream) => Some(Way::Dialed(stream)),
            Err(error) => {
                let lent = lock(&shared.peers).get(&node).and_then(|peer| peer.lent.clone()).filter(|lent| !lent.is_closed());
                let instead = lent.as_ref().map(|_| "the connection that it has opened");
                peers::note_reach(&shared, node, Some((error, instead)));
                lent.map(Way::Lent)
            }
        };
        if let Some(mut way) = way {
            wait = FIRST_WAIT;
            // What waited for the last connection is out of date.
            while let Ok(old) = queue.try_recv() {
                waiting.fetch_sub(old.len(), Ordering::Relaxed);
                shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            set_up(&shared, node, &waiting, true);
            if shared.events.send(Event::Up(node)).await.is_err() {
                return;
            }
            tracing::info!(%node, "connected to a peer");
            let end = loop {
                match way {
                    Way::Dialed(stream) => break speak(&shared, node, stream, &mut queue, &waiting).await,
                    Way::Lent(lent) => match borrow(&shared, node, lent, &mut queue, &waiting).await {
                        Some(stream) => way = Way::Dialed(stream),
                        None => break Ok(()),
                    },
                }
            };
            set_up(&shared, node, &waiting, false);
            let reason = end.err().map_or_else(|| "it closed the connection".to_owned(), |error| error.to_string());
            tracing::info!(%node, reason, "connection to a peer lost");
            if shared.events.send(Event::Down(node)).await.is_err() {
                return;
            }
        }
        // Nodes that lost one another at the same moment do not come back at the same moment.
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(jitter)) => wait = (wait * 2).min(LONGEST_WAIT),
            () = wake.notified() => wait = FIRST_WAIT,
        }
    }
}

/// The peer, if this is still its queue.
fn own<'a>(peers: &'a mut HashMap<NodeId, Peer>, node: NodeId, waiting: &Arc<AtomicUsize>) -> Option<&'a mut Peer> {
    peers.get_mut(&node).filter(|peer| Arc::ptr_eq(&peer.waiting, waiting))
}

fn set_up(shared: &Shared, node: NodeId, waiting: &Arc<AtomicUsize>, up: bool) {
    if let Some(peer) = own(&mut lock(&shared.peers), node, waiting) {
        peer.up = up;
    }
}

/// Dials a peer at the address that it tells, and where it was found. An error is that of the address that it tells.
async fn dial(shared: &Shared, node: NodeId) -> Result<Box<dyn Stream>, String> {
    let known = lock(&shared.peers).get(&node).map(|peer| (peer.advertise.clone(), peer.found));
    let (advertise, found) = known.ok_or("it is not known any more")?;
    let error = match timeout(HANDSHAKE, dial_advertised(shared, node, &advertise)).await.map_err(DialError::from).flatten() {
        Ok(stream) => {
            peers::note_reach(shared, node, None);
            return Ok(stream);
        }
        Err(error) => source_of(&error),
    };
    let Some(found) = found else { return Err(error) };
    match timeout(HANDSHAKE, shared.dial(found, false)).await.map_err(DialError::from).flatten() {
        Ok((stream, hello)) if hello.node == node => {
            peers::note_reach(shared, node, Some((error, Some(&found.to_string()))));
            Ok(stream)
        }
        _ => Err(error),
    }
}

async fn dial_advertised(shared: &Shared, node: NodeId, advertise: &str) -> Result<Box<dyn Stream>, DialError> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(advertise).await.map_err(FrameError::Io)?.collect();
    let mut last = DialError::Closed;
    for address in addresses {
        match shared.dial(address, false).await {
            Ok((stream, hello)) if hello.node == node => return Ok(stream),
            Ok(_) => last = DialError::Objection("another node answers at its address"),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn count(shared: &Shared, frame: &[u8], waiting: &AtomicUsize) {
    waiting.fetch_sub(frame.len(), Ordering::Relaxed);
    shared.counters.frames_out.fetch_add(1, Ordering::Relaxed);
    shared.counters.bytes_out.fetch_add(frame.len() as u64, Ordering::Relaxed);
}

fn ping(shared: &Shared) -> Frame {
    Frame::Ping { sent: shared.begin.elapsed().as_micros() as u64 }
}

/// Sends what waits, and pings, on the connection that the peer has opened: until it ends, or the peer can be dialed.
async fn borrow(
    shared: &Shared,
    node: NodeId,
    lent: mpsc::Sender<Vec<u8>>,
    queue: &mut Queue,
    waiting: &AtomicUsize,
) -> Option<Box<dyn Stream>> {
    let write = async {
        let mut pings = pings();
        loop {
            tokio::select! {
                biased;
                () = lent.closed() => return,
                _ = pings.tick() => drop(lent.try_send(ping(shared).encode())),
                frame = queue.recv() => {
                    let Some(frame) = frame else { return };
                    count(shared, &frame, waiting);
                    if lent.send(frame).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let dialed = async {
        loop {
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep(DIAL_AGAIN.mul_f64(jitter)).await;
            if let Ok(stream) = dial(shared, node).await {
                return stream;
            }
        }
    };
    tokio::select! {
        () = write => None,
        stream = dialed => Some(stream),
    }
}

/// When a ping is due.
fn pings() -> Interval {
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// Sends what waits, and pings, until the connection ends or the other side is silent.
async fn speak(shared: &Shared, node: NodeId, stream: Box<dyn Stream>, queue: &mut Queue, waiting: &AtomicUsize) -> Result<(), FrameError> {
    let (reader, writer) = tokio::io::split(stream);
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    let mut reader = BufReader::new(reader);
    let (answers, mut answered) = mpsc::channel::<Vec<u8>>(MAX_LENT);
    let write = async {
        let mut pings = pings();
        loop {
            tokio::select! {
                biased;
                _ = pings.tick() => {
                    frame::write(&mut writer, &ping(shared)).await?;
                    writer.flush().await?;
                }
                Some(frame) = answered.recv() => {
                    writer.write_all(&frame).await?;
                    writer.flush().await?;
                }
                frame = queue.recv() => {
                    let Some(frame) = frame else { return Ok::<_, FrameError>(()) };
                    count(shared, &frame, waiting);
                    writer.write_all(&frame).await?;
                    if queue.is_empty() {
                        writer.flush().await?;
                    }
                }
            }
        }
    };
    let hear = async {
        let mut limit = Limit::new();
        let mut borrowed = false;
        loop {
            let Ok(frame) = timeout(SILENCE, frame::read(&mut reader, frame::MAX_FRAME)).await else {
                return Err(FrameError::Io(std::io::ErrorKind::TimedOut.into()));
            };
            let Some(bytes) = frame? else { return Ok(()) };
            if !borrowed && !matches!(Frame::decode(&bytes), Ok(Frame::Pong { .. })) {
                borrowed = true;
                peers::borrowed(shared, node);
            }
            if !take(shared, node, &bytes, &answers, &mut limit).await {
                return Ok(());
            }
        }
    };
    tokio::select! {
        end = write => end,
        end = hear => end,
    }
}
