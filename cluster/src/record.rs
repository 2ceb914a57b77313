//! A record: one entity in one version. Records of the same key are joined by taking the greater version, so that every
//! node ends with the same one whatever the order of arrival.

mod body;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bincode::{BorrowDecode, Decode, Encode};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::clock::Stamp;
use crate::id::{Key, shared};
pub use body::Body;

/// The most bytes of a body. Kong's largest entities, certificates and request-transformer plugins, stay far below.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// The most bytes of a kind, an id, or the field or value of a claim.
pub const MAX_NAME: usize = 1_024;
/// The most parents, and the most claims, of one record. A certificate claims each of its SNIs.
pub const MAX_LINKS: usize = 256;
/// The most bytes of a record in its wire form.
pub const MAX_RECORD: usize = MAX_BODY + 1024 * 1024;

/// The greatest number of a life: far beyond all that are made, and far enough from the end to be counted on from.
const MAX_LIFE: u64 = 1 << 62;

/// The first byte of the wire form. Fields are only ever added at the end, which older nodes keep as they are; another
/// format would be another byte.
const FORMAT: u8 = 1;

/// Which version of a record: the causal length of its life, then the stamp of the edit.
///
/// `life` is odd while the entity is alive and even when it is deleted; each delete and each re-creation adds one. A delete
/// therefore beats every edit that had not seen it, whatever the clocks say. The first life of a key is not number 1 but an odd
/// number made of the time, so that it beats whatever a node may still have of an entity that others have forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Version {
    pub life: u64,
    pub stamp: Stamp,
}

impl Version {
    /// Of a record that there never was.
    pub const NONE: Self = Self { life: 0, stamp: Stamp::ZERO };

    pub fn is_alive(self) -> bool {
        self.life % 2 == 1
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.life, self.stamp)
    }
}

/// A value that only one record may answer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Claim {
    pub field: Arc<str>,
    pub value: Arc<str>,
    /// When this record first claimed the value. The oldest claim wins.
    pub since: Stamp,
    /// What losing means: a record that loses a value that is the traffic path itself (an API key) is not in effect; one
    /// that loses a name stays in effect under its id.
    pub exclusive: bool,
}

/// One entity in one version. Never changed, so that clones are the same one in memory: what is kept, indexed, sent and put in
/// effect is there once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Arc<Fields>);

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields {
    pub key: Key,
    pub version: Version,
    /// The version that the writer saw and replaced; it tells a successor from a concurrent edit.
    pub base: Version,
    /// When the present life began.
    pub born: Stamp,
    /// Records that this one needs: it is in effect only while they are.
    pub parents: Box<[Key]>,
    pub claims: Box<[Claim]>,
    /// JSON text, not looked at here; `None` is a tombstone.
    pub body: Option<Body>,
    /// Fields of the envelope that a newer release has added, kept so that digests agree.
    extra: Box<[u8]>,
    /// Of all that the version does not say: parents, claims, body.
    content: u128,
}

impl Deref for Record {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

/// The envelope as it travels, in the order of [`Fields::envelope`].
#[derive(BorrowDecode)]
struct Envelope<'a> {
    kind: &'a str,
    id: &'a str,
    version: Version,
    base: Version,
    born: Stamp,
    parents: Vec<(&'a str, &'a str)>,
    claims: Vec<(&'a str, &'a str, Stamp, bool)>,
    body: Option<&'a [u8]>,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("a record in format {0}, which this release does not know")]
    Format(u8),
    #[error("a record that cannot be decoded")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("a record that does not keep its limits: {0}")]
    Limit(&'static str),
}

fn config() -> impl bincode::config::Config {
    // What it takes in memory is a little more than its bytes, which are counted before.
    bincode::config::standard().with_limit::<{ MAX_RECORD * 2 }>()
}

impl Fields {
    fn check(&self) -> Result<(), RecordError> {
        let name = |text: &str| text.len() <= MAX_NAME;
        let key = |key: &Key| name(&key.kind) && name(&key.id);
        let limit = |holds: bool, what| if holds { Ok(()) } else { Err(RecordError::Limit(what)) };
        limit(self.version.life > 0, "it was never alive")?;
        limit(self.version.life <= MAX_LIFE, "a life of a number that is possible")?;
        limit(self.version.is_alive() == self.body.is_some(), "a body exactly when alive")?;
        limit(self.body.as_ref().is_none_or(|body| body.len() <= MAX_BODY), "a body of at most 4 MiB")?;
        limit(key(&self.key) && !self.key.kind.is_empty() && !self.key.id.is_empty(), "a key of 1 to 1,024 bytes each")?;
        limit(self.parents.len() <= MAX_LINKS && self.parents.iter().all(key), "at most 256 parents")?;
        limit(self.claims.len() <= MAX_LINKS, "at most 256 claims")?;
        limit(self.claims.iter().all(|claim| name(&claim.field) && name(&claim.value)), "claims of at most 1,024 bytes")
    }

