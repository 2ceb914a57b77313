//! Arguments of a query string and of form bodies: names such as `a.b`, `a[]`, `a[1]` and `a[k]` make nested tables.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde_json::{Map, Value};

/// More arguments than this are refused.
pub const MAX_ARGUMENTS: usize = 1000;
/// Deeper names than this are refused: no schema is that deep.
const MAX_DEPTH: usize = 32;

/// Why arguments were refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ArgumentError {
    #[error("Too many arguments")]
    TooMany,
    #[error("Cannot parse form body")]
    Malformed,
}

/// Splits a url-encoded text into decoded pairs; a name without `=` has no value.
pub fn pairs(text: &[u8]) -> Result<Vec<(String, Option<String>)>, ArgumentError> {
    let mut out = Vec::new();
    for piece in text.split(|b| *b == b'&').filter(|piece| !piece.is_empty()) {
        if out.len() == MAX_ARGUMENTS {
            return Err(ArgumentError::TooMany);
        }
        let (name, value) = match piece.iter().position(|b| *b == b'=') {
            Some(at) => (&piece[..at], Some(decode(&piece[at + 1..]))),
            None => (piece, None),
        };
        out.push((decode(name), value));
    }
    Ok(out)
}

/// Decodes `%XX` and `+`.
pub fn decode(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// Nests pairs by their names. Every leaf is a string; the schema says later what it means.
pub fn nest(pairs: Vec<(String, Value)>) -> Result<Map<String, Value>, ArgumentError> {
    if pairs.len() > MAX_ARGUMENTS {
        return Err(ArgumentError::TooMany);
    }
    let mut root = Node::default();
    for (name, value) in pairs {
        root.put(&steps(&name)?, value);
    }
    Ok(root.children.into_iter().map(|(step, node)| (step.name(), node.value())).collect())
}

/// One step of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// `[1]`, counted from one.
    Index(u64),
    Name(String),
    /// `[]`: one more element.
    Append,
}

impl Step {
    fn name(self) -> String {
        match self {
            Self::Index(n) => n.to_string(),
            Self::Name(name) => name,
            Self::Append => String::new(),
        }
    }
}

/// `a.b[1].c` as steps. Brackets that do not close are part of the name.
fn steps(name: &str) -> Result<Vec<Step>, ArgumentError> {
    let mut out = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        if let Some((inside, after)) = rest.strip_prefix('[').filter(|_| !out.is_empty()).and_then(|r| r.split_once(']')) {
            out.push(match inside {
                "" => Step::Append,
                _ => inside.parse().map(Step::Index).unwrap_or_else(|_| Step::Name(inside.to_owned())),
            });
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let open = rest.char_indices().skip(1).find(|(_, c)| *c == '[').map(|(at, _)| at).filter(|at| rest[*at..].contains(']'));
            let end = rest.find('.').into_iter().chain(open).min().unwrap_or(rest.len());
            out.push(Step::Name(rest[..end].to_owned()));
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
        if out.len() > MAX_DEPTH {
            return Err(ArgumentError::Malformed);
        }
    }
    Ok(out)
}

#[derive(Default)]
struct Node {
    leaves: Vec<Value>,
    appended: Vec<Node>,
    children: BTreeMap<Step, Node>,
}

impl Node {
    fn put(&mut self, steps: &[Step], value: Value) {
        match steps {
            [] => self.leaves.push(value),
            [Step::Append, rest @ ..] => {
                let mut node = Node::default();
                node.put(rest, value);
                self.appended.push(node);
            }
            [step, rest @ ..] => self.children.entry(step.clone()).or_default().put(rest, value),
        }
    }

    fn value(self) -> Value {
        let Self { mut leaves, appended, children } = self;
        if appended.is_empty() && children.is_empty() {
            return match leaves.len() {
                0 => Value::Null,
                1 => leaves.remove(0),
                _ => Value::Array(leaves),
            };
        }
        let listed = children.keys().all(|step| matches!(step, Step::Index(_)));
        if listed {
            let indexed = children.into_values().map(Node::value);
            return Value::Array(leaves.into_iter().chain(indexed).chain(appended.into_iter().map(Node::value)).collect());
        }
        Value::Object(children.into_iter().map(|(step, node)| (step.name(), node.value())).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(text: &str) -> Value {
        let pairs = pairs(text.as_bytes()).unwrap();
        Value::Object(nest(pairs.into_iter().map(|(k, v)| (k, v.map_or(Value::Null, Value::String))).collect()).unwrap())
    }

    #[test]
    fn names_nest() {
        assert_eq!(form("a=1&b.c=2&b.d.e=3"), json!({"a": "1", "b": {"c": "2", "d": {"e": "3"}}}));
        assert_eq!(form("a[]=x&a[]=y"), json!({"a": ["x", "y"]}));
        assert_eq!(form("a%5B%5D=x"), json!({"a": ["x"]}));
        assert_eq!(form("a[2]=y&a[1]=x"), json!({"a": ["x", "y"]}));
        assert_eq!(form("a=x&a=y"), json!({"a": ["x", "y"]}));
        assert_eq!(form("h[x-y.z]=v&h[k][]=w"), json!({"h": {"x-y.z": "v", "k": ["w"]}}));
        assert_eq!(form("s[1].ip=1.2.3.4&s[1].port=80&s[2].ip=::1"), json!({"s": [{"ip": "1.2.3.4", "port": "80"}, {"ip": "::1"}]}));
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(form("a=b+c%2Bd&e=%F0%9F%91%8D&empty="), json!({"a": "b c+d", "e": "👍", "empty": ""}));
    }

    #[test]
    fn odd_names_are_kept() {
        assert_eq!(form("a[=1"), json!({"a[": "1"}));
        assert_eq!(form("[]=1"), json!({"[]": "1"}));
    }

    #[test]
    fn limits_hold() {
        let many = vec!["a=1"; 1001].join("&");
        assert_eq!(pairs(many.as_bytes()).err(), Some(ArgumentError::TooMany));
        let deep = format!("{}a=1", "a.".repeat(50));
        let pairs = pairs(deep.as_bytes()).unwrap();
        assert!(nest(pairs.into_iter().map(|(k, _)| (k, Value::Null)).collect()).is_err());
        assert_eq!(form("a[18446744073709551615]=x"), json!({"a": ["x"]}));
    }
}
