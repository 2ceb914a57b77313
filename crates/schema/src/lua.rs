//! Two pieces of Lua that the contract shows: its patterns (in `GET /schemas/...` and the rules behind them) and the way
//! it prints tables in error texts.

use serde_json::{Map, Value};

/// Whether a Lua pattern matches somewhere in the text. Captures and `%b` are not needed by any schema and not understood.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (anchored, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let last = if anchored { 0 } else { text.len() };
    (0..=last).any(|start| here(pattern, &text[start..]))
}

/// Whether the pattern matches at the start of the text.
fn here(pattern: &[u8], text: &[u8]) -> bool {
    let Some(width) = item_width(pattern) else {
        return true;
    };
    if pattern == b"$" {
        return text.is_empty();
    }
    let (item, rest) = pattern.split_at(width);
    let one = |text: &[u8]| text.first().is_some_and(|&c| item_matches(item, c));
    match rest.first() {
        Some(b'?') => (one(text) && here(&rest[1..], &text[1..])) || here(&rest[1..], text),
        Some(b'*') => repeated(item, 0, &rest[1..], text),
        Some(b'+') => repeated(item, 1, &rest[1..], text),
        Some(b'-') => {
            let mut taken = 0;
            loop {
                if here(&rest[1..], &text[taken..]) {
                    return true;
                }
                if !one(&text[taken..]) {
                    return false;
                }
                taken += 1;
            }
        }
        _ => one(text) && here(rest, &text[1..]),
    }
}

fn repeated(item: &[u8], least: usize, rest: &[u8], text: &[u8]) -> bool {
    let most = text.iter().take_while(|&&c| item_matches(item, c)).count();
    (least..=most).rev().any(|taken| here(rest, &text[taken..]))
}

/// Bytes of the pattern's first item: a character, an escape or a set.
fn item_width(pattern: &[u8]) -> Option<usize> {
    match pattern.first()? {
        b'%' => Some(2.min(pattern.len())),
        b'[' => {
            let mut at = if pattern.get(1) == Some(&b'^') { 2 } else { 1 };
            let first = at;
            while at < pattern.len() && (at == first || pattern[at] != b']') {
                at += if pattern[at] == b'%' { 2 } else { 1 };
            }
            Some((at + 1).min(pattern.len()))
        }
        _ => Some(1),
    }
}

fn item_matches(item: &[u8], c: u8) -> bool {
    match item {
        [b'.'] => true,
        [b'%', class] => class_matches(*class, c),
        [b'[', b'^', set @ .., b']'] => !set_matches(set, c),
        [b'[', set @ .., b']'] => set_matches(set, c),
        [only] => *only == c,
        _ => false,
    }
}

fn set_matches(mut set: &[u8], c: u8) -> bool {
    loop {
        set = match set {
            [] => return false,
            [b'%', class, rest @ ..] => {
                if class_matches(*class, c) {
                    return true;
                }
                rest
            }
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == c {
                    return true;
                }
                rest
            }
        };
    }
}

fn class_matches(class: u8, c: u8) -> bool {
    let inside = match class.to_ascii_lowercase() {
        b'a' => c.is_ascii_alphabetic(),
        b'c' => c.is_ascii_control(),
        b'd' => c.is_ascii_digit(),
        b'l' => c.is_ascii_lowercase(),
        b'p' => c.is_ascii_punctuation(),
        b's' => c.is_ascii_whitespace() || c == 0x0b,
        b'u' => c.is_ascii_uppercase(),
        b'w' => c.is_ascii_alphanumeric(),
        b'x' => c.is_ascii_hexdigit(),
        _ => return class == c,
    };
    inside != class.is_ascii_uppercase()
}

/// The table as Lua prints it: over several lines with two spaces a level, or on one line.
pub fn dump(value: &Value, lines: bool) -> String {
    let mut out = String::new();
    write(value, lines, 0, &mut out);
    out
}

