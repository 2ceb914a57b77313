//! Input -> a complete row, or every violation at once.

use serde_json::Value;

use crate::Object;
use crate::check::Subject;
use crate::complete::{self, Shape, Write};
use crate::field::{Field, Kind, Rule};
use crate::record::{Chosen, EntitySchema, Record};
use crate::rules;
use crate::violations::Violations;

/// What validation depends on besides the schema and the input.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Seconds since the epoch.
    pub now: f64,
    /// What a plugin or a vault of this name adds to the schema of its row: `(entity, name)`.
    pub choose: &'a dyn Fn(&str, &str) -> Option<Chosen>,
    /// What the node is set to, as far as schemas depend on it: `expressions` (flavour of the router), `shared_dict`.
    pub features: &'a [&'a str],
    /// Whether values are changed on their way in (password hashes); not when they come from an export.
    pub transform: bool,
}

impl Context<'_> {
    /// A context that knows no plugin and no feature.
    pub fn bare() -> Context<'static> {
        Context { now: 0.0, choose: &|_, _| None, features: &[], transform: true }
    }

    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }
}

/// Validates a new row and completes it. Transient fields (`snis` of a certificate) are part of the answer, for the caller to
/// act on and to take out.
pub fn insert(schema: &EntitySchema, mut input: Object, context: &Context) -> Result<Object, Violations> {
    let chosen = choose(schema, &input, context)?;
    let shape = Shape { record: schema.record, chosen: chosen.as_ref(), context };
    complete::expand(shape, &mut input)?;
    let written = |_: &str| true;
    finish(schema, shape, input, Write::Insert, &written)
}

/// Validates a row that takes the place of another of the same key, or is new: whatever is absent goes back to its default. The
/// caller has put the key into the input.
pub fn upsert(schema: &EntitySchema, input: Object, context: &Context) -> Result<Object, Violations> {
    insert(schema, input, context)
}

