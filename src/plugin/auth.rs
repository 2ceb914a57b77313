//! What all authentication plugins share: consumer headers, anonymous consumers, one answer for every failure.

use std::sync::Arc;

use crate::model::Consumer;
use crate::plugin::exchange::Credential;
use crate::plugin::{Exchange, Flow, Reply};

/// Takes the client for this consumer: sets the consumer's headers for the upstream and drops copies that the client sent.
pub fn authenticate(x: &mut Exchange, consumer: Option<Arc<Consumer>>, credential: Option<Credential>) {
    let headers = &mut x.request.headers;
    let mut put = |name: &str, value: Option<&str>| match value {
        Some(value) => headers.set(name, value),
        None => {
            headers.remove(name);
        }
    };
    put("X-Consumer-ID", consumer.as_ref().map(|c| c.id.to_string()).as_deref());
    put("X-Consumer-Custom-ID", consumer.as_ref().and_then(|c| c.custom_id.as_deref()));
    put("X-Consumer-Username", consumer.as_ref().and_then(|c| c.username.as_deref()));
    put("X-Credential-Identifier", credential.as_ref().map(|c| c.id.as_str()));
    put("X-Anonymous-Consumer", credential.is_none().then_some("true"));
    x.authenticated.consumer = consumer;
    x.authenticated.credential = credential;
}

/// Whether a plugin with `anonymous` has nothing to do because another authentication has succeeded.
pub fn already_authenticated(x: &Exchange, anonymous: Option<&str>) -> bool {
    anonymous.is_some() && x.authenticated.credential.is_some()
}

/// What becomes of a failed authentication: the anonymous consumer if there is one, the answer otherwise.
pub fn failed(x: &mut Exchange, anonymous: Option<&str>, answer: Reply) -> Flow {
    let Some(name) = anonymous.filter(|name| !name.is_empty()) else {
        return Err(answer);
    };
    let Some(consumer) = x.world.consumer(name) else {
        return Err(Reply::error(500, format!("anonymous consumer {name} is configured but doesn't exist")));
    };
    authenticate(x, Some(consumer), None);
    Ok(())
}
