//! Authenticates a request by a user name and a password (RFC 7617).
//!
//! `Proxy-Authorization` is looked at first; when it holds no user name that is known, `Authorization` is. With
//! `hide_credentials` a header that was looked at does not reach the upstream.
//!
//! A password is kept as a hash. A header that was verified is remembered, by a keyed hash of its own, for as long as the
//! credential stays what it is, so that the hash is not computed for each request.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 401 | there is no credential, it cannot be read, or it is wrong; with `WWW-Authenticate: Basic` |
//! | 500 | `anonymous` names a consumer that does not exist |

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use schema::{Record, Violations};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::model::{BasicAuthCredential, password_hash};
use crate::plugin::auth::{self, Verified};
use crate::plugin::header_credentials::{HEADERS, user_and_password};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes};

/// Headers that are remembered.
const CACHE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

pub struct BasicAuth {
    config: Config,
    challenge: String,
    verified: Cache,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Consumer (id or username) to go on as when authentication fails.
    anonymous: Option<String>,
    /// Removes the credential from the request before it goes upstream.
    #[field(default = false)]
    hide_credentials: bool,
    /// Realm of the challenge.
    #[field(default = "service")]
    realm: String,
}

impl Plugin for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const PRIORITY: i32 = 1100;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let challenge = auth::challenge("Basic", Some(&config.realm));
        Ok(Self { config, challenge, verified: Cache::new() })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let anonymous = self.config.anonymous.as_deref();
        if auth::already_authenticated(x, anonymous) {
            return Ok(());
        }
        let outcome = self.verify(x);
        auth::settle(x, anonymous, outcome)
    }
}

impl BasicAuth {
    fn verify(&self, x: &mut Exchange) -> Result<Verified, Reply> {
        for name in HEADERS {
            let found = x.request.headers.get(name).map(|value| self.check(x, value));
            if found.is_some() && self.config.hide_credentials {
                x.request.headers.remove(name);
            }
            match found {
                Some(Checked::Right(credential)) => {
                    return Verified::of(x, credential.id, credential.consumer.id, credential.username.as_str());
                }
                Some(Checked::Wrong) => break,
                Some(Checked::Unknown) | None => {}
            }
        }
        Err(Reply::error(401, "Unauthorized").header("WWW-Authenticate", &self.challenge))
    }

    fn check(&self, x: &Exchange, header: &[u8]) -> Checked {
        if let Some(credential) = self.verified.get(x, header) {
            return Checked::Right(credential);
        }
        let Some((user, password)) = user_and_password(header, "basic") else { return Checked::Unknown };
        let Some(credential) = x.world.find::<BasicAuthCredential>("username", &user) else { return Checked::Unknown };
        let hash = password_hash(&password, &credential.consumer.id.to_string());
        if !bool::from(hash.as_bytes().ct_eq(credential.password.as_bytes())) {
            return Checked::Wrong;
        }
        self.verified.put(header, &credential);
        Checked::Right(credential)
    }
}

enum Checked {
    Right(Arc<BasicAuthCredential>),
    Wrong,
    /// No credential of the scheme, or a user that nobody knows.
    Unknown,
}

/// Headers that were verified, by 128 bits of hashes whose keys nobody knows, with the row that they were verified against.
struct Cache {
    keys: [RandomState; 2],
    rows: Mutex<LruCache<[u64; 2], Arc<BasicAuthCredential>, ahash::RandomState>>,
}

