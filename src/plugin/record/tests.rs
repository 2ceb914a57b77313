use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::http::Body;
use crate::model::{Consumer, Route, Service};
use crate::plugin::exchange::{Authenticated, Credential as Verified, Sizes, Tls};
use crate::plugin::testing::{Rows, exchange, row, via};

fn logged(x: &mut Exchange) -> Value {
    serde_json::from_slice(&record(x)).expect("a record is JSON")
}

/// A request that an upstream has answered on its second try, for a consumer.
fn answered() -> Exchange {
    let headers = [("Host", "Obs.test:1"), ("X-M", "1"), ("Authorization", "Basic dTpw"), ("x-m", "2"), ("apikey", "k")];
    let mut x = exchange("POST", "/a/b?x=1&y&x=%32&z=", &headers);
    let (route, service, consumer) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2), uuid::Uuid::from_u128(3));
    let (route, service) = (
        json!({"id": route, "name": "rt", "paths": ["/a"], "service": {"id": service}}),
        json!({"id": service, "name": "svc", "host": "up.test"}),
    );
    let consumer = json!({"id": consumer, "username": "bob", "tags": ["t"]});
    x.world = Rows::default().with::<Service>(service.clone()).with::<Route>(route.clone()).with::<Consumer>(consumer.clone()).world();
    x.route = Some(via(row::<Route>(route)));
    x.service = Some(via(row::<Service>(service)));
    let consumer: Consumer = row(consumer);
    let credential = Verified { id: "c1".to_owned(), consumer: Some(consumer.id) };
    x.authenticated = Authenticated { consumer: Some(Arc::new(consumer)), credential: Some(credential), ..Authenticated::default() };
    x.upstream.target = "/b?x=1&y&x=%32&z=".to_owned();
    x.source = Source::Upstream;
    x.response.status = 200;
    for (name, value) in [("Content-Length", "9"), ("Date", "then"), ("Set-Cookie", "a"), ("set-cookie", "b"), ("Connection", "x")] {
        x.response.headers.append(name, value);
    }
    x.response.body = Body::Empty;
    x.delivery = Some(Delivery { length: Some(2), chunked: false, keep_alive: true });
    x.size = Sizes { request: 174, response: 300, response_body: 2 };
    let at = UNIX_EPOCH + Duration::from_nanos(1_795_332_695_177_000_005);
    let start = Instant::now();
    let a_try = |failure, status| Try {
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 9100,
        asked: start - Duration::from_micros(1500),
        started: start,
        failure,
        status,
    };
    x.tries.extend([a_try(Some(502), None), a_try(None, Some(200))]);
    x.timing.started = start;
    x.timing.started_at = at;
    x.timing.upstream_started = Some(start + Duration::from_millis(3));
    x.timing.upstream_headers = Some(start + Duration::from_millis(13));
    x.timing.upstream_finished = Some(start + Duration::from_millis(15));
    x.timing.finished = Some(start + Duration::from_millis(16));
    x
}

