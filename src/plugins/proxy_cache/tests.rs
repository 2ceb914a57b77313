use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::http::{Body, Headers};
use crate::plugin::reply::ReplyBody;
use crate::plugin::testing::{consumer, env, exchange, nothing, plugin, plugin_with, refused, route, row, run, values, via};

const PLAIN: &[(&str, &str)] = &[("Content-Type", "text/plain")];

fn cache(more: Value) -> ProxyCache {
    let mut config = json!({"strategy": "memory"});
    for (name, value) in more.as_object().expect("a configuration") {
        config[name] = value.clone();
    }
    plugin(config)
}

fn get(target: &str, headers: &[(&str, &str)]) -> Exchange {
    exchange("GET", target, headers)
}

/// What the client got.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    /// `X-Cache-Status`, and whether the upstream was asked.
    fared: String,
    asked: bool,
    headers: Vec<(String, String)>,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Lets a request pass, with this answer of the upstream if it is asked.
fn pass(plugin: &ProxyCache, x: &mut Exchange, status: u16, headers: &[(&str, &str)], body: &[&'static str]) -> Got {
    let head = x.request.method == Method::Head;
    let mut chunks: Vec<Bytes> = if head { Vec::new() } else { body.iter().map(|piece| Bytes::from(*piece)).collect() };
    let answered = run(Plugin::access(plugin, x));
    let asked = answered.is_ok();
    match answered {
        Ok(()) => {
            x.response.status = status;
            headers.iter().for_each(|(name, value)| x.response.headers.append(name, value));
        }
        Err(reply) if reply.body == ReplyBody::InPlace => {
            chunks = match std::mem::take(&mut x.response.body) {
                Body::Bytes(bytes) => vec![bytes],
                _ => Vec::new(),
            };
        }
        Err(reply) => {
            (x.response.status, x.response.headers, chunks) = (reply.status, reply.headers, Vec::new());
        }
    }
    plugin.header_filter(x);
    let sent = chunks.concat();
    for mut chunk in chunks {
        plugin.body_filter(x, &mut chunk, false);
    }
    plugin.body_filter(x, &mut Bytes::new(), true);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Got {
        status: x.response.status,
        fared: values(&x.response.headers, "x-cache-status").concat(),
        asked,
        headers: x.response.headers.iter().map(|(n, v)| (text(n), text(v))).collect(),
        body: text(&sent),
    }
}

/// How two requests fare, one after the other.
fn twice(plugin: &ProxyCache, x: impl Fn() -> Exchange, status: u16, headers: &[(&str, &str)]) -> [String; 2] {
    [(); 2].map(|()| pass(plugin, &mut x(), status, headers, &["one"]).fared)
}

/// A request that comes so many seconds later.
fn later(mut x: Exchange, seconds: u64) -> Exchange {
    x.timing.started_at = SystemTime::now() + Duration::from_secs(seconds);
    x
}

#[test]
fn the_second_request_is_answered_from_the_cache() {
    let plugin = cache(json!({}));
    let sent = [
        ("Content-Type", "text/plain"),
        ("X-Own", "1"),
        ("Content-Length", "6"),
        ("Connection", "x"),
        ("X-RateLimit-Remaining-Minute", "4"),
    ];
    let first = pass(&plugin, &mut get("/a?b=1", &[]), 200, &sent, &["one", "two"]);
    assert_eq!((first.status, first.fared.as_str(), first.asked, first.body.as_str()), (200, "Miss", true, "onetwo"));
    let second = pass(&plugin, &mut get("/a?b=1", &[]), 500, PLAIN, &["other"]);
    let headers = [
        ("Content-Type", "text/plain"),
        ("X-Own", "1"),
        ("Content-Length", "6"),
        ("Age", "0"),
        ("X-Cache-Status", "Hit"),
        ("X-Cache-Key", first.header("x-cache-key").unwrap()),
    ];
    assert_eq!(
        second,
        Got {
            status: 200,
            fared: "Hit".to_owned(),
            asked: false,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            body: "onetwo".to_owned(),
        }
    );
    assert_eq!(pass(&plugin, &mut get("/a?b=2", &[]), 200, PLAIN, &[]).fared, "Miss");
    let last = pass(&plugin, &mut later(get("/a?b=1", &[]), 200), 200, PLAIN, &[]);
    assert!(matches!(last.header("age"), Some("200" | "201")), "{last:?}");
}

#[test]
fn what_passes_the_cache() {
    let plugin = cache(json!({"content_type": ["text/plain", "a/b; c=d"], "response_code": [200, 206, 304, 404]}));
    for (status, headers, fared) in [
        (404, PLAIN, ["Miss", "Hit"]),
        (200, &[("Content-Type", "a/b;c=d")], ["Miss", "Hit"]),
        (500, PLAIN, ["Bypass", "Bypass"]),
        (200, &[("Content-Type", "text/plain; charset=utf-8")], ["Bypass", "Bypass"]),
        (200, &[("Content-Type", "text/plain"), ("Content-Type", "text/plain")], ["Bypass", "Bypass"]),
        (200, &[("Content-Type", "plain")], ["Bypass", "Bypass"]),
        (200, &[], ["Bypass", "Bypass"]),
        (206, &[("Content-Type", "text/plain"), ("Content-Range", "bytes 0-2/9")], ["Bypass", "Bypass"]),
        // shorter than announced
        (200, &[("Content-Type", "text/plain"), ("Content-Length", "9")], ["Miss", "Miss"]),
    ] {
        plugin_cache(&plugin).memory.purge_all();
        assert_eq!(twice(&plugin, || get("/", &[]), status, headers), fared, "{status} {headers:?}");
    }
    let got = pass(&plugin, &mut exchange("POST", "/", &[]), 200, PLAIN, &["x"]);
    assert_eq!((got.fared.as_str(), got.header("x-cache-key")), ("Bypass", None));
    let got = pass(&plugin, &mut get("/", &[]), 500, PLAIN, &["x"]);
    assert_eq!((got.fared.as_str(), got.header("x-cache-key").map(str::len)), ("Bypass", Some(64)));
    let grpc = cache(json!({"content_type": ["*/*"], "request_method": ["POST"]}));
    assert_eq!(twice(&grpc, || exchange("POST", "/", &[]), 200, &[("Content-Type", "application/grpc")]), ["Bypass", "Bypass"]);
    assert_eq!(twice(&grpc, || exchange("POST", "/", &[]), 200, &[("Content-Type", "image/png")]), ["Miss", "Hit"]);
}

fn plugin_cache(plugin: &ProxyCache) -> &crate::plugin::cache::Cache {
    plugin.0.cache()
}

#[test]
fn answers_are_given_for_their_time() {
    let plugin = cache(json!({"cache_ttl": 5}));
    let fares = |plugin: &ProxyCache, seconds| pass(plugin, &mut later(get("/", &[]), seconds), 200, PLAIN, &["x"]).fared;
    assert_eq!([0, 4, 6].map(|seconds| fares(&plugin, seconds)), ["Miss", "Hit", "Miss"]);
    let kept = cache(json!({"cache_ttl": 5, "storage_ttl": 60}));
    // what was stored by the refresh is stored now
    assert_eq!([0, 4, 7, 0, 62].map(|seconds| fares(&kept, seconds)), ["Miss", "Hit", "Refresh", "Hit", "Miss"]);
    let endless = cache(json!({"cache_ttl": 5, "storage_ttl": 0}));
    assert_eq!([0, 1_000_000].map(|seconds| fares(&endless, seconds)), ["Miss", "Refresh"]);
    let brief = cache(json!({"cache_ttl": 5, "storage_ttl": 1}));
    assert_eq!([0, 3].map(|seconds| fares(&brief, seconds)), ["Miss", "Miss"]);
}

#[test]
fn requests_and_answers_control_the_cache() {
    let plugin = cache(json!({"cache_control": true, "storage_ttl": 100}));
    let answer = |control: &'static str| [("Content-Type", "text/plain"), ("Cache-Control", control)];
    for control in ["private, max-age=9", "no-store, max-age=9", "no-cache, max-age=9", "max-age=0", "public", "max-age=x"] {
        assert_eq!(twice(&plugin, || get("/", &[]), 200, &answer(control)), ["Bypass", "Bypass"], "{control}");
    }
    for asked in [("Cache-Control", "no-store"), ("Cache-Control", "no-cache"), ("Authorization", "Basic x")] {
        assert_eq!(twice(&plugin, || get("/", &[asked]), 200, &answer("max-age=9")), ["Bypass", "Bypass"], "{asked:?}");
    }
    assert_eq!(twice(&plugin, || get("/s", &[]), 200, &answer("s-maxage=9, max-age=0")), ["Miss", "Hit"]);
    assert_eq!(twice(&plugin, || get("/", &[]), 200, &answer("max-age=9")), ["Miss", "Hit"]);
    for (seconds, asked, fared) in [
        (8, "", "Hit"),
        // past its time, and the client does not mind
        (50, "", "Hit"),
        (50, "max-stale", "Hit"),
        (50, "max-stale=90", "Hit"),
        (50, "max-stale=9", "Refresh"),
        (50, "max-age=60", "Hit"),
        (3, "max-age=1", "Refresh"),
        (3, "min-fresh=4", "Hit"),
        (3, "min-fresh=9", "Refresh"),
        (3, "min-fresh=0, max-age=9", "Hit"),
        (3, "only-if-cached", "Hit"),
    ] {
        let mut x = later(get("/", &[("Cache-Control", asked)]), seconds);
        let Err(_) = run(Plugin::access(&plugin, &mut x)) else {
            assert_eq!(fared, "Refresh", "{asked}");
            continue;
        };
        assert_eq!(values(&x.response.headers, "x-cache-status"), [fared], "{asked}");
    }
    let got = pass(&plugin, &mut get("/none", &[("Cache-Control", "only-if-cached")]), 200, PLAIN, &["x"]);
    assert_eq!((got.status, got.asked, got.body.as_str(), got.fared.as_str()), (504, false, "", ""));
    assert_eq!(got.header("x-cache-key").map(str::len), Some(64));
    // all this counts only where the configuration says so
    let plugin = cache(json!({}));
    assert_eq!(twice(&plugin, || get("/", &[("Cache-Control", "no-store")]), 200, &answer("no-store")), ["Miss", "Hit"]);
}

#[test]
fn heads_have_entries_of_their_own() {
    let plugin = cache(json!({}));
    let length = [("Content-Type", "text/plain"), ("Content-Length", "7")];
    assert_eq!(pass(&plugin, &mut get("/", &[]), 200, PLAIN, &["body"]).fared, "Miss");
    assert_eq!(pass(&plugin, &mut exchange("HEAD", "/", &[]), 200, &length, &[]).fared, "Miss");
    let hit = pass(&plugin, &mut exchange("HEAD", "/", &[]), 500, PLAIN, &[]);
    assert_eq!((hit.fared.as_str(), hit.header("content-length"), hit.body.as_str()), ("Hit", Some("7"), ""));
}

#[test]
fn consumers_have_entries_of_their_own() {
    let plugin = cache(json!({}));
    let route = via(route("r"));
    let of = |username: &str| {
        let mut x = get("/", &[]);
        x.route = Some(route.clone());
        let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, username.as_bytes());
        x.authenticated.consumer = Some(Arc::new(row(json!({"username": username, "id": id}))));
        x
    };
    assert_eq!(twice(&plugin, || of("bob"), 200, PLAIN), ["Miss", "Hit"]);
    assert_eq!(twice(&plugin, || of("alice"), 200, PLAIN), ["Miss", "Hit"]);
    let mut x = get("/", &[]);
    x.authenticated.consumer = Some(Arc::new(consumer("nobody")));
    assert_eq!(pass(&plugin, &mut x, 200, PLAIN, &["x"]).fared, "Miss");
}

