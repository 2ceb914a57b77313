//! Counts requests for Prometheus, which reads them at `/metrics` of the Admin API and of the status listener.
//!
//! What a node says of itself (connections, requests, memory, the store, its actors and queues) is there without this
//! plugin. Each flag below adds a family, for the requests on which this configuration runs. Requests that reach no service
//! are not counted. At most 50,000 label sets are counted; requests beyond them are counted in
//! `kong_nginx_metric_errors_total`. Label sets vanish with their route, service or consumer.
//!
//! Beside Kong's families there are those of many dashboards, over all services: `kong_latency_ms{type}` with `request`,
//! `kong` and `upstream`, and `kong_bandwidth_bytes{type}` with `ingress` and `egress`. Series of the latter have no
//! `direction`; sums over directions should name it.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.

use std::sync::Arc;

use schema::{Record, Violations};
use serde::Deserialize;
use uuid::Uuid;

use crate::plugin::exchange::Source;
use crate::plugin::metrics::series::{Key, What};
use crate::plugin::metrics::{Metrics, WantsHealth, latency};
use crate::plugin::record::Latencies;
use crate::plugin::{ALL_PROTOCOLS, Env, Exchange, Phases, Plugin};

pub struct Prometheus {
    config: Config,
    metrics: Arc<Metrics>,
    /// Held so that the health of targets is shown.
    _health: Option<WantsHealth>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Tells consumers apart, by their usernames, in counts of requests and bytes.
    #[field(optional, default = false)]
    per_consumer: bool,
    /// Counts requests by status and source: `kong_http_requests_total`.
    #[field(optional, default = false)]
    status_code_metrics: bool,
    /// Counts what language models cost. No plugin of this version asks one, so there is nothing to count.
    #[field(optional, default = false)]
    #[allow(dead_code, reason = "accepted: no plugin asks a language model")]
    ai_metrics: bool,
    /// Histograms of `kong_kong_latency_ms`, `kong_upstream_latency_ms` and `kong_request_latency_ms`.
    #[field(optional, default = false)]
    latency_metrics: bool,
    /// Counts bytes from and to clients: `kong_bandwidth_bytes`.
    #[field(optional, default = false)]
    bandwidth_metrics: bool,
    /// Shows the health of the targets of all upstreams: `kong_upstream_target_health`.
    #[field(optional, default = false)]
    upstream_health_metrics: bool,
    /// Shows metrics of WebAssembly filters. This version runs none, so there is nothing to show.
    #[field(optional, default = false)]
    #[allow(dead_code, reason = "accepted: there are no WebAssembly filters")]
    wasm_metrics: bool,
}

