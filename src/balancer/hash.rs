//! What consistent-hashing hashes: a value of the request, or of a fallback.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use uuid::Uuid;
use xxhash_rust::xxh32::xxh32;

use crate::http::Headers;
use crate::model::Upstream;

/// A source of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    Consumer,
    Ip,
    Header(String),
    Cookie { name: String, path: String },
    Path,
    QueryArg(String),
    UriCapture(String),
}

/// The request, as far as a hash may need it.
pub struct HashInput<'a> {
    /// Id of the consumer.
    pub consumer: Option<Uuid>,
    /// Id of the credential: taken where there is no consumer.
    pub credential: Option<&'a str>,
    /// The client's address, after the real-ip rules.
    pub ip: IpAddr,
    pub headers: &'a Headers,
    /// The normalized path.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: &'a str,
    /// Captures of the route, by name or number.
    pub capture: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A hashed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey {
    pub value: u32,
    /// The `Set-Cookie` header to send, when the hash is that of a new cookie.
    pub set_cookie: Option<String>,
}

/// How an upstream hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    pub on: Option<HashOn>,
    pub fallback: Option<HashOn>,
}

impl Hashing {
    pub fn of(upstream: &Upstream) -> Self {
        let cookie = || HashOn::Cookie {
            name: upstream.hash_on_cookie.as_deref().unwrap_or_default().to_owned(),
            path: upstream.hash_on_cookie_path.as_deref().unwrap_or("/").to_owned(),
        };
        let source = |on: Option<&str>, header: Option<&str>, arg: Option<&str>, capture: Option<&str>| match on? {
            "consumer" => Some(HashOn::Consumer),
            "ip" => Some(HashOn::Ip),
            "header" => header.map(|name| HashOn::Header(name.to_owned())),
            "cookie" => Some(cookie()),
            "path" => Some(HashOn::Path),
            "query_arg" => arg.map(|name| HashOn::QueryArg(name.to_owned())),
            "uri_capture" => capture.map(|name| HashOn::UriCapture(name.to_owned())),
            _ => None,
        };
        let on = source(
            upstream.hash_on.as_deref(),
            upstream.hash_on_header.as_deref(),
            upstream.hash_on_query_arg.as_deref(),
            upstream.hash_on_uri_capture.as_deref(),
        );
        let fallback = source(
            upstream.hash_fallback.as_deref(),
            upstream.hash_fallback_header.as_deref(),
            upstream.hash_fallback_query_arg.as_deref(),
            upstream.hash_fallback_uri_capture.as_deref(),
        );
        Self { fallback: on.as_ref().and(fallback), on }
    }

    /// The key of a request. Requests without any value share that of the empty text.
    pub fn key(&self, input: &HashInput<'_>) -> HashKey {
        for source in [&self.on, &self.fallback].into_iter().flatten() {
            if let Some(value) = source.value(input) {
                return HashKey { value: xxh32(value.as_bytes(), 0), set_cookie: None };
            }
            if let HashOn::Cookie { name, path } = source {
                let value = Uuid::new_v4().to_string();
                // The attribute is spelled as Kong spells it.
                let cookie = format!("{name}={value}; Path={path}; Same-Site=Lax; HttpOnly");
                return HashKey { value: xxh32(value.as_bytes(), 0), set_cookie: Some(cookie) };
            }
        }
        HashKey { value: xxh32(b"", 0), set_cookie: None }
    }
}

impl HashOn {
    fn value<'a>(&self, input: &HashInput<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Consumer => match input.consumer {
                Some(id) => Some(id.to_string().into()),
                None => input.credential.map(Into::into),
            },
            Self::Ip => Some(input.ip.to_string().into()),
            Self::Header(name) => {
                let mut joined = String::from_utf8_lossy(input.headers.get(name)?).into_owned();
                for value in input.headers.get_all(name).skip(1) {
                    // nginx joins the values of repeated fields like this.
                    joined.push_str(", ");
                    joined.push_str(&String::from_utf8_lossy(value));
                }
                Some(joined.into())
            }
            Self::Cookie { name, .. } => cookie(input.headers, name).map(Into::into),
            Self::Path => Some(input.path.into()),
            Self::QueryArg(name) => query_arg(input.query, name).map(Into::into),
            Self::UriCapture(name) => (input.capture)(name).map(Into::into),
        }
    }
}

