//! The head of an answer, and how its body is delimited.

use crate::http::syntax::same;
use crate::http::{Body, Response, Version};
use crate::proxy::server::date::Date;

/// What the answer depends on besides the response.
pub struct Circumstances<'a> {
    pub version: Version,
    /// The request was HEAD.
    pub head: bool,
    /// Whether the client and the server would keep the connection open.
    pub keep_alive: bool,
    /// Sent when the response has no Date of its own.
    pub date: Option<&'a Date>,
}

/// How the body of an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub framing: Framing,
    pub keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body whatever the response holds.
    None,
    /// So many bytes, of which so many are still to be written.
    Length(u64),
    Chunked,
    UntilClose,
}

/// Writes the head of `response` to `out`.
pub fn write(out: &mut Vec<u8>, response: &Response, circumstances: &Circumstances<'_>) -> Delivery {
    let switched = response.status == 101 && response.tunnel.is_some();
    // what is added here beside the fields is less than this
    out.reserve(response.headers.size() + 192);
    status_line(out, response);
    let (mut dated, mut announced, mut close) = (false, None::<&[u8]>, false);
    response.headers.write(out, |name, value| {
        match name.len() {
            4 => dated |= same(name, b"date"),
            10 if same(name, b"connection") => {
                close |= value.split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
                return false;
            }
            10 => return !same(name, b"keep-alive"),
            14 if same(name, b"content-length") => {
                announced = Some(value);
                return false;
            }
            17 => return !same(name, b"transfer-encoding"),
            _ => {}
        }
        true
    });
    if let (false, Some(clock)) = (dated, circumstances.date) {
        out.extend_from_slice(b"Date: ");
        clock.write(out);
        out.extend_from_slice(b"\r\n");
    }
    let framing = framing(out, response, circumstances, announced);
    let keep_alive = circumstances.keep_alive && !close && framing != Framing::UntilClose;
    out.extend_from_slice(match (switched, keep_alive) {
        (true, _) => b"Connection: upgrade\r\n\r\n",
        (false, true) => b"Connection: keep-alive\r\n\r\n",
        (false, false) => b"Connection: close\r\n\r\n",
    });
    Delivery { framing, keep_alive }
}

/// Says how the body is delimited, and writes the field for it. `announced` is the response's own Content-Length.
fn framing(out: &mut Vec<u8>, response: &Response, circumstances: &Circumstances<'_>, announced: Option<&[u8]>) -> Framing {
    let announced = || announced.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    if matches!(response.status, 100..=199 | 204) {
        return Framing::None;
    }
    if circumstances.head || response.status == 304 {
        // the length of what GET would bring, if it is known
        let at_hand = match &response.body {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Empty if response.status != 304 => Some(0),
            Body::Empty | Body::Stream(_) => None,
        };
        if let Some(length) = announced().or(at_hand) {
            length_field(out, length);
        }
        return Framing::None;
    }
    let length = match &response.body {
        Body::Empty => Some(0),
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Stream(_) => announced(),
    };
    match length {
        Some(length) => {
            length_field(out, length);
            Framing::Length(length)
        }
        None if circumstances.version >= Version::Http11 => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Framing::Chunked
        }
        None => Framing::UntilClose,
    }
}

