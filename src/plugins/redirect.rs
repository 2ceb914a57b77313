//! Sends clients to another URL.
//!
//! With `keep_incoming_path` the path and the query of the request take the place of those of `location`. A status below 200
//! ends no request: it is answered as 500.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | `status_code` (301) | always, with `Location` |

use schema::types::Url;
use schema::{Record, Violations};
use serde::Deserialize;

use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply};

pub struct Redirect {
    status: u16,
    location: Location,
}

enum Location {
    Fixed(String),
    /// Scheme and authority, before the path and the query of the request.
    Incoming(String),
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Status of the answer.
    #[field(default = 301, between(100, 599))]
    status_code: u16,
    /// The URL to which clients are sent.
    location: Url,
    /// Uses the path and the query of the request.
    #[field(optional, default = false)]
    keep_incoming_path: bool,
}

impl Plugin for Redirect {
    const NAME: &'static str = "redirect";
    const PRIORITY: i32 = 779;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let status = if config.status_code < 200 { 500 } else { config.status_code };
        let location = config.location.0;
        let location = if config.keep_incoming_path { Location::Incoming(origin(&location).to_owned()) } else { Location::Fixed(location) };
        Ok(Self { status, location })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let reply = Reply::bytes(self.status, "text/plain; charset=utf-8", "redirecting");
        Err(match &self.location {
            Location::Fixed(url) => reply.header("Location", url),
            Location::Incoming(origin) => reply.header("Location", [origin, x.request.target.as_str()].concat()),
        })
    }
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::plugin::testing::{exchange, message, plugin, refused, run, values};

    fn answer(config: Value, target: &str) -> (u16, String) {
        let reply = run(plugin::<Redirect>(config).access(&mut exchange("GET", target, &[]))).unwrap_err();
        assert_eq!(message(&reply), "redirecting");
        (reply.status, values(&reply.headers, "location").concat())
    }

    #[test]
    fn locations() {
        assert_eq!(answer(json!({"location": "https://new.test/path"}), "/r/x?y=1"), (301, "https://new.test/path".to_owned()));
        let kept = |location| json!({"location": location, "keep_incoming_path": true, "status_code": 308});
        assert_eq!(answer(kept("https://new.test/base?k=v"), "/r/a%20b?x=1&y"), (308, "https://new.test/r/a%20b?x=1&y".to_owned()));
        assert_eq!(answer(kept("https://new.test:8443"), "/r"), (308, "https://new.test:8443/r".to_owned()));
    }

    #[test]
    fn bad_configurations() {
        assert_eq!(refused::<Redirect>(json!({})), json!({"config": {"location": "required field missing"}}));
        assert_eq!(refused::<Redirect>(json!({"location": "/relative"})), json!({"config": {"location": "missing host in url"}}));
    }
}
