//! HTTP/2: clients that want the server to work or to remember, not to answer.

use std::time::{Duration, Instant};

use troop::proxy::handler::End;
use troop::proxy::server::Limits;

use super::frames::*;
use super::http2::site;
use super::standin::{Site, on_worker};

/// Sends these bytes again and again, at most so often, until the server has enough; what it says of that.
async fn told(site: &Site, first: Vec<u8>, mut again: impl FnMut(u32) -> Vec<u8>, most: u32) -> u32 {
    let frames = Frames::open(site).await;
    let (mut reading, mut writing) = frames.0.into_split();
    let write = async move {
        use tokio::io::AsyncWriteExt;
        let _ = writing.write_all(&first).await;
        for turn in 0..most {
            if writing.write_all(&again(turn)).await.is_err() {
                break;
            }
        }
        // the connection stays open until the server has had its say
        std::future::pending::<()>().await;
    };
    let read = async {
        use tokio::io::AsyncReadExt;
        let (mut got, mut buffer) = (Vec::new(), vec![0; 65536]);
        loop {
            match reading.read(&mut buffer).await {
                Ok(n @ 1..) => got.extend_from_slice(&buffer[..n]),
                _ => return got,
            }
            let mut rest = got.as_slice();
            while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if payload.len() < length {
                    break;
                }
                if *kind == GOAWAY {
                    return payload[4..8].to_vec();
                }
                rest = &payload[length..];
            }
            got = rest.to_vec();
        }
    };
    let code = tokio::select! {
        code = read => code,
        () = write => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the server takes it all"),
    };
    u32::from_be_bytes(code.try_into().expect("GOAWAY before the end"))
}

#[test]
fn streams_that_are_reset_at_once() {
    on_worker(async {
        let site = site(Limits::default());
        let pair = |turn: u32| [get(2 * turn + 1, "/never"), reset(2 * turn + 1, CANCEL)].concat();
        let many = |turn: u32| (0..100).flat_map(|i| pair(100 * turn + i)).collect();
        assert_eq!(told(&site, Vec::new(), many, 10_000).await, ENHANCE_YOUR_CALM);
        assert!(site.seen().len() < 200, "{} requests were begun", site.seen().len());
        site.until("all are forgotten", |s| s.seen().iter().all(|s| s.end == Some(End::ClientGone))).await;
    });
}

#[test]
fn streams_that_are_reset_once_they_are_served() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::open(&site).await;
        // a client that takes many back and is answered as often goes on
        for turn in 0..1100 {
            frames.send([get(4 * turn + 1, "/never"), get(4 * turn + 3, "/ignore")].concat()).await;
            frames.until(|f| f.ends_stream()).await;
            frames.send(reset(4 * turn + 1, CANCEL)).await;
        }
        frames.read_by_server().await;
        let mut frames = Frames::open(&site).await;
        let before = site.seen().len();
        let code = loop {
            let stream = 2 * (site.seen().len() - before) as u32 + 1;
            frames.send(get(stream, "/never")).await;
            frames.send(frame(PING, 0, 0, "12345678")).await;
            match frames.until(|f| matches!(f.kind, PING | GOAWAY)).await {
                told if told.kind == GOAWAY => break told.code(),
                _ => frames.send(reset(stream, CANCEL)).await,
            }
        };
        assert_eq!(code, ENHANCE_YOUR_CALM);
        let served = site.seen().len() - before;
        assert!((1000..1100).contains(&served), "{served}");
    });
}

