//! Authenticates a request by an API key found in a header, the query string or the body.
//!
//! For each name in `key_names`, in order, the key is looked for in the header of that name, then among the query's
//! arguments, then among the members of the body (JSON, url-encoded or multipart). The first text found is the key: no other
//! name or place is tried after it.
//!
//! With `hide_credentials` the header, the argument and the member of that name do not reach the upstream. A body of more
//! than 1 MiB is not looked into.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 401 | there is no key, or more than one under a name, or it is unknown or expired; with `WWW-Authenticate: Key` |
//! | 500 | `anonymous` names a consumer that does not exist |

use std::borrow::Cow;

use schema::types::HeaderName;
use schema::{Record, Violations};
use serde::Deserialize;

use crate::model::KeyAuthCredential;
use crate::plugin::auth::{self, Verified};
use crate::plugin::form::{self, Form};
use crate::plugin::query::{self, Found};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes};

pub struct KeyAuth {
    config: Config,
    challenge: String,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Names of the header, argument or member that holds the key.
    #[field(default = ["apikey"])]
    key_names: Vec<HeaderName>,
    /// Removes the key from the request before it goes upstream.
    #[field(default = false)]
    hide_credentials: bool,
    /// Consumer (id or username) to go on as when authentication fails.
    anonymous: Option<String>,
    /// Looks for the key in headers.
    #[field(default = true)]
    key_in_header: bool,
    /// Looks for the key in the query string.
    #[field(default = true)]
    key_in_query: bool,
    /// Looks for the key in the body.
    #[field(default = false)]
    key_in_body: bool,
    /// Whether OPTIONS requests need a key too.
    #[field(default = true)]
    run_on_preflight: bool,
    /// Realm of the challenge.
    realm: Option<String>,
}

impl Plugin for KeyAuth {
    const NAME: &'static str = "key-auth";
    const PRIORITY: i32 = 1250;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let challenge = auth::challenge("Key", config.realm.as_deref());
        Ok(Self { config, challenge })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let anonymous = self.config.anonymous.as_deref();
        if auth::passes_as_preflight(x, self.config.run_on_preflight) || auth::already_authenticated(x, anonymous) {
            return Ok(());
        }
        let outcome = self.verify(x).await;
        auth::settle(x, anonymous, outcome)
    }
}

impl KeyAuth {
    async fn verify(&self, x: &mut Exchange) -> Result<Verified, Reply> {
        let form = if self.config.key_in_body { Form::of_request(x).await? } else { None };
        let Some((name, key)) = self.find(x, form.as_ref())? else {
            return Err(self.refusal("No API key found in request"));
        };
        let credential = x.world.find::<KeyAuthCredential>("key", &key);
        if self.config.hide_credentials {
            hide(x, name, form);
        }
        let credential = credential.ok_or_else(|| self.refusal("Unauthorized"))?;
        Verified::of(x, credential.id, credential.consumer.id, auth::id_text(credential.id))
    }

    /// The key, and the name under which it was found.
    fn find<'x, 's: 'x>(&'s self, x: &'x Exchange, form: Option<&'x Form>) -> Result<Option<(&'s str, Cow<'x, str>)>, Reply> {
        for name in &self.config.key_names {
            let mut found = Found::Nothing;
            if self.config.key_in_header {
                found = in_headers(x, name);
            }
            if self.config.key_in_query && found == Found::Nothing {
                found = query::find(x.query(), name);
            }
            if let Some(form) = form
                && found == Found::Nothing
            {
                found = form.find(name);
            }
            match found {
                Found::One(key) => return Ok((!key.is_empty()).then_some((name, key))),
                Found::Many => return Err(self.refusal("Duplicate API key found")),
                Found::NoText | Found::Nothing => {}
            }
        }
        Ok(None)
    }

    fn refusal(&self, message: &str) -> Reply {
        Reply::error(401, message).header("WWW-Authenticate", &self.challenge)
    }
}

fn in_headers<'a>(x: &'a Exchange, name: &'a str) -> Found<'a> {
    let mut values = x.request.headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(String::from_utf8_lossy(value)),
        (Some(_), Some(_)) => Found::Many,
    }
}

