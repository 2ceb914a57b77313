//! A schema in the form of `GET /schemas/...`: fields as a list of objects of one key, and the checks across them.

use serde_json::{Map, Value, json};

use crate::check::{Check, Match};
use crate::complete::Shape;
use crate::field::{Field, Kind, OnDelete, Rule};
use crate::record::{Chosen, EntitySchema, Meaning, Record, Shorthand};
use crate::validate::Context;

/// `GET /schemas/{entity}`.
pub fn entity(schema: &EntitySchema, context: &Context) -> Value {
    let shape = Shape::of(schema.record, context);
    let of = Of { name: schema.name, plugin: false };
    let fields: Vec<Value> = shape.fields().map(|f| named(f, of)).collect();
    json!({ "fields": fields, "entity_checks": checks(&schema.record.checks) })
}

/// `GET /schemas/plugins/{name}` and the like: what a row has beyond the general schema of its entity.
pub fn chosen(chosen: &Chosen, name: &str) -> Value {
    let of = Of { name, plugin: true };
    // Kong, which knows no groups, does not say that a plugin cannot have one.
    let mut fields: Vec<Value> = chosen.fields.iter().filter(|f| !f.sparse).map(|f| named(f, of)).collect();
    if let Some(config) = chosen.config {
        let mut described = record(config, of);
        described.insert("required".to_owned(), true.into());
        fields.push(json!({ "config": described }));
    }
    json!({ "fields": fields, "entity_checks": checks(&chosen.checks) })
}

/// What is described.
#[derive(Clone, Copy)]
struct Of<'a> {
    /// The plugin or the entity, for texts that name it.
    name: &'a str,
    plugin: bool,
}

fn named(field: &Field, of: Of) -> Value {
    json!({ field.name: describe(field, of) })
}

fn describe(field: &Field, of: Of) -> Map<String, Value> {
    let mut out = match &field.kind {
        Kind::Record(inside) => record(inside, of),
        Kind::Chosen => Map::from_iter([("type".to_owned(), "record".into()), ("abstract".to_owned(), true.into())]),
        _ => Map::new(),
    };
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    match &field.kind {
        Kind::String => {
            put("type", "string".into());
            put("len_min", 1.into());
        }
        Kind::Integer => put("type", "integer".into()),
        Kind::Number => put("type", "number".into()),
        Kind::Boolean => put("type", "boolean".into()),
        Kind::Any => put("type", "any".into()),
        Kind::Array(element) => {
            put("type", "array".into());
            put("elements", describe(element, of).into());
        }
        Kind::Set(element) => {
            put("type", "set".into());
            put("elements", describe(element, of).into());
        }
        Kind::Map { keys, values } => {
            put("type", "map".into());
            put("keys", describe(keys, of).into());
            put("values", describe(values, of).into());
        }
        Kind::Foreign { to, on_delete } => {
            put("type", "foreign".into());
            put("reference", (*to).into());
            if *on_delete == OnDelete::Cascade {
                put("on_delete", "cascade".into());
            }
        }
        Kind::Record(_) | Kind::Chosen => {}
    }
    if !field.doc.is_empty() {
        put("description", field.doc.into());
    }
    // Of an entity's record the defaults inside are shown as a whole too; of a plugin's they are not.
    let whole = match field.kind {
        Kind::Record(inside) if field.required && !of.plugin => defaults(inside),
        _ => None,
    };
    if let Some(default) = field.default.clone().or(whole) {
        put("default", default);
    }
    if field.required {
        put("required", true.into());
    }
    let flags = [
        (field.auto, "auto"),
        (field.unique, "unique"),
        (field.timestamp, "timestamp"),
        (field.referenceable, "referenceable"),
        (field.encrypted, "encrypted"),
        (field.immutable, "immutable"),
        (field.transient, "transient"),
    ];
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        put(name, true.into());
    }
    if let Some(error) = field.error {
        put("err", error.into());
    }
    for rule in &field.rules {
        out.extend(describe_rule(rule));
    }
    out
}

/// The defaults inside a record; `None` when there are none.
fn defaults(record: &Record) -> Option<Value> {
    let default = |field: &Field| match field.kind {
        Kind::Record(inside) => defaults(inside),
        _ => field.default.clone(),
    };
    let found: Map<String, Value> = record.fields.iter().filter_map(|f| default(f).map(|value| (f.name.to_owned(), value))).collect();
    (!found.is_empty()).then_some(Value::Object(found))
}

