//! Answers preflight requests and adds the headers of Cross-Origin Resource Sharing (the Fetch standard) to answers.
//!
//! Without `origins`, or with `*` alone, every origin is let in; with `credentials` the origin that asks is named then, because
//! `*` and credentials exclude each other. One origin without characters of a pattern is told to everybody. Otherwise the origin
//! that asks is compared with each entry and told when one fits: an entry of letters, digits and `.:/-` is an origin, or a
//! host when it has no colon; any other is a regular expression for the whole origin, or for the host when it has no colon.
//! `Vary: Origin` says so whenever answers may depend on the origin.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 200 | preflight (OPTIONS with `Origin` and `Access-Control-Request-Method`), unless `preflight_continue` |

use schema::{Record, Value, Violations};
use serde::Deserialize;
use uuid::Uuid;

use crate::http::{Headers, Method};
use crate::plugin::pattern::Pattern;
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes};

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

pub struct Cors {
    id: Uuid,
    origins: Origins,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
    allow_headers: Option<String>,
    allow_methods: String,
    expose_headers: Option<String>,
    max_age: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Origins that are let in: `*`, origins, hosts or regular expressions.
    #[field(elements(|e| e.check("origin", check_origin)))]
    origins: Option<Vec<String>>,
    /// `Access-Control-Allow-Headers`; what the client asks for when absent.
    headers: Option<Vec<String>>,
    /// `Access-Control-Expose-Headers`.
    exposed_headers: Option<Vec<String>>,
    /// `Access-Control-Allow-Methods`.
    #[field(optional, default = METHODS, elements(|e| e.one_of(METHODS)))]
    methods: Vec<String>,
    /// Seconds that the answer to a preflight request may be kept.
    max_age: Option<f64>,
    /// `Access-Control-Allow-Credentials`.
    #[field(default = false)]
    credentials: bool,
    /// `Access-Control-Allow-Private-Network`, for clients that ask.
    #[field(default = false)]
    private_network: bool,
    /// Leaves preflight requests to the upstream.
    #[field(default = false)]
    preflight_continue: bool,
    /// Adds headers to answers to requests without `Origin` too.
    #[field(default = true)]
    allow_origin_absent: bool,
}

/// That headers of the answer are the upstream's business, or are there already.
struct Preflight;

impl Plugin for Cors {
    const NAME: &'static str = "cors";
    const PRIORITY: i32 = 2000;
    const PHASES: Phases = Phases::ACCESS.and(Phases::HEADER_FILTER);
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let joined = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty()).map(|list| list.join(","));
        Ok(Self {
            id: env.id,
            origins: Origins::new(config.origins.unwrap_or_default()),
            credentials: config.credentials,
            private_network: config.private_network,
            preflight_continue: config.preflight_continue,
            allow_origin_absent: config.allow_origin_absent,
            allow_headers: joined(config.headers),
            allow_methods: config.methods.join(","),
            expose_headers: joined(config.exposed_headers),
            max_age: config.max_age.map(|seconds| seconds.to_string()),
        })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let asked = &x.request.headers;
        if x.request.method != Method::Options || !asked.contains("origin") || !asked.contains("access-control-request-method") {
            return Ok(());
        }
        if self.preflight_continue {
            x.keep(self.id, Preflight);
            return Ok(());
        }
        let mut reply = Reply::empty(200);
        self.allow_origin(asked, &mut reply.headers);
        let mut tell = |name: &str, value: Option<&[u8]>| {
            if let Some(value) = value {
                reply.headers.append(name, value);
            }
        };
        let headers = self.allow_headers.as_ref().map(|list| list.as_bytes());
        tell("Access-Control-Allow-Headers", headers.or_else(|| asked.get("access-control-request-headers")));
        tell("Access-Control-Allow-Methods", Some(self.allow_methods.as_bytes()));
        tell("Access-Control-Max-Age", self.max_age.as_ref().map(|seconds| seconds.as_bytes()));
        let private = self.private_network && asked.get("access-control-request-private-network") == Some(b"true");
        tell("Access-Control-Allow-Private-Network", private.then_some(b"true"));
        x.keep(self.id, Preflight);
        Err(reply)
    }

    fn header_filter(&self, x: &mut Exchange) {
        if x.kept::<Preflight>(self.id).is_some() {
            return;
        }
        let asked = &x.request.headers;
        if !self.allow_origin_absent && !asked.contains("origin") {
            return;
        }
        self.allow_origin(asked, &mut x.response.headers);
        if let Some(list) = &self.expose_headers {
            x.response.headers.set("Access-Control-Expose-Headers", list);
        }
    }
}

impl Cors {
    fn allow_origin(&self, asked: &Headers, answer: &mut Headers) {
        let origin = asked.get("origin");
        let any = match self.origins.allowed(origin) {
            Allowed::Any => {
                answer.set("Access-Control-Allow-Origin", "*");
                true
            }
            Allowed::Origin(origin) => {
                answer.set("Access-Control-Allow-Origin", origin);
                false
            }
            Allowed::None => {
                answer.remove("access-control-allow-origin");
                false
            }
        };
        if self.origins.differ() {
            vary(answer);
        }
        if !self.credentials {
            return;
        }
        if !any {
            answer.set("Access-Control-Allow-Credentials", "true");
        } else if let Some(origin) = origin {
            vary(answer);
            answer.set("Access-Control-Allow-Origin", origin);
            answer.set("Access-Control-Allow-Credentials", "true");
        }
    }
}

