//! proxy-cache with an upstream behind it and clients before it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::scripted::{Scripted, whole};
use crate::support::{Answer, Node, ask, get, wait_for};

const PLAIN: &str = "Content-Type: text/plain\r\n";

/// A gateway that caches what the upstream answers.
fn caching(upstream: &Scripted, config: Value) -> Node {
    let node = upstream.behind(&[]);
    cache(&node, config);
    node
}

fn cache(node: &Node, mut config: Value) -> String {
    config["strategy"] = "memory".into();
    let row = node.admin("POST", "/services/s/plugins", json!({"name": "proxy-cache", "config": config}));
    row["id"].as_str().expect("an id").to_owned()
}

fn fared(answer: &Answer) -> &str {
    answer.header("x-cache-status").unwrap_or_default()
}

#[test]
fn a_hit_looks_like_what_the_upstream_said() {
    let upstream = Scripted::plain(
        "Content-Type: text/plain\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: theirs\r\nVia: 1.1 other\r\nETag: \"e\"\r\nX-Two: a\r\nX-Two: b\r\n",
        "hello",
    );
    let node = caching(&upstream, json!({}));
    let (miss, hit) = (node.get("/a?b=1"), node.get("/a?b=1"));
    assert_eq!((fared(&miss), fared(&hit), upstream.asked()), ("Miss", "Hit", 1));
    assert_eq!((hit.status, hit.text().as_str()), (200, "hello"));
    // all fields are those of the first answer, but for what is of one request
    let own = ["X-Cache-Status", "X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency", "X-Kong-Request-Id", "Age"];
    let fields = |answer: &Answer| {
        let mut lines: Vec<String> =
            answer.head.lines().filter(|l| !own.iter().any(|n| l.starts_with(&format!("{n}: ")))).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(fields(&miss), fields(&hit));
    assert!(fields(&hit).contains(&"Content-Type: text/plain; charset=UTF-8".to_owned()), "{}", hit.head);
    assert!(fields(&hit).contains(&"Via: 1.1 other, 1.1 kong/3.10.0".to_owned()), "{}", hit.head);
    assert_eq!((hit.header("age"), hit.header("x-kong-upstream-latency")), (Some("0"), Some("0")));
    assert!(hit.header("x-kong-proxy-latency").is_some() && hit.header("x-kong-response-latency").is_none());
    assert_ne!(hit.header("x-kong-request-id"), miss.header("x-kong-request-id"));

    let known = ask(node.proxy, "GET", "/a?b=1", "If-None-Match: W/\"e\"\r\n", b"").expect("an answer");
    assert_eq!((known.status, known.text().as_str(), known.header("content-length")), (304, "", None));
    let heads: Vec<_> = (0..2).map(|_| ask(node.proxy, "HEAD", "/a?b=1", "", b"").expect("an answer")).collect();
    assert_eq!(heads.iter().map(fared).collect::<Vec<_>>(), ["Miss", "Hit"]);
    assert_eq!((heads[1].header("content-length"), heads[1].text().as_str()), (Some("5"), ""));
    assert_eq!(upstream.asked(), 2);
}

/// The first piece reaches the client before the second exists.
#[test]
fn a_body_streams_while_it_is_collected() {
    let (next, more) = mpsc::channel::<()>();
    let more = Mutex::new(more);
    let upstream = Scripted::start(move |_, _, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{PLAIN}\r\n3\r\none\r\n")?;
        let _ = more.lock().expect("one request at a time").recv();
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n")
    });
    let node = caching(&upstream, json!({}));
    let mut client = TcpStream::connect(node.proxy).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with(b"3\r\none\r\n") {
        let n = client.read(&mut buffer).expect("an answer");
        assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    next.send(()).expect("the upstream waits");
    client.read_to_end(&mut seen).expect("the rest");
    assert!(seen.ends_with(b"3\r\ntwo\r\n0\r\n\r\n"));
    let hit = node.get("/");
    assert_eq!((fared(&hit), hit.text().as_str(), hit.header("content-length")), ("Hit", "onetwo", Some("6")));
}

#[test]
fn an_answer_that_breaks_off_is_not_kept() {
    let upstream = Scripted::start(|head, number, stream| {
        if number == 1 {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{PLAIN}\r\nhalf")?;
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        stream.write_all(whole(head, PLAIN, "whole").as_bytes())
    });
    let node = caching(&upstream, json!({}));
    node.get("/");
    assert_eq!(fared(&node.get("/")), "Miss");
    let hit = node.get("/");
    assert_eq!((fared(&hit), hit.text().as_str(), upstream.asked()), ("Hit", "whole", 2));
}

/// Many at once: whoever does not ask the upstream is answered with what another one got.
#[test]
#[allow(clippy::disallowed_methods, reason = "clients of a test")]
fn requests_that_come_together_ask_once() {
    const CLIENTS: usize = 16;
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Scripted::start(move |head, _, stream| {
        // the channel closes when all have come
        let _ = wait.lock().expect("a channel").recv();
        stream.write_all(whole(head, PLAIN, "once").as_bytes())
    });
    let node = caching(&upstream, json!({}));
    let proxy = node.proxy;
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(move || ask(proxy, "GET", "/", "", b"").expect("an answer"))).collect();
    let under_way = || node.admin("GET", "/status", Value::Null)["server"]["connections_writing"].as_u64();
    wait_for("all have come", || under_way() >= Some(CLIENTS as u64));
    drop(go);
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == "once"));
    let missed = answers.iter().filter(|answer| fared(answer) == "Miss").count();
    assert_eq!((missed, answers.iter().filter(|a| fared(a) == "Hit").count()), (upstream.asked(), CLIENTS - missed));
    assert!(missed < CLIENTS, "nobody waited");
    let metrics = get(node.status, "/metrics").expect("an answer").text();
    assert!(metrics.contains("troop_cache_entries 1\n"), "{metrics}");
    assert!(metrics.contains("shared_dict=\"kong_db_cache\""), "{metrics}");
    let waits = |result: &str| -> usize {
        let line = format!("troop_cache_waits_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(line.as_str())?.parse().ok()).expect("a count")
    };
    assert!((1..CLIENTS).contains(&(waits("answered") + waits("in vain"))), "{metrics}");
    assert!(waits("in vain") < missed, "{metrics}");
}

