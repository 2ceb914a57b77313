//! What a connection's streams do, and what of it is abuse.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::proxy::server::counters::Phase;
use crate::proxy::server::worker::{Direction, Watched};

/// Streams that a client may reset before their answer has begun, while it lets fewer than half of all be answered. More than a
/// browser ever takes back, and nothing to what the reset of streams as an attack needs (CVE-2023-44487).
const CANCELLED: u64 = 1000;
/// Bytes that may pass without carrying anything, and for how many of all bytes one must carry something beyond that: frames
/// that ask for an answer or for work (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, frames without content). As nginx has it.
const USELESS: u64 = 8 * 1024 * 1024;
const USELESS_SHARE: u64 = 8;

/// The account of one connection.
pub struct Ledger {
    watched: Rc<Watched>,
    /// Streams open now.
    open: Cell<usize>,
    /// Streams since the start.
    opened: Cell<u64>,
    /// Streams that the client reset before their answer had begun.
    cancelled: Cell<u64>,
    /// Bytes read and written since no stream was open.
    passed: Cell<u64>,
    /// Of these, bytes of heads and bodies.
    useful: Cell<u64>,
}

impl Ledger {
    pub fn new(watched: Rc<Watched>) -> Self {
        Self {
            watched,
            open: Cell::default(),
            opened: Cell::default(),
            cancelled: Cell::default(),
            passed: Cell::default(),
            useful: Cell::default(),
        }
    }

    /// Counts a stream as open until the result is dropped.
    pub fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        self.opened.set(self.opened.get() + 1);
        self.watched.moved(Direction::Read);
        self.watched.enter(Phase::Writing);
        self.watched.shared().tally.request();
        Open(Rc::clone(self))
    }

    pub fn is_open(&self) -> bool {
        self.open.get() > 0
    }

    /// How long the next stream is awaited while none is open.
    pub fn patience(&self) -> Duration {
        let limits = &self.watched.shared().limits;
        if self.opened.get() == 0 { limits.header_timeout } else { limits.keepalive_timeout }
    }

    /// Whether the connection has served as many requests as it may.
    pub fn is_worn_out(&self) -> bool {
        self.opened.get() >= self.watched.shared().limits.keepalive_requests.max(1)
    }

    /// Bytes were read or written.
    pub fn passed(&self, bytes: usize) {
        self.passed.set(self.passed.get() + bytes as u64);
    }

    /// Of those, bytes that carried something.
    pub fn useful(&self, bytes: usize) {
        self.useful.set(self.useful.get() + bytes as u64);
    }

    /// What the client does that none does who wants answers.
    pub fn abuse(&self) -> Option<&'static str> {
        if self.cancelled.get() > CANCELLED && self.cancelled.get() > self.opened.get() / 2 {
            return Some("streams reset before they are answered");
        }
        if self.passed.get() > USELESS + USELESS_SHARE * self.useful.get() {
            return Some("frames that carry nothing");
        }
        None
    }
}

/// An open stream.
pub struct Open(Rc<Ledger>);

impl Open {
    pub fn ledger(&self) -> &Rc<Ledger> {
        &self.0
    }

    /// The client has reset the stream before its answer had begun.
    pub fn cancelled(&self) {
        self.0.cancelled.set(self.0.cancelled.get() + 1);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ledger = &self.0;
        ledger.open.set(ledger.open.get() - 1);
        if !ledger.is_open() {
            ledger.passed.set(0);
            ledger.useful.set(0);
            ledger.watched.enter(Phase::Waiting);
        }
    }
}
