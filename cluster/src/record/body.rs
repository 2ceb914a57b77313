//! The body of a record: bytes that are shared by all that hold the record, and by the row that was made of it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Clones are the same bytes in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Shared);

/// Whatever is a text is kept as one, so that equal bytes are of the same form.
#[derive(Clone, PartialEq, Eq)]
enum Shared {
    Text(Arc<str>),
    Other(Arc<[u8]>),
}

impl Body {
    /// The text, when it is one.
    pub fn text(&self) -> Option<&Arc<str>> {
        match &self.0 {
            Shared::Text(text) => Some(text),
            Shared::Other(_) => None,
        }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Shared::Text(text) => text.as_bytes(),
            Shared::Other(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Self(std::str::from_utf8(bytes).map_or_else(|_| Shared::Other(bytes.into()), |text| Shared::Text(text.into())))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl From<Arc<str>> for Body {
    fn from(text: Arc<str>) -> Self {
        Self(Shared::Text(text))
    }
}

impl fmt::Debug for Body {
    /// Its length alone: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
