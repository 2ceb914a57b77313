//! HTTP/2: what the server does about frames that are not as they should be (RFC 9113; the cases that h2spec asks for and that
//! tell most).

use troop::proxy::server::Limits;

use super::frames::*;
use super::http2::site;
use super::standin::{Site, on_worker};

/// What an endpoint does about an error.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// GOAWAY with this code, and the connection is closed.
    Connection(u32),
    /// RST_STREAM of the stream with this code.
    Stream(u32, u32),
    /// Nothing: the connection goes on.
    None,
}

use Verdict::{Connection, None as Nothing, Stream};

/// Sends bytes on a connection of their own. That the connection goes on shows in a PING that is answered.
async fn verdict(site: &Site, bytes: &[u8]) -> Verdict {
    let mut frames = Frames::open(site).await;
    frames.send(bytes).await;
    frames.send(frame(PING, 0, 0, "the last")).await;
    let mut reset = Option::None;
    loop {
        let frame = frames.next().await.expect("closed without a word");
        match frame.kind {
            GOAWAY => {
                while frames.next().await.is_some() {}
                return Connection(frame.code());
            }
            RST_STREAM if frame.code() != NO_ERROR => reset = Some(Stream(frame.stream, frame.code())),
            // it may have overtaken what was to be said of a stream
            PING if frame.payload == b"the last" => frames.send(frame_of_ping("the end!")).await,
            PING if frame.payload == b"the end!" => return reset.unwrap_or(Nothing),
            _ => {}
        }
    }
}

fn frame_of_ping(payload: &str) -> Vec<u8> {
    frame(PING, 0, 0, payload)
}

async fn check(cases: &[(&str, Verdict, Vec<u8>)]) {
    let site = site(Limits::default());
    let mut wrong = Vec::new();
    for (what, expected, bytes) in cases {
        let verdict = verdict(&site, bytes).await;
        if verdict != *expected {
            wrong.push(format!("{what}: {verdict:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The flags of a request without a body.
const WHOLE: u8 = END_HEADERS | END_STREAM;

#[test]
fn prefaces() {
    on_worker(async {
        let site = site(Limits::default());
        let told = [frame(SETTINGS, 0, 0, ""), frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 1])].concat();
        for preface in ["INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n"] {
            assert_eq!(site.talk(preface).await.as_bytes(), told, "{preface}");
        }
        for request in
            ["GET / FOO\r\n\r\n", "GET x HTTP/1.1\r\n\r\n", "get a b\r\n\r\n", "GET /\r\n\r\n", "\x16\x03\x01\r\n\r\n", "G * b\r\n\r\n"]
        {
            assert!(site.talk(request).await.starts_with("HTTP/1.1 400 "), "{request}");
        }
        // a connection that begins with HTTP/1 goes on with it
        let both = site.talk("GET /ignore HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(both.starts_with("HTTP/1.1 200 ") && both.contains("HTTP/1.1 505 "), "{both}");
        let mut frames = Frames::connect(&site).await;
        frames.send([PREFACE, &frame_of_ping("no SETTINGS")].concat()).await;
        assert!(frames.rest().await.iter().any(|f| f.kind == GOAWAY), "SETTINGS come first");
    });
}

#[test]
fn frames_in_places_where_they_may_not_be() {
    on_worker(check(&[
        ("DATA of no stream", Connection(PROTOCOL_ERROR), frame(DATA, 0, 0, "x")),
        ("DATA of an idle stream", Connection(PROTOCOL_ERROR), frame(DATA, END_STREAM, 1, "x")),
        ("HEADERS of no stream", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE, 0, request("GET", "/", &[]))),
        ("HEADERS of a stream of the server", Connection(PROTOCOL_ERROR), get(2, "/")),
        ("a stream older than the last", Connection(PROTOCOL_ERROR), [get(5, "/never"), get(3, "/never")].concat()),
        ("HEADERS of a stream that is half closed", Connection(PROTOCOL_ERROR), [get(1, "/never"), get(1, "/never")].concat()),
        ("DATA of a stream that is half closed", Connection(PROTOCOL_ERROR), [get(1, "/never"), frame(DATA, 0, 1, "x")].concat()),
        ("RST_STREAM of an idle stream", Connection(PROTOCOL_ERROR), reset(1, CANCEL)),
        ("RST_STREAM of no stream", Connection(PROTOCOL_ERROR), reset(0, CANCEL)),
        ("WINDOW_UPDATE of an idle stream", Connection(PROTOCOL_ERROR), window_update(1, 1)),
        ("PRIORITY of no stream", Connection(PROTOCOL_ERROR), frame(PRIORITY, 0, 0, [0; 5])),
        ("PRIORITY of an idle stream", Nothing, frame(PRIORITY, 0, 7, [0, 0, 0, 0, 9])),
        ("SETTINGS of a stream", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 1, "")),
        ("PING of a stream", Connection(PROTOCOL_ERROR), frame(PING, 0, 1, "12345678")),
        ("GOAWAY of a stream", Connection(PROTOCOL_ERROR), frame(GOAWAY, 0, 1, [0; 8])),
        ("PUSH_PROMISE", Connection(PROTOCOL_ERROR), [post(1, "/never", &[]), frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])].concat()),
        ("CONTINUATION of nothing", Connection(PROTOCOL_ERROR), frame(CONTINUATION, END_HEADERS, 1, "")),
        ("CONTINUATION after the end", Connection(PROTOCOL_ERROR), [get(1, "/never"), frame(CONTINUATION, END_HEADERS, 1, "")].concat()),
        (
            "another frame within a field section",
            Connection(PROTOCOL_ERROR),
            [frame(HEADERS, END_STREAM, 1, request("GET", "/", &[])), frame_of_ping("between!")].concat(),
        ),
        (
            "CONTINUATION of another stream",
            Connection(PROTOCOL_ERROR),
            [frame(HEADERS, END_STREAM, 1, request("GET", "/", &[])), frame(CONTINUATION, END_HEADERS, 3, "")].concat(),
        ),
        ("a frame of an unknown kind", Nothing, frame(200, 255, 9, "whatever")),
        ("an acknowledged PING that nobody sent", Nothing, frame(PING, ACK, 0, "whatever")),
    ]));
}

