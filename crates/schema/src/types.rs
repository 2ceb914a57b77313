//! Rust types that are fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::field::{Field, Kind};
pub use crate::text::*;

/// A Rust type that says which field it is.
pub trait FieldType {
    fn field() -> Field;
}

macro_rules! plain {
    ($($ty:ty => $kind:ident),+ $(,)?) => {
        $(impl FieldType for $ty {
            fn field() -> Field {
                Field::new(Kind::$kind).required()
            }
        })+
    };
}

plain! {
    String => String,
    std::sync::Arc<str> => String,
    i64 => Integer,
    u64 => Integer,
    u32 => Integer,
    u16 => Integer,
    f64 => Number,
    bool => Boolean,
    Value => Any,
}

/// May be null.
impl<T: FieldType> FieldType for Option<T> {
    fn field() -> Field {
        T::field().nullable()
    }
}

impl<T: FieldType> FieldType for Vec<T> {
    fn field() -> Field {
        Field::new(Kind::Array(Box::new(T::field().nullable()))).required()
    }
}

impl<T: FieldType> FieldType for BTreeMap<String, T> {
    fn field() -> Field {
        let (keys, values) = (Box::new(String::field().nullable()), Box::new(T::field().nullable()));
        Field::new(Kind::Map { keys, values }).required()
    }
}

/// A list without duplicates, in the order written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Set<T>(pub Vec<T>);

impl<T: FieldType> FieldType for Set<T> {
    fn field() -> Field {
        Field::new(Kind::Set(Box::new(T::field().nullable()))).required()
    }
}

impl<T> std::ops::Deref for Set<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

/// Id of a row.
pub type Id = uuid::Uuid;

impl FieldType for uuid::Uuid {
    fn field() -> Field {
        Field::new(Kind::String).required().uuid()
    }
}

/// A set of strings representing tags.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub Vec<Tag>);

impl FieldType for Tags {
    fn field() -> Field {
        Field::new(Kind::Set(Box::new(Tag::field()))).required().doc("A set of strings representing tags.")
    }
}

impl std::ops::Deref for Tags {
    type Target = Vec<Tag>;

    fn deref(&self) -> &Vec<Tag> {
        &self.0
    }
}

/// A foreign key: `{"id": uuid}`. `#[field(parent("services"))]` names the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Parent {
    pub id: uuid::Uuid,
}

impl FieldType for Parent {
    fn field() -> Field {
        Field::foreign("").required()
    }
}
