//! HTTP/2: heads, bodies, trailers, windows, time limits, draining.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Response};
use tokio::net::TcpStream;
use troop::proxy::handler::End;
use troop::proxy::server::{Limits, Port, Totals};

use super::frames::*;
use super::standin::{Feed, Site, hasty, on_worker};

/// A worker that speaks HTTP/2 as well, without TLS.
pub fn site(limits: Limits) -> Site {
    Site::with(limits, |address| Port { address, external: address.port(), http2: true, proxy_protocol: false, tls: None })
}

/// A client that does everything as it should.
async fn client(site: &Site) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(TcpStream::connect(site.address).await.unwrap()).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::builder().method(method).uri(format!("http://a.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends a request with this body and gives back the answer.
async fn ask(client: &mut SendRequest<Bytes>, request: http::Request<()>, body: &'static str) -> (Response<()>, Bytes) {
    let (answer, mut stream) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(body.into(), true).unwrap();
    }
    let (head, body) = answer.await.expect("an answer").into_parts();
    let (body, _) = read(body).await.expect("a whole body");
    (Response::from_parts(head, ()), body)
}

async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut whole = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len()).unwrap();
        whole.extend(chunk);
    }
    Ok((whole.into(), body.trailers().await?))
}

fn length(answer: &Response<()>) -> Option<&str> {
    answer.headers().get("content-length").map(|v| v.to_str().unwrap())
}

#[test]
fn a_request_becomes_that_of_http_1() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        let fields = [("cookie", "a=1"), ("X-A", " b\t"), ("cookie", "b=2; c=3"), ("te", "trailers"), ("cookie", "d")];
        let (answer, body) = ask(&mut client, request("POST", "/echo/%41?x=%zz&ü", &fields), "hello").await;
        assert_eq!((answer.status().as_u16(), body.as_ref(), length(&answer)), (200, &b"hello"[..], Some("5")));
        site.until("it is logged", |s| s.seen()[0].end.is_some()).await;
        let seen = &site.seen()[0];
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/echo/%41?x=%zz&%C3%BC"));
        let headers: Vec<_> = seen.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(headers, [("host", "a.test"), ("x-a", "b"), ("te", "trailers"), ("cookie", "a=1; b=2; c=3; d")]);
        let head = seen.method.len() + seen.target.len() + seen.headers.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        assert_eq!((seen.end, seen.sizes), (Some(End::Complete), (head as u64 + 5, 3 + 5, 5)));
        let totals = site.counters.totals();
        assert_eq!(totals, Totals { accepted: 1, active: 1, reading: 0, writing: 0, waiting: 1, requests: 1 });
    });
}

