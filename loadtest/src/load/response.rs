//! HTTP/1.1 answers, read with as little work as tells one from the next. Not a strict parser: servers are known.

use memchr::memmem;

/// What a head says about what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    Chunked,
    /// Everything until the connection ends.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Bytes of the head, with its empty line.
    pub len: usize,
    pub framing: Framing,
    /// The server closes the connection behind this answer.
    pub close: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an HTTP/1.1 answer: {0}")]
pub struct Malformed(&'static str);

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Reads a head from the start of `bytes`; `None` until all of it is there.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (status, fields) = bytes[..end].split_at_checked(12).ok_or(Malformed("status line"))?;
    if !status.starts_with(b"HTTP/1.") {
        return Err(Malformed("status line"));
    }
    let status = std::str::from_utf8(&status[9..]).ok().and_then(|s| s.parse().ok()).ok_or(Malformed("status"))?;
    let (mut framing, mut close) = (None, false);
    let mut rest = fields;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        rest = &rest[at + 1..];
        // only three fields matter, and a look at the first letter passes over most others
        match rest.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = field(rest, b"content-length") {
                    framing = framing.or(Some(Framing::Length(number(value)?)));
                } else if let Some(value) = field(rest, b"connection") {
                    close = value.eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't' | b'T') if field(rest, b"transfer-encoding").is_some() => framing = Some(Framing::Chunked),
            _ => {}
        }
    }
    let framing = if matches!(status, 101 | 204 | 304) { Framing::Length(0) } else { framing.unwrap_or(Framing::Close) };
    Ok(Some(Head { status, len: end + 4, framing, close: close || framing == Framing::Close }))
}

/// The value of the field at the start of `line`, if it has that name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))?;
    let end = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
    Some(rest[..end].trim_ascii())
}

fn number(value: &[u8]) -> Result<u64, Malformed> {
    std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).ok_or(Malformed("content-length"))
}

/// What a chunked body is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Bytes of the body.
    Data(&'a [u8]),
    /// A chunk is complete.
    ChunkEnd,
    /// The body is complete.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Extension,
    Data,
    DataEnd,
    /// In the trailer section; whether the line so far is empty.
    Trailer(bool),
    Done,
}

/// The chunked transfer coding, fed as bytes arrive.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
    left: u64,
}

impl Chunks {
    /// Tells the parts in `bytes`; how many bytes belong to the body.
    pub fn feed<'a>(&mut self, bytes: &'a [u8], mut tell: impl FnMut(Part<'a>)) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Done {
            if self.at == At::Data {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                tell(Part::Data(&bytes[used..used + n]));
                used += n;
                self.left -= n as u64;
                if self.left == 0 {
                    tell(Part::ChunkEnd);
                    self.at = At::DataEnd;
                }
                continue;
            }
            let byte = bytes[used];
            used += 1;
            match (self.at, byte) {
                (At::Size | At::Extension, b'\n') => self.at = if self.left == 0 { At::Trailer(true) } else { At::Data },
                (At::Size | At::Extension, b'\r') => {}
                (At::Size, b';') => self.at = At::Extension,
                (At::Size, digit) => {
                    let digit = char::from(digit).to_digit(16).ok_or(Malformed("chunk size"))?;
                    self.left = self.left.checked_mul(16).ok_or(Malformed("chunk size"))? + u64::from(digit);
                }
                (At::DataEnd, b'\n') => self.at = At::Size,
                (At::Trailer(true), b'\n') => {
                    self.at = At::Done;
                    tell(Part::End);
                }
                (At::Trailer(_), b'\n') => self.at = At::Trailer(true),
                (At::Trailer(empty), byte) => self.at = At::Trailer(empty && byte == b'\r'),
                _ => {}
            }
        }
        Ok(used)
    }

    pub fn done(&self) -> bool {
        self.at == At::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Head {
        head(text.as_bytes()).expect("an answer").expect("whole")
    }

    #[test]
    fn heads() {
        let plain = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\nhello";
        assert_eq!(read(plain), Head { status: 200, len: plain.len() - 5, framing: Framing::Length(12), close: false });
        assert_eq!(read("HTTP/1.1 401 \r\ntransfer-encoding:chunked\r\nconnection:  Close\r\n\r\n").framing, Framing::Chunked);
        assert!(read("HTTP/1.1 401 \r\ntransfer-encoding:chunked\r\nconnection:  Close\r\n\r\n").close);
        assert!(read("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n").close);
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").framing, Framing::Length(0));
        assert_eq!(read("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").status, 101);
    }

    #[test]
    fn parts_and_nonsense() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-Len"), Ok(None));
        assert!(head(b"SSH-2.0 hello there\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_in_any_pieces() {
        let text = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\nHTTP";
        for size in 1..=text.len() {
            let (mut chunks, mut body, mut ends, mut used) = (Chunks::default(), Vec::new(), 0, 0);
            for piece in text.chunks(size) {
                if chunks.done() {
                    break;
                }
                used += chunks
                    .feed(piece, |part| match part {
                        Part::Data(bytes) => body.extend_from_slice(bytes),
                        Part::ChunkEnd => ends += 1,
                        Part::End => {}
                    })
                    .expect("chunks");
            }
            assert_eq!((body.as_slice(), ends, used, chunks.done()), (&b"hello world"[..], 2, text.len() - 4, true), "{size}");
        }
        assert!(Chunks::default().feed(b"zz\r\n", |_| {}).is_err());
    }
}
