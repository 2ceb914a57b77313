//! The functions of Lua's libraries that expressions may call: those of `string`, `math`, `table.concat`, `os.time` and
//! `os.date` with the formats of `strftime` that name numbers.

use std::borrow::Cow;
use std::time::SystemTime;

use super::RenderError;
use super::pattern::{self, Pattern};
use super::value::{Table, Value};

pub type Function = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, RenderError>;

/// Longest text that an expression makes, in bytes.
pub const LONGEST: usize = 64 * 1024;

pub fn library(name: &str) -> Option<&'static str> {
    ["string", "math", "table", "os"].into_iter().find(|library| *library == name)
}

/// The function of that name; those of no library are global.
pub fn function(library: &str, name: &str) -> Option<Function> {
    Some(match (library, name) {
        ("", "tostring") => |arguments| Ok(Value::Text(Cow::Owned(argument(arguments, 0).shown().into_owned()))),
        ("", "tonumber") => tonumber,
        ("", "type") => |arguments| Ok(Value::text(argument(arguments, 0).kind().as_bytes())),
        ("string", "upper") => |arguments| Ok(Value::Text(Cow::Owned(text(arguments, 0)?.to_ascii_uppercase()))),
        ("string", "lower") => |arguments| Ok(Value::Text(Cow::Owned(text(arguments, 0)?.to_ascii_lowercase()))),
        ("string", "len") => |arguments| Ok(Value::Number(text(arguments, 0)?.len() as f64)),
        ("string", "reverse") => |arguments| Ok(Value::Text(text(arguments, 0)?.iter().rev().copied().collect())),
        ("string", "sub") => sub,
        ("string", "rep") => rep,
        ("string", "byte") => byte,
        ("string", "char") => char,
        ("string", "format") => format_text,
        ("string", "find") => find,
        ("string", "match") => find_match,
        ("string", "gsub") => gsub,
        ("math", "floor") => |arguments| Ok(Value::Number(number(arguments, 0)?.floor())),
        ("math", "ceil") => |arguments| Ok(Value::Number(number(arguments, 0)?.ceil())),
        ("math", "abs") => |arguments| Ok(Value::Number(number(arguments, 0)?.abs())),
        ("math", "max") => |arguments| extreme(arguments, f64::max),
        ("math", "min") => |arguments| extreme(arguments, f64::min),
        ("table", "concat") => concat,
        ("os", "time") => |_| Ok(Value::Number(epoch() as f64)),
        ("os", "date") => date,
        _ => return None,
    })
}

fn argument<'v, 'a>(arguments: &'v [Value<'a>], n: usize) -> &'v Value<'a> {
    arguments.get(n).unwrap_or(&Value::Nil)
}

fn wrong(n: usize, expected: &str, got: &Value) -> RenderError {
    let got = if matches!(got, Value::Nil) { "no value" } else { got.kind() };
    RenderError(format!("bad argument #{} ({expected} expected, got {got})", n + 1))
}

fn text<'v>(arguments: &'v [Value], n: usize) -> Result<Cow<'v, [u8]>, RenderError> {
    match argument(arguments, n) {
        value @ (Value::Text(_) | Value::Number(_)) => Ok(value.shown()),
        other => Err(wrong(n, "string", other)),
    }
}

fn number(arguments: &[Value], n: usize) -> Result<f64, RenderError> {
    argument(arguments, n).number().ok_or_else(|| wrong(n, "number", argument(arguments, n)))
}

fn number_or(arguments: &[Value], n: usize, default: f64) -> Result<f64, RenderError> {
    if matches!(argument(arguments, n), Value::Nil) { Ok(default) } else { number(arguments, n) }
}

fn made<'a>(text: Vec<u8>) -> Result<Value<'a>, RenderError> {
    if text.len() > LONGEST { Err(RenderError("not enough memory".to_owned())) } else { Ok(Value::Text(Cow::Owned(text))) }
}

/// The positions `first..last` of a text, counted from 1, or from the end if negative.
fn range(first: f64, last: f64, length: usize) -> std::ops::Range<usize> {
    let length = length as f64;
    let from_end = |n: f64| if n < 0.0 { (length + n + 1.0).max(0.0) } else { n };
    let first = from_end(first).max(1.0).min(length + 1.0) as usize - 1;
    let last = from_end(last).min(length) as usize;
    first..last.max(first)
}

fn sub<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let text = text(arguments, 0)?;
    let range = range(number_or(arguments, 1, 1.0)?, number_or(arguments, 2, -1.0)?, text.len());
    made(text[range].to_vec())
}

