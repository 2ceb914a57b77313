//! Credentials of consumers, one entity for each way to authenticate, and the groups that access lists speak of.

use schema::check::Match;
use schema::types::{Id, Parent, Tags};
use schema::{Check, Entity, Object, Rule, Value, Violations};
use serde::Deserialize;
use sha1::{Digest, Sha1};

use super::public_key::PublicKey;

/// A key for key-auth.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "keyauth_credentials",
    plugin = "key-auth",
    endpoint_key = "key",
    cache_key = &["key"],
    admin_name = "key-auths",
    nested_name = "key-auth",
    ttl,
)]
#[repr(C)] // what each request asks for comes first, and stands together
pub struct KeyAuthCredential {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    #[field(optional, auto, unique)]
    pub key: String,
    pub tags: Option<Tags>,
}

/// A user name and a password for basic-auth.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "basicauth_credentials",
    plugin = "basic-auth",
    endpoint_key = "username",
    cache_key = &["username"],
    admin_name = "basic-auths",
    nested_name = "basic-auth",
    transform(&["password"], hash_password),
)]
pub struct BasicAuthCredential {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    #[field(unique)]
    pub username: String,
    /// Kept as the hexadecimal SHA-1 of the password followed by the id of the consumer.
    #[field(encrypted)]
    pub password: String,
    pub tags: Option<Tags>,
}

/// A user name and a shared secret for hmac-auth.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "hmacauth_credentials",
    plugin = "hmac-auth",
    endpoint_key = "username",
    cache_key = &["username"],
    admin_name = "hmac-auths",
    nested_name = "hmac-auth",
)]
pub struct HmacAuthCredential {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    #[field(unique)]
    pub username: String,
    #[field(optional, auto)]
    pub secret: String,
    pub tags: Option<Tags>,
}

/// A key and a secret, or a public key, by which JSON Web Tokens are verified.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "jwt_secrets",
    plugin = "jwt",
    endpoint_key = "key",
    cache_key = &["key"],
    admin_name = "jwts",
    nested_name = "jwt",
)]
#[record(check(Check::conditional(
    "algorithm",
    Match::Rule(Rule::MatchAny(ASYMMETRIC, "")),
    "rsa_public_key",
    Match::RequiredAnd(check_public_key),
)))]
pub struct JwtSecret {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    #[field(optional, auto, unique)]
    pub key: String,
    #[field(optional, auto)]
    pub secret: String,
    pub rsa_public_key: Option<String>,
    #[field(optional, default = "HS256", one_of(ALGORITHMS))]
    pub algorithm: String,
    pub tags: Option<Tags>,
}

const ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"];

const ASYMMETRIC: &[&str] = &["^RS256$", "^RS384$", "^RS512$", "^PS256$", "^PS384$", "^PS512$", "^EdDSA$"];

/// A group of the acl plugin that a consumer belongs to.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "acls", plugin = "acl", cache_key = &["consumer", "group"], nested_key = "group")]
pub struct Acl {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    pub group: String,
    pub tags: Option<Tags>,
}

fn check_public_key(value: &Value) -> Result<(), String> {
    if PublicKey::from_pem(value.as_str().unwrap_or_default()).is_some() { Ok(()) } else { Err("invalid key".to_owned()) }
}

/// What is kept of a password.
pub fn password_hash(password: &str, consumer: &str) -> String {
    let hash = Sha1::new().chain_update(password).chain_update(consumer).finalize();
    super::hex(&hash)
}

fn hash_password(row: &mut Object) -> Result<(), Violations> {
    let consumer = row.get("consumer").and_then(|c| c.get("id")).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(Value::String(password)) = row.get_mut("password") {
        *password = password_hash(password, &consumer);
    }
    Ok(())
}
