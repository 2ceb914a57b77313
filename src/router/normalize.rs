//! The path that is matched, and the one that goes upstream (RFC 3986, section 6.2.2).

use std::borrow::Cow;

/// The path for matching: percent-encodings of characters that are not reserved are decoded, slashes merged, dot segments
/// removed. A path that is normal already is returned as it is.
pub fn normalize(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    for segment in decoded.split(|b| *b == b'/').skip(1) {
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|b| *b == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    let last = decoded.rsplit(|b| *b == b'/').next().unwrap_or_default();
    if matches!(last, b"" | b"." | b"..") {
        out.push(b'/');
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        // bytes that are no text stay encoded, so that matching and forwarding agree on them
        Err(error) => Cow::Owned(error.as_bytes().iter().fold(String::new(), |mut text, byte| {
            if byte.is_ascii() {
                text.push(char::from(*byte))
            } else {
                push_encoded(&mut text, *byte)
            }
            text
        })),
    }
}

/// The path as it is sent: what may not stand in a path is percent-encoded.
pub fn escape(path: &str, out: &mut String) {
    if path.bytes().all(may_stand) {
        return out.push_str(path);
    }
    for byte in path.bytes() {
        if may_stand(byte) { out.push(char::from(byte)) } else { push_encoded(out, byte) }
    }
}

fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.first() == Some(&b'/')
        && bytes.iter().enumerate().all(|(i, byte)| match byte {
            b'%' => false,
            b'/' => !matches!(bytes.get(i + 1), Some(b'/' | b'.')),
            byte => byte.is_ascii(),
        })
}

fn decode(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let decoded = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(hex);
        match decoded {
            Some(decoded) if is_reserved(decoded) => {
                out.extend_from_slice(format!("%{decoded:02X}").as_bytes());
                at += 3;
            }
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Reserved characters (RFC 3986, section 2.2), and the percent sign itself.
fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%'
    )
}

fn may_stand(byte: u8) -> bool {
    is_reserved(byte) || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::{escape, normalize};

    #[test]
    fn paths_are_matched_decoded_and_sent_encoded() {
        let cases = [
            ("/a/../b", "/b", "/b"),
            ("/a//b", "/a/b", "/a/b"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/%2e%2e/b", "/b", "/b"),
            ("/%61bc", "/abc", "/abc"),
            ("/a%2Fb", "/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb", "/a%2Fb"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/%E4%BD%A0", "/你", "/%E4%BD%A0"),
            ("/a/..", "/", "/"),
            ("/../a", "/a", "/a"),
            ("/a%3Fb", "/a%3Fb", "/a%3Fb"),
            ("/a;b", "/a;b", "/a;b"),
            ("//a", "/a", "/a"),
            ("/a/b/", "/a/b/", "/a/b/"),
            ("/%7Euser", "/~user", "/~user"),
            ("/a%25b", "/a%25b", "/a%25b"),
            ("/A%C3%A9", "/Aé", "/A%C3%A9"),
            ("/a/b/..%2f", "/a/b/..%2F", "/a/b/..%2F"),
            ("/%ff", "/%FF", "/%FF"),
            ("/a%zz", "/a%zz", "/a%zz"),
            ("/", "/", "/"),
        ];
        for (request, matched, sent) in cases {
            assert_eq!(normalize(request), matched, "{request}");
            let mut out = String::new();
            escape(&normalize(request), &mut out);
            assert_eq!(out, sent, "{request}");
        }
    }
}
