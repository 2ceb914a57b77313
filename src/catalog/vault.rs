//! `{vault://env/my-secret}`: values that stand somewhere else. Pure, given the environment.
//!
//! Rows keep the reference and show it; the value is put in its place only in what a snapshot builds.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use schema::{Field, Kind, Object, Record, Value};

use super::Catalog;

/// Why a reference has no value. The texts are Kong's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("not a reference [{0}]")]
    NotAReference(String),
    #[error("reference url is missing path [{0}]")]
    NoPath(String),
    #[error("reference url has empty path [{0}]")]
    EmptyPath(String),
    #[error("could not find vault ({0})")]
    NoVault(String),
    #[error("could not get value from external vault (no value found)")]
    NoValue,
    #[error("subfield {0} not found in JSON secret")]
    NoSubfield(String),
}

/// Looks up a variable of the environment.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What references are resolved with: the environment and the configured vaults.
pub struct Vaults<'a> {
    environment: &'a Environment<'a>,
    /// Prefix of a vault entity to the prefix that it puts before variables. All are of the kind `env`.
    configured: HashMap<String, String>,
}

impl<'a> Vaults<'a> {
    /// Only the built-in `env` vault: for settings, which are read before there is a catalog.
    pub fn new(environment: &'a Environment<'a>) -> Self {
        Self { environment, configured: HashMap::new() }
    }

    /// With the vault entities of a catalog.
    pub fn of(catalog: &Catalog, environment: &'a Environment<'a>) -> Self {
        let mut vaults = Self::new(environment);
        for row in catalog.rows("vaults") {
            let body = row.object();
            let (Some(prefix), Some("env")) = (text(&body, "prefix"), text(&body, "name")) else { continue };
            let before = body.get("config").and_then(|config| config.get("prefix")).and_then(Value::as_str);
            vaults.configured.insert(prefix.to_owned(), before.unwrap_or_default().to_owned());
        }
        vaults
    }

    /// The value of a reference.
    pub fn resolve(&self, reference: &str) -> Result<String, VaultError> {
        let Reference { vault, resource, key, prefix } = Reference::parse(reference)?;
        let configured = match self.configured.get(vault) {
            Some(prefix) => prefix.as_str(),
            None if vault == "env" => "",
            None => return Err(VaultError::NoVault(vault.to_owned())),
        };
        let name = format!("{}{resource}", prefix.as_deref().unwrap_or(configured)).to_uppercase().replace('-', "_");
        let secret = (self.environment)(&name).ok_or(VaultError::NoValue)?;
        let Some(key) = key else { return Ok(secret) };
        let missing = || VaultError::NoSubfield(key.clone());
        let secret: Value = serde_json::from_str(&secret).map_err(|_| missing())?;
        match secret.get(&key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) if !other.is_null() => Ok(other.to_string()),
            _ => Err(missing()),
        }
    }

    /// Puts the values of references into a row's referenceable fields. `config` is the record of a plugin's or a vault's
    /// `config`. A reference without a value becomes an empty text, as in Kong; the answer names each of them.
    pub fn resolve_row(&self, record: &Record, config: Option<&Record>, body: &mut Object) -> Vec<(String, VaultError)> {
        let mut failed = Vec::new();
        self.resolve_record(record, config, body, "", &mut failed);
        failed
    }

    fn resolve_record(
        &self,
        record: &Record,
        config: Option<&Record>,
        body: &mut Object,
        path: &str,
        failed: &mut Vec<(String, VaultError)>,
    ) {
        for field in &record.fields {
            let Some(value) = body.get_mut(field.name) else { continue };
            let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            self.resolve_value(field, config, value, &path, failed);
        }
    }

    fn resolve_value(&self, field: &Field, config: Option<&Record>, value: &mut Value, path: &str, failed: &mut Vec<(String, VaultError)>) {
        match (&field.kind, value) {
            (_, Value::String(text)) if field.referenceable && is_reference(text) => {
                let resolved = self.resolve(text);
                *text = resolved.unwrap_or_else(|error| {
                    failed.push((path.to_owned(), error));
                    String::new()
                });
            }
            (Kind::Array(of) | Kind::Set(of), Value::Array(items)) => {
                let of = inheriting(of, field);
                for (at, item) in items.iter_mut().enumerate() {
                    self.resolve_value(&of, None, item, &format!("{path}.{}", at + 1), failed);
                }
            }
            (Kind::Map { values, .. }, Value::Object(table)) => {
                let values = inheriting(values, field);
                for (key, item) in table.iter_mut() {
                    self.resolve_value(&values, None, item, &format!("{path}.{key}"), failed);
                }
            }
            (Kind::Record(record), Value::Object(table)) => self.resolve_record(record, None, table, path, failed),
            (Kind::Chosen, Value::Object(table)) => {
                if let Some(record) = config {
                    self.resolve_record(record, None, table, path, failed);
                }
            }
            _ => {}
        }
    }
}

/// The field of a list's elements or a map's values, which a mark on the whole covers too.
fn inheriting(of: &Field, whole: &Field) -> Field {
    let mut of = of.clone();
    of.referenceable |= whole.referenceable;
    of
}