fn write(value: &Value, lines: bool, depth: usize, out: &mut String) {
    match value {
        Value::Array(list) => {
            let holes = list.iter().position(Value::is_null).unwrap_or(list.len());
            let entries = list.iter().enumerate().filter(|(_, v)| !v.is_null());
            table(entries, lines, depth, out, |(at, item), out| {
                if at >= holes {
                    out.push_str(&format!("[{}]{}", at + 1, equals(lines)));
                }
                write(item, lines, depth + 1, out);
            });
        }
        Value::Object(object) => table(sorted(object).into_iter(), lines, depth, out, |(key, item), out| {
            write_key(key, out);
            out.push_str(equals(lines));
            write(item, lines, depth + 1, out);
        }),
        Value::String(text) => write_string(text, out),
        Value::Null => out.push_str("nil"),
        other => out.push_str(&other.to_string()),
    }
}

fn table<T>(entries: impl Iterator<Item = T>, lines: bool, depth: usize, out: &mut String, mut entry: impl FnMut(T, &mut String)) {
    out.push('{');
    let mut first = true;
    for item in entries {
        if !first {
            out.push(',');
        }
        first = false;
        newline(lines, depth + 1, out);
        entry(item, out);
    }
    if !first || lines {
        newline(lines, depth, out);
    }
    out.push('}');
}

fn newline(lines: bool, depth: usize, out: &mut String) {
    if lines {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

fn equals(lines: bool) -> &'static str {
    if lines { " = " } else { "=" }
}

/// Entries in the order of their keys' bytes.
pub fn sorted(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().filter(|(_, v)| !v.is_null()).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

const KEYWORDS: &[&str] = &[
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
    "return", "then", "true", "until", "while",
];

fn write_key(key: &str, out: &mut String) {
    let word = key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') && !key.starts_with(|c: char| c.is_ascii_digit());
    if word && !key.is_empty() && !KEYWORDS.contains(&key) {
        out.push_str(key);
    } else {
        out.push('[');
        write_string(key, out);
        out.push(']');
    }
}

fn write_string(text: &str, out: &mut String) {
    if text.contains('\n') && !text.contains('\r') {
        let mut level = String::new();
        while text.contains(&format!("]{level}]")) || text.ends_with(&format!("]{level}")) {
            level.push('=');
        }
        let lead = if text.starts_with('\n') { "\n" } else { "" };
        out.push_str(&format!("[{level}[{lead}{text}]{level}]"));
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns() {
        assert!(matches("^%u+$", "GET"));
        assert!(!matches("^%u+$", "get"));
        assert!(matches("//", "/a//b"));
        assert!(!matches("//", "/a/b"));
        assert!(matches("^[^*]*%*?[^*]*$", "*.example.test"));
        assert!(!matches("^[^*]*%*?[^*]*$", "*.example.*"));
        assert!(matches("%.%*$", "example.*"));
        assert!(matches("^[Hh][Oo][Ss][Tt]$", "hOst"));
        assert!(matches("^[a-z][a-z%d-]-[a-z%d]+$", "my-vault"));
        assert!(!matches("^[a-z][a-z%d-]-[a-z%d]+$", "1a"));
        assert!(matches("^[^:]+:.*$", "a:b"));
        assert!(!matches("^[^:]+:.*$", "noColon"));
    }

    #[test]
    fn tables() {
        let value = json!({"host": "required field missing", "@entity": ["a"], "list": [null, "b"]});
        let expected = "{\n  [\"@entity\"] = {\n    \"a\"\n  },\n  host = \"required field missing\",\n  list = {\n    [2] = \"b\"\n  }\n}";
        assert_eq!(dump(&value, true), expected);
        assert_eq!(dump(&json!({"services": [{"host": "x"}]}), false), "{services={{host=\"x\"}}}");
        assert_eq!(dump(&json!({}), false), "{}");
    }
}
