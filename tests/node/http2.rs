//! HTTP/2 at a whole node: what an upstream is told of requests that break off, time limits, and the end of a node.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::proxy::frames::*;
use crate::support::{Node, free_ports, wait_for};

/// An upstream that writes down the requests that it takes for whole, and answers them with `ok` once it may.
struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    may_answer: Arc<AtomicBool>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let recorder = Self { address, heard: Arc::default(), may_answer: Arc::new(AtomicBool::new(true)) };
        let (heard, may_answer) = (Arc::clone(&recorder.heard), Arc::clone(&recorder.may_answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, may_answer) = (Arc::clone(&heard), Arc::clone(&may_answer));
                std::thread::spawn(move || record(stream, &heard, &may_answer));
            }
        });
        recorder
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no thread panics").clone()
    }
}

fn record(mut stream: TcpStream, heard: &Mutex<Vec<String>>, may_answer: &AtomicBool) {
    let (mut buffer, mut text) = ([0; 4096], String::new());
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        text += &String::from_utf8_lossy(&buffer[..n]);
        if is_complete(&text) {
            heard.lock().expect("no thread panics").push(std::mem::take(&mut text));
            wait_for("the upstream may answer", || may_answer.load(Ordering::SeqCst));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    }
}

/// Whether this is one whole request.
fn is_complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("Transfer-Encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// A node that speaks HTTP/2 without TLS, with one route that reads bodies before it calls the upstream, and one that does not.
fn node(upstream: &Recorder, settings: &[(&str, &str)]) -> (Node, SocketAddr) {
    let [plain, tls] = free_ports();
    let listen = format!("{plain} http2, {tls} ssl http2");
    let node = Node::start(&[settings, &[("proxy_listen", &listen)]].concat());
    node.admin("POST", "/services", json!({"name": "s", "url": format!("http://{}", upstream.address), "retries": 0}));
    node.admin("POST", "/services/s/routes", json!({"name": "whole", "paths": ["/whole"]}));
    node.admin("POST", "/services/s/routes", json!({"name": "stream", "paths": ["/stream"], "request_buffering": false}));
    (node, plain)
}

fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

#[test]
fn no_upstream_takes_a_broken_request_for_a_whole_one() {
    let upstream = Recorder::start();
    let (mut node, address) = node(&upstream, &[]);
    run(async {
        let ten = [("content-length", "10")];
        let mut bad = 0;
        for path in ["/whole", "/stream"] {
            for bytes in [
                [post(1, path, &ten), frame(DATA, 0, 1, "12345"), frame(DATA, END_STREAM, 1, "")].concat(),
                [post(1, path, &ten), frame(DATA, 0, 1, "12345678901")].concat(),
                [post(1, path, &ten), frame(DATA, 0, 1, "12345"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x", "1")]))]
                    .concat(),
                [post(1, path, &[]), frame(DATA, 0, 1, "12345"), frame(HEADERS, END_HEADERS, 1, block(&[("x", "1")]))].concat(),
                [post(1, path, &[]), frame(DATA, 0, 1, "12345"), reset(1, NO_ERROR)].concat(),
                [post(1, path, &[]), frame(DATA, 0, 1, "12345"), frame(GOAWAY, 0, 0, [0; 8]), frame(PING, 0, 0, "short")].concat(),
            ] {
                let mut frames = Frames::open_to(address).await;
                let (head, rest) = bytes.split_at(9 + bytes[2] as usize);
                frames.send(head).await;
                frames.read_by_server().await;
                frames.send(rest).await;
                bad += 1;
            }
        }
        assert_eq!(bad, 12);
        // whole requests arrive whole, after all of those
        for (path, end) in [("/whole", "Content-Length: 5\r\n\r\nhello"), ("/stream", "5\r\nhello\r\n0\r\n\r\n")] {
            let mut frames = Frames::open_to(address).await;
            frames.send([post(1, path, &[]), frame(DATA, END_STREAM, 1, "hello")].concat()).await;
            assert_eq!(frames.until(|f| f.kind == HEADERS).await.status(), "200");
            assert!(upstream.heard().last().is_some_and(|text| text.ends_with(end)), "{:?}", upstream.heard());
        }
    });
    // once the node has done with all of them
    node.signal(Signal::SIGTERM);
    node.ended();
    assert_eq!(upstream.heard().len(), 2, "{:?}", upstream.heard());
}

#[test]
fn a_body_that_does_not_come_is_answered() {
    let upstream = Recorder::start();
    let (_node, address) = node(&upstream, &[("nginx_http_client_body_timeout", "1s")]);
    run(async {
        for path in ["/whole", "/stream"] {
            let mut frames = Frames::open_to(address).await;
            frames.send([post(1, path, &[("content-length", "10")]), frame(DATA, 0, 1, "12345")].concat()).await;
            assert_eq!(frames.until(|f| f.kind == HEADERS).await.status(), "408", "{path}");
        }
    });
    assert_eq!(upstream.heard().len(), 0);
}

#[test]
fn a_stopping_node_finishes_streams() {
    let upstream = Recorder::start();
    let (mut node, address) = node(&upstream, &[]);
    upstream.may_answer.store(false, Ordering::SeqCst);
    run(async {
        let mut frames = Frames::open_to(address).await;
        frames.send(get(1, "/whole/first")).await;
        wait_for("the upstream is asked", || !upstream.heard().is_empty());
        node.signal(Signal::SIGTERM);
        let told = frames.until(|f| f.kind == GOAWAY).await;
        assert_eq!((told.code(), told.last_stream()), (NO_ERROR, 0x7fff_ffff));
        // one that was on its way is served, too
        frames.send(get(3, "/whole/second")).await;
        let ping = frames.until(|f| f.kind == PING).await;
        frames.send(frame(PING, ACK, 0, ping.payload)).await;
        assert_eq!(frames.until(|f| f.kind == GOAWAY).await.last_stream(), 3);
        upstream.may_answer.store(true, Ordering::SeqCst);
        let rest = frames.rest().await;
        for stream in [1, 3] {
            assert!(rest.iter().any(|f| f.stream == stream && f.kind == DATA && f.payload == b"ok"), "{stream}: {rest:?}");
        }
    });
    assert_eq!(node.ended(), Some(0));
}