/// Whether a text is meant as a reference.
pub fn is_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}')
}

fn text<'a>(body: &'a Object, field: &str) -> Option<&'a str> {
    body.get(field).and_then(Value::as_str)
}

/// A reference in its parts: `{vault://<vault>/<resource>[/<key>][?prefix=<prefix>][#version]}`.
struct Reference<'a> {
    vault: &'a str,
    resource: String,
    key: Option<String>,
    prefix: Option<String>,
}

impl<'a> Reference<'a> {
    fn parse(whole: &'a str) -> Result<Self, VaultError> {
        let inner = whole.strip_prefix("{vault://").and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.ok_or_else(|| VaultError::NotAReference(whole.to_owned()))?;
        let inner = inner.split_once('#').map_or(inner, |(url, _version)| url);
        let (url, query) = inner.split_once('?').unwrap_or((inner, ""));
        let (vault, path) = url.split_once('/').ok_or_else(|| VaultError::NoPath(whole.to_owned()))?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (resource, key) = match path.rsplit_once('/') {
            Some((resource, key)) => (decode(resource), Some(decode(key)).filter(|key| !key.is_empty())),
            None => (decode(path), None),
        };
        if resource.is_empty() {
            return Err(VaultError::EmptyPath(whole.to_owned()));
        }
        let options = query.split('&').filter_map(|option| option.split_once('='));
        let prefix = options.into_iter().find(|(name, _)| *name == "prefix").map(|(_, value)| decode(value));
        Ok(Self { vault, resource, key, prefix })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schema::{RecordType, json};
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "MY_SECRET" => "open sesame",
            "X_SECRET" => "of x",
            "DB" => r#"{"user": "u", "port": 5432, "none": null}"#,
            "NOT_JSON" => "{",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn references_of_the_environment() {
        let vaults = Vaults::new(&environment);
        let get = |reference: &str| vaults.resolve(reference).map_err(|error| error.to_string());
        assert_eq!(get("{vault://env/my-secret}"), Ok("open sesame".to_owned()));
        assert_eq!(get("{vault://env/My_Secret?ttl=5#2}"), Ok("open sesame".to_owned()));
        assert_eq!(get("{vault://env/secret?prefix=x_}"), Ok("of x".to_owned()));
        assert_eq!(get("{vault://env/db/user}"), Ok("u".to_owned()));
        assert_eq!(get("{vault://env/db/port}"), Ok("5432".to_owned()));
        let wrong = [
            ("env/x", "not a reference [env/x]"),
            ("{vault://env}", "reference url is missing path [{vault://env}]"),
            ("{vault://env/}", "reference url has empty path [{vault://env/}]"),
            ("{vault://nope/x}", "could not find vault (nope)"),
            ("{vault://env/nope}", "could not get value from external vault (no value found)"),
            ("{vault://env/db/none}", "subfield none not found in JSON secret"),
            ("{vault://env/not-json/a}", "subfield a not found in JSON secret"),
        ];
        for (reference, text) in wrong {
            assert_eq!(get(reference), Err(text.to_owned()), "{reference}");
        }
    }

    #[derive(Deserialize, schema::Record)]
    #[allow(dead_code, reason = "only its declaration is read")]
    struct Inner {
        #[field(referenceable)]
        secret: String,
        plain: String,
        #[field(elements(|e| e.referenceable()))]
        list: Vec<String>,
    }

    #[derive(Deserialize, schema::Record)]
    #[allow(dead_code, reason = "only its declaration is read")]
    struct Outer {
        inner: Inner,
        #[field(chosen)]
        config: Value,
    }

    #[test]
    fn only_referenceable_fields_are_resolved() {
        let vaults = Vaults::new(&environment);
        let part = json!({"secret": "{vault://env/my-secret}", "plain": "{vault://env/my-secret}", "list": ["a", "{vault://env/gone}"]});
        let mut body = json!({"inner": part, "config": part}).as_object().cloned().unwrap();
        let failed = vaults.resolve_row(Outer::record(), Some(Inner::record()), &mut body);
        let resolved = json!({"secret": "open sesame", "plain": "{vault://env/my-secret}", "list": ["a", ""]});
        assert_eq!(Value::Object(body), json!({"inner": resolved, "config": resolved}));
        let paths: Vec<_> = failed.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["inner.list.2", "config.list.2"]);
    }

    #[test]
    fn configured_vaults_put_their_prefix_before() {
        let entity = crate::model::entity("vaults").unwrap();
        let id = Uuid::from_u128(1);
        let body = json!({"id": id.to_string(), "prefix": "p", "name": "env", "config": {"prefix": "x_"}});
        let row = crate::catalog::Row::new(entity, id, body.as_object().unwrap());
        let catalog = Catalog::of([Arc::new(row)]);
        let vaults = Vaults::of(&catalog, &environment);
        assert_eq!(vaults.resolve("{vault://p/secret}"), Ok("of x".to_owned()));
    }
}
