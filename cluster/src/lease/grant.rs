//! What a node may spend of a window without asking anybody.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::{USED_UP, Window, passed};

/// Shared by the requests of a node, for the time of a window.
#[derive(Debug)]
pub struct Grant {
    pub window: Window,
    remaining: AtomicI64,
    /// What the owner could still give, when it last said so.
    left: AtomicI64,
    /// Below this much a portion should be asked for in advance.
    low: AtomicI64,
    /// Whether somebody has seen that it runs low, and asks.
    asked: AtomicBool,
    /// When it was last known that nothing is left, in milliseconds since 1970.
    used_up: AtomicU64,
    used: AtomicBool,
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

impl Grant {
    /// With a first portion, of which the owner knows.
    pub(super) fn new(window: &Window, share: u64) -> Self {
        Self {
            window: *window,
            remaining: AtomicI64::new(signed(share)),
            left: AtomicI64::new(signed(window.limit.saturating_sub(share))),
            low: AtomicI64::new(signed(share / 2)),
            asked: AtomicBool::new(false),
            used_up: AtomicU64::new(0),
            used: AtomicBool::new(true),
        }
    }

    /// Spends if there is enough. `None`: the owner is to be asked. Otherwise whether the caller is to ask for more in advance,
    /// which is said to one caller. One atomic operation on what is shared, and a second when it fails.
    pub fn try_spend(&self, cost: u64) -> Option<bool> {
        let cost = signed(cost);
        let taken = |remaining: i64| (remaining >= cost).then(|| remaining - cost);
        let before = self.remaining.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        self.used.store(true, Ordering::Relaxed);
        Some(before - cost < self.low.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::Relaxed))
    }

    /// Whether there is so much to spend.
    pub fn has(&self, amount: u64) -> bool {
        self.remaining.load(Ordering::Acquire) >= signed(amount)
    }

    /// Spends as much of this as there is; how much that was.
    pub(super) fn spend_some(&self, cost: u64) -> u64 {
        let mut taken = 0;
        let spend = |remaining: i64| {
            taken = remaining.clamp(0, signed(cost));
            Some(remaining - taken)
        };
        let _ = self.remaining.fetch_update(Ordering::AcqRel, Ordering::Acquire, spend);
        self.used.store(true, Ordering::Relaxed);
        taken as u64
    }

    /// Gives back what was spent for nothing, or more.
    pub fn give_back(&self, amount: u64) {
        self.used_up.store(0, Ordering::Relaxed);
        self.remaining.fetch_add(signed(amount), Ordering::AcqRel);
    }

    /// Whether it is known that the limit is used up.
    pub fn is_used_up(&self, now: u64) -> bool {
        !passed(self.used_up.load(Ordering::Relaxed), USED_UP, now)
    }

    /// About how much of the limit is left: what is here and what the owner had. Negative when more was spent than there was.
    pub fn left(&self) -> i64 {
        self.remaining.load(Ordering::Relaxed).saturating_add(self.left.load(Ordering::Relaxed))
    }

    /// An answer of the owner.
    pub(super) fn add(&self, amount: u64, left: i64) {
        self.remaining.fetch_add(signed(amount), Ordering::AcqRel);
        self.left.store(left, Ordering::Relaxed);
        self.low.store(signed(amount / 2), Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Nobody asks for more.
    pub(super) fn unasked(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    pub(super) fn use_up(&self, now: u64) {
        self.used_up.store(now, Ordering::Relaxed);
    }

    /// More was spent than was given, or less than nothing.
    pub(super) fn owe(&self, left: i64) {
        self.used_up.store(0, Ordering::Relaxed);
        self.left.fetch_add(left, Ordering::Relaxed);
    }

    /// All that is not spent goes back to the owner.
    pub(super) fn take_all(&self) -> u64 {
        let taken = self.remaining.swap(0, Ordering::AcqRel);
        self.low.store(0, Ordering::Relaxed);
        self.left.fetch_add(taken, Ordering::Relaxed);
        taken.max(0) as u64
    }

    /// Whether anything was spent since this was last asked.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}
