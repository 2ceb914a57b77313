//! Which bytes may stand where in a message (RFC 9110, section 5; RFC 3986).

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const REG_NAME: u8 = 4;
const TARGET: u8 = 8;
/// What stands between the dots of a name.
const LABEL: u8 = 16;

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
            table[i] |= if b == b'.' { REG_NAME } else { REG_NAME | LABEL };
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
    !bytes.is_empty() && token_length(bytes) == bytes.len()
}

/// How many bytes at the start of `bytes` may stand in a token.
pub fn token_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    // letters, digits and dashes, which nearly all names are made of, eight at a time
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let ascii = word & (0x7f * ONES);
        let dash = !((ascii ^ (u64::from(b'-') * ONES)) + 0x7f * ONES);
        let common = (letters(ascii) | within(ascii, b'0', b'9') | dash) & !word & HIGH;
        if common == HIGH {
            at += 8;
            continue;
        }
        at += (common ^ HIGH).trailing_zeros() as usize / 8;
        if !has(bytes[at], TOKEN) {
            return at;
        }
        at += 1;
    }
    at + bytes[at..].iter().position(|b| !has(*b, TOKEN)).unwrap_or(bytes.len() - at)
}

/// A one, and the highest bit, in each of eight bytes.
const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = 0x80 * ONES;

/// The highest bit of each of eight bytes that lies between `first` and `last`; all are below 0x80. Other bits mean nothing.
const fn within(ascii: u64, first: u8, last: u8) -> u64 {
    (ascii + (0x80 - first as u64) * ONES) & !(ascii + (0x7f - last as u64) * ONES)
}

/// The same for letters.
const fn letters(ascii: u64) -> u64 {
    within(ascii | (0x20 * ONES), b'a', b'z')
}

/// Whether two names, or other texts, are the same without regard to the case of ASCII letters.
#[inline]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() < 8 {
        return same_few(a, b);
    }
    let mut at = 0;
    while at + 8 <= a.len() {
        if !same_chunk(a, b, at) {
            return false;
        }
        at += 8;
    }
    // the rest together with bytes that were compared already
    at == a.len() || same_chunk(a, b, a.len() - 8)
}

/// For fewer than eight bytes.
#[inline]
fn same_few(a: &[u8], b: &[u8]) -> bool {
    let four = |first: &[u8; 4], last: &[u8; 4]| u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    match (a.first_chunk(), a.last_chunk(), b.first_chunk(), b.last_chunk()) {
        (Some(a), Some(a_last), Some(b), Some(b_last)) => same_eight(four(a, a_last), four(b, b_last)),
        _ => a.eq_ignore_ascii_case(b),
    }
}

#[inline]
fn same_chunk(a: &[u8], b: &[u8], at: usize) -> bool {
    let (Some(a), Some(b)) = (a[at..].first_chunk(), b[at..].first_chunk()) else { return false };
    same_eight(u64::from_le_bytes(*a), u64::from_le_bytes(*b))
}

#[inline]
fn same_eight(a: u64, b: u64) -> bool {
    let different = a ^ b;
    // the bit that tells cases apart may differ in letters
    different & !(0x20 * ONES) == 0 && different << 2 & !(letters(a & (0x7f * ONES)) & !a) & HIGH == 0
}

/// Whether this may be the value of a field: no control characters but HTAB.
pub fn is_value(bytes: &[u8]) -> bool {
    // without a short cut, so that it is done many bytes at a time
    !bytes.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// How many bytes at the start of `bytes` may stand in the value of a field: up to its end or to a control character.
pub fn value_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    // eight at a time: a byte of the result has its highest bit set where there may be a control character, and has it for
    // certain in the lowest of these
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let below = word.wrapping_sub(0x20 * ONES) & !word;
        let del = word ^ (0x7f * ONES);
        let found = (below | del.wrapping_sub(ONES) & !del) & HIGH;
        if found == 0 {
            at += 8;
            continue;
        }
        at += found.trailing_zeros() as usize / 8;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    at + bytes[at..].iter().position(|b| !has(*b, VALUE)).unwrap_or(bytes.len() - at)
}

/// `name ":" value` at the start of some bytes. Offsets count from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// Length of the name. 0 when there is none.
    pub name: usize,
    /// Whether a colon follows the name.
    pub colon: bool,
    /// Where the value begins and ends, without the white space around it.
    pub value: (usize, usize),
    /// The first byte that cannot stand in a value: where the line ends, if it is well formed.
    pub end: usize,
}

