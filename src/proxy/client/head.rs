//! The head of an upstream's answer.
//!
//! As tolerant as nginx where upstreams are known to be sloppy (line feeds alone, a field without a colon, a missing reason
//! phrase), as strict as it must be where the framing of the body is at stake.

use crate::http::syntax::{FieldLine, is_value, same};
use crate::http::{Headers, Response};

/// Longest head that is read.
pub const MAX_HEAD: usize = 64 * 1024;
/// Longest line of a head, as nginx's proxy_buffer_size is.
const MAX_LINE: usize = 8 * 1024;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A head that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes of the head.
    pub len: usize,
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// Reads a head from the start of `bytes` into `response`; `None` when it is not complete yet.
///
/// `head` says that the request was HEAD.
pub fn parse(bytes: &[u8], head: bool, response: &mut Response) -> Result<Option<Parsed>, &'static str> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(status_line) = lines.next()? else {
        // what cannot become a status line is refused before the end of the line
        let start = &bytes[..bytes.len().min(5)];
        return if b"HTTP/".starts_with(start) { Ok(None) } else { Err("not HTTP") };
    };
    let (version, status, reason) = status_line_parts(status_line)?;
    response.headers.clear();
    let mut fields = Fields { keep_alive: version >= 11, ..Fields::default() };
    while !lines.end() {
        let Some((field, line)) = lines.field()? else { return Ok(None) };
        fields.read(field, line, &mut response.headers)?;
    }
    response.status = status;
    response.reason = ((status, reason) != (200, "OK") && reason != standard_reason(status)).then(|| reason.into());
    Ok(Some(Parsed { len: lines.at, framing: fields.framing(head, status, version)?, keep_alive: fields.keep_alive }))
}

/// `(version as 10 or 11, status, reason)`
fn status_line_parts(line: &[u8]) -> Result<(u8, u16, &str), &'static str> {
    let rest = line.strip_prefix(b"HTTP/").ok_or("not HTTP")?;
    let (version, rest) = match rest {
        [b'1', b'.', minor @ b'0'..=b'9', b' ', rest @ ..] => (if *minor == b'0' { 10 } else { 11 }, rest),
        _ => return Err("unknown HTTP version"),
    };
    let (digits, rest) = rest.split_at_checked(3).ok_or("no status code")?;
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(rest.first(), None | Some(b' ')) {
        return Err("bad status code");
    }
    let status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    let reason = rest.strip_prefix(b" ").unwrap_or(rest);
    if !is_value(reason) {
        return Err("control character in the reason phrase");
    }
    Ok((version, status, std::str::from_utf8(reason).unwrap_or_default()))
}

/// What the fields of a head say about its framing.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
}

impl Fields {
    fn read(&mut self, field: FieldLine, line: &[u8], headers: &mut Headers) -> Result<(), &'static str> {
        let (name, value) = (&line[..field.name], &line[field.value.0..field.value.1]);
        match name.len() {
            14 if same(name, b"content-length") => {
                if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
                    return Err("bad Content-Length");
                }
                if self.length.replace(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'))).is_some() {
                    return Err("two Content-Lengths");
                }
            }
            17 if same(name, b"transfer-encoding") => {
                if self.chunked || !same(value, b"chunked") {
                    return Err("unknown transfer coding");
                }
                self.chunked = true;
            }
            10 if same(name, b"connection") => {
                let mut names_fields = false;
                for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if same(option, b"close") {
                        self.keep_alive = false;
                    } else if same(option, b"keep-alive") {
                        self.keep_alive = true;
                    } else {
                        names_fields = true;
                    }
                }
                if !names_fields {
                    // nobody else needs to know
                    return Ok(());
                }
            }
            _ => {}
        }
        if field.is_plain(line) && line.len() == field.end + 2 {
            headers.append_line(line, field.name);
        } else {
            headers.append_checked(name, value);
        }
        Ok(())
    }

    fn framing(&mut self, head: bool, status: u16, version: u8) -> Result<Framing, &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if self.chunked && version < 11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if head || matches!(status, 100..=199 | 204 | 304) {
            // a body that follows all the same must not be taken for the next answer
            self.keep_alive &= head || status == 304 || !self.chunked && matches!(self.length, None | Some(0));
            return Ok(Framing::None);
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(0)) => Framing::None,
            (false, Some(n)) => Framing::Length(n),
            (false, None) => {
                self.keep_alive = false;
                Framing::UntilClose
            }
        })
    }
}