fn cookie<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let texts = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(b"cookie")).filter_map(|(_, value)| std::str::from_utf8(value).ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Repeated values are sorted and joined; an argument without a value counts as `true`, as in Kong.
fn query_arg(query: &str, name: &str) -> Option<String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut values: Vec<String> = query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
            (!key.is_empty() && decode(key) == name).then(|| value.map_or_else(|| "true".to_owned(), decode))
        })
        .collect();
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    Some(values.join(","))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use uuid::Uuid;
    use xxhash_rust::xxh32::xxh32;

    use super::{HashInput, HashKey, HashOn, Hashing};
    use crate::http::Headers;

    fn key(on: HashOn, fallback: Option<HashOn>, change: impl FnOnce(&mut HashInput<'_>)) -> HashKey {
        let mut headers = Headers::new();
        headers.append("X-User", "ann");
        headers.append("x-many", "1");
        headers.append("X-Many", "2");
        headers.append("Cookie", "a=1; session=s7; b=2");
        let capture = |name: &str| (name == "id" || name == "1").then_some("42");
        let mut input = HashInput {
            consumer: None,
            credential: None,
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: &headers,
            path: "/a/b",
            query: "b=2&a=z&a=y%20x&flag&plus=1+1",
            capture: &capture,
        };
        change(&mut input);
        Hashing { on: Some(on), fallback }.key(&input)
    }

    fn of(text: &str) -> HashKey {
        HashKey { value: xxh32(text.as_bytes(), 0), set_cookie: None }
    }

    #[test]
    fn every_source() {
        let header = |name: &str| HashOn::Header(name.to_owned());
        let arg = |name: &str| HashOn::QueryArg(name.to_owned());
        let capture = |name: &str| HashOn::UriCapture(name.to_owned());
        let id = Uuid::from_u128(7);
        assert_eq!(key(HashOn::Consumer, None, |input| input.consumer = Some(id)), of(&id.to_string()));
        assert_eq!(key(HashOn::Consumer, None, |input| input.credential = Some("cred")), of("cred"));
        assert_eq!(key(HashOn::Ip, None, |_| ()), of("127.0.0.1"));
        assert_eq!(key(header("x-user"), None, |_| ()), of("ann"));
        assert_eq!(key(header("x-many"), None, |_| ()), of("1, 2"));
        assert_eq!(key(HashOn::Path, None, |_| ()), of("/a/b"));
        assert_eq!(key(arg("a"), None, |_| ()), of("y x,z"));
        assert_eq!(key(arg("flag"), None, |_| ()), of("true"));
        assert_eq!(key(arg("plus"), None, |_| ()), of("1 1"));
        assert_eq!(key(capture("id"), None, |_| ()), of("42"));
        assert_eq!(key(capture("1"), None, |_| ()), of("42"));
        let cookie = HashOn::Cookie { name: "session".to_owned(), path: "/".to_owned() };
        assert_eq!(key(cookie, None, |_| ()), of("s7"));
    }

    #[test]
    fn fallbacks() {
        let none = || HashOn::Header("x-none".to_owned());
        assert_eq!(key(none(), Some(HashOn::Ip), |_| ()), of("127.0.0.1"));
        assert_eq!(key(none(), Some(HashOn::QueryArg("no".to_owned())), |_| ()), of(""));
        assert_eq!(key(none(), None, |_| ()), of(""));
    }

    #[test]
    fn a_missing_cookie_is_made() {
        let cookie = || HashOn::Cookie { name: "sid".to_owned(), path: "/x".to_owned() };
        for made in [key(cookie(), None, |_| ()), key(HashOn::Header("x-none".to_owned()), Some(cookie()), |_| ())] {
            let set = made.set_cookie.expect("a new cookie is sent");
            let (pair, rest) = set.split_once(';').expect("attributes follow");
            assert_eq!(rest, " Path=/x; Same-Site=Lax; HttpOnly");
            let value = pair.strip_prefix("sid=").expect("the cookie has its name");
            assert!(Uuid::try_parse(value).is_ok());
            assert_eq!(made.value, xxh32(value.as_bytes(), 0));
        }
    }
}
