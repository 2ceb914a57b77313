//! Hybrid logical clock: stamps that follow wall time, never repeat on a node, and are later than every stamp seen before.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::id::NodeId;

/// Milliseconds since 1970 in 48 bits, a counter in 16, and the node that made it. Ordered in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Stamp {
    time: u64,
    pub node: NodeId,
}

const MAX_MILLIS: u64 = (1 << 48) - 1;

impl Stamp {
    /// Earlier than every stamp of a clock.
    pub const ZERO: Self = Self { time: 0, node: NodeId(0) };

    pub fn new(millis: u64, counter: u16, node: NodeId) -> Self {
        Self { time: (millis.min(MAX_MILLIS) << 16) | u64::from(counter), node }
    }

    /// The first stamp of a millisecond, for comparing with points in time.
    pub fn at(millis: u64) -> Self {
        Self::new(millis, 0, NodeId(0))
    }

    pub fn millis(self) -> u64 {
        self.time >> 16
    }

    pub fn counter(self) -> u16 {
        (self.time & 0xffff) as u16
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.millis(), self.counter(), self.node)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a stamp.
#[derive(Debug, thiserror::Error)]
#[error("not a stamp: milliseconds, a counter and a node, with dots between them, are expected")]
pub struct NotAStamp;

impl FromStr for Stamp {
    type Err = NotAStamp;

    fn from_str(text: &str) -> Result<Self, NotAStamp> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(NotAStamp);
        let millis = part()?.parse().map_err(|_| NotAStamp)?;
        let counter = part()?.parse().map_err(|_| NotAStamp)?;
        let node = part()?.parse().map_err(|_| NotAStamp)?;
        if millis > MAX_MILLIS {
            return Err(NotAStamp);
        }
        Ok(Self::new(millis, counter, node))
    }
}

/// The clock of a node. It has no time of its own: the caller says what the wall clock shows.
#[derive(Debug)]
pub struct Clock {
    node: NodeId,
    last: u64,
}

impl Clock {
    /// `last` is the greatest stamp that the node has kept, so that a clock that was set back does not repeat stamps.
    pub fn new(node: NodeId, last: Stamp) -> Self {
        Self { node, last: last.time }
    }

    /// The next stamp. A counter that is used up borrows from the next millisecond.
    pub fn tick(&mut self, wall_millis: u64) -> Stamp {
        let wall = wall_millis.min(MAX_MILLIS) << 16;
        self.last = wall.max(self.last.saturating_add(1));
        Stamp { time: self.last, node: self.node }
    }

    /// Takes note of a stamp of another node: the next one made here is later.
    pub fn observe(&mut self, seen: Stamp) {
        self.last = self.last.max(seen.time);
    }

    pub fn last(&self) -> Stamp {
        Stamp { time: self.last, node: self.node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_while_the_wall_clock_stands_or_goes_back() {
        let mut clock = Clock::new(NodeId(1), Stamp::ZERO);
        let mut last = clock.tick(5_000);
        for wall in [5_000, 5_000, 4_000, 0, 5_001, u64::MAX, 3] {
            let next = clock.tick(wall);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn a_full_counter_borrows_from_the_next_millisecond() {
        let mut clock = Clock::new(NodeId(1), Stamp::new(7, u16::MAX, NodeId(1)));
        assert_eq!(clock.tick(7), Stamp::new(8, 0, NodeId(1)));
    }

    #[test]
    fn what_was_seen_is_earlier_than_what_comes() {
        let mut clock = Clock::new(NodeId(1), Stamp::ZERO);
        let seen = Stamp::new(9_000, 3, NodeId(2));
        clock.observe(seen);
        assert!(clock.tick(10) > seen);
    }

    #[test]
    fn a_stamp_is_read_as_it_is_written() {
        let stamp = Stamp::new(1_700_000_000_000, 12, NodeId::random());
        assert_eq!(stamp.to_string().parse::<Stamp>().expect("a stamp"), stamp);
        for text in ["", "1", "1.2", "1.2.x", "a.2.3", "1.70000.00000000-0000-0000-0000-000000000000"] {
            assert!(text.parse::<Stamp>().is_err(), "{text}");
        }
    }
}
