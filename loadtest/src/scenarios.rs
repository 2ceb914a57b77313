//! The table of scenarios, each with its bars.

use crate::load::Protocol;
use crate::measure::Limit::{AtLeast, AtMost, Between};
use crate::measure::{Bar, Metric};

/// How a scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests as fast as they are answered.
    Requests,
    /// Open streams of server-sent events.
    Events,
    /// Requests at half of the greatest rate, without and with changes of the configuration.
    Changing,
    /// Changes through the Admin API, one after the other.
    Reconfigured,
    /// Whole documents through `POST /config`, one after the other.
    Reloaded,
    /// A gateway that does nothing.
    Idle,
}

/// What a gateway is configured with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// 0: one route that takes everything.
    pub routes: usize,
    /// Each with a key.
    pub consumers: usize,
    pub plugins: &'static [&'static str],
    /// Plugins that the gateway does not have are left out, as long as there is one.
    pub lenient: bool,
}

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// To an upstream that answers with 120 bytes.
    Plain,
    /// To a file of the upstream, of so many bytes.
    File(&'static str, u64),
    /// To one of the routes.
    OneRoute,
    /// To any of the routes.
    AnyRoute,
    /// To the upstream of WebSockets.
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    None,
    /// The key of the first consumer.
    Key,
    /// The key of any consumer.
    AnyKey,
    Basic,
    Jwt,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    pub protocol: Protocol,
    pub connections: usize,
    pub path: Path,
    /// Header fields in all.
    pub fields: usize,
    /// Bytes of a body that is POSTed; 0 is a GET.
    pub body: usize,
    pub credential: Credential,
}

/// What other gateways are asked meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// The same, by all of them.
    Same,
    /// A plain request, by nginx.
    Plain,
}

/// Troop once more, configured and asked otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    pub name: &'static str,
    pub setup: Setup,
    pub asks: Asks,
}

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    pub setup: Setup,
    pub asks: Asks,
    pub beside: Beside,
    pub reference: Option<Reference>,
    pub bars: &'static [Bar],
}

pub const TROOP: &str = "troop";
pub const NGINX: &str = "nginx";
/// The upstream, asked without a gateway.
pub const DIRECT: &str = "direct";
pub const QUIET: &str = "troop, quiet";
pub const CHANGING: &str = "troop, changing";
const TROOP_PLAIN: &str = "troop, plain";
const TROOP_ONE: &str = "troop, one consumer";

const NO_PLUGIN: Setup = Setup { routes: 0, consumers: 0, plugins: &[], lenient: false };
const PLAIN: Asks =
    Asks { protocol: Protocol::Http1, connections: 64, path: Path::Plain, fields: 3, body: 0, credential: Credential::None };
const KEY: Asks = Asks { credential: Credential::Key, ..PLAIN };
const ONE_KEY: Setup = with(1, &["key-auth"]);
/// The configuration that the bars on memory name.
const LARGE: Setup = Setup { routes: 10_000, consumers: 1_000, ..NO_PLUGIN };
const BESIDE_PLAIN: Option<Reference> = Some(Reference { name: TROOP_PLAIN, setup: NO_PLUGIN, asks: PLAIN });

const fn with(consumers: usize, plugins: &'static [&'static str]) -> Setup {
    Setup { routes: 0, consumers, plugins, lenient: false }
}

const SCENARIO: Scenario =
    Scenario { name: "", title: "", kind: Kind::Requests, setup: NO_PLUGIN, asks: PLAIN, beside: Beside::Same, reference: None, bars: &[] };
/// With plugins: held against nginx's plain proxying.
const PLUGIN: Scenario = Scenario { beside: Beside::Plain, ..SCENARIO };
/// With many routes: held against Troop with one.
const ROUTES: Scenario =
    Scenario { asks: Asks { path: Path::OneRoute, ..PLAIN }, beside: Beside::Nothing, reference: BESIDE_PLAIN, ..SCENARIO };
const ANY_ROUTE: Asks = Asks { path: Path::AnyRoute, ..PLAIN };

const fn routes(routes: usize) -> Setup {
    Setup { routes, ..NO_PLUGIN }
}

const fn bar(what: &'static str, metric: Metric, limit: crate::measure::Limit) -> Bar {
    Bar { what, metric, subject: TROOP, over: None, limit, aim: None }
}

/// CPU of a request over nginx's in the same round.
const fn cpu(what: &'static str, limit: f64) -> Bar {
    Bar { over: Some(NGINX), ..bar(what, Metric::CpuUs, AtMost(limit)) }
}

const fn over(subject: &'static str, bar: Bar) -> Bar {
    Bar { over: Some(subject), ..bar }
}

const fn aim(value: f64, bar: Bar) -> Bar {
    Bar { aim: Some(value), ..bar }
}

