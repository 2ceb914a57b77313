//! HTTP/1.1: framing, keep-alive, time limits, back-pressure, draining.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use troop::proxy::handler::End;
use troop::proxy::server::{Limits, Totals};

use super::standin::{Feed, Site, hasty, on_worker};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn last(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)).collect()
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let mut wire = site.connect().await;
        for path in ["/a", "/b?x=1"] {
            wire.send(get(path)).await;
            let answer = wire.read_until("\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Connection: keep-alive\r\n"), "{answer}");
        }
        wire.send(last("/c")).await;
        assert!(wire.rest().await.contains("Connection: close\r\n"));
        let seen = site.seen();
        assert_eq!(seen.iter().map(|s| s.target.as_str()).collect::<Vec<_>>(), ["/a", "/b?x=1", "/c"]);
        assert!(seen.iter().all(|s| s.end == Some(End::Complete) && s.header("host") == Some("a.test")));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let all = get("/later") + &post("/echo", "abc") + &get("/ignore") + "\r\n" + &last("/last");
        let text = site.talk(all).await;
        assert_eq!(statuses(&text), ["200"; 4]);
        let order: Vec<_> = ["later", "abc", "ignored"].iter().map(|part| text.find(part).unwrap()).collect();
        assert!(order.is_sorted(), "{text}");
    });
}

#[test]
fn bytes_that_drip_in_make_the_same_request() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let mut wire = site.connect().await;
        let all = "POST /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0002\r\nde\r\n0\r\nX-T: 1\r\n\r\n";
        for byte in all.bytes() {
            wire.send([byte]).await;
            tokio::task::yield_now().await;
        }
        assert!(wire.rest().await.ends_with("\r\n\r\nabcde"));
        assert_eq!(site.seen()[0].sizes.0, all.len() as u64);
    });
}

#[test]
fn http_1_0() {
    on_worker(async {
        let site = Site::new(Limits::default());
        assert!(site.talk("GET / HTTP/1.0\r\n\r\n").await.contains("Connection: close\r\n"));
        let kept = site.talk("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n").await;
        assert!(kept.contains("Connection: keep-alive\r\n"));
        assert_eq!(statuses(&kept).len(), 2);
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        feeder.send(Some("streamed".into())).unwrap();
        drop(feeder);
        let streamed = site.talk("GET /feed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(!streamed.contains("Transfer-Encoding") && streamed.ends_with("\r\n\r\nstreamed"), "{streamed}");
    });
}

#[test]
fn answers_without_a_body() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let head = site.talk("HEAD /ignore HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + &last("/echo?status=204")).await;
        assert!(head.contains("Content-Length: 7\r\n") && !head.contains("ignored"));
        assert_eq!(statuses(&head), ["200", "204"]);
        let text = site.talk(get("/ignore?status=304") + &last("/ignore?status=204")).await;
        assert!(!text.contains("ignored"));
    });
}

#[test]
fn chunks_go_out_as_they_come() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        let mut wire = site.connect().await;
        wire.send(get("/feed?header=Content-Type:text/event-stream")).await;
        let head = wire.read_until("\r\n\r\n").await;
        assert!(head.contains("Transfer-Encoding: chunked\r\n"));
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            feeder.send(Some(Bytes::copy_from_slice(event.as_bytes()))).unwrap();
            assert_eq!(wire.read_until(&format!("{event}\r\n")).await, format!("9\r\n{event}\r\n"));
        }
        drop(feeder);
        wire.read_until("0\r\n\r\n").await;
        wire.send(last("/echo")).await;
        assert_eq!(statuses(&wire.rest().await), ["200"]);
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_completed() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        feeder.send(Some("abc".into())).unwrap();
        feeder.send(None).unwrap();
        let text = site.talk(get("/feed")).await;
        assert!(text.ends_with("3\r\nabc\r\n"), "{text}");
        assert_eq!(site.seen()[0].end, Some(End::UpstreamGone));
    });
}

#[test]
fn an_answer_never_exceeds_nor_feigns_its_length() {
    on_worker(async {
        let site = Site::new(Limits::default());
        for (fed, length, end) in [("abcdef", 3, End::Complete), ("ab", 3, End::UpstreamGone)] {
            let (feeder, feed) = Feed::new();
            site.handler.feed.borrow_mut().push_back(feed);
            feeder.send(Some(fed.into())).unwrap();
            drop(feeder);
            let text = site.talk(last(&format!("/feed?header=Content-Length:{length}"))).await;
            assert!(text.ends_with(&format!("\r\n\r\n{}", &fed[..fed.len().min(3)])), "{text}");
            assert_eq!(site.seen().last().unwrap().end, Some(end));
        }
    });
}

