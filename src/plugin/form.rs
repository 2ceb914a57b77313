//! Bodies with named members: JSON objects, url-encoded forms, multipart forms. Plugins look members up and change them.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Map, Value};

use crate::http::{Body, BodyError, Headers};
use crate::plugin::query::{self, Found};
use crate::plugin::{Exchange, Reply};

/// Bodies up to this many bytes are looked into; larger ones pass unread.
pub const MAX_BODY: usize = 1024 * 1024;
/// Forms of more parts are not looked into.
const MAX_PARTS: usize = 1000;
/// RFC 2046, section 5.1.1, allows 70.
const MAX_BOUNDARY: usize = 200;

/// A body with named members.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    Json(Map<String, Value>),
    Urlencoded(String),
    Multipart(Multipart),
}

/// The kinds of body that [`Form`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Urlencoded,
    Multipart,
}

impl Kind {
    /// By the Content-Type of a message.
    pub fn of(headers: &Headers) -> Option<Self> {
        let value = headers.get_str("content-type")?;
        let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type).trim();
        [
            ("application/json", Self::Json),
            ("application/x-www-form-urlencoded", Self::Urlencoded),
            ("multipart/form-data", Self::Multipart),
        ]
        .into_iter()
        .find_map(|(name, kind)| media_type.eq_ignore_ascii_case(name).then_some(kind))
    }
}

impl Form {
    /// The request's body, when it is a form, well formed and not larger than [`MAX_BODY`]. The body stays in place. `Err` is
    /// the answer to a body that broke off.
    pub async fn of_request(x: &mut Exchange) -> Result<Option<Self>, Reply> {
        let Some(kind) = Kind::of(&x.request.headers) else { return Ok(None) };
        let Some(body) = bytes(x, MAX_BODY).await? else { return Ok(None) };
        let content_type = x.request.headers.get_str("content-type").unwrap_or_default();
        Ok(Self::parse(kind, content_type, &body))
    }

    pub fn parse(kind: Kind, content_type: &str, body: &[u8]) -> Option<Self> {
        match kind {
            Kind::Json => serde_json::from_slice(body).ok().map(Self::Json),
            Kind::Urlencoded => std::str::from_utf8(body).ok().map(|text| Self::Urlencoded(text.to_owned())),
            Kind::Multipart => Multipart::parse(content_type, body).map(Self::Multipart),
        }
    }

    pub fn find(&self, name: &str) -> Found<'_> {
        match self {
            Self::Json(members) => match members.get(name) {
                None => Found::Nothing,
                Some(Value::String(text)) => Found::One(Cow::Borrowed(text)),
                Some(Value::Array(_) | Value::Object(_)) => Found::Many,
                Some(_) => Found::NoText,
            },
            Self::Urlencoded(text) => query::find(text, name),
            Self::Multipart(form) => {
                let mut named = form.parts.iter().filter(|part| part.name == name);
                match (named.next(), named.next()) {
                    (None, _) => Found::Nothing,
                    (Some(part), None) => Found::One(String::from_utf8_lossy(&part.body)),
                    (Some(_), Some(_)) => Found::Many,
                }
            }
        }
    }

    pub fn remove(&mut self, name: &str) {
        match self {
            Self::Json(members) => drop(members.remove(name)),
            Self::Urlencoded(text) => *text = query::without(text, name),
            Self::Multipart(form) => form.parts.retain(|part| part.name != name),
        }
    }

    /// The body in the form in which it came.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Json(members) => Value::Object(members).to_string().into(),
            Self::Urlencoded(text) => text.into(),
            Self::Multipart(form) => form.into_bytes(),
        }
    }
}

/// The request's body, when it is not larger than `limit`; it stays in place. A larger one still goes upstream whole. `Err` is
/// the answer to a body that broke off.
pub async fn bytes(x: &mut Exchange, limit: usize) -> Result<Option<Bytes>, Reply> {
    match x.request.body.buffer(limit).await {
        Ok(()) => {}
        Err(BodyError::Timeout) => return Err(Reply::status(408)),
        Err(_) => return Err(Reply::status(400)),
    }
    Ok(match &x.request.body {
        Body::Empty => Some(Bytes::new()),
        Body::Bytes(bytes) if bytes.len() <= limit => Some(bytes.clone()),
        Body::Bytes(_) | Body::Stream(_) => None,
    })
}

/// Gives the request another body, and headers that tell its length.
pub fn replace(x: &mut Exchange, body: Bytes) {
    x.request.headers.remove("transfer-encoding");
    x.request.headers.set("Content-Length", itoa::Buffer::new().format(body.len()));
    x.request.body = body.into();
}

/// A `multipart/form-data` body (RFC 7578).
#[derive(Clone, Debug, PartialEq)]
pub struct Multipart {
    pub boundary: String,
    pub parts: Vec<Part>,
}

/// One part: a field's value, or a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    /// Header lines as they came, without the empty line.
    pub head: Bytes,
    pub body: Bytes,
}