impl FieldLine {
    #[inline(always)]
    pub fn read(bytes: &[u8]) -> Self {
        let name = token_length(bytes);
        let Some((b':', after)) = bytes[name..].split_first() else {
            return Self { name, colon: false, value: (name, name), end: name };
        };
        let length = value_length(after);
        let end = name + 1 + length;
        let mut value = &after[..length];
        while let [b' ' | b'\t', rest @ ..] = value {
            value = rest;
        }
        let start = end - value.len();
        while let [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        Self { name, colon: true, value: (start, start + value.len()), end }
    }

    /// Whether it stands there as Troop itself would write it.
    #[inline]
    pub fn is_plain(&self, bytes: &[u8]) -> bool {
        self.value == (self.name + 2, self.end) && bytes[self.name + 1] == b' '
    }
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
        // names are short
        _ => match value.iter().position(|b| *b == b':') {
            Some(colon) => (&value[..colon], &value[colon + 1..]),
            None => (value, &b""[..]),
        },
    };
    is_port(port) && is_reg_name(host)
}

fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    loop {
        let label = rest.iter().position(|b| !has(*b, LABEL)).unwrap_or(rest.len());
        rest = match &rest[label..] {
            [] => return !host.is_empty() && host != b".",
            [b'.', b'.', ..] => return false,
            [b'.', rest @ ..] => rest,
            escape => match percent(escape) {
                Some(decoded) if decoded > 0x20 && decoded != 0x7f => &escape[3..],
                _ => return false,
            },
        };
    }
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
    use super::{FieldLine, TOKEN, has, is_host, is_token, is_value, same, token_length, trim, value_length};

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

    #[test]
    fn the_same_but_for_the_case_of_letters() {
        let texts = ["x-forwarded-for", "content-type", "te", "a_long-name.with^all~kinds`of@bytes[in]{it}", "t\u{e4}glich \u{c4}"];
        for text in texts.map(str::as_bytes) {
            for start in 0..text.len() {
                let text = &text[start..];
                for at in 0..text.len() {
                    for byte in 0..=255 {
                        let mut other = text.to_vec();
                        other[at] = byte;
                        assert_eq!(same(text, &other), text.eq_ignore_ascii_case(&other), "{text:?} {other:?}");
                    }
                }
                assert!(same(text, &text.to_ascii_uppercase()) && !same(text, &text[1..]));
            }
        }
    }

    #[test]
    fn tokens_end_at_what_is_none() {
        for byte in 0..=255 {
            for at in 0..20 {
                let mut text = *b"Some-Name0of-20bytes";
                text[at] = byte;
                assert_eq!(token_length(&text), if has(byte, TOKEN) { 20 } else { at }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn field_lines() {
        let read = |text: &str| FieldLine::read(text.as_bytes());
        let line = |name, colon, value, end| FieldLine { name, colon, value, end };
        for (text, expected, plain) in [
            ("A: b\r\n", line(1, true, (3, 4), 4), true),
            ("A:b\r\n", line(1, true, (2, 3), 3), false),
            ("A:\tb\n", line(1, true, (3, 4), 4), false),
            ("A: b \r\n", line(1, true, (3, 4), 5), false),
            ("A:  b\r", line(1, true, (4, 5), 5), false),
            ("A: \r\n", line(1, true, (3, 3), 3), true),
            ("A:\r\n", line(1, true, (2, 2), 2), false),
            ("A", line(1, false, (1, 1), 1), false),
            ("A b: c", line(1, false, (1, 1), 1), false),
            (": c", line(0, true, (2, 3), 3), true),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
            assert_eq!(expected.is_plain(text.as_bytes()), plain, "{text:?}");
        }
    }

    #[test]
    fn values_end_at_control_characters() {
        let text = "a value\tof some length \u{fc}, ~\u{80}".as_bytes();
        for start in 0..text.len() {
            for end in start..=text.len() {
                let value = &text[start..end];
                assert_eq!(value_length(value), value.len());
                for control in (0..=255).filter(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f) {
                    assert_eq!(value_length(&[value, &[control], text].concat()), value.len(), "{value:?} {control}");
                }
            }
        }
    }
}
