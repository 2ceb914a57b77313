//! What a body says of a row.

use schema::{EntitySchema, Object};
use serde_json::Value;

use crate::admin::body::Body;
use crate::admin::call::Call;
use crate::catalog::Row;

/// What an answer shows of a conflict, see `/cluster/conflicts`. It is no part of the row.
pub const CONFLICT: &str = "_conflict";

/// The members of the body. The leaves of a form get the types that the schema says; `stored` is the row that is patched.
pub fn take(call: &mut Call, entity: &'static EntitySchema, stored: Option<&Row>) -> Object {
    match std::mem::take(&mut call.body) {
        Body::Json(Value::Object(mut input)) => {
            // Of clients that send back what they have read.
            if call.context.cluster.is_some() {
                input.remove(CONFLICT);
            }
            input
        }
        Body::Form(form) => {
            let stored = stored.map(Row::object);
            let mut input = schema::infer::infer(entity, form, stored.as_ref(), &call.context.schemas.context());
            if entity.ttl {
                infer_ttl(&mut input);
            }
            input
        }
        _ => Object::new(),
    }
}

/// Seconds to live are no field of the schema.
fn infer_ttl(input: &mut Object) {
    if let Some(ttl) = input.get_mut("ttl") {
        let number = ttl.as_str().and_then(|text| serde_json::from_str(text.trim()).ok()).filter(Value::is_number);
        match number {
            Some(number) => *ttl = number,
            None if ttl == "" => *ttl = Value::Null,
            None => {}
        }
    }
}
