//! What the Admin API asks of the running node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::admin::vitals::{Connections, Readiness, Vitals};
use crate::catalog::Catalog;
use crate::plugin::metrics::Metrics;
use crate::proxy::server::Counters;

/// The running node's side of the Admin API.
pub struct Running {
    pub counters: Arc<Counters>,
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Without a database a node is ready once it has been given a configuration.
    pub dbless: bool,
    pub unready: Arc<AtomicBool>,
    /// None where the prometheus plugin cannot be enabled.
    pub metrics: Option<Arc<Metrics>>,
}

impl Vitals for Running {
    fn connections(&self) -> Connections {
        let totals = self.counters.totals();
        Connections {
            accepted: totals.accepted,
            handled: totals.accepted,
            active: totals.active,
            reading: totals.reading,
            writing: totals.writing,
            waiting: totals.waiting,
            requests: totals.requests,
        }
    }

    fn readiness(&self) -> Readiness {
        if self.unready.load(Ordering::Relaxed) {
            Readiness::Draining
        } else if self.dbless && self.catalog.load().is_empty() {
            Readiness::NoConfiguration
        } else {
            Readiness::Ready
        }
    }

    fn drain(&self) {
        self.unready.store(true, Ordering::Relaxed);
    }

    fn store_reachable(&self) -> bool {
        true
    }

    fn metrics(&self) -> Option<String> {
        Some(self.metrics.as_ref()?.text())
    }
}