/// Adds `Origin` to `Vary`.
fn vary(headers: &mut Headers) {
    let listed: Vec<&[u8]> = headers.get_all("vary").collect();
    let names = |value: &&[u8]| value.split(|b| *b == b',').any(|name| matches!(name.trim_ascii(), b"*") || is_origin(name));
    if listed.iter().any(names) {
        return;
    }
    let value = [&listed[..], &[b"Origin"]].concat().join(&b", "[..]);
    headers.set("Vary", value);
}

fn is_origin(name: &[u8]) -> bool {
    name.trim_ascii().eq_ignore_ascii_case(b"origin")
}

/// Which origins are let in.
enum Origins {
    Any,
    One(String),
    Some(Vec<Entry>),
}

enum Entry {
    Any,
    Origin(String),
    Host(String),
    OriginPattern(Pattern),
    HostPattern(Pattern),
}

#[derive(Debug, PartialEq)]
enum Allowed {
    Any,
    Origin(String),
    None,
}

impl Origins {
    fn new(mut list: Vec<String>) -> Self {
        match list.as_mut_slice() {
            [] => Self::Any,
            [one] if one == "*" => Self::Any,
            [one] if is_literal(one) => Self::One(std::mem::take(one)),
            _ => Self::Some(list.iter().filter_map(|entry| Entry::new(entry)).collect()),
        }
    }

    /// Whether answers depend on who asks.
    fn differ(&self) -> bool {
        !matches!(self, Self::Any)
    }

    fn allowed(&self, origin: Option<&[u8]>) -> Allowed {
        let entries = match self {
            Self::Any => return Allowed::Any,
            Self::One(origin) => return Allowed::Origin(origin.clone()),
            Self::Some(entries) => entries,
        };
        let Some(origin) = origin.and_then(|origin| std::str::from_utf8(origin).ok()).map(normalized) else {
            return Allowed::None;
        };
        let host = host(&origin);
        for entry in entries {
            let fits = match entry {
                Entry::Any => return Allowed::Any,
                Entry::Origin(wanted) => *wanted == origin,
                Entry::Host(wanted) => wanted == host,
                Entry::OriginPattern(pattern) => pattern.matches(&origin, false),
                Entry::HostPattern(pattern) => pattern.matches(host, false),
            };
            if fits {
                return Allowed::Origin(origin);
            }
        }
        Allowed::None
    }
}

impl Entry {
    fn new(entry: &str) -> Option<Self> {
        Some(match (entry, is_literal(entry), entry.contains(':')) {
            ("*", ..) => Self::Any,
            (_, true, true) => Self::Origin(normalized(entry)),
            (_, true, false) => Self::Host(entry.to_ascii_lowercase()),
            (_, false, true) => Self::OriginPattern(Pattern::whole(entry)?),
            (_, false, false) => Self::HostPattern(Pattern::whole(entry)?),
        })
    }
}

fn is_literal(entry: &str) -> bool {
    entry.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/-".contains(&b))
}

/// An origin in lower case, without the port that its scheme has anyway.
fn normalized(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    match origin.strip_suffix(port) {
        Some(short) if short.contains("://") => short.to_owned(),
        _ => origin,
    }
}

