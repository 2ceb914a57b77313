//! What the client is told: header rules of proxied answers and of the gateway's own.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::http::Headers;
use crate::http::syntax::same;
use crate::plugin::Exchange;
use crate::proxy::engine::forward::Named;

/// Which headers the gateway adds (`headers` of the settings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    pub server: bool,
    pub via: bool,
    pub proxy_latency: bool,
    pub upstream_latency: bool,
    pub response_latency: bool,
    pub upstream_status: bool,
    pub request_id: bool,
}

/// Removes what the upstream meant for the gateway alone, before plugins see the answer.
pub fn clean(x: &mut Exchange, added: &Added, te_trailers: bool) {
    let headers = &mut x.response.headers;
    let status = x.response.status;
    strip_hop_by_hop(headers, status == 101, te_trailers);
    if added.upstream_status {
        headers.set_checked(b"X-Kong-Upstream-Status", itoa::Buffer::new().format(status).as_bytes());
    }
}

/// Says that the gateway was there, in an upstream's answer.
pub fn proxied(x: &mut Exchange, added: &Added, product: &str, own_via: &str) {
    let headers = &mut x.response.headers;
    charset(headers);
    if added.server && !headers.contains("server") {
        headers.append("Server", product);
    }
    if added.via {
        if headers.contains("via") {
            let mut via: Vec<&[u8]> = headers.get_all("via").collect();
            via.push(own_via.as_bytes());
            let via = via.join(&b", "[..]);
            headers.set("Via", via);
        } else {
            headers.append_checked(b"Via", own_via.as_bytes());
        }
    }
}

/// Fields of an answer that the gateway made itself. `tried` says that an upstream was contacted, or tried to be.
pub fn own(x: &mut Exchange, added: &Added, product: &str, own_via: &str, tried: bool) {
    let headers = &mut x.response.headers;
    if !headers.contains("location") {
        // nginx's pages for redirects carry no charset
        charset(headers);
    }
    if !headers.contains("date") {
        headers.append("Date", now());
    }
    if added.server && !headers.contains("server") {
        headers.append("Server", product);
    }
    if added.via && tried {
        headers.append("Via", own_via);
    }
}

/// Fields that are known last: how long things took, and the request's id.
pub fn latencies(x: &mut Exchange, added: &Added, tried: bool) {
    let started = x.timing.started;
    let mut buffer = itoa::Buffer::new();
    let headers = &mut x.response.headers;
    let mut tell = |name: &str, d: Duration| headers.set_checked(name.as_bytes(), buffer.format(d.as_millis() as u64).as_bytes());
    if tried {
        let upstream = x.timing.upstream_started.unwrap_or_else(clock::now);
        if added.upstream_latency {
            let end = x.timing.upstream_headers.unwrap_or_else(clock::now);
            tell("X-Kong-Upstream-Latency", end.duration_since(upstream));
        }
        if added.proxy_latency {
            tell("X-Kong-Proxy-Latency", upstream.duration_since(started));
        }
    } else if added.response_latency {
        tell("X-Kong-Response-Latency", clock::read().saturating_duration_since(started));
    }
    if added.request_id {
        x.response.headers.set_checked(b"X-Kong-Request-Id", &x.request_id.0);
    }
}

fn strip_hop_by_hop(headers: &mut Headers, switched: bool, te_trailers: bool) {
    const NAMES: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "trailer", "transfer-encoding", "upgrade"];
    if !NAMES.iter().any(|name| headers.contains(name)) {
        return;
    }
    let options: Vec<Vec<u8>> = match headers.contains("connection") {
        true => Named::of(headers).names().map(<[u8]>::to_vec).collect(),
        false => Vec::new(),
    };
    headers.retain(|name, _| {
        let hop = match name.len() {
            7 => same(name, b"trailer") && !te_trailers || same(name, b"upgrade") && !switched,
            10 => same(name, b"connection") || same(name, b"keep-alive"),
            16 => same(name, b"proxy-connection"),
            17 => same(name, b"transfer-encoding"),
            _ => false,
        };
        !hop && !options.iter().any(|o| same(name, o))
    });
}

/// Adds `; charset=UTF-8` to the text types to which nginx adds it.
fn charset(headers: &mut Headers) {
    const TYPES: [&[u8]; 6] =
        [b"text/html", b"text/plain", b"text/xml", b"application/javascript", b"application/rss+xml", b"text/vnd.wap.wml"];
    headers.extend_checked("Content-Type", b"; charset=UTF-8", |value| TYPES.iter().any(|t| same(value, t)));
}

/// The Date of now.
pub fn now() -> String {
    DATE.with(|date| date.borrow_mut().text(SystemTime::now()).to_owned())
}

thread_local! {
    static DATE: std::cell::RefCell<Date> = const { std::cell::RefCell::new(Date { second: 0, text: String::new() }) };
}

/// The Date of this second.
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn text(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = http_date(now);
        }
        &self.text
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn http_date(at: SystemTime) -> String {
    let format = time::macros::format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    time::OffsetDateTime::from(at).format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{charset, http_date, strip_hop_by_hop};
    use crate::http::Headers;

    #[test]
    fn dates() {
        assert_eq!(http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let mut headers = Headers::new();
        for (name, value) in [
            ("Connection", "X-Hop, close"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
            ("Proxy-Authenticate", "Basic"),
        ] {
            headers.append(name, value);
        }
        strip_hop_by_hop(&mut headers, false, false);
        assert_eq!(headers.iter().map(|(n, _)| n).collect::<Vec<_>>(), [b"Proxy-Authenticate"]);
    }

    #[test]
    fn text_gets_a_charset() {
        for (given, sent) in
            [("text/plain", "text/plain; charset=UTF-8"), ("text/plain; charset=x", "text/plain; charset=x"), ("text/css", "text/css")]
        {
            let mut headers = Headers::new();
            headers.append("content-type", given);
            charset(&mut headers);
            assert_eq!(headers.get_str("content-type"), Some(sent));
        }
    }
}