#[test]
fn heads_that_are_refused() {
    on_worker(async {
        let site = site(Limits::default());
        let long = "x".repeat(8200);
        let (method, scheme, authority, path) = ((":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/"));
        let large = [("x-a", &long[..8000]); 12];
        let many: Vec<_> = (0..1001).map(|i| format!("x-{i}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "0123456789")).collect();
        for (what, status, section) in [
            ("CONNECT", "405", block(&[(":method", "CONNECT"), (":authority", "a.test:443")])),
            ("TRACE", "405", block(&[(":method", "TRACE"), scheme, authority, path])),
            ("a method in lower case", "400", block(&[(":method", "get"), scheme, authority, path])),
            ("a host with user information", "400", block(&[method, scheme, (":authority", "me:secret@a.test"), path])),
            ("two hosts", "400", block(&[method, scheme, authority, path, ("host", "b.test")])),
            ("no host", "400", block(&[method, scheme, path])),
            ("a malformed host", "400", block(&[method, scheme, path, ("host", "a..test")])),
            ("a path that does not begin with a slash", "400", block(&[method, scheme, path, authority, ("host", "a.test, b.test")])),
            ("an asterisk for GET", "400", block(&[method, scheme, authority, (":path", "*")])),
            ("a malformed escape", "400", block(&[method, scheme, authority, (":path", "/%zz")])),
            ("a long target", "414", block(&[method, scheme, authority, (":path", &format!("/{long}"))])),
            ("a long field", "400", block(&[method, scheme, authority, path, ("x-a", &long)])),
            ("many fields", "400", block(&[&[method, scheme, authority, path][..], &many].concat())),
            ("long fields", "400", block(&[&[method, scheme, authority, path][..], &large[..5]].concat())),
            ("more than is kept", "431", block(&[&[method, scheme, authority, path][..], &large].concat())),
        ] {
            let mut frames = Frames::open(&site).await;
            let (first, rest) = section.split_at(section.len().min(16_000));
            frames.send(frame(HEADERS, END_STREAM | if rest.is_empty() { END_HEADERS } else { 0 }, 1, first)).await;
            for (at, piece) in rest.chunks(16_000).enumerate() {
                let last = (at + 1) * 16_000 >= rest.len();
                frames.send(frame(CONTINUATION, if last { END_HEADERS } else { 0 }, 1, piece)).await;
            }
            let head = frames.until(|f| f.kind == HEADERS && f.stream == 1).await;
            assert_eq!(head.status(), status, "{what}");
            // the connection is as good as before
            frames.send(get(3, "/ignore")).await;
            frames.until(|f| f.stream == 3 && f.ends_stream()).await;
        }
        assert!(site.seen().iter().all(|s| s.target == "/ignore"));
    });
}

#[test]
fn answers_with_and_without_a_body() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        for (method, path, status, announced, body) in [
            ("GET", "/ignore", 200, Some("7"), "ignored"),
            ("HEAD", "/ignore", 200, Some("7"), ""),
            ("GET", "/ignore?header=Content-Length:9", 200, Some("7"), "ignored"),
            ("GET", "/echo", 200, Some("0"), ""),
            ("HEAD", "/echo?header=Content-Length:9", 200, Some("9"), ""),
            ("GET", "/ignore?status=304", 304, Some("7"), ""),
            ("GET", "/ignore?status=204&header=Content-Type:text/plain", 204, None, ""),
        ] {
            let (answer, got) = ask(&mut client, request(method, path, &[]), "").await;
            assert_eq!((answer.status().as_u16(), length(&answer), got.as_ref()), (status, announced, body.as_bytes()), "{method} {path}");
            assert!(status != 204 || answer.headers().is_empty());
        }
        let path = "/ignore?header=Connection:close&header=Keep-Alive:5&header=Transfer-Encoding:chunked&header=Upgrade:h2c&header=X-A:1";
        let (answer, _) = ask(&mut client, request("GET", path, &[]), "").await;
        assert_eq!(answer.headers().keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["x-a", "content-length"]);
        // an informational status ends no exchange
        let (answer, _) = client.send_request(request("GET", "/ignore?status=103", &[]), true).unwrap();
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn trailers_go_both_ways() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        for path in ["/trailers", "/pipe"] {
            let (answer, mut stream) = client.send_request(request("POST", path, &[]), false).unwrap();
            stream.send_data("hello".into(), false).unwrap();
            stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "5d41".parse().unwrap())])).unwrap();
            let (body, trailers) = read(answer.await.unwrap().into_body()).await.unwrap();
            if path == "/pipe" {
                assert_eq!((body.as_ref(), trailers.unwrap().get("x-sum").unwrap().as_bytes()), (&b"hello"[..], &b"5d41"[..]));
            } else {
                assert_eq!(site.seen()[0].trailers, [("x-sum".to_owned(), "5d41".to_owned())]);
            }
        }
    });
}