#[test]
fn continue_is_sent_when_the_body_is_wanted() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let head = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        };
        let mut wire = site.connect().await;
        wire.send(head("/echo")).await;
        assert_eq!(wire.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        wire.send("abc").await;
        assert!(wire.rest().await.ends_with("\r\n\r\nabc"));
        // the body came all the same
        let text = site.talk(head("/echo") + "abc").await;
        assert_eq!(statuses(&text), ["100", "200"]);
        // nobody wants it
        let text = site.talk(head("/ignore").replace("Connection: close\r\n", "")).await;
        assert_eq!(statuses(&text), ["200"]);
        assert!(text.contains("Connection: close\r\n"));
    });
}

#[test]
fn an_unread_body_is_thrown_away_or_the_connection_is() {
    on_worker(async {
        let site = Site::new(Limits { discarded: 1000, ..Limits::default() });
        let text = site.talk(post("/ignore", &"x".repeat(900)) + &last("/echo")).await;
        assert_eq!(statuses(&text), ["200", "200"]);
        let chunked = "POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned();
        assert_eq!(statuses(&site.talk(chunked + &last("/echo")).await), ["200", "200"]);
        let mut wire = site.connect().await;
        wire.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n").await;
        wire.send("x".repeat(80_000)).await;
        let text = wire.rest().await;
        assert!(statuses(&text) == ["200"] && text.contains("Connection: close\r\n") && text.ends_with("ignored"), "{text}");
    });
}

#[test]
fn both_bodies_stream_at_once() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let (mut read, mut write) = site.connect().await.0.into_split();
        const SIZE: usize = 20_000_000;
        let sender = tokio::task::spawn_local(async move {
            let head = format!("POST /pipe HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..SIZE / 100_000 {
                write.write_all(&[b'p'; 100_000]).await.unwrap();
            }
            write
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        sender.await.unwrap();
        let body = got.iter().filter(|b| **b == b'p').count();
        assert!((SIZE..SIZE + 100).contains(&body), "{body}");
        assert_eq!(site.seen()[0].sizes.2, SIZE as u64);
    });
}

#[test]
fn a_client_that_does_not_read_holds_little_memory_and_is_given_up() {
    on_worker(async {
        let site = Site::new(hasty());
        let mut wire = site.connect().await;
        wire.send(get("/flood")).await;
        site.until("given up", |site| site.seen().iter().any(|s| s.end == Some(End::ClientGone))).await;
        // what is not in the client's and the system's buffers: less than the high-water mark and a chunk
        let [seen] = &site.seen()[..] else { panic!() };
        assert!(site.handler.flooded.get() < usize::try_from(seen.sizes.1).unwrap() + 100_000);
    });
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let mut wire = site.connect().await;
        wire.send(get("/never")).await;
        site.until("begun", |site| !site.seen().is_empty()).await;
        drop(wire);
        site.until("ended", |site| site.seen()[0].end == Some(End::ClientGone)).await;
        site.until("closed", |site| site.counters.totals().active == 0).await;
    });
}

#[test]
fn time_limits() {
    on_worker(async {
        let site = Site::new(hasty());
        let started = Instant::now();
        assert_eq!(site.talk("").await, "");
        assert_eq!(statuses(&site.talk("GET / HTTP/1.1\r\nHost").await), ["408"]);
        assert_eq!(statuses(&site.talk(get("/")).await), ["200"]);
        assert_eq!(statuses(&site.talk("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await), ["400"]);
        assert_eq!(site.seen()[1].body, Some(Err("time-out within the body".into())));
        assert!(started.elapsed() < Duration::from_secs(3));
    });
}

#[test]
fn a_head_that_drips_in_is_limited_as_a_whole() {
    on_worker(async {
        let site = Site::new(hasty());
        let mut wire = site.connect().await;
        let started = Instant::now();
        wire.send("GET / HTTP/1.1\r\n").await;
        while site.counters.totals().active > 0 && started.elapsed() < Duration::from_secs(5) {
            wire.send("A: b\r\n").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            if site.counters.totals().requests > 0 {
                break;
            }
        }
        assert!(wire.rest().await.starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn a_connection_serves_so_many_requests() {
    on_worker(async {
        let site = Site::new(Limits { keepalive_requests: 3, ..Limits::default() });
        let text = site.talk(get("/ignore").repeat(5)).await;
        assert_eq!(statuses(&text), ["200"; 3]);
        assert_eq!(text.matches("Connection: close").count(), 1);
    });
}

#[test]
fn malformed_bodies_reach_nobody_whole() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let text = site
            .talk("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n".to_owned() + &get("/next"))
            .await;
        assert_eq!(statuses(&text), ["400"]);
        assert!(text.contains("Connection: close\r\n"));
        assert_eq!(site.seen().len(), 1);
        assert_eq!(site.seen()[0].body, Some(Err("malformed body: malformed chunk size".into())));
    });
}

#[test]
fn refusals() {
    on_worker(async {
        let site = Site::new(Limits::default());
        for (bytes, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), "505"),
            (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)), "414"),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(9000)), "400"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "501"),
            ("\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400"),
            ("\r\n".repeat(5) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "505"),
        ] {
            let text = site.talk(bytes.clone() + &get("/next")).await;
            assert_eq!(statuses(&text), [status], "{bytes}");
            assert!(text.contains("Connection: close\r\n") && text.contains("\r\nDate: "), "{text}");
        }
        assert_eq!(site.seen(), []);
        assert_eq!(statuses(&site.talk("\r\n\r\n".to_owned() + &last("/")).await), ["200"]);
    });
}

