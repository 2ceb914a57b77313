//! Which bytes may stand where in a message (RFC 9110, section 5; RFC 3986).

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const REG_NAME: u8 = 4;
const TARGET: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let unreserved = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        if b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~') {
            table[i] |= TOKEN;
        }
        if b == b'\t' || b >= 0x20 && b != 0x7f {
            table[i] |= VALUE;
        }
        if unreserved || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=') {
            table[i] |= REG_NAME;
        }
        if b > 0x20 && b < 0x7f && b != b'#' {
            table[i] |= TARGET;
        }
        i += 1;
    }
    table
};

const fn has(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether this is a token: a method, a field name (RFC 9110, section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| has(*b, TOKEN))
}

/// How many bytes at the start of `bytes` may stand in a token.
pub fn token_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !has(*b, TOKEN)).unwrap_or(bytes.len())
}

/// Whether this may be the value of a field: no control characters but HTAB.
pub fn is_value(bytes: &[u8]) -> bool {
    // without a short cut, so that it is done many bytes at a time
    !bytes.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// Without the spaces and tabs around it, and with any other white space (RFC 9110, section 5.6.3).
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether a byte may stand in a request target as it is. What is above ASCII may not, and is common all the same.
pub fn is_target(byte: u8) -> bool {
    has(byte, TARGET)
}

/// `%` and two hexadecimal digits at the start of `bytes`: the byte they stand for.
pub fn percent(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |b: u8| char::from(b).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// Whether this is `host [":" port]` as Host and `:authority` carry it (RFC 3986, section 3.2.2).
///
/// Stricter than the grammar in three points, as nobody has such names and peers disagree on what they mean: no empty host,
/// no comma, no two dots in a row.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            if !is_ip_literal(&rest[..end]) {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => return is_port(port),
                _ => return false,
            }
        }
        _ => match memchr::memchr(b':', value) {
            Some(colon) => (&value[..colon], &value[colon + 1..]),
            None => (value, &b""[..]),
        },
    };
    is_port(port) && is_reg_name(host)
}

fn is_reg_name(host: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = host.get(at) {
        match byte {
            b'%' => match percent(&host[at..]) {
                Some(decoded) if decoded > 0x20 && decoded != 0x7f => at += 2,
                _ => return false,
            },
            b'.' if host.get(at + 1) == Some(&b'.') => return false,
            byte if !has(*byte, REG_NAME) => return false,
            _ => {}
        }
        at += 1;
    }
    !host.is_empty() && host != b"."
}

fn is_ip_literal(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        return future.split_once('.').is_some_and(|(version, address)| {
            !version.is_empty()
                && version.bytes().all(|b| b.is_ascii_hexdigit())
                && !address.is_empty()
                && address.bytes().all(|b| has(b, REG_NAME) || b == b':')
        });
    }
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && port.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0')) <= 65535
}

#[cfg(test)]
mod tests {
    use super::{is_host, is_token, is_value, trim};

    #[test]
    fn hosts() {
        for good in [
            "a.test",
            "A.Test",
            "a.test.",
            "a.test:80",
            "a.test:",
            "127.0.0.1",
            "[::1]",
            "[::1]:8000",
            "[v1.a:b]",
            "a_b.test",
            "xn--bcher-kva.test",
            "a%2Db.test",
            "localhost",
            "1",
            "a-",
            "a!b",
            "a:0",
            "a:65535",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            ".",
            "a b",
            "a/b",
            "a@b",
            "u:p@a",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "<a>",
            "a^b",
            "a`b",
            "a{b}",
            "a|b",
            "a,b",
            "a..b",
            "a:b",
            "a:80:80",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:999999",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:x",
            "[g::1]",
            "[127.0.0.1]",
            "[]",
            "[::1%25eth0]",
            "a%",
            "a%2",
            "a%zz",
            "a%00b",
            "a%0ab",
            "b\u{fc}cher.test",
            "a\tb",
            "http://a.test",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn white_space() {
        for (given, trimmed) in [(" \ta b\t ", "a b"), ("", ""), (" ", ""), ("\ra", "\ra"), ("a\x0c", "a\x0c"), ("a\r ", "a\r")] {
            assert_eq!(trim(given.as_bytes()), trimmed.as_bytes());
        }
    }

    #[test]
    fn tokens_and_values() {
        assert!(is_token(b"X-A_b.1!#$%&'*+^`|~"));
        for bad in ["", "a b", "a:", "a\t", "(a)", "a,b", "\u{fc}", "a\0", "\"a\"", "a/b", "[a]", "{a}", "a@b"] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
        assert!(is_value("a\tb \u{fc}\"()".as_bytes()) && is_value(b"") && is_value(b"\xff"));
        for bad in [&b"a\0"[..], b"a\rb", b"a\nb", b"\x0b", b"\x7f", b"\x1f"] {
            assert!(!is_value(bad));
        }
    }
}
