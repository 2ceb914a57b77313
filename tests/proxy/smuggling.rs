//! Messages made to be understood differently by two servers in a row: the handler sees exactly one well-formed request,
//! or none, and never the one that was hidden.

use std::time::Duration;

use troop::proxy::server::Limits;

use super::standin::{Site, on_worker};

/// What is hidden in each message. It must never be taken for a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads before which and bodies in which something is hidden; `~` stands for [`HIDDEN`].
const REFUSED: &[&str] = &[
    // two ways to tell the length
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nabcde~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 35\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\nContent-Length: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 35\r\n\r\n~",
    // a length that only some can read
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\x0b\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"0\"\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551651\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-\u{130}ength: 0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nContent Length: 0\r\n\r\n~",
    // a coding that only some can read
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunk\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding : chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n~",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n~",
    // ends of lines and heads
    "GET / HTTP/1.1\nHost: a\n\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\n\n~",
    "GET / HTTP/1.1\r\nHost: a\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n~",
    "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nGET /hidden HTTP/1.1\r\n\r\n~",
    "GET / HTTP/1.1\r\n : y\r\nHost: a\r\n\r\n~",
    "GET / HTTP/1.1\r\n: y\r\nHost: a\r\n\r\n~",
    "GET / HTTP/1.1\rHost: a\r\n\r\n~",
    "GET /\r\nHost: a\r\n\r\n~",
    "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n~",
    "GET /\x0bx HTTP/1.1\r\nHost: a\r\n\r\n~",
    "GET / HTTP/1.1\x00\r\nHost: a\r\n\r\n~",
    "GET /a\r\n\r\nx HTTP/1.1\r\nHost: a\r\n\r\n~",
    "\x00GET / HTTP/1.1\r\nHost: a\r\n\r\n~",
    "\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n~",
    // which host it is for
    "GET / HTTP/1.1\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: \r\n\r\n~",
    "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n~",
    "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n~",
    "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n~",
    "GET @b/ HTTP/1.1\r\nHost: a\r\n\r\n~",
    "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n~",
];

/// Bodies that break off in the middle of a coding: the request is seen, its body is not, nor is anything after it.
const BROKEN: &[&str] = &[
    "0\n\r\n~",
    "0\r\n\n~",
    "0\r\n\r~",
    "0 \r\n\r\n~",
    " 0\r\n\r\n~",
    "+0\r\n\r\n~",
    "-0\r\n\r\n~",
    "0x0\r\n\r\n~",
    "0\x0b\r\n\r\n~",
    "\r\n0\r\n\r\n~",
    "0;\r\n\r\n~",
    "0;\n\r\n\r\n~",
    "0;a\n=b\r\n\r\n~",
    "0;a\rb\r\n\r\n~",
    "0\r\nX\r\n\r\n~",
    "0\r\nX: y\n\r\n~",
    "0\r\n X: y\r\n\r\n~",
    "0\r\nContent-Length: 9\r\n\r\n~",
    "0\r\nTransfer-Encoding: chunked\r\n\r\n~",
    "1\r\nab\r\n0\r\n\r\n~",
    "2\r\na\r\n0\r\n\r\n~",
    "1\r\na0\r\n\r\n~",
    "1\na\r\n0\r\n\r\n~",
    "1\r\na\n0\r\n\r\n~",
    "g\r\n\r\n~",
    "ffffffffffffffff\r\n~",
    "10000000000000001\r\na\r\n0\r\n\r\n~",
    "100000000000000000\r\n~",
    "0,0\r\n\r\n~",
    "0\0\r\n\r\n~",
];

#[test]
fn nothing_hidden_is_ever_served() {
    on_worker(async {
        let site = Site::new(Limits { lingering_timeout: Duration::from_millis(50), ..Limits::default() });
        for message in REFUSED {
            let text = site.talk(message.replace('~', HIDDEN)).await;
            assert!(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 501 "), "{message:?}: {text}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{message:?}: {text}");
            assert_eq!(site.seen(), [], "{message:?}");
        }
    });
}

#[test]
fn nothing_behind_a_broken_body_is_ever_served() {
    on_worker(async {
        let site = Site::new(Limits { lingering_timeout: Duration::from_millis(50), ..Limits::default() });
        for path in ["/echo", "/ignore"] {
            for body in BROKEN {
                site.handler.seen.borrow_mut().clear();
                let body = body.replace('~', HIDDEN);
                let text = site.talk(format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
                assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{body:?}: {text}");
                let seen = site.seen();
                assert!(seen.len() == 1 && seen[0].target == path && !matches!(seen[0].body, Some(Ok(_))), "{body:?}: {seen:?}");
            }
        }
    });
}

#[test]
fn what_only_looks_odd_is_one_request_and_then_the_next() {
    on_worker(async {
        let site = Site::new(Limits::default());
        for message in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhOsT:a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "PROPFIND / HTTP/1.1\r\nHost: a:\r\nDepth: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t35 \r\n\r\nGET /hidden HTTP/1.1\r\nHost: abc\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Content-Length\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: ChUnKeD\r\n\r\n23\r\nGET /hidden HTTP/1.1\r\nHost: abc\r\n\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b;c\\\"\" ; d\r\nabc\r\n000\r\nX-T:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \u{fc}\"(,\r\nX: z\r\n\r\n",
            "GET /?a=%zz&b=<>\"{}|\\^`[] HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "GET / HTTP/1.3\r\nHost: a\r\n\r\n",
        ] {
            site.handler.seen.borrow_mut().clear();
            let text = site.talk(message.to_owned() + "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let targets: Vec<_> = site.seen().into_iter().map(|s| s.target).collect();
            assert!(targets.len() == 2 && targets[1] == "/next", "{message:?}: {targets:?} {text}");
        }
    });
}
