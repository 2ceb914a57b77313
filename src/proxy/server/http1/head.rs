//! The head of a request: read strictly (RFC 9112, sections 2 to 6), so that nothing reaches an upstream that it could
//! take for something else.

use crate::http::syntax::{FieldLine, is_host, is_target, is_token, percent, same, trim};
use crate::http::{Method, Request, Version};
use crate::proxy::server::Limits;

/// What a head says about the rest of its message and of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head.
    pub len: usize,
    pub framing: Framing,
    /// Whether the client lets the connection be used again.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends the body.
    pub expects_continue: bool,
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// Why a message is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer. 494 is nginx's for a head that is too large; the answer says 400.
    pub status: u16,
    pub why: &'static str,
}

/// Status for a head that is too large.
pub const HEAD_TOO_LARGE: u16 = 494;

const fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}

const fn refused<T>(status: u16, why: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, why })
}

/// How far the search for the end of a head has come, so that a head that drips in is not read again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes that were searched.
    at: usize,
    /// Where the line begins that is being searched.
    line: usize,
}

impl Scan {
    /// Whether nothing was searched yet.
    pub fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Whether `bytes` holds a whole head. What is too large or cannot become a request is refused before it is complete.
    pub fn is_complete(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        if self.line == 0 && !begins_like_a_request(bytes) {
            return Err(bad("malformed method"));
        }
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.at..]) {
            let end = self.at + found + 1;
            self.check_size(end, limits)?;
            let line = &bytes[self.line..end];
            (self.at, self.line) = (end, end);
            if line.len() <= 2 {
                return Ok(true);
            }
        }
        self.at = bytes.len();
        self.check_size(self.at, limits)?;
        Ok(false)
    }

    fn check_size(&self, end: usize, limits: &Limits) -> Result<(), Refusal> {
        if end - self.line > limits.line {
            return if self.line == 0 { refused(414, "request line too long") } else { refused(HEAD_TOO_LARGE, "header field too long") };
        }
        if end > limits.head {
            return refused(HEAD_TOO_LARGE, "head too large");
        }
        Ok(())
    }
}

fn begins_like_a_request(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
    bytes[..end].is_empty() && bytes.is_empty() || is_method(&bytes[..end])
}

/// A method is a token; nginx, and so Kong, refuses lower-case letters in it.
pub fn is_method(token: &[u8]) -> bool {
    is_token(token) && !token.iter().any(u8::is_ascii_lowercase)
}

/// Reads the head that `bytes` begins with; it is complete. The body of `request` is left alone.
pub fn parse(bytes: &[u8], limits: &Limits, request: &mut Request) -> Result<Head, Refusal> {
    let mut lines = Lines { bytes, at: 0 };
    let line = lines.next(limits.line, 414)?;
    let (method, target, version) = request_line(line)?;
    request.version = version;
    request.method = Method::parse(method);
    request.headers.clear();
    let mut fields = Fields { keep_alive: version >= Version::Http11, ..Fields::default() };
    while !matches!(bytes[lines.at..], [b'\r', b'\n', ..]) {
        let (field, line) = lines.field(limits.line)?;
        if request.headers.len() == limits.fields || lines.at > limits.head {
            return refused(HEAD_TOO_LARGE, "head too large");
        }
        fields.read(field, line, request)?;
    }
    lines.at += 2;
    if matches!(request.method, Method::Connect | Method::Trace) {
        return refused(405, "method not allowed");
    }
    let authority = read_target(target, request)?;
    match (fields.host, version) {
        (Some(host), _) if !is_host(host) => return Err(bad("malformed Host")),
        (None, Version::Http11) => return Err(bad("no Host")),
        _ => {}
    }
    if let Some(authority) = authority {
        // RFC 9112, section 3.2.2: what the client put into Host does not count then
        request.headers.set("Host", authority);
    }
    let framing = fields.framing(version)?;
    if let Framing::Length(length) = framing
        && fields.odd_length
    {
        request.headers.set("Content-Length", length.to_string());
    }
    Ok(Head {
        len: lines.at,
        framing,
        keep_alive: fields.keep_alive && !fields.close,
        expects_continue: fields.expects_continue && version == Version::Http11 && framing != Framing::None,
    })
}