fn rep<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let (text, times) = (text(arguments, 0)?, number(arguments, 1)?.max(0.0));
    let between = if arguments.len() > 2 { self::text(arguments, 2)? } else { Cow::Borrowed(&b""[..]) };
    if (text.len() + between.len()) as f64 * times > LONGEST as f64 {
        return Err(RenderError("not enough memory".to_owned()));
    }
    made(vec![&text[..]; if text.is_empty() && between.is_empty() { 0 } else { times as usize }].join(&between[..]))
}

fn byte<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let text = text(arguments, 0)?;
    let at = number_or(arguments, 1, 1.0)?;
    Ok(text[range(at, at, text.len())].first().map_or(Value::Nil, |byte| Value::Number(f64::from(*byte))))
}

fn char<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    (0..arguments.len()).map(|n| Ok(number(arguments, n)? as u8)).collect::<Result<Vec<u8>, _>>().and_then(made)
}

fn extreme<'a>(arguments: &[Value<'a>], choose: fn(f64, f64) -> f64) -> Result<Value<'a>, RenderError> {
    (1..arguments.len()).try_fold(number(arguments, 0)?, |best, n| Ok(choose(best, number(arguments, n)?))).map(Value::Number)
}

fn tonumber<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let base = number_or(arguments, 1, 10.0)?;
    let value = argument(arguments, 0);
    if base == 10.0 {
        return Ok(value.number().map_or(Value::Nil, Value::Number));
    }
    if !(2.0..=36.0).contains(&base) {
        return Err(RenderError("bad argument #2 (base out of range)".to_owned()));
    }
    let shown = value.shown();
    let parsed = std::str::from_utf8(&shown).ok().and_then(|text| i64::from_str_radix(text.trim(), base as u32).ok());
    Ok(parsed.map_or(Value::Nil, |n| Value::Number(n as f64)))
}

fn concat<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let Value::Table(Table::List(list)) = argument(arguments, 0) else {
        return Err(wrong(0, "table", argument(arguments, 0)));
    };
    let between = if arguments.len() > 1 { text(arguments, 1)? } else { Cow::Borrowed(&b""[..]) };
    let pieces = (0..list.len()).map(|n| text(list, n)).collect::<Result<Vec<_>, _>>()?;
    made(pieces.join(&between[..]))
}

/// Where a pattern, or plain text, is first found. Of Lua's results the first is given: the position, or the first capture.
fn find<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let (text, wanted) = (text(arguments, 0)?, text(arguments, 1)?);
    let start = range(number_or(arguments, 2, 1.0)?, -1.0, text.len()).start;
    if argument(arguments, 3).is_true() {
        let found = memchr::memmem::find(&text[start..], &wanted);
        return Ok(found.map_or(Value::Nil, |at| Value::Number((start + at + 1) as f64)));
    }
    let found = Pattern::new(&wanted)?.find(&text, start)?;
    Ok(found.map_or(Value::Nil, |found| Value::Number((found.whole.start + 1) as f64)))
}

fn find_match<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let (text, wanted) = (text(arguments, 0)?, text(arguments, 1)?);
    let start = range(number_or(arguments, 2, 1.0)?, -1.0, text.len()).start;
    Ok(match Pattern::new(&wanted)?.find(&text, start)? {
        None => Value::Nil,
        Some(found) => match found.group(1) {
            pattern::Group::Text(range) => Value::Text(Cow::Owned(text[range].to_vec())),
            pattern::Group::Position(at) => Value::Number((at + 1) as f64),
        },
    })
}

fn gsub<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let (text, wanted, with) = (text(arguments, 0)?, text(arguments, 1)?, text(arguments, 2)?);
    let most = number_or(arguments, 3, f64::INFINITY)?;
    made(Pattern::new(&wanted)?.replace(&text, &with, most, LONGEST)?)
}

