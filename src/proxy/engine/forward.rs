//! What an upstream is told: the head of the forwarded request.

use std::io::Write;
use std::net::IpAddr;

use crate::http::syntax::same;
use crate::http::{Body, Headers, Request};
use crate::plugin::Exchange;

/// What the engine has decided about the forwarded head.
pub struct Forward<'a> {
    pub host: &'a str,
    /// The client's `Upgrade`, when it is one that is passed on.
    pub upgrade: Option<&'a [u8]>,
    /// The request id is sent along (`headers_upstream`).
    pub request_id: bool,
    pub via: &'a str,
    pub body: Framing,
}

/// How the body of the forwarded request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    /// The framing of a body; an empty one has a length only where the client gave one or the method implies a body.
    pub fn of(request: &Request) -> Self {
        match &request.body {
            Body::Empty if request.headers.contains("content-length") || request.headers.contains("transfer-encoding") => Self::Length(0),
            Body::Empty => Self::None,
            body => body.length().map_or(Self::Chunked, Self::Length),
        }
    }
}

/// Writes the head of the forwarded request.
pub fn write_head(x: &Exchange, forward: &Forward<'_>, out: &mut Vec<u8>) {
    let request = &x.request;
    // what is added here beside the fields is about as much as this
    out.reserve(request.headers.size() + x.upstream.target.len() + 512);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(x.upstream.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(forward.host.as_bytes());
    match forward.upgrade {
        Some(protocol) => field(out, b"\r\nConnection: keep-alive, Upgrade\r\nUpgrade: ", protocol),
        None => out.extend_from_slice(b"\r\nConnection: keep-alive\r\n"),
    }
    let named = Named::of(&request.headers);
    let mut te_trailers = false;
    request.headers.write(out, |name, value| match fate(name) {
        Fate::Kept => !named.has(name),
        Fate::Te => {
            te_trailers |= value.split(|b| *b == b',').any(|t| same(t.trim_ascii(), b"trailers"));
            false
        }
        Fate::Dropped => false,
    });
    if te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    forwarded(x, out);
    out.extend_from_slice(b"Via: ");
    for via in request.headers.get_all("via") {
        out.extend_from_slice(via);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(request.version.number().as_bytes());
    field(out, b" ", forward.via.as_bytes());
    if forward.request_id {
        field(out, b"X-Kong-Request-Id: ", &x.request_id.0);
    }
    match forward.body {
        Framing::None => {}
        Framing::Length(n) => field(out, b"Content-Length: ", itoa::Buffer::new().format(n).as_bytes()),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// `X-Real-IP` and `X-Forwarded-*`. A trusted peer's own values pass.
fn forwarded(x: &Exchange, out: &mut Vec<u8>) {
    let headers = &x.request.headers;
    let sent = |name: &'static str| if x.client.trusted { headers.get(name) } else { None };
    out.extend_from_slice(b"X-Real-IP: ");
    let start = out.len();
    write_address(x.client.ip, out);
    let address = start..out.len();
    out.extend_from_slice(b"\r\nX-Forwarded-For: ");
    let mut chain = false;
    for value in headers.get_all("x-forwarded-for") {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
        chain = true;
    }
    if chain {
        write_address(x.client.peer.ip(), out)
    } else {
        out.extend_from_within(address)
    }
    field(out, b"\r\nX-Forwarded-Proto: ", sent("x-forwarded-proto").unwrap_or(x.client.scheme.as_bytes()));
    let host = headers.get("host").unwrap_or_default();
    field(out, b"X-Forwarded-Host: ", sent("x-forwarded-host").unwrap_or_else(|| without_port(host)));
    let mut port = itoa::Buffer::new();
    field(out, b"X-Forwarded-Port: ", sent("x-forwarded-port").unwrap_or_else(|| port.format(x.client.port).as_bytes()));
    field(out, b"X-Forwarded-Path: ", sent("x-forwarded-path").unwrap_or_else(|| x.request.raw_path().as_bytes()));
    if let Some(prefix) = sent("x-forwarded-prefix").or(x.upstream.prefix.as_deref().map(str::as_bytes)) {
        field(out, b"X-Forwarded-Prefix: ", prefix);
    }
}

/// Writes what ends with a name and `: `, the value, and the end of the line.
#[inline]
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// An address as text; those of version 4 without the machinery of formatting.
fn write_address(ip: IpAddr, out: &mut Vec<u8>) {
    let ip = match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => return write!(out, "{ip}").expect("a Vec takes everything"),
    };
    let (mut text, mut length) = (0, 0);
    for octet in ip.octets() {
        let (part, size) = OCTETS[usize::from(octet)];
        text |= u128::from(part) << (8 * length);
        length += size;
    }
    // but for the last dot
    out.extend_from_slice(&text.to_le_bytes()[..length as usize - 1]);
}

/// Each part of an address with its dot, the first byte lowest, and their length.
static OCTETS: [(u32, u32); 256] = {
    let mut table = [(0, 0); 256];
    let mut n = 0;
    while n < table.len() {
        let [a, b, c] = [b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        let (part, length) = match n {
            0..=9 => ([c, b'.', 0, 0], 2),
            10..=99 => ([b, c, b'.', 0], 3),
            _ => ([a, b, c, b'.'], 4),
        };
        table[n] = (u32::from_le_bytes(part), length);
        n += 1;
    }
    table
};

/// A Host value without its port.
pub fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|b| *b == b':') {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

/// What becomes of a request header field.
enum Fate {
    Kept,
    Te,
    /// Set by the gateway itself, or not meant for the next hop.
    Dropped,
}

fn fate(name: &[u8]) -> Fate {
    let one_of = |names: &[&str]| names.iter().any(|n| same(name, n.as_bytes()));
    let dropped = match name.len() {
        2 if same(name, b"te") => return Fate::Te,
        3 => one_of(&["via"]),
        4 => one_of(&["host"]),
        5 => one_of(&["proxy"]),
        6 => one_of(&["expect"]),
        7 => one_of(&["upgrade"]),
        9 => one_of(&["x-real-ip"]),
        10 => one_of(&["connection", "keep-alive"]),
        14 => one_of(&["content-length", "http2-settings"]),
        15 => one_of(&["x-forwarded-for"]),
        16 => one_of(&["proxy-connection", "x-forwarded-host", "x-forwarded-port", "x-forwarded-path"]),
        17 => one_of(&["transfer-encoding", "x-forwarded-proto", "x-kong-request-id"]),
        18 => one_of(&["x-forwarded-prefix"]),
        _ => false,
    };
    if dropped { Fate::Dropped } else { Fate::Kept }
}

/// Fields that the message's own `Connection` names, which are meant for this hop only.
pub struct Named<'a> {
    options: smallvec::SmallVec<[&'a [u8]; 4]>,
}

impl<'a> Named<'a> {
    /// `keep-alive`, `close` and `upgrade` alone name no field.
    pub fn of(headers: &'a Headers) -> Self {
        if !headers.contains("connection") {
            return Self { options: smallvec::SmallVec::new() };
        }
        let options = headers
            .get_all("connection")
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.is_empty() && ![&b"keep-alive"[..], b"close", b"upgrade"].iter().any(|o| same(option, o)))
            // framing and routing are never given away to a field of the client's choosing
            .filter(|option| ![&b"content-length"[..], b"transfer-encoding", b"host"].iter().any(|o| same(option, o)))
            .collect();
        Self { options }
    }

    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.options.iter().copied()
    }

    pub fn has(&self, name: &[u8]) -> bool {
        self.options.iter().any(|option| same(option, name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Named, without_port, write_address};
    use crate::http::Headers;

    #[test]
    fn addresses() {
        for text in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "10.99.100.9", "::1", "2001:db8::1"] {
            let mut out = Vec::new();
            write_address(text.parse().expect("an address"), &mut out);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(text));
        }
        for octet in 0..=255u8 {
            let mut out = Vec::new();
            write_address([octet, 1, octet, octet].into(), &mut out);
            assert_eq!(String::from_utf8(out), Ok(format!("{octet}.1.{octet}.{octet}")));
        }
    }

    #[test]
    fn hosts_without_ports() {
        for (host, name) in [("a.test:80", "a.test"), ("a.test", "a.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(without_port(host.as_bytes()), name.as_bytes());
        }
    }

    #[test]
    fn fields_named_by_connection() {
        let mut headers = Headers::new();
        headers.append("Connection", "X-Drop, keep-alive, Content-Length");
        let named = Named::of(&headers);
        assert!(named.has(b"x-drop"));
        assert!(!named.has(b"content-length"));
        assert!(!named.has(b"keep-alive"));
    }
}