#[test]
fn frames_of_a_wrong_size_or_with_wrong_values() {
    on_worker(check(&[
        ("more padding than frame", Connection(PROTOCOL_ERROR), [post(1, "/never", &[]), frame(DATA, PADDED, 1, [6, 0, 0])].concat()),
        ("HEADERS with more padding", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE | PADDED, 1, [9, 0, 0])),
        (
            "a frame of more than 16384 bytes",
            Connection(FRAME_SIZE_ERROR),
            [post(1, "/never", &[]), frame(DATA, 0, 1, vec![0; 16385])].concat(),
        ),
        ("PRIORITY of 4 bytes", Connection(PROTOCOL_ERROR), frame(PRIORITY, 0, 1, [0; 4])),
        ("RST_STREAM of 3 bytes", Connection(PROTOCOL_ERROR), [get(1, "/never"), frame(RST_STREAM, 0, 1, [0; 3])].concat()),
        ("PING of 6 bytes", Connection(PROTOCOL_ERROR), frame(PING, 0, 0, "123456")),
        ("SETTINGS of 3 bytes", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, [0; 3])),
        ("SETTINGS that acknowledge and say", Connection(PROTOCOL_ERROR), frame(SETTINGS, ACK, 0, [0; 6])),
        ("WINDOW_UPDATE of 3 bytes", Connection(PROTOCOL_ERROR), frame(WINDOW_UPDATE, 0, 0, [0; 3])),
        ("ENABLE_PUSH of 2", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(2, 2))),
        ("INITIAL_WINDOW_SIZE of 2^31", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(4, 1 << 31))),
        ("MAX_FRAME_SIZE of 16383", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(5, 16383))),
        ("MAX_FRAME_SIZE of 2^24", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(5, 1 << 24))),
        ("a setting that nobody knows", Nothing, frame(SETTINGS, 0, 0, setting(0xff, 1))),
        ("WINDOW_UPDATE by 0", Connection(PROTOCOL_ERROR), window_update(0, 0)),
        ("WINDOW_UPDATE of a stream by 0", Connection(PROTOCOL_ERROR), [get(1, "/never"), window_update(1, 0)].concat()),
        ("a window beyond 2^31-1", Connection(FLOW_CONTROL_ERROR), [window_update(0, 0x7fff_ffff), window_update(0, 0x7fff_ffff)].concat()),
        (
            "a window of a stream beyond 2^31-1",
            Stream(1, FLOW_CONTROL_ERROR),
            [get(1, "/never"), window_update(1, 0x7fff_ffff), window_update(1, 0x7fff_ffff)].concat(),
        ),
        ("an index of 0 in a field section", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE, 1, [0x80])),
        ("an index beyond the table", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE, 1, [0xff, 0xff, 0x10])),
        ("a table size beyond what was said", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE, 1, [0x3f, 0xff, 0xff, 0x7f])),
        ("a field section that ends within a field", Connection(PROTOCOL_ERROR), frame(HEADERS, WHOLE, 1, [0, 5, b'a'])),
        (
            "HEADERS of a stream that depends on itself",
            Stream(1, PROTOCOL_ERROR),
            frame(HEADERS, WHOLE | PRIORITIZED, 1, [&[0, 0, 0, 1, 9][..], &request("GET", "/", &[])].concat()),
        ),
    ]));
}

