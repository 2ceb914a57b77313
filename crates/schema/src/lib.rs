//! Schemas: what an entity or a plugin's configuration may hold, declared once as a Rust struct.
//!
//! | module | what it holds |
//! |---|---|
//! | [`field`] | one field: kind, default, rules |
//! | [`record`] | a list of fields with checks across them; entities |
//! | [`check`] | checks across fields: at least one of, conditional, mutually required, ... |
//! | [`types`] | Rust types that are fields: `Option`, `Vec`, `Set`, ... |
//! | [`text`] | the semantic ones: `Host`, `Path`, `HeaderName`, ... |
//! | [`host`], [`path`], [`url`] | host names with ports, request paths, URLs |
//! | [`validate`] | input -> a complete row, or every violation at once |
//! | [`complete`] | the first half of that: other spellings, defaults, merging |
//! | [`infer`] | forms, where everything is text -> input |
//! | [`rules`] | the rules of one value, with their texts |
//! | [`lua`] | Lua's patterns and the way it prints tables |
//! | [`violations`] | the tree of violations and Kong's text for it |
//! | [`describe`] | a schema in the form of `GET /schemas/...` |

#[cfg(test)]
extern crate self as schema;

pub mod check;
pub mod complete;
pub mod describe;
pub mod field;
pub mod host;
pub mod infer;
pub mod lua;
pub mod path;
pub mod record;
pub mod rules;
pub mod text;
pub mod types;
pub mod url;
pub mod validate;
pub mod violations;

pub use check::Check;
pub use complete::read;
pub use field::{Field, Kind, OnDelete, Rule};
pub use record::{Chosen, EntitySchema, EntityType, Record, RecordType, Typed};
pub use serde_json::{Map, Value, json};
pub use troop_schema_derive::{Entity, Record};
pub use types::FieldType;
pub use validate::Context;
pub use violations::Violations;

/// A row or a part of one, as it travels between HTTP, disk and peers.
pub type Object = Map<String, Value>;

#[cfg(test)]
mod tests;
