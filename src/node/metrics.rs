//! What the node says of itself to Prometheus: under Kong's names what has a counterpart there, under Troop's what has none.

use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::actors::supervise;
use crate::admin::context::{KONG_VERSION, TROOP_VERSION};
use crate::admin::vitals::resident_memory;
use crate::plugin::counters::Counters as RateLimits;
use crate::plugin::metrics::family::{counter, gauge};
use crate::plugin::metrics::traffic::Traffic;
use crate::plugin::panics;
use crate::proxy::server::Counters;

const INFO: &str = "kong_node_info";
const INFO_HELP: &str = "Kong Node metadata information";
/// Of Kong's two kinds of listeners the one that there is.
const SUBSYSTEM: &str = "http";

/// What the registry reads of the node.
pub struct NodeMetrics {
    /// Id of the node.
    pub id: String,
    pub connections: Arc<Counters>,
    pub rate_limits: Arc<RateLimits>,
    pub traffic: Arc<Traffic>,
    /// How often Redis servers failed.
    pub redis_failures: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the store answers.
    pub reachable: Box<dyn Fn() -> bool + Send + Sync>,
}

impl NodeMetrics {
    fn nginx(&self) -> Vec<MetricFamily> {
        let totals = self.connections.totals();
        let (id, subsystem) = (("node_id", self.id.as_str()), ("subsystem", SUBSYSTEM));
        let states = [
            ("accepted", totals.accepted),
            ("active", totals.active),
            ("handled", totals.accepted),
            ("reading", totals.reading),
            ("total", totals.requests),
            ("waiting", totals.waiting),
            ("writing", totals.writing),
        ];
        let states = states.map(|(state, n)| (vec![id, subsystem, ("state", state)], n as f64));
        vec![
            gauge("kong_nginx_connections_total", "Number of connections by subsystem", states),
            gauge("kong_nginx_requests_total", "Number of requests total", [(vec![id, subsystem], totals.requests as f64)]),
            gauge("kong_nginx_timers", "Number of nginx timers", ["pending", "running"].map(|state| (vec![("state", state)], 0.0))),
        ]
    }

    /// Where Kong shows its Lua machines and shared dictionaries: the process, and the tables that stand in their place.
    fn memory(&self) -> Vec<MetricFamily> {
        let (id, subsystem) = (("node_id", self.id.as_str()), ("kong_subsystem", SUBSYSTEM));
        let pid = std::process::id().to_string();
        let series = &self.traffic.series;
        let tables = [
            ("kong_rate_limiting_counters", self.rate_limits.len() * RateLimits::KEY_BYTES, RateLimits::MOST_KEYS * RateLimits::KEY_BYTES),
            ("prometheus_metrics", series.bytes(), series.most_bytes()),
        ];
        let sample = |table, bytes| (vec![id, ("shared_dict", table), subsystem], bytes as f64);
        let used = tables.map(|(table, used, _)| sample(table, used));
        let most = tables.map(|(table, _, most)| sample(table, most));
        let process = [(vec![id, ("pid", pid.as_str()), subsystem], resident_memory() as f64)];
        vec![
            gauge("kong_memory_lua_shared_dict_bytes", "Allocated slabs in bytes in a shared_dict", used),
            gauge("kong_memory_lua_shared_dict_total_bytes", "Total capacity in bytes of a shared_dict", most),
            gauge("kong_memory_workers_lua_vms_bytes", "Allocated bytes in worker Lua VM", process),
        ]
    }
}

impl Collector for NodeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        static DESC: OnceLock<Option<Desc>> = OnceLock::new();
        DESC.get_or_init(|| Desc::new(INFO.into(), INFO_HELP.into(), vec![], Default::default()).ok()).iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (restarts, panics) = (supervise::restarts(), panics::counts());
        let mut families = self.nginx();
        families.extend(self.memory());
        families.extend([
            gauge(INFO, INFO_HELP, [(vec![("node_id", self.id.as_str()), ("version", KONG_VERSION)], 1.0)]),
            gauge("troop_info", "The version of Troop", [(vec![("version", TROOP_VERSION)], 1.0)]),
            gauge(
                "kong_datastore_reachable",
                "Datastore reachable from Kong, 0 is unreachable",
                [(vec![], if (self.reachable)() { 1.0 } else { 0.0 })],
            ),
            counter(
                "troop_actor_restarts_total",
                "Actors that were built anew after a panic",
                restarts.iter().map(|(actor, n)| (vec![("actor", *actor)], *n)),
            ),
            counter("troop_redis_failures_total", "Commands to Redis servers that failed", [(vec![], (self.redis_failures)())]),
            counter(
                "troop_plugin_panics_total",
                "Panics of plugins, each of which cost one request its plugin",
                panics.iter().map(|(plugin, n)| (vec![("plugin", *plugin)], *n)),
            ),
        ]);
        families
    }
}
