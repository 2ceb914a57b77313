//! What the node says of itself to Prometheus: under Kong's names what has a counterpart there, under Troop's what has none.

use std::sync::{Arc, OnceLock};

use ::cluster::Overview;
use ::cluster::mesh::tls::Tls;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::actors::replication::{LimitStats, Replication};
use crate::actors::supervise;
use crate::admin::context::{KONG_VERSION, TROOP_VERSION};
use crate::admin::vitals::resident_memory;
use crate::plugin::cache::Cache;
use crate::plugin::counters::Counters as RateLimits;
use crate::plugin::metrics::family::{counter, gauge};
use crate::plugin::metrics::traffic::Traffic;
use crate::plugin::panics;
use crate::proxy::server::Counters;
use crate::store::Health;

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
    pub cache: Arc<Cache>,
    pub traffic: Arc<Traffic>,
    /// How often Redis servers failed.
    pub redis_failures: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The cluster that the node is one of.
    pub cluster: Option<Arc<Replication>>,
    /// The node's certificate towards the others.
    pub certificate: Option<Arc<Tls>>,
    /// How writing to the store goes.
    pub store: Arc<Health>,
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
        let kept = self.cache.memory.sizes();
        let tables = [
            ("kong_db_cache", kept.bytes, kept.budget),
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

impl NodeMetrics {
    /// What has become of look-ups in the cache, of its entries, and of requests that waited for another one's answer.
    fn cache(&self) -> Vec<MetricFamily> {
        let sizes = self.cache.memory.sizes();
        let (waited, in_vain) = self.cache.fills.totals();
        let by = |label, counts: [(&'static str, u64); 2]| counts.map(|(value, n)| (vec![(label, value)], n));
        let waits = [("answered", waited.saturating_sub(in_vain)), ("in vain", in_vain)];
        vec![
            gauge("troop_cache_entries", "Answers that are kept", [(vec![], sizes.entries as f64)]),
            counter("troop_cache_lookups_total", "Look-ups of kept answers", by("result", [("hit", sizes.hits), ("miss", sizes.misses)])),
            counter(
                "troop_cache_removed_total",
                "Answers that were taken out",
                by("reason", [("evicted", sizes.evicted), ("expired", sizes.expired)]),
            ),
            counter("troop_cache_waits_total", "Requests that waited for another one's answer", by("result", waits)),
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
        families.extend(self.cache());
        families.extend([
            gauge(INFO, INFO_HELP, [(vec![("node_id", self.id.as_str()), ("version", KONG_VERSION)], 1.0)]),
            gauge("troop_info", "The version of Troop", [(vec![("version", TROOP_VERSION)], 1.0)]),
            gauge(
                "kong_datastore_reachable",
                "Datastore reachable from Kong, 0 is unreachable",
                [(vec![], if (self.reachable)() { 1.0 } else { 0.0 })],
            ),
            gauge(
                "troop_store_writable",
                "Whether the last write to the store was made",
                [(vec![], if self.store.is_writable() { 1.0 } else { 0.0 })],
            ),
            counter("troop_store_errors_total", "Writes to the store that failed", [(vec![], self.store.errors())]),
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
        let overview = self.cluster.as_ref().and_then(|cluster| cluster.overview());
        families.extend(overview.map(|overview| of_cluster(&overview)).unwrap_or_default());
        families.extend(self.certificate.as_ref().map(|certificate| {
            let help = "When the node's certificate ends, in seconds since 1970";
            gauge("troop_cluster_certificate_expires_seconds", help, [(vec![], certificate.expires() as f64)])
        }));
        families.extend(self.cluster.as_ref().map(|cluster| of_limits(&cluster.limits().stats())).unwrap_or_default());
        families
    }
}

/// How the cluster stands, as this node sees it.
fn of_cluster(overview: &Overview) -> Vec<MetricFamily> {
    let (status, counters, traffic) = (&overview.status, &overview.status.counters, &overview.traffic);
    let one = |name, help, value: f64| gauge(name, help, [(vec![], value)]);
    let total = |name, help, value| counter(name, help, [(vec![], value)]);
    let peers: Vec<(String, f64, f64)> = status
        .peers
        .iter()
        .map(|peer| (peer.node.to_string(), f64::from(u8::from(peer.live)), peer.differs_for.unwrap_or(0) as f64 / 1000.0))
        .collect();
    let label = |node: &'_ String| vec![("peer", node.clone())];
    let of_peers = |name, help, value: &dyn Fn(&(String, f64, f64)) -> f64| {
        let samples: Vec<_> = peers.iter().map(|peer| (label(&peer.0), value(peer))).collect();
        gauge(
            name,
            help,
            samples.iter().map(|(labels, value)| (labels.iter().map(|(name, node)| (*name, node.as_str())).collect(), *value)),
        )
    };
    let flag = |value: bool| f64::from(u8::from(value));
    vec![
        one("troop_cluster_ready", "Whether the node has what its peers have", flag(status.ready)),
        one("troop_cluster_accepts_writes", "Whether the node takes changes", flag(status.accepts_writes)),
        one("troop_cluster_members", "Nodes that belong to the cluster", status.members.len() as f64),
        one(
            "troop_cluster_alive",
            "Nodes that are alive, this one included",
            (status.peers.iter().filter(|peer| peer.live).count() + 1) as f64,
        ),
        one("troop_cluster_records", "Records that the node keeps, deletions included", status.digest.count as f64),
        one("troop_cluster_records_alive", "Records that are not deleted", status.alive as f64),
        one("troop_cluster_bad_records", "Records that the node cannot put in effect", status.bad.len() as f64),
        one("troop_cluster_quarantined_records", "Records that ended the node and are left out", status.quarantined.len() as f64),
        one("troop_cluster_queued", "Changes that wait to be made durable", status.queued as f64),
        one("troop_cluster_clock_offset_seconds", "How far the median of all clocks is ahead", status.clock_offset as f64 / 1000.0),
        of_peers("troop_cluster_peer_up", "Whether a peer is alive and connected", &|peer| peer.1),
        of_peers("troop_cluster_peer_lag_seconds", "For how long a peer has had other records", &|peer| peer.2),
        total("troop_cluster_conflicts_total", "Edits that lost against others made at the same time", status.conflicts),
        total("troop_cluster_writes_total", "Writes of this node", counters.writes),
        total("troop_cluster_received_total", "New records that came from peers", counters.received),
        total("troop_cluster_commits_failed_total", "Changes that could not be made durable", counters.commits_failed),
        total("troop_cluster_unreadable_total", "Records of peers that could not be read", counters.unreadable),
        total("troop_cluster_dropped_total", "Pushes that were dropped, to be repaired later", counters.dropped + traffic.dropped),
        total("troop_cluster_sessions_total", "Sessions of repair", counters.sessions),
        total("troop_cluster_sessions_failed_total", "Sessions of repair that were broken off", counters.sessions_failed),
        total("troop_cluster_snapshots_total", "Complete copies that were taken", counters.snapshots),
        total("troop_cluster_purged_total", "Deletions that are no longer remembered", counters.purged),
        total("troop_cluster_scrubs_wrong_total", "Times that sums did not agree with the records", counters.scrubs_wrong),
        total("troop_cluster_connections_accepted_total", "Connections of peers", traffic.accepted),
        total("troop_cluster_connections_refused_total", "Connections that were refused", traffic.refused),
        total("troop_cluster_undecodable_total", "Frames that could not be decoded", traffic.undecodable),
        total("troop_cluster_received_bytes_total", "Bytes from peers", traffic.bytes_in),
        total("troop_cluster_sent_bytes_total", "Bytes to peers", traffic.bytes_out),
    ]
}

/// How limits that nodes share go, on this node.
fn of_limits(stats: &LimitStats) -> Vec<MetricFamily> {
    let (leases, events) = (&stats.leases, &stats.leases.leases);
    let total = |name, help, value| counter(name, help, [(vec![], value)]);
    let windows = [("held", leases.held), ("owned", leases.owned)];
    let windows = windows.map(|(role, n)| (vec![("role", role)], n as f64));
    vec![
        gauge("troop_cluster_limits_windows", "Windows of limits that the node spends from, and that it keeps the books of", windows),
        total("troop_cluster_limits_asked_total", "Questions to the owners of windows", events.asked),
        total("troop_cluster_limits_granted_total", "Portions of limits that the node has given as their owner", events.granted),
        total("troop_cluster_limits_recalls_total", "Times that what nodes had not spent was called back", events.recalls),
        total("troop_cluster_limits_unheard_total", "Nodes that did not answer an owner in time", events.unheard),
        total("troop_cluster_limits_crowded_total", "Windows in use that were too many to keep", events.crowded),
        total("troop_cluster_limits_waited_total", "Requests that waited for the owner of a limit", leases.waited),
        total("troop_cluster_limits_unanswered_total", "Requests that waited for the owner of a limit in vain", leases.unanswered),
        total(
            "troop_cluster_limits_passed_total",
            "Requests that passed uncounted because the owner of a limit did not answer",
            stats.passed,
        ),
    ]
}
