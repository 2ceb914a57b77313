//! Which route takes which request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Builder, Flavor, Match, Query, Router};
use crate::http::Headers;
use crate::model::Route;

/// A route of these fields, named in its tags.
fn route(name: &str, fields: Value) -> Arc<Route> {
    let mut row = json!({
        "id": uuid::Uuid::new_v4(), "created_at": 1, "updated_at": 1, "name": name, "protocols": ["http", "https"],
        "https_redirect_status_code": 426, "strip_path": true, "preserve_host": false, "request_buffering": true,
        "response_buffering": true, "priority": 0, "regex_priority": 0,
    });
    row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(row).expect("a route"))
}

struct Ask<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    sni: Option<&'a str>,
}

const GET: Ask<'_> = Ask { method: "GET", host: "x", path: "/", headers: &[], sni: None };

struct World {
    names: Vec<String>,
    router: Router,
}

fn world(flavor: Flavor, routes: &[(&str, Value)]) -> World {
    let mut builder = Builder::new(flavor);
    for (place, (name, fields)) in routes.iter().enumerate() {
        builder.set(place, Some(&route(name, fields.clone())));
    }
    World { names: routes.iter().map(|(n, _)| (*n).to_owned()).collect(), router: builder.router() }
}

impl World {
    fn find(&self, ask: &Ask<'_>) -> Option<Match> {
        let mut headers = Headers::new();
        headers.append("Host", ask.host);
        for (name, value) in ask.headers {
            headers.append(name, value);
        }
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.router.find(&Query {
            method: ask.method,
            path: ask.path.split('?').next().unwrap(),
            query: ask.path.split_once('?').map(|(_, q)| q),
            headers: &headers,
            scheme: if ask.sni.is_some() { "https" } else { "http" },
            sni: ask.sni,
            tls: ask.sni.is_some(),
            source: SocketAddr::new(localhost, 5000),
            destination: (localhost, 8000),
        })
    }

    fn winner(&self, ask: &Ask<'_>) -> Option<&str> {
        self.find(ask).map(|m| self.names[m.place].as_str())
    }
}

#[test]
fn paths() {
    let world = world(
        Flavor::default(),
        &[
            ("short", json!({"paths": ["/a"]})),
            ("long", json!({"paths": ["/a/b"]})),
            ("regex", json!({"paths": ["~/a/\\d+$"]})),
            ("root", json!({"paths": ["/"]})),
        ],
    );
    for (path, winner) in [
        ("/a", "short"),
        ("/a/b", "long"),
        ("/a/b/c", "long"),
        ("/a/12", "regex"),
        ("/a/12/x", "short"),
        ("/ab", "short"),
        ("/", "root"),
        ("/zzz", "root"),
        ("/A", "root"),
    ] {
        assert_eq!(world.winner(&Ask { path, ..GET }), Some(winner), "{path}");
    }
}

#[test]
fn hosts_methods_and_headers() {
    let world = world(
        Flavor::default(),
        &[
            ("exact", json!({"hosts": ["a.test"], "paths": ["/"]})),
            ("wild", json!({"hosts": ["*.test"], "paths": ["/"]})),
            ("tail", json!({"hosts": ["a.*"], "paths": ["/"]})),
            ("method", json!({"paths": ["/"], "methods": ["DELETE"]})),
            ("header", json!({"paths": ["/"], "headers": {"x-version": ["2", "~*^v[0-9]$"]}})),
            ("port", json!({"hosts": ["p.example:81"], "paths": ["/"]})),
            ("plain", json!({"paths": ["/"]})),
        ],
    );
    let version = |v| [("X_Version", v)];
    for (method, host, headers, winner) in [
        ("GET", "a.test", None, "exact"),
        ("GET", "A.TEST", None, "exact"),
        ("GET", "a.test:8000", None, "exact"),
        ("GET", "b.test", None, "wild"),
        ("GET", "c.b.test", None, "wild"),
        ("GET", "a.example", None, "tail"),
        ("GET", "test", None, "plain"),
        ("DELETE", "x", None, "method"),
        ("GET", "x", Some("2"), "header"),
        ("GET", "x", Some("V7"), "header"),
        ("GET", "x", Some("22"), "plain"),
        ("DELETE", "x", Some("2"), "header"),
        ("DELETE", "a.test", None, "exact"),
        ("GET", "p.example:81", None, "port"),
        ("GET", "p.example", None, "plain"),
    ] {
        let headers: &[(&str, &str)] = &headers.map_or(vec![], |v| version(v).to_vec());
        assert_eq!(world.winner(&Ask { method, host, headers, ..GET }), Some(winner), "{method} {host} {headers:?}");
    }
}