impl Part {
    /// A field of that name. What would end the quoted name is encoded as browsers do.
    pub fn field(name: &str, value: &str) -> Self {
        let quoted = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let head = format!("Content-Disposition: form-data; name=\"{quoted}\"");
        Self { name: name.to_owned(), head: head.into(), body: value.to_owned().into() }
    }
}

impl Multipart {
    /// `None` when the body is malformed or has too many parts.
    pub fn parse(content_type: &str, body: &[u8]) -> Option<Self> {
        let boundary = parameter(content_type, "boundary")?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return None;
        }
        let delimiter = format!("\r\n--{boundary}");
        let first = &delimiter.as_bytes()[2..];
        let mut rest = match body.strip_prefix(first) {
            Some(rest) => rest,
            None => after(body, delimiter.as_bytes())?,
        };
        let mut parts = Vec::new();
        while !rest.starts_with(b"--") {
            if parts.len() == MAX_PARTS {
                return None;
            }
            let part = without_blanks(rest).strip_prefix(b"\r\n")?;
            let end = memmem::find(part, delimiter.as_bytes())?;
            let (part, tail) = part.split_at(end);
            let at = memmem::find(part, b"\r\n\r\n")?;
            let (head, value) = (&part[..at], &part[at + 4..]);
            let name = field_name(head)?;
            parts.push(Part { name, head: Bytes::copy_from_slice(head), body: Bytes::copy_from_slice(value) });
            rest = &tail[delimiter.len()..];
        }
        Some(Self { boundary, parts })
    }

    pub fn into_bytes(self) -> Bytes {
        let mut out = Vec::new();
        for part in &self.parts {
            out.extend_from_slice(format!("--{}\r\n", self.boundary).as_bytes());
            out.extend_from_slice(&part.head);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&part.body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        out.into()
    }
}

/// Without blanks and tabs at its start, which may stand behind a boundary.
fn without_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()..]
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    memmem::find(text, what).map(|at| &text[at + what.len()..])
}

fn field_name(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let value = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    parameter(value, "name")
}

/// A parameter of a header's value: `form-data; name="a"`.
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted_text(quoted)?;
                (value, after.split_once(';').map_or("", |(_, after)| after))
            }
            None => {
                let (value, after) = value.split_once(';').unwrap_or((value, ""));
                (value.trim().to_owned(), after)
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{chunks, exchange, exchange_with_body, run};

    const MULTIPART: &str = "--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\ngood\r\n--b\r\ncontent-disposition: form-data; \
                             filename=\"x;y\"; name=f\r\nContent-Type: text/plain\r\n\r\nline\r\nline\r\n--b--\r\n";

    fn form(content_type: &str, body: &str) -> Option<Form> {
        run(Form::of_request(&mut exchange_with_body("POST", "/", &[("Content-Type", content_type)], body))).unwrap()
    }

    #[test]
    fn members_are_found_and_removed_in_each_kind() {
        for (content_type, body, rest) in [
            ("application/json", r#"{"f":1,"k":"good"}"#, r#"{"f":1}"#),
            ("application/x-www-form-urlencoded; charset=utf-8", "a=%7e&k=good&f", "a=%7e&f"),
            (
                "Multipart/Form-Data; boundary=\"b\"",
                MULTIPART,
                &MULTIPART.replace("--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\ngood\r\n", ""),
            ),
        ] {
            let mut form = form(content_type, body).expect(content_type);
            assert_eq!(form.find("k"), Found::One("good".into()), "{content_type}");
            assert_eq!(form.find("x"), Found::Nothing);
            assert_eq!(form.clone().into_bytes(), body, "{content_type}");
            form.remove("k");
            assert_eq!(form.into_bytes(), rest);
        }
    }

    #[test]
    fn what_is_no_text() {
        let form = form("application/json", r#"{"n":1,"l":["a"],"o":{}}"#).unwrap();
        assert_eq!([form.find("n"), form.find("l"), form.find("o")], [Found::NoText, Found::Many, Found::Many]);
    }

    #[test]
    fn what_is_no_form() {
        for (content_type, body) in [
            ("text/plain", "a=1"),
            ("application/json", "["),
            ("application/json", "[1]"),
            ("multipart/form-data", "--b--"),
            ("multipart/form-data; boundary=b", ""),
            ("multipart/form-data; boundary=b", "--b\r\n"),
            ("multipart/form-data; boundary=b", "--b\r\nA: b\r\n\r\nx\r\n--b--"),
            ("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b--"),
        ] {
            assert_eq!(form(content_type, body), None, "{content_type} {body:?}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_still_goes_upstream() {
        let mut x = exchange("POST", "/", &[("Content-Type", "application/json")]);
        x.request.body = chunks(&["12", "34", "56"]);
        run(async {
            assert!(matches!(bytes(&mut x, 3).await, Ok(None)));
            assert_eq!(x.request.body.collect(100).await.unwrap(), "123456");
        });
    }

    #[test]
    fn another_body_has_its_length() {
        let mut x = exchange("POST", "/", &[("Transfer-Encoding", "chunked")]);
        replace(&mut x, Bytes::from_static(b"abc"));
        assert_eq!(x.request.headers.get_str("content-length"), Some("3"));
        assert!(!x.request.headers.contains("transfer-encoding"));
    }
}
