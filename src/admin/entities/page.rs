//! Pages: the text of a list, its offset and the link to what follows.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::admin::answer::Answer;
use crate::admin::call::Call;
use crate::catalog::{Catalog, Page, Row, Rows, WriteError};

/// What stays as it is in a query argument.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The page that the query arguments ask for.
pub fn asked(call: &Call) -> Result<Page, WriteError> {
    let mut page = Page::new(Uuid::nil(), call.query.size()?);
    if let Some(offset) = call.query.get("offset") {
        page.from = read_offset(offset)?;
    }
    page.tags = call.query.tags()?;
    Ok(page)
}

/// The offset of a page that begins with this row: base64 of the primary key.
fn offset(id: Uuid) -> String {
    STANDARD_NO_PAD.encode(format!("[\"{id}\"]"))
}

fn read_offset(text: &str) -> Result<Uuid, WriteError> {
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| STANDARD.decode(text));
    let bytes = bytes.map_err(|_| WriteError::invalid_offset(text, "bad base64 encoding"))?;
    let key: Option<[Uuid; 1]> = serde_json::from_slice(&bytes).ok();
    key.map(|[id]| id).ok_or_else(|| WriteError::invalid_offset(text, "bad json encoding"))
}

/// `{"data": [...], "next": ...}`. `path` is that of the collection.
pub fn answer(call: &Call, path: &str, rows: &Rows) -> Answer {
    let texts = rows.rows.iter().map(|row| text(&call.catalog, row));
    Answer::raw(200, list(texts, next(call, path, rows.next)))
}

/// The offset of the next page and the link to it, with the options of this one.
pub fn next(call: &Call, path: &str, from: Option<Uuid>) -> Option<(String, String)> {
    let offset = offset(from?);
    let mut link = format!("{path}?offset={}", escape(&offset));
    for name in ["tags", "size"] {
        if let Some(value) = call.query.get(name) {
            link.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    Some((offset, link))
}

/// The text of a list of rows. `next` is the offset of the next page and the link to it.
pub fn list<'a>(texts: impl Iterator<Item = Cow<'a, str>>, next: Option<(String, String)>) -> String {
    let mut out = String::with_capacity(4096);
    out.push_str("{\"data\":[");
    for (at, text) in texts.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&text);
    }
    out.push(']');
    match next {
        None => out.push_str(",\"next\":null}"),
        Some((offset, link)) => {
            let (offset, link) = (serde_json::Value::from(offset), serde_json::Value::from(link));
            out.push_str(&format!(",\"next\":{link},\"offset\":{offset}}}"));
        }
    }
    out
}

pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A row as it is shown. Most rows are shown as they are kept.
pub fn text<'a>(catalog: &Catalog, row: &'a Row) -> Cow<'a, str> {
    if row.schema.ttl || row.schema.name == "certificates" {
        return serde_json::Value::Object(catalog.shown(row)).to_string().into();
    }
    row.text().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_come_back() {
        let id = Uuid::from_u128(7);
        assert_eq!(read_offset(&offset(id)), Ok(id));
        assert_eq!(read_offset("x").err().map(|e| e.message).as_deref(), Some("'x' is not a valid offset: bad base64 encoding"));
        let text = STANDARD.encode("{}");
        assert_eq!(read_offset(&text).err().map(|e| e.message), Some(format!("'{text}' is not a valid offset: bad json encoding")));
    }

    #[test]
    fn lists_are_json() {
        let rows = ["{\"a\":1}", "{}"].map(Cow::Borrowed);
        assert_eq!(list(rows.clone().into_iter(), None), r#"{"data":[{"a":1},{}],"next":null}"#);
        let more = list(rows.into_iter(), Some(("o".into(), "/x?offset=o".into())));
        assert_eq!(more, r#"{"data":[{"a":1},{}],"next":"/x?offset=o","offset":"o"}"#);
    }
}
