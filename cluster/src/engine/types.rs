//! What goes into the state machine of a node and what comes out.

use std::collections::BTreeSet;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::id::{Key, NodeId};
use crate::record::{Body, Record, Version};
use crate::replica::{Change, Digest};
use crate::wire::Message;

/// The two clocks, both in milliseconds: wall time since 1970, for stamps, and one that only goes forward, for waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: u64,
    pub mono: u64,
}

/// Times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// What people call the node.
    pub name: String,
    /// Whether there are other nodes to look for: a node without any is ready at once.
    pub has_seeds: bool,
    pub gossip_interval: u64,
    /// The longest that a write waits to hear whether its new unique values are free.
    pub claim_timeout: u64,
    /// How far off the median of the nodes' clocks a node may be and still take writes.
    pub max_skew: u64,
    /// The age at which a tombstone is purged when every member has passed it.
    pub tombstone_life: u64,
    /// The age at which it is purged anyway.
    pub tombstone_max: u64,
    /// How long a fresh node looks for others before it begins a cluster of its own.
    pub alone_after: u64,
    /// The most batches that wait, of peers and of writers.
    pub max_queued: usize,
    /// Of the jitter.
    pub seed: u64,
}

impl Config {
    pub fn new(node: NodeId, name: impl Into<String>) -> Self {
        Self {
            node,
            name: name.into(),
            has_seeds: true,
            gossip_interval: 500,
            claim_timeout: 250,
            max_skew: 500,
            tombstone_life: 24 * 3_600_000,
            tombstone_max: 30 * 24 * 3_600_000,
            alone_after: 10_000,
            max_queued: 1_024,
            seed: 0,
        }
    }
}

/// A record that may have ended the node while it was put in effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Suspect {
    pub key: Key,
    pub version: Version,
    /// How many times the node has ended with it.
    pub crashes: u32,
}

/// What a node keeps besides its records, written with each commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Meta {
    pub horizon: u64,
    pub complete_at: u64,
    pub ever_ready: bool,
    pub suspects: Vec<Suspect>,
}

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard()).expect("a vector takes every byte")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, bincode::error::DecodeError> {
        let config = bincode::config::standard().with_limit::<{ 8 * 1024 * 1024 }>();
        bincode::decode_from_slice(bytes, config).map(|(meta, _)| meta)
    }
}

/// What a node had kept when it ended.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub records: Vec<Record>,
    pub meta: Meta,
}

/// One durable step: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub put: Vec<Record>,
    /// Records that go without a trace: purged tombstones.
    pub removed: Vec<Key>,
    pub meta: Meta,
}

/// A unique value that a writer gives to an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    pub field: Arc<str>,
    pub value: Arc<str>,
    /// See [`crate::record::Claim::exclusive`].
    pub exclusive: bool,
}

/// What a writer wants an entity to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub key: Key,
    pub parents: Vec<Key>,
    pub unique: Vec<Unique>,
    /// `None` deletes.
    pub body: Option<Body>,
    /// The version that the writer has seen; the write is refused when it is another one now.
    pub expect: Option<Version>,
}

/// How many nodes, the writer's own included, have to have a write in effect before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    None,
    Nodes(usize),
    /// Of the live nodes.
    Majority,
    All,
}

/// What a node tells all others by gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    pub ready: bool,
    pub digest: Digest,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// Time passes: to be given every 50 ms or so.
    Tick,
    Write {
        ticket: u64,
        drafts: Vec<Draft>,
        concern: Concern,
        timeout: u64,
    },
    /// The commit of the number is durable.
    Committed {
        commit: u64,
    },
    CommitFailed {
        commit: u64,
        reason: String,
    },
    /// The changes of the commit are in effect, but for those that the node could not use.
    Applied {
        commit: u64,
        rejected: Vec<(Key, String)>,
    },
    Message {
        from: NodeId,
        message: Message,
    },
    /// There is a connection to a node, of which it is not known yet what it has.
    Reached(NodeId),
    /// It is alive, and there is a connection to it.
    PeerUp(NodeId),
    PeerDown(NodeId),
    PeerState {
        node: NodeId,
        state: State,
    },
    /// How far the peer's clock is ahead of ours.
    ClockOffset {
        node: NodeId,
        millis: i64,
    },
    Barrier {
        ticket: u64,
        timeout: u64,
    },
    Forget {
        ticket: u64,
        node: NodeId,
    },
    /// Takes a record out of quarantine.
    Release {
        ticket: u64,
        key: Key,
    },
    /// How these stand is to be put in effect anew, whatever was put in effect before.
    LookAgain(Vec<Key>),
    /// The node is about to end in good order.
    Stop,
}