#[test]
fn more_kinds_go_before_longer_paths_and_regex_before_plain() {
    let world = world(
        Flavor::default(),
        &[
            ("long", json!({"paths": ["/aaaa/bbbb"]})),
            ("two kinds", json!({"paths": ["/aaaa"], "methods": ["GET"]})),
            ("regex low", json!({"paths": ["~/r.*"], "regex_priority": 1})),
            ("regex high", json!({"paths": ["~/r"], "regex_priority": 2})),
            ("plain longer", json!({"paths": ["/rrrrrrr"]})),
        ],
    );
    assert_eq!(world.winner(&Ask { path: "/aaaa/bbbb", ..GET }), Some("two kinds"));
    assert_eq!(world.winner(&Ask { path: "/aaaa/bbbb", method: "PUT", ..GET }), Some("long"));
    assert_eq!(world.winner(&Ask { path: "/rrrrrrr", ..GET }), Some("regex high"));
}

#[test]
fn server_names_count_over_tls_only() {
    let world =
        world(Flavor::default(), &[("sni", json!({"snis": ["s.test", "*.w.test"], "paths": ["/"]})), ("rest", json!({"paths": ["/"]}))]);
    assert_eq!(world.winner(&GET), Some("sni"), "over http a server name is not looked at");
    assert_eq!(world.winner(&Ask { sni: Some("S.test"), ..GET }), Some("sni"));
    assert_eq!(world.winner(&Ask { sni: Some("a.w.test"), ..GET }), Some("sni"));
    assert_eq!(world.winner(&Ask { sni: Some("o.test"), ..GET }), Some("rest"));
}

#[test]
fn captures_and_what_strip_path_strips() {
    let world = world(
        Flavor::default(),
        &[("u", json!({"paths": ["~/u/(?<user>\\w+)/(\\d+)"]})), ("p", json!({"paths": ["/p"]})), ("m", json!({"methods": ["PUT"]}))],
    );
    let found = world.find(&Ask { path: "/u/bob/42/x", ..GET }).unwrap();
    assert_eq!(found.prefix, Some("/u/bob/42".len()));
    assert_eq!(found.captures.named("user"), Some("bob"));
    assert_eq!((found.captures.number(1), found.captures.number(2)), (Some("bob"), Some("42")));
    assert_eq!(world.find(&Ask { path: "/p/x", ..GET }).unwrap().prefix, Some("/p".len()));
    assert_eq!(world.find(&Ask { method: "PUT", path: "/z", ..GET }).unwrap().prefix, None);
}

#[test]
fn the_traditional_flavour_orders_by_kind() {
    let routes = [("path", json!({"paths": ["/aaaa"]})), ("host", json!({"hosts": ["h.test"]}))];
    let ask = Ask { host: "h.test", path: "/aaaa", ..GET };
    assert_eq!(world(Flavor::Traditional, &routes).winner(&ask), Some("host"));
    assert_eq!(world(Flavor::TraditionalCompatible, &routes).winner(&ask), Some("host"), "a plain host goes before none");
}

#[test]
fn expressions() {
    let world = world(
        Flavor::Expressions,
        &[
            ("low", json!({"expression": "http.path ^= \"/\"", "priority": 1})),
            ("high", json!({"expression": "http.path ^= \"/a/b\"", "priority": 10})),
            ("mid", json!({"expression": "http.path ^= \"/a\" && http.headers.x_v == \"1\"", "priority": 20})),
            ("top", json!({"expression": "http.method == \"DELETE\" || http.queries.q == \"1 2\"", "priority": 100})),
            ("classic", json!({"paths": ["/a/b/c/d"]})),
        ],
    );
    assert_eq!(world.winner(&GET), Some("low"));
    assert_eq!(world.winner(&Ask { path: "/a/b/c/d", ..GET }), Some("high"));
    assert_eq!(world.winner(&Ask { path: "/a/b", headers: &[("X-V", "1")], ..GET }), Some("mid"));
    assert_eq!(world.winner(&Ask { method: "DELETE", ..GET }), Some("top"));
    assert_eq!(world.winner(&Ask { path: "/a?q=1+2", ..GET }), Some("top"));
    assert!(super::expressions::check("http.path ^= \"/a\"").is_ok());
    assert!(super::expressions::check("http.path.segments.x == \"a\"").is_err());
    assert!(super::expressions::check("nonsense").is_err());
}

#[test]
fn ten_thousand_routes_are_found_by_few_looks() {
    let routes: Vec<(String, Value)> =
        (0..10_000).map(|i| (format!("r{i}"), json!({"hosts": [format!("h{}.test", i % 100)], "paths": [format!("/p{i}")]}))).collect();
    let routes: Vec<(&str, Value)> = routes.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    let world = world(Flavor::default(), &routes);
    let started = std::time::Instant::now();
    for i in 0..10_000 {
        let (host, path) = (format!("h{}.test", i % 100), format!("/p{i}/x"));
        assert_eq!(world.winner(&Ask { host: &host, path: &path, ..GET }), Some(format!("r{i}").as_str()));
    }
    assert!(started.elapsed().as_secs() < 5, "a look through all routes takes longer");
}