#[test]
fn clients_are_told_what_is_configured() {
    let silent = json!({"response_headers": {"age": false, "X-Cache-Status": false, "X-Cache-Key": false}});
    let plugin = cache(silent);
    let told = |x: &mut Exchange| {
        let got = pass(&plugin, x, 200, PLAIN, &["x"]);
        [got.header("age"), got.header("x-cache-status"), got.header("x-cache-key")].map(|h| h.is_some())
    };
    assert_eq!(told(&mut get("/", &[])), [false; 3]);
    assert_eq!(told(&mut get("/", &[])), [false; 3]);
    assert_eq!(told(&mut get("/", &[("Kong-Debug", "1")])), [true; 3]);
}

#[test]
fn a_client_that_has_the_answer_is_told_so() {
    let plugin = cache(json!({}));
    let sent = [("Content-Type", "text/plain"), ("ETag", "\"a\""), ("Content-Length", "3")];
    assert_eq!(pass(&plugin, &mut get("/", &[]), 200, &sent, &["one"]).fared, "Miss");
    let got = pass(&plugin, &mut get("/", &[("If-None-Match", "\"a\"")]), 500, &[], &[]);
    assert_eq!((got.status, got.fared.as_str(), got.body.as_str()), (304, "Hit", ""));
    assert_eq!((got.header("etag"), got.header("content-type"), got.header("content-length")), (Some("\"a\""), None, None));
    let got = pass(&plugin, &mut get("/", &[("If-None-Match", "\"b\"")]), 500, &[], &[]);
    assert_eq!((got.status, got.body.as_str()), (200, "one"));
}

