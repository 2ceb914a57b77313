//! Changes an answer before it goes to the client: its headers and its JSON body.
//!
//! Each of the five operations takes a list: `remove` names; `rename` pairs `old:new`, where there is an old one; `replace`
//! pairs `name:value`, where there is such a name; `add` pairs, where there is none; `append` pairs, always. They run in
//! this order. Values for the body are texts, or what `json_types` says at the same place of its list.
//!
//! A body is changed when its type is `application/json` (or `application/...+json`) and it is an object of at most 8 MB;
//! others pass as they are. Such a body is held back until its end is there, and loses its Content-Length.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! None of its own; it changes those of the upstream, of other plugins and of the gateway.

use bytes::{Bytes, BytesMut};
use schema::{Field, Record, Violations};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::http::{Body, Headers};
use crate::plugin::{Env, Exchange, Phases, Plugin};

/// Larger bodies pass unchanged.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Headers that frame the message.
const KEPT: &[&str] = &["content-length", "transfer-encoding"];

pub struct ResponseTransformer {
    headers: Operations<String>,
    json: Operations<Value>,
    id: Uuid,
}

/// The operations on headers or on a body, without entries that have no value.
struct Operations<V> {
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    replace: Vec<(String, V)>,
    add: Vec<(String, V)>,
    append: Vec<(String, V)>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    remove: Remove,
    rename: Rename,
    replace: Values,
    add: Values,
    append: Values,
}

/// Names to remove.
#[derive(Clone, Debug, Deserialize, Record)]
struct Remove {
    #[field(default = [])]
    json: Vec<String>,
    #[field(default = [])]
    headers: Vec<String>,
}

/// Pairs `old:new`.
#[derive(Clone, Debug, Deserialize, Record)]
struct Rename {
    #[field(default = [], elements(pair))]
    json: Vec<String>,
    #[field(default = [], elements(|e| pair(e).check("two headers", two_headers)))]
    headers: Vec<String>,
}

/// Pairs `name:value`.
#[derive(Clone, Debug, Deserialize, Record)]
struct Values {
    #[field(default = [], elements(pair))]
    json: Vec<String>,
    /// Types of the values in `json`, in the same order.
    #[field(default = [], elements(|e| e.one_of(&["boolean", "number", "string"])))]
    json_types: Vec<String>,
    #[field(default = [], elements(pair))]
    headers: Vec<String>,
}

fn pair(field: Field) -> Field {
    field.matches("^[^:]+:.*$")
}

fn two_headers(entry: &Value) -> Result<(), String> {
    let (old, new) = split(entry.as_str().unwrap_or_default());
    for name in [old, new] {
        let fine = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
        if !fine {
            return Err(format!("'{name}' is not a valid header"));
        }
    }
    Ok(())
}

/// `name:value`; several colons are one.
fn split(entry: &str) -> (&str, &str) {
    let (name, value) = entry.split_once(':').unwrap_or((entry, ""));
    (name, value.trim_start_matches(':'))
}

impl Plugin for ResponseTransformer {
    const NAME: &'static str = "response-transformer";
    const PRIORITY: i32 = 800;
    const PHASES: Phases = Phases::HEADER_FILTER.and(Phases::BODY_FILTER);
    type Config = Config;

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let Config { remove, rename, replace, add, append } = config;
        let json = Operations {
            remove: names(&remove.json),
            rename: pairs(&rename.json),
            replace: typed(&replace),
            add: typed(&add),
            append: typed(&append),
        };
        let headers = Operations {
            remove: names(&remove.headers),
            rename: pairs(&rename.headers),
            replace: pairs(&replace.headers),
            add: pairs(&add.headers),
            append: pairs(&append.headers),
        };
        Ok(Self { headers, json, id: env.id })
    }

    fn header_filter(&self, x: &mut Exchange) {
        self.headers.apply(&mut x.response.headers);
        if !self.json.is_empty() && is_json(&x.response.headers) {
            x.response.body_will_change();
            if !matches!(x.response.body, Body::Empty) {
                x.keep(self.id, Held::default());
            }
        }
    }

    fn body_filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool) {
        let Some(held) = x.kept::<Held>(self.id) else { return };
        if held.passing {
            return;
        }
        held.body.extend_from_slice(chunk);
        if held.body.len() > MAX_BODY {
            held.passing = true;
            *chunk = std::mem::take(&mut held.body).freeze();
        } else if last {
            let body = std::mem::take(&mut held.body).freeze();
            *chunk = self.json.changed(&body).unwrap_or(body);
        } else {
            *chunk = Bytes::new();
        }
    }
}