impl Event {
    /// The number under which the answer comes, if there is to be one.
    pub fn ticket(&self) -> Option<u64> {
        match self {
            Self::Write { ticket, .. } | Self::Barrier { ticket, .. } | Self::Forget { ticket, .. } | Self::Release { ticket, .. } => {
                Some(*ticket)
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        to: NodeId,
        message: Message,
    },
    /// To be answered by `Committed` or `CommitFailed`.
    Commit {
        commit: u64,
        changes: Commit,
    },
    /// To be answered by `Applied`.
    Apply {
        commit: u64,
        changes: Vec<Change>,
    },
    Answer {
        ticket: u64,
        answer: Answer,
    },
    /// To be gossiped from now on.
    Publish(State),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Durable and in effect here, and on `applied` of the `of` nodes that were live.
    Written {
        versions: Vec<(Key, Version)>,
        applied: usize,
        of: usize,
        unasked: usize,
    },
    /// Another entity has the unique value.
    Taken {
        key: Key,
        field: Arc<str>,
        value: Arc<str>,
    },
    Refused(Refusal),
    /// The live nodes that could not be shown to have all that this node has; none: the barrier is reached.
    Barrier {
        missing: Vec<NodeId>,
    },
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the node has not received the cluster's configuration yet")]
    NotReady,
    #[error("the node's clock is {0} ms off the cluster's")]
    Skewed(i64),
    #[error("too many changes are waiting")]
    Busy,
    #[error("{0} was changed meanwhile")]
    Changed(Key),
    #[error("{0}")]
    Invalid(String),
    /// More than a message, or a record, can hold.
    #[error("{what}: {has}, and a cluster takes at most {most}")]
    TooLarge { what: String, has: usize, most: usize },
    #[error("the change could not be stored: {0}")]
    Storage(String),
    #[error("the node is alive and would join again")]
    Alive,
    #[error("there is no such one")]
    Unknown,
}

/// Since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub messages: u64,
    pub writes: u64,
    pub commits: u64,
    pub commits_failed: u64,
    /// Records that came from peers and were new.
    pub received: u64,
    /// Records of peers that could not be read.
    pub unreadable: u64,
    /// Records that are older than the deletions that are remembered.
    pub too_old: u64,
    /// Pushes of peers that found the queue full, and pushes that were not sent because the peer was behind.
    pub dropped: u64,
    pub sessions: u64,
    pub sessions_failed: u64,
    pub snapshots: u64,
    pub purged: u64,
    pub scrubs_wrong: u64,
}

/// A peer as this node sees it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    pub live: bool,
    pub state: Option<State>,
    /// For how long it has had other records than this node, in milliseconds.
    pub differs_for: Option<u64>,
    /// Whether pushes to it were left out lately, because it acknowledges too slowly.
    pub skipped: bool,
    /// How far its clock is ahead of ours.
    pub clock_offset: Option<i64>,
}

/// A node as it sees itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub ready: bool,
    pub digest: Digest,
    pub alive: u64,
    pub members: BTreeSet<NodeId>,
    /// How far the median of all clocks is ahead of ours.
    pub clock_offset: i64,
    pub accepts_writes: bool,
    pub repairing: Option<NodeId>,
    pub queued: usize,
    /// Whether pushes of peers found the queue full lately.
    pub overloaded: bool,
    pub conflicts: u64,
    pub quarantined: Vec<Key>,
    /// Records that the node could not put in effect, with the reason.
    pub bad: Vec<(Key, String)>,
    pub peers: Vec<PeerStatus>,
    pub counters: Counters,
}
