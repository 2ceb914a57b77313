//! What a body says of a row.

use schema::{EntitySchema, Object};
use serde_json::Value;

use crate::admin::body::Body;
use crate::admin::call::Call;
use crate::catalog::Row;

/// The members of the body. The leaves of a form get the types that the schema says.
pub fn take(call: &mut Call, entity: &'static EntitySchema, stored: Option<&Row>) -> Object {
    match std::mem::take(&mut call.body) {
        Body::Json(Value::Object(input)) => input,
        Body::Form(form) => {
            let stored = stored.map(Row::object);
            schema::infer::infer(entity, form, stored.as_ref(), &call.context.schemas.context())
        }
        _ => Object::new(),
    }
}
