//! From a row of the table to what gateways are configured with and to what they are asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::live;
use crate::load::websocket::KEY as WEBSOCKET_KEY;
use crate::load::{Protocol, Requests};
use crate::peers::BODY;
use crate::scenarios::{Asks, Credential, Path, Setup};

/// Name of the service that all routes lead to.
pub const SERVICE: &str = "plain";
const PASSWORD: &str = "correct horse battery staple";
const ISSUER: &str = "loadtest";
const SECRET: &str = "a secret of more than thirty-two bytes";
/// Never reached while it is measured.
const NO_LIMIT: u64 = 1_000_000_000;

/// Where what plugins send goes.
pub struct Sinks {
    pub http: SocketAddr,
    pub udp: SocketAddr,
    pub file: PathBuf,
}

/// The key of a consumer.
pub fn key(consumer: usize) -> String {
    // the multiplier is odd, so that no two are the same
    format!("key-{:016x}", (consumer as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn route_path(route: usize) -> String {
    format!("/r/{route:05}")
}

/// A declarative document with these plugins, for all requests.
pub fn document(setup: &Setup, plugins: &[&str], upstream: SocketAddr, live: SocketAddr, sinks: &Sinks) -> Value {
    let route = |n: usize| json!({"name": format!("route-{n}"), "paths": [route_path(n)], "service": SERVICE});
    let mut routes: Vec<Value> = (0..setup.routes).map(route).collect();
    if setup.routes == 0 {
        routes.push(json!({"name": "all", "paths": ["/"], "strip_path": false, "service": SERVICE}));
        routes.push(json!({"name": "live", "paths": ["/live"], "strip_path": false, "service": "live"}));
    }
    let name = |n: usize| format!("consumer-{n}");
    let has = |plugin: &str| plugins.contains(&plugin);
    let mut document = json!({
        "_format_version": "3.0",
        "services": [
            {"name": SERVICE, "url": format!("http://{upstream}")},
            {"name": "live", "url": format!("http://{live}")},
        ],
        "routes": routes,
        "consumers": (0..setup.consumers).map(|n| json!({"username": name(n)})).collect::<Vec<_>>(),
        "plugins": plugins.iter().map(|plugin| json!({"name": plugin, "config": config(plugin, sinks)})).collect::<Vec<_>>(),
    });
    if setup.consumers > 0 && (has("key-auth") || plugins.is_empty()) {
        let keys = (0..setup.consumers).map(|n| json!({"consumer": name(n), "key": key(n)}));
        document["keyauth_credentials"] = keys.collect::<Vec<_>>().into();
    }
    if has("basic-auth") {
        document["basicauth_credentials"] = json!([{"consumer": name(0), "username": name(0), "password": PASSWORD}]);
    }
    if has("jwt") {
        document["jwt_secrets"] = json!([{"consumer": name(0), "key": ISSUER, "secret": SECRET, "algorithm": "HS256"}]);
    }
    document
}

fn config(plugin: &str, sinks: &Sinks) -> Value {
    match plugin {
        "rate-limiting" => json!({"minute": NO_LIMIT, "hour": NO_LIMIT, "policy": "local"}),
        "proxy-cache" => json!({"strategy": "memory", "content_type": ["text/plain"], "cache_ttl": 3600}),
        "request-transformer" => json!({
            "add": {"headers": ["x-added:value"], "querystring": ["added:value"]},
            "remove": {"headers": ["user-agent"]},
        }),
        "prometheus" => {
            json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true, "per_consumer": true})
        }
        "file-log" => json!({"path": sinks.file}),
        "http-log" => json!({"http_endpoint": format!("http://{}/log", sinks.http), "queue": {"max_batch_size": 200}}),
        "udp-log" | "statsd" => json!({"host": sinks.udp.ip().to_string(), "port": sinks.udp.port()}),
        _ => json!({}),
    }
}

/// The requests to a gateway at an address.
pub fn requests(asks: &Asks, setup: &Setup, at: SocketAddr) -> Result<Requests> {
    let credentials: Vec<Option<(&str, String)>> = match asks.credential {
        Credential::None => vec![None],
        Credential::Key => vec![Some(("apikey", key(0)))],
        Credential::AnyKey => (0..setup.consumers).map(|n| Some(("apikey", key(n)))).collect(),
        Credential::Basic => {
            vec![Some(("Authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("consumer-0:{PASSWORD}")))))]
        }
        Credential::Jwt => vec![Some(("Authorization", format!("Bearer {}", token()?)))],
    };
    let paths: Vec<String> = match asks.path {
        Path::Plain => vec!["/".to_owned()],
        Path::File(path, _) => vec![path.to_owned()],
        Path::OneRoute => vec![route_path(setup.routes / 2)],
        Path::AnyRoute => (0..setup.routes).map(route_path).collect(),
        Path::Echo => vec![live::ECHO.to_owned()],
    };
    let answer = match asks.path {
        Path::File(_, size) => size,
        _ => BODY as u64,
    };
    let mut requests = Requests { http1: Vec::new(), http2: Vec::new(), answer };
    let all = paths.iter().flat_map(|path| credentials.iter().map(move |credential| (path, credential)));
    for (path, credential) in all {
        let mut fields = vec![("User-Agent".to_owned(), "loadtest/1".to_owned()), ("Accept".to_owned(), "*/*".to_owned())];
        fields.extend(credential.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        fields.extend((fields.len() + 1..asks.fields).map(|n| (format!("X-Field-{n}"), format!("the value of field {n}"))));
        match asks.protocol {
            Protocol::WebSocket => {
                fields.extend([("Connection", "Upgrade"), ("Upgrade", "websocket")].map(|(n, v)| (n.to_owned(), v.to_owned())));
                let own = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", WEBSOCKET_KEY)];
                fields.extend(own.map(|(n, v)| (n.to_owned(), v.to_owned())));
            }
            // so that the server closes first, and no port of this side stays taken
            Protocol::TlsHandshake => fields.push(("Connection".to_owned(), "close".to_owned())),
            _ => {}
        }
        if asks.body > 0 {
            fields.push(("Content-Length".to_owned(), asks.body.to_string()));
        }
        match asks.protocol {
            Protocol::Http2(_) | Protocol::Http2Tls(_) => requests.http2.push(http2(path, &fields, at)?),
            _ => requests.http1.push(http1(path, &fields, asks.body, at)),
        }
    }
    Ok(requests)
}

fn http1(path: &str, fields: &[(String, String)], body: usize, at: SocketAddr) -> Vec<u8> {
    let method = if body > 0 { "POST" } else { "GET" };
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n{}", "b".repeat(body)).into_bytes()
}

fn http2(path: &str, fields: &[(String, String)], at: SocketAddr) -> Result<http::Request<()>> {
    let mut request = http::Request::get(format!("http://{at}{path}"));
    for (name, value) in fields {
        request = request.header(name.to_ascii_lowercase(), value);
    }
    Ok(request.body(())?)
}

/// A token that is good for a day.
fn token() -> Result<String> {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400;
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({"typ": "JWT", "alg": "HS256"})), part(json!({"iss": ISSUER, "exp": expires})));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(signed.as_bytes());
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::scenario;

    fn at() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8000))
    }

    fn sinks() -> Sinks {
        Sinks { http: at(), udp: at(), file: "/log".into() }
    }

    #[test]
    fn keys_differ() {
        let mut keys: Vec<String> = (0..10_000).map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 10_000);
    }

    #[test]
    fn a_document_has_what_the_row_says() {
        let row = scenario("routes-10000-random").expect("a row");
        let document = document(&row.setup, row.setup.plugins, at(), at(), &sinks());
        let count = |kind: &str| document[kind].as_array().map_or(0, Vec::len);
        assert_eq!((count("routes"), count("consumers"), count("keyauth_credentials"), count("plugins")), (10_000, 1_000, 1_000, 0));
    }

    #[test]
    fn requests_have_as_many_fields_as_the_row_says() {
        let row = scenario("headers").expect("a row");
        let requests = requests(&row.asks, &row.setup, at()).expect("requests");
        let text = String::from_utf8(requests.http1[0].clone()).expect("text");
        assert!(text.starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"));
        assert_eq!(text.trim_end().lines().count(), 1 + 22);
    }

    #[test]
    fn every_row_can_be_asked() {
        for row in crate::scenarios::SCENARIOS {
            let requests = requests(&row.asks, &row.setup, at()).expect(row.name);
            assert!(requests.http1.len() + requests.http2.len() > 0, "{}", row.name);
        }
    }

    #[test]
    fn a_token_has_three_parts() {
        assert_eq!(token().expect("a token").split('.').count(), 3);
    }
}
