//! The rules of one value, with Kong's texts.

use serde_json::Value;

use crate::field::{Field, Kind, Rule};
use crate::lua;
use crate::violations::Violations;

/// Every rule of the field, in the order in which Kong asks them; the first that is broken speaks.
pub fn check_all(field: &Field, value: &Value) -> Result<(), String> {
    if field.kind.is_string() && value.as_str() == Some("") && !field.rules.iter().any(|r| matches!(r, Rule::LenMin(0))) {
        return Err(field.error.map_or_else(|| "length must be at least 1".to_owned(), str::to_owned));
    }
    if field.referenceable && value.as_str().is_some_and(is_reference) {
        return Ok(());
    }
    let mut rules: Vec<&Rule> = field.rules.iter().collect();
    rules.sort_by_key(|rule| rank(rule));
    rules.into_iter().try_for_each(|rule| check(rule, value)).map_err(|text| field.error.map_or(text, str::to_owned))
}

fn rank(rule: &Rule) -> u8 {
    match rule {
        Rule::Equals(_) => 0,
        Rule::NotEquals(_) => 1,
        Rule::NotOneOf(_) => 2,
        Rule::OneOf(_) => 3,
        Rule::GreaterThan(_) => 4,
        Rule::Uuid => 5,
        Rule::Between(..) => 6,
        Rule::LenEq(_) => 7,
        Rule::LenMin(_) => 8,
        Rule::LenMax(_) => 9,
        Rule::StartsWith(_) => 10,
        Rule::MatchNone(_) => 11,
        Rule::Matches(_) => 12,
        Rule::MatchAll(_) => 13,
        Rule::MatchAny(..) => 14,
        Rule::Contains(_) => 15,
        Rule::Custom { .. } => 16,
        Rule::MutuallyExclusiveSubsets(_) => 17,
    }
}

/// One rule.
pub fn check(rule: &Rule, value: &Value) -> Result<(), String> {
    let fail = |broken: bool, text: &dyn Fn() -> String| if broken { Err(text()) } else { Ok(()) };
    let text = value.as_str().unwrap_or_default();
    match rule {
        Rule::Equals(to) => fail(!equal(value, to), &|| format!("value must be {}", shown(to))),
        Rule::NotEquals(to) => fail(equal(value, to), &|| format!("value must not be {}", shown(to))),
        Rule::OneOf(values) => fail(!values.iter().any(|v| equal(v, value)), &|| format!("expected one of: {}", listed(values))),
        Rule::NotOneOf(values) => fail(values.iter().any(|v| equal(v, value)), &|| format!("must not be one of: {}", listed(values))),
        Rule::GreaterThan(low) => {
            fail(value.as_f64().is_none_or(|n| n <= *low), &|| format!("value must be greater than {}", number(*low)))
        }
        Rule::Between(low, high) => {
            let inside = value.as_f64().is_some_and(|n| n >= *low as f64 && n <= *high as f64);
            fail(!inside, &|| format!("value should be between {low} and {high}"))
        }
        Rule::Uuid => fail(!is_uuid(text), &|| "expected a valid UUID".to_owned()),
        Rule::LenEq(n) => fail(length(value) != *n, &|| format!("length must be {n}")),
        Rule::LenMin(n) => fail(length(value) < *n, &|| format!("length must be at least {n}")),
        Rule::LenMax(n) => fail(length(value) > *n, &|| format!("length must be at most {n}")),
        Rule::StartsWith(prefix) => fail(!text.starts_with(prefix), &|| format!("should start with: {prefix}")),
        Rule::Matches(pattern) => fail(!lua::matches(pattern, text), &|| format!("invalid value: {text}")),
        Rule::MatchNone(patterns) => first(patterns, |pattern| !lua::matches(pattern, text)),
        Rule::MatchAll(patterns) => first(patterns, |pattern| lua::matches(pattern, text)),
        Rule::MatchAny(patterns, error) => fail(!patterns.iter().any(|pattern| lua::matches(pattern, text)), &|| (*error).to_owned()),
        Rule::Contains(wanted) => {
            let found = value.as_array().is_some_and(|list| list.iter().any(|item| equal(item, wanted)));
            fail(!found, &|| format!("expected to contain: {}", shown(wanted)))
        }
        Rule::Custom { check, .. } => check(value),
        Rule::MutuallyExclusiveSubsets(sets) => exclusive(sets, value),
    }
}

/// The value of a record whose rules are broken in its own text, or in its fields.
pub fn as_violation(result: Result<(), String>) -> Result<(), Value> {
    result.map_err(Value::String)
}

fn first(patterns: &[(&str, &str)], holds: impl Fn(&str) -> bool) -> Result<(), String> {
    match patterns.iter().find(|(pattern, _)| !holds(pattern)) {
        Some((_, error)) => Err((*error).to_owned()),
        None => Ok(()),
    }
}

fn exclusive(sets: &[Vec<&'static str>], value: &Value) -> Result<(), String> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    let touched: Vec<_> = sets.iter().filter(|set| list.iter().any(|item| item.as_str().is_some_and(|item| set.contains(&item)))).collect();
    if touched.len() < 2 {
        return Ok(());
    }
    let names = |set: &[&str]| set.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let texts: Vec<_> = touched.iter().map(|set| format!("({})", names(set))).collect();
    Err(format!("these sets are mutually exclusive: {}", texts.join(", ")))
}

/// Equal as Lua sees it: 1 and 1.0 are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Object(table) => table.len(),
        _ => 0,
    }
}

fn listed(values: &[Value]) -> String {
    values.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The value as Lua's `tostring` shows it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { n.to_string() }
}

/// Whether a text stands for a value that is kept somewhere else: `{vault://...}`. Nothing can be said of that value.
pub fn is_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}')
}

/// A UUID with its four hyphens, in either case.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

impl Kind {
    fn is_string(&self) -> bool {
        matches!(self, Self::String)
    }
}

/// What is wrong with several elements of a list, null where an element is fine.
pub fn list_violation(found: Vec<Value>) -> Result<(), Value> {
    match found.iter().rposition(|v| !v.is_null()) {
        Some(last) => Err(Value::Array(found.into_iter().take(last + 1).collect())),
        None => Ok(()),
    }
}

impl From<Violations> for Value {
    fn from(violations: Violations) -> Self {
        Self::Object(violations.0)
    }
}
