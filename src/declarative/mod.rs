//! YAML and JSON documents <-> rows, for every entity at once.
//!
//! | module | what it holds |
//! |---|---|
//! | [`yaml`], [`scalar`] | YAML text -> JSON value |
//! | [`tree`] | a document -> its entities and how they nest |
//! | [`ids`] | ids that follow from names |
//! | [`load`] | entities -> rows, or every violation at once |
//! | [`error`], [`flatten`] | violations in Kong's shapes |
//! | [`export`] | rows -> YAML text |

pub mod error;
mod export;
mod flatten;
mod ids;
mod load;
mod scalar;
mod tree;
mod yaml;

use std::sync::Arc;

use md5::{Digest, Md5};
use schema::Context;
use serde_json::Value;

use crate::catalog::Row;

pub use error::DeclarativeError;
pub use export::export;
pub use load::load;

/// A document that was understood.
pub struct Document {
    /// Complete rows, parents before children.
    pub rows: Vec<Arc<Row>>,
    /// What whoever wrote the document should be told.
    pub warnings: Vec<String>,
}

/// Reads a document from JSON or YAML text. The transformations that the document asks for are made whatever `context` says of
/// them.
pub fn parse(text: &str, context: &Context) -> Result<Document, DeclarativeError> {
    let (value, warnings) = match serde_json::from_str::<Value>(text) {
        Ok(value) => (value, Vec::new()),
        Err(_) => match yaml::parse(text) {
            Ok(loaded) => (loaded.value, loaded.warnings),
            Err(error) => return Err(DeclarativeError::unreadable(&error.to_string())),
        },
    };
    let rows = load(value, context)?;
    Ok(Document { rows, warnings })
}

/// The hash of a configuration's text: 32 hexadecimal digits.
pub fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// The hash of an empty configuration.
pub const EMPTY_HASH: &str = "00000000000000000000000000000000";

#[cfg(test)]
mod tests;