#[test]
fn protocols_are_switched() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let mut wire = site.connect().await;
        wire.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nread ahead").await;
        let head = wire.read_until("\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && head.contains("Upgrade: echo\r\nConnection: upgrade\r\n")
                || head.contains("Connection: upgrade\r\n"),
            "{head}"
        );
        wire.read_until("read ahead").await;
        wire.send("and more").await;
        wire.read_until("and more").await;
        wire.0.shutdown().await.unwrap();
        assert_eq!(wire.rest().await, "");
        site.until("ended", |site| site.seen()[0].end == Some(End::Complete)).await;
    });
}

#[test]
fn connections_are_counted() {
    on_worker(async {
        let site = Site::new(Limits::default());
        let mut first = site.connect().await;
        first.send(get("/ignore")).await;
        first.read_until("ignored").await;
        let mut second = site.connect().await;
        second.send(get("/never")).await;
        let mut third = site.connect().await;
        third.send("GET / HT").await;
        let expected = Totals { accepted: 3, active: 3, reading: 1, writing: 1, waiting: 1, requests: 2 };
        site.until("all three", |site| site.counters.totals() == expected).await;
        drop((first, second, third));
        site.until("all gone", |site| site.counters.totals() == Totals { accepted: 3, requests: 2, ..Totals::default() }).await;
    });
}

#[test]
fn a_drained_worker_finishes_what_was_begun() {
    on_worker(async {
        let site = Site::new(Limits { drain_grace: Duration::from_millis(200), ..Limits::default() });
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        let mut busy = site.connect().await;
        busy.send(get("/feed")).await;
        busy.read_until("\r\n\r\n").await;
        let (mut idle, mut late) = (site.connect().await, site.connect().await);
        for wire in [&mut idle, &mut late] {
            wire.send(get("/ignore")).await;
            wire.read_until("ignored").await;
        }
        site.handler.draining.set(true);
        let worker = std::rc::Rc::clone(&site.worker);
        let drained = tokio::task::spawn_local(async move { worker.drain(Duration::from_secs(5)).await });
        site.until("draining", |site| site.worker.shared.draining()).await;
        // a request that was on its way is served
        late.send(get("/ignore")).await;
        assert!(late.rest().await.contains("Connection: close\r\n"));
        assert_eq!(idle.rest().await, "");
        assert!(tokio::net::TcpStream::connect(site.address).await.is_err());
        assert!(!drained.is_finished());
        feeder.send(Some("end".into())).unwrap();
        drop(feeder);
        assert!(busy.rest().await.ends_with("3\r\nend\r\n0\r\n\r\n"));
        drained.await.unwrap();
        assert_eq!(site.counters.totals().active, 0);
    });
}

#[test]
fn what_does_not_end_is_cut() {
    on_worker(async {
        let site = Site::new(hasty());
        let mut wire = site.connect().await;
        wire.send(get("/never")).await;
        site.until("begun", |site| !site.seen().is_empty()).await;
        site.worker.drain(Duration::from_millis(50)).await;
        assert_eq!(wire.rest().await, "");
        assert_eq!(site.counters.totals().active, 0);
    });
}

#[test]
fn as_many_connections_as_the_limit_says() {
    on_worker(async {
        let site = Site::new(Limits { connections: 2, ..Limits::default() });
        let wires = [site.connect().await, site.connect().await];
        site.until("both", |site| site.counters.totals().active == 2).await;
        let mut third = site.connect().await;
        third.send(last("/ignore")).await;
        drop(wires);
        assert_eq!(statuses(&third.rest().await), ["200"]);
        assert_eq!(site.counters.totals().accepted, 3);
    });
}
