//! What all authentication plugins share: headers that tell the upstream who the client is, anonymous consumers, preflight.
//!
//! Several authentications on one request must all succeed (AND); the last one that runs says who the client is. Those with
//! `anonymous` are alternatives (OR): the first success is enough, and when none succeeds the request goes on as the
//! anonymous consumer.
//!
//! Identity headers that the client sent never reach the upstream once an authentication has let the request pass.

use std::sync::Arc;

use uuid::Uuid;

use crate::http::Method;
use crate::model::{Consumer, ConsumerGroupConsumer};
use crate::plugin::exchange::Credential;
use crate::plugin::{Exchange, Flow, Reply};

/// A client that has shown who it is.
pub struct Verified {
    /// The consumer, where credentials belong to one.
    pub consumer: Option<Arc<Consumer>>,
    pub credential: Credential,
    /// What `X-Credential-Identifier` says.
    pub identifier: String,
}

impl Verified {
    /// A credential of this id, and its consumer. `Err` is the answer when there is no such consumer.
    pub fn of(x: &Exchange, credential: Uuid, consumer: Uuid, identifier: impl Into<String>) -> Result<Self, Reply> {
        let found = x.world.get(consumer).ok_or_else(|| Reply::error(500, "An unexpected error occurred"))?;
        let credential = Credential { id: id_text(credential), consumer: Some(consumer) };
        Ok(Self { consumer: Some(found), credential, identifier: identifier.into() })
    }
}

