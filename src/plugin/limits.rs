//! What the plugins that limit have in common: whose counter it is, and checks of their configuration.

use std::fmt;
use std::net::IpAddr;

use schema::Check;
use schema::check::Match;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::plugin::counters::{Key, Moment, Period, Salt};
use crate::plugin::{Env, Exchange};

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Identifier<'a> {
    Id(Uuid),
    Text(&'a str),
    Address(IpAddr),
}

/// As it stands in keys.
impl fmt::Display for Identifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The consumer, else the credential, else the client's address.
pub fn consumer(x: &Exchange) -> Identifier<'_> {
    match (&x.authenticated.consumer, &x.authenticated.credential) {
        (Some(consumer), _) => Identifier::Id(consumer.id),
        (None, Some(credential)) => Identifier::Text(&credential.id),
        (None, None) => Identifier::Address(x.client.ip),
    }
}

/// The part of a counter's key that comes from the plugin's configuration: configurations of one route and service share
/// their counters.
#[derive(Clone, Debug)]
pub struct Scope {
    plugin: &'static str,
    pub route: Uuid,
    pub service: Uuid,
    /// Stands for plugin, route and service in keys.
    salt: Salt,
}

impl Scope {
    pub fn of(plugin: &'static str, env: &Env) -> Self {
        let (route, service) = (env.route.unwrap_or_default(), env.service.unwrap_or_default());
        Self { plugin, route, service, salt: Salt::new(&[plugin.as_bytes(), route.as_bytes(), service.as_bytes()]) }
    }

    /// The key of this identifier's counters; `name` tells several limits of a plugin apart.
    pub fn key(&self, identifier: &Identifier, name: &str) -> Key {
        let key = |kind: &[u8], identifier: &[u8]| self.salt.key(&[name.as_bytes(), kind, identifier]);
        match identifier {
            Identifier::Id(id) => key(b"id", id.as_bytes()),
            Identifier::Text(text) => key(b"text", text.as_bytes()),
            Identifier::Address(IpAddr::V4(address)) => key(b"v4", &address.octets()),
            Identifier::Address(IpAddr::V6(address)) => key(b"v6", &address.octets()),
        }
    }

    /// What nodes call a window of this identifier's counters among each other. Not even who chooses identifiers finds two that
    /// have one name.
    pub fn shared_name(&self, identifier: &Identifier, name: &str, period: Period, start: Moment) -> u128 {
        let kind = match identifier {
            Identifier::Id(_) => "id",
            Identifier::Text(_) => "text",
            Identifier::Address(_) => "address",
        };
        let identifier = identifier.to_string();
        let start = start.0.to_be_bytes();
        let (route, service) = (self.route.as_bytes(), self.service.as_bytes());
        let texts = [self.plugin, name, period.name(), kind, &identifier].map(str::as_bytes);
        let mut digest = Sha256::new();
        for part in texts.into_iter().chain([&route[..], service, &start]) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        digest.iter().take(16).fold(0, |name, byte| name << 8 | u128::from(*byte))
    }

    /// How the keys of this identifier's counters begin in Redis, where Kong's plugin has the prefix `of`.
    pub fn redis_key(&self, of: &str, identifier: &Identifier) -> String {
        format!("{of}:{}:{}:{identifier}", self.route, self.service)
    }
}

/// `then` is required when `when` has the value `is`.
pub fn needs(when: &'static str, is: &'static str, then: &'static str) -> Check {
    Check::conditional(when, Match::eq(is), then, Match::Required)
}

/// What the policy `redis` needs.
pub fn redis_checks() -> [Check; 3] {
    ["config.redis.host", "config.redis.port", "config.redis.timeout"].map(|field| needs("config.policy", "redis", field))
}

/// Limits of longer periods are not lower than those of shorter ones. `the` begins the text.
pub fn check_order(limits: &Map<String, Value>, the: &str) -> Result<(), String> {
    let limit = |period: Period| limits.get(period.name()).and_then(Value::as_f64);
    for (n, shorter) in Period::ALL.into_iter().enumerate() {
        for longer in Period::ALL.into_iter().skip(n + 1) {
            if let (Some(low), Some(high)) = (limit(shorter), limit(longer))
                && high < low
            {
                let (longer, shorter) = (longer.name(), shorter.name());
                return Err(format!("{the} limit for {longer}({high:.1}) cannot be lower than the limit for {shorter}({low:.1})"));
            }
        }
    }
    Ok(())
}