#[test]
fn a_body_that_is_too_large_passes() {
    let mut env = env();
    env.handles = Arc::new(crate::plugin::Handles { cache: Arc::new(crate::plugin::cache::Cache::new(1 << 16)), ..Default::default() });
    let plugin: ProxyCache = plugin_with(json!({"strategy": "memory"}), &env);
    let piece: &'static str = Box::leak("x".repeat(3000).into_boxed_str());
    for fared in ["Miss", "Miss"] {
        let got = pass(&plugin, &mut get("/", &[]), 200, PLAIN, &[piece, piece]);
        assert_eq!((got.fared.as_str(), got.body.len()), (fared, 6000));
    }
    let mut x = get("/", &[]);
    run(Plugin::access(&plugin, &mut x)).unwrap();
    x.response.status = 200;
    x.response.headers.append("Content-Type", "text/plain");
    x.response.body = Body::Bytes(Bytes::from(vec![0; 6000]));
    plugin.header_filter(&mut x);
    assert_eq!(values(&x.response.headers, "x-cache-status"), ["Bypass"], "its length is known");
    assert_eq!(env.handles.cache.memory.sizes().entries, 0);
}

/// One request asks; what others do meanwhile.
#[actix_rt::test]
async fn requests_that_come_together_ask_once() {
    let plugin = cache(json!({}));
    let answer = |x: &mut Exchange, status| {
        x.response.status = status;
        x.response.headers.append("Content-Type", "text/plain");
        plugin.header_filter(x);
    };
    let (mut first, mut second, mut third) = (get("/", &[]), get("/", &[]), exchange("HEAD", "/", &[]));
    Plugin::access(&plugin, &mut first).await.unwrap();
    Plugin::access(&plugin, &mut third).await.unwrap();
    let fill = async {
        tokio::task::yield_now().await;
        answer(&mut first, 200);
        plugin.body_filter(&mut first, &mut Bytes::from("one"), true);
    };
    let soon = std::time::Duration::from_millis(500);
    let both = futures_util::future::join(Plugin::access(&plugin, &mut second), fill);
    let (waited, ()) = tokio::time::timeout(soon, both).await.expect("nobody waits for long");
    assert_eq!(waited.expect_err("a hit").body, ReplyBody::InPlace);
    assert_eq!(values(&second.response.headers, "x-cache-status"), ["Hit"]);

    // an answer that is not kept lets the others go as soon as its head is there; after that nobody waits
    let (mut first, mut second, mut third) = (get("/b", &[]), get("/b", &[]), get("/b", &[]));
    Plugin::access(&plugin, &mut first).await.unwrap();
    let refuse = async {
        tokio::task::yield_now().await;
        answer(&mut first, 500);
    };
    let both = futures_util::future::join(Plugin::access(&plugin, &mut second), refuse);
    let (waited, ()) = tokio::time::timeout(soon, both).await.expect("nobody waits for long");
    waited.expect("it asks for itself");
    tokio::time::timeout(soon, Plugin::access(&plugin, &mut third)).await.expect("it does not wait").unwrap();

    // a client that leaves lets the others go
    let (mut first, mut second) = (get("/c", &[]), get("/c", &[]));
    Plugin::access(&plugin, &mut first).await.unwrap();
    answer(&mut first, 200);
    plugin.body_filter(&mut first, &mut Bytes::from("half"), false);
    let leave = async {
        tokio::task::yield_now().await;
        first.clear(&nothing());
    };
    let both = futures_util::future::join(Plugin::access(&plugin, &mut second), leave);
    let (waited, ()) = tokio::time::timeout(soon, both).await.expect("nobody waits for long");
    waited.expect("it asks for itself");
    answer(&mut second, 200);
    assert_eq!(values(&second.response.headers, "x-cache-status"), ["Miss"]);
}