/// An id as text, without the machinery of formatting.
pub fn id_text(id: Uuid) -> String {
    id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// Whether an authentication has nothing to do: another one has succeeded and this one is an alternative.
pub fn already_authenticated(x: &Exchange, anonymous: Option<&str>) -> bool {
    anonymous.is_some() && x.authenticated.credential.is_some()
}

/// Whether this is a request that passes without authentication because `run_on_preflight` is off. The upstream is told
/// of no consumer then, unless another authentication has found one.
pub fn passes_as_preflight(x: &mut Exchange, run_on_preflight: bool) -> bool {
    let passes = !run_on_preflight && x.request.method == Method::Options;
    if passes && x.authenticated.consumer.is_none() && x.authenticated.credential.is_none() {
        clear_identity(x);
    }
    passes
}

/// Ends an authentication: the client is who it turned out to be, or the anonymous consumer, or gets the answer.
pub fn settle(x: &mut Exchange, anonymous: Option<&str>, outcome: Result<Verified, Reply>) -> Flow {
    let answer = match outcome {
        Ok(verified) => {
            authenticate(x, verified);
            return Ok(());
        }
        Err(answer) => answer,
    };
    let Some(name) = anonymous else { return Err(answer) };
    let Some(consumer) = x.world.consumer(name) else {
        return Err(Reply::error(500, format!("anonymous consumer {name} is configured but doesn't exist")));
    };
    set_consumer(x, Some(consumer));
    x.authenticated.credential = None;
    x.request.headers.append("X-Anonymous-Consumer", "true");
    Ok(())
}

/// Takes the client for this consumer with this credential, and tells the upstream.
pub fn authenticate(x: &mut Exchange, verified: Verified) {
    set_consumer(x, verified.consumer);
    if !verified.identifier.is_empty() {
        x.request.headers.append("X-Credential-Identifier", verified.identifier);
    }
    x.authenticated.credential = Some(verified.credential);
}

fn set_consumer(x: &mut Exchange, consumer: Option<Arc<Consumer>>) {
    clear_identity(x);
    x.authenticated.groups.clear();
    if let Some(consumer) = &consumer {
        let headers = &mut x.request.headers;
        let mut id = Uuid::encode_buffer();
        headers.append_checked(b"X-Consumer-ID", consumer.id.as_hyphenated().encode_lower(&mut id).as_bytes());
        if let Some(custom_id) = &consumer.custom_id {
            headers.append("X-Consumer-Custom-ID", custom_id);
        }
        if let Some(username) = &consumer.username {
            headers.append("X-Consumer-Username", username);
        }
        let memberships = x.world.children::<ConsumerGroupConsumer>("consumer", consumer.id);
        x.authenticated.groups.extend(memberships.iter().map(|membership| membership.consumer_group.id));
    }
    x.authenticated.consumer = consumer;
}

/// Drops what says who the client is: what the client itself sent, and what an earlier authentication has set.
fn clear_identity(x: &mut Exchange) {
    const NAMES: [&str; 5] =
        ["x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-anonymous-consumer", "x-credential-identifier"];
    for name in NAMES {
        x.request.headers.remove(name);
    }
}

/// A challenge for `WWW-Authenticate`: the scheme, and the realm if there is one.
pub fn challenge(scheme: &str, realm: Option<&str>) -> String {
    match realm {
        Some(realm) => format!("{scheme} realm=\"{realm}\""),
        None => scheme.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use schema::json;

    use super::*;
    use crate::plugin::testing::{Rows, exchange, message, values};

    const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";
    const CREDENTIAL: &str = "7a0ed5f0-6b50-4c46-a1d5-0a4a3f2c1e11";

    fn request() -> Exchange {
        let forged = ["X-Consumer-ID", "x-consumer-username", "X-Consumer-Custom-Id", "X-Credential-Identifier", "X-Anonymous-Consumer"];
        let mut headers = vec![("X-Other", "kept")];
        headers.extend(forged.map(|name| (name, "forged")));
        let mut x = exchange("GET", "/", &headers);
        x.world = Rows::default().with::<Consumer>(json!({"id": BOB, "username": "bob", "custom_id": "b-7"})).world();
        x
    }

    fn identity(x: &Exchange) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        x.request.headers.iter().map(|(name, value)| (text(name), text(value))).filter(|(name, _)| name != "X-Other").collect()
    }

    fn verified(x: &Exchange) -> Verified {
        Verified::of(x, CREDENTIAL.parse().unwrap(), BOB.parse().unwrap(), "key-1").unwrap_or_else(|_| panic!("bob is there"))
    }

    #[test]
    fn the_upstream_is_told_who_the_client_is_and_nothing_that_it_claims() {
        let mut x = request();
        let outcome = Ok(verified(&x));
        assert!(settle(&mut x, None, outcome).is_ok());
        let told =
            [("X-Consumer-ID", BOB), ("X-Consumer-Custom-ID", "b-7"), ("X-Consumer-Username", "bob"), ("X-Credential-Identifier", "key-1")];
        assert_eq!(identity(&x), told.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(values(&x.request.headers, "x-other"), ["kept"]);
        assert_eq!(x.authenticated.credential.as_ref().map(|c| c.id.as_str()), Some(CREDENTIAL));
    }

    #[test]
    fn a_failure_is_answered_or_becomes_the_anonymous_consumer() {
        let mut x = request();
        let answer = settle(&mut x, None, Err(Reply::error(401, "no"))).unwrap_err();
        assert_eq!((answer.status, message(&answer)), (401, "no"));

        assert!(settle(&mut x, Some("bob"), Err(Reply::error(401, "no"))).is_ok());
        assert_eq!(values(&x.request.headers, "x-anonymous-consumer"), ["true"]);
        assert_eq!(values(&x.request.headers, "x-consumer-username"), ["bob"]);
        assert!(!x.request.headers.contains("x-credential-identifier"));
        assert!(!already_authenticated(&x, Some("bob")));

        let answer = settle(&mut x, Some("eve"), Err(Reply::error(401, "no"))).unwrap_err();
        assert_eq!((answer.status, message(&answer)), (500, "anonymous consumer eve is configured but doesn't exist"));
    }

    #[test]
    fn alternatives_wait_for_the_first_success() {
        let mut x = request();
        assert!(!already_authenticated(&x, Some("bob")));
        let outcome = Ok(verified(&x));
        assert!(settle(&mut x, None, outcome).is_ok());
        assert!(already_authenticated(&x, Some("bob")));
        assert!(!already_authenticated(&x, None));
    }

    #[test]
    fn preflight_passes_without_an_identity() {
        let mut x = request();
        assert!(!passes_as_preflight(&mut x, false), "only OPTIONS is preflight");
        x.request.method = Method::Options;
        assert!(!passes_as_preflight(&mut x, true));
        assert!(passes_as_preflight(&mut x, false));
        assert_eq!(identity(&x), []);
    }
}