/// A body that is held back.
#[derive(Default)]
struct Held {
    body: BytesMut,
    /// It has grown too large: it is sent as it comes.
    passing: bool,
}

fn names(list: &[String]) -> Vec<String> {
    list.iter().map(|entry| split(entry).0.to_owned()).collect()
}

fn pairs(list: &[String]) -> Vec<(String, String)> {
    let pairs = list.iter().map(|entry| split(entry));
    pairs.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn typed(values: &Values) -> Vec<(String, Value)> {
    let entry = |(n, entry): (usize, &String)| {
        let (name, value) = split(entry);
        let value = match values.json_types.get(n).map(String::as_str) {
            _ if value.is_empty() => return None,
            Some("boolean") => Value::Bool(value == "true"),
            Some("number") => number(value)?,
            _ => Value::String(value.to_owned()),
        };
        Some((name.to_owned(), value))
    };
    values.json.iter().enumerate().filter_map(entry).collect()
}

fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
    }
}

fn is_json(headers: &Headers) -> bool {
    let json = |media_type: &str| {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    };
    headers.get_str("content-type").is_some_and(|types| types.split(',').any(json))
}

impl Operations<String> {
    fn apply(&self, headers: &mut Headers) {
        let free = |name: &str| !KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name));
        for name in self.remove.iter().filter(|name| free(name)) {
            headers.remove(name);
        }
        for (old, new) in self.rename.iter().filter(|(old, new)| free(old) && free(new) && !old.eq_ignore_ascii_case(new)) {
            let values: Vec<_> = headers.get_all(old).map(<[u8]>::to_vec).collect();
            if !values.is_empty() {
                headers.remove(old);
                headers.remove(new);
                for value in values {
                    headers.append(new, value);
                }
            }
        }
        for (name, value) in self.replace.iter().filter(|(name, _)| free(name)) {
            if headers.contains(name) {
                headers.set(name, value);
            }
        }
        for (name, value) in self.add.iter().filter(|(name, _)| free(name)) {
            if !headers.contains(name) {
                headers.append(name, value);
            }
        }
        for (name, value) in self.append.iter().filter(|(name, _)| free(name)) {
            headers.append(name, value);
        }
    }
}

