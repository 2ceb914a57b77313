//! What of a request its key is made of.
//!
//! As in Kong: the SHA-256 digest of `consumer:route|METHOD|request line without its query|arguments|header fields`, where the
//! line of a request without a query ends in its protocol version. Arguments are `name=value`, sorted by name and joined by `:`,
//! the values of one name sorted and joined by `,`. Otherwise than in Kong these four characters, `|` and `%` are
//! percent-encoded within names and values: `?a=1%3Ab%3D2` must not be answered with what belongs to `?a=1&b=2`.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use smallvec::SmallVec;

use crate::http::Version;
use crate::plugin::Exchange;
use crate::plugin::cache::Key;
use crate::plugin::query::{self, Argument};

/// What a configuration says of its keys.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The path in small letters; names and values of arguments stay as they are.
    pub ignore_uri_case: bool,
    /// Arguments that count, in this order; all of them, sorted, when this is empty.
    pub vary_query_params: Vec<String>,
    /// Fields of the request that count, in this order.
    pub vary_headers: Vec<String>,
}

/// What is digested; longer texts go to the heap.
type Text = SmallVec<[u8; 512]>;

impl Recipe {
    /// The key of a request, with the consumer that it has by now.
    pub fn key(&self, x: &Exchange) -> Key {
        let digest = digest(&SHA256, &self.text(x));
        Key(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn text(&self, x: &Exchange) -> Text {
        let mut out = Text::new();
        match (&x.route, &x.authenticated.consumer) {
            (Some(route), Some(consumer)) => {
                put_id(&mut out, consumer.id);
                out.push(b':');
                put_id(&mut out, route.id);
            }
            (Some(route), None) => put_id(&mut out, route.id),
            (None, _) => out.extend_from_slice(b"default"),
        }
        let method = x.request.method.as_str().as_bytes();
        out.push(b'|');
        out.extend_from_slice(method);
        out.push(b'|');
        let line = out.len();
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(x.request.raw_path().as_bytes());
        if x.request.query().is_none() {
            out.extend_from_slice(match x.request.version {
                Version::Http10 => b" HTTP/1.0",
                Version::Http11 => b" HTTP/1.1",
                Version::Http2 => b" HTTP/2.0",
            });
        }
        if self.ignore_uri_case {
            out[line..].make_ascii_lowercase();
        }
        out.push(b'|');
        let text = x.query();
        if !text.is_empty() {
            self.put_arguments(text, &mut out);
        }
        out.push(b'|');
        let start = out.len();
        for name in &self.vary_headers {
            let mut values: SmallVec<[&[u8]; 4]> = x.request.headers.get_all(name).collect();
            values.sort_unstable();
            put_named(name.as_bytes(), values.iter().map(|value| Some(*value)), start, &mut out);
        }
        out
    }

    fn put_arguments(&self, text: &str, out: &mut Text) {
        let mut arguments: SmallVec<[_; 8]> = query::arguments(text).map(|Argument { name, value, .. }| (name, value)).collect();
        arguments.sort_unstable();
        let start = out.len();
        let mut put = |named: &[(Cow<'_, str>, Option<Cow<'_, str>>)]| {
            if let Some((name, _)) = named.first() {
                let values = named.iter().map(|(_, value)| value.as_deref().map(str::as_bytes));
                put_named(name.as_bytes(), values, start, out);
            }
        };
        if self.vary_query_params.is_empty() {
            arguments.chunk_by(|(one, _), (other, _)| one == other).for_each(put);
            return;
        }
        for name in &self.vary_query_params {
            let named = &arguments[arguments.partition_point(|(n, _)| n.as_ref() < name.as_str())..];
            put(&named[..named.partition_point(|(n, _)| n == name)]);
        }
    }
}

/// Adds `name=value,value` unless there is no value; a value of `None` is an argument without `=`.
fn put_named<'a>(name: &[u8], values: impl ExactSizeIterator<Item = Option<&'a [u8]>>, start: usize, out: &mut Text) {
    let count = values.len();
    if count > 0 && out.len() > start {
        out.push(b':');
    }
    for (n, value) in values.enumerate() {
        match (n, value, count) {
            (0, None, 1) => return put_escaped(name, out),
            (0, ..) => {
                put_escaped(name, out);
                out.push(b'=');
            }
            _ => out.push(b','),
        }
        match value {
            Some(value) => put_escaped(value, out),
            // stands for no text, which no escaped one can look like
            None => out.push(b'%'),
        }
    }
}

fn put_escaped(text: &[u8], out: &mut Text) {
    for byte in text {
        match byte {
            b'%' | b':' | b'=' | b',' | b'|' => out.extend_from_slice(match byte {
                b'%' => b"%25",
                b':' => b"%3A",
                b'=' => b"%3D",
                b',' => b"%2C",
                _ => b"%7C",
            }),
            byte => out.push(*byte),
        }
    }
}

fn put_id(out: &mut Text, id: uuid::Uuid) {
    out.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plugin::testing::{consumer, exchange, route, via};

    fn text(recipe: &Recipe, target: &str, headers: &[(&str, &str)]) -> String {
        String::from_utf8(recipe.text(&exchange("GET", target, headers)).to_vec()).unwrap()
    }

    fn params(vary: &[&str], query: &str) -> String {
        let recipe = Recipe { vary_query_params: vary.iter().map(|v| (*v).to_owned()).collect(), ..Recipe::default() };
        let text = text(&recipe, &format!("/?{query}"), &[]);
        text.strip_prefix("default|GET|GET /|").and_then(|t| t.strip_suffix('|')).unwrap_or(&text).to_owned()
    }

    fn fields(vary: &[&str], headers: &[(&str, &str)]) -> String {
        let recipe = Recipe { vary_headers: vary.iter().map(|v| (*v).to_owned()).collect(), ..Recipe::default() };
        text(&recipe, "/", headers).strip_prefix("default|GET|GET / HTTP/1.1||").unwrap().to_owned()
    }

    #[test]
    fn consumer_route_and_line() {
        let mut x = exchange("POST", "/A/b?x=1", &[]);
        let recipe = Recipe { ignore_uri_case: true, ..Recipe::default() };
        let text = |recipe: &Recipe, x: &Exchange| String::from_utf8(recipe.text(x).to_vec()).unwrap();
        assert_eq!(text(&recipe, &x), "default|POST|post /a/b|x=1|");
        let (route, bob) = (route("r"), consumer("bob"));
        let (route_id, bob_id) = (route.id, bob.id);
        x.authenticated.consumer = Some(Arc::new(bob));
        assert_eq!(text(&Recipe::default(), &x), "default|POST|POST /A/b|x=1|");
        x.route = Some(via(route));
        assert_eq!(text(&Recipe::default(), &x), format!("{bob_id}:{route_id}|POST|POST /A/b|x=1|"));
        x.authenticated.consumer = None;
        x.request.target = "/A".to_owned();
        x.upstream.target = "/A".to_owned();
        x.request.version = Version::Http2;
        assert_eq!(text(&recipe, &x), format!("{route_id}|POST|post /a http/2.0||"));
    }

    #[test]
    fn the_key_is_a_digest() {
        let x = exchange("GET", "/get", &[]);
        // sha256("default|GET|GET /get HTTP/1.1||")
        let digest = "ff069ce619062d5b4eeb7a66c596f726a12bf5ed3ac61831568f760a3b871d17";
        assert_eq!(Recipe::default().key(&x).to_string(), digest);
    }

    #[test]
    fn arguments_in_kongs_form() {
        assert_eq!(params(&[], "b=2&a=1"), "a=1:b=2");
        assert_eq!(params(&[], "a=2&b=x&a=1"), "a=1,2:b=x");
        assert_eq!(params(&[], "a&b="), "a:b=");
        assert_eq!(params(&[], ""), "");
        assert_eq!(params(&["b", "a", "c"], "a=2&z=1&a=1&b=3"), "b=3:a=1,2");
        assert_eq!(params(&["c"], "a=2"), "");
        assert_eq!(params(&[], "b=%41+c"), "b=A c");
    }

    #[test]
    fn fields_in_kongs_form() {
        assert_eq!(fields(&[], &[("X-A", "1")]), "");
        assert_eq!(fields(&["x-b", "X-A", "x-c"], &[("x-a", "2"), ("X-B", "z"), ("X-A", "1")]), "x-b=z:X-A=1,2");
    }

    #[test]
    fn no_two_requests_share_a_text() {
        let queries = ["a=1&b=2", "a=1%3Ab%3D2", "a=1:b=2", "a=1,2", "a=1&a=2", "a%3D1", "a=1", "a&a", "a&a=", "a=&a=", "a=%25&a", "a=|"];
        let mut seen: Vec<_> = queries.iter().map(|query| params(&[], query)).collect();
        seen.sort_unstable();
        seen.dedup();
        // `a=1%3Ab%3D2` and `a=1:b=2` are the same
        assert_eq!(seen.len(), queries.len() - 1, "{seen:?}");
        assert_ne!(text(&Recipe::default(), "/x|a=1?", &[]), text(&Recipe::default(), "/x?a=1", &[]));
        assert_ne!(fields(&["a", "b"], &[("a", "1:b=2")]), fields(&["a", "b"], &[("a", "1"), ("b", "2")]));
    }
}