fn host(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn check_origin(value: &Value) -> Result<(), String> {
    let entry = value.as_str().unwrap_or_default();
    if entry == "*" || Pattern::whole(entry).is_some() { Ok(()) } else { Err(format!("'{entry}' is not a valid regex")) }
}

#[cfg(test)]
mod tests {
    use schema::json;

    use super::*;
    use crate::plugin::testing::{exchange, plugin, refused, run};

    fn told(headers: &Headers) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut told: Vec<_> = headers.iter().map(|(name, value)| format!("{}: {}", text(name).to_lowercase(), text(value))).collect();
        told.iter_mut().for_each(|line| *line = line.replace("access-control-", ""));
        told.sort();
        told
    }

    /// Headers of the answer to a request from this origin; the upstream's own are `from`.
    fn simple(config: Value, origin: Option<&str>, from: &[(&str, &str)]) -> Vec<String> {
        let headers: Vec<_> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        let plugin = plugin::<Cors>(config);
        let mut x = exchange("GET", "/", &headers);
        assert!(run(plugin.access(&mut x)).is_ok());
        from.iter().for_each(|(name, value)| x.response.headers.append(name, value));
        plugin.header_filter(&mut x);
        told(&x.response.headers)
    }

    fn preflight(config: Value, headers: &[(&str, &str)]) -> Vec<String> {
        let plugin = plugin::<Cors>(config);
        let mut x = exchange("OPTIONS", "/", headers);
        x.request.headers.append("Access-Control-Request-Method", "DELETE");
        let reply = run(plugin.access(&mut x)).unwrap_err();
        assert_eq!(reply.status, 200);
        plugin.header_filter(&mut x);
        assert!(x.response.headers.is_empty(), "an answered preflight has its headers already");
        told(&reply.headers)
    }

    #[test]
    fn any_origin() {
        assert_eq!(simple(json!({}), Some("https://x.test"), &[]), ["allow-origin: *"]);
        assert_eq!(simple(json!({"origins": ["*"]}), None, &[]), ["allow-origin: *"]);
        let credentials = || json!({"origins": ["*"], "credentials": true});
        assert_eq!(simple(credentials(), Some("null"), &[]), ["allow-credentials: true", "allow-origin: null", "vary: Origin"]);
        assert_eq!(simple(credentials(), None, &[]), ["allow-origin: *"]);
    }

    #[test]
    fn one_origin_is_told_to_everybody() {
        let config = || json!({"origins": ["http://a.test"], "exposed_headers": ["X-E1", "X-E2"]});
        let expected = ["allow-origin: http://a.test", "expose-headers: X-E1,X-E2", "vary: Origin"];
        for origin in [Some("http://a.test"), Some("http://other.test"), Some("HTTP://A.TEST"), None] {
            assert_eq!(simple(config(), origin, &[]), expected);
        }
        let of_upstream = [("Access-Control-Allow-Origin", "upstream"), ("Vary", "Accept")];
        assert_eq!(
            simple(config(), None, &of_upstream),
            ["allow-origin: http://a.test", "expose-headers: X-E1,X-E2", "vary: Accept, Origin"]
        );
        assert_eq!(simple(json!({"origins": ["http://a.test"], "allow_origin_absent": false}), None, &[]), [""; 0]);
    }

    #[test]
    fn several_origins_and_patterns() {
        let allowed = |origins: Value, origin: &str| {
            let told =
                simple(json!({"origins": origins}), Some(origin), &[("Access-Control-Allow-Origin", "upstream"), ("Vary", "origin")]);
            assert_eq!(told.last().map(String::as_str), Some("vary: origin"));
            told.first().and_then(|line| line.strip_prefix("allow-origin: ")).map(str::to_owned)
        };
        let two = || json!(["http://a.test", "http://b.test:80"]);
        for (origins, origin, expected) in [
            (two(), "http://b.test", Some("http://b.test")),
            (two(), "http://a.test:80", Some("http://a.test")),
            (two(), "https://a.test", None),
            (two(), "http://c.test", None),
            (json!(["a.test", "b.test"]), "https://b.test:8443", Some("https://b.test:8443")),
            (json!([".*\\.a\\.test(:\\d+)?$"]), "http://x.a.test:81", Some("http://x.a.test:81")),
            (json!([".*\\.a\\.test(:\\d+)?$"]), "http://xa.test", None),
            (json!(["(.*[.])?a\\.test"]), "http://x.a.test:81", Some("http://x.a.test:81")),
            (json!(["(.*[.])?a\\.test"]), "http://a.test.evil.test", None),
            (json!(["http://a.test", "*"]), "http://z.test", Some("*")),
        ] {
            assert_eq!(allowed(origins.clone(), origin).as_deref(), expected, "{origins} {origin}");
        }
    }

    #[test]
    fn preflights() {
        let asks = [
            ("Origin", "http://a.test"),
            ("Access-Control-Request-Headers", "X-Three"),
            ("Access-Control-Request-Private-Network", "true"),
        ];
        assert_eq!(
            preflight(
                json!({"origins": ["http://a.test", "b.test"], "methods": ["GET"], "headers": ["X-One", "X-Two"], "max_age": 0}),
                &asks
            ),
            ["allow-headers: X-One,X-Two", "allow-methods: GET", "allow-origin: http://a.test", "max-age: 0", "vary: Origin"]
        );
        assert_eq!(
            preflight(json!({"methods": ["GET"], "private_network": true, "max_age": 3600}), &asks),
            ["allow-headers: X-Three", "allow-methods: GET", "allow-origin: *", "allow-private-network: true", "max-age: 3600"]
        );
    }

    #[test]
    fn the_upstream_may_answer_preflights() {
        let plugin = plugin::<Cors>(json!({"preflight_continue": true}));
        let mut x = exchange("OPTIONS", "/", &[("Origin", "http://a.test"), ("Access-Control-Request-Method", "GET")]);
        assert!(run(plugin.access(&mut x)).is_ok());
        plugin.header_filter(&mut x);
        assert!(x.response.headers.is_empty());
    }

    #[test]
    fn bad_configurations() {
        let config = |wrong: Value| json!({"config": wrong});
        assert_eq!(refused::<Cors>(json!({"origins": ["http://(["]})), config(json!({"origins": ["'http://([' is not a valid regex"]})));
        let methods = "expected one of: GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT";
        assert_eq!(refused::<Cors>(json!({"methods": ["FOO"]})), config(json!({"methods": [methods]})));
    }
}