/// Lines that end with CR LF or LF.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Steps over the empty line at the end of the head, if it stands here.
    fn end(&mut self) -> bool {
        let ending = match &self.bytes[self.at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        self.at += ending;
        ending > 0
    }

    /// A field, and its line with its end; `None` when it is not complete yet.
    fn field(&mut self) -> Result<Option<(FieldLine, &'a [u8])>, &'static str> {
        let rest = &self.bytes[self.at..];
        let field = FieldLine::read(rest);
        let ending = match &rest[field.end..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            [] | [b'\r'] if rest.len() > MAX_LINE || self.bytes.len() > MAX_HEAD => return Err("head too large"),
            [] | [b'\r'] => return Ok(None),
            _ if field.colon && field.name > 0 => return Err("control character in a field"),
            _ => return Err("bad field name"),
        };
        if field.end > MAX_LINE || self.at + field.end > MAX_HEAD {
            return Err("head too large");
        }
        if field.name == 0 {
            return Err("bad field name");
        }
        self.at += field.end + ending;
        Ok(Some((field, &rest[..field.end + ending])))
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > MAX_LINE || self.bytes.len() > MAX_HEAD { Err("head too large") } else { Ok(None) };
        };
        if end > MAX_LINE || self.at + end > MAX_HEAD {
            return Err("head too large");
        }
        self.at += end + 1;
        let line = &rest[..end];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

fn standard_reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Framing, parse};
    use crate::http::Response;

    fn read(text: &str) -> Result<Option<(u16, Framing, bool)>, &'static str> {
        let mut response = Response::default();
        Ok(parse(text.as_bytes(), false, &mut response)?.map(|p| (response.status, p.framing, p.keep_alive)))
    }

    #[test]
    fn framing() {
        let ok = |rest: &str| read(&format!("HTTP/1.1 200 OK\r\n{rest}\r\n"));
        assert_eq!(ok("Content-Length: 2\r\n"), Ok(Some((200, Framing::Length(2), true))));
        assert_eq!(ok("content-length: 0\r\n"), Ok(Some((200, Framing::None, true))));
        assert_eq!(ok("Transfer-Encoding: chunked\r\nConnection: close\r\n"), Ok(Some((200, Framing::Chunked, false))));
        assert_eq!(ok(""), Ok(Some((200, Framing::UntilClose, false))));
        assert_eq!(read("HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 1\n\n"), Ok(Some((200, Framing::Length(1), true))));
        assert_eq!(read("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"), Ok(Some((204, Framing::None, false))));
        for bad in [
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: -2\r\n",
            "Content-Length: 2, 2\r\n",
            "Transfer-Encoding: gzip\r\n",
            "X Bad: 1\r\n",
            "X-Bad : 1\r\n",
            "X-Nul: a\0b\r\n",
            "X-Fold: a\r\n b\r\n",
        ] {
            assert!(ok(bad).is_err(), "{bad}");
        }
        assert!(ok(&format!("X-Big: {}\r\n", "a".repeat(9000))).is_err());
    }

    #[test]
    fn status_lines() {
        assert_eq!(read("HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\n").unwrap().unwrap().0, 999);
        assert_eq!(read("HTTP/1.2 200\r\nContent-Length: 1\r\n\r\n").unwrap().unwrap().0, 200);
        for bad in [
            "garbage\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 1000 Odd\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "just",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("HTT"), Ok(None));
        assert_eq!(read("HTTP/1.1 200 OK\r\nA: b\r\n"), Ok(None));
    }
}
