//! The health of upstreams' targets, and what became of probes and look-ups of names.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::plugin::health::{Health, Seen};
use crate::plugin::metrics::family::{counter, family, gauge_sample};

/// Every state that a target may be in; one of them has the value 1.
const STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];
const HEALTH: &str =
    "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, value is 1 when state is populated.";
const PROBES: &str = "troop_health_probes_total";
const PROBES_HELP: &str = "Active health checks by result";

/// What the registry reads of the upstreams.
pub struct Targets {
    pub health: Arc<dyn Health>,
    /// How many plugin configurations ask for the health of targets.
    pub wanted: Arc<AtomicUsize>,
}

impl Targets {
    fn states(&self) -> MetricFamily {
        let mut samples: Vec<Metric> = Vec::new();
        self.health.each(&mut |seen: &Seen| {
            samples.extend(STATES.iter().map(|state| {
                let labels = [
                    ("upstream", seen.upstream),
                    ("target", seen.target),
                    ("address", seen.address),
                    ("state", state),
                    ("subsystem", "http"),
                ];
                gauge_sample(&labels, if *state == seen.state { 1.0 } else { 0.0 })
            }));
        });
        family("kong_upstream_target_health", HEALTH, MetricType::GAUGE, samples)
    }
}

impl Collector for Targets {
    fn desc(&self) -> Vec<&Desc> {
        static DESC: OnceLock<Option<Desc>> = OnceLock::new();
        DESC.get_or_init(|| Desc::new(PROBES.into(), PROBES_HELP.into(), vec![], Default::default()).ok()).iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = self.health.totals();
        let probes = [(vec![("result", "success")], totals.probe_successes), (vec![("result", "failure")], totals.probe_failures)];
        let changes = [(vec![("to", "healthy")], totals.became_healthy), (vec![("to", "unhealthy")], totals.became_unhealthy)];
        let names = [
            (vec![("kind", "request")], totals.dns_requests),
            (vec![("kind", "miss")], totals.dns_misses),
            (vec![("kind", "stale")], totals.dns_stale),
            (vec![("kind", "failure")], totals.dns_failures),
        ];
        let mut families = vec![
            counter(PROBES, PROBES_HELP, probes),
            counter("troop_target_state_changes_total", "Addresses of targets that became healthy or unhealthy", changes),
            counter("troop_dns_total", "Names that were asked for, not known, given past their time, and lookups that failed", names),
        ];
        if self.wanted.load(Ordering::Relaxed) > 0 {
            families.push(self.states());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::health::Totals;
    use crate::plugin::metrics::Metrics;

    struct Two;

    impl Health for Two {
        fn each(&self, visit: &mut dyn FnMut(&Seen<'_>)) {
            visit(&Seen { upstream: "up", target: "a.test:80", address: "10.0.0.1:80", state: "unhealthy" });
            visit(&Seen { upstream: "up", target: "b.test:80", address: "", state: "dns_error" });
        }

        fn totals(&self) -> Totals {
            Totals { probe_failures: 3, dns_stale: 1, ..Totals::default() }
        }
    }

    #[test]
    fn health_is_shown_where_it_is_wanted() {
        let metrics = Metrics::default();
        metrics.show_targets(Arc::new(Two));
        let text = metrics.text();
        assert!(!text.contains("kong_upstream_target_health"));
        assert!(text.contains("troop_health_probes_total{result=\"failure\"} 3\n") && text.contains("troop_dns_total{kind=\"stale\"} 1\n"));
        let _wanted = metrics.want_health();
        let text = metrics.text();
        for (target, address, set) in [("a.test:80", "10.0.0.1:80", "unhealthy"), ("b.test:80", "", "dns_error")] {
            for state in STATES {
                let line = format!(
                    "kong_upstream_target_health{{upstream=\"up\",target=\"{target}\",address=\"{address}\",state=\"{state}\",subsystem=\"http\"}} {}\n",
                    u8::from(state == set)
                );
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
        }
    }
}
