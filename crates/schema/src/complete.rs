//! The first half of validation: other spellings become fields, what is absent gets its default, patches are merged.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Number, Value};

use crate::Object;
use crate::field::{Field, Kind, Rule};
use crate::record::{Chosen, Meaning, Record};
use crate::rules;
use crate::validate::{Context, check_value};
use crate::violations::Violations;

/// What is done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new row, or one that takes the place of another.
    Insert,
    /// A patch, already merged into the row.
    Update,
}

/// The fields of a record as this row has them: without those of features that the node lacks, some replaced by its subschema.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    pub record: &'a Record,
    pub chosen: Option<&'a Chosen>,
    pub context: &'a Context<'a>,
}

impl<'a> Shape<'a> {
    pub fn of(record: &'a Record, context: &'a Context<'a>) -> Self {
        Self { record, chosen: None, context }
    }

    pub fn fields(self) -> impl Iterator<Item = &'a Field> {
        let present = move |field: &&Field| field.feature.is_none_or(|feature| self.context.has(feature));
        let replaced = self.chosen.map_or(&[][..], |c| &c.fields);
        self.record.fields.iter().filter(present).map(|f| replaced.iter().find(|r| r.name == f.name).unwrap_or(f))
    }

    pub fn field(self, name: &str) -> Option<&'a Field> {
        self.fields().find(|f| f.name == name)
    }

    /// The field at a dotted path.
    pub fn path(self, path: &str) -> Option<&'a Field> {
        let Some((first, rest)) = path.split_once('.') else {
            return self.field(path);
        };
        self.inside(self.field(first)?)?.path(rest)
    }

    /// The shape of a field that is a record.
    pub fn inside(self, field: &'a Field) -> Option<Self> {
        match field.kind {
            Kind::Record(record) => Some(Self::of(record, self.context)),
            Kind::Chosen => Some(Self::of(self.chosen?.config?, self.context)),
            _ => None,
        }
    }
}

