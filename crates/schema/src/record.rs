//! Records: fields in order, with checks across them. Entities: records with a name, keys and paths.

use serde_json::{Map, Value};

use crate::check::Check;
use crate::field::{Field, Kind};
use crate::validate::Context;
use crate::violations::Violations;

/// Fields in the order of their declaration, checks across them, and shorthands.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub fields: Vec<Field>,
    pub checks: Vec<Check>,
    pub shorthands: Vec<Shorthand>,
}

/// Another way to write one or more fields.
#[derive(Clone, Debug)]
pub struct Shorthand {
    /// The name accepted on input; its field says kind and rules.
    pub field: Field,
    pub meaning: Meaning,
}

#[derive(Clone, Debug)]
pub enum Meaning {
    /// A deprecated name of the field at this path, which is also echoed under the old name.
    Alias(&'static [&'static str]),
    /// Expands the value into other fields (`url` of a service). Never stored.
    Expand(fn(&Value) -> Map<String, Value>),
}

impl Record {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// A deprecated name for the field at `path`, echoed under both names.
    pub fn alias(mut self, field: Field, path: &'static [&'static str]) -> Self {
        self.shorthands.push(Shorthand { field, meaning: Meaning::Alias(path) });
        self
    }

    /// Several of [`Record::alias`].
    pub fn aliases(self, aliases: Vec<(Field, &'static [&'static str])>) -> Self {
        aliases.into_iter().fold(self, |record, (field, path)| record.alias(field, path))
    }

    /// A name that stands for several fields.
    pub fn expand(mut self, field: Field, expand: fn(&Value) -> Map<String, Value>) -> Self {
        self.shorthands.push(Shorthand { field, meaning: Meaning::Expand(expand) });
        self
    }

    pub fn get(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// `(field, parent entity)` of each foreign key.
    pub fn foreign_keys(&self) -> impl Iterator<Item = (&Field, &'static str)> {
        self.fields.iter().filter_map(|f| match &f.kind {
            Kind::Foreign { to, .. } => Some((f, *to)),
            _ => None,
        })
    }
}

/// A type whose fields are declared by `#[derive(Record)]`.
pub trait RecordType {
    fn record() -> &'static Record;
}

/// A type declared by `#[derive(Entity)]`.
pub trait EntityType: RecordType {
    fn entity() -> &'static EntitySchema;
}

/// An entity: what the Admin API, the store, declarative configuration and the cluster know of it.
#[derive(Clone, Debug)]
pub struct EntitySchema {
    /// Name of the collection, as in declarative configuration: `services`.
    pub name: &'static str,
    pub doc: &'static str,
    pub record: &'static Record,
    /// Field that may stand for the id in Admin API paths.
    pub endpoint_key: Option<&'static str>,
    /// Field that may stand for the id below a parent only.
    pub nested_key: Option<&'static str>,
    /// Fields whose values together are unique.
    pub cache_key: &'static [&'static str],
    /// Path segment of the collection when it is not the name.
    pub admin_name: Option<&'static str>,
    /// Path segment below a parent when it is neither.
    pub nested_name: Option<&'static str>,
    /// Whether the Admin API has endpoints of its own for the collection.
    pub admin_api: bool,
    /// Rows may carry a `ttl` in seconds after which they are gone.
    pub ttl: bool,
    /// Plugin that brings the entity.
    pub plugin: Option<&'static str>,
    /// What the value of one field adds to the schema of a row.
    pub subschema: Option<Subschema>,
    /// What happens to values on their way into a row.
    pub transforms: Vec<Transform>,
    /// Reads a row's text into the entity's struct.
    pub parse: fn(&str) -> Option<Typed>,
}

/// How the value of one field chooses a part of a row's schema.
#[derive(Clone, Copy, Debug)]
pub struct Subschema {
    /// The field that chooses; of a list its first element.
    pub key: &'static str,
    /// Text for a value that chooses nothing; `%s` stands for it.
    pub unknown: &'static str,
    /// What is chosen; without it the [`Context`](crate::validate::Context) is asked.
    pub choose: Option<fn(&str, &Context) -> Option<Chosen>>,
}

/// What is chosen: the record of the [`Kind::Chosen`] field, fields that take the place of those of the same name, and checks.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    pub config: Option<&'static Record>,
    pub fields: Vec<Field>,
    pub checks: Vec<Check>,
}

/// A change of a valid row before it is stored, made when one of `fields` was written.
#[derive(Clone, Copy, Debug)]
pub struct Transform {
    pub fields: &'static [&'static str],
    pub apply: fn(&mut Map<String, Value>) -> Result<(), Violations>,
}

/// A row as its entity's struct.
pub type Typed = std::sync::Arc<dyn std::any::Any + Send + Sync>;

impl EntitySchema {
    pub fn new<T: serde::de::DeserializeOwned + Send + Sync + 'static>(record: &'static Record) -> Self {
        Self {
            parse: |text| Some(std::sync::Arc::new(serde_json::from_str::<T>(text).ok()?)),
            name: "",
            doc: "",
            record,
            endpoint_key: None,
            nested_key: None,
            cache_key: &[],
            admin_name: None,
            nested_name: None,
            admin_api: true,
            ttl: false,
            plugin: None,
            subschema: None,
            transforms: Vec::new(),
        }
    }

    pub fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    pub fn endpoint_key(mut self, field: &'static str) -> Self {
        self.endpoint_key = Some(field);
        self
    }

    pub fn nested_key(mut self, field: &'static str) -> Self {
        self.nested_key = Some(field);
        self
    }

    pub fn cache_key(mut self, fields: &'static [&'static str]) -> Self {
        self.cache_key = fields;
        self
    }

    pub fn admin_name(mut self, segment: &'static str) -> Self {
        self.admin_name = Some(segment);
        self
    }

    pub fn nested_name(mut self, segment: &'static str) -> Self {
        self.nested_name = Some(segment);
        self
    }

    pub fn no_admin_api(mut self) -> Self {
        self.admin_api = false;
        self
    }

    pub fn ttl(mut self) -> Self {
        self.ttl = true;
        self
    }

    pub fn plugin(mut self, name: &'static str) -> Self {
        self.plugin = Some(name);
        self
    }

    /// The part of a row's schema that the field `key` chooses among those that the node has installed.
    pub fn installed(mut self, key: &'static str, unknown: &'static str) -> Self {
        self.subschema = Some(Subschema { key, unknown, choose: None });
        self
    }

    /// The part of a row's schema that the field `key` chooses.
    pub fn chooses(mut self, key: &'static str, unknown: &'static str, choose: fn(&str, &Context) -> Option<Chosen>) -> Self {
        self.subschema = Some(Subschema { key, unknown, choose: Some(choose) });
        self
    }

    /// Changes a valid row before it is stored, when one of these fields was written.
    pub fn transform(mut self, fields: &'static [&'static str], apply: fn(&mut Map<String, Value>) -> Result<(), Violations>) -> Self {
        self.transforms.push(Transform { fields, apply });
        self
    }

    /// Path segment of the collection in the Admin API.
    pub fn path(&self) -> &'static str {
        self.admin_name.unwrap_or(self.name)
    }

    /// Path segment of the collection below a parent.
    pub fn nested_path(&self) -> &'static str {
        self.nested_name.unwrap_or_else(|| self.path())
    }
}
