//! The workers and their sockets, and their replacement when settings are read again.

use std::sync::Arc;

use actix_rt::task::JoinHandle;
use arc_swap::ArcSwap;

use crate::node::workers::{Parts, Workers};
use crate::node::{StartError, listeners, terms};
use crate::plugin::Handles;
use crate::proxy::server::{Bound, Counters};
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// The data plane of a running node.
pub struct Proxy {
    workers: Workers,
    /// Kept open so that the next workers accept from the same queues.
    sockets: Vec<Bound>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    counters: Arc<Counters>,
    handles: Arc<Handles>,
    /// Workers of earlier settings that finish what they have.
    retiring: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers on sockets that are bound already.
    pub fn start(
        settings: &Settings,
        sockets: Vec<Bound>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        counters: Arc<Counters>,
        handles: Arc<Handles>,
    ) -> Result<Self, StartError> {
        let workers = start(settings, &sockets, &snapshot, &counters, &handles)?;
        Ok(Self { workers, sockets, snapshot, counters, handles, retiring: Vec::new() })
    }

    /// Puts workers with these settings in the place of the present ones, which finish what they have. No connection is lost:
    /// both accept from the same sockets.
    pub fn reload(&mut self, settings: &Settings) -> Result<(), StartError> {
        // a socket is given up only once it is known that the new workers come up
        let spare = self.sockets.iter().map(Bound::try_clone).collect::<Result<_, _>>();
        let spare = spare.map_err(|error| StartError::Io { what: "cannot keep the sockets", error })?;
        let sockets = listeners::proxy(settings, spare)?;
        let next = start(settings, &sockets, &self.snapshot, &self.counters, &self.handles)?;
        self.sockets = sockets;
        let old = std::mem::replace(&mut self.workers, next);
        self.retiring.retain(|retiring| !retiring.is_finished());
        self.retiring.push(actix_rt::spawn(old.stop()));
        Ok(())
    }

    /// Accepts no more connections and finishes what is under way.
    pub async fn stop(self) {
        // from here on only the workers hold the sockets, and take from their queues to the last
        drop(self.sockets);
        self.workers.stop().await;
        for retiring in self.retiring {
            // a task that panicked has nothing left to finish
            let _ = retiring.await;
        }
    }
}

fn start(
    settings: &Settings,
    sockets: &[Bound],
    snapshot: &Arc<ArcSwap<Snapshot>>,
    counters: &Arc<Counters>,
    handles: &Handles,
) -> Result<Workers, StartError> {
    let ports = settings.clone();
    let parts = Parts {
        terms: Arc::new(terms::engine(settings, handles)?),
        snapshot: Arc::clone(snapshot),
        pool: terms::pool(settings),
        limits: terms::limits(settings),
        counters: Arc::clone(counters),
        tls: listeners::proxy_tls(settings, snapshot)?,
        external_port: Arc::new(move |port| ports.external_port(port)),
        grace: settings.nginx_main_worker_shutdown_timeout.0,
    };
    Workers::start(settings.workers(), &parts, sockets).map_err(|error| StartError::Io { what: "cannot start the workers", error })
}
