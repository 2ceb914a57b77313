//! `custom_fields_by_lua`: members that a log plugin adds to its records, changes in them, or takes out.

use std::collections::BTreeMap;

use bytes::Bytes;
use schema::{Field, FieldType};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::plugin::record::record;
use crate::plugin::template::Script;
use crate::plugin::{Env, Exchange};

/// The configuration: names, with dots between the levels, and the Lua that gives each its value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct CustomFieldsByLua(BTreeMap<String, String>);

impl FieldType for CustomFieldsByLua {
    fn field() -> Field {
        <BTreeMap<String, String>>::field().keys(|key| key.len_min(1)).values(|source| source.len_min(1).check("lua", check))
    }
}

fn check(source: &Value) -> Result<(), String> {
    let source = source.as_str().unwrap_or_default();
    let wrong = |error| format!("Error parsing function: [string \"{}\"]:1: {error}", chunk(source));
    Script::parse(source).map(|_| ()).map_err(wrong)
}

/// A source as Lua names it in its error texts: its first line, cut after 45 bytes.
fn chunk(source: &str) -> String {
    const LONGEST: usize = 45;
    let line = source.lines().next().unwrap_or_default();
    let mut end = line.len().min(LONGEST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    if end < source.len() { format!("{}...", &line[..end]) } else { line.to_owned() }
}

/// Makes the records of one configuration of a log plugin.
pub struct Recorder {
    plugin: &'static str,
    fields: Vec<(Vec<String>, Script)>,
    failures: prometheus::IntCounter,
}

impl Recorder {
    pub fn new(plugin: &'static str, fields: Option<&CustomFieldsByLua>, env: &Env) -> Self {
        let sources = fields.iter().flat_map(|fields| &fields.0);
        // a name with an escaped dot never gets into a record of Kong's
        let sources = sources.filter(|(name, _)| !name.contains("\\."));
        let parsed = |(name, source): (&String, &String)| {
            // what was validated can be parsed
            Some((name.split('.').map(str::to_owned).collect(), Script::parse(source).ok()?))
        };
        let failures = env.handles.metrics.log_records_dropped().with_label_values(&[plugin, "custom field"]);
        Self { plugin, fields: sources.filter_map(parsed).collect(), failures }
    }

    /// The record of this request. `None`, with a line in the log, when one of the fields fails: such a record is not written.
    pub fn record(&self, x: &mut Exchange) -> Option<Bytes> {
        let shared = record(x);
        if self.fields.is_empty() {
            return Some(shared);
        }
        match self.apply(x, &shared) {
            Ok(own) => Some(own),
            Err(error) => {
                self.failures.inc();
                tracing::warn!(plugin = self.plugin, request_id = x.request_id.as_str(), error, "a custom field fails, there is no record");
                None
            }
        }
    }

    fn apply(&self, x: &Exchange, shared: &[u8]) -> Result<Bytes, String> {
        let mut record: Map<String, Value> = serde_json::from_slice(shared).map_err(|error| error.to_string())?;
        for (path, script) in &self.fields {
            let value = script.value(x).map_err(|error| format!("{}: {error}", path.join(".")))?;
            set(&mut record, path, value)?;
        }
        serde_json::to_vec(&record).map(Bytes::from).map_err(|error| error.to_string())
    }
}

/// Sets the member at a path, or removes it; levels that are not there are made.
fn set(record: &mut Map<String, Value>, path: &[String], value: Option<Value>) -> Result<(), String> {
    let Some((last, levels)) = path.split_last() else { return Ok(()) };
    let mut table = record;
    for level in levels {
        if value.is_none() && !table.contains_key(level) {
            return Ok(());
        }
        table = match table.entry(level).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => inner,
            _ => return Err(format!("{}: '{level}' is no table", path.join("."))),
        };
    }
    match value {
        Some(value) => table.insert(last.clone(), value),
        None => table.remove(last),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{env, exchange};

    fn written(fields: Value) -> Option<Value> {
        let fields: CustomFieldsByLua = serde_json::from_value(fields).expect("a map of texts");
        let mut x = exchange("GET", "/p?a=1", &[("Accept", "*/*"), ("X-In", "in")]);
        let record = Recorder::new("test", Some(&fields), &env()).record(&mut x)?;
        Some(serde_json::from_slice(&record).expect("a record is JSON"))
    }

    #[test]
    fn members_are_added_changed_and_removed() {
        let record = written(json!({
            "mine": "return 'v'", "a.b.c": "return 7", "a.b.d": "return {1, 2}", "source": "return nil", "none.x": "return nil",
            "request.headers.accept": "return 'changed'", "from": "return kong.request.get_header('x-in')", "dotted\\.name": "return 1",
        }))
        .expect("a record");
        assert_eq!((&record["mine"], &record["a"], &record["from"]), (&json!("v"), &json!({"b": {"c": 7, "d": [1, 2]}}), &json!("in")));
        assert_eq!(record["request"]["headers"], json!({"accept": "changed", "x-in": "in"}));
        for absent in ["source", "none", "dotted\\.name", "dotted.name", "dotted\\"] {
            assert_eq!(record.get(absent), None, "{absent}");
        }
        assert_eq!(record["client_ip"], "127.0.0.1");
    }

    #[test]
    fn without_fields_the_record_is_shared() {
        let mut x = exchange("GET", "/", &[]);
        let recorder = Recorder::new("test", None, &env());
        let shared = record(&mut x);
        assert_eq!(recorder.record(&mut x).map(|record| record.as_ptr()), Some(shared.as_ptr()));
    }

    #[test]
    fn a_field_that_fails_costs_the_record_and_is_counted() {
        assert_eq!(written(json!({"bad": "return kong.router.get_route().name"})), None);
        assert_eq!(written(json!({"client_ip.x": "return 1"})), None);
        let env = env();
        let fields: CustomFieldsByLua = serde_json::from_value(json!({"bad": "return 1 / 0"})).expect("a map of texts");
        assert!(Recorder::new("test", Some(&fields), &env).record(&mut exchange("GET", "/", &[])).is_none());
        assert_eq!(env.handles.metrics.log_records_dropped().with_label_values(&["test", "custom field"]).get(), 1);
    }

    #[test]
    fn sources_are_named_as_lua_does() {
        let text = |source: &str| check(&json!(source)).unwrap_err();
        assert_eq!(text("return ("), "Error parsing function: [string \"return (\"]:1: unexpected symbol near '<eof>'");
        let long = format!("return '{}", "x".repeat(60));
        assert!(text(&long).starts_with(&format!("Error parsing function: [string \"return '{}...\"]:1: ", "x".repeat(37))));
        assert!(text("return (\n1").contains("[string \"return (...\"]"));
    }
}