    /// Puts the envelope behind what is there.
    fn envelope(&self, bytes: &mut Vec<u8>) {
        let key = (&*self.key.kind, &*self.key.id);
        let links = (&*self.parents, &*self.claims);
        let envelope = (key, self.version, self.base, self.born, links, self.body.as_deref());
        bincode::encode_into_std_write(envelope, bytes, bincode::config::standard()).expect("a vector takes every byte");
    }

    /// The wire form: the format byte, the envelope, and what newer releases have added behind it.
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.push(FORMAT);
        self.envelope(bytes);
        bytes.extend_from_slice(&self.extra);
    }

    /// The record, unless it does not keep its limits.
    fn sealed(mut self, buffer: &mut Vec<u8>) -> Result<Record, RecordError> {
        self.check()?;
        self.encode_into(buffer);
        if buffer.len() > MAX_RECORD {
            return Err(RecordError::Limit("at most 5 MiB"));
        }
        self.content = xxh3_128(buffer);
        Ok(Record(Arc::new(self)))
    }
}

impl Record {
    /// A record of what a writer gives. `body` is `None` exactly when the version's life is even.
    pub fn new(
        key: Key,
        version: Version,
        base: Version,
        born: Stamp,
        parents: Vec<Key>,
        claims: Vec<Claim>,
        body: Option<Body>,
    ) -> Result<Self, RecordError> {
        let named = |key: Key| Key { kind: shared(&key.kind), id: key.id };
        let (key, parents) = (named(key), parents.into_iter().map(named).collect());
        let claims = claims.into_iter().map(|claim| Claim { field: shared(&claim.field), ..claim }).collect();
        Fields { key, version, base, born, parents, claims, body, extra: Box::default(), content: 0 }.sealed(&mut Vec::new())
    }

    pub fn is_alive(&self) -> bool {
        self.version.is_alive()
    }

    /// The order of versions of one key: total, so that its maximum is associative, commutative and idempotent.
    fn rank(&self) -> (Version, u128) {
        (self.version, self.content)
    }

    /// Whether this record replaces another one of its key.
    pub fn beats(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    /// The greater of two versions of a key.
    pub fn join(self, other: Self) -> Self {
        if other.beats(&self) { other } else { self }
    }

    /// Whether the edits were made without knowledge of each other: the later one did not replace the earlier one or a
    /// successor of it.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let (winner, loser) = if self.beats(other) { (self, other) } else { (other, self) };
        winner.rank() != loser.rank() && winner.base < loser.version
    }

    /// What digests are summed from: a change of anything in the record changes it.
    pub fn hash(&self) -> u128 {
        self.content
    }

    /// The wire form: the format byte, the envelope, and what newer releases have added behind it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size() + self.extra.len());
        self.encode_into(&mut bytes);
        bytes
    }

    /// Puts the wire form behind what is there.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.encode_into(bytes);
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (format, rest) = bytes.split_first().ok_or(RecordError::Limit("at least one byte"))?;
        if *format != FORMAT {
            return Err(RecordError::Format(*format));
        }
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::Limit("at most 5 MiB"));
        }
        let (envelope, read): (Envelope<'_>, usize) = bincode::borrow_decode_from_slice(rest, config())?;
        let key = |(kind, id): (&str, &str)| Key { kind: shared(kind), id: id.into() };
        let claim = |(field, value, since, exclusive): (&str, &str, Stamp, bool)| Claim {
            field: shared(field),
            value: value.into(),
            since,
            exclusive,
        };
        let fields = Fields {
            key: key((envelope.kind, envelope.id)),
            version: envelope.version,
            base: envelope.base,
            born: envelope.born,
            parents: envelope.parents.into_iter().map(key).collect(),
            claims: envelope.claims.into_iter().map(claim).collect(),
            body: envelope.body.map(Body::from),
            extra: rest.get(read..).unwrap_or_default().into(),
            content: 0,
        };
        // Its hash is that of the bytes as they would be sent on: what came may have been written with longer integers than needed.
        fields.sealed(&mut Vec::with_capacity(bytes.len()))
    }

    /// About how many bytes it takes in memory and on the wire.
    pub fn size(&self) -> usize {
        let key = |key: &Key| key.kind.len() + key.id.len() + 4;
        let claim = |claim: &Claim| claim.field.len() + claim.value.len() + 32;
        let body = self.body.as_ref().map_or(0, |body| body.len());
        100 + key(&self.key) + self.parents.iter().map(key).sum::<usize>() + self.claims.iter().map(claim).sum::<usize>() + body
    }
}

/// How many buckets the records of a node are divided into.
pub const BUCKETS: usize = 4_096;

/// The bucket of a key: by hash, the same on every node.
pub fn bucket_of(key: &Key) -> usize {
    let mut bytes = Vec::with_capacity(key.kind.len() + key.id.len() + 1);
    bytes.extend_from_slice(key.kind.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.id.as_bytes());
    (xxh3_64(&bytes) as usize) % BUCKETS
}

#[cfg(test)]
mod tests;
