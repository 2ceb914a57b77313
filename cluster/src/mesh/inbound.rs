//! Connections that others have dialed: on them we listen and answer pings, and send where we cannot dial.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::frame::{self, Frame, FrameError};
use super::limit::Limit;
use super::peers::{MAX_LENT, lend, meet};
use super::tls::Stream;
use super::{Event, HANDSHAKE, Room, Security, Shared, lock, wall_millis};
use crate::MAX_MEMBERS;
use crate::id::NodeId;
use crate::wire::Message;

/// The most connections whose other side is not known yet.
const MAX_STRANGERS: usize = 64;
/// After how long without a frame a connection is given up. Peers ping every second.
const SILENCE: Duration = Duration::from_secs(15);

/// The most bytes of a message of the gossip: it is made for datagrams.
const MAX_GOSSIP: usize = 64 * 1024;

type Current = Arc<std::sync::Mutex<HashMap<NodeId, AbortHandle>>>;

pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let current: Current = Arc::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, for example: waiting is all that helps.
                tracing::warn!(%error, "cannot accept a connection of the cluster");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = strangers.clone().try_acquire_owned() else {
            shared.refuse(&from.to_string(), "too many connections are being opened");
            continue;
        };
        let (shared, current) = (shared.clone(), current.clone());
        let (tell, told) = tokio::sync::oneshot::channel::<AbortHandle>();
        let handle = connections.spawn(async move {
            let Ok(own) = told.await else { return };
            match timeout(HANDSHAKE, welcome(&shared, stream, from)).await {
                Ok(Ok(None)) => (),
                Ok(Ok(Some((stream, node)))) => {
                    drop(permit);
                    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    // A node has one connection to us: the newest, since it dials again only when it has lost the other.
                    let too_many = {
                        let mut current = lock(&current);
                        let too_many = current.len() >= MAX_MEMBERS && !current.contains_key(&node);
                        if !too_many && let Some(old) = current.insert(node, own.clone()) {
                            old.abort();
                        }
                        too_many
                    };
                    if too_many {
                        return shared.refuse(&node.to_string(), "the cluster has as many members as it may have");
                    }
                    let end = hear(&shared, stream, node).await;
                    let mut current = lock(&current);
                    if current.get(&node).is_some_and(|newest| newest.id() == own.id()) {
                        current.remove(&node);
                    }
                    drop(current);
                    if let Err(error) = end {
                        tracing::debug!(%node, %error, "connection of a peer ended");
                    }
                }
                Ok(Err(reason)) => shared.refuse(&from.to_string(), &reason),
                Err(_) => shared.refuse(&from.to_string(), "it did not say who it is in time"),
            }
        });
        // The task waits for it, so it is there.
        let _ = tell.send(handle);
    }
}

/// Finds out who has dialed; `None` when that is all that the other side wanted, too.
async fn welcome(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) -> Result<Option<(Box<dyn Stream>, NodeId)>, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut stream, certified): (Box<dyn Stream>, _) = match &shared.config.security {
        Security::Tls(tls) => {
            let (stream, node) = tls.accept(stream).await.map_err(|error| source_of(&error))?;
            (stream, Some(node))
        }
        Security::Plaintext if from.ip().is_loopback() => (Box::new(stream), None),
        Security::Plaintext => return Err("without TLS only loopback addresses are spoken to".to_owned()),
    };
    let bytes = frame::read(&mut stream, frame::MAX_HELLO).await.map_err(|error| source_of(&error))?.ok_or("it closed the connection")?;
    let Ok(Frame::Hello(hello)) = Frame::decode(&bytes) else { return Err("it did not say who it is".to_owned()) };
    frame::write(&mut stream, &Frame::Hello(shared.hello(false))).await.map_err(|error| source_of(&error))?;
    stream.flush().await.map_err(|error| error.to_string())?;
    if let Some(objection) = shared.objection(&hello, certified) {
        return Err(objection.to_owned());
    }
    meet(shared, hello.node, &hello.advertise, None);
    if hello.probe {
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    if hello.node == shared.config.node {
        return Err("it is this node itself".to_owned());
    }
    Ok(Some((stream, hello.node)))
}

/// The error with what caused it: for the log.
pub(super) fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Hears a peer until the connection ends, and sends what goes to it this way.
async fn hear(shared: &Arc<Shared>, stream: Box<dyn Stream>, from: NodeId) -> Result<(), FrameError> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let mut limit = Limit::new();
    let (frames, mut lent) = mpsc::channel(MAX_LENT);
    lend(shared, from, frames.clone());
    let write = async {
        while let Some(frame) = lent.recv().await {
            writer.write_all(&frame).await?;
            writer.flush().await?;
        }
        Ok(())
    };
    let read = async {
        while let Ok(frame) = timeout(SILENCE, frame::read(&mut reader, frame::MAX_FRAME)).await {
            let Some(bytes) = frame? else { return Ok(()) };
            if !take(shared, from, &bytes, &frames, &mut limit).await {
                return Ok(());
            }
        }
        Ok(())
    };
    tokio::select! {
        end = write => end,
        end = read => end,
    }
}

/// Deals with a frame of a peer, whichever side has opened the connection; answers go to `answers`. False: nobody wants to hear
/// of it.
pub(super) async fn take(shared: &Shared, from: NodeId, bytes: &[u8], answers: &mpsc::Sender<Vec<u8>>, limit: &mut Limit) -> bool {
    shared.counters.frames_in.fetch_add(1, Ordering::Relaxed);
    shared.counters.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let wait = limit.take(bytes.len());
    let event = match Frame::decode(bytes) {
        Ok(Frame::Ping { sent }) => {
            // Where so much is on its way that there is no room, the other side hears that we are there.
            let _ = answers.try_send(Frame::Pong { sent, wall: wall_millis() }.encode());
            None
        }
        Ok(Frame::Pong { sent, wall }) => {
            // The other clock was read about half way between the question and the answer.
            let round = (shared.begin.elapsed().as_micros() as u64).saturating_sub(sent) / 1_000;
            let millis = wall as i64 - (wall_millis().saturating_sub(round / 2)) as i64;
            Some(Event::ClockOffset { node: from, millis })
        }
        Ok(Frame::Message(bytes)) => match Message::decode(&bytes) {
            Ok(message) => {
                let kib = (bytes.len() / 1024 + 1) as u32;
                // Nobody closes it.
                let Ok(room) = shared.room.clone().acquire_many_owned(kib).await else { return false };
                Some(Event::Message { from, message, room: Room(room) })
            }
            Err(_) => not_understood(shared),
        },
        Ok(Frame::Gossip(bytes)) if bytes.len() <= MAX_GOSSIP => Some(Event::Gossip { from, bytes }),
        Ok(Frame::Gossip(_) | Frame::Hello(_)) | Err(_) => not_understood(shared),
    };
    let told = match event {
        Some(event) => shared.events.send(event).await.is_ok(),
        None => true,
    };
    if let (true, Some(wait)) = (told, wait) {
        tokio::time::sleep(wait).await;
    }
    told
}

fn not_understood(shared: &Shared) -> Option<Event> {
    shared.counters.undecodable.fetch_add(1, Ordering::Relaxed);
    None
}
