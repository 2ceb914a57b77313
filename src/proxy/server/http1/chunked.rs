//! The chunked transfer coding of a request (RFC 9112, section 7.1), read strictly.

use bytes::{Buf, Bytes, BytesMut};

use crate::http::Headers;
use crate::http::syntax::{is_token, is_value, trim};

/// Longest line: a chunk's size with its extensions, or a trailer field.
const MAX_LINE: usize = 4096;
/// Most bytes of all extensions of a body: they carry nothing, and a body of one-byte chunks could carry a lot of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Most bytes of all trailer fields.
const MAX_TRAILERS: usize = 16 * 1024;

/// Takes chunks out of what was read.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    extensions: usize,
    trailers: Headers,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
                State::Finished => return Ok(None),
                State::Data(_) if input.is_empty() => return Ok(None),
                State::Data(left) => {
                    let take = left.min(input.len() as u64);
                    self.state = if take == left { State::DataEnd } else { State::Data(left - take) };
                    return Ok(Some(input.split_to(take as usize).freeze()));
                }
                State::DataEnd => match input.as_ref() {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err("chunk longer than its size"),
                },
                State::Size => {
                    let Some(line) = line(input)? else { return Ok(None) };
                    let (size, extensions) = size(line)?;
                    let read = line.len() + 2;
                    self.extensions += extensions;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err("too many chunk extensions");
                    }
                    input.advance(read);
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Trailers => {
                    let Some(line) = line(input)? else { return Ok(None) };
                    let read = line.len() + 2;
                    if line.is_empty() {
                        self.state = State::Finished;
                    } else {
                        self.trailer_bytes += read;
                        if self.trailer_bytes > MAX_TRAILERS {
                            return Err("trailers too large");
                        }
                        trailer(line, &mut self.trailers)?;
                    }
                    input.advance(read);
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
}

/// A line without its CR LF.
fn line(input: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    match memchr::memchr(b'\n', input) {
        Some(end) if end > MAX_LINE => Err("line too long"),
        Some(end) => input[..end].strip_suffix(b"\r").map(Some).ok_or("line feed alone"),
        None if input.len() > MAX_LINE => Err("line too long"),
        None => Ok(None),
    }
}

/// The size of a chunk and the bytes of its extensions.
fn size(line: &[u8]) -> Result<(u64, usize), &'static str> {
    let end = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extensions) = line.split_at(end);
    if digits.is_empty() || digits.len() > 15 {
        return Err("malformed chunk size");
    }
    if !are_extensions(extensions) {
        return Err("malformed chunk extension");
    }
    let size = digits.iter().fold(0, |n, d| n * 16 + u64::from(char::from(*d).to_digit(16).unwrap_or_default()));
    Ok((size, extensions.len()))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = trim_start(rest).strip_prefix(b";") else { return false };
        let Some(after) = after_token(trim_start(after)) else { return false };
        rest = after;
        if let Some(value) = trim_start(after).strip_prefix(b"=") {
            let value = trim_start(value);
            let after = if value.starts_with(b"\"") { after_quoted(value) } else { after_token(value) };
            let Some(after) = after else { return false };
            rest = after;
        }
    }
    true
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|b| !is_token(&[*b])).unwrap_or(bytes.len());
    (end > 0).then(|| &bytes[end..])
}

fn after_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if !is_value(&[*byte]) => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(&bytes[at + 1..]),
            _ => {}
        }
    }
    None
}

/// Fields that say where a message ends or where it goes have no place after it (RFC 9110, section 6.5.1).
const NEVER_TRAILERS: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"trailer"];

fn trailer(line: &[u8], trailers: &mut Headers) -> Result<(), &'static str> {
    let colon = memchr::memchr(b':', line).ok_or("trailer without a colon")?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if !is_token(name) || !is_value(value) || NEVER_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never)) {
        return Err("malformed trailer");
    }
    trailers.append(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::Decoder;

    /// Data, whether the body is complete, what is left of the input.
    fn all(pieces: &[&str]) -> Result<(String, bool, String), &'static str> {
        let (mut decoder, mut input, mut out) = (Decoder::default(), BytesMut::new(), String::new());
        for piece in pieces {
            input.extend_from_slice(piece.as_bytes());
            while let Some(data) = decoder.decode(&mut input)? {
                out.push_str(&String::from_utf8_lossy(&data));
            }
        }
        Ok((out, decoder.is_finished(), String::from_utf8_lossy(&input).into()))
    }

    #[test]
    fn chunks_in_any_pieces() {
        assert_eq!(all(&["2\r\nok\r\n0\r\n\r\nGET"]), Ok(("ok".into(), true, "GET".into())));
        let whole = "2;a=b\r\nok\r\n00A;c;d=\"e\\\";\"\r\n0123456789\r\n0 ; x\r\nX-T: 1\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(all(&[&whole[..cut], &whole[cut..]]), Ok(("ok0123456789".into(), true, String::new())));
        }
        assert_eq!(all(&["5\r\nab"]), Ok(("ab".into(), false, String::new())));
    }

    #[test]
    fn trailers_are_kept() {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::from("0\r\nX-T: 1\r\nx-u:\r\n\r\n"));
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert_eq!(decoder.take_trailers().unwrap().get_str("x-t"), Some("1"));
    }

    #[test]
    fn malformed() {
        for bad in [
            "zz\r\n",
            "\r\n",
            " 2\r\nok\r\n",
            "2 \r\nok\r\n",
            "+2\r\nok\r\n",
            "-2\r\n",
            "0x2\r\nok\r\n",
            "2\nok\r\n",
            "2\r\nokx\r\n",
            "2\r\nok\n",
            "2\r\nok\rx",
            "2;\r\nok\r\n",
            "2;a=\r\n",
            "2;a=\"b\r\n",
            "2;=b\r\n",
            "2 a\r\n",
            "2;a\0\r\n",
            "2;a=b\rc\r\n",
            "2;a\n\r\n",
            "fffffffffffffffff\r\n",
            "0000000000000000\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nContent-Length: 1\r\n\r\n",
            "0\r\nHost: a\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\n\n",
            "2,2\r\nok\r\n",
            "2.0\r\nok\r\n",
        ] {
            assert!(all(&[bad]).is_err(), "{bad:?}");
        }
        assert!(all(&[&format!("1;{}\r\n", "a".repeat(5000))]).is_err());
        assert!(all(&[&format!("1;{}", "a".repeat(5000))]).is_err());
        assert!(all(&[&"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n".repeat(1000)]).is_err());
        assert!(all(&["0\r\n", &format!("A: {}\r\n", "a".repeat(4000)).repeat(5)]).is_err());
    }
}