fn record(record: &Record, of: Of) -> Map<String, Value> {
    let fields: Vec<Value> = record.fields.iter().map(|f| named(f, of)).collect();
    let mut out = Map::from_iter([("type".to_owned(), "record".into()), ("fields".to_owned(), fields.into())]);
    if !record.checks.is_empty() {
        out.insert("entity_checks".to_owned(), checks(&record.checks));
    }
    if !record.shorthands.is_empty() {
        let shorthands: Vec<Value> = record.shorthands.iter().map(|s| shorthand(s, of)).collect();
        out.insert("shorthand_fields".to_owned(), shorthands.into());
    }
    out
}

fn shorthand(shorthand: &Shorthand, of: Of) -> Value {
    let name = shorthand.field.name;
    let mut out = describe(&shorthand.field, of);
    if let Meaning::Alias(path) = shorthand.meaning {
        let message = format!("{}: config.{name} is deprecated, please use config.{} instead", of.name, path.join("."));
        let deprecation = json!({ "message": message, "removal_in_version": "4.0", "replaced_with": [{ "path": path }] });
        out.insert("deprecation".to_owned(), deprecation);
    }
    json!({ name: out })
}

fn patterns(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(pattern, error)| json!({ "pattern": pattern, "err": error })).collect()
}

fn describe_rule(rule: &Rule) -> Option<(String, Value)> {
    let (name, value) = match rule {
        Rule::Between(low, high) => ("between", json!([low, high])),
        Rule::GreaterThan(low) if low.fract() == 0.0 => ("gt", json!(*low as i64)),
        Rule::GreaterThan(low) => ("gt", json!(low)),
        Rule::OneOf(values) => ("one_of", json!(values)),
        Rule::NotOneOf(values) => ("not_one_of", json!(values)),
        Rule::LenMin(n) => ("len_min", json!(n)),
        Rule::LenMax(n) => ("len_max", json!(n)),
        Rule::LenEq(n) => ("len_eq", json!(n)),
        Rule::StartsWith(prefix) => ("starts_with", json!(prefix)),
        Rule::Contains(value) => ("contains", value.clone()),
        Rule::Equals(value) => ("eq", value.clone()),
        Rule::NotEquals(value) => ("ne", value.clone()),
        Rule::Uuid => ("uuid", json!(true)),
        Rule::Matches(pattern) => ("match", json!(pattern)),
        Rule::MatchNone(list) => ("match_none", patterns(list)),
        Rule::MatchAll(list) => ("match_all", patterns(list)),
        Rule::MatchAny(list, error) => ("match_any", json!({ "patterns": list, "err": error })),
        Rule::MutuallyExclusiveSubsets(sets) => ("mutually_exclusive_subsets", json!(sets)),
        Rule::Custom { .. } => return None,
    };
    Some((name.to_owned(), value))
}

fn describe_match(condition: &Match) -> Value {
    let rule = |rule: &Rule| Map::from_iter(describe_rule(rule));
    match condition {
        Match::Required | Match::RequiredAnd(_) => json!({ "required": true }),
        Match::Null => json!({ "eq": null }),
        Match::Empty => json!({ "len_eq": 0 }),
        Match::Rule(of) => rule(of).into(),
        Match::Elements(of) => {
            let mut elements = rule(of);
            elements.insert("type".to_owned(), "string".into());
            json!({ "elements": elements })
        }
    }
}

fn checks(checks: &[Check]) -> Value {
    checks.iter().map(describe_check).collect()
}

fn describe_check(check: &Check) -> Value {
    match check {
        Check::AtLeastOneOf(fields) => json!({ "at_least_one_of": fields }),
        Check::OnlyOneOf(fields) => json!({ "only_one_of": fields }),
        Check::MutuallyExclusive(fields) => json!({ "mutually_exclusive": fields }),
        Check::MutuallyRequired(fields) => json!({ "mutually_required": fields }),
        Check::Distinct(fields) => json!({ "distinct": fields }),
        Check::Conditional { when, is, then, must, error } => {
            let mut out = json!({
                "if_field": when, "if_match": describe_match(is), "then_field": then, "then_match": describe_match(must),
            });
            if let Some(error) = error {
                out["then_err"] = (*error).into();
            }
            json!({ "conditional": out })
        }
        Check::ConditionalAtLeastOneOf { when, is, then, error, or } => {
            let mut out = json!({
                "if_field": when, "if_match": describe_match(is), "then_at_least_one_of": then, "then_err": error,
            });
            if let Some((is, then, error)) = or {
                out["else_match"] = describe_match(is);
                out["else_then_at_least_one_of"] = json!(then);
                out["else_then_err"] = (*error).into();
            }
            json!({ "conditional_at_least_one_of": out })
        }
        Check::Custom { fields, .. } => json!({ "custom_entity_check": { "field_sources": fields } }),
        Check::Contextual { fields, .. } => {
            json!({ "custom_entity_check": { "field_sources": fields, "run_with_missing_fields": true } })
        }
    }
}
