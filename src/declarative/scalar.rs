//! What a plain scalar means: YAML 1.1 as Kong's reader knows it, so that `yes` and `off` are booleans.

use serde_json::{Number, Value};

/// The value of a scalar without quotes and tag.
pub fn plain(text: &str) -> Value {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if let Some(boolean) = boolean(text) {
        return Value::Bool(boolean);
    }
    let starts_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    match number(text).filter(|_| starts_number) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Decimal, octal (`017`), hexadecimal, binary, sexagesimal (`1:30`) and fractional numbers, with underscores between digits.
fn number(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    let (negative, unsigned) = match digits.strip_prefix(['+', '-']) {
        Some(rest) => (digits.starts_with('-'), rest),
        None => (false, digits.as_str()),
    };
    let radix = |prefix: &str, radix: u32| i64::from_str_radix(unsigned.strip_prefix(prefix)?, radix).ok();
    let all_digits = !unsigned.is_empty() && unsigned.bytes().all(|c| c.is_ascii_digit());
    let octal = all_digits && unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|c| c < b'8');
    let whole = match unsigned {
        _ if octal => i64::from_str_radix(unsigned, 8).ok(),
        _ if all_digits => unsigned.parse().ok(),
        _ if unsigned.starts_with("0x") => radix("0x", 16),
        _ if unsigned.starts_with("0b") => radix("0b", 2),
        _ if unsigned.contains(':') => sexagesimal(unsigned),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(Number::from(if negative { -whole } else { whole }));
    }
    let fractional = unsigned.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !fractional || !unsigned.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = unsigned.parse().ok()?;
    Number::from_f64(if negative { -number } else { number })
}

fn sexagesimal(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    for (at, part) in text.split(':').enumerate() {
        let part: i64 = part.parse().ok()?;
        if at > 0 && !(0..60).contains(&part) {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(part)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::plain;
    use serde_json::json;

    #[test]
    fn meanings() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("12345", json!(12345)),
            ("-1", json!(-1)),
            ("017", json!(15)),
            ("0x7ffffffe", json!(2147483646)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("1:30", json!(90)),
            ("1e3", json!(1000.0)),
            ("80.5", json!(80.5)),
            ("3.0", json!(3.0)),
            (".inf", json!(".inf")),
            ("1.2.3.4:80", json!("1.2.3.4:80")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("http", json!("http")),
            ("2026-01-02", json!("2026-01-02")),
            ("e", json!("e")),
            ("-", json!("-")),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }
}