#[test]
fn requests_that_are_malformed() {
    on_worker(async {
        let site = site(Limits::default());
        let full = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
        let with = |more: &[(&str, &str)]| block(&[&full[..], more].concat());
        let without = |name: &str| block(&full.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>());
        let mut wrong = Vec::new();
        for (what, section) in [
            ("a name in upper case", with(&[("X-A", "1")])),
            ("a name that is no token", with(&[("x a", "1")])),
            ("a line feed in a value", with(&[("x-a", "1\nx-b: 2")])),
            ("a zero in a value", with(&[("x-a", "1\0")])),
            ("an unknown pseudo field", with(&[(":test", "1")])),
        ] {
            let verdict = verdict(&site, &frame(HEADERS, WHOLE, 1, section)).await;
            if verdict != Connection(PROTOCOL_ERROR) {
                wrong.push(format!("{what}: {verdict:?}"));
            }
        }
        for (what, section) in [
            ("a pseudo field of answers", with(&[(":status", "200")])),
            ("a pseudo field after others", block(&[("x-a", "1"), full[0], full[1], full[2], full[3]])),
            ("a pseudo field twice", with(&[(":path", "/b")])),
            ("no method", without(":method")),
            ("no scheme", without(":scheme")),
            ("an empty path", block(&[full[0], full[1], full[2], (":path", "")])),
            ("a path with a space", block(&[full[0], full[1], full[2], (":path", "/a HTTP/1.1")])),
            ("a field of the connection", with(&[("connection", "keep-alive")])),
            ("keep-alive", with(&[("keep-alive", "5")])),
            ("a proxy's field of the connection", with(&[("proxy-connection", "keep-alive")])),
            ("a transfer coding", with(&[("transfer-encoding", "chunked")])),
            ("an upgrade", with(&[("upgrade", "websocket")])),
            ("TE that is not trailers", with(&[("te", "trailers, deflate")])),
            ("a length that is none", with(&[("content-length", "+1")])),
            ("two lengths", with(&[("content-length", "1"), ("content-length", "2")])),
            ("a length of what does not follow", with(&[("content-length", "1")])),
            ("CONNECT with a path", block(&[(":method", "CONNECT"), full[2], full[3]])),
            ("extended CONNECT, which was not offered", with(&[(":protocol", "websocket")])),
            ("extended CONNECT in full", block(&[(":method", "CONNECT"), (":protocol", "websocket"), full[1], full[2], full[3]])),
        ] {
            let verdict = verdict(&site, &frame(HEADERS, WHOLE, 1, section)).await;
            if verdict != Stream(1, PROTOCOL_ERROR) {
                wrong.push(format!("{what}: {verdict:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(site.seen().is_empty(), "none of them is a request");
    });
}

#[test]
fn more_streams_than_were_offered_are_refused() {
    on_worker(async {
        let site = site(Limits { streams: 2, ..Limits::default() });
        let mut frames = Frames::open(&site).await;
        frames.send([get(1, "/never"), get(3, "/never"), get(5, "/never")].concat()).await;
        let refused = frames.until(|f| f.kind == RST_STREAM).await;
        assert_eq!((refused.stream, refused.code()), (5, REFUSED_STREAM));
        // a stream that ends makes room for another
        frames.send([reset(1, CANCEL), get(7, "/ignore")].concat()).await;
        frames.until(|f| f.stream == 7 && f.ends_stream()).await;
    });
}

#[test]
fn pings_and_settings_are_acknowledged() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        frames.send(frame_of_ping("12345678")).await;
        let pong = frames.until(|f| f.kind == PING).await;
        assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, &b"12345678"[..]));
        frames.send(frame(SETTINGS, 0, 0, setting(4, 1))).await;
        frames.until(|f| f.kind == SETTINGS && f.flags == ACK).await;
        // the window that was said holds: one byte, and the rest once there is room
        frames.send(get(1, "/ignore")).await;
        let data = frames.until(|f| f.kind == DATA).await;
        assert_eq!(data.payload, b"i");
        frames.send(window_update(1, 100)).await;
        let data = frames.until(|f| f.kind == DATA).await;
        assert!(data.payload == b"gnored" && data.ends_stream(), "{data:?}");
    });
}

#[test]
fn a_body_larger_than_the_window_ends_its_stream() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        // the windows are as large as the server says once that has come to both sides
        frames.read_by_server().await;
        frames.send([post(1, "/never", &[]), frame(DATA, 0, 1, [b'x'; 16384]).repeat(16)].concat()).await;
        frames.read_by_server().await;
        assert!(site.seen()[0].end.is_none());
        frames.send(frame(DATA, 0, 1, "x")).await;
        let told = frames.until(|f| matches!(f.kind, RST_STREAM | GOAWAY)).await;
        assert_eq!((told.kind, told.stream, told.code()), (RST_STREAM, 1, FLOW_CONTROL_ERROR));
        frames.send(get(3, "/ignore")).await;
        frames.until(|f| f.stream == 3 && f.ends_stream()).await;
    });
}