impl Cache {
    fn new() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], rows: Mutex::new(LruCache::with_hasher(CACHE, ahash::RandomState::new())) }
    }

    fn key(&self, header: &[u8]) -> [u64; 2] {
        [self.keys[0].hash_one(header), self.keys[1].hash_one(header)]
    }

    /// The credential of a header that was verified, if its row is still the one of then.
    fn get(&self, x: &Exchange, header: &[u8]) -> Option<Arc<BasicAuthCredential>> {
        let row = self.rows.lock().get(&self.key(header)).cloned()?;
        let now = x.world.find::<BasicAuthCredential>("username", &row.username)?;
        Arc::ptr_eq(&row, &now).then_some(row)
    }

    fn put(&self, header: &[u8], row: &Arc<BasicAuthCredential>) {
        self.rows.lock().put(self.key(header), Arc::clone(row));
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use schema::{Value, json};

    use super::*;
    use crate::model::Consumer;
    use crate::plugin::World;
    use crate::plugin::testing::{Rows, exchange, message, plugin, run, values};

    const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";

    fn world(password: &str) -> Arc<dyn World> {
        Rows::default()
            .with::<Consumer>(json!({"id": BOB, "username": "bob"}))
            .with::<Consumer>(json!({"username": "nobody"}))
            .with::<BasicAuthCredential>(json!({"consumer": {"id": BOB}, "username": "bob-1", "password": password}))
            .world()
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(text))
    }

    fn outcome(plugin: &BasicAuth, x: &mut Exchange) -> u16 {
        run(plugin.access(x)).map_or_else(|reply| reply.status, |()| 200)
    }

    fn get(config: Value, headers: &[(&str, &str)]) -> (u16, Exchange) {
        let mut x = exchange("GET", "/", headers);
        x.world = world("p:w");
        let status = outcome(&plugin(config), &mut x);
        (status, x)
    }

    #[test]
    fn passwords() {
        for (given, status) in [("bob-1:p:w", 200), ("bob-1:pw", 401), ("eve:p:w", 401), ("bob-1", 401), ("bob-1:", 401), (":p:w", 401)] {
            assert_eq!(get(json!({}), &[("Authorization", &basic(given))]).0, status, "{given}");
        }
        assert_eq!(get(json!({}), &[]).0, 401);
        let (status, x) = get(json!({}), &[("Authorization", &basic("bob-1:p:w"))]);
        assert_eq!(status, 200);
        assert_eq!(values(&x.request.headers, "x-credential-identifier"), ["bob-1"]);
        assert_eq!(values(&x.request.headers, "x-consumer-username"), ["bob"]);
    }

    #[test]
    fn the_proxys_header_comes_first() {
        let (right, wrong, unknown) = (basic("bob-1:p:w"), basic("bob-1:x"), basic("eve:x"));
        for (proxy, own, status) in [(&right, &wrong, 200), (&wrong, &right, 401), (&unknown, &right, 200)] {
            assert_eq!(get(json!({}), &[("Proxy-Authorization", proxy), ("Authorization", own)]).0, status);
        }
    }

    #[test]
    fn only_headers_that_were_looked_at_are_hidden() {
        let right = basic("bob-1:p:w");
        let (_, x) = get(json!({"hide_credentials": true}), &[("Proxy-Authorization", &right), ("Authorization", "own")]);
        assert_eq!(
            (x.request.headers.contains("proxy-authorization"), values(&x.request.headers, "authorization")),
            (false, vec!["own".to_owned()])
        );
        let (_, x) = get(json!({}), &[("Authorization", &right)]);
        assert_eq!(values(&x.request.headers, "authorization"), [right]);
    }

    #[test]
    fn answers() {
        let reply = run(plugin::<BasicAuth>(json!({"realm": "shop"})).access(&mut exchange("GET", "/", &[]))).unwrap_err();
        assert_eq!((reply.status, message(&reply)), (401, "Unauthorized"));
        assert_eq!(values(&reply.headers, "www-authenticate"), ["Basic realm=\"shop\""]);
        let (status, x) = get(json!({"anonymous": "nobody"}), &[("Authorization", &basic("bob-1:x"))]);
        assert_eq!((status, values(&x.request.headers, "x-consumer-username")), (200, vec!["nobody".to_owned()]));
    }

    #[test]
    fn what_was_verified_is_forgotten_when_the_password_changes() {
        let plugin = plugin::<BasicAuth>(json!({}));
        let (old, new) = (world("one"), world("two"));
        let ask = |world: &Arc<dyn World>, password: &str| {
            let mut x = exchange("GET", "/", &[("Authorization", &basic(&format!("bob-1:{password}")))]);
            x.world = Arc::clone(world);
            outcome(&plugin, &mut x)
        };
        assert_eq!([ask(&old, "one"), ask(&old, "one"), ask(&old, "two")], [200, 200, 401]);
        assert_eq!([ask(&new, "one"), ask(&new, "two"), ask(&new, "two")], [401, 200, 200]);
        assert_eq!(ask(&Rows::default().world(), "two"), 401);
    }
}
