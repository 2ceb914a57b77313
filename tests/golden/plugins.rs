//! What Kong says of its plugins, against what Troop says of its own: priorities, phases, scopes, protocols, defaults, and what
//! is wrong with an empty configuration.

use std::collections::BTreeMap;

use schema::{Context, Object, Value, Violations, json, validate};
use serde::Deserialize;
use troop::model;
use troop::plugin::{Descriptor, Phases};
use troop::plugins::{self, PLUGINS};

/// Phases in which a plugin takes part otherwise than Kong's, each with its reason.
const OTHER_PHASES: &[(&str, &str, &str)] = &[
    ("rate-limiting", "header_filter", "the answer is told the limits when there is one, not before there is an upstream"),
    ("response-ratelimiting", "log", "an answer is counted when its head is there, before the next request can come"),
];

const PHASES: [(&str, Phases); 5] = [
    ("rewrite", Phases::REWRITE),
    ("access", Phases::ACCESS),
    ("header_filter", Phases::HEADER_FILTER),
    ("body_filter", Phases::BODY_FILTER),
    ("log", Phases::LOG),
];

#[derive(Deserialize)]
struct Facts {
    priority: i32,
    phases: Vec<String>,
    scopes: BTreeMap<String, bool>,
    protocols: Protocols,
    default_config: Option<Value>,
    error_when_config_empty: Option<Refusal>,
}

#[derive(Deserialize)]
struct Protocols {
    default: Vec<String>,
    allowed: Vec<String>,
}

#[derive(Deserialize)]
struct Refusal {
    fields: Object,
    message: String,
}

/// The plugins that both have.
fn both() -> Vec<(&'static Descriptor, Facts)> {
    let mut facts: BTreeMap<String, Facts> = serde_json::from_str(include_str!("plugins.json")).unwrap();
    let both: Vec<_> = PLUGINS.iter().filter_map(|plugin| Some((plugin, facts.remove(plugin.name)?))).collect();
    assert!(!both.is_empty());
    both
}

fn row(name: &str, more: Value) -> Result<Object, Violations> {
    let choose = |_: &str, name: &str| plugins::plugin(name).map(Descriptor::chosen);
    let context = Context { choose: &choose, ..Context::bare() };
    let Value::Object(mut input) = more else { unreachable!("a row is an object") };
    input.insert("name".to_owned(), name.into());
    validate::insert(model::entity("plugins").unwrap(), input, &context)
}

#[test]
fn priorities_and_phases() {
    for (plugin, facts) in both() {
        assert_eq!(plugin.priority, facts.priority, "{}", plugin.name);
        for (name, phase) in PHASES {
            let otherwise = OTHER_PHASES.iter().any(|(plugin_name, phase_name, _)| (*plugin_name, *phase_name) == (plugin.name, name));
            let expected = facts.phases.iter().any(|phase| phase == name) != otherwise;
            assert_eq!(plugin.phases.has(phase), expected, "{} in {name}", plugin.name);
        }
    }
}

#[test]
fn priorities_differ() {
    let mut priorities: Vec<_> = PLUGINS.iter().map(|plugin| plugin.priority).collect();
    priorities.sort_unstable();
    assert!(priorities.windows(2).all(|pair| pair[0] != pair[1]), "the order of plugins is the same everywhere: {priorities:?}");
}

#[test]
fn scopes_and_protocols() {
    for (plugin, facts) in both() {
        for scope in ["route", "service", "consumer"] {
            let id = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";
            let found = row(plugin.name, json!({scope: {"id": id}})).err().and_then(|violations| violations.get(scope).cloned());
            let expected = (!facts.scopes[scope]).then(|| json!("value must be null"));
            assert_eq!(found, expected, "{} on a {scope}", plugin.name);
        }
        assert_eq!(plugin.protocols, facts.protocols.default, "{}", plugin.name);
        assert_eq!(plugin.allowed_protocols, facts.protocols.allowed, "{}", plugin.name);
    }
}

#[test]
fn empty_configurations() {
    for (plugin, facts) in both() {
        match (row(plugin.name, json!({"config": {}})), facts.error_when_config_empty) {
            (Ok(mut row), None) => assert_eq!(row.remove("config"), facts.default_config, "{}", plugin.name),
            (Err(violations), Some(refusal)) => {
                assert_eq!(violations.message(), refusal.message, "{}", plugin.name);
                assert_eq!(violations.0, refusal.fields, "{}", plugin.name);
            }
            (Ok(_), Some(refusal)) => panic!("{}: not refused: {}", plugin.name, refusal.message),
            (Err(violations), None) => panic!("{}: refused: {violations}", plugin.name),
        }
    }
}

/// Defaults of configurations that need more than nothing, field by field.
#[test]
fn defaults() {
    for (plugin, facts) in both() {
        let Some(Value::Object(defaults)) = facts.default_config else { continue };
        let record = (plugin.config)();
        for (name, expected) in &defaults {
            let field = record.get(name);
            let default = field.and_then(|field| field.default.clone()).unwrap_or_default();
            let is_record = field.is_some_and(|field| matches!(field.kind, schema::Kind::Record(_)));
            let is_shorthand = record.shorthands.iter().any(|shorthand| shorthand.field.name == name);
            assert!(is_record || is_shorthand || default == *expected, "{}: {name} is {default}, not {expected}", plugin.name);
        }
        let unknown: Vec<_> = record.fields.iter().filter(|f| !f.sparse && f.default.is_some() && !defaults.contains_key(f.name)).collect();
        assert!(unknown.is_empty(), "{}: defaults that Kong does not have: {unknown:?}", plugin.name);
    }
}
