//! Connections and requests, counted as nginx's status module does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counters of all workers. Each worker writes its own, so that no cache line is fought for.
#[derive(Debug, Default)]
pub struct Counters {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    workers: Vec<Arc<WorkerCounters>>,
    /// What workers counted that have ended.
    ended: Totals,
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
    /// The counters of a new worker.
    pub fn tally(&self) -> Tally {
        let own = Arc::new(WorkerCounters::default());
        let mut all = self.all.lock();
        let All { workers, ended } = &mut *all;
        workers.retain(|worker| {
            let alive = Arc::strong_count(worker) > 1;
            if !alive {
                ended.add(worker);
            }
            alive
        });
        workers.push(Arc::clone(&own));
        Tally { own }
    }

    pub fn totals(&self) -> Totals {
        let all = self.all.lock();
        let mut totals = all.ended;
        all.workers.iter().for_each(|worker| totals.add(worker));
        totals
    }
}

impl Totals {
    fn add(&mut self, worker: &WorkerCounters) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.accepted += read(&worker.accepted);
        self.active += read(&worker.active);
        self.reading += read(&worker.reading);
        self.writing += read(&worker.writing);
        self.waiting += read(&worker.waiting);
        self.requests += read(&worker.requests);
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
#[derive(Debug)]
pub struct Tally {
    own: Arc<WorkerCounters>,
}

impl Tally {
    pub fn opened(&self) {
        add(&self.own.accepted, 1);
        add(&self.own.active, 1);
        add(self.phase(Phase::Reading), 1);
    }

    pub fn closed(&self, phase: Phase) {
        add(&self.own.active, -1);
        add(self.phase(phase), -1);
    }

    pub fn moved(&self, from: Phase, to: Phase) {
        if from != to {
            add(self.phase(from), -1);
            add(self.phase(to), 1);
        }
    }

    pub fn request(&self) {
        add(&self.own.requests, 1);
    }

    /// Connections that this worker has open.
    pub fn active(&self) -> u64 {
        self.own.active.load(Ordering::Relaxed)
    }

    fn phase(&self, phase: Phase) -> &AtomicU64 {
        match phase {
            Phase::Reading => &self.own.reading,
            Phase::Writing => &self.own.writing,
            Phase::Waiting => &self.own.waiting,
        }
    }
}

/// Only the worker writes its counters, so that a plain load and store do.
fn add(counter: &AtomicU64, n: i64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_worker_counted_stays() {
        let counters = Counters::default();
        for _ in 0..3 {
            let tally = counters.tally();
            tally.opened();
            tally.request();
            assert_eq!(counters.totals().active, 1);
            tally.closed(Phase::Reading);
        }
        counters.tally();
        let totals = counters.totals();
        assert_eq!((totals.accepted, totals.requests, totals.active, totals.reading), (3, 3, 0, 0));
        assert_eq!(counters.all.lock().workers.len(), 1);
    }
}
