//! Authenticates a request by a JSON Web Token (RFC 7519) that was signed with a credential's secret or private key.
//!
//! Tokens are looked for in the query arguments of `uri_param_names`, the cookies of `cookie_names` and, behind `Bearer`, the
//! headers of `header_names`. The claim `key_claim_name`, or the member of the token's header of that name, says which
//! credential it is; the token's algorithm has to be the credential's: HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384,
//! ES512, PS256, PS384, PS512 or EdDSA with Ed25519. The parts of a token may be in either alphabet of base64, with or without
//! padding.
//!
//! `claims_to_verify` may hold `exp` and `nbf`; with `maximum_expiration` the token may not live for more seconds than that.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 401 | there is no token, or more than one, or it is wrong; with `WWW-Authenticate: Bearer` |
//! | 500 | `anonymous` names a consumer that does not exist |

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::ParsedPublicKey;
use lru::LruCache;
use parking_lot::Mutex;
use schema::types::Set;
use schema::{Map, Record, Value, Violations, json};
use serde::Deserialize;
use uuid::Uuid;

use crate::model::JwtSecret;
use crate::model::public_key::PublicKey;
use crate::plugin::auth::{self, Verified};
use crate::plugin::header_credentials::after_scheme;
use crate::plugin::token::{Algorithm, Token, decode_base64};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes, query};

/// Public keys that are kept ready.
const KEYS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

pub struct Jwt {
    config: Config,
    /// Challenges without and with `error="invalid_token"`.
    challenge: String,
    challenge_with_error: String,
    keys: Mutex<LruCache<Uuid, Ready, ahash::RandomState>>,
}

/// A public key that was made ready, and the row that it is from.
struct Ready {
    row: Arc<JwtSecret>,
    key: Arc<ParsedPublicKey>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Query arguments that may hold a token.
    #[field(optional, default = ["jwt"])]
    uri_param_names: Set<String>,
    /// Cookies that may hold a token.
    #[field(optional, default = [])]
    cookie_names: Set<String>,
    /// The claim that names the credential.
    #[field(optional, default = "iss")]
    key_claim_name: String,
    /// Whether secrets of credentials are written in base64.
    #[field(default = false)]
    secret_is_base64: bool,
    /// Claims that are verified.
    #[field(elements(|e| e.one_of(&["exp", "nbf"])))]
    claims_to_verify: Option<Set<String>>,
    /// Consumer (id or username) to go on as when authentication fails.
    anonymous: Option<String>,
    /// Whether OPTIONS requests need a token too.
    #[field(default = true)]
    run_on_preflight: bool,
    /// Seconds that a token may live from now on; 0 is no limit.
    #[field(optional, default = 0, between(0, 31536000))]
    maximum_expiration: f64,
    /// Headers that may hold a token.
    #[field(optional, default = ["authorization"])]
    header_names: Set<String>,
    /// Realm of the challenge.
    realm: Option<String>,
}

impl Plugin for Jwt {
    const NAME: &'static str = "jwt";
    const PRIORITY: i32 = 1450;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let challenge = auth::challenge("Bearer", config.realm.as_deref());
        let separator = if config.realm.is_some() { "," } else { "" };
        let challenge_with_error = format!("{challenge}{separator} error=\"invalid_token\"");
        let keys = Mutex::new(LruCache::with_hasher(KEYS, ahash::RandomState::new()));
        Ok(Self { config, challenge, challenge_with_error, keys })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let anonymous = self.config.anonymous.as_deref();
        if auth::passes_as_preflight(x, self.config.run_on_preflight) || auth::already_authenticated(x, anonymous) {
            return Ok(());
        }
        let outcome = self.verify(x);
        auth::settle(x, anonymous, outcome)
    }
}

