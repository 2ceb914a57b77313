//! The chunked transfer coding of an upstream's answer (RFC 9112, section 7.1).

use bytes::{Bytes, BytesMut};

use crate::http::Headers;
use crate::http::syntax::is_token;

/// Longest line of a chunk's size with its extensions, and longest trailer field.
const MAX_LINE: usize = 4096;
/// Most bytes of all trailer fields.
const MAX_TRAILERS: usize = 16 * 1024;

/// Takes chunks out of what was read.
#[derive(Default)]
pub struct Decoder {
    state: State,
    trailers: Headers,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Finished,
}

impl Decoder {
    /// The next piece of data; `None` when more must be read or the body is at its end.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
        loop {
            match self.state {
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let take = left.min(input.len() as u64);
                    self.state = if take == left { State::DataEnd } else { State::Data(left - take) };
                    return Ok(Some(input.split_to(take as usize).freeze()));
                }
                State::Finished => return Ok(None),
                State::Size => {
                    let Some(line) = line(input)? else { return Ok(None) };
                    self.state = match size(&line)? {
                        0 => State::Trailers,
                        n => State::Data(n),
                    };
                }
                State::DataEnd => {
                    let Some(line) = line(input)? else { return Ok(None) };
                    if !line.is_empty() {
                        return Err("bytes after a chunk");
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(line) = line(input)? else { return Ok(None) };
                    if line.is_empty() {
                        self.state = State::Finished;
                    } else {
                        self.trailer(&line)?;
                    }
                }
            }
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    pub fn take_trailers(&mut self) -> Option<Headers> {
        (!self.trailers.is_empty()).then(|| std::mem::take(&mut self.trailers))
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.trailer_bytes += line.len();
        let colon = memchr::memchr(b':', line).ok_or("bad trailer field")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if self.trailer_bytes > MAX_TRAILERS || name.is_empty() || !is_token(name) || value.iter().any(|b| *b < 0x20 && *b != b'\t') {
            return Err("bad trailer field");
        }
        self.trailers.append(name, value);
        Ok(())
    }
}

/// A line without its end, which is CR LF (or LF, as upstreams are known to send).
fn line(input: &mut BytesMut) -> Result<Option<BytesMut>, &'static str> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > MAX_LINE { Err("line too long") } else { Ok(None) };
    };
    if end > MAX_LINE {
        return Err("line too long");
    }
    let mut line = input.split_to(end + 1);
    line.truncate(end);
    if line.last() == Some(&b'\r') {
        line.truncate(end - 1);
    }
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|b| matches!(b, b';' | b' ' | b'\t')).next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 {
        return Err("bad chunk size");
    }
    digits.iter().try_fold(0, |n, d| Some(n * 16 + u64::from(char::from(*d).to_digit(16)?))).ok_or("bad chunk size")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::Decoder;

    fn all(pieces: &[&str]) -> Result<(String, bool), &'static str> {
        let (mut decoder, mut input, mut out) = (Decoder::default(), BytesMut::new(), String::new());
        for piece in pieces {
            input.extend_from_slice(piece.as_bytes());
            while let Some(data) = decoder.decode(&mut input)? {
                out.push_str(&String::from_utf8_lossy(&data));
            }
        }
        Ok((out, decoder.is_finished()))
    }

    #[test]
    fn chunks_in_any_pieces() {
        assert_eq!(all(&["2\r\nok\r\n0\r\n\r\n"]), Ok(("ok".into(), true)));
        assert_eq!(all(&["2", ";a=b\r", "\no", "k", "\r\n0", "\r\nX-T: 1\r\n", "\r\n"]), Ok(("ok".into(), true)));
        assert_eq!(all(&["A\r\n0123456789\r\n"]), Ok(("0123456789".into(), false)));
        for bad in ["zz\r\nok\r\n", "2\r\nokx\r\n", "\r\n", "fffffffffffffffff\r\n", "0\r\nno colon\r\n\r\n"] {
            assert!(all(&[bad]).is_err(), "{bad}");
        }
    }
}
