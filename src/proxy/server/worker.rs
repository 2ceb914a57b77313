//! What the connections of a worker share.
//!
//! Time limits cost a connection two assignments: it writes down until when it waits, and one task a worker looks at all
//! connections a few times a second and wakes those whose time is up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::proxy::handler::Handler;
use crate::proxy::server::Limits;
use crate::proxy::server::counters::{Counters, Phase, Tally};
use crate::proxy::server::date::Date;

/// Capacity of a buffer to read into.
pub const READ: usize = 16 * 1024;
/// Buffers kept for reuse.
const SPARE: usize = 256;
/// No time limit.
const NEVER: u64 = u64::MAX;

/// The servers of one worker: all its listeners and connections.
pub struct Worker<H> {
    pub handler: Rc<H>,
    pub shared: Rc<Shared>,
}

impl<H: Handler> Worker<H> {
    /// Called on the worker's own thread, within its runtime.
    pub fn new(handler: Rc<H>, limits: Limits, counters: &Counters) -> Rc<Self> {
        let tick = limits.tick();
        let shared = Rc::new(Shared {
            limits,
            date: Date::new(),
            tally: counters.tally(),
            started: Instant::now(),
            tick,
            now: Cell::new(0),
            listening: Cell::new(0),
            watches: RefCell::default(),
            buffers: RefCell::default(),
            draining: Cell::new(false),
            drain_began: Notify::new(),
            closed: Notify::new(),
        });
        let weak = Rc::downgrade(&shared);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(tick).await;
                let Some(shared) = weak.upgrade() else { return };
                shared.tick();
            }
        });
        Rc::new(Self { handler, shared })
    }

    /// Accepts no more connections, lets requests finish and closes idle connections; what is not done after `limit` is cut.
    ///
    /// The handler's `draining` is to say true from before this call.
    pub async fn drain(&self, limit: Duration) {
        self.shared.drain();
        if tokio::time::timeout(limit, self.shared.emptied()).await.is_err() {
            self.shared.cut();
            // each connection is woken and drops what it holds
            let _ = tokio::time::timeout(Duration::from_secs(1), self.shared.emptied()).await;
        }
    }
}

/// What does not depend on the handler.
#[derive(Debug)]
pub struct Shared {
    pub limits: Limits,
    pub date: Date,
    pub tally: Tally,
    started: Instant,
    tick: Duration,
    /// Milliseconds since `started`, as of the last tick.
    now: Cell<u64>,
    /// Loops that accept connections.
    listening: Cell<usize>,
    watches: RefCell<Vec<Rc<Watch>>>,
    buffers: RefCell<Vec<BytesMut>>,
    draining: Cell<bool>,
    drain_began: Notify,
    /// A connection was closed.
    closed: Notify,
}

impl Shared {
    fn tick(&self) {
        self.date.refresh();
        let now = self.started.elapsed().as_millis() as u64;
        self.now.set(now);
        for watch in self.watches.borrow().iter() {
            if watch.read_until.get().min(watch.write_until.get()) <= now {
                watch.wake();
            }
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        let grace = self.after(self.limits.drain_grace);
        for watch in self.watches.borrow().iter() {
            if watch.phase.get() != Phase::Writing {
                watch.read_until.set(watch.read_until.get().min(grace));
            }
            watch.wake();
        }
        self.drain_began.notify_waiters();
    }

    fn cut(&self) {
        for watch in self.watches.borrow().iter() {
            watch.cut.set(true);
            watch.wake();
        }
    }

    /// Once there is no connection, and no loop that could still accept one.
    async fn emptied(&self) {
        loop {
            let closed = self.closed.notified();
            if self.listening.get() == 0 && self.watches.borrow().is_empty() {
                return;
            }
            closed.await;
        }
    }

    /// Whether no more connections are accepted.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Once draining has begun.
    pub async fn drained(&self) {
        while !self.draining() {
            self.drain_began.notified().await;
        }
    }

    /// Once there is room for another connection.
    pub async fn room(&self) {
        while self.tally.active() >= self.limits.connections {
            self.closed.notified().await;
        }
    }

    fn after(&self, limit: Duration) -> u64 {
        // the last tick may be as long ago as a tick, which a short limit must not lose
        let now = if limit < 8 * self.tick { self.started.elapsed().as_millis() as u64 } else { self.now.get() };
        now.saturating_add(limit.as_millis() as u64).saturating_add(1)
    }

    /// Counts a loop that accepts connections, until the result is dropped.
    pub fn listening(self: &Rc<Self>) -> Listening {
        self.listening.set(self.listening.get() + 1);
        Listening(Rc::clone(self))
    }

    /// Counts and watches a new connection, until the result is dropped.
    pub fn watch(self: &Rc<Self>) -> Rc<Watched> {
        let mut watches = self.watches.borrow_mut();
        let watch = Rc::new(Watch {
            index: Cell::new(watches.len()),
            phase: Cell::new(Phase::Reading),
            read_until: Cell::new(NEVER),
            write_until: Cell::new(NEVER),
            cut: Cell::new(false),
            waker: RefCell::default(),
        });
        watches.push(Rc::clone(&watch));
        self.tally.opened();
        Rc::new(Watched { shared: Rc::clone(self), watch })
    }

    /// An empty buffer with room for [`READ`] bytes.
    pub fn buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(READ))
    }

    /// Takes back a buffer whose bytes were used.
    pub fn give_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE && buffer.try_reclaim(READ) && buffer.capacity() <= 2 * READ {
            buffers.push(buffer);
        }
    }
}

/// A loop that accepts connections.
pub struct Listening(Rc<Shared>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listening.set(self.0.listening.get() - 1);
        self.0.closed.notify_waiters();
    }
}

/// What a connection waits for, as the worker's clock sees it.
#[derive(Debug)]
struct Watch {
    index: Cell<usize>,
    phase: Cell<Phase>,
    read_until: Cell<u64>,
    write_until: Cell<u64>,
    /// The connection is to end at once.
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A connection's hand on its time limits; counts it as closed when dropped.
#[derive(Debug)]
pub struct Watched {
    shared: Rc<Shared>,
    watch: Rc<Watch>,
}

/// A direction in which a connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

impl Watched {
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Remembers the connection's task; called at each of its polls. False when the connection is to end at once.
    pub fn attend(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.watch.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        !self.watch.cut.get()
    }

    pub fn phase(&self) -> Phase {
        self.watch.phase.get()
    }

    pub fn enter(&self, phase: Phase) {
        self.shared.tally.moved(self.watch.phase.replace(phase), phase);
    }

    /// Whether the time in this direction is up. The first call sets the limit; [`Watched::moved`] forgets it.
    pub fn is_over(&self, direction: Direction, limit: Duration) -> bool {
        let until = self.until(direction);
        if until.get() == NEVER {
            until.set(self.shared.after(limit));
            return false;
        }
        until.get() <= self.shared.now.get()
    }

    /// Bytes have moved in this direction, or nothing is awaited in it any more.
    pub fn moved(&self, direction: Direction) {
        self.until(direction).set(NEVER);
    }

    fn until(&self, direction: Direction) -> &Cell<u64> {
        match direction {
            Direction::Read => &self.watch.read_until,
            Direction::Write => &self.watch.write_until,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let index = self.watch.index.get();
        let mut watches = self.shared.watches.borrow_mut();
        watches.swap_remove(index);
        if let Some(moved) = watches.get(index) {
            moved.index.set(index);
        }
        self.shared.tally.closed(self.watch.phase.get());
        self.shared.closed.notify_waiters();
    }
}
