use super::{Framing, Head, Refusal, Scan, parse};
use crate::http::{Request, Version};
use crate::proxy::server::Limits;

fn read(bytes: impl AsRef<[u8]>) -> Result<(Head, Request), u16> {
    let (bytes, limits) = (bytes.as_ref(), Limits::default());
    let mut request = Request::default();
    let status = |r: Refusal| r.status;
    assert!(Scan::default().is_complete(bytes, &limits).map_err(status)?, "incomplete: {}", String::from_utf8_lossy(bytes));
    parse(bytes, &limits, &mut request).map(|head| (head, request)).map_err(status)
}

fn with(line: &str, fields: &str) -> Result<(Head, Request), u16> {
    read(format!("{line}\r\nHost: a.test\r\n{fields}\r\n"))
}

fn get(fields: &str) -> Result<(Head, Request), u16> {
    with("GET / HTTP/1.1", fields)
}

#[test]
fn a_plain_request() {
    let (head, request) = with("POST /a//b?x=1&y HTTP/1.1", "X-A:  b c\t\r\nContent-Length: 3\r\n").unwrap();
    assert_eq!(head.framing, Framing::Length(3));
    assert!(head.keep_alive);
    assert_eq!((request.method.as_str(), request.target.as_str(), request.version), ("POST", "/a//b?x=1&y", Version::Http11));
    assert_eq!(request.headers.get_str("x-a"), Some("b c"));
}

#[test]
fn request_lines() {
    for (line, target) in [
        ("GET / HTTP/1.1", "/"),
        ("GET /?a?b/c HTTP/1.1", "/?a?b/c"),
        ("GET //x HTTP/1.1", "//x"),
        ("GET /%41%2f HTTP/1.1", "/%41%2f"),
        ("GET /{a}|\"<b>\\^` HTTP/1.1", "/{a}|\"<b>\\^`"),
        ("GET /ü?ü HTTP/1.1", "/%C3%BC?%C3%BC"),
        ("GET /?%zz% HTTP/1.1", "/?%zz%"),
        ("GET / HTTP/1.2", "/"),
        ("M-SEARCH / HTTP/1.1", "/"),
        ("FOO_1!#$ / HTTP/1.1", "/"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("OPTIONS http://b.test HTTP/1.1", "*"),
        ("GET http://b.test HTTP/1.1", "/"),
        ("GET http://b.test?x HTTP/1.1", "/?x"),
        ("GET HTTPS://b.test:8443/x/y HTTP/1.1", "/x/y"),
    ] {
        let (_, request) = with(line, "").unwrap_or_else(|status| panic!("{line}: {status}"));
        assert_eq!(request.target, target, "{line}");
    }
    for (line, status) in [
        ("get / HTTP/1.1", 400),
        ("Get / HTTP/1.1", 400),
        ("GE(T / HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP /1.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/9.9", 505),
        ("GET a HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET ?a HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET /a\u{1}b HTTP/1.1", 400),
        ("GET /a\u{7f}b HTTP/1.1", 400),
        ("GET /%zz HTTP/1.1", 400),
        ("GET /% HTTP/1.1", 400),
        ("GET /%4 HTTP/1.1", 400),
        ("GET /a%00b HTTP/1.1", 400),
        ("GET /a\rb HTTP/1.1", 400),
        ("GET http:///a HTTP/1.1", 400),
        ("GET http:// HTTP/1.1", 400),
        ("GET http:/a HTTP/1.1", 400),
        ("GET http://u@b.test/ HTTP/1.1", 400),
        ("GET http://b.test:x/ HTTP/1.1", 400),
        ("GET http://b.test#x HTTP/1.1", 400),
        ("GET ftp://b.test/ HTTP/1.1", 400),
        ("GET a.test:80 HTTP/1.1", 400),
        ("CONNECT a.test:443 HTTP/1.1", 405),
        ("TRACE / HTTP/1.1", 405),
    ] {
        assert_eq!(with(line, "").map(|_| ()), Err(status), "{line}");
    }
}

#[test]
fn the_host_of_an_absolute_target_counts() {
    let (_, request) = with("GET http://b.test:81/x HTTP/1.1", "").unwrap();
    assert_eq!(request.headers.get_all("host").collect::<Vec<_>>(), [b"b.test:81"]);
}

#[test]
fn hosts() {
    assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok());
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a.test\r\nhost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET http://b.test/ HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ] {
        assert_eq!(read(bad).map(|_| ()), Err(400), "{bad}");
    }
}