#[test]
fn a_body_that_is_not_what_its_length_says_is_never_complete() {
    on_worker(async {
        let site = site(Limits::default());
        let ten = [("content-length", "10")];
        for (what, bytes) in [
            ("short", [post(1, "/echo", &ten), frame(DATA, END_STREAM, 1, "12345")].concat()),
            ("short, in pieces", [post(1, "/echo", &ten), frame(DATA, 0, 1, "12345"), frame(DATA, END_STREAM, 1, "")].concat()),
            ("long", [post(1, "/echo", &ten), frame(DATA, END_STREAM, 1, "12345678901")].concat()),
            ("long, in pieces", [post(1, "/echo", &ten), frame(DATA, 0, 1, "1234567890"), frame(DATA, END_STREAM, 1, "1")].concat()),
            ("trailers come too early", {
                [post(1, "/echo", &ten), frame(DATA, 0, 1, "12345"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x", "1")]))]
                    .concat()
            }),
            ("something where there is nothing", [post(1, "/echo", &[("content-length", "0")]), frame(DATA, END_STREAM, 1, "1")].concat()),
            ("trailers that do not end the stream", {
                [post(1, "/echo", &[]), frame(DATA, 0, 1, "12345"), frame(HEADERS, END_HEADERS, 1, block(&[("x", "1")]))].concat()
            }),
        ] {
            let before = site.seen().len();
            let mut frames = Frames::open(&site).await;
            frames.send(bytes).await;
            let told = frames.until(|f| matches!(f.kind, RST_STREAM | GOAWAY)).await;
            assert_eq!(told.code(), PROTOCOL_ERROR, "{what}");
            // some are found out before anybody has seen the request
            if site.seen().len() > before {
                site.until(what, |s| s.seen()[before].end.is_some()).await;
                let seen = &site.seen()[before];
                assert!(!matches!(seen.body, Some(Ok(_))) && seen.end == Some(End::ClientGone), "{what}: {seen:?}");
            }
        }
        let (answer, body) = ask(&mut client(&site).await, request("POST", "/echo", &[("content-length", "5")]), "hello").await;
        assert_eq!((answer.status().as_u16(), body.as_ref()), (200, &b"hello"[..]));
    });
}

#[test]
fn a_request_that_is_broken_off_is_not_complete() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        frames.send([post(1, "/echo", &[]), frame(DATA, 0, 1, "12345")].concat()).await;
        frames.read_by_server().await;
        frames.send(reset(1, NO_ERROR)).await;
        site.until("the first ends", |s| s.seen()[0].end.is_some()).await;
        frames.send([post(3, "/pipe", &[]), frame(DATA, 0, 3, "12345")].concat()).await;
        frames.until(|f| f.kind == DATA && f.stream == 3).await;
        drop(frames);
        site.until("the second ends", |s| s.seen()[1].end.is_some()).await;
        for seen in site.seen() {
            assert!(seen.end == Some(End::ClientGone) && !matches!(seen.body, Some(Ok(_))), "{seen:?}");
        }
        site.until("the connection is gone", |s| s.counters.totals().active == 0).await;
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_complete() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        for (path, last) in [("/feed", None), ("/feed?header=Content-Length:10", Some("67"))] {
            let (feeder, feed) = Feed::new();
            site.handler.feed.borrow_mut().push_back(feed);
            let (answer, _) = client.send_request(request("GET", path, &[]), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            feeder.send(Some("12345".into())).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), "12345");
            feeder.send(last.map(Bytes::from)).unwrap();
            drop(feeder);
            // what has come is sent
            if let Some(last) = last {
                assert_eq!(body.data().await.unwrap().unwrap(), last);
            }
            let error = body.data().await.expect("the end is not that of the whole").unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
        site.until("both are logged", |s| s.seen().iter().filter(|s| s.end == Some(End::UpstreamGone)).count() == 2).await;
        // more than was announced is not sent
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        feeder.send(Some("1234567890".into())).unwrap();
        drop(feeder);
        let (answer, body) = ask(&mut client, request("GET", "/feed?header=Content-Length:7", &[]), "").await;
        assert_eq!((length(&answer), body.as_ref()), (Some("7"), &b"1234567"[..]));
    });
}

#[test]
fn a_large_body_goes_through_small_windows_both_ways() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        let (answer, mut stream) = client.send_request(request("POST", "/pipe", &[]), false).unwrap();
        const SIZE: usize = 5_000_000;
        tokio::task::spawn_local(async move {
            let mut left = SIZE;
            while left > 0 {
                stream.reserve_capacity(left.min(100_000));
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                let piece = room.min(left);
                left -= piece;
                stream.send_data(vec![b'x'; piece].into(), left == 0).unwrap();
            }
        });
        let (body, _) = read(answer.await.unwrap().into_body()).await.unwrap();
        assert!(body.len() == SIZE && body.iter().all(|b| *b == b'x'));
        site.until("it is logged", |s| s.seen()[0].end.is_some()).await;
        let (received, _, sent) = site.seen()[0].sizes;
        assert!((SIZE..SIZE + 100).contains(&(received as usize)) && sent == SIZE as u64, "{received} {sent}");
    });
}

#[test]
fn an_answer_before_the_end_of_the_body_ends_the_stream_alone() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        frames.send([post(1, "/ignore", &[]), frame(DATA, 0, 1, [b'x'; 1000])].concat()).await;
        frames.until(|f| f.stream == 1 && f.ends_stream()).await;
        let reset = frames.until(|f| f.kind == RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (1, NO_ERROR));
        frames.send([frame(DATA, END_STREAM, 1, [b'x'; 1000]), get(3, "/ignore")].concat()).await;
        frames.until(|f| f.stream == 3 && f.ends_stream()).await;
    });
}

