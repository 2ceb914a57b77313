//! `/certificates/{c}` takes the name of an SNI too; PUT of an unknown name makes a certificate for it.

use actix_web::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::body::Body;
use crate::admin::call::{self, Call};
use crate::admin::table::{Handler, Table, handler};

const PATH: &str = "/certificates/{certificates}";

pub fn endpoints(table: &mut Table) {
    table.remove("/snis/{snis}/certificate");
    table.wrap(PATH, |pattern, inner| {
        let creates = pattern == PATH;
        handler(move |call| by_name(call, creates, inner.clone()))
    });
}

/// Puts the certificate's id in the place of the name.
async fn by_name(mut call: Call, creates: bool, inner: Handler) -> Outcome {
    let name = call.param("certificates").to_owned();
    if call::uuid(&name).is_none() {
        let id = match certificate_of(&call, &name) {
            Some(id) => id,
            None if creates && call.method == Method::PUT => {
                attach(&mut call.body, name);
                Uuid::new_v4().to_string()
            }
            None => return Err(Answer::message(404, "SNI not found")),
        };
        call.set_param("certificates", id);
    }
    inner(call).await
}

fn certificate_of(call: &Call, name: &str) -> Option<String> {
    let sni = call.catalog.find("snis", "name", name)?.object();
    Some(sni.get("certificate")?.get("id")?.as_str()?.to_owned())
}

fn attach(body: &mut Body, name: String) {
    match body {
        Body::Json(Value::Object(input)) | Body::Form(input) => {
            input.entry("snis").or_insert_with(|| json!([name]));
        }
        _ => *body = Body::Json(json!({"snis": [name]})),
    }
}
