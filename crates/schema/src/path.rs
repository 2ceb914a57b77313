//! Request paths in the one form in which they are compared.

/// The path with percent-encoded unreserved and other characters decoded (reserved ones stay encoded, in upper case), dot
/// segments removed and runs of slashes merged: what the router sees of a request, and what a route's path must be.
pub fn normalize(path: &[u8]) -> Vec<u8> {
    let decoded = decode(path);
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&c| c == b'/').peekable();
    if decoded.first() == Some(&b'/') {
        segments.next();
    }
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let parent = out.iter().rposition(|&c| c == b'/').unwrap_or(0);
                    out.truncate(parent);
                }
                if last {
                    out.push(b'/');
                }
            }
            b"" if !last => {}
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&c, after)) = rest.split_first() {
        rest = after;
        let digits = || Some((hex(*after.first()?)?, hex(*after.get(1)?)?));
        match digits() {
            Some((high, low)) if c == b'%' => {
                let byte = high << 4 | low;
                if is_reserved(byte) {
                    out.extend([b'%', digit(high), digit(low)]);
                } else {
                    out.push(byte);
                }
                rest = &after[2..];
            }
            _ => out.push(c),
        }
    }
    out
}

fn hex(c: u8) -> Option<u8> {
    (c as char).to_digit(16).map(|n| n as u8)
}

fn digit(n: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(n & 15)]
}

/// Reserved characters of RFC 3986 and the percent sign.
fn is_reserved(c: u8) -> bool {
    b"!#$&'()*+,/:;=?@[]%".contains(&c)
}

#[cfg(test)]
mod tests {
    #[test]
    fn vectors() {
        for (path, normal) in [
            ("/a/../b", "/b"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/%61bc", "/abc"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a b"),
            ("/%E4%BD%A0", "/\u{4f60}"),
            ("/a/..", "/"),
            ("/../a", "/a"),
            ("/a%3Fb", "/a%3Fb"),
            ("/a;b", "/a;b"),
            ("//a", "/a"),
            ("/a/b/", "/a/b/"),
            ("/%7Euser", "/~user"),
            ("/a%25b", "/a%25b"),
            ("/A%C3%A9", "/A\u{e9}"),
            ("/", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
        ] {
            assert_eq!(String::from_utf8_lossy(&super::normalize(path.as_bytes())), normal, "{path}");
        }
    }
}