#[test]
fn streams_do_not_wait_for_each_other() {
    on_worker(async {
        let site = site(Limits::default());
        let mut client = client(&site).await;
        let (slow, _) = client.send_request(request("GET", "/later", &[]), true).unwrap();
        let (cancelled, stream) = client.send_request(request("GET", "/never", &[]), true).unwrap();
        assert_eq!(ask(&mut client, request("GET", "/ignore", &[]), "").await.1, "ignored");
        drop((cancelled, stream));
        assert_eq!(read(slow.await.unwrap().into_body()).await.unwrap().0, "later");
        site.until("the cancelled one ends", |s| s.seen()[1].end == Some(End::ClientGone)).await;
    });
}

#[test]
fn a_client_whose_window_stays_shut_is_not_waited_for() {
    on_worker(async {
        let site = site(hasty());
        let mut frames = Frames::with_settings(&site, &setting(4, 0)).await;
        frames.send([get(1, "/flood"), get(3, "/ignore"), post(5, "/never", &[])].concat()).await;
        let mut reset = Vec::new();
        while reset.len() < 2 {
            let frame = frames.until(|f| f.kind == RST_STREAM).await;
            assert_eq!(frame.code(), CANCEL);
            reset.push(frame.stream);
        }
        reset.sort_unstable();
        assert_eq!(reset, [1, 3]);
        site.until("both end", |s| s.seen().iter().filter(|s| s.end == Some(End::ClientGone)).count() == 2).await;
        // the connection is kept, and opens again
        frames.send([get(7, "/ignore"), window_update(7, 100)].concat()).await;
        assert!(frames.until(|f| f.kind == DATA).await.ends_stream());
    });
}

#[test]
fn a_client_that_does_not_read_is_not_waited_for() {
    on_worker(async {
        let site = site(hasty());
        let mut frames = Frames::with_settings(&site, &setting(4, 0x7fff_ffff)).await;
        frames.send([window_update(0, 0x7fff_0000), get(1, "/flood"), get(3, "/flood")].concat()).await;
        site.until("the connection is given up", |s| s.counters.totals().active == 0).await;
        assert!(site.seen().iter().all(|s| s.end == Some(End::ClientGone)));
        // what the system took, and no more than what may wait besides
        assert!(site.handler.flooded.get() < 40_000_000, "{}", site.handler.flooded.get());
    });
}