impl Jwt {
    fn verify(&self, x: &Exchange) -> Result<Verified, Reply> {
        let tokens = self.tokens(x);
        let text = match tokens.as_slice() {
            [] => return Err(unauthorized("Unauthorized").header("WWW-Authenticate", &self.challenge)),
            [token] => token,
            _ => return Err(self.refusal("Multiple tokens provided")),
        };
        let token = Token::read(text).map_err(|wrong| self.refusal(&format!("Bad token; {wrong}")))?;
        let name = &self.config.key_claim_name;
        let key = match token.claims.get(name).or_else(|| token.header.get(name)) {
            None => return Err(self.refusal(&format!("No mandatory '{name}' in claims"))),
            Some(Value::String(key)) if !key.is_empty() => key,
            Some(_) => return Err(self.refusal(&format!("Invalid '{name}' in claims"))),
        };
        let credential = x.world.find::<JwtSecret>("key", key);
        let credential = credential.ok_or_else(|| self.refusal(&format!("No credentials found for given '{name}'")))?;
        if Algorithm::of(&credential.algorithm) != Some(token.algorithm) {
            return Err(self.refusal("Invalid algorithm"));
        }
        if !self.is_signed(&token, &credential)? {
            return Err(self.refusal("Invalid signature"));
        }
        let wrong = self.wrong_claims(&token.claims);
        if !wrong.is_empty() {
            return Err(Reply::json(401, &Value::Object(wrong)).header("WWW-Authenticate", &self.challenge_with_error));
        }
        let no_consumer = |_| unauthorized(&format!("Could not find consumer for '{name}={key}'"));
        Verified::of(x, credential.id, credential.consumer.id, credential.key.as_str()).map_err(no_consumer)
    }

    /// The tokens of a request, each once.
    fn tokens(&self, x: &Exchange) -> Vec<String> {
        let mut tokens: Vec<String> = Vec::new();
        let mut add = |token: &str| {
            if !token.is_empty() && !tokens.iter().any(|known| known == token) {
                tokens.push(token.to_owned());
            }
        };
        for argument in query::arguments(x.query()) {
            if let Some(value) = argument.value
                && self.config.uri_param_names.iter().any(|name| *name == argument.name)
            {
                add(&value);
            }
        }
        for name in self.config.cookie_names.iter() {
            add(cookie(x, name).unwrap_or_default());
        }
        for name in self.config.header_names.iter() {
            add(x.request.headers.get(name).and_then(|value| after_scheme(value, "bearer")).unwrap_or_default());
        }
        tokens
    }

    fn is_signed(&self, token: &Token, credential: &Arc<JwtSecret>) -> Result<bool, Reply> {
        if token.algorithm.asymmetric().is_some() {
            let key = self.public_key(token.algorithm, credential).ok_or_else(|| self.refusal("Invalid key/secret"))?;
            return Ok(token.is_signed_by(&key));
        }
        if !self.config.secret_is_base64 {
            return Ok(token.is_signed_with(credential.secret.as_bytes()));
        }
        let secret = decode_base64(&credential.secret).ok_or_else(|| self.refusal("Invalid key/secret"))?;
        Ok(token.is_signed_with(&secret))
    }

    /// The credential's public key, ready for its algorithm. Reading PEM costs more than a signature, so keys are kept.
    fn public_key(&self, algorithm: Algorithm, credential: &Arc<JwtSecret>) -> Option<Arc<ParsedPublicKey>> {
        if let Some(ready) = self.keys.lock().get(&credential.id)
            && Arc::ptr_eq(&ready.row, credential)
        {
            return Some(Arc::clone(&ready.key));
        }
        let key = PublicKey::from_pem(credential.rsa_public_key.as_deref()?)?.verifier(algorithm.asymmetric()?)?;
        let key = Arc::new(key);
        self.keys.lock().put(credential.id, Ready { row: Arc::clone(credential), key: Arc::clone(&key) });
        Some(key)
    }

    /// What is wrong with the claims, by their names.
    fn wrong_claims(&self, claims: &Map<String, Value>) -> Map<String, Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) as f64;
        let mut wrong = Map::new();
        for name in self.config.claims_to_verify.iter().flat_map(|names| names.iter()) {
            let text = match (name.as_str(), claims.get(name).and_then(Value::as_f64)) {
                (_, None) => "must be a number",
                ("exp", Some(moment)) if moment <= now => "token expired",
                ("nbf", Some(moment)) if moment > now => "token not valid yet",
                _ => continue,
            };
            wrong.insert(name.clone(), text.into());
        }
        let maximum = self.config.maximum_expiration;
        if wrong.is_empty() && maximum > 0.0 && claims.get("exp").and_then(Value::as_f64).is_none_or(|exp| exp - now > maximum) {
            wrong.insert("exp".to_owned(), "exceeds maximum allowed expiration".into());
        }
        wrong
    }

    fn refusal(&self, message: &str) -> Reply {
        unauthorized(message).header("WWW-Authenticate", &self.challenge_with_error)
    }
}

fn unauthorized(message: &str) -> Reply {
    Reply::json(401, &json!({"message": message}))
}

/// The value of the first cookie of this name (RFC 6265, section 5.4).
fn cookie<'x>(x: &'x Exchange, name: &str) -> Option<&'x str> {
    let lines = x.request.headers.get_all("cookie").filter_map(|line| std::str::from_utf8(line).ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
