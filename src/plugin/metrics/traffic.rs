//! What the prometheus plugin counts of requests: by service, route and consumer, under Kong's names and labels.
//!
//! The same is shown under the names of older Kongs and of many dashboards, over all services: `kong_latency_ms{type}` and
//! `kong_bandwidth_bytes{type}`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use uuid::Uuid;

use crate::model::{Consumer, Route, Service, WORKSPACE};
use crate::plugin::World;
use crate::plugin::metrics::family::{counter, counter_sample, family, gauge, histogram_sample};
use crate::plugin::metrics::latency::{LATENCIES, WIDTH};
use crate::plugin::metrics::series::{Key, Series, What};

/// The configuration at the moment of a scrape.
pub type Names = Box<dyn Fn() -> Arc<dyn World> + Send + Sync>;

#[derive(Default)]
pub struct Traffic {
    pub series: Series,
    names: OnceLock<Names>,
    /// What label sets had counted that are gone: counters over all services do not go back.
    gone: Mutex<Overall>,
}

/// Counts over all services.
struct Overall {
    bandwidth: [u64; 2],
    latency: [u64; WIDTH],
}

impl Default for Overall {
    fn default() -> Self {
        Self { bandwidth: [0; 2], latency: [0; WIDTH] }
    }
}

impl Overall {
    fn add(&mut self, what: What, numbers: &[u64]) {
        match what {
            What::Requests { .. } => {}
            What::Bandwidth => add(&mut self.bandwidth, numbers),
            What::Latency => add(&mut self.latency, numbers),
        }
    }
}

fn add(to: &mut [u64], numbers: &[u64]) {
    to.iter_mut().zip(numbers).for_each(|(to, n)| *to += n);
}

/// Labels of a label set that tell it from others of its kind; two rows with one name are one.
type Labels = (String, String, String);

