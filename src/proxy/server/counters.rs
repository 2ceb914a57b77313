//! Connections and requests, counted as nginx's status module does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of all workers. Each worker writes its own, so that no cache line is fought for.
#[derive(Debug)]
pub struct Counters {
    workers: Box<[WorkerCounters]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerCounters {
    accepted: AtomicU64,
    active: AtomicU64,
    reading: AtomicU64,
    writing: AtomicU64,
    waiting: AtomicU64,
    requests: AtomicU64,
}

/// Sums over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections open now, idle ones too.
    pub active: u64,
    /// Connections of which a head is being read.
    pub reading: u64,
    /// Connections of which a request is being served.
    pub writing: u64,
    /// Idle connections kept open.
    pub waiting: u64,
    /// Requests since the start.
    pub requests: u64,
}

impl Counters {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { workers: (0..workers.max(1)).map(|_| WorkerCounters::default()).collect() })
    }

    pub fn totals(&self) -> Totals {
        let sum = |of: fn(&WorkerCounters) -> &AtomicU64| self.workers.iter().map(|w| of(w).load(Ordering::Relaxed)).sum();
        Totals {
            accepted: sum(|w| &w.accepted),
            active: sum(|w| &w.active),
            reading: sum(|w| &w.reading),
            writing: sum(|w| &w.writing),
            waiting: sum(|w| &w.waiting),
            requests: sum(|w| &w.requests),
        }
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A head is being read, or the connection is new.
    Reading,
    /// A request is being served.
    Writing,
    /// The connection is kept open between two requests.
    Waiting,
}

/// One worker's hand on its counters.
#[derive(Clone, Debug)]
pub struct Tally {
    counters: Arc<Counters>,
    worker: usize,
}

impl Tally {
    /// For the worker with this number, from 0.
    pub fn new(counters: &Arc<Counters>, worker: usize) -> Self {
        Self { counters: Arc::clone(counters), worker: worker % counters.workers.len() }
    }

    pub fn opened(&self) {
        add(&self.own().accepted, 1);
        add(&self.own().active, 1);
        add(self.phase(Phase::Reading), 1);
    }

    pub fn closed(&self, phase: Phase) {
        add(&self.own().active, -1);
        add(self.phase(phase), -1);
    }

    pub fn moved(&self, from: Phase, to: Phase) {
        if from != to {
            add(self.phase(from), -1);
            add(self.phase(to), 1);
        }
    }

    pub fn request(&self) {
        add(&self.own().requests, 1);
    }

    /// Connections that this worker has open.
    pub fn active(&self) -> u64 {
        self.own().active.load(Ordering::Relaxed)
    }

    fn own(&self) -> &WorkerCounters {
        &self.counters.workers[self.worker]
    }

    fn phase(&self, phase: Phase) -> &AtomicU64 {
        match phase {
            Phase::Reading => &self.own().reading,
            Phase::Writing => &self.own().writing,
            Phase::Waiting => &self.own().waiting,
        }
    }
}

/// Only the worker writes its counters, so that a plain load and store do.
fn add(counter: &AtomicU64, n: i64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(n), Ordering::Relaxed);
}
