//! What nodes say to each other about records. A message is bincode behind its length; records travel in their own wire form.

use bincode::{Decode, Encode};

use crate::clock::Stamp;
use crate::id::Key;
use crate::record::{MAX_RECORD, Record, RecordError, Version};
use crate::replica::Digest;

/// The most bytes of a message: one record of the greatest size and its surroundings.
pub const MAX_MESSAGE: usize = MAX_RECORD + 64 * 1024;
/// How many bytes of records are put in one message when they are several. Small enough that a push waits little behind it.
pub const CHUNK: usize = 256 * 1024;

/// A record in its wire form.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    pub fn of(record: &Record) -> Self {
        Self(record.encode())
    }

    pub fn open(&self) -> Result<Record, RecordError> {
        Record::decode(&self.0)
    }
}

/// A value that a node is about to give to a record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wanted {
    pub key: Key,
    pub field: std::sync::Arc<str>,
    pub value: std::sync::Arc<str>,
}

/// A line of a bucket's list: enough to tell who has the newer record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Line {
    pub key: Key,
    pub version: Version,
    /// The low half of the record's hash: tells records of one version apart.
    pub hash: u64,
}

impl Line {
    pub fn of(record: &Record) -> Self {
        Self { key: record.key.clone(), version: record.version, hash: record.hash() as u64 }
    }

    /// The most bytes that it takes in a message.
    pub fn size(&self) -> usize {
        self.key.kind.len() + self.key.id.len() + 60
    }
}

/// Where a snapshot goes on: behind this key of this bucket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cursor {
    pub bucket: u16,
    pub after: Option<Key>,
}

impl Cursor {
    pub const START: Self = Self { bucket: 0, after: None };
}

/// A message between nodes. New kinds are added at the end: a node that does not know a kind counts and ignores it.
///
/// `session` is the number of a question of repair, which its answer repeats.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Records that the receiver should have. Answered by `Ack` when they are in effect there.
    Push {
        seq: u64,
        records: Vec<Blob>,
    },
    /// The records of the push are durable and in effect here, or newer ones are; `refused` of them are neither.
    Ack {
        seq: u64,
        refused: u32,
    },
    /// Asks whether values are free. The stamp settles who of two that ask at once was first.
    Claim {
        round: u64,
        stamp: Stamp,
        wanted: Vec<Wanted>,
    },
    /// The values of the round, by number, that are taken.
    Claimed {
        round: u64,
        taken: Vec<u32>,
    },
    /// Repair: asks for the sums of all buckets.
    AskSums {
        session: u64,
    },
    Sums {
        session: u64,
        digest: Digest,
        ready: bool,
        sums: Vec<u128>,
    },
    /// Repair: asks for the lists of buckets. The answer may have fewer of them, but one at least.
    AskLists {
        session: u64,
        buckets: Vec<u16>,
    },
    Lists {
        session: u64,
        lists: Vec<(u16, Vec<Line>)>,
    },
    /// Repair: asks for records. The answer covers the first `covered` of the keys.
    AskRecords {
        session: u64,
        keys: Vec<Key>,
    },
    Records {
        session: u64,
        covered: u32,
        records: Vec<Blob>,
    },
    /// A complete copy, in portions, from the cursor on.
    AskSnapshot {
        session: u64,
        from: Cursor,
    },
    Snapshot {
        session: u64,
        digest: Digest,
        records: Vec<Blob>,
        next: Option<Cursor>,
    },
    /// The receiver has records that may have been deleted here so long ago that it is forgotten: it needs a snapshot.
    Stale {
        horizon: u64,
    },
    /// Asks for the receiver's digest.
    AskDigest {
        round: u64,
    },
    DigestIs {
        round: u64,
        digest: Digest,
    },
    /// Of the owner-leased quota.
    Lease(crate::lease::Message),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ MAX_MESSAGE * 2 }>()
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard()).expect("a vector takes every byte")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, bincode::error::DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(bincode::error::DecodeError::LimitExceeded);
        }
        bincode::decode_from_slice(bytes, config()).map(|(message, _)| message)
    }
}

/// Divides records into portions of about `CHUNK` bytes, so that none is larger than a message.
pub fn chunks(records: impl IntoIterator<Item = Record>) -> Vec<Vec<Record>> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for record in records {
        if bytes + record.size() > CHUNK && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += record.size();
        chunk.push(record);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::lease;

    fn samples() -> Vec<Message> {
        let key = Key::new("routes", "1");
        let version = Version { life: 1, stamp: Stamp::new(5, 0, NodeId(1)) };
        let record =
            Record::new(key.clone(), version, Version::NONE, version.stamp, vec![], vec![], Some(vec![b'x'; 40].into())).expect("a record");
        let digest = Digest { root: 7, count: 1, horizon: 0 };
        let wanted = Wanted { key: key.clone(), field: "name".into(), value: "x".into() };
        let window = lease::Window { name: lease::Name(7), limit: 100, since: 1, until: 2 };
        let had = lease::Given { given: 3, returned: 1 };
        let rows = vec![(NodeId(1), had), (NodeId(2), had)];
        vec![
            Message::Push { seq: 1, records: vec![Blob::of(&record)] },
            Message::Ack { seq: 1, refused: 0 },
            Message::Claim { round: 1, stamp: version.stamp, wanted: vec![wanted] },
            Message::Claimed { round: 1, taken: vec![0] },
            Message::AskSums { session: 1 },
            Message::Sums { session: 1, digest, ready: true, sums: vec![1; crate::record::BUCKETS] },
            Message::AskLists { session: 1, buckets: vec![1, 2] },
            Message::Lists { session: 1, lists: vec![(1, vec![Line::of(&record)])] },
            Message::AskRecords { session: 1, keys: vec![key.clone()] },
            Message::Records { session: 1, covered: 1, records: vec![Blob::of(&record)] },
            Message::AskSnapshot { session: 1, from: Cursor { bucket: 3, after: Some(key) } },
            Message::Snapshot { session: 1, digest, records: vec![], next: Some(Cursor::START) },
            Message::Stale { horizon: 1 },
            Message::AskDigest { round: 1 },
            Message::DigestIs { round: 1, digest },
            Message::Lease(lease::Message::Ask { number: 1, window, need: 2, had }),
            Message::Lease(lease::Message::Grant { number: 1, name: window.name, amount: 2, left: -1, had }),
            Message::Lease(lease::Message::Return { name: window.name, had, rows: rows.clone() }),
            Message::Lease(lease::Message::Totals(vec![(window, rows.clone())])),
            Message::Lease(lease::Message::Farewell { number: 1, books: vec![(window, rows)] }),
            Message::Lease(lease::Message::Heard { number: 1 }),
        ]
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for message in samples() {
            assert_eq!(Message::decode(&message.encode()).expect("a message"), message);
        }
    }

    #[test]
    fn chunks_are_bounded_and_lose_nothing() {
        let record = |n: usize| {
            let version = Version { life: 1, stamp: Stamp::new(5, 0, NodeId(1)) };
            let body = Some(vec![0; 100_000].into());
            Record::new(Key::new("k", format!("{n}")), version, Version::NONE, version.stamp, vec![], vec![], body).expect("a record")
        };
        let chunks = chunks((0..7).map(record));
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
    }
}