/// The one that asks leaves before it is answered: the next one does not wait for ever.
#[test]
#[allow(clippy::disallowed_methods, reason = "clients of a test")]
fn who_waits_goes_on_when_the_first_one_leaves() {
    let (stay, never) = mpsc::channel::<()>();
    let never = Mutex::new(never);
    let upstream = Scripted::start(move |head, number, stream| {
        if number == 1 {
            let _ = never.lock().expect("a channel").recv();
        }
        stream.write_all(whole(head, PLAIN, "late").as_bytes())
    });
    let node = caching(&upstream, json!({}));
    let mut first = TcpStream::connect(node.proxy).expect("a connection");
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    wait_for("the upstream is asked", || upstream.asked() == 1);
    let proxy = node.proxy;
    let second = std::thread::spawn(move || ask(proxy, "GET", "/", "", b"").expect("an answer"));
    let under_way = || node.admin("GET", "/status", Value::Null)["server"]["connections_writing"].as_u64();
    wait_for("the second one waits", || under_way() >= Some(2) || upstream.asked() > 1);
    drop(first);
    let second = second.join().expect("a client");
    assert_eq!((second.status, second.text().as_str(), fared(&second)), (200, "late", "Miss"));
    drop(stay);
}

#[test]
fn what_other_plugins_do_they_do_to_hits_too() {
    let upstream = Scripted::plain("Content-Type: text/plain\r\nX-Gone: 1\r\n", "hello");
    let node = caching(&upstream, json!({"content_type": ["text/plain"]}));
    let add = |name: &str, config: Value| node.admin("POST", "/plugins", json!({"name": name, "config": config}));
    add("response-transformer", json!({"add": {"headers": ["X-Added: a"]}, "remove": {"headers": ["X-Gone"]}}));
    add("rate-limiting", json!({"hour": 10}));
    add("correlation-id", json!({"echo_downstream": true, "generator": "uuid"}));
    let answers: Vec<_> = (0..3).map(|_| node.get("/")).collect();
    assert_eq!(answers.iter().map(fared).collect::<Vec<_>>(), ["Miss", "Hit", "Hit"]);
    let lines = |answer: &Answer, name: &str| answer.head.lines().filter(|l| l.starts_with(name)).count();
    let ids: std::collections::BTreeSet<_> = answers.iter().filter_map(|a| a.header("kong-request-id")).collect();
    assert_eq!(ids.len(), 3, "each request has its own");
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(
            (lines(answer, "X-Added: "), lines(answer, "X-Gone"), lines(answer, "RateLimit-Remaining")),
            (1, 0, 1),
            "{}",
            answer.head
        );
        assert_eq!(answer.header("ratelimit-remaining"), Some((9 - n).to_string().as_str()));
    }
    add("request-termination", json!({"status_code": 418}));
    assert_eq!(fared(&node.get("/")), "Hit", "it comes after the cache");
    let (other, none) = (node.get("/other"), ask(node.proxy, "POST", "/", "", b"").expect("an answer"));
    assert_eq!([(other.status, fared(&other)), (none.status, fared(&none))], [(418, "Bypass"); 2]);
    assert_eq!(upstream.asked(), 1);
}