#[test]
fn bodies_that_do_not_come() {
    on_worker(async {
        let site = site(Limits { body_timeout: Duration::from_millis(200), ..Limits::default() });
        let mut client = client(&site).await;
        // pieces in time make a body, however long it takes
        let (answer, mut stream) = client.send_request(request("POST", "/echo", &[]), false).unwrap();
        for piece in ["a", "b", "c", "d", "e"] {
            tokio::time::sleep(Duration::from_millis(60)).await;
            stream.send_data(piece.into(), piece == "e").unwrap();
        }
        assert_eq!(read(answer.await.unwrap().into_body()).await.unwrap().0, "abcde");
        let started = Instant::now();
        let (answer, mut stream) = client.send_request(request("POST", "/echo", &[]), false).unwrap();
        stream.send_data("a".into(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 400);
        assert!(started.elapsed() >= Duration::from_millis(190));
        let seen = &site.seen()[1];
        assert_eq!(seen.body, Some(Err("time-out within the body".to_owned())));
    });
}

#[test]
fn connections_that_are_not_used_are_closed() {
    on_worker(async {
        let site = site(hasty());
        let started = Instant::now();
        // nothing but the beginning of the preface, a preface alone, half a field section, PINGs
        let mut begun = Frames::connect(&site).await;
        begun.send(&PREFACE[..10]).await;
        let mut silent = Frames::open(&site).await;
        let mut half = Frames::open(&site).await;
        half.send(frame(HEADERS, END_STREAM, 1, "")).await;
        let mut used = Frames::open(&site).await;
        used.send(get(1, "/ignore")).await;
        begun.rest().await;
        for frames in [&mut silent, &mut half, &mut used] {
            let last = frames.rest().await.into_iter().rfind(|f| f.kind == GOAWAY).expect("GOAWAY");
            assert_eq!(last.code(), NO_ERROR);
        }
        site.until("all are closed", |s| s.counters.totals().active == 0).await;
        let took = started.elapsed();
        assert!(took > Duration::from_millis(90) && took < Duration::from_secs(5), "{took:?}");
    });
}

#[test]
fn pings_do_not_keep_a_connection_open_and_streams_do() {
    on_worker(async {
        let site = site(hasty());
        let mut pinging = Frames::open(&site).await;
        let mut waiting = Frames::open(&site).await;
        waiting.send(get(1, "/never")).await;
        loop {
            pinging.send(frame(PING, 0, 0, "12345678")).await;
            if pinging.next().await.is_none() {
                break;
            }
        }
        waiting.send(get(3, "/ignore")).await;
        waiting.until(|f| f.stream == 3 && f.ends_stream()).await;
    });
}

#[test]
fn a_connection_serves_so_many_requests() {
    on_worker(async {
        let site = site(Limits { keepalive_requests: 3, ..Limits::default() });
        let mut frames = Frames::open(&site).await;
        frames.send([get(1, "/later"), get(3, "/later")].concat()).await;
        frames.until(|f| f.stream == 3 && f.ends_stream()).await;
        frames.send(get(5, "/later")).await;
        let told = frames.until(|f| f.kind == GOAWAY).await;
        assert_eq!((told.code(), told.last_stream()), (NO_ERROR, 0x7fff_ffff));
        // one that was on its way is served; after the client has answered, none is
        frames.send(get(7, "/ignore")).await;
        let ping = frames.until(|f| f.kind == PING && f.flags == 0).await;
        frames.send(frame(PING, ACK, 0, ping.payload)).await;
        let rest = frames.rest().await;
        assert_eq!(rest.iter().find(|f| f.kind == GOAWAY).map(|f| (f.code(), f.last_stream())), Some((NO_ERROR, 7)));
        for stream in [5, 7] {
            assert!(rest.iter().any(|f| f.stream == stream && f.ends_stream()), "{stream}: {rest:?}");
        }
    });
}

#[test]
fn draining_lets_requests_finish() {
    on_worker(async {
        let site = site(Limits::default());
        let mut idle = Frames::open(&site).await;
        idle.send(get(1, "/ignore")).await;
        idle.until(|f| f.ends_stream()).await;
        let mut busy = Frames::open(&site).await;
        let (feeder, feed) = Feed::new();
        site.handler.feed.borrow_mut().push_back(feed);
        busy.send(get(1, "/feed")).await;
        busy.until(|f| f.kind == HEADERS).await;
        site.handler.draining.set(true);
        let worker = std::rc::Rc::clone(&site.worker);
        let drained = tokio::task::spawn_local(async move { worker.drain(Duration::from_secs(20)).await });
        // a client that does not answer is not waited for, as it has no stream open
        let told: Vec<_> = idle.rest().await.into_iter().filter(|f| f.kind == GOAWAY).map(|f| (f.code(), f.last_stream())).collect();
        assert_eq!(told, [(NO_ERROR, 0x7fff_ffff), (NO_ERROR, 1)]);
        drop(idle);
        let ping = busy.until(|f| f.kind == PING).await;
        busy.send([frame(PING, ACK, 0, ping.payload), frame(PING, 0, 0, "are here")].concat()).await;
        busy.until(|f| f.kind == GOAWAY && f.last_stream() == 1).await;
        // too late
        busy.send(get(3, "/ignore")).await;
        for piece in ["one", "two"] {
            feeder.send(Some(piece.into())).unwrap();
            assert_eq!(busy.until(|f| f.kind == DATA).await.payload, piece.as_bytes());
        }
        drop(feeder);
        let rest = busy.rest().await;
        assert!(rest.iter().any(|f| f.stream == 1 && f.ends_stream()), "{rest:?}");
        drop(busy);
        drained.await.unwrap();
        assert_eq!(site.seen().len(), 2);
        assert!(site.seen().iter().all(|s| s.end == Some(End::Complete)));
        assert_eq!(site.counters.totals().active, 0);
    });
}

#[test]
fn what_is_not_done_when_draining_ends_is_cut() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        frames.send([get(1, "/never"), post(3, "/echo", &[]), get(5, "/flood")].concat()).await;
        site.until("they are under way", |s| s.seen().len() == 3).await;
        site.worker.drain(Duration::from_millis(50)).await;
        frames.rest().await;
        assert_eq!(site.counters.totals().active, 0);
        assert!(site.seen().iter().all(|s| s.end == Some(End::ClientGone)), "{:?}", site.seen());
    });
}
