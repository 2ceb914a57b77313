//! Conditional requests that the cache answers itself (RFC 9111, section 4.3.2).

use std::time::SystemTime;

use crate::http::{Headers, Method, Request};
use crate::plugin::cache::Entry;

/// Whether the client has the answer that is kept already: it is told so with 304. `If-Match` and the like are for origins alone.
pub fn is_known(request: &Request, entry: &Entry) -> bool {
    if entry.status != 200 || !matches!(request.method, Method::Get | Method::Head) {
        return false;
    }
    let mut tags = request.headers.get_all("if-none-match").peekable();
    if tags.peek().is_some() {
        let Some(ours) = entry.headers.get("etag") else { return false };
        return tags.any(|list| names(list, ours));
    }
    match (date(&request.headers, "if-modified-since"), date(&entry.headers, "last-modified")) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Whether a list of entity tags has this one, weak or not, or is `*`.
fn names(list: &[u8], ours: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").map_or(tag.len(), <[u8]>::len);
    let ours = &ours[ours.len() - opaque(ours)..];
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    // tags are quoted, and may hold commas
    while let Some(start) = rest.iter().position(|b| *b == b'"') {
        let Some(end) = rest[start + 1..].iter().position(|b| *b == b'"') else { return false };
        let end = start + end + 2;
        if &rest[start..end] == ours {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

fn date(headers: &Headers, name: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get_str(name)?).ok()
}

/// Fields that a 304 does not have: those of the body that it stands for.
pub fn strip(headers: &mut Headers) {
    for name in ["content-type", "content-length", "content-encoding", "content-language", "content-range"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::cache::entry::tests::entry;
    use crate::plugin::testing::exchange;

    fn known(method: &str, asked: &[(&str, &str)], kept: &[(&str, &str)]) -> bool {
        let mut entry = entry("x", 0, 0);
        for (name, value) in kept {
            entry.headers.append(name, value);
        }
        is_known(&exchange(method, "/", asked).request, &entry)
    }

    #[test]
    fn entity_tags() {
        let tag = [("ETag", "\"a,b\"")];
        for (list, is) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", true),
            ("\"x\", W/\"y\",\"a,b\"", true),
            ("*", true),
            ("\"a\"", false),
            ("a,b", false),
            ("\"a,b", false),
            ("", false),
        ] {
            assert_eq!(known("GET", &[("If-None-Match", list)], &tag), is, "{list}");
        }
        assert!(known("HEAD", &[("If-None-Match", "\"z\""), ("If-None-Match", "\"a\"")], &[("ETag", "W/\"a\"")]));
        assert!(!known("POST", &[("If-None-Match", "*")], &tag));
        assert!(!known("GET", &[("If-None-Match", "\"a\"")], &[]));
        assert!(!known("GET", &[], &tag));
    }

    #[test]
    fn dates_count_where_there_are_no_tags() {
        let (early, late) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
        for (since, modified, is) in [(early, early, true), (late, early, true), (early, late, false), ("x", early, false)] {
            assert_eq!(known("GET", &[("If-Modified-Since", since)], &[("Last-Modified", modified)]), is);
        }
        let both = [("If-None-Match", "\"b\""), ("If-Modified-Since", late)];
        assert!(!known("GET", &both, &[("ETag", "\"a\""), ("Last-Modified", early)]));
    }
}