/// Every scenario, in the order of the report.
#[rustfmt::skip] // a paragraph each
pub static SCENARIOS: &[Scenario] = &[
    Scenario { name: "plain", title: "A plain request: GET, 120 bytes of answer, 64 connections",
        bars: &[aim(0.85, cpu("CPU, of nginx's", 0.95)), bar("memory, MB", Metric::Rss, AtMost(25.0))], ..SCENARIO },
    Scenario { name: "body-10k", title: "10 KB of answer",
        asks: Asks { path: Path::File("/files/10k", 10_000), ..PLAIN }, ..SCENARIO },
    Scenario { name: "body-1m", title: "1 MB of answer",
        asks: Asks { path: Path::File("/files/1m", 1_000_000), connections: 16, ..PLAIN },
        bars: &[cpu("CPU, of nginx's", 1.0)], ..SCENARIO },
    Scenario { name: "headers", title: "22 header fields in the request",
        asks: Asks { fields: 22, ..PLAIN }, ..SCENARIO },
    Scenario { name: "post-1k", title: "POST of 1 KB",
        asks: Asks { body: 1_000, ..PLAIN }, ..SCENARIO },
    Scenario { name: "connections-256", title: "256 connections",
        asks: Asks { connections: 256, ..PLAIN }, ..SCENARIO },
    Scenario { name: "tls", title: "TLS, connections kept",
        asks: Asks { protocol: Protocol::Tls, ..PLAIN },
        bars: &[cpu("CPU, of nginx's TLS", 0.8)], ..SCENARIO },
    Scenario { name: "tls-handshakes", title: "TLS, a full handshake for every request",
        asks: Asks { protocol: Protocol::TlsHandshake, connections: 16, ..PLAIN }, ..SCENARIO },
    Scenario { name: "http2", title: "HTTP/2 in clear: 4 connections, 16 requests at a time on each",
        asks: Asks { protocol: Protocol::Http2(16), connections: 4, ..PLAIN }, ..SCENARIO },
    Scenario { name: "http2-tls", title: "HTTP/2 over TLS: 4 connections, 16 requests at a time on each",
        asks: Asks { protocol: Protocol::Http2Tls(16), connections: 4, ..PLAIN }, ..SCENARIO },
    Scenario { name: "websocket", title: "WebSocket messages of 120 bytes and their echoes (a message counts as a request)",
        asks: Asks { protocol: Protocol::WebSocket, path: Path::Echo, ..PLAIN }, ..SCENARIO },
    Scenario { name: "sse", title: "2,000 open streams of server-sent events, an event a second on each", kind: Kind::Events,
        bars: &[
            bar("first byte added, ms", Metric::FirstByteAdded, AtMost(1.0)),
            bar("chunks joined or split", Metric::Joined, AtMost(0.0)),
            bar("events held back for over 100 ms", Metric::Delayed, AtMost(0.0)),
            bar("streams that broke", Metric::Failed, AtMost(0.0)),
            bar("memory of a stream, KB", Metric::StreamKb, AtMost(40.0)),
        ], ..SCENARIO },
    Scenario { name: "key-auth", title: "key-auth",
        setup: ONE_KEY, asks: KEY, ..PLUGIN },
    Scenario { name: "jwt", title: "jwt, HS256",
        setup: with(1, &["jwt"]), asks: Asks { credential: Credential::Jwt, ..PLAIN },
        bars: &[cpu("CPU, of nginx's plain", 1.25)], ..PLUGIN },
    Scenario { name: "basic-auth", title: "basic-auth",
        setup: with(1, &["basic-auth"]), asks: Asks { credential: Credential::Basic, ..PLAIN },
        bars: &[cpu("CPU, of nginx's plain", 1.15)], ..PLUGIN },
    Scenario { name: "rate-limiting", title: "rate-limiting, policy local",
        setup: with(0, &["rate-limiting"]), ..PLUGIN },
    Scenario { name: "key-auth-rate-limiting", title: "key-auth and rate-limiting, policy local",
        setup: with(1, &["key-auth", "rate-limiting"]), asks: KEY, reference: BESIDE_PLAIN,
        bars: &[
            aim(1.0, cpu("CPU, of nginx's plain", 1.15)),
            over(TROOP_PLAIN, bar("throughput, of Troop's plain", Metric::Rate, AtLeast(0.85))),
            over(TROOP_PLAIN, bar("the same for each CPU second", Metric::Capacity, AtLeast(0.85))),
        ], ..PLUGIN },
    Scenario { name: "proxy-cache", title: "proxy-cache, a hit",
        setup: with(0, &["proxy-cache"]),
        bars: &[cpu("CPU, of nginx's plain proxying", 0.5)], ..PLUGIN },
    Scenario { name: "request-transformer", title: "request-transformer: a field and an argument added, a field removed",
        setup: with(0, &["request-transformer"]), ..PLUGIN },
    Scenario { name: "log-plugins", title: "5 log and metric plugins: prometheus, file-log, http-log, udp-log, statsd",
        setup: Setup { lenient: true, ..with(0, &["prometheus", "file-log", "http-log", "udp-log", "statsd"]) }, ..PLUGIN },
    Scenario { name: "routes-100", title: "100 routes, always the same", setup: routes(100), ..ROUTES },
    Scenario { name: "routes-100-random", title: "100 routes, at random", setup: routes(100), asks: ANY_ROUTE, ..ROUTES },
    Scenario { name: "routes-1000", title: "1,000 routes, always the same", setup: routes(1_000), ..ROUTES },
    Scenario { name: "routes-1000-random", title: "1,000 routes, at random", setup: routes(1_000), asks: ANY_ROUTE, ..ROUTES },
    Scenario { name: "routes-10000", title: "10,000 routes, always the same", setup: routes(10_000), ..ROUTES },
    Scenario { name: "routes-10000-random", title: "10,000 routes, at random, and 1,000 consumers", setup: LARGE, asks: ANY_ROUTE,
        bars: &[
            over(TROOP_PLAIN, bar("throughput, of that with one route", Metric::Rate, AtLeast(0.95))),
            over(TROOP_PLAIN, bar("the same for each CPU second", Metric::Capacity, AtLeast(0.95))),
            bar("memory, MB", Metric::Rss, AtMost(100.0)),
        ], ..ROUTES },
    Scenario { name: "changes", kind: Kind::Changing, beside: Beside::Nothing, setup: LARGE, asks: ANY_ROUTE,
        title: "100 changes a second at 10,000 routes, requests to random routes at half of the greatest rate",
        bars: &[
            Bar { subject: CHANGING, ..over(QUIET, bar("p99, of the quiet one", Metric::P99, AtMost(1.3))) },
            Bar { subject: CHANGING, ..bar("answers other than 2xx", Metric::Not2xx, AtMost(0.0)) },
            Bar { subject: CHANGING, ..bar("requests without an answer", Metric::Failed, AtMost(0.0)) },
            Bar { subject: CHANGING, ..bar("changes a second", Metric::ChangeRate, AtLeast(95.0)) },
        ], ..SCENARIO },
    Scenario { name: "consumers-100000", title: "100,000 consumers with keys, at random",
        setup: with(100_000, &["key-auth"]), asks: Asks { credential: Credential::AnyKey, ..PLAIN }, beside: Beside::Nothing,
        reference: Some(Reference { name: TROOP_ONE, setup: ONE_KEY, asks: KEY }),
        bars: &[
            bar("memory, MB", Metric::Rss, AtMost(250.0)),
            // the look-up itself costs the same; this leaves room for the caches of the processor
            over(TROOP_ONE, bar("CPU, of that with one consumer", Metric::CpuUs, AtMost(1.1))),
        ], ..SCENARIO },
    Scenario { name: "reconfigurations", title: "1,000 changes through the Admin API at 10,000 routes and 1,000 consumers",
        kind: Kind::Reconfigured, setup: LARGE, beside: Beside::Nothing,
        bars: &[
            bar("memory before, MB", Metric::MemoryBefore, AtMost(100.0)),
            bar("memory after, of that before", Metric::MemoryRatio, Between(0.95, 1.05)),
            bar("CPU of a change, Admin API and store included, ms", Metric::ChangeCpu, AtMost(5.0)),
        ], ..SCENARIO },
    Scenario { name: "reloads", title: "1,000 documents with 100 routes through POST /config",
        kind: Kind::Reloaded, setup: Setup { routes: 100, ..ONE_KEY }, beside: Beside::Nothing,
        bars: &[bar("memory after, of that before", Metric::MemoryRatio, Between(0.95, 1.05))], ..SCENARIO },
    Scenario { name: "idle", title: "A gateway that does nothing, and the binary", kind: Kind::Idle, ..SCENARIO },
];

/// The scenario of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own() {
        let mut names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(SCENARIOS.iter().all(|s| !s.title.is_empty()));
        assert!(scenario("plain").is_some() && scenario("").is_none());
    }

    #[test]
    fn bars_compare_what_is_measured() {
        for scenario in SCENARIOS {
            for bar in scenario.bars {
                let there = match bar.over {
                    None | Some(QUIET) => true,
                    Some(NGINX) => scenario.beside != Beside::Nothing,
                    Some(other) => scenario.reference.is_some_and(|r| r.name == other),
                };
                assert!(there, "{}: {}", scenario.name, bar.what);
            }
        }
    }
}
