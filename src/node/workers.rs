//! The threads that serve requests: each an actix arbiter with its own listeners, connections and pool.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::proxy::client::{Client, PoolLimits};
use crate::proxy::engine::{Engine, Terms};
use crate::proxy::server::{Bound, Counters, Limits, Port, Worker};
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
    /// There where a listener speaks TLS.
    pub tls: Option<TlsListeners>,
    /// The port that clients see for one of ours.
    pub external_port: Arc<dyn Fn(u16) -> u16 + Send + Sync>,
    /// How long requests may take to finish when the node stops.
    pub grace: Duration,
}

/// How TLS is spoken on listeners with and without HTTP/2.
#[derive(Clone)]
pub struct TlsListeners {
    pub http1: Arc<ServerConfig>,
    pub http2: Arc<ServerConfig>,
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
    pub fn start(count: usize, parts: &Parts, sockets: &[Bound]) -> io::Result<Self> {
        let mut ports = Vec::new();
        for bound in sockets {
            let tls = parts.tls.as_ref().filter(|_| bound.listen.ssl);
            let tls = tls.map(|tls| TlsAcceptor::from(Arc::clone(if bound.listen.http2 { &tls.http2 } else { &tls.http1 })));
            let taken = (0..count).map(|worker| bound.socket(worker)).collect::<io::Result<Vec<_>>>()?;
            ports.push((bound.address, bound.listen.clone(), tls, taken));
        }
        let draining = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = watch::channel(false);
        let (mut arbiters, mut done) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let own: Vec<_> = ports
                .iter_mut()
                .filter_map(|(address, listen, tls, sockets)| {
                    let port = Port {
                        address: *address,
                        external: (parts.external_port)(address.port()),
                        http2: listen.http2,
                        proxy_protocol: listen.proxy_protocol,
                        tls: tls.clone(),
                    };
                    Some((port, sockets.pop()?))
                })
                .collect();
            let (parts, draining, mut stopped) = (parts.clone(), Arc::clone(&draining), stopped.clone());
            let (finished, wait) = oneshot::channel();
            let arbiter = Arbiter::new();
            arbiter.spawn_fn(move || {
                actix_rt::spawn(async move {
                    let client = Client::new(parts.pool);
                    let engine = Rc::new(Engine::new(parts.terms, parts.snapshot, Rc::clone(&client), draining));
                    let worker = Worker::new(engine, parts.limits, &parts.counters);
                    for (port, socket) in own {
                        let address = port.address;
                        if let Err(error) = worker.listen(socket, Rc::new(port)) {
                            tracing::error!(%error, %address, "a worker cannot use its socket");
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
        Ok(Self { arbiters, draining, stop, done })
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