fn status_line(out: &mut Vec<u8>, response: &Response) {
    if let (200, None) = (response.status, &response.reason) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = response.status.min(999);
    out.extend_from_slice(&[b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8, b' ']);
    match &response.reason {
        Some(reason) => out.extend(reason.bytes().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b })),
        None => out.extend_from_slice(reason(response.status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the line that begins a chunk.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status, in nginx's words.
fn reason(status: u16) -> &'static str {
    match status {
        302 => "Moved Temporarily",
        408 => "Request Time-out",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        416 => "Requested Range Not Satisfiable",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Circumstances, Delivery, Framing, chunk_size, write};
    use crate::http::{Body, Response, Version};

    fn answer(version: Version, head: bool, response: &Response) -> (String, Delivery) {
        let mut out = Vec::new();
        let delivery = write(&mut out, response, &Circumstances { version, head, keep_alive: true, date: None });
        (String::from_utf8(out).unwrap(), delivery)
    }

    fn response(status: u16, body: Body, fields: &[(&str, &str)]) -> Response {
        let mut response = Response { status, body, ..Response::default() };
        for (name, value) in fields {
            response.headers.append(name, value);
        }
        response
    }

    struct Endless;

    impl crate::http::BodySource for Endless {
        fn poll_chunk(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<bytes::Bytes, crate::http::BodyError>>> {
            std::task::Poll::Pending
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    fn stream() -> Body {
        Body::Stream(Box::new(Endless))
    }

    #[test]
    fn bytes_at_hand_are_counted() {
        let body = || Body::Bytes("hello".into());
        let (head, delivery) =
            answer(Version::Http11, false, &response(200, body(), &[("X-A", "b"), ("Content-Length", "9"), ("Connection", "x")]));
        assert_eq!(head, "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(delivery, Delivery { framing: Framing::Length(5), keep_alive: true });
        let (head, delivery) = answer(Version::Http11, true, &response(200, body(), &[]));
        assert!(head.contains("Content-Length: 5\r\n") && delivery.framing == Framing::None);
        assert!(answer(Version::Http11, false, &response(404, Body::Empty, &[])).0.contains("404 Not Found\r\nContent-Length: 0\r\n"));
    }

    #[test]
    fn streams_are_chunked_unless_their_length_is_told() {
        let (head, delivery) = answer(Version::Http11, false, &response(200, stream(), &[("Transfer-Encoding", "gzip")]));
        assert_eq!((head.matches("Transfer-Encoding: chunked").count(), head.contains("gzip")), (1, false));
        assert_eq!(delivery, Delivery { framing: Framing::Chunked, keep_alive: true });
        let (head, delivery) = answer(Version::Http10, false, &response(200, stream(), &[]));
        assert!(!head.contains("Transfer-Encoding") && head.contains("Connection: close"));
        assert_eq!(delivery, Delivery { framing: Framing::UntilClose, keep_alive: false });
        let (_, delivery) = answer(Version::Http10, false, &response(200, stream(), &[("Content-Length", "7")]));
        assert_eq!(delivery, Delivery { framing: Framing::Length(7), keep_alive: true });
    }

    #[test]
    fn some_answers_have_no_body() {
        let none = |status, head, fields: &[(&str, &str)]| {
            let (text, delivery) = answer(Version::Http11, head, &response(status, stream(), fields));
            assert_eq!(delivery, Delivery { framing: Framing::None, keep_alive: true });
            text
        };
        assert!(!none(204, false, &[("Content-Length", "5")]).contains("Content-Length"));
        assert!(none(304, false, &[("Content-Length", "5")]).contains("Content-Length: 5"));
        assert!(!none(304, false, &[]).contains("Content-Length"));
        assert!(none(200, true, &[("Content-Length", "5")]).contains("Content-Length: 5"));
        assert!(!none(200, true, &[]).contains("Transfer-Encoding"));
    }

    #[test]
    fn nothing_is_smuggled_into_a_head() {
        let (head, _) = answer(Version::Http11, false, &response(200, Body::Empty, &[("X-A", "b\r\nX-C: d\0"), ("X B:\r\nX", "c")]));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nX-A: b  X-C: d \r\nContent-Length: 0\r\n"), "{head}");
    }

    #[test]
    fn close_is_the_response_s_to_say_as_well() {
        let (head, delivery) = answer(Version::Http11, false, &response(200, Body::Empty, &[("connection", "a, Close")]));
        assert!(head.ends_with("Connection: close\r\n\r\n") && !delivery.keep_alive);
    }

    #[test]
    fn sizes_of_chunks() {
        for (size, text) in [(0, "0\r\n"), (10, "a\r\n"), (4096, "1000\r\n")] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, text.as_bytes());
        }
    }
}