#[test]
fn framing() {
    let framing = |fields: &str| with("POST / HTTP/1.1", fields).map(|(head, _)| head.framing);
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::None));
    assert_eq!(framing("Content-Length:\t7 \r\n"), Ok(Framing::Length(7)));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    let (_, request) = with("POST / HTTP/1.1", "Content-Length: 007\r\n").unwrap();
    assert_eq!(request.headers.get_str("content-length"), Some("7"));
    for (fields, status) in [
        ("Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        ("Content-Length: 3, 3\r\n", 400),
        ("Content-Length: +3\r\n", 400),
        ("Content-Length: -3\r\n", 400),
        ("Content-Length: 0x3\r\n", 400),
        ("Content-Length: 3.0\r\n", 400),
        ("Content-Length: 3 3\r\n", 400),
        ("Content-Length: x\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: \"chunked\"\r\n", 501),
        ("Transfer-Encoding:\r\n", 501),
        ("Transfer-Encoding: \u{b}chunked\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("Transfer-Encoding\r\n", 400),
        ("Content-Length : 3\r\n", 400),
    ] {
        assert_eq!(framing(fields), Err(status), "{fields}");
    }
    assert_eq!(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").map(|_| ()), Err(400));
}

#[test]
fn fields() {
    for good in
        ["X-Empty:\r\n", "X-Obs: \u{fc}\r\n", "!#$%&'*+-.^_`|~: 1\r\n", "1: 2\r\n", "X:a:b:\tc\r\n", "A: 1\r\nA: 2\r\n", "X_Y: 1\r\n"]
    {
        assert!(get(good).is_ok(), "{good}");
    }
    for bad in [
        "X-A : 1\r\n",
        " X-A: 1\r\n",
        "X-A: a\r\n b\r\n",
        "X-A: a\r\n\tb\r\n",
        "X-A: a\0b\r\n",
        "X-A: a\rb\r\n",
        "X-A: a\n",
        "X-A: a\nX-B: b\r\n",
        "X-A: \u{b}\r\n",
        "X-A: \u{7f}\r\n",
        "X A: 1\r\n",
        "X(A): 1\r\n",
        ": 1\r\n",
        "nonsense\r\n",
        "X-\u{fc}: 1\r\n",
        "\0: 1\r\n",
        "X-A: 1\r\r\n",
        "X[A]: 1\r\n",
        "X-A\t: 1\r\n",
    ] {
        assert_eq!(get(bad).map(|_| ()), Err(400), "{bad:?}");
    }
    assert_eq!(read("GET / HTTP/1.1\r\n Host: a.test\r\n\r\n").map(|_| ()), Err(400));
    assert_eq!(read("GET / HTTP/1.1\nHost: a.test\n\n").map(|_| ()), Err(400));
    assert_eq!(read("GET / HTTP/1.1\r\nHost: a.test\r\n\n").map(|_| ()), Err(400));
}

#[test]
fn sizes() {
    let field = |n: usize| format!("X-Big: {}\r\n", "a".repeat(n));
    assert!(get(&field(8000)).is_ok());
    assert_eq!(get(&field(9000)).map(|_| ()), Err(494));
    assert!(get(&field(1000).repeat(30)).is_ok());
    assert_eq!(get(&field(1000).repeat(40)).map(|_| ()), Err(494));
    assert!(get(&"X: a\r\n".repeat(300)).is_ok());
    assert_eq!(get(&"X: a\r\n".repeat(1001)).map(|_| ()), Err(494));
    let line = |n: usize| with(&format!("GET /{} HTTP/1.1", "a".repeat(n)), "").map(|_| ());
    assert_eq!(line(4000), Ok(()));
    assert_eq!(line(9000), Err(414));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_complete() {
    let limits = Limits::default();
    let scan = |bytes: &[u8]| Scan::default().is_complete(bytes, &limits).map_err(|r| r.status);
    assert_eq!(scan(b""), Ok(false));
    assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a"), Ok(false));
    assert_eq!(scan(b"\x16\x03\x01"), Err(400));
    assert_eq!(scan(b"garbage"), Err(400));
    assert_eq!(scan(format!("GET /{}", "a".repeat(9000)).as_bytes()), Err(414));
    assert_eq!(scan(format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(9000)).as_bytes()), Err(494));
    assert_eq!(scan(format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(9000)).as_bytes()), Err(494));
}

#[test]
fn a_head_that_drips_in_is_found() {
    let (limits, bytes) = (Limits::default(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
    let mut scan = Scan::default();
    let complete = (0..=bytes.len()).find(|n| scan.is_complete(&bytes[..*n], &limits).unwrap());
    assert_eq!(complete, Some(bytes.len() - 4));
}

#[test]
fn keep_alive_and_continue() {
    let head = |version: &str, fields: &str| with(&format!("POST / HTTP/{version}"), fields).unwrap().0;
    assert!(head("1.1", "").keep_alive);
    assert!(!head("1.1", "Connection: Close\r\n").keep_alive);
    assert!(!head("1.1", "Connection: close, keep-alive\r\n").keep_alive);
    assert!(!head("1.1", "Connection: keep-alive\r\nConnection: x, close\r\n").keep_alive);
    assert!(!head("1.0", "").keep_alive);
    assert!(head("1.0", "Connection: Keep-Alive\r\n").keep_alive);
    assert!(head("1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n").expects_continue);
    assert!(!head("1.1", "Expect: 100-continue\r\n").expects_continue);
    assert!(!head("1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n").expects_continue);
    assert!(!head("1.1", "Expect: else\r\nContent-Length: 1\r\n").expects_continue);
}