#[test]
fn the_admin_api_shows_and_forgets() {
    let upstream = Scripted::plain(PLAIN, "hello");
    let node = upstream.behind(&[]);
    let id = cache(&node, json!({}));
    let key = node.get("/").header("x-cache-key").expect("a key").to_owned();
    for path in [format!("/proxy-cache/{key}"), format!("/proxy-cache/{id}/caches/{key}")] {
        assert_eq!(fared(&node.get("/")), "Hit");
        let shown = node.admin("GET", &path, Value::Null);
        assert_eq!((&shown["body"], &shown["body_len"], &shown["status"]), (&json!("hello"), &json!(5), &json!(200)));
        assert_eq!(shown["headers"]["X-Cache-Key"], key);
        assert_eq!(shown["headers"]["Content-Type"], "text/plain");
        assert_eq!(node.admin_answer("DELETE", &path, &Value::Null).status, 204);
        assert_eq!(node.admin_answer("GET", &path, &Value::Null).status, 404);
        assert_eq!(fared(&node.get("/")), "Miss");
    }
    assert_eq!(node.admin_answer("DELETE", "/proxy-cache", &Value::Null).status, 204);
    assert_eq!(fared(&node.get("/")), "Miss");
    // a configuration that changes finds what was kept
    node.admin("PATCH", &format!("/plugins/{id}"), json!({"config": {"cache_ttl": 100}}));
    assert_eq!(fared(&node.get("/")), "Hit");
}

/// The owner takes out what nobody asks for any more.
#[test]
fn what_is_over_is_swept() {
    let upstream = Scripted::plain(PLAIN, "hello");
    let node = caching(&upstream, json!({"cache_ttl": 1}));
    let kept =
        || node.admin("GET", "/status?unit=b", Value::Null)["memory"]["lua_shared_dicts"]["kong_db_cache"]["allocated_slabs"].as_u64();
    assert_eq!(kept(), Some(0));
    node.get("/");
    wait_for("the answer is kept", || kept() > Some(0));
    wait_for("it is swept", || kept() == Some(0));
}

#[test]
fn the_budget_is_a_setting() {
    let upstream = Scripted::start(|head, _, stream| {
        let text = "x".repeat(if head.starts_with("GET /large") { 5000 } else { 100 });
        stream.write_all(whole(head, PLAIN, &text).as_bytes())
    });
    let node = upstream.behind(&[("mem_cache_size", "64k"), ("nginx_http_lua_shared_dict", "mine 5m")]);
    cache(&node, json!({"memory": {"dictionary_name": "mine"}}));
    assert_eq!(["/small", "/small", "/large", "/large"].map(|path| fared(&node.get(path)).to_owned()), ["Miss", "Hit", "Bypass", "Bypass"]);
    for n in 0..300 {
        node.get(&format!("/small/{n}"));
    }
    let memory = node.admin("GET", "/status?unit=b", Value::Null)["memory"]["lua_shared_dicts"]["kong_db_cache"].clone();
    assert_eq!(memory["capacity"], 64 << 10);
    assert!(memory["allocated_slabs"].as_u64().is_some_and(|n| n > 32 << 10 && n <= 64 << 10), "{memory}");
    assert_eq!(fared(&node.get("/small/0")), "Miss", "the oldest have given way");
}

/// Hits of many keys by several clients at once, while everything is purged again and again: nobody gets another's answer.
#[test]
#[allow(clippy::disallowed_methods, reason = "clients of a test")]
fn nobody_gets_anothers_answer() {
    let upstream = Scripted::start(|head, _, stream| {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        stream.write_all(whole(head, PLAIN, &path).as_bytes())
    });
    let node = Arc::new(caching(&upstream, json!({})));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let node = Arc::clone(&node);
            std::thread::spawn(move || {
                let mut hits = 0;
                for n in 0..300 {
                    let path = format!("/{}?n={}", n % 7, (n + client) % 3);
                    let answer = node.get(&path);
                    assert_eq!((answer.status, answer.text()), (200, path));
                    hits += usize::from(fared(&answer) == "Hit");
                }
                hits
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(node.admin_answer("DELETE", "/proxy-cache", &Value::Null).status, 204);
    }
    let hits: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
    assert!(hits > 300, "{hits}");
}