/// Replaces other spellings by the fields that they stand for.
pub fn expand(shape: Shape, data: &mut Object) -> Result<(), Violations> {
    let mut errors = Violations::default();
    for shorthand in &shape.record.shorthands {
        let name = shorthand.field.name;
        let Some(value) = data.remove(name) else {
            continue;
        };
        if let Err(what) = check_value(shape, &shorthand.field, &value) {
            errors.set(name, what);
            continue;
        }
        match shorthand.meaning {
            Meaning::Alias(path) => {
                if let Err(text) = alias(data, name, path, value) {
                    errors.set(name, Value::String(text));
                }
            }
            Meaning::Expand(meaning) => data.extend(meaning(&value)),
        }
    }
    for field in shape.fields() {
        if let Some(inside) = shape.inside(field)
            && let Some(Value::Object(table)) = data.get_mut(field.name)
            && let Err(found) = expand(inside, table)
        {
            errors.set(field.name, found.into());
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Writes the value of a deprecated name to its field, unless the field is given too, which then must say the same.
fn alias(data: &mut Object, name: &str, path: &[&str], value: Value) -> Result<(), String> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(());
    };
    let mut table = data;
    for parent in parents {
        let next = table.entry(*parent).or_insert_with(|| Value::Object(Map::new()));
        if next.is_null() {
            *next = Value::Object(Map::new());
        }
        let Value::Object(next) = next else {
            return Ok(());
        };
        table = next;
    }
    match table.get(*last) {
        Some(given) if given.is_null() || *given == value || value.is_null() => {
            if given.is_null() {
                table.insert((*last).to_owned(), value);
            }
            Ok(())
        }
        Some(given) => Err(format!(
            "both deprecated and new field are used but their values mismatch: {name} = {} vs {} = {}",
            rules::shown(&value),
            path.join("."),
            rules::shown(given)
        )),
        None => {
            table.insert((*last).to_owned(), value);
            Ok(())
        }
    }
}

/// Adds the deprecated names beside the fields that they stand for.
pub fn echo(shape: Shape, data: &mut Object) {
    for field in shape.fields() {
        if let Some(inside) = shape.inside(field)
            && let Some(Value::Object(table)) = data.get_mut(field.name)
        {
            echo(inside, table);
        }
    }
    for shorthand in &shape.record.shorthands {
        if let Meaning::Alias(path) = shorthand.meaning {
            let value = crate::check::at(data, &path.join(".")).clone();
            data.insert(shorthand.field.name.to_owned(), value);
        }
    }
}

/// Takes the deprecated names away again.
pub fn silence(shape: Shape, data: &mut Object) {
    for shorthand in &shape.record.shorthands {
        data.remove(shorthand.field.name);
    }
    for field in shape.fields() {
        if let Some(inside) = shape.inside(field)
            && let Some(Value::Object(table)) = data.get_mut(field.name)
        {
            silence(inside, table);
        }
    }
}

/// Merges a patch into a row: records field by field, everything else whole.
pub fn merge(shape: Shape, row: &mut Object, patch: Object) {
    for (name, value) in patch {
        let inside = shape.field(&name).and_then(|field| shape.inside(field));
        match (row.get_mut(&name), value, inside) {
            (Some(Value::Object(old)), Value::Object(new), Some(inside)) => merge(inside, old, new),
            (_, value, _) => {
                row.insert(name, value);
            }
        }
    }
}

/// Fills in defaults and automatic fields, and brings values into their one form. Unknown fields stay, to be reported.
pub fn fill(shape: Shape, data: &mut Object, write: Write) {
    for field in shape.fields() {
        let value = data.remove(field.name);
        if value.is_none() && field.transient || value.as_ref().is_none_or(Value::is_null) && field.sparse {
            continue;
        }
        let value = automatic(field, &value, write, shape.context).or(value);
        data.insert(field.name.to_owned(), complete(shape, field, value, write));
    }
}

fn automatic(field: &Field, value: &Option<Value>, write: Write, context: &Context) -> Option<Value> {
    if !field.auto {
        return None;
    }
    match field.kind {
        Kind::String if write == Write::Insert && is_absent(value) => {
            let uuid = field.rules.iter().any(|r| matches!(r, Rule::Uuid));
            Some(if uuid { new_id() } else { random_text() })
        }
        Kind::Integer | Kind::Number if field.timestamp => {
            let due = match field.name {
                "updated_at" => true,
                _ => write == Write::Insert && is_absent(value),
            };
            due.then(|| match field.kind {
                Kind::Integer => Value::from(context.now as i64),
                _ => Value::from((context.now * 1000.0).round() / 1000.0),
            })
        }
        _ => None,
    }
}

fn is_absent(value: &Option<Value>) -> bool {
    value.as_ref().is_none_or(Value::is_null)
}

fn new_id() -> Value {
    Value::String(uuid::Uuid::new_v4().to_string())
}

/// 32 random letters and digits.
fn random_text() -> Value {
    use rand::distr::{Alphanumeric, SampleString};
    Value::String(Alphanumeric.sample_string(&mut rand::rng(), 32))
}

fn complete(shape: Shape, field: &Field, value: Option<Value>, write: Write) -> Value {
    let inside = shape.inside(field);
    let value = match (value, inside) {
        (Some(value), _) => value,
        (None, _) if field.default.is_some() => field.default.clone().unwrap_or_default(),
        (None, Some(inside)) if field.required || has_defaults(inside) => Value::Object(Object::new()),
        (None, _) => Value::Null,
    };
    match (&field.kind, value) {
        (Kind::Record(_) | Kind::Chosen, Value::Object(mut table)) => {
            if let Some(inside) = inside {
                fill(inside, &mut table, write);
            }
            Value::Object(table)
        }
        // Lua has one empty table, which is a list, a map and a record.
        (Kind::Record(_) | Kind::Chosen, Value::Array(list)) if list.is_empty() => {
            complete(shape, field, Some(Value::Object(Object::new())), write)
        }
        (Kind::Map { .. }, Value::Array(list)) if list.is_empty() => Value::Object(Object::new()),
        (Kind::Array(_) | Kind::Set(_), Value::Object(table)) if table.is_empty() => Value::Array(Vec::new()),
        (Kind::Array(of), Value::Array(list)) => {
            Value::Array(list.into_iter().map(|item| complete(shape, of, Some(item), write)).collect())
        }
        (Kind::Set(of), Value::Array(list)) => {
            let mut kept: Vec<Value> = Vec::with_capacity(list.len());
            for item in list {
                let item = complete(shape, of, Some(item), write);
                if !kept.contains(&item) {
                    kept.push(item);
                }
            }
            Value::Array(kept)
        }
        (Kind::Map { values, .. }, Value::Object(table)) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, complete(shape, values, Some(value), write))).collect())
        }
        (Kind::Integer | Kind::Number, Value::Number(number)) => Value::Number(whole(number)),
        (_, value) => value,
    }
}

/// 5.0 and 5 are the same number, and the second is what is stored.
fn whole(number: Number) -> Number {
    match number.as_f64() {
        Some(n) if number.is_f64() && n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => Number::from(n as i64),
        _ => number,
    }
}

fn has_defaults(shape: Shape) -> bool {
    shape.fields().any(|field| field.default.is_some() || shape.inside(field).is_some_and(has_defaults))
}

/// A stored record as its Rust struct. Fields that are null where the Rust type knows no null read as their defaults.
pub fn read<T: DeserializeOwned>(record: &Record, mut value: Value) -> serde_json::Result<T> {
    let Value::Object(table) = &mut value else {
        return Err(serde_json::Error::custom("expected a record"));
    };
    defaults_for_nulls(record, table);
    serde_json::from_value(value)
}

fn defaults_for_nulls(record: &Record, table: &mut Object) {
    for field in &record.fields {
        let Some(value) = table.get_mut(field.name) else {
            continue;
        };
        if value.is_null() && field.null_is_default {
            *value = match (&field.default, &field.kind) {
                (Some(default), _) => default.clone(),
                (None, Kind::Record(inside)) => {
                    let mut table = Object::new();
                    let context = Context::bare();
                    fill(Shape::of(inside, &context), &mut table, Write::Update);
                    Value::Object(table)
                }
                (None, _) => Value::Null,
            };
        }
        nulls_inside(&field.kind, value);
    }
}

fn nulls_inside(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Record(inside), Value::Object(table)) => defaults_for_nulls(inside, table),
        (Kind::Array(of) | Kind::Set(of), Value::Array(list)) => list.iter_mut().for_each(|item| nulls_inside(&of.kind, item)),
        (Kind::Map { values, .. }, Value::Object(table)) => table.values_mut().for_each(|item| nulls_inside(&values.kind, item)),
        _ => {}
    }
}
