//! Keys for signatures and encryption, and sets of them.

use schema::rules::is_reference;
use schema::types::{Id, Parent, Tags};
use schema::{Check, Entity, Object, Record, Value, Violations};
use serde::Deserialize;

use super::pem;

/// Keys that belong together.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "key_sets", endpoint_key = "name", admin_name = "key-sets")]
pub struct KeySet {
    #[field(auto)]
    pub id: Id,
    /// The name of the set.
    #[field(unique)]
    pub name: Option<String>,
    pub tags: Option<Tags>,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
}

/// A key, as JWK or as PEM.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "keys", endpoint_key = "name", cache_key = &["kid", "set"])]
#[record(
    check(Check::mutually_exclusive(&["pem", "jwk"])),
    check(Check::at_least_one_of(&["pem", "jwk"])),
    check(Check::custom(&["jwk", "pem", "kid"], check_key)),
)]
pub struct Key {
    #[field(auto)]
    pub id: Id,
    /// The set to which the key belongs.
    #[field(parent("key_sets"), cascade)]
    pub set: Option<Parent>,
    /// The name of the key.
    #[field(unique)]
    pub name: Option<String>,
    /// Identifies the key within its set.
    pub kid: String,
    /// The key as the JSON text of a JSON Web Key.
    #[field(referenceable, encrypted)]
    pub jwk: Option<String>,
    /// The key as PEM.
    pub pem: Option<PemPair>,
    pub tags: Option<Tags>,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
}

/// The halves of a key as PEM.
#[derive(Clone, Debug, Deserialize, Record)]
#[record(check(Check::at_least_one_of(&["private_key", "public_key"])))]
pub struct PemPair {
    #[field(referenceable, encrypted)]
    pub private_key: Option<String>,
    #[field(referenceable)]
    pub public_key: Option<String>,
}

fn check_key(row: &Object) -> Result<(), Violations> {
    if let Some(jwk) = row.get("jwk").and_then(Value::as_str) {
        return if is_reference(jwk) { Ok(()) } else { check_jwk(jwk, row).map_err(Violations::entity) };
    }
    match row.get("pem") {
        Some(Value::Object(pair)) => check_pem(pair),
        _ => Ok(()),
    }
}

fn check_jwk(jwk: &str, row: &Object) -> Result<(), &'static str> {
    let Ok(Value::Object(jwk)) = serde_json::from_str::<Value>(jwk) else {
        return Err("could not json decode jwk string");
    };
    if jwk.get("kid") != row.get("kid") {
        return Err("kid in jwk.kid must be equal to keys.kid");
    }
    let has = |fields: &[&str]| fields.iter().all(|f| jwk.get(*f).is_some_and(|v| v.as_str().is_some_and(|t| !t.is_empty())));
    let whole = match jwk.get("kty").and_then(Value::as_str) {
        Some("RSA") => has(&["n", "e"]),
        Some("EC") => has(&["crv", "x", "y"]),
        Some("OKP") => has(&["crv", "x"]),
        Some("oct") => has(&["k"]),
        _ => false,
    };
    if whole { Ok(()) } else { Err("could not load JWK, likely not a valid key") }
}

fn check_pem(pair: &Object) -> Result<(), Violations> {
    let half = |name: &str| pair.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let wrong = |text: &str| Err(Violations::field("pem", text));
    match (half("private_key"), half("public_key")) {
        (None, None) => Err(Violations::entity("need to supply a PEM formatted public and/or private key.")),
        (Some(text), _) | (_, Some(text)) if is_reference(text) => Ok(()),
        (_, Some(public)) if !pem::is_public_key(public) => wrong("could not load public key"),
        (Some(private), _) if !pem::is_private_key(private) => wrong("could not load private key"),
        (Some(private), Some(public)) if pem::public_key(public).is_some_and(|key| !pem::belongs(private, &key)) => {
            wrong("public key does not match private key")
        }
        _ => Ok(()),
    }
}
