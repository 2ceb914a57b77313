//! A line for each proxied request (`proxy_access_log`): nginx's combined format and the request's id, as Kong has it.

use std::io::Write;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::http::Version;
use crate::plugin::Exchange;

/// As nginx shows the time.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]");

/// The line of a request that is finished, without its end.
pub fn line(x: &Exchange) -> Bytes {
    let mut out = Vec::with_capacity(256);
    let time = OffsetDateTime::from(x.timing.started_at).format(TIME).unwrap_or_default();
    let version = match x.request.version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2.0",
    };
    let field = |name| x.request.headers.get(name).unwrap_or(b"-");
    let done = write!(out, "{} - - [{time}] \"{} ", x.client.ip, x.request.method.as_str());
    put(&mut out, x.request.target.as_bytes());
    let done = done.and(write!(out, " HTTP/{version}\" {} {} \"", x.response.status, x.size.response_body));
    put(&mut out, field("referer"));
    out.extend_from_slice(b"\" \"");
    put(&mut out, field("user-agent"));
    done.and(write!(out, "\" kong_request_id: \"{}\"", x.request_id.as_str())).expect("a Vec takes everything");
    out.into()
}

/// Writes what a client sent so that it stays within its quotes and its line, as nginx does.
fn put(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => write!(out, "\\x{byte:02X}").expect("a Vec takes everything"),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::line;
    use crate::plugin::testing::exchange;

    #[test]
    fn one_request_is_one_line() {
        let mut x = exchange("GET", "/a?b=\"c", &[("User-Agent", "curl\"\x1b[31m")]);
        x.timing.started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_295_300);
        x.response.status = 200;
        x.size.response_body = 12;
        let id = "0".repeat(32);
        let wanted = format!(
            "127.0.0.1 - - [01/Mar/2024:12:15:00 +0000] \"GET /a?b=\\x22c HTTP/1.1\" 200 12 \"-\" \"curl\\x22\\x1B[31m\" \
             kong_request_id: \"{id}\""
        );
        assert_eq!(line(&x), wanted.as_bytes());
    }
}