/// `%d %i %u %x %X %c %f %g %e %s %q %%` with flags, width and precision, as in C.
fn format_text<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let format = text(arguments, 0)?;
    let mut out = Vec::new();
    let mut next = 0;
    let mut at = 0;
    while at < format.len() {
        if format[at] != b'%' {
            out.push(format[at]);
            at += 1;
            continue;
        }
        let end = format[at + 1..].iter().position(|c| !b"-+ #0123456789.".contains(c)).map(|n| at + 1 + n);
        let Some(end) = end.filter(|end| end - at < 10) else {
            return Err(RenderError("invalid format (width or precision too long)".to_owned()));
        };
        let spec = Spec::parse(&format[at + 1..end]);
        at = end + 1;
        if format[end] == b'%' {
            out.push(b'%');
            continue;
        }
        next += 1;
        let piece = match format[end] {
            b'd' | b'i' | b'u' => spec.signed(format!("{:.0}", number(arguments, next)?.trunc())),
            b'x' => format!("{:x}", number(arguments, next)? as i64),
            b'X' => format!("{:X}", number(arguments, next)? as i64),
            b'f' | b'F' => spec.signed(format!("{:.*}", spec.precision.unwrap_or(6), number(arguments, next)?)),
            b'g' => spec.signed(significant(number(arguments, next)?, spec.precision.unwrap_or(6))),
            b'c' => (number(arguments, next)? as u8 as char).to_string(),
            b's' => {
                let shown = argument(arguments, next).shown();
                let shown = &shown[..spec.precision.unwrap_or(shown.len()).min(shown.len())];
                String::from_utf8_lossy(shown).into_owned()
            }
            other => return Err(RenderError(format!("invalid option '%{}' to 'format'", other as char))),
        };
        out.extend_from_slice(spec.padded(piece, format[end] != b's').as_bytes());
        if out.len() > LONGEST {
            break;
        }
    }
    made(out)
}

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn parse(source: &[u8]) -> Self {
        let flags = source.iter().take_while(|c| b"-+ #0".contains(c)).count();
        let (flags, rest) = source.split_at(flags);
        let mut numbers = rest.split(|c| *c == b'.').map(|digits| digits.iter().fold(0, |n, d| n * 10 + usize::from(d.wrapping_sub(b'0'))));
        Self {
            left: flags.contains(&b'-'),
            plus: flags.contains(&b'+'),
            zero: flags.contains(&b'0'),
            width: numbers.next().unwrap_or(0).min(99),
            precision: numbers.next().map(|n| n.min(99)),
        }
    }

    fn signed(&self, number: String) -> String {
        if self.plus && !number.starts_with('-') { format!("+{number}") } else { number }
    }

    fn padded(&self, piece: String, numeric: bool) -> String {
        let width = self.width;
        match piece.strip_prefix('-') {
            _ if self.left => format!("{piece:<width$}"),
            Some(digits) if self.zero && numeric => format!("-{digits:0>width$}", width = width.saturating_sub(1)),
            None if self.zero && numeric => format!("{piece:0>width$}"),
            _ => format!("{piece:>width$}"),
        }
    }
}

fn epoch() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// `os.date(format, time)` in UTC.
fn date<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, RenderError> {
    let format = if arguments.is_empty() { Cow::Borrowed(&b"%Y-%m-%d %H:%M:%S"[..]) } else { text(arguments, 0)? };
    let at = number_or(arguments, 1, epoch() as f64)? as i64;
    let moment = time::OffsetDateTime::from_unix_timestamp(at).map_err(|_| RenderError("time out of range".to_owned()))?;
    let format = format.strip_prefix(b"!").unwrap_or(&format);
    let mut out = String::new();
    let mut characters = String::from_utf8_lossy(format).into_owned().into_bytes().into_iter();
    while let Some(c) = characters.next() {
        if c != b'%' {
            out.push(c as char);
            continue;
        }
        out.push_str(&match characters.next() {
            Some(b'Y') => format!("{:04}", moment.year()),
            Some(b'm') => format!("{:02}", u8::from(moment.month())),
            Some(b'd') => format!("{:02}", moment.day()),
            Some(b'H') => format!("{:02}", moment.hour()),
            Some(b'M') => format!("{:02}", moment.minute()),
            Some(b'S') => format!("{:02}", moment.second()),
            Some(b'j') => format!("{:03}", moment.ordinal()),
            Some(b's') => at.to_string(),
            Some(b'%') => "%".to_owned(),
            _ => return Err(RenderError("invalid conversion in date format".to_owned())),
        });
    }
    made(out.into_bytes())
}

/// A number as Lua reads it: decimal, hexadecimal, blanks around it.
pub fn to_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let number = u64::from_str_radix(hex, 16).ok()? as f64;
        return Some(if negative { -number } else { number });
    }
    let plain = text.bytes().all(|c| c.is_ascii_digit() || b"+-.eE".contains(&c));
    if plain { text.parse().ok() } else { None }
}

/// A number as Lua writes it: 14 significant digits.
pub fn number_text(n: f64) -> String {
    significant(n, 14)
}

/// `%.{digits}g` of C.
fn significant(n: f64, digits: usize) -> String {
    if n.is_nan() {
        return "nan".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if n == 0.0 {
        return "0".to_owned();
    }
    let digits = digits.max(1);
    let scientific = format!("{n:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    trimmed(&format!("{n:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}
