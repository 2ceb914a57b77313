//! What a node counts, and how Prometheus reads it.
//!
//! There is one registry a node. A part that counts asks it for a counter, once, and keeps it:
//! `handles.metrics.counter("troop_things_total", "Things that happened", &["kind"])`. What is known elsewhere already is
//! read when somebody scrapes, by a [`Collector`]. Requests, with their many labels, are counted in [`series`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`family`] | metrics as the encoder takes them |
//! | [`latency`] | the histograms of latencies |
//! | [`series`] | counters with labels that workers share nothing of |
//! | [`targets`] | the health of upstreams' targets |
//! | [`traffic`] | what the prometheus plugin counts of requests |

pub mod family;
pub mod latency;
pub mod series;
pub mod targets;
pub mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::plugin::World;
use crate::plugin::health::Health;
use targets::Targets;
use traffic::Traffic;

/// The one registry of a node.
pub struct Metrics {
    registry: Registry,
    counters: Mutex<BTreeMap<&'static str, IntCounterVec>>,
    gauges: Mutex<BTreeMap<&'static str, IntGaugeVec>>,
    pub traffic: Arc<Traffic>,
    /// Plugin configurations that ask for the health of upstreams' targets.
    health: Arc<AtomicUsize>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let traffic = Arc::new(Traffic::default());
        let metrics = Self { registry, counters: Mutex::default(), gauges: Mutex::default(), traffic, health: Arc::default() };
        metrics.register(Box::new(traffic::Scraped(Arc::clone(&metrics.traffic))));
        metrics
    }
}

/// Metrics are declared in code: one that cannot be registered is a defect that the first test finds.
const DECLARED: &str = "a metric's name and labels are good, and no other metric has the name";

impl Metrics {
    /// The counter of that name; the first who asks makes it.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[&'static str]) -> IntCounterVec {
        let make = || {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(DECLARED);
            self.register(Box::new(counter.clone()));
            counter
        };
        self.counters.lock().entry(name).or_insert_with(make).clone()
    }

    /// The gauge of that name; the first who asks makes it.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[&'static str]) -> IntGaugeVec {
        let make = || {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect(DECLARED);
            self.register(Box::new(gauge.clone()));
            gauge
        };
        self.gauges.lock().entry(name).or_insert_with(make).clone()
    }

    /// A histogram without labels; there is one of each name.
    pub fn histogram(&self, name: &'static str, help: &'static str, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(DECLARED);
        self.register(Box::new(histogram.clone()));
        histogram
    }

    /// Adds what is read when somebody scrapes.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry.register(collector).expect(DECLARED);
    }

    /// Log records that reached no sink, by plugin and reason.
    pub fn log_records_dropped(&self) -> IntCounterVec {
        self.counter("troop_log_records_dropped_total", "Log records that reached no sink", &["plugin", "reason"])
    }

    /// Log records that a sink has taken, by plugin.
    pub fn log_records_written(&self) -> IntCounterVec {
        self.counter("troop_log_records_written_total", "Log records that a sink has taken", &["plugin"])
    }

    /// Tells where names of routes, services and consumers are found: the configuration at the moment of a scrape.
    pub fn name_by(&self, world: impl Fn() -> Arc<dyn World> + Send + Sync + 'static) {
        self.traffic.name_by(Box::new(world));
    }

    /// Asks for the health of upstreams' targets, for as long as the answer is kept.
    pub fn want_health(&self) -> WantsHealth {
        self.health.fetch_add(1, Ordering::Relaxed);
        WantsHealth(Arc::clone(&self.health))
    }

    /// Shows the health of these upstreams' targets, while it is asked for, and what became of probes.
    pub fn show_targets(&self, health: Arc<dyn Health>) {
        self.register(Box::new(Targets { health, wanted: Arc::clone(&self.health) }));
    }

    /// Whether somebody asks for the health of upstreams' targets.
    pub fn health_wanted(&self) -> bool {
        self.health.load(Ordering::Relaxed) > 0
    }

    /// Everything in Prometheus' text format. Takes milliseconds where there are thousands of label sets.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }
}

/// Somebody asks for the health of upstreams' targets.
pub struct WantsHealth(Arc<AtomicUsize>);

impl Drop for WantsHealth {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn a_counter_is_one_whoever_asks() {
        let metrics = Metrics::default();
        let counter = || metrics.counter("troop_things_total", "Things", &["kind"]);
        counter().with_label_values(&["a"]).inc();
        counter().with_label_values(&["a"]).inc_by(2);
        metrics.gauge("troop_size", "Size", &[]).with_label_values(&[] as &[&str]).set(5);
        metrics.histogram("troop_time_seconds", "Time", &[0.5]).observe(0.1);
        let text = metrics.text();
        for line in [
            "# HELP troop_things_total Things\n# TYPE troop_things_total counter\ntroop_things_total{kind=\"a\"} 3\n",
            "# TYPE troop_size gauge\ntroop_size 5\n",
            "troop_time_seconds_bucket{le=\"0.5\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn health_is_wanted_while_somebody_wants_it() {
        let metrics = Metrics::default();
        let (one, two) = (metrics.want_health(), metrics.want_health());
        drop(one);
        assert!(metrics.health_wanted());
        drop(two);
        assert!(!metrics.health_wanted());
    }
}
