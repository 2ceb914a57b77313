//! Answers requests itself, with a status, a message or a body of its own.
//!
//! With `trigger` only requests that have a header or a query argument of that name are answered; others go on. With `echo`
//! the answer shows the request: its parts, the route and the service that it matched. Bodies of more than 1 MiB are left
//! out.
//!
//! Without `message` and `body` the message is Kong's for the status; statuses that have none get no message. A status below
//! 200 ends no request: it is answered as 500.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | `status_code` (503) | always, or when the trigger is there |

use bytes::Bytes;
use schema::types::HeaderName;
use schema::{Check, Map, Record, Value, Violations, json};
use serde::Deserialize;

use crate::plugin::form::{self, Form, Kind, MAX_BODY};
use crate::plugin::query::{self, Found};
use crate::plugin::{Env, Exchange, Flow, Node, Phases, Plugin, Reply};

pub struct RequestTermination {
    config: Config,
    status: u16,
    node: Node,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Status of the answer.
    #[field(default = 503, between(100, 599))]
    status_code: u16,
    /// Message of the answer.
    message: Option<String>,
    /// Media type of `body`; JSON when absent.
    content_type: Option<String>,
    /// The whole body of the answer.
    body: Option<String>,
    /// Answers with a description of the request.
    #[field(default = false)]
    echo: bool,
    /// Name of a header or a query argument without which requests go on.
    trigger: Option<HeaderName>,
}

impl Plugin for RequestTermination {
    const NAME: &'static str = "request-termination";
    const PRIORITY: i32 = 2;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Config;

    fn checks() -> Vec<Check> {
        vec![Check::custom(&["config"], check_config)]
    }

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let status = if config.status_code < 200 { 500 } else { config.status_code };
        Ok(Self { config, status, node: env.handles.node.clone() })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        if self.config.trigger.as_deref().is_some_and(|trigger| !triggered(x, trigger)) {
            return Ok(());
        }
        if self.config.echo {
            return Err(Reply::json(self.status, &self.echo(x).await?));
        }
        if let Some(body) = &self.config.body {
            let content_type = self.config.content_type.as_deref().unwrap_or("application/json; charset=utf-8");
            return Err(Reply::bytes(self.status, content_type, body.clone()));
        }
        Err(match self.message() {
            Some(message) => Reply::json(self.status, &json!({"message": message})),
            None => Reply::empty(self.status),
        })
    }
}

impl RequestTermination {
    fn message(&self) -> Option<&str> {
        self.config.message.as_deref().or(match self.status {
            401 => Some("Unauthorized"),
            404 => Some("Not found"),
            405 => Some("Method not allowed"),
            413 => Some("Payload too large"),
            500 => Some("An unexpected error occurred"),
            502 => Some("Bad Gateway"),
            503 => Some("Service unavailable"),
            _ => None,
        })
    }

    async fn echo(&self, x: &mut Exchange) -> Result<Value, Reply> {
        let body = form::bytes(x, MAX_BODY).await?;
        let named: Map<_, _> = x.captures.named.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        Ok(json!({
            "message": self.message(),
            "kong": {"node_id": self.node.id, "worker_pid": std::process::id(), "hostname": self.node.hostname},
            "request": {
                "scheme": x.client.scheme,
                "host": host(x),
                "port": x.client.port,
                "headers": gathered(x.request.headers.iter().map(|(name, value)| (text(name).to_ascii_lowercase(), text(value).into()))),
                "query": arguments(x.query()),
                "body": body.as_ref().and_then(|body| members(x, body)),
                "raw_body": body.as_deref().map(text),
                "method": x.request.method.as_str(),
                "path": x.request.raw_path(),
                "uri_captures": {"named": named, "unnamed": x.captures.numbered},
            },
            "matched_route": x.route.as_ref().and_then(|route| x.world.shown("routes", route.id)),
            "matched_service": x.service.as_ref().and_then(|service| x.world.shown("services", service.id)),
        }))
    }
}

