//! One field of a record.

use serde_json::Value;

use crate::record::Record;

/// A field: its kind, its default and the rules its value obeys. Built by `#[field(...)]`, one call an item.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name on the wire; empty for the elements of a list and for the keys and values of a map.
    pub name: &'static str,
    /// What the field is for, from its doc comment.
    pub doc: &'static str,
    pub kind: Kind,
    /// Null and absent are refused (absent with a default takes the default).
    pub required: bool,
    pub default: Option<Value>,
    pub rules: Vec<Rule>,
    /// Filled in by the gateway when absent.
    pub auto: bool,
    /// No two rows of the entity share a value.
    pub unique: bool,
    /// Seconds (or fractional seconds) since the epoch, set by the gateway when `auto`.
    pub timestamp: bool,
    /// May hold a `{vault://...}` reference.
    pub referenceable: bool,
    /// Kong marks it as kept encrypted; never shown in logs.
    pub encrypted: bool,
    /// Cannot change after creation.
    pub immutable: bool,
    /// Accepted and checked, but no part of the row: the caller of the validation acts on it.
    pub transient: bool,
    /// Null is accepted and read as the default, because the Rust type knows no null.
    pub null_is_default: bool,
    /// Left out of the row when it is null.
    pub sparse: bool,
    /// Part of the schema only on nodes that have this feature (see [`crate::validate::Context`]).
    pub feature: Option<&'static str>,
    /// Text that takes the place of the rules' own texts.
    pub error: Option<&'static str>,
}

/// What kind of value a field holds.
#[derive(Clone, Debug)]
pub enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    /// Any JSON value.
    Any,
    Array(Box<Field>),
    /// An array without duplicates.
    Set(Box<Field>),
    Map {
        keys: Box<Field>,
        values: Box<Field>,
    },
    Record(&'static Record),
    /// `{"id": uuid}` of another entity.
    Foreign {
        to: &'static str,
        on_delete: OnDelete,
    },
    /// The record that the sibling field `name` selects: `config` of a plugin or a vault.
    Chosen,
}

/// What the deletion of the parent does to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The parent cannot be deleted while the row refers to it.
    Restrict,
    /// The row is deleted with it.
    Cascade,
}

