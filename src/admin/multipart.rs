//! `multipart/form-data` bodies (RFC 7578): the fields' names and values. A file's content is its value.

use memchr::memmem;

use crate::admin::args::MAX_ARGUMENTS;

/// The pairs of a form; `None` when the body is malformed or has too many parts.
pub fn pairs(media_type: &str, body: &[u8]) -> Option<Vec<(String, String)>> {
    let boundary = parameter(media_type, "boundary")?;
    if boundary.is_empty() || boundary.len() > 200 {
        return None;
    }
    let delimiter = format!("--{boundary}");
    let mut rest = after(body, delimiter.as_bytes())?;
    let end = format!("\r\n--{boundary}");
    let mut out = Vec::new();
    while !rest.starts_with(b"--") {
        let part = rest.strip_prefix(b"\r\n")?;
        let at = memmem::find(part, end.as_bytes())?;
        let head_end = memmem::find(&part[..at], b"\r\n\r\n")?;
        let name = disposition_name(&part[..head_end])?;
        let value = String::from_utf8_lossy(&part[head_end + 4..at]).into_owned();
        if out.len() == MAX_ARGUMENTS {
            return None;
        }
        out.push((name, value));
        rest = &part[at + end.len()..];
    }
    Some(out)
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find(text, what)?;
    Some(&text[at + what.len()..])
}

fn disposition_name(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let line = head.split("\r\n").find(|line| line.get(..20).is_some_and(|n| n.eq_ignore_ascii_case("content-disposition:")))?;
    parameter(line, "name")
}

/// A parameter of a structured header field: `form-data; name="a"`.
fn parameter(field: &str, name: &str) -> Option<String> {
    let mut rest = field.split_once(';')?.1;
    loop {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = unquote(quoted)?;
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
fn unquote(text: &str) -> Option<(String, &str)> {
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

    #[test]
    fn fields_and_files() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX\r\ncontent-disposition: form-data; filename=\"x;y\"; name=b[]\r\n\
                    Content-Type: text/plain\r\n\r\nline\r\nline\r\n--XX--\r\n";
        let got = pairs("multipart/form-data; charset=utf-8; boundary=XX", body.as_bytes());
        assert_eq!(got, Some(vec![("a".into(), "1".into()), ("b[]".into(), "line\r\nline".into())]));
        assert_eq!(pairs("multipart/form-data; boundary=\"XX\"", b"--XX--"), Some(vec![]));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for (media_type, body) in [
            ("multipart/form-data", "--XX--"),
            ("multipart/form-data; boundary=XX", ""),
            ("multipart/form-data; boundary=XX", "--XX\r\n"),
            ("multipart/form-data; boundary=XX", "--XX\r\nA: b\r\n\r\nx\r\n--XX--"),
            ("multipart/form-data; boundary=XX", "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--XX--"),
        ] {
            assert_eq!(pairs(media_type, body.as_bytes()), None, "{media_type} {body:?}");
        }
    }
}