fn triggered(x: &Exchange, trigger: &str) -> bool {
    x.request.headers.contains(trigger) || query::find(x.query(), trigger) != Found::Nothing
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn host(x: &Exchange) -> &str {
    let host = x.request.headers.get_str("host").unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Pairs as a table; a name that comes more than once has a list.
fn gathered(pairs: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut table = Map::new();
    for (name, value) in pairs {
        match table.get_mut(&name) {
            None => drop(table.insert(name, value)),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    table
}

fn arguments(text: &str) -> Map<String, Value> {
    gathered(query::arguments(text).map(|a| (a.name.into_owned(), a.value.map_or(Value::Bool(true), |value| value.into_owned().into()))))
}

/// The members of a body that is a form.
fn members(x: &Exchange, body: &Bytes) -> Option<Map<String, Value>> {
    let content_type = x.request.headers.get_str("content-type")?;
    Some(match Form::parse(Kind::of(&x.request.headers)?, content_type, body)? {
        Form::Json(members) => members,
        Form::Urlencoded(text) => arguments(&text),
        Form::Multipart(form) => gathered(form.parts.into_iter().map(|part| (part.name, text(&part.body).into()))),
    })
}

fn check_config(row: &Map<String, Value>) -> Result<(), Violations> {
    let config = row.get("config").unwrap_or(&Value::Null);
    let set = |name: &str| config.get(name).is_some_and(|value| !value.is_null());
    let wrong = if set("message") && (set("content_type") || set("body")) {
        "message cannot be used with content_type or body"
    } else if set("content_type") && !set("body") {
        "content_type requires a body"
    } else if config.get("echo") == Some(&Value::Bool(true)) && (set("content_type") || set("body")) {
        "echo cannot be used with content_type and body"
    } else {
        return Ok(());
    };
    Err(Violations::field("config", wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{exchange, exchange_with_body, message, plugin, refused, run, values};

    fn answer(config: Value) -> (u16, String, Vec<String>) {
        let reply = run(plugin::<RequestTermination>(config).access(&mut exchange("GET", "/", &[]))).unwrap_err();
        (reply.status, message(&reply).to_owned(), values(&reply.headers, "content-type"))
    }

    #[test]
    fn messages_and_bodies() {
        let json_type = vec!["application/json; charset=utf-8".to_owned()];
        assert_eq!(answer(json!({})), (503, r#"{"message":"Service unavailable"}"#.to_owned(), json_type.clone()));
        assert_eq!(answer(json!({"status_code": 404})), (404, r#"{"message":"Not found"}"#.to_owned(), json_type.clone()));
        assert_eq!(answer(json!({"status_code": 204})), (204, String::new(), vec![]));
        let quoted = json!({"status_code": 451, "message": "héllo \"x\""});
        assert_eq!(answer(quoted), (451, r#"{"message":"héllo \"x\""}"#.to_owned(), json_type.clone()));
        assert_eq!(answer(json!({"body": "[]"})), (503, "[]".to_owned(), json_type));
        let html = json!({"status_code": 200, "body": "<b>x</b>", "content_type": "text/html"});
        assert_eq!(answer(html), (200, "<b>x</b>".to_owned(), vec!["text/html".to_owned()]));
        assert_eq!(answer(json!({"status_code": 100})).0, 500);
    }

    #[test]
    fn triggers() {
        let plugin = plugin::<RequestTermination>(json!({"trigger": "x-stop"}));
        assert!(run(plugin.access(&mut exchange("GET", "/?x=1", &[]))).is_ok());
        assert!(run(plugin.access(&mut exchange("GET", "/?x-stop", &[]))).is_err());
        assert!(run(plugin.access(&mut exchange("GET", "/", &[("X-Stop", "")]))).is_err());
    }

    #[test]
    fn echoes() {
        let headers = [("Host", "a.test:8000"), ("Content-Type", "application/json"), ("X-A", "1"), ("x-a", "2")];
        let mut x = exchange_with_body("POST", "/p/q?a=1&a=2&b", &headers, r#"{"k":1}"#);
        let reply = run(plugin::<RequestTermination>(json!({"echo": true, "message": "m"})).access(&mut x)).unwrap_err();
        let echo: Value = serde_json::from_str(message(&reply)).unwrap();
        let request = &echo["request"];
        assert_eq!(echo["message"], "m");
        assert_eq!((&request["host"], &request["path"], &request["method"]), (&json!("a.test"), &json!("/p/q"), &json!("POST")));
        assert_eq!((&request["query"], &request["headers"]["x-a"]), (&json!({"a": ["1", "2"], "b": true}), &json!(["1", "2"])));
        assert_eq!((&request["body"], &request["raw_body"]), (&json!({"k": 1}), &json!(r#"{"k":1}"#)));
        assert_eq!(request["uri_captures"], json!({"named": {}, "unnamed": []}));
    }

    #[test]
    fn configurations_that_contradict_themselves() {
        let wrong = |config| refused::<RequestTermination>(config)["config"].clone();
        assert_eq!(wrong(json!({"message": "a", "body": "b"})), "message cannot be used with content_type or body");
        assert_eq!(wrong(json!({"content_type": "text/plain"})), "content_type requires a body");
        assert_eq!(wrong(json!({"echo": true, "body": "b"})), "echo cannot be used with content_type and body");
        assert_eq!(wrong(json!({"status_code": 99})), json!({"status_code": "value should be between 100 and 599"}));
    }
}
