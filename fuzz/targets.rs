//! Everything that reads bytes which a peer, a file or an operator gives. One list for the fuzzer and for the tests of
//! `cluster/tests/decoders`, which give each of them the bytes of `fuzz/seeds/NAME` and bytes that were made of those.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cluster::clock::Stamp;
use cluster::engine::{Action, Config, Engine, Event, Kept, Meta, Now, State};
use cluster::id::NodeId;
use cluster::lease::{self, Leases};
use cluster::membership;
use cluster::mesh::ca::JoinToken;
use cluster::mesh::frame::{self, Frame};
use cluster::mesh::tls::{self, Tls};
use cluster::record::Record;
use cluster::replica::{Conflict, Digest, Replica};
use cluster::wire::Message;
use cluster::{Token, repair};

/// A decoder under a name. It answers whether it took the bytes for what they should be; whatever they are, it neither panics nor
/// takes more memory than a frame may.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> bool,
}

pub const TARGETS: &[Target] = &[
    Target { name: "certificate", run: certificate },
    Target { name: "conflict", run: conflict },
    Target { name: "frame", run: frame },
    Target { name: "gossip", run: gossip },
    Target { name: "gossip_state", run: gossip_state },
    Target { name: "lease", run: lease },
    Target { name: "message", run: message },
    Target { name: "meta", run: meta },
    Target { name: "node_name", run: node_name },
    Target { name: "pem", run: pem },
    Target { name: "record", run: record },
    Target { name: "stamp", run: stamp },
    Target { name: "stream", run: stream },
    Target { name: "token", run: token },
];

const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const NOW: u64 = 1_790_000_000_000;

/// The certificate that the other side of a connection shows.
fn certificate(bytes: &[u8]) -> bool {
    tls::named(bytes).is_ok()
}

/// An entry of the log of conflicts that a node has kept.
fn conflict(bytes: &[u8]) -> bool {
    Conflict::decode(bytes).is_ok_and(|conflict| Conflict::decode(&conflict.encode()).expect("what was read can be written") == conflict)
}

fn frame(bytes: &[u8]) -> bool {
    Frame::decode(bytes).is_ok_and(|frame| Frame::decode(&frame.encode()[4..]).expect("what was read can be written") == frame)
}

fn gossip(bytes: &[u8]) -> bool {
    membership::decode(bytes).is_ok()
}

/// What a node says in the gossip of what it has.
fn gossip_state(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| membership::state_of(text).is_some())
}

/// A message about quota, taken by a node that has windows of its own.
fn lease(bytes: &[u8]) -> bool {
    let Ok(Message::Lease(message)) = Message::decode(bytes) else { return false };
    let mut leases = Leases::new(OWN, 0, NOW);
    leases.members([OWN, PEER].into(), [OWN, PEER].into(), NOW);
    let window = lease::Window { name: lease::Name(7), limit: 100, since: NOW, until: NOW + 60_000 };
    leases.spend(1, &window, 1, true, NOW);
    leases.received(PEER, message, NOW);
    leases.tick(NOW + 200);
    leases.members([OWN].into(), [OWN, PEER].into(), NOW + 300);
    leases.tick(NOW + 10_000);
    true
}

/// A message of a peer, answered if it is a question, and taken by a node whose peer it is.
fn message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else { return false };
    assert_eq!(Message::decode(&message.encode()).expect("what was read can be written"), message);
    let _ = repair::answer(&Replica::default(), true, &message);
    let mut config = Config::new(OWN, "own");
    config.has_seeds = false;
    let mut engine = Engine::new(config, Kept::default());
    let state = State { ready: true, digest: Digest { root: 7, count: 1, horizon: 0 } };
    let events =
        [Event::PeerUp(PEER), Event::PeerState { node: PEER, state }, Event::Tick, Event::Message { from: PEER, message }, Event::Tick];
    for (event, second) in events.into_iter().zip(1..) {
        let now = Now { wall: NOW + second * 1_000, mono: second * 1_000 };
        let mut actions = engine.handle(event, now);
        while let Some(action) = actions.pop() {
            match action {
                Action::Commit { commit, .. } => actions.extend(engine.handle(Event::Committed { commit }, now)),
                Action::Apply { commit, .. } => actions.extend(engine.handle(Event::Applied { commit, rejected: Vec::new() }, now)),
                _ => (),
            }
        }
    }
    true
}

/// What a node has kept besides its records.
fn meta(bytes: &[u8]) -> bool {
    Meta::decode(bytes).is_ok_and(|meta| Meta::decode(&meta.encode()).expect("what was read can be written") == meta)
}

/// A name in a certificate.
fn node_name(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| NodeId::from_dns_name(text).is_some())
}

/// A node's certificate, its key and the authorities that it trusts, here all in one file.
fn pem(bytes: &[u8]) -> bool {
    Tls::new(bytes, bytes, bytes).is_ok()
}

/// A record, of a peer or of the disk.
fn record(bytes: &[u8]) -> bool {
    let Ok(record) = Record::decode(bytes) else { return false };
    let again = Record::decode(&record.encode()).expect("what was read can be written");
    assert_eq!(again.hash(), record.hash());
    true
}

/// The stamps that operators and clients hand from node to node.
fn stamp(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = text.parse::<Stamp>();
    text.parse::<Token>().is_ok_and(|token| token.to_string().parse::<Token>().expect("what was read can be written") == token)
}

/// What comes on a connection: frames, one after the other.
fn stream(mut bytes: &[u8]) -> bool {
    loop {
        let read = {
            let mut read = pin!(frame::read(&mut bytes, frame::MAX_FRAME));
            let Poll::Ready(read) = read.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!("bytes are there") };
            read
        };
        match read {
            Ok(None) => return true,
            Ok(Some(frame)) if Frame::decode(&frame).is_ok() => (),
            _ => return false,
        }
    }
}

/// What a new node is invited with.
fn token(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| JoinToken::from_text(text).is_ok())
}