impl Operations<Value> {
    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && [&self.replace, &self.add, &self.append].iter().all(|list| list.is_empty())
    }

    /// The changed body; `None` when it is no JSON object.
    fn changed(&self, body: &[u8]) -> Option<Bytes> {
        let mut members: Map<String, Value> = serde_json::from_slice(body).ok()?;
        self.apply(&mut members);
        Some(Value::Object(members).to_string().into())
    }

    fn apply(&self, members: &mut Map<String, Value>) {
        let is_there = |members: &Map<String, Value>, name: &str| members.get(name).is_some_and(|value| *value != Value::Bool(false));
        for name in &self.remove {
            members.remove(name);
        }
        for (old, new) in &self.rename {
            if let Some(value) = members.remove(old) {
                members.insert(new.clone(), value);
            }
        }
        for (name, value) in &self.replace {
            if is_there(members, name) {
                members.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in &self.add {
            if !is_there(members, name) {
                members.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in &self.append {
            let old = members.entry(name).or_insert(Value::Null);
            match old {
                Value::Array(list) => list.push(value.clone()),
                Value::String(_) => *old = Value::Array(vec![old.take(), value.clone()]),
                Value::Object(_) => {}
                _ => *old = Value::Array(vec![value.clone()]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{exchange, plugin, refused};

    /// An answer with these headers and this body, in pieces, after both filters.
    fn answer(config: Value, headers: &[(&str, &str)], body: &[&'static str]) -> (Vec<String>, Vec<String>) {
        let plugin: ResponseTransformer = plugin(config);
        let mut x = exchange("GET", "/", &[]);
        for (name, value) in headers {
            x.response.headers.append(name, value);
        }
        x.response.body = Body::from(Bytes::from(body.concat()));
        plugin.header_filter(&mut x);
        let sent = body.iter().enumerate().map(|(n, piece)| {
            let mut chunk = Bytes::from_static(piece.as_bytes());
            plugin.body_filter(&mut x, &mut chunk, n + 1 == body.len());
            String::from_utf8(chunk.to_vec()).unwrap()
        });
        let sent = sent.collect();
        let headers = x.response.headers.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v)));
        (headers.map(|(n, v)| format!("{n}: {v}")).collect(), sent)
    }

    #[test]
    fn headers_are_removed_renamed_replaced_added_and_appended() {
        let config = json!({
            "remove": {"headers": ["X-Gone", "X-Some:b", "Content-Length"]},
            "rename": {"headers": ["X-Old:X-New"]},
            "replace": {"headers": ["X-Rep:r:x", "X-Absent:1"]},
            "add": {"headers": ["X-Add:1", "X-There:no"]},
            "append": {"headers": ["X-App:2", "X-App2:1"]}
        });
        let sent = [
            ("X-Gone", "1"),
            ("x-some", "a"),
            ("X-Some", "b"),
            ("X-Old", "o"),
            ("X-Rep", "1"),
            ("X-There", "yes"),
            ("X-App", "1"),
            ("Content-Length", "1"),
        ];
        let (headers, body) = answer(config, &sent, &["x"]);
        assert_eq!(
            headers,
            ["X-Rep: r:x", "X-There: yes", "X-App: 1", "Content-Length: 1", "X-New: o", "X-Add: 1", "X-App: 2", "X-App2: 1"]
        );
        assert_eq!(body, ["x"]);
    }

    fn operations() -> Value {
        json!({
            "remove": {"json": ["gone", "none"]},
            "rename": {"json": ["old:new"]},
            "replace": {"json": ["rep:9", "absent:1"], "json_types": ["number", "string"]},
            "add": {"json": ["n:1", "b:true", "s:x", "there:no", "bad:x"], "json_types": ["number", "boolean", "string", "string", "number"]},
            "append": {"json": ["list:z", "one:2", "fresh:1.5"], "json_types": ["string", "number", "number"]}
        })
    }

    #[test]
    fn json_bodies_are_changed_whole() {
        let pieces = [r#"{"gone":1,"old":"o","rep":1,"there":"yes","#, r#""list":["a"],"one":1,"deep":{"gone":1}}"#];
        let (headers, body) = answer(operations(), &[("Content-Type", "application/json"), ("Content-Length", "80")], &pieces);
        assert_eq!(headers, ["Content-Type: application/json"]);
        assert_eq!(body[0], "");
        let expected = json!({"b": true, "deep": {"gone": 1}, "fresh": [1.5], "list": ["a", "z"], "n": 1, "new": "o", "one": [2], "rep": 9, "s": "x", "there": "yes"});
        assert_eq!(serde_json::from_str::<Value>(&body[1]).unwrap(), expected);
    }

    #[test]
    fn what_is_no_json_object_passes() {
        for (content_type, body) in
            [("application/json", "[1]"), ("application/json", "{"), ("text/plain", "{}"), ("application/jsonx", "{}")]
        {
            assert_eq!(answer(operations(), &[("Content-Type", content_type)], &[body]).1, [body]);
        }
        for content_type in ["application/json; charset=utf-8", "application/vnd.x+json", "text/plain, Application/JSON"] {
            assert_ne!(answer(operations(), &[("Content-Type", content_type)], &["{}"]).1, ["{}"]);
        }
        let plain = answer(json!({"add": {"headers": ["a:b"]}}), &[("Content-Type", "application/json"), ("Content-Length", "2")], &["{}"]);
        assert_eq!(plain.0, ["Content-Type: application/json", "Content-Length: 2", "a: b"]);
    }

    #[test]
    fn a_body_that_grows_too_large_passes() {
        let piece: &'static str = Box::leak("x".repeat(MAX_BODY / 2).into_boxed_str());
        let (_, body) = answer(operations(), &[("Content-Type", "application/json")], &[piece, piece, piece, piece]);
        assert_eq!(body.iter().map(String::len).collect::<Vec<_>>(), [0, 0, 3 * MAX_BODY / 2, MAX_BODY / 2]);
    }

    #[test]
    fn refuses_configurations_in_kongs_words() {
        let refused = |config| refused::<ResponseTransformer>(config)["config"].take();
        assert_eq!(refused(json!({"add": {"headers": ["x"]}})), json!({"add": {"headers": ["invalid value: x"]}}));
        assert_eq!(
            refused(json!({"add": {"json": ["a:1"], "json_types": ["integer"]}})),
            json!({"add": {"json_types": ["expected one of: boolean, number, string"]}})
        );
        assert_eq!(refused(json!({"rename": {"headers": ["a:b c"]}})), json!({"rename": {"headers": ["'b c' is not a valid header"]}}));
    }
}