impl Plugin for Prometheus {
    const NAME: &'static str = "prometheus";
    const PRIORITY: i32 = 13;
    const PHASES: Phases = Phases::LOG;
    const ALLOWED_PROTOCOLS: &'static [&'static str] = ALL_PROTOCOLS;
    type Config = Config;

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let metrics = Arc::clone(&env.handles.metrics);
        let health = config.upstream_health_metrics.then(|| metrics.want_health());
        Ok(Self { config, metrics, _health: health })
    }

    fn log(&self, x: &mut Exchange) {
        let (Some(route), Some(service)) = (&x.route, &x.service) else { return };
        let consumer = x.authenticated.consumer.as_ref().filter(|_| self.config.per_consumer).map_or(Uuid::nil(), |consumer| consumer.id);
        let key = |consumer, what| Key { route: route.id, service: service.id, consumer, what };
        let series = &self.metrics.traffic.series;
        if self.config.status_code_metrics {
            let what = What::Requests { status: x.response.status, upstream: x.source == Source::Upstream };
            series.count(key(consumer, what), |cell| cell.add(0, 1));
        }
        if self.config.bandwidth_metrics {
            series.count(key(consumer, What::Bandwidth), |cell| {
                cell.add(0, x.size.request);
                cell.add(1, x.size.response);
            });
        }
        if self.config.latency_metrics {
            let latencies = Latencies::of(x);
            series.count(key(Uuid::nil(), What::Latency), |cell| latency::observe(cell, &latencies));
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::model::{Consumer, Route, Service};
    use crate::plugin::exchange::Sizes;
    use crate::plugin::testing::{Rows, env, exchange, plugin_with, refused, row, via};

    /// The metrics after requests of nobody and of `bob`, one to a route with a service and one to none.
    fn counted(config: Value) -> String {
        let env = env();
        let ids: Vec<Uuid> = (1..4).map(Uuid::from_u128).collect();
        let route = json!({"id": ids[0], "name": "rt", "paths": ["/"]});
        let service = json!({"id": ids[1], "name": "svc", "host": "up.test"});
        let consumer = json!({"id": ids[2], "username": "bob"});
        let world =
            Rows::default().with::<Route>(route.clone()).with::<Service>(service.clone()).with::<Consumer>(consumer.clone()).world();
        env.handles.metrics.name_by(move || world.clone());
        let plugin: Prometheus = plugin_with(config, &env);
        for authenticated in [false, true] {
            let mut x = exchange("GET", "/", &[]);
            x.response.status = if authenticated { 200 } else { 401 };
            x.size = Sizes { request: 10, response: 100, response_body: 50 };
            plugin.log(&mut x);
            x.route = Some(via(row::<Route>(route.clone())));
            x.service = Some(via(row::<Service>(service.clone())));
            if authenticated {
                x.source = Source::Upstream;
                x.timing.upstream_started = Some(x.timing.started);
                x.authenticated.consumer = Some(Arc::new(row(consumer.clone())));
            }
            plugin.log(&mut x);
        }
        let lines = env.handles.metrics.text();
        lines.lines().filter(|line| line.contains("service=") && !line.contains("_bucket") && !line.contains("_sum")).fold(
            String::new(),
            |text, line| {
                let short = line.replace("service=\"svc\",route=\"rt\",", "").replace(",workspace=\"default\"", "");
                text + &short.replace("workspace=\"default\"", "") + "\n"
            },
        )
    }

    #[test]
    fn nothing_is_counted_unless_asked() {
        assert_eq!(counted(json!({})), "");
        assert_eq!(counted(json!({"per_consumer": true, "ai_metrics": true, "wasm_metrics": true})), "");
    }

    #[test]
    fn each_flag_adds_a_family() {
        assert_eq!(
            counted(json!({"status_code_metrics": true})),
            "kong_http_requests_total{code=\"200\",source=\"service\",consumer=\"\"} 1\n\
             kong_http_requests_total{code=\"401\",source=\"kong\",consumer=\"\"} 1\n"
        );
        assert_eq!(
            counted(json!({"bandwidth_metrics": true, "per_consumer": true})),
            "kong_bandwidth_bytes{direction=\"egress\",consumer=\"\"} 100\n\
             kong_bandwidth_bytes{direction=\"egress\",consumer=\"bob\"} 100\n\
             kong_bandwidth_bytes{direction=\"ingress\",consumer=\"\"} 10\n\
             kong_bandwidth_bytes{direction=\"ingress\",consumer=\"bob\"} 10\n"
        );
        assert_eq!(
            counted(json!({"latency_metrics": true, "per_consumer": true})),
            "kong_kong_latency_ms_count{} 2\nkong_request_latency_ms_count{} 2\nkong_upstream_latency_ms_count{} 1\n"
        );
    }

    #[test]
    fn health_is_shown_while_a_configuration_asks() {
        let env = env();
        let plugin: Prometheus = plugin_with(json!({"upstream_health_metrics": true}), &env);
        assert!(env.handles.metrics.health_wanted());
        drop(plugin);
        let _plugin: Prometheus = plugin_with(json!({}), &env);
        assert!(!env.handles.metrics.health_wanted());
    }

    #[test]
    fn bad_configurations() {
        assert_eq!(refused::<Prometheus>(json!({"per_consumer": "x"})), json!({"config": {"per_consumer": "expected a boolean"}}));
        assert_eq!(refused::<Prometheus>(json!({"nope": 1})), json!({"config": {"nope": "unknown field"}}));
    }
}