/// Whether a line that is no request line looks like HTTP/2's preface gone wrong, and not like a request gone wrong: it is the
/// line that the preface begins with, or neither target nor version are HTTP/1's.
pub fn is_foreign(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.starts_with(b"PRI * HTTP/2.0") {
        return true;
    }
    let mut words = line.trim_ascii_end().splitn(3, |b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else { return false };
    is_method(method) && is_token(target) && target != b"*" && !version.starts_with(b"HTTP/")
}

/// `(method, target, version)`
fn request_line(line: &[u8]) -> Result<(&str, &[u8], Version), Refusal> {
    let mut parts = line.splitn(3, |b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad("malformed request line"));
    };
    if !is_method(method) {
        return Err(bad("malformed method"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', b'0'..=b'9'] => match major {
            b'1' => Version::Http11,
            _ => return refused(505, "unknown HTTP version"),
        },
        _ => return Err(bad("malformed version")),
    };
    let method = std::str::from_utf8(method).map_err(|_| bad("malformed method"))?;
    Ok((method, target, version))
}

/// Reads the request target into `request.target`; the authority if the target is in absolute form.
fn read_target<'a>(target: &'a [u8], request: &mut Request) -> Result<Option<&'a [u8]>, Refusal> {
    request.target.clear();
    if let [b'/', ..] = target {
        origin_form(target, &mut request.target)?;
        return Ok(None);
    }
    if target == b"*" && request.method == Method::Options {
        request.target.push('*');
        return Ok(None);
    }
    let rest = [&b"http://"[..], b"https://"]
        .iter()
        .find_map(|scheme| target.split_at_checked(scheme.len()).filter(|(start, _)| start.eq_ignore_ascii_case(scheme)))
        .map(|(_, rest)| rest)
        .ok_or(bad("malformed request target"))?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_host(authority) {
        return Err(bad("malformed authority"));
    }
    match path.first() {
        Some(b'/') => {}
        None if request.method == Method::Options => {
            request.target.push('*');
            return Ok(Some(authority));
        }
        _ => request.target.push('/'),
    }
    origin_form(path, &mut request.target)?;
    Ok(Some(authority))
}

/// Path and query. Bytes above ASCII are escaped, as they may not be sent on as they are.
pub fn origin_form(target: &[u8], out: &mut String) -> Result<(), Refusal> {
    use std::fmt::Write;
    if target.iter().all(|b| is_target(*b) && *b != b'%') {
        out.push_str(std::str::from_utf8(target).map_err(|_| bad("malformed request target"))?);
        return Ok(());
    }
    out.reserve(target.len());
    let mut query = false;
    for (at, byte) in target.iter().enumerate() {
        match byte {
            b'?' => query = true,
            b'%' if !query && matches!(percent(&target[at..]), None | Some(0)) => return Err(bad("malformed escape in the path")),
            0x80.. => {
                write!(out, "%{byte:02X}").expect("a String takes everything");
                continue;
            }
            byte if !is_target(*byte) => return Err(bad("malformed request target")),
            _ => {}
        }
        out.push(char::from(*byte));
    }
    Ok(())
}

/// What the fields of a head say about its message and the connection.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    /// The length is not written as it is usually written.
    odd_length: bool,
    chunked: bool,
    keep_alive: bool,
    close: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, field: FieldLine, line: &'a [u8], request: &mut Request) -> Result<(), Refusal> {
        let (name, value) = (&line[..field.name], &line[field.value.0..field.value.1]);
        match name.len() {
            4 if same(name, b"host") && self.host.replace(value).is_some() => {
                return Err(bad("two Hosts"));
            }
            6 if same(name, b"expect") => {
                self.expects_continue |= same(value, b"100-continue");
            }
            10 if same(name, b"connection") => {
                for option in value.split(|b| *b == b',').map(trim) {
                    self.close |= same(option, b"close");
                    self.keep_alive |= same(option, b"keep-alive");
                }
            }
            14 if same(name, b"content-length") => {
                if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
                    return Err(bad("malformed Content-Length"));
                }
                if self.length.replace(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'))).is_some() {
                    return Err(bad("two Content-Lengths"));
                }
                self.odd_length = value.len() > 1 && value.starts_with(b"0");
            }
            17 if same(name, b"transfer-encoding") => {
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(bad("two Transfer-Encodings"));
                }
                if !same(value, b"chunked") {
                    return refused(501, "unknown transfer coding");
                }
            }
            _ => {}
        }
        if field.is_plain(line) {
            request.headers.append_line(line, field.name)
        } else {
            request.headers.append_checked(name, value)
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(bad("both Content-Length and Transfer-Encoding")),
            (true, None) if version < Version::Http11 => Err(bad("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Lines that end with CR LF and nothing else.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self, longest: usize, status: u16) -> Result<&'a [u8], Refusal> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(b'\n', rest).ok_or(bad("incomplete head"))?;
        if end >= longest {
            return refused(status, "line too long");
        }
        self.at += end + 1;
        rest[..end].strip_suffix(b"\r").ok_or(bad("line feed alone"))
    }

    /// A field, and its line with its end.
    fn field(&mut self, longest: usize) -> Result<(FieldLine, &'a [u8]), Refusal> {
        let rest = &self.bytes[self.at..];
        let field = FieldLine::read(rest);
        match &rest[field.end..] {
            _ if field.name == 0 => return Err(bad("malformed field name")),
            [b'\r', b'\n', ..] if !field.colon => return Err(bad("field without a colon")),
            _ if !field.colon => return Err(bad("malformed field name")),
            [b'\r', b'\n', ..] => {}
            [b'\n', ..] => return Err(bad("line feed alone")),
            [] | [b'\r'] => return Err(bad("incomplete head")),
            _ => return Err(bad("control character in a field")),
        }
        if field.end + 1 >= longest {
            return refused(HEAD_TOO_LARGE, "line too long");
        }
        self.at += field.end + 2;
        Ok((field, &rest[..field.end + 2]))
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
