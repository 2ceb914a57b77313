//! The configuration of request-transformer, and its checks in Kong's words.

use schema::{Field, Record};
use serde::Deserialize;
use serde_json::Value;

use crate::plugin::template::Template;

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Method of the request upstream. GET, HEAD and TRACE get the members of a form as arguments too.
    #[field(matches("^%u+$"))]
    pub http_method: Option<String>,
    pub remove: Remove,
    pub rename: Rename,
    pub replace: Replace,
    pub add: Values,
    pub append: Values,
}

/// Names to remove.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Remove {
    #[field(default = [])]
    pub body: Vec<String>,
    #[field(default = [], elements(|e| e.check("header", header)))]
    pub headers: Vec<String>,
    #[field(default = [])]
    pub querystring: Vec<String>,
}

/// Pairs `old:new`.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Rename {
    #[field(default = [], elements(template))]
    pub body: Vec<String>,
    #[field(default = [], elements(|e| e.matches("^[^:]+:.*$").check("two headers", two_headers)))]
    pub headers: Vec<String>,
    #[field(default = [], elements(template))]
    pub querystring: Vec<String>,
}

/// Pairs `name:value`.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Replace {
    #[field(default = [], elements(template))]
    pub body: Vec<String>,
    #[field(default = [], elements(header_and_value))]
    pub headers: Vec<String>,
    #[field(default = [], elements(template))]
    pub querystring: Vec<String>,
    /// Path of the request upstream.
    pub uri: Option<String>,
}

/// Pairs `name:value`.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Values {
    #[field(default = [], elements(template))]
    pub body: Vec<String>,
    #[field(default = [], elements(header_and_value))]
    pub headers: Vec<String>,
    #[field(default = [], elements(template))]
    pub querystring: Vec<String>,
}

/// `name:value`; several colons are one.
pub fn pair(entry: &str) -> (&str, &str) {
    let (name, value) = entry.split_once(':').unwrap_or((entry, ""));
    (name, value.trim_start_matches(':'))
}

fn header_and_value(field: Field) -> Field {
    field.matches("^[^:]+:.*$").check("header", header)
}

fn template(field: Field) -> Field {
    field.check("template", |entry| {
        let entry = entry.as_str().unwrap_or_default();
        let (name, value) = pair(entry);
        if value.is_empty() {
            return Err(format!("key '{name}' has no value"));
        }
        Template::check(value).map_err(|error| format!("value '{value}' is not in supported format, error:{error}"))
    })
}

fn header(entry: &Value) -> Result<(), String> {
    header_name(pair(entry.as_str().unwrap_or_default()).0)
}

fn two_headers(entry: &Value) -> Result<(), String> {
    let (old, new) = pair(entry.as_str().unwrap_or_default());
    header_name(old)?;
    header_name(new)
}

fn header_name(name: &str) -> Result<(), String> {
    let fine = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    if fine { Ok(()) } else { Err(format!("'{name}' is not a valid header")) }
}
