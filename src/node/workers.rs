//! The threads that serve requests: each an actix arbiter with its own listeners, connections and pool.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use crate::proxy::client::{Client, PoolLimits};
use crate::proxy::engine::{Engine, Terms};
use crate::proxy::server::{Bound, Counters, Limits, Port, Worker};
use crate::settings::Listen;
use crate::snapshot::Snapshot;

/// How often idle connections to upstreams are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What all workers are made of.
#[derive(Clone)]
pub struct Parts {
    pub terms: Arc<Terms>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub pool: PoolLimits,
    pub limits: Limits,
    pub counters: Arc<Counters>,
    /// How long requests may take to finish when the node stops.
    pub grace: Duration,
}

/// The running workers.
pub struct Workers {
    arbiters: Vec<Arbiter>,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    done: Vec<oneshot::Receiver<()>>,
}

impl Workers {
    /// Starts `count` workers on sockets that are bound already.
    pub fn start(count: usize, parts: &Parts, mut sockets: Vec<(Listen, Bound)>) -> Self {
        let draining = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = watch::channel(false);
        let (mut arbiters, mut done) = (Vec::new(), Vec::new());
        for number in 0..count {
            let own: Vec<_> =
                sockets.iter_mut().filter_map(|(listen, bound)| Some((listen.clone(), bound.address, bound.take()?))).collect();
            let (parts, draining, mut stopped) = (parts.clone(), Arc::clone(&draining), stopped.clone());
            let (finished, wait) = oneshot::channel();
            let arbiter = Arbiter::new();
            arbiter.spawn_fn(move || {
                actix_rt::spawn(async move {
                    let client = Client::new(parts.pool);
                    let engine = Rc::new(Engine::new(parts.terms, parts.snapshot, Rc::clone(&client), draining));
                    let worker = Worker::new(engine, parts.limits, &parts.counters, number);
                    for (listen, address, socket) in own {
                        let port = Rc::new(Port { address, http2: listen.http2 });
                        if let Err(error) = worker.listen(socket, port) {
                            tracing::error!(%error, address = %listen.address, "a worker cannot use its socket");
                        }
                    }
                    let mut sweep = tokio::time::interval(SWEEP);
                    loop {
                        tokio::select! {
                            _ = sweep.tick() => client.sweep(),
                            _ = stopped.wait_for(|stop| *stop) => break,
                        }
                    }
                    worker.drain(parts.grace).await;
                    let _ = finished.send(());
                });
            });
            arbiters.push(arbiter);
            done.push(wait);
        }
        Self { arbiters, draining, stop, done }
    }

    /// Accepts no more connections, finishes what is under way, and ends the threads.
    pub async fn stop(self) {
        self.draining.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        for worker in self.done {
            // a worker that panicked has nothing left to finish
            let _ = worker.await;
        }
        for arbiter in self.arbiters {
            arbiter.stop();
            let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
        }
    }
}