#[test]
fn an_answer_that_breaks_off_is_not_kept() {
    let plugin = cache(json!({}));
    let mut x = get("/", &[]);
    run(Plugin::access(&plugin, &mut x)).unwrap();
    x.response.status = 200;
    x.response.headers.append("Content-Type", "text/plain");
    plugin.header_filter(&mut x);
    plugin.body_filter(&mut x, &mut Bytes::from("half"), false);
    x.clear(&nothing());
    assert_eq!(pass(&plugin, &mut get("/", &[]), 200, PLAIN, &["x"]).fared, "Miss");
}

#[test]
fn what_was_asked_for_before_a_purge_is_not_kept() {
    let plugin = cache(json!({}));
    let mut x = get("/", &[]);
    run(Plugin::access(&plugin, &mut x)).unwrap();
    drop(plugin_cache(&plugin).memory.purge_all());
    x.response = crate::http::Response { status: 200, headers: Headers::new(), ..Default::default() };
    x.response.headers.append("Content-Type", "text/plain");
    plugin.header_filter(&mut x);
    plugin.body_filter(&mut x, &mut Bytes::from("old"), true);
    assert_eq!(pass(&plugin, &mut get("/", &[]), 200, PLAIN, &["new"]).fared, "Miss");
}

#[test]
fn refuses_configurations_in_kongs_words() {
    let refused = |config| refused::<ProxyCache>(config);
    assert_eq!(refused(json!({})), json!({"config": {"strategy": "required field missing"}}));
    assert_eq!(refused(json!({"strategy": "disk"})), json!({"config": {"strategy": "expected one of: memory"}}));
    let memory = |name: &str, value: Value| refused(json!({"strategy": "memory", name: value}));
    assert_eq!(memory("response_code", json!([99])), json!({"config": {"response_code": ["value should be between 100 and 900"]}}));
    assert_eq!(memory("response_code", json!([])), json!({"config": {"response_code": "length must be at least 1"}}));
    assert_eq!(memory("cache_ttl", json!(0)), json!({"config": {"cache_ttl": "value must be greater than 0"}}));
    assert_eq!(memory("memory", json!({"dictionary_name": "nope"})), json!({"@entity": ["missing shared dict 'nope'"]}));
    let _: ProxyCache = plugin(json!({"strategy": "memory", "memory": {"dictionary_name": "kong"}, "cache_ttl": null}));
}
