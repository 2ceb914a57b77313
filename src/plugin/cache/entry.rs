//! A kept answer and the key that names it.

use bytes::Bytes;

use crate::http::Headers;
use crate::plugin::counters::Moment;

/// Memory that an entry takes beside its fields and its body: the entry itself and its places in the tables.
const OVERHEAD: usize = 400;

/// Names an answer: a SHA-256 digest, which clients see as 64 hexadecimal digits in `X-Cache-Key`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// A key as clients see it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = (high? << 4 | low?) as u8;
        }
        Some(Self(key))
    }

    /// The key as clients see it.
    pub fn hex(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                // without a table, so that it is done many at a time
                *digit = half + if half < 10 { b'0' } else { b'a' - 10 };
            }
        }
        digits
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).expect("hexadecimal digits"))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({self})")
    }
}

/// How a request fared: `X-Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Answered from the cache.
    Hit,
    /// Nothing was kept; the upstream's answer will be.
    Miss,
    /// What is kept is too old, or too old for this client; the upstream's answer will take its place.
    Refresh,
    /// The request or its answer is not for the cache.
    Bypass,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "Hit",
            Self::Miss => "Miss",
            Self::Refresh => "Refresh",
            Self::Bypass => "Bypass",
        }
    }
}

/// A kept answer. It does not change: hits share it, and its body with it.
#[derive(Debug)]
pub struct Entry {
    pub status: u16,
    /// As they are sent again: without those of a connection and of one request, with `Content-Length`.
    pub headers: Headers,
    /// Empty for HEAD.
    pub body: Bytes,
    /// When the answer was complete.
    pub stored: Moment,
    /// Seconds for which the answer is fresh.
    pub ttl: u64,
    /// When it is given up, fresh or not.
    pub expires: Moment,
    /// How the request fared that brought it.
    pub brought_by: Status,
}

impl Entry {
    /// Seconds since the answer was complete, by the clock's full seconds as in Kong.
    pub fn age(&self, now: Moment) -> u64 {
        (now.0 / 1000).saturating_sub(self.stored.0 / 1000)
    }

    /// Bytes of memory that the entry takes.
    pub fn size(&self) -> usize {
        OVERHEAD + self.headers.memory() + self.body.len()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn key(n: u8) -> Key {
        Key([n; 32])
    }

    /// An entry of that body, stored and given up at these moments.
    pub fn entry(body: &'static str, stored: u64, expires: u64) -> Entry {
        Entry {
            status: 200,
            headers: Headers::new(),
            body: Bytes::from_static(body.as_bytes()),
            stored: Moment(stored),
            ttl: 10,
            expires: Moment(expires),
            brought_by: Status::Miss,
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = Key(std::array::from_fn(|i| (i * 8 + 3) as u8));
        assert_eq!(Key::parse(&key.to_string()), Some(key));
        assert_eq!(Key::parse(&key.to_string().to_uppercase()), Some(key));
        for text in ["", "12", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn age_counts_full_seconds_of_the_clock() {
        let entry = entry("", 1_900, 0);
        for (now, age) in [(1_900, 0), (2_000, 1), (2_999, 1), (3_000, 2), (0, 0)] {
            assert_eq!(entry.age(Moment(now)), age, "{now}");
        }
    }
}
