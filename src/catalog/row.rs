//! One row of an entity.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use schema::{EntitySchema, EntityType, Kind, Object, Typed};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::table::parents;
use super::text::some_fields;
use crate::model::WORKSPACE_ID;

/// A row. The body is JSON text, which is small to keep, ready to be served, and what disk and peers hold too: a node of a cluster
/// has it once, for the row and for the record. The typed struct is made when it is first asked for.
///
/// What a look-up by id reads comes first, so that it is one line of memory together with the counts of the `Arc` around it.
#[repr(C)]
pub struct Row {
    typed: OnceLock<Typed>,
    pub id: Uuid,
    /// When the row is gone, in milliseconds since the epoch; only rows of entities with `ttl` have it.
    end: Option<NonZero<u64>>,
    /// The body is so much of the text as `length` says.
    text: Arc<str>,
    length: usize,
    pub schema: &'static EntitySchema,
    logged: OnceLock<Box<RawValue>>,
}

impl Row {
    pub fn new(schema: &'static EntitySchema, id: Uuid, body: &Object) -> Self {
        Self::from_text(schema, id, serde_json::to_string(body).expect("JSON values have a text").into())
    }

    /// A row whose body was read from disk.
    pub fn from_text(schema: &'static EntitySchema, id: Uuid, text: Arc<str>) -> Self {
        let length = text.len();
        Self::beginning(schema, id, text, length)
    }

    /// A row whose body is the beginning of a text.
    ///
    /// # Panics
    /// When it does not end between two characters.
    pub fn beginning(schema: &'static EntitySchema, id: Uuid, text: Arc<str>, length: usize) -> Self {
        assert!(text.is_char_boundary(length), "a body ends between two characters");
        Self { schema, id, end: None, text, length, typed: OnceLock::new(), logged: OnceLock::new() }
    }

    /// The row with a time at which it is gone, in milliseconds since the epoch.
    pub fn expiring(mut self, at: Option<u64>) -> Self {
        self.end = at.map(|at| NonZero::new(at).unwrap_or(NonZero::<u64>::MIN));
        self
    }

    /// When the row is gone, in milliseconds since the epoch.
    pub fn expires(&self) -> Option<u64> {
        self.end.map(NonZero::get)
    }

    /// Whether the row's time is over. Only rows with a time ask the clock.
    pub fn expired(&self) -> bool {
        self.expires().is_some_and(|at| at <= now())
    }

    /// Whole seconds that the row has left, rounded up; `None` for a row without an end.
    pub fn ttl(&self) -> Option<u64> {
        self.expires().map(|at| at.saturating_sub(now()).div_ceil(1000))
    }

    /// The body as JSON text, all fields present.
    pub fn text(&self) -> &str {
        &self.text[..self.length]
    }

    /// The text that begins with the body.
    pub fn shared_text(&self) -> &Arc<str> {
        &self.text
    }

    /// The body as a table.
    pub fn object(&self) -> Object {
        serde_json::from_str(self.text()).expect("a row's body was written by this program")
    }

    /// The fields by which rows are found, and the id.
    pub fn indexed(&self) -> Object {
        let (record, key) = (self.schema.record, self.schema.cache_key);
        let declared = |name: &str| record.get(name).is_some_and(|field| field.unique || matches!(field.kind, Kind::Foreign { .. }));
        let wanted = |name: &str| matches!(name, "id" | "tags") || key.contains(&name) || declared(name);
        some_fields(self.text(), wanted).expect("a row's body was written by this program")
    }

    /// Whether rows of the entity may refer to others.
    pub fn has_parents(&self) -> bool {
        self.schema.record.foreign_keys().next().is_some()
    }

    /// The rows that this one's foreign keys name: entity and id.
    pub fn parents(&self) -> Vec<(&'static str, Uuid)> {
        if self.has_parents() { parents(self.schema, &self.indexed()) } else { Vec::new() }
    }

    /// Whether another row says the very same.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.text() == other.text() && self.end == other.end
    }

    /// Whether the body fits its entity's struct. What is asked of many rows at once: the struct is not kept.
    pub fn fits(&self) -> bool {
        self.typed.get().is_some() || (self.schema.parse)(self.text()).is_some()
    }

    /// The row as its entity's struct; `None` when it does not fit, which validation rules out.
    pub fn typed<T: EntityType + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.typed_any()?.downcast().ok()
    }

    /// The row as its entity's struct, whichever that is.
    pub fn typed_any(&self) -> Option<Typed> {
        if let Some(typed) = self.typed.get() {
            return Some(Arc::clone(typed));
        }
        let typed = (self.schema.parse)(self.text())?;
        Some(Arc::clone(self.typed.get_or_init(|| typed)))
    }

    /// The row as log records hold it: without what is null, and with the id of the workspace unless it is a consumer.
    pub fn logged(&self) -> &RawValue {
        self.logged.get_or_init(|| {
            let mut row = self.object();
            row.retain(|_, value| !value.is_null());
            if self.schema.name != "consumers" {
                row.insert("ws_id".to_owned(), WORKSPACE_ID.into());
            }
            serde_json::value::to_raw_value(&row).expect("JSON values have a text")
        })
    }
}

/// A row is itself alone: whatever is changed becomes another.
impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl std::fmt::Debug for Row {
    /// Names the row without its body, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.schema.name, self.id)
    }
}

/// Milliseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