#[test]
fn everything_that_is_known() {
    let mut x = answered();
    let mut record = logged(&mut x);
    for part in ["route", "service"] {
        let row = record[part].as_object_mut().expect("a row");
        assert!(row.values().all(|value| !value.is_null()), "{row:?}");
        assert_eq!(row.remove("ws_id"), Some(WORKSPACE_ID.into()));
    }
    assert_eq!((&record["route"]["name"], &record["route"]["service"]), (&json!("rt"), &json!({"id": uuid::Uuid::from_u128(2)})));
    assert_eq!((&record["service"]["host"], &record["service"]["retries"]), (&json!("up.test"), &json!(5)));
    for part in ["route", "service"] {
        record[part] = "shown".into();
    }
    let tried = json!({
        "ip": "127.0.0.1", "port": 9100, "balancer_start": 1_795_332_695_177_u64, "balancer_start_ns": 1_795_332_695_177_000_005_u64,
        "balancer_latency": 1, "balancer_latency_ns": 1_500_000,
    });
    let mut failed = tried.clone();
    failed["state"] = "failed".into();
    failed["code"] = 502.into();
    let id = "0".repeat(32);
    let consumer = uuid::Uuid::from_u128(3);
    assert_eq!(
        record,
        json!({
            "request": {
                "id": id, "method": "POST", "uri": "/a/b?x=1&y&x=%32&z=", "url": "http://obs.test:8000/a/b?x=1&y&x=%32&z=",
                "querystring": {"x": ["1", "2"], "y": true, "z": ""},
                "headers": {"host": "Obs.test:1", "x-m": ["1", "2"], "authorization": "REDACTED", "apikey": "k"},
                "size": 174,
            },
            "upstream_uri": "/b?x=1&y&x=%32&z=",
            "upstream_status": "502, 200",
            "response": {
                "status": 200, "size": 300,
                "headers": {"content-length": "2", "date": "then", "set-cookie": ["a", "b"], "connection": "keep-alive"},
            },
            "latencies": {"kong": 5, "proxy": 10, "request": 16, "receive": 2},
            "tries": [failed, tried],
            "authenticated_entity": {"id": "c1"},
            "route": "shown",
            "service": "shown",
            "consumer": {"id": consumer, "username": "bob", "tags": ["t"], "created_at": record["consumer"]["created_at"],
                "updated_at": record["consumer"]["updated_at"]},
            "client_ip": "127.0.0.1",
            "started_at": 1_795_332_695_177_u64,
            "source": "upstream",
            "workspace": WORKSPACE_ID,
            "workspace_name": "default",
        })
    );
}

#[test]
fn what_is_not_known_is_not_there() {
    let mut x = exchange("GET", "/none", &[]);
    x.upstream.target.clear();
    x.response.status = 404;
    x.response.headers.append("Date", "now");
    x.response.headers.append("Content-Type", "text/plain");
    let record = logged(&mut x);
    let keys: Vec<&String> = record.as_object().expect("a table").keys().collect();
    let expected = [
        "client_ip",
        "latencies",
        "request",
        "response",
        "source",
        "started_at",
        "upstream_status",
        "upstream_uri",
        "workspace",
        "workspace_name",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&record["upstream_uri"], &record["upstream_status"], &record["source"]), (&json!(""), &json!(""), &json!("kong")));
    assert_eq!(record["latencies"]["proxy"], -1);
    assert_eq!(record["request"]["url"], "http://kong:8000/none");
    assert_eq!(record["request"]["querystring"], json!({}));
    assert_eq!(record["response"]["headers"], json!({"content-type": "text/plain"}));
}

#[test]
fn a_plugin_answered() {
    let mut x = answered();
    x.tries.clear();
    x.timing.upstream_started = None;
    x.source = Source::Gateway;
    x.correlation_id = Some("id-1".to_owned());
    x.delivery = Some(Delivery { length: None, chunked: true, keep_alive: false });
    x.client.tls = Some(Arc::new(Tls { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384".to_owned(), ..Tls::default() }));
    x.client.scheme = "https";
    let record = logged(&mut x);
    assert_eq!(record["tries"], json!([]));
    assert_eq!(record["latencies"], json!({"kong": 16, "proxy": -1, "request": 16, "receive": 0}));
    assert_eq!(record["correlation_id"], "id-1");
    assert_eq!(record["request"]["tls"], json!({"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "client_verify": "NONE"}));
    let headers = &record["response"]["headers"];
    assert_eq!(
        (&headers["transfer-encoding"], &headers["connection"], &headers["date"]),
        (&json!("chunked"), &json!("close"), &Value::Null)
    );
}

#[test]
fn it_is_made_once() {
    let mut x = answered();
    let first = record(&mut x);
    x.response.status = 500;
    assert_eq!(record(&mut x).as_ptr(), first.as_ptr());
    x.clear(&crate::plugin::testing::nothing());
    assert_eq!(x.record, None);
}

#[test]
fn bytes_that_are_no_text_do_not_break_it() {
    let mut x = exchange("GET", "/\u{e9}?a=%ff", &[]);
    x.request.headers.append("x-b", b"\xff\"");
    let record = logged(&mut x);
    assert_eq!(record["request"]["headers"]["x-b"], "\u{fffd}\"");
    assert_eq!(record["request"]["querystring"]["a"], "\u{fffd}");
}
