//! Refuses requests whose body is too large.
//!
//! A body that tells its length is refused at once. One that does not is read up to the limit before anything goes upstream,
//! or, where the limit is above 1 MiB, counted while it passes.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 413 | the body is larger than `allowed_payload_size` |
//! | 417 | as before, and the client waits for `100 Continue` |
//! | 411 | `require_content_length`, and there is neither a Content-Length nor a chunked body |

use schema::{Record, Violations};
use serde::Deserialize;

use crate::http::Headers;
use crate::plugin::form::MAX_BODY;
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, form};

pub struct RequestSizeLimiting {
    limit: u64,
    require_content_length: bool,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Largest body, in units of `size_unit`.
    #[field(optional, default = 128)]
    allowed_payload_size: i64,
    /// Megabytes are 1048576 bytes, kilobytes 1024.
    #[field(default = "megabytes", one_of(&["megabytes", "kilobytes", "bytes"]))]
    size_unit: String,
    /// Refuses requests that do not tell the length of their body.
    #[field(default = false)]
    require_content_length: bool,
}

impl Plugin for RequestSizeLimiting {
    const NAME: &'static str = "request-size-limiting";
    const PRIORITY: i32 = 951;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let unit = match config.size_unit.as_str() {
            "megabytes" => 1024 * 1024,
            "kilobytes" => 1024,
            _ => 1,
        };
        let limit = u64::try_from(config.allowed_payload_size).unwrap_or(0).saturating_mul(unit);
        Ok(Self { limit, require_content_length: config.require_content_length })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let headers = &x.request.headers;
        let told = headers.contains("content-length") || headers.contains("transfer-encoding");
        if self.require_content_length && !told {
            return Err(Reply::error(411, "A valid Content-Length header is required"));
        }
        if let Some(length) = content_length(headers).or(x.request.body.length()) {
            return if length > self.limit { Err(refusal(x)) } else { Ok(()) };
        }
        if self.limit > MAX_BODY as u64 {
            x.request.body.limit(self.limit);
            return Ok(());
        }
        match form::bytes(x, self.limit as usize).await? {
            Some(_) => Ok(()),
            None => Err(refusal(x)),
        }
    }
}

fn content_length(headers: &Headers) -> Option<u64> {
    headers.get_str("content-length")?.trim().parse().ok()
}

fn refusal(x: &Exchange) -> Reply {
    let waits = x.request.headers.get("expect").is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(b"100-continue"));
    Reply::error(if waits { 417 } else { 413 }, "Request size limit exceeded")
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::http::BodyError;
    use crate::plugin::testing::{chunks, exchange, exchange_with_body, message, plugin, run};

    fn outcome(config: Value, x: &mut Exchange) -> Result<(), (u16, String)> {
        run(plugin::<RequestSizeLimiting>(config).access(x)).map_err(|reply| (reply.status, message(&reply).to_owned()))
    }

    fn exceeded(status: u16) -> Result<(), (u16, String)> {
        Err((status, "Request size limit exceeded".to_owned()))
    }

    #[test]
    fn lengths_that_are_told() {
        let post = |config, n: usize| outcome(config, &mut exchange_with_body("POST", "/", &[], &"x".repeat(n)));
        let bytes = || json!({"allowed_payload_size": 3, "size_unit": "bytes"});
        assert_eq!((post(bytes(), 3), post(bytes(), 4)), (Ok(()), exceeded(413)));
        let kilobytes = || json!({"allowed_payload_size": 2, "size_unit": "kilobytes"});
        assert_eq!((post(kilobytes(), 2048), post(kilobytes(), 2049)), (Ok(()), exceeded(413)));
        let mut x = exchange_with_body("POST", "/", &[("Expect", "100-Continue")], "1234");
        assert_eq!(outcome(bytes(), &mut x), exceeded(417));
    }

    #[test]
    fn bodies_in_chunks_are_read_before_anything_goes_upstream() {
        for (parts, expected) in [(&["12", "3"][..], Ok(())), (&["12", "34"], exceeded(413))] {
            let mut x = exchange("POST", "/", &[("Transfer-Encoding", "chunked")]);
            x.request.body = chunks(parts);
            assert_eq!(outcome(json!({"allowed_payload_size": 3, "size_unit": "bytes"}), &mut x), expected);
            if expected.is_ok() {
                assert_eq!(run(x.request.body.collect(10)).unwrap(), "123");
            }
        }
    }

    #[test]
    fn large_limits_count_while_the_body_passes() {
        let megabyte = "x".repeat(1024 * 1024);
        let mut x = exchange("POST", "/", &[("Transfer-Encoding", "chunked")]);
        x.request.body = chunks(&[&megabyte, &megabyte, "x"]);
        assert_eq!(outcome(json!({"allowed_payload_size": 2}), &mut x), Ok(()));
        assert!(matches!(run(x.request.body.collect(usize::MAX)), Err(BodyError::TooLarge(2097152))));
    }

    #[test]
    fn a_length_may_be_required() {
        let config = || json!({"require_content_length": true});
        let required = Err((411, "A valid Content-Length header is required".to_owned()));
        assert_eq!(outcome(config(), &mut exchange("GET", "/", &[])), required);
        assert_eq!(outcome(config(), &mut exchange("POST", "/", &[("Content-Length", "0")])), Ok(()));
        assert_eq!(outcome(config(), &mut exchange("POST", "/", &[("Transfer-Encoding", "chunked")])), Ok(()));
    }
}
