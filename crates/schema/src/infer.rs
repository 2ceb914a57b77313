//! Forms, where everything is text -> input, by what the schema expects.

use serde_json::{Number, Value};

use crate::Object;
use crate::complete::Shape;
use crate::field::{Field, Kind};
use crate::record::EntitySchema;
use crate::validate::{Context, choose};

/// Gives the texts of a form the types of the fields that they are for: numbers where one is wanted and readable, booleans for
/// `true` and `false`, null for an empty text, a list of one for a lone value, nested tables under a map of texts joined with
/// dots. What does not fit stays as it is, for validation to say so. `existing` is the row that is patched.
pub fn infer(schema: &EntitySchema, mut input: Object, existing: Option<&Object>, context: &Context) -> Object {
    let mut keyed = existing.cloned().unwrap_or_default();
    if let Some(subschema) = schema.subschema
        && let Some(value) = input.get_mut(subschema.key)
    {
        if let Some(field) = schema.record.get(subschema.key) {
            *value = infer_value(Shape::of(schema.record, context), field, value.take());
        }
        keyed.insert(subschema.key.to_owned(), value.clone());
    }
    let chosen = choose(schema, &keyed, context).unwrap_or_default();
    infer_record(Shape { record: schema.record, chosen: chosen.as_ref(), context }, input)
}

fn infer_record(shape: Shape, input: Object) -> Object {
    let infer_one = |(name, value): (String, Value)| {
        let shorthand = || shape.record.shorthands.iter().map(|s| &s.field).find(|f| f.name == name);
        let value = match shape.field(&name).or_else(shorthand) {
            Some(field) => infer_value(shape, field, value),
            None => value,
        };
        (name, value)
    };
    input.into_iter().map(infer_one).collect()
}

fn infer_value(shape: Shape, field: &Field, value: Value) -> Value {
    if value.as_str() == Some("") {
        return Value::Null;
    }
    match (&field.kind, value) {
        (Kind::Integer | Kind::Number, Value::String(text)) => number(&text).map_or(Value::String(text), Value::Number),
        (Kind::Boolean, Value::String(text)) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::String(text),
        },
        (Kind::Array(of) | Kind::Set(of), Value::Array(list)) => {
            Value::Array(list.into_iter().map(|item| infer_value(shape, of, item)).collect())
        }
        (Kind::Array(of) | Kind::Set(of), Value::Object(table)) => match by_index(table) {
            Ok(list) => Value::Array(list.into_iter().map(|item| infer_value(shape, of, item)).collect()),
            Err(table) => Value::Array(vec![infer_value(shape, of, Value::Object(table))]),
        },
        (Kind::Array(of) | Kind::Set(of), lone) if !lone.is_null() => Value::Array(vec![infer_value(shape, of, lone)]),
        (Kind::Map { values, .. }, Value::Object(table)) => {
            let table = if holds_text(&values.kind) { join_keys(table) } else { table };
            Value::Object(table.into_iter().map(|(key, value)| (key, infer_value(shape, values, value))).collect())
        }
        (Kind::Record(_) | Kind::Chosen, Value::Object(table)) => match shape.inside(field) {
            Some(inside) => Value::Object(infer_record(inside, table)),
            None => Value::Object(table),
        },
        (_, value) => value,
    }
}

/// Lua's `tonumber`, without hexadecimal.
fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Number::from(whole));
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

/// `{"1": a, "2": b}` as a list.
fn by_index(table: Object) -> Result<Vec<Value>, Object> {
    let mut indexed: Vec<(usize, &String)> = Vec::new();
    for key in table.keys() {
        match key.parse() {
            Ok(at) => indexed.push((at, key)),
            Err(_) => return Err(table),
        }
    }
    indexed.sort_unstable();
    Ok(indexed.into_iter().map(|(_, key)| table[key].clone()).collect())
}

fn holds_text(kind: &Kind) -> bool {
    matches!(kind, Kind::String | Kind::Integer | Kind::Number | Kind::Boolean)
}

/// `{"service": {"name": "x"}}` as `{"service.name": "x"}`.
fn join_keys(table: Object) -> Object {
    let mut joined = Object::new();
    for (key, value) in table {
        match value {
            Value::Object(inner) => joined.extend(join_keys(inner).into_iter().map(|(rest, v)| (format!("{key}.{rest}"), v))),
            value => {
                joined.insert(key, value);
            }
        }
    }
    joined
}