/// A rule for a value, each with Kong's text in [`crate::validate`].
#[derive(Clone, Debug)]
pub enum Rule {
    Between(i64, i64),
    GreaterThan(f64),
    OneOf(Vec<Value>),
    NotOneOf(Vec<Value>),
    LenMin(usize),
    LenMax(usize),
    LenEq(usize),
    StartsWith(&'static str),
    Contains(Value),
    Equals(Value),
    NotEquals(Value),
    Uuid,
    /// A Lua pattern.
    Matches(&'static str),
    /// Lua patterns that must not match, each with its text.
    MatchNone(&'static [(&'static str, &'static str)]),
    /// Lua patterns that must all match, each with its text.
    MatchAll(&'static [(&'static str, &'static str)]),
    /// Lua patterns of which one must match, and the text when none does.
    MatchAny(&'static [&'static str], &'static str),
    /// Sets of values that cannot stand together in this list.
    MutuallyExclusiveSubsets(Vec<Vec<&'static str>>),
    /// A check of its own; the name is shown by `GET /schemas/...`.
    Custom {
        name: &'static str,
        check: fn(&Value) -> Result<(), String>,
    },
}

impl Field {
    pub fn new(kind: Kind) -> Self {
        Self {
            name: "",
            doc: "",
            kind,
            required: false,
            default: None,
            rules: Vec::new(),
            auto: false,
            unique: false,
            timestamp: false,
            referenceable: false,
            encrypted: false,
            immutable: false,
            transient: false,
            null_is_default: false,
            sparse: false,
            feature: None,
            error: None,
        }
    }

    pub fn record(record: &'static Record) -> Self {
        Self::new(Kind::Record(record)).required()
    }

    pub fn foreign(to: &'static str) -> Self {
        Self::new(Kind::Foreign { to, on_delete: OnDelete::Restrict })
    }

    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What the field is for; without a text of its own it keeps that of its type.
    pub fn doc(mut self, doc: &'static str) -> Self {
        if !doc.is_empty() {
            self.doc = doc;
        }
        self
    }

    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// May be null (what `Option<T>` says).
    pub fn nullable(mut self) -> Self {
        self.required = false;
        self
    }

    /// Null is accepted and read as the default: for a plain Rust type whose field Kong lets be null.
    pub fn optional(mut self) -> Self {
        self.required = false;
        self.null_is_default = true;
        self
    }

    /// Accepted and checked, but no part of the row.
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// Left out of the row when it is null.
    pub fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    /// Part of the schema only on nodes that have this feature.
    pub fn feature(mut self, feature: &'static str) -> Self {
        self.feature = Some(feature);
        self
    }

    pub fn default(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }

    /// Filled in by the gateway when absent.
    pub fn auto(mut self) -> Self {
        self.auto = true;
        self.required = false;
        if self.rules.iter().any(|rule| matches!(rule, Rule::Uuid)) {
            return self.doc("A string representing a UUID (universally unique identifier).");
        }
        self
    }

    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    pub fn timestamp(mut self) -> Self {
        self.timestamp = true;
        match self.kind {
            Kind::Integer => self.doc("An integer representing an automatic Unix timestamp in seconds."),
            _ => self.doc("A number representing an automatic Unix timestamp in milliseconds."),
        }
    }

    pub fn referenceable(mut self) -> Self {
        self.referenceable = true;
        self
    }

    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// The entity that this foreign key refers to.
    pub fn parent(mut self, entity: &'static str) -> Self {
        if let Kind::Foreign { to, .. } = &mut self.kind {
            *to = entity;
        }
        self
    }

    /// The record that the sibling field `name` selects.
    pub fn chosen(mut self) -> Self {
        self.kind = Kind::Chosen;
        self
    }

    /// Deleted with the parent that this foreign key names.
    pub fn cascade(mut self) -> Self {
        if let Kind::Foreign { on_delete, .. } = &mut self.kind {
            *on_delete = OnDelete::Cascade;
        }
        self
    }

    /// Text that takes the place of the rules' own texts.
    pub fn error(mut self, text: &'static str) -> Self {
        self.error = Some(text);
        self
    }

    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Changes the field that describes the elements of this list.
    pub fn elements(mut self, change: impl FnOnce(Field) -> Field) -> Self {
        if let Kind::Array(of) | Kind::Set(of) = &mut self.kind {
            **of = Self { required: of.required, ..change((**of).clone()) };
        }
        self
    }

    /// Changes the field that describes the keys of this map.
    pub fn keys(mut self, change: impl FnOnce(Field) -> Field) -> Self {
        if let Kind::Map { keys, .. } = &mut self.kind {
            **keys = Self { required: keys.required, ..change((**keys).clone()) };
        }
        self
    }

    /// Changes the field that describes the values of this map.
    pub fn values(mut self, change: impl FnOnce(Field) -> Field) -> Self {
        if let Kind::Map { values, .. } = &mut self.kind {
            **values = Self { required: values.required, ..change((**values).clone()) };
        }
        self
    }

    /// Bounds, both included.
    pub fn between(self, low: i64, high: i64) -> Self {
        self.rule(Rule::Between(low, high))
    }

    pub fn gt(self, low: f64) -> Self {
        self.rule(Rule::GreaterThan(low))
    }

    pub fn one_of<T: Into<Value> + Clone>(self, values: &[T]) -> Self {
        self.rule(Rule::OneOf(values.iter().cloned().map(Into::into).collect()))
    }

    pub fn not_one_of<T: Into<Value> + Clone>(self, values: &[T]) -> Self {
        self.rule(Rule::NotOneOf(values.iter().cloned().map(Into::into).collect()))
    }

    pub fn len_min(self, n: usize) -> Self {
        self.rule(Rule::LenMin(n))
    }

    pub fn len_max(self, n: usize) -> Self {
        self.rule(Rule::LenMax(n))
    }

    pub fn starts_with(self, prefix: &'static str) -> Self {
        self.rule(Rule::StartsWith(prefix))
    }

    pub fn len_eq(self, n: usize) -> Self {
        self.rule(Rule::LenEq(n))
    }

    pub fn contains(self, value: impl Into<Value>) -> Self {
        self.rule(Rule::Contains(value.into()))
    }

    /// The one value that is accepted; null says that the field cannot be set.
    pub fn equals(self, value: impl Into<Value>) -> Self {
        self.rule(Rule::Equals(value.into()))
    }

    pub fn not_equals(self, value: impl Into<Value>) -> Self {
        self.rule(Rule::NotEquals(value.into()))
    }

    /// A Lua pattern that the text must match.
    pub fn matches(self, pattern: &'static str) -> Self {
        self.rule(Rule::Matches(pattern))
    }

    /// Lua patterns that must not match, each with its text.
    pub fn match_none(self, patterns: &'static [(&'static str, &'static str)]) -> Self {
        self.rule(Rule::MatchNone(patterns))
    }

    /// Lua patterns that must all match, each with its text.
    pub fn match_all(self, patterns: &'static [(&'static str, &'static str)]) -> Self {
        self.rule(Rule::MatchAll(patterns))
    }

    /// Lua patterns of which one must match, and the text when none does.
    pub fn match_any(self, patterns: &'static [&'static str], error: &'static str) -> Self {
        self.rule(Rule::MatchAny(patterns, error))
    }

    pub fn uuid(self) -> Self {
        self.rule(Rule::Uuid)
    }

    pub fn exclusive(self, sets: &[&[&'static str]]) -> Self {
        self.rule(Rule::MutuallyExclusiveSubsets(sets.iter().map(|s| s.to_vec()).collect()))
    }

    /// A check of its own, with the text of its violation.
    pub fn check(self, name: &'static str, check: fn(&Value) -> Result<(), String>) -> Self {
        self.rule(Rule::Custom { name, check })
    }
}
