//! Checks across the fields of a record. Fields are named by dotted paths, as in Kong.

use serde_json::{Map, Value};

use crate::field::{Field, Rule};
use crate::rules;
use crate::validate::Context;
use crate::violations::Violations;

/// A check across fields.
#[derive(Clone, Debug)]
pub enum Check {
    AtLeastOneOf(Vec<&'static str>),
    OnlyOneOf(Vec<&'static str>),
    /// At most one of them is set.
    MutuallyExclusive(Vec<&'static str>),
    /// All are set or none is.
    MutuallyRequired(Vec<&'static str>),
    /// Values of these fields differ.
    Distinct(Vec<&'static str>),
    /// When the value of `when` matches `is`, that of `then` must match `must`.
    Conditional {
        when: &'static str,
        is: Match,
        then: &'static str,
        must: Match,
        error: Option<&'static str>,
    },
    /// When `when` matches, one of `then` must be set; otherwise, when it matches `or_when`, one of `or_then`. The texts hold
    /// `%s` for the names.
    ConditionalAtLeastOneOf {
        when: &'static str,
        is: Match,
        then: Vec<&'static str>,
        error: &'static str,
        or: Option<(Match, Vec<&'static str>, &'static str)>,
    },
    /// A check of its own over the whole record. `fields` is what it reads; it does not run when one of them is wrong.
    Custom {
        fields: &'static [&'static str],
        check: fn(&Map<String, Value>) -> Result<(), Violations>,
    },
    /// As [`Check::Custom`], for a check that depends on what the node is set to.
    Contextual {
        fields: &'static [&'static str],
        check: fn(&Map<String, Value>, &Context) -> Result<(), Violations>,
    },
}

/// What a value is compared with.
#[derive(Clone, Debug)]
pub enum Match {
    /// Neither null nor absent.
    Required,
    /// Neither null nor absent, and fine by this check.
    RequiredAnd(fn(&Value) -> Result<(), String>),
    /// Null or absent.
    Null,
    Rule(Rule),
    /// Every element of the list obeys the rule.
    Elements(Rule),
    /// Null or an empty list.
    Empty,
}

impl Match {
    pub fn eq(value: impl Into<Value>) -> Self {
        Self::Rule(Rule::Equals(value.into()))
    }

    pub fn one_of<T: Into<Value> + Clone>(values: &[T]) -> Self {
        Self::Rule(Rule::OneOf(values.iter().cloned().map(Into::into).collect()))
    }

    pub fn not_one_of<T: Into<Value> + Clone>(values: &[T]) -> Self {
        Self::Rule(Rule::NotOneOf(values.iter().cloned().map(Into::into).collect()))
    }

    /// A Lua pattern.
    pub fn matches(pattern: &'static str) -> Self {
        Self::Rule(Rule::Matches(pattern))
    }

    pub fn gt(low: f64) -> Self {
        Self::Rule(Rule::GreaterThan(low))
    }

    pub fn contains(value: impl Into<Value>) -> Self {
        Self::Rule(Rule::Contains(value.into()))
    }
}

impl Check {
    pub fn at_least_one_of(fields: &[&'static str]) -> Self {
        Self::AtLeastOneOf(fields.to_vec())
    }

    pub fn only_one_of(fields: &[&'static str]) -> Self {
        Self::OnlyOneOf(fields.to_vec())
    }

    pub fn mutually_exclusive(fields: &[&'static str]) -> Self {
        Self::MutuallyExclusive(fields.to_vec())
    }

    pub fn mutually_required(fields: &[&'static str]) -> Self {
        Self::MutuallyRequired(fields.to_vec())
    }

    pub fn conditional(when: &'static str, is: Match, then: &'static str, must: Match) -> Self {
        Self::Conditional { when, is, then, must, error: None }
    }

    /// As [`Check::conditional`], with a text of its own in place of `failed conditional validation ...`.
    pub fn conditional_error(when: &'static str, is: Match, then: &'static str, must: Match, error: &'static str) -> Self {
        Self::Conditional { when, is, then, must, error: Some(error) }
    }

    pub fn contextual(fields: &'static [&'static str], check: fn(&Map<String, Value>, &Context) -> Result<(), Violations>) -> Self {
        Self::Contextual { fields, check }
    }

    pub fn custom(fields: &'static [&'static str], check: fn(&Map<String, Value>) -> Result<(), Violations>) -> Self {
        Self::Custom { fields, check }
    }
}

/// What a check looks at: the record, its fields, and what is wrong with it so far.
pub struct Subject<'a> {
    pub record: &'a Map<String, Value>,
    /// The declaration of the field at a dotted path.
    pub field: &'a dyn Fn(&str) -> Option<&'a Field>,
    pub context: &'a Context<'a>,
}

impl Check {
    /// Runs the check and adds what it finds. Checks on fields that are wrong already stay silent, except "at least one of".
    pub fn run(&self, subject: &Subject, errors: &mut Violations) {
        let record = subject.record;
        let wrong = |errors: &Violations, fields: &[&str]| fields.iter().any(|f| errors.get(f).is_some());
        let set = |fields: &[&'static str]| fields.iter().filter(|f| is_set(at(record, f))).count();
        match self {
            Self::AtLeastOneOf(fields) => {
                if set(fields) == 0 {
                    errors.push_entity(format!("at least one of these fields must be non-empty: {}", quoted(fields)));
                }
            }
            Self::OnlyOneOf(fields) => {
                if !wrong(errors, fields) && set(fields) != 1 {
                    errors.push_entity(format!("exactly one of these fields must be non-empty: {}", quoted(fields)));
                }
            }
            Self::MutuallyExclusive(fields) => {
                if !wrong(errors, fields) && set(fields) > 1 {
                    errors.push_entity(format!("only one or none of these fields must be set: {}", quoted(fields)));
                }
            }
            Self::MutuallyRequired(fields) => {
                if !wrong(errors, fields) && (1..fields.len()).contains(&set(fields)) {
                    errors.push_entity(format!("all or none of these fields must be set: {}", quoted(fields)));
                }
            }
            Self::Distinct(fields) => {
                let values: Vec<_> = fields.iter().map(|f| at(record, f)).filter(|v| !v.is_null()).collect();
                let repeated = values.iter().enumerate().any(|(n, value)| values[..n].contains(value));
                if !wrong(errors, fields) && repeated {
                    errors.push_entity(format!("values of these fields must be distinct: {}", quoted(fields)));
                }
            }
            Self::Conditional { when, is, then, must, error } => {
                if wrong(errors, &[*when, *then]) || !is.holds(at(record, when), (subject.field)(when)) {
                    return;
                }
                if let Err(text) = must.check(at(record, then), (subject.field)(then)) {
                    errors.set(then, Value::String(text));
                    let general = || format!("failed conditional validation given value of field '{when}'");
                    errors.push_entity(error.map_or_else(general, str::to_owned));
                }
            }
            Self::ConditionalAtLeastOneOf { when, is, then, error, or } => {
                let (value, field) = (at(record, when), (subject.field)(when));
                let (fields, error) = match or {
                    _ if wrong(errors, &[*when]) => return,
                    _ if is.holds(value, field) => (then, error),
                    Some((or_is, or_then, or_error)) if or_is.holds(value, field) => (or_then, or_error),
                    _ => return,
                };
                let known: Vec<_> = fields.iter().copied().filter(|f| (subject.field)(f).is_some()).collect();
                if set(&known) == 0 {
                    errors.push_entity(error.replacen("%s", &quoted(&known), 1));
                }
            }
            Self::Custom { fields, check } => {
                if !wrong(errors, fields)
                    && let Err(found) = check(record)
                {
                    errors.merge(found);
                }
            }
            Self::Contextual { fields, check } => {
                if !wrong(errors, fields)
                    && let Err(found) = check(record, subject.context)
                {
                    errors.merge(found);
                }
            }
        }
    }
}

impl Match {
    fn holds(&self, value: &Value, field: Option<&Field>) -> bool {
        self.check(value, field).is_ok()
    }

    /// The value against the condition, with the text of the violation. Null obeys every rule but "required" unless the field
    /// itself refuses it.
    fn check(&self, value: &Value, field: Option<&Field>) -> Result<(), String> {
        match self {
            Self::Required | Self::RequiredAnd(_) if value.is_null() => Err("required field missing".to_owned()),
            Self::Required => Ok(()),
            Self::RequiredAnd(check) => check(value),
            Self::Null if value.is_null() => Ok(()),
            Self::Null => Err("value must be null".to_owned()),
            Self::Empty if !is_set(value) => Ok(()),
            Self::Empty => Err("length must be 0".to_owned()),
            Self::Elements(rule) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                list.iter().try_for_each(|item| rules::check(rule, item))
            }
            Self::Rule(Rule::Equals(_)) if value.is_null() && field.is_some_and(|f| f.required) => Err("required field missing".to_owned()),
            Self::Rule(rule @ Rule::Equals(_)) => rules::check(rule, value),
            Self::Rule(_) if value.is_null() && field.is_some_and(|f| f.required) => Err("required field missing".to_owned()),
            Self::Rule(_) if value.is_null() => Ok(()),
            Self::Rule(rule) => rules::check(rule, value),
        }
    }
}

/// The value at a dotted path; null when there is none.
pub fn at<'a>(record: &'a Map<String, Value>, path: &str) -> &'a Value {
    let mut parts = path.split('.');
    let first = parts.next().and_then(|name| record.get(name));
    parts.fold(first, |value, name| value?.get(name)).unwrap_or(&Value::Null)
}

/// Neither null, nor an empty text, nor an empty list or table.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(table) => !table.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
