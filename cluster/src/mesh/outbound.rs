//! The connection to a peer: dialed again whenever it is lost, for as long as the peer is known.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frame::{self, Frame, FrameError};
use super::tls::Stream;
use super::{DialError, Event, HANDSHAKE, Peer, Shared, lock, wall_millis};
use crate::id::NodeId;

const PING_EVERY: Duration = Duration::from_secs(1);
/// After how long without an answer the peer is not there.
const SILENCE: Duration = Duration::from_secs(4);
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A partition is to be over soon after the network is whole, and a connection that is asked for costs next to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) async fn link(
    shared: Arc<Shared>,
    node: NodeId,
    mut queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    wake: Arc<Notify>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        // The peer may have been forgotten, and learned of again: then another task has its new queue.
        let Some(advertise) = own(&mut lock(&shared.peers), node, &waiting).map(|peer| peer.advertise.clone()) else { return };
        match timeout(HANDSHAKE, dial(&shared, node, &advertise)).await.map_err(DialError::from).flatten() {
            Ok(stream) => {
                wait = FIRST_WAIT;
                // What waited for the last connection is out of date.
                while let Ok(old) = queue.try_recv() {
                    waiting.fetch_sub(old.len(), Ordering::Relaxed);
                }
                set_up(&shared, node, &waiting, true);
                if shared.events.send(Event::Up(node)).await.is_err() {
                    return;
                }
                tracing::info!(%node, address = advertise, "connected to a peer");
                let end = speak(&shared, node, stream, &mut queue, &waiting).await;
                set_up(&shared, node, &waiting, false);
                let reason = end.err().map_or_else(|| "it closed the connection".to_owned(), |error| error.to_string());
                tracing::info!(%node, reason, "connection to a peer lost");
                if shared.events.send(Event::Down(node)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%node, address = advertise, %error, "cannot connect to a peer"),
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

async fn dial(shared: &Shared, node: NodeId, advertise: &str) -> Result<Box<dyn Stream>, DialError> {
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

/// Sends what waits, and pings, until the connection ends or the other side is silent.
async fn speak(
    shared: &Shared,
    node: NodeId,
    stream: Box<dyn Stream>,
    queue: &mut mpsc::Receiver<Vec<u8>>,
    waiting: &AtomicUsize,
) -> Result<(), FrameError> {
    let (reader, writer) = tokio::io::split(stream);
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    let mut reader = BufReader::new(reader);
    let begin = Instant::now();
    let write = async {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ping.tick() => {
                    let sent = begin.elapsed().as_micros() as u64;
                    frame::write(&mut writer, &Frame::Ping { sent }).await?;
                    writer.flush().await?;
                }
                frame = queue.recv() => {
                    let Some(frame) = frame else { return Ok::<_, FrameError>(()) };
                    waiting.fetch_sub(frame.len(), Ordering::Relaxed);
                    shared.counters.frames_out.fetch_add(1, Ordering::Relaxed);
                    shared.counters.bytes_out.fetch_add(frame.len() as u64, Ordering::Relaxed);
                    writer.write_all(&frame).await?;
                    if queue.is_empty() {
                        writer.flush().await?;
                    }
                }
            }
        }
    };
    let hear = async {
        loop {
            let Ok(frame) = timeout(SILENCE, frame::read(&mut reader, frame::MAX_HELLO)).await else {
                return Err(FrameError::Io(std::io::ErrorKind::TimedOut.into()));
            };
            let Some(bytes) = frame? else { return Ok(()) };
            if let Frame::Pong { sent, wall } = Frame::decode(&bytes)? {
                // The other clock was read about half way between the question and the answer.
                let round = (begin.elapsed().as_micros() as u64).saturating_sub(sent) / 1_000;
                let millis = wall as i64 - (wall_millis().saturating_sub(round / 2)) as i64;
                if shared.events.send(Event::ClockOffset { node, millis }).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    tokio::select! {
        end = write => end,
        end = hear => end,
    }
}
