//! Request bodies: what media types are read, and what they become.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::admin::answer::Answer;
use crate::admin::{args, multipart};

/// A decoded request body.
#[derive(Debug, Default)]
pub enum Body {
    #[default]
    Absent,
    /// JSON, as it was sent: text is text and numbers are numbers.
    Json(Value),
    /// A form: every leaf is text, whose meaning the schema tells.
    Form(Map<String, Value>),
    /// A YAML document, for `/config` alone.
    Yaml(String),
}

/// How a body may be written at an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    pub yaml: bool,
}

impl Body {
    /// Decodes a body by its `Content-Type` fields.
    pub fn decode(media_types: &[&str], bytes: &Bytes, accepts: Accepts) -> Result<Self, Answer> {
        if media_types.len() > 1 {
            return Err(Answer::message(400, "Multiple Content-Type headers not allowed"));
        }
        let media_type = media_types.first().copied().unwrap_or_default();
        let kind = media_type.trim_start().to_ascii_lowercase();
        if bytes.is_empty() && (media_types.is_empty() || kind.starts_with("application/json")) {
            return Ok(Self::Absent);
        }
        if kind.starts_with("application/json") {
            return match serde_json::from_slice(bytes) {
                Ok(Value::Object(body)) => Ok(Self::Json(Value::Object(body))),
                // Kong cannot tell an empty list from an empty table.
                Ok(Value::Array(list)) if list.is_empty() => Ok(Self::Json(Value::Object(Map::new()))),
                _ => Err(Answer::message(400, "Cannot parse JSON body")),
            };
        }
        if kind.starts_with("application/x-www-form-urlencoded") {
            let pairs = args::pairs(bytes).map_err(|e| Answer::message(400, e.to_string()))?;
            // A name without a value is true, as in Kong.
            return form(pairs.into_iter().map(|(k, v)| (k, v.map_or(Value::Bool(true), Value::String))).collect());
        }
        if kind.starts_with("multipart/form-data") {
            if bytes.is_empty() {
                return Ok(Self::Absent);
            }
            let pairs = multipart::pairs(media_type, bytes).ok_or_else(|| Answer::message(400, "Cannot parse multipart body"))?;
            return form(pairs.into_iter().map(|(k, v)| (k, Value::String(v))).collect());
        }
        if accepts.yaml && (kind.starts_with("application/yaml") || kind.starts_with("text/yaml")) {
            return match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Self::Yaml(text.to_owned())),
                Err(_) => Err(Answer::message(400, "Cannot parse YAML body")),
            };
        }
        Err(Answer::page(415, "Unsupported Media Type"))
    }
}

fn form(pairs: Vec<(String, Value)>) -> Result<Body, Answer> {
    args::nest(pairs).map(Body::Form).map_err(|e| Answer::message(400, e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(media_types: &[&str], body: &'static str) -> u16 {
        Body::decode(media_types, &Bytes::from_static(body.as_bytes()), Accepts::default()).map_or_else(|a| a.status, |_| 200)
    }

    #[test]
    fn media_types() {
        assert_eq!(status(&[], ""), 200);
        assert_eq!(status(&[], "{}"), 415);
        assert_eq!(status(&["text/plain"], "{}"), 415);
        assert_eq!(status(&["text/plain"], ""), 415);
        assert_eq!(status(&["text/yaml"], "a: 1"), 415);
        assert_eq!(status(&["application/json", "application/json"], "{}"), 400);
        assert_eq!(status(&["application/json; charset=utf-8"], "{}"), 200);
        assert_eq!(status(&["application/json"], ""), 200);
        assert_eq!(status(&["application/json"], "{nope"), 400);
        assert_eq!(status(&["application/json"], "\"text\""), 400);
        assert_eq!(status(&["application/x-www-form-urlencoded"], "a=1"), 200);
        assert_eq!(status(&["multipart/form-data; boundary=x"], "junk"), 400);
    }

    #[test]
    fn yaml_where_it_is_read() {
        let body = Body::decode(&["application/yaml"], &Bytes::from_static(b"a: 1"), Accepts { yaml: true });
        assert!(matches!(body, Ok(Body::Yaml(text)) if text == "a: 1"));
    }

    #[test]
    fn forms_nest() {
        let body = Body::decode(&["application/x-www-form-urlencoded"], &Bytes::from_static(b"a.b=1&c"), Accepts::default());
        assert!(matches!(body, Ok(Body::Form(form)) if Value::Object(form.clone()) == json!({"a": {"b": "1"}, "c": true})));
    }
}
