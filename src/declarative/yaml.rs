//! YAML text -> JSON value: the first document, aliases and merges followed, keys that stand twice joined or replaced.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 100;
/// Most values that aliases may add to a document.
const MAX_ALIASED: usize = 100_000;

/// What was read, and what a reader of it should be told.
pub struct Loaded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// Why a text is no YAML: `line:column: problem`, the place being that of the last thing understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub struct YamlError {
    pub line: usize,
    pub column: usize,
    pub problem: String,
}

/// Reads the first document of a text.
pub fn parse(text: &str) -> Result<Loaded, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { text, parser, place: (1, 1), anchors: HashMap::new(), aliased: 0, warnings: Vec::new() };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Loaded { value: Value::Null, warnings: reader.warnings }),
            Event::DocumentStart(_) => break,
            _ => {}
        }
    }
    let event = reader.next()?;
    let value = reader.value(event, 0)?;
    Ok(Loaded { value, warnings: reader.warnings })
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Line and column where the last event starts, from one.
    place: (usize, usize),
    anchors: HashMap<usize, Value>,
    aliased: usize,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, YamlError> {
        match self.parser.next() {
            Some(Ok((event, Span { start, .. }))) => {
                self.place = (start.line(), start.col() + 1);
                Ok(event)
            }
            Some(Err(error)) => {
                self.place = last_understood(self.text, error.marker().index()).max(self.place);
                Err(self.error(problem(error.info())))
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn error(&self, problem: impl Into<String>) -> YamlError {
        YamlError { line: self.place.0, column: self.place.1, problem: problem.into() }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(self.error("the document is nested too deeply"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref()), anchor),
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        event => list.push(self.value(event, depth + 1)?),
                    }
                }
                (Value::Array(list), anchor)
            }
            Event::MappingStart(anchor, _) => (Value::Object(self.table(depth)?), anchor),
            Event::Alias(id) => {
                let value = self.anchors.get(&id).cloned().ok_or_else(|| self.error("invalid reference"))?;
                self.aliased += size(&value);
                if self.aliased > MAX_ALIASED {
                    return Err(self.error("the document's aliases stand for too much"));
                }
                return Ok(value);
            }
            _ => return Err(self.error("did not find expected node content")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn table(&mut self, depth: usize) -> Result<Map<String, Value>, YamlError> {
        let mut table = Map::new();
        let mut merged = Map::new();
        loop {
            let (key, plain) = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, _) => (text.into_owned(), style == ScalarStyle::Plain),
                event => {
                    let key = self.value(event, depth + 1)?;
                    (key.to_string(), false)
                }
            };
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            if plain && key == "<<" {
                merge(&mut merged, value);
                continue;
            }
            match (table.get_mut(&key), value) {
                (Some(Value::Array(first)), Value::Array(second)) if depth == 0 => {
                    self.warnings.push(format!("'{key}' stands twice: its lists are joined"));
                    first.extend(second);
                }
                (Some(slot), value) => {
                    if depth == 0 {
                        self.warnings.push(format!("'{key}' stands twice: the last one counts"));
                    }
                    *slot = value;
                }
                (None, value) => {
                    table.insert(key, value);
                }
            }
        }
        for (key, value) in merged {
            table.entry(key).or_insert(value);
        }
        Ok(table)
    }
}

/// Where the last thing starts that is understood before that many characters. The parser reads ahead and reports a problem
/// before it hands out what stands in front of it.
fn last_understood(text: &str, characters: usize) -> (usize, usize) {
    let end = text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    let mut place = (1, 1);
    for (event, span) in Parser::new_from_str(&text[..end]).map_while(Result::ok) {
        if !matches!(event, Event::SequenceEnd | Event::MappingEnd | Event::DocumentEnd | Event::StreamEnd) {
            place = (span.start.line(), span.start.col() + 1);
        }
    }
    place
}

/// `<<`: fields of another table, or of several, for those that are not written.
fn merge(into: &mut Map<String, Value>, value: Value) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                into.entry(key).or_insert(value);
            }
        }
        Value::Array(list) => list.into_iter().for_each(|value| merge(into, value)),
        _ => {}
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.suffix == "str" || tag.handle == "!");
    if style == ScalarStyle::Plain && !is_text { scalar::plain(text) } else { Value::String(text.to_owned()) }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(table) => 1 + table.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The problem in the words of libyaml, which Kong's users know.
fn problem(info: &str) -> String {
    let bare = match info.split_once(", ") {
        Some((context, problem)) if context.starts_with("while ") => problem,
        _ => info,
    };
    match bare {
        "expected ',' or ']'" => "did not find expected ',' or ']'",
        "found unknown anchor" => "invalid reference",
        "simple key expected" | "simple key expect ':'" => "could not find expected ':'",
        other if other.starts_with("tab") || other.starts_with("unexpected character") || other == "found a tab" => {
            "found character that cannot start any token"
        }
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        parse(text).map(|loaded| loaded.value).expect("YAML")
    }

    fn refused(text: &str) -> String {
        parse(text).map(|loaded| loaded.value).expect_err("no YAML").to_string()
    }

    #[test]
    fn documents() {
        let text = "_format_version: '3.0'\nservices:\n- &a\n  name: s\n  retries: 3\n- <<: *a\n  name: \"yes\"\n---\nignored: 1\n";
        let services = json!([{"name": "s", "retries": 3}, {"name": "yes", "retries": 3}]);
        assert_eq!(value(text), json!({"_format_version": "3.0", "services": services}));
        assert_eq!(value("\u{feff}a: {b: [1, yes, ~]}"), json!({"a": {"b": [1, true, null]}}));
        assert_eq!(value(""), Value::Null);
        assert_eq!(value("hello"), json!("hello"));
        assert_eq!(value("a: |\n  one\n  two\nb: !!str 5\n"), json!({"a": "one\ntwo\n", "b": "5"}));
    }

    #[test]
    fn keys_that_stand_twice() {
        let loaded = parse("plugins: [1]\nplugins: [2]\nx: {a: 1, a: 2}\n").expect("YAML");
        assert_eq!(loaded.value, json!({"plugins": [1, 2], "x": {"a": 2}}));
        assert_eq!(loaded.warnings, ["'plugins' stands twice: its lists are joined"]);
    }

    #[test]
    fn problems_and_their_places() {
        assert_eq!(refused("a: [1, 2"), "1:8: did not find expected ',' or ']'");
        assert_eq!(refused("a: [1"), "1:5: did not find expected ',' or ']'");
        assert_eq!(refused("_format_version: '3.0'\n\tservices: []\n"), "1:18: found character that cannot start any token");
        assert!(refused("a: *b").ends_with("invalid reference"));
    }

    #[test]
    fn bombs() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let alias = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
        }
        assert!(refused(&text).ends_with("aliases stand for too much"));
        assert!(parse(&"[".repeat(5000)).is_err());
    }
}