#[test]
fn fields_without_end() {
    on_worker(async {
        let site = site(Limits::default());
        let begun = frame(HEADERS, END_STREAM, 1, request("GET", "/", &[]));
        // CONTINUATION frames without content, with one byte of a field, with fields
        let empty = |_| frame(CONTINUATION, 0, 1, "");
        assert_eq!(told(&site, begun.clone(), empty, 10_000).await, ENHANCE_YOUR_CALM);
        let byte = |turn| frame(CONTINUATION, 0, 1, if turn == 0 { vec![0, 0x7f, 0xff, 0xff, 0x03] } else { vec![b'x'] });
        assert_eq!(told(&site, begun.clone(), byte, 10_000).await, ENHANCE_YOUR_CALM);
        let fields = |_| frame(CONTINUATION, 0, 1, block(&[("x-a", &"y".repeat(100))]).repeat(150));
        assert_eq!(told(&site, begun, fields, 10_000).await, ENHANCE_YOUR_CALM);
        // a field that the table remembers, again and again: short on the wire, long when it is read
        let remembered = [&[0x40, 3][..], b"x-a", &[127, 0xa9, 0x1e], &[b'y'; 4008]].concat();
        let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, [request("GET", "/", &[]), remembered, vec![0xbe; 10_000]].concat());
        assert_eq!(told(&site, bomb, |_| Vec::new(), 1).await, ENHANCE_YOUR_CALM);
        assert!(site.seen().is_empty());
    });
}

#[test]
fn frames_that_carry_nothing() {
    on_worker(async {
        let site = site(Limits::default());
        let large_settings = frame(SETTINGS, 0, 0, setting(0xff, 1).repeat(2700));
        for (what, again) in [
            ("SETTINGS", large_settings),
            ("PING", frame(PING, 0, 0, "12345678").repeat(1000)),
            ("PRIORITY", frame(PRIORITY, 0, 3, [0, 0, 0, 0, 9]).repeat(1000)),
            ("WINDOW_UPDATE of a stream that is over", [window_update(3, 1)].concat().repeat(1000)),
            ("unknown", frame(99, 0, 1, vec![0; 16_000])),
        ] {
            let first = [get(1, "/never"), get(3, "/ignore")].concat();
            assert_eq!(told(&site, first, |_| again.clone(), 20_000).await, ENHANCE_YOUR_CALM, "{what}");
        }
        let small = |_| frame(DATA, 0, 1, "").repeat(100);
        assert_eq!(told(&site, post(1, "/never", &[]), small, 10_000).await, ENHANCE_YOUR_CALM, "empty DATA");
        let tiny = |_| frame(DATA, 0, 1, "x").repeat(100);
        assert_eq!(told(&site, post(1, "/never", &[]), tiny, 10_000).await, ENHANCE_YOUR_CALM, "tiny DATA that nobody reads");
        site.until("no connection is left", |s| s.counters.totals().active == 0).await;
        assert!(site.seen().iter().filter(|s| s.target == "/never").all(|s| s.end == Some(End::ClientGone)));
    });
}

/// Tiny messages are no abuse while somebody reads them, and a large answer's window updates are none either.
#[test]
fn small_frames_that_carry_something() {
    on_worker(async {
        let site = site(Limits::default());
        let mut frames = Frames::with_settings(&site, &setting(4, 0x7fff_ffff)).await;
        frames.send([window_update(0, 0x7fff_0000), post(1, "/pipe", &[])].concat()).await;
        for _ in 0..300 {
            frames.send(frame(DATA, 0, 1, "12345").repeat(100)).await;
            let mut echoed = 0;
            while echoed < 500 {
                echoed += frames.until(|f| f.kind == DATA).await.payload.len();
            }
        }
        frames.send([frame(DATA, END_STREAM, 1, ""), get(3, "/big")].concat()).await;
        let mut left = 3_000_000;
        while left > 0 {
            let data = frames.until(|f| f.kind == DATA && !f.payload.is_empty()).await.payload.len();
            left -= data;
            frames.send([window_update(3, 1), window_update(0, data as u32)].concat()).await;
        }
        frames.read_by_server().await;
    });
}

/// Other clients are served while one floods.
#[test]
fn a_flood_does_not_starve_others() {
    on_worker(async {
        let site = site(Limits::default());
        let flood = told(&site, get(1, "/never"), |_| frame(PING, 0, 0, "12345678").repeat(1000), 20_000);
        let other = async {
            let mut frames = Frames::open(&site).await;
            let mut longest = Duration::ZERO;
            for turn in 0..50 {
                let started = Instant::now();
                frames.send(get(2 * turn + 1, "/ignore")).await;
                frames.until(|f| f.ends_stream()).await;
                longest = longest.max(started.elapsed());
            }
            longest
        };
        let (code, longest) = tokio::join!(flood, other);
        assert_eq!(code, ENHANCE_YOUR_CALM);
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    });
}