impl Traffic {
    pub fn name_by(&self, names: Names) {
        if self.names.set(names).is_err() {
            tracing::error!("names of metrics are told twice");
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        let Some(names) = self.names.get() else { return Vec::new() };
        let mut rows = Rows { world: names(), services: AHashMap::new(), routes: AHashMap::new(), consumers: AHashMap::new() };
        let (mut requests, mut bandwidth, mut latency) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut gone = Vec::new();
        let mut overall = Overall::default();
        for (key, numbers) in self.series.sums() {
            let Some(labels) = rows.labels(&key) else {
                gone.push(key);
                continue;
            };
            overall.add(key.what, &numbers);
            match key.what {
                What::Requests { status, upstream } => {
                    add(requests.entry((labels, status, upstream)).or_insert([0]), &numbers);
                }
                What::Bandwidth => add(bandwidth.entry(labels).or_insert([0; 2]), &numbers),
                What::Latency => add(latency.entry(labels).or_insert([0; WIDTH]), &numbers),
            }
        }
        let retired = self.series.retire(&gone);
        let mut past = self.gone.lock();
        retired.iter().for_each(|(key, numbers)| past.add(key.what, numbers));
        add(&mut overall.bandwidth, &past.bandwidth);
        add(&mut overall.latency, &past.latency);
        drop(past);
        let mut families = vec![self::requests(&requests), self::bandwidth(&bandwidth, &overall)];
        families.extend(latencies(&latency));
        families.push(overall_latency(&overall));
        families.push(gauge(
            "troop_metrics_label_sets",
            "Label sets that requests are counted under",
            [(vec![], self.series.len() as f64)],
        ));
        let refused = [(vec![], self.series.refused())];
        families.push(counter("kong_nginx_metric_errors_total", "Number of nginx-lua-prometheus errors", refused));
        families
    }
}

fn requests(requests: &BTreeMap<(Labels, u16, bool), [u64; 1]>) -> MetricFamily {
    let sample = |(((service, route, consumer), status, upstream), [count]): (&(Labels, u16, bool), &[u64; 1])| {
        let source = if *upstream { "service" } else { "kong" };
        let code = status.to_string();
        let labels = [
            ("service", service.as_str()),
            ("route", route),
            ("code", &code),
            ("source", source),
            ("workspace", WORKSPACE),
            ("consumer", consumer),
        ];
        counter_sample(&labels, *count)
    };
    let help = "HTTP status codes per consumer/service/route in Kong";
    family("kong_http_requests_total", help, MetricType::COUNTER, requests.iter().map(sample).collect())
}

fn bandwidth(bandwidth: &BTreeMap<Labels, [u64; 2]>, overall: &Overall) -> MetricFamily {
    const DIRECTIONS: [&str; 2] = ["ingress", "egress"];
    let mut samples: Vec<Metric> = Vec::new();
    if overall.bandwidth != [0; 2] {
        samples.extend(DIRECTIONS.iter().zip(overall.bandwidth).map(|(direction, bytes)| counter_sample(&[("type", direction)], bytes)));
    }
    for ((service, route, consumer), bytes) in bandwidth {
        for (direction, bytes) in DIRECTIONS.iter().zip(bytes) {
            let labels: [(&str, &str); 5] =
                [("service", service), ("route", route), ("direction", direction), ("workspace", WORKSPACE), ("consumer", consumer)];
            samples.push(counter_sample(&labels, *bytes));
        }
    }
    family("kong_bandwidth_bytes", "Total bandwidth (ingress/egress) throughput in bytes", MetricType::COUNTER, samples)
}

fn latencies(latency: &BTreeMap<Labels, [u64; WIDTH]>) -> impl Iterator<Item = MetricFamily> {
    LATENCIES.iter().map(|each| {
        let sample = |((service, route, _), numbers): (&Labels, &[u64; WIDTH])| {
            let (counts, sum) = each.of(numbers);
            let labels: [(&str, &str); 3] = [("service", service), ("route", route), ("workspace", WORKSPACE)];
            counts.iter().any(|count| *count > 0).then(|| histogram_sample(&labels, each.bounds, counts, sum))
        };
        let name = format!("kong_{}_latency_ms", each.kind);
        family(&name, each.help, MetricType::HISTOGRAM, latency.iter().filter_map(sample).collect())
    })
}

fn overall_latency(overall: &Overall) -> MetricFamily {
    let sample = |each: &super::latency::Latency| {
        let (counts, sum) = each.of(&overall.latency);
        counts.iter().any(|count| *count > 0).then(|| histogram_sample(&[("type", each.kind)], each.bounds, counts, sum))
    };
    family("kong_latency_ms", "Latency of all services by type", MetricType::HISTOGRAM, LATENCIES.iter().filter_map(sample).collect())
}

/// Names by id, looked up once a scrape.
struct Rows {
    world: Arc<dyn World>,
    services: AHashMap<Uuid, Option<String>>,
    routes: AHashMap<Uuid, Option<String>>,
    consumers: AHashMap<Uuid, Option<String>>,
}

impl Rows {
    /// `None` when one of the rows is gone.
    fn labels(&mut self, key: &Key) -> Option<Labels> {
        let Self { world, services, routes, consumers } = self;
        let service = services.entry(key.service).or_insert_with(|| {
            let service = world.get::<Service>(key.service)?;
            Some(service.name.as_ref().map_or_else(|| service.host.to_string(), |name| name.to_string()))
        });
        let route = routes.entry(key.route).or_insert_with(|| {
            let route = world.get::<Route>(key.route)?;
            Some(route.name.as_ref().map_or_else(|| route.id.to_string(), |name| name.to_string()))
        });
        let consumer = consumers.entry(key.consumer).or_insert_with(|| match key.consumer {
            id if id.is_nil() => Some(String::new()),
            id => Some(world.get::<Consumer>(id)?.username.clone().unwrap_or_default()),
        });
        Some((service.clone()?, route.clone()?, consumer.clone()?))
    }
}

/// [`Traffic`] as the registry takes it.
pub struct Scraped(pub Arc<Traffic>);

impl Collector for Scraped {
    /// The families come and go with their label sets, so the registry is told of none but the one that is always there.
    fn desc(&self) -> Vec<&Desc> {
        static DESC: OnceLock<Option<Desc>> = OnceLock::new();
        let desc = || {
            Desc::new("troop_metrics_label_sets".into(), "Label sets that requests are counted under".into(), vec![], Default::default())
        };
        DESC.get_or_init(|| desc().ok()).iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.families()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::metrics::{Metrics, latency};
    use crate::plugin::record::Latencies;
    use crate::plugin::testing;

    const ROUTE: Uuid = Uuid::from_u128(1);
    const SERVICE: Uuid = Uuid::from_u128(2);
    const CONSUMER: Uuid = Uuid::from_u128(3);

    fn world(route: &str) -> Arc<dyn World> {
        testing::Rows::default()
            .with::<Route>(json!({"id": ROUTE, "name": route, "paths": ["/"], "service": {"id": SERVICE}}))
            .with::<Service>(json!({"id": SERVICE, "host": "up.test"}))
            .with::<Consumer>(json!({"id": CONSUMER, "username": "bob \"b\""}))
            .world()
    }

    fn key(consumer: Uuid, what: What) -> Key {
        Key { route: ROUTE, service: SERVICE, consumer, what }
    }

    fn count(metrics: &Metrics) {
        let series = &metrics.traffic.series;
        for consumer in [Uuid::nil(), CONSUMER] {
            series.count(key(consumer, What::Requests { status: 200, upstream: true }), |cell| cell.add(0, 2));
            series.count(key(consumer, What::Bandwidth), |cell| {
                cell.add(0, 100);
                cell.add(1, 1000);
            });
        }
        series.count(key(Uuid::nil(), What::Latency), |cell| {
            latency::observe(cell, &Latencies { kong: 2, proxy: 40, request: 99, receive: 0 });
            latency::observe(cell, &Latencies { kong: 9000, proxy: -1, request: 9000, receive: 0 });
        });
    }

    #[track_caller]
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_labels_and_buckets_are_kongs() {
        let metrics = Metrics::default();
        assert!(!metrics.text().contains("kong_"), "nothing without a configuration");
        metrics.name_by(|| world("rt"));
        count(&metrics);
        let text = metrics.text();
        has(
            &text,
            &[
                "# HELP kong_http_requests_total HTTP status codes per consumer/service/route in Kong",
                "# TYPE kong_http_requests_total counter",
                r#"kong_http_requests_total{service="up.test",route="rt",code="200",source="service",workspace="default",consumer=""} 2"#,
                r#"kong_http_requests_total{service="up.test",route="rt",code="200",source="service",workspace="default",consumer="bob \"b\""} 2"#,
                r#"kong_bandwidth_bytes{service="up.test",route="rt",direction="ingress",workspace="default",consumer=""} 100"#,
                r#"kong_bandwidth_bytes{service="up.test",route="rt",direction="egress",workspace="default",consumer=""} 1000"#,
                r#"kong_bandwidth_bytes{type="ingress"} 200"#,
                "# TYPE kong_kong_latency_ms histogram",
                r#"kong_kong_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="1"} 0"#,
                r#"kong_kong_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="2"} 1"#,
                r#"kong_kong_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="6000"} 1"#,
                r#"kong_kong_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="+Inf"} 2"#,
                r#"kong_kong_latency_ms_sum{service="up.test",route="rt",workspace="default"} 9002"#,
                r#"kong_kong_latency_ms_count{service="up.test",route="rt",workspace="default"} 2"#,
                r#"kong_upstream_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="25"} 0"#,
                r#"kong_upstream_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="60000"} 1"#,
                r#"kong_upstream_latency_ms_sum{service="up.test",route="rt",workspace="default"} 40"#,
                r#"kong_request_latency_ms_bucket{service="up.test",route="rt",workspace="default",le="10000"} 2"#,
                r#"kong_latency_ms_bucket{type="request",le="100"} 1"#,
                r#"kong_latency_ms_count{type="upstream"} 1"#,
                "kong_nginx_metric_errors_total 0",
                "troop_metrics_label_sets 5",
            ],
        );
        let overall = text.find("kong_bandwidth_bytes{type").unwrap_or_default();
        assert!(overall < text.find("kong_bandwidth_bytes{service").unwrap_or_default());
    }

    #[test]
    fn what_is_gone_vanishes_and_sums_over_all_stay() {
        let metrics = Metrics::default();
        let there = Arc::new(Mutex::new(world("rt")));
        let now = Arc::clone(&there);
        metrics.name_by(move || now.lock().clone());
        count(&metrics);
        *there.lock() = world("renamed");
        has(
            &metrics.text(),
            &[r#"kong_bandwidth_bytes{service="up.test",route="renamed",direction="egress",workspace="default",consumer=""} 1000"#],
        );
        *there.lock() = testing::Rows::default().world();
        for _ in 0..2 {
            let text = metrics.text();
            assert!(!text.contains("renamed") && !text.contains("kong_http_requests_total"), "{text}");
            has(
                &text,
                &[
                    r#"kong_bandwidth_bytes{type="egress"} 2000"#,
                    r#"kong_latency_ms_sum{type="request"} 9099"#,
                    "troop_metrics_label_sets 0",
                ],
            );
        }
        *there.lock() = world("rt");
        count(&metrics);
        let text = metrics.text();
        has(&text, &[r#"kong_bandwidth_bytes{type="egress"} 4000"#]);
        has(&text, &[r#"kong_bandwidth_bytes{service="up.test",route="rt",direction="egress",workspace="default",consumer=""} 1000"#]);
    }
}
