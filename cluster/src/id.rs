//! Who a node is and what a record is called.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bincode::{Decode, Encode};

/// A node of the cluster: a UUID, chosen once and kept with the node's data. Its certificate names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub u128);

impl NodeId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }

    /// The DNS name that stands in the node's certificate, and that a dialing peer asks for.
    pub fn dns_name(self) -> String {
        format!("{self}.node.troop")
    }

    /// The node that a certificate's DNS name stands for; `None` for every other name.
    pub fn from_dns_name(name: &str) -> Option<Self> {
        name.strip_suffix(".node.troop")?.parse().ok()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(uuid::Uuid::parse_str(text)?.as_u128()))
    }
}

/// The name of a record: what sort of thing it is, and which one.
///
/// Kinds that begin with `@` are the cluster's own and never shown to the node's applier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Key {
    pub kind: Arc<str>,
    pub id: Arc<str>,
}

impl Key {
    pub fn new(kind: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// Whether the record belongs to the cluster itself and not to the node's configuration.
    pub fn is_internal(&self) -> bool {
        self.kind.starts_with('@')
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The most words that a thread shares.
const MAX_WORDS: usize = 512;
/// The most bytes of such a word.
const MAX_WORD: usize = 64;

/// A word that stands in many records, a kind or the field of a claim, once in memory for all that a thread reads. There are few
/// in a cluster; of more than are shared each stands for itself.
pub fn shared(word: &str) -> Arc<str> {
    thread_local! {
        static WORDS: RefCell<HashSet<Arc<str>>> = RefCell::default();
    }
    if word.len() > MAX_WORD {
        return word.into();
    }
    WORDS.with_borrow_mut(|words| {
        if let Some(known) = words.get(word) {
            return known.clone();
        }
        let new: Arc<str> = word.into();
        if words.len() < MAX_WORDS {
            words.insert(new.clone());
        }
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_in_the_name_of_its_certificate_only() {
        let node = NodeId::random();
        assert_eq!(NodeId::from_dns_name(&node.dns_name()), Some(node));
        for name in ["node.troop", "localhost", "x.node.troop", &node.to_string()] {
            assert_eq!(NodeId::from_dns_name(name), None, "{name}");
        }
    }
}