/// Validates a patch together with the row that it changes, and answers the whole new row.
pub fn update(schema: &EntitySchema, mut patch: Object, existing: &Object, context: &Context) -> Result<Object, Violations> {
    let mut row = existing.clone();
    let mut errors = Violations::default();
    for field in schema.record.fields.iter().filter(|f| f.immutable) {
        if patch.get(field.name).is_some_and(|new| existing.get(field.name) != Some(new)) {
            errors.set(field.name, "immutable field cannot be updated".into());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut keyed = row.clone();
    if let Some(key) = schema.subschema.and_then(|s| patch.get(s.key).map(|value| (s.key, value))) {
        keyed.insert(key.0.to_owned(), key.1.clone());
    }
    let chosen = choose(schema, &keyed, context)?;
    let shape = Shape { record: schema.record, chosen: chosen.as_ref(), context };
    complete::silence(shape, &mut row);
    complete::expand(shape, &mut patch)?;
    let names: Vec<String> = patch.keys().cloned().collect();
    complete::merge(shape, &mut row, patch);
    finish(schema, shape, row, Write::Update, &|name| names.iter().any(|n| n == name))
}

fn finish(
    schema: &EntitySchema,
    shape: Shape,
    mut row: Object,
    write: Write,
    written: &dyn Fn(&str) -> bool,
) -> Result<Object, Violations> {
    complete::fill(shape, &mut row, write);
    let errors = check_record(shape, &row);
    if !errors.is_empty() {
        return Err(errors);
    }
    for (field, _) in schema.record.foreign_keys() {
        keep_key(row.get_mut(field.name));
    }
    if shape.context.transform {
        for transform in &schema.transforms {
            if transform.fields.iter().any(|f| written(f)) {
                (transform.apply)(&mut row)?;
            }
        }
    }
    complete::echo(shape, &mut row);
    Ok(row)
}

/// A foreign key is stored without what else the input said of the parent.
fn keep_key(value: Option<&mut Value>) {
    if let Some(Value::Object(parent)) = value {
        parent.retain(|name, _| name == "id");
    }
}

/// The part of the schema that the row's own value selects.
pub fn choose(schema: &EntitySchema, row: &Object, context: &Context) -> Result<Option<Chosen>, Violations> {
    let Some(subschema) = schema.subschema else {
        return Ok(None);
    };
    let default = schema.record.get(subschema.key).and_then(|f| f.default.as_ref());
    let value = row.get(subschema.key).or(default).unwrap_or(&Value::Null);
    let name = match value {
        Value::Null => return Err(Violations::field(subschema.key, "required field missing")),
        Value::Array(list) => list.first().map_or_else(|| "nil".to_owned(), rules::shown),
        other => rules::shown(other),
    };
    let chosen = match subschema.choose {
        Some(choose) => choose(&name, context),
        None => (context.choose)(schema.name, &name),
    };
    match chosen {
        Some(chosen) => Ok(Some(chosen)),
        None => Err(Violations::field(subschema.key, subschema.unknown.replacen("%s", &name, 1))),
    }
}

/// What is wrong with a completed record: its fields, then the checks across them.
pub fn check_record(shape: Shape, row: &Object) -> Violations {
    let mut errors = Violations::default();
    for (name, value) in row {
        let wrong = match shape.field(name) {
            Some(field) => check_value(shape, field, value).err(),
            None => Some("unknown field".into()),
        };
        if let Some(what) = wrong {
            errors.0.insert(name.clone(), what);
        }
    }
    let subject = Subject { record: row, field: &|path| shape.path(path), context: shape.context };
    let chosen = shape.chosen.map_or(&[][..], |c| &c.checks);
    for check in shape.record.checks.iter().chain(chosen) {
        check.run(&subject, &mut errors);
    }
    errors
}

/// Completes and checks a record that stands alone, such as the configuration of a plugin.
pub fn record(record: &Record, mut input: Object, context: &Context) -> Result<Object, Violations> {
    let shape = Shape::of(record, context);
    complete::expand(shape, &mut input)?;
    complete::fill(shape, &mut input, Write::Insert);
    let errors = check_record(shape, &input);
    if errors.is_empty() { Ok(input) } else { Err(errors) }
}

/// Checks one value that stands alone, such as a name in a path.
pub fn value(field: &Field, value: &Value) -> Result<(), String> {
    static NONE: Record = Record { fields: Vec::new(), checks: Vec::new(), shorthands: Vec::new() };
    let wrong = check_value(Shape::of(&NONE, &Context::bare()), field, value);
    wrong.map_err(|what| rules::shown(&what))
}

/// What is wrong with one value.
pub(crate) fn check_value(shape: Shape, field: &Field, value: &Value) -> Result<(), Value> {
    let own = |text: &str| Value::String(field.error.unwrap_or(text).to_owned());
    let must_be_null = field.rules.iter().any(|r| matches!(r, Rule::Equals(Value::Null)));
    if value.is_null() {
        let only = field.rules.iter().find(|r| matches!(r, Rule::Equals(to) if !to.is_null()));
        return match only {
            Some(rule) => rules::as_violation(rules::check(rule, value)),
            None if field.required => Err("required field missing".into()),
            None => Ok(()),
        };
    }
    if must_be_null {
        return Err(own("value must be null"));
    }
    match (&field.kind, value) {
        (Kind::Any, _) | (Kind::String, Value::String(_)) | (Kind::Boolean, Value::Bool(_)) | (Kind::Number, Value::Number(_)) => {}
        (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {}
        (Kind::Array(of) | Kind::Set(of), Value::Array(list)) => {
            let found = list.iter().map(|item| check_element(shape, of, item).err().unwrap_or_default()).collect();
            rules::list_violation(found)?;
        }
        (Kind::Map { keys, values }, Value::Object(table)) => {
            for (key, value) in table {
                check_element(shape, keys, &Value::String(key.clone()))?;
                check_element(shape, values, value)?;
            }
        }
        (Kind::Record(_) | Kind::Chosen, Value::Object(table)) => {
            if let Some(inside) = shape.inside(field) {
                let errors = check_record(inside, table);
                if !errors.is_empty() {
                    return Err(errors.into());
                }
            }
        }
        (Kind::Foreign { .. }, parent) => check_key(parent)?,
        (kind, _) => return Err(kind.expected().into()),
    }
    rules::as_violation(rules::check_all(field, value))
}

fn check_element(shape: Shape, field: &Field, value: &Value) -> Result<(), Value> {
    if value.is_null() { Err("required field missing".into()) } else { check_value(shape, field, value) }
}

fn check_key(parent: &Value) -> Result<(), Value> {
    let text = match parent.get("id") {
        None | Some(Value::Null) => "missing primary key",
        Some(Value::String(id)) if rules::is_uuid(id) => return Ok(()),
        Some(_) => "expected a valid UUID",
    };
    Err(Violations::field("id", text).into())
}

impl Kind {
    fn expected(&self) -> &'static str {
        match self {
            Self::String => "expected a string",
            Self::Integer => "expected an integer",
            Self::Number => "expected a number",
            Self::Boolean => "expected a boolean",
            Self::Array(_) => "expected an array",
            Self::Set(_) => "expected a set",
            Self::Map { .. } => "expected a map",
            Self::Record(_) | Self::Chosen => "expected a record",
            Self::Any | Self::Foreign { .. } => "unexpected value",
        }
    }
}
