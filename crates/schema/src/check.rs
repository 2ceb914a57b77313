//! Checks across the fields of a record. Fields are named by dotted paths, as in Kong.

use serde_json::{Map, Value};

use crate::field::Rule;
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
    /// A check of its own over the whole record. `fields` is what it reads.
    Custom {
        fields: &'static [&'static str],
        check: fn(&Map<String, Value>) -> Result<(), Violations>,
    },
}

/// What a value is compared with.
#[derive(Clone, Debug)]
pub enum Match {
    /// Neither null nor absent.
    Required,
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

    pub fn custom(fields: &'static [&'static str], check: fn(&Map<String, Value>) -> Result<(), Violations>) -> Self {
        Self::Custom { fields, check }
    }
}