fn hide(x: &mut Exchange, name: &str, form: Option<Form>) {
    x.request.headers.remove(name);
    if query::find(x.query(), name) != Found::Nothing {
        let rest = query::without(x.query(), name);
        x.set_query(&rest);
    }
    if let Some(mut form) = form
        && form.find(name) != Found::Nothing
    {
        form.remove(name);
        form::replace(x, form.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::http::Method;
    use crate::model::Consumer;
    use crate::plugin::testing::{Rows, exchange, exchange_with_body, message, plugin, run, values};

    const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";
    const KEY_ID: &str = "7a0ed5f0-6b50-4c46-a1d5-0a4a3f2c1e11";

    /// Runs the plugin and says how it went: the status of its answer and the message, or 200 and who the client is.
    fn outcome(config: Value, x: &mut Exchange) -> (u16, String) {
        x.world = Rows::default()
            .with::<Consumer>(json!({"id": BOB, "username": "bob"}))
            .with::<Consumer>(json!({"username": "nobody"}))
            .with::<KeyAuthCredential>(json!({"id": KEY_ID, "consumer": {"id": BOB}, "key": "good"}))
            .world();
        match run(plugin::<KeyAuth>(config).access(x)) {
            Ok(()) => (200, values(&x.request.headers, "x-consumer-username").concat()),
            Err(reply) => (reply.status, message(&reply).to_owned()),
        }
    }

    fn get(config: Value, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        outcome(config, &mut exchange("GET", target, headers))
    }

    #[test]
    fn keys_in_headers_and_queries() {
        let names = || json!({"key_names": ["k1", "k2"]});
        let bob = (200, "bob".to_owned());
        let refused = |text: &str| (401, text.to_owned());
        assert_eq!(get(names(), "/", &[]), refused("No API key found in request"));
        assert_eq!(get(names(), "/", &[("k1", "x")]), refused("Unauthorized"));
        assert_eq!(get(names(), "/", &[("k2", "good")]), bob);
        assert_eq!(get(names(), "/", &[("K1", "good")]), bob);
        assert_eq!(get(names(), "/", &[("k1", "bad"), ("k2", "good")]), refused("Unauthorized"));
        assert_eq!(get(names(), "/?k1=bad", &[("k1", "good")]), bob);
        assert_eq!(get(names(), "/?k1=bad", &[("k2", "good")]), refused("Unauthorized"));
        assert_eq!(get(names(), "/", &[("k1", "")]), refused("No API key found in request"));
        assert_eq!(get(names(), "/?K1=good", &[]), refused("No API key found in request"));
        assert_eq!(get(names(), "/?k1&k2=good", &[]), bob);
        assert_eq!(get(names(), "/?k1=good&k1=good", &[]), refused("Duplicate API key found"));
        assert_eq!(get(names(), "/", &[("k1", "good"), ("k1", "good")]), refused("Duplicate API key found"));
        assert_eq!(get(json!({"key_in_query": false}), "/?apikey=good", &[]), refused("No API key found in request"));
        assert_eq!(get(json!({"key_in_header": false}), "/", &[("apikey", "good")]), refused("No API key found in request"));
    }

    #[test]
    fn keys_in_bodies() {
        let config = || json!({"key_in_body": true, "hide_credentials": true});
        for (content_type, body, rest) in [
            ("application/json", r#"{"apikey":"good","x":1}"#, r#"{"x":1}"#),
            ("application/x-www-form-urlencoded", "apikey=good&x=1", "x=1"),
        ] {
            let mut x = exchange_with_body("POST", "/", &[("Content-Type", content_type)], body);
            assert_eq!(outcome(config(), &mut x), (200, "bob".to_owned()), "{content_type}");
            assert_eq!(values(&x.request.headers, "content-length"), [rest.len().to_string()]);
            assert_eq!(run(x.request.body.collect(1000)).unwrap(), rest);
        }
        let mut x = exchange_with_body("POST", "/", &[("Content-Type", "text/plain")], "apikey=good");
        assert_eq!(outcome(config(), &mut x), (401, "No API key found in request".to_owned()));
    }

    #[test]
    fn hidden_keys_do_not_reach_the_upstream() {
        let mut x = exchange("GET", "/p?a=1&apikey=good&b=2", &[("ApiKey", "good")]);
        assert_eq!(outcome(json!({"hide_credentials": true}), &mut x).0, 200);
        assert_eq!(x.upstream.target, "/p?a=1&b=2");
        assert!(!x.request.headers.contains("apikey"));
    }

    #[test]
    fn challenges_name_the_realm() {
        for (config, challenge) in [(json!({}), "Key"), (json!({"realm": "shop"}), "Key realm=\"shop\"")] {
            let reply = run(plugin::<KeyAuth>(config).access(&mut exchange("GET", "/", &[]))).unwrap_err();
            assert_eq!(values(&reply.headers, "www-authenticate"), [challenge]);
        }
    }

    #[test]
    fn anonymous_and_preflight() {
        let config = json!({"anonymous": "nobody"});
        assert_eq!(get(config.clone(), "/", &[]), (200, "nobody".to_owned()));
        assert_eq!(get(config.clone(), "/", &[("apikey", "x")]), (200, "nobody".to_owned()));
        assert_eq!(get(config, "/", &[("apikey", "good")]), (200, "bob".to_owned()));
        assert_eq!(get(json!({"anonymous": "missing"}), "/", &[]).0, 500);
        let mut x = exchange("GET", "/", &[]);
        x.request.method = Method::Options;
        assert_eq!(outcome(json!({"run_on_preflight": false}), &mut x), (200, String::new()));
        assert_eq!(outcome(json!({}), &mut x).0, 401);
    }
}
