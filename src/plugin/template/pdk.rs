//! What expressions may ask of a request by the names of Kong's plugin development kit, as far as it looks and does not act:
//! functions of `kong` and of `ngx`, variables of `ngx.var`.

use super::RenderError;
use super::value::{Table, Value, argument, header};
use crate::model::WORKSPACE;
use crate::plugin::exchange::Source;
use crate::plugin::{Exchange, record};

pub type Function = for<'a> fn(&'a Exchange, &[Value<'a>]) -> Result<Value<'a>, RenderError>;
type Variable = for<'a> fn(&'a Exchange) -> Value<'a>;

/// What a name stands for.
#[derive(Clone, Copy)]
enum Member {
    Function(Function),
    Variable(Variable),
}

/// Everything that there is, by its full name.
#[rustfmt::skip] // one a line
static MEMBERS: &[(&str, Member)] = &[
    ("kong.client.get_consumer", Member::Function(|x, _| Ok(entity(x, "consumers", x.authenticated.consumer.as_ref().map(|c| c.id))))),
    ("kong.client.get_credential", Member::Function(|x, _| Ok(credential(x)))),
    ("kong.client.get_forwarded_ip", Member::Function(|x, _| Ok(owned(x.client.ip)))),
    ("kong.client.get_forwarded_port", Member::Function(|x, _| Ok(number(x.client.peer.port())))),
    ("kong.client.get_ip", Member::Function(|x, _| Ok(owned(x.client.peer.ip())))),
    ("kong.client.get_port", Member::Function(|x, _| Ok(number(x.client.peer.port())))),
    ("kong.client.get_protocol", Member::Function(|x, _| Ok(text(x.client.scheme)))),
    ("kong.request.get_header", Member::Function(|x, a| Ok(first(header(&x.request.headers, &name(a)?))))),
    ("kong.request.get_headers", Member::Function(|x, _| Ok(Value::Table(Table::Headers(&x.request.headers))))),
    ("kong.request.get_host", Member::Function(|x, _| Ok(Value::Text(record::host(x).into_owned().into_bytes().into())))),
    ("kong.request.get_http_version", Member::Function(|x, _| Ok(Value::Number(x.request.version.number().parse().unwrap_or_default())))),
    ("kong.request.get_method", Member::Function(|x, _| Ok(text(x.request.method.as_str())))),
    ("kong.request.get_path", Member::Function(|x, _| Ok(text(&x.path)))),
    ("kong.request.get_path_with_query", Member::Function(|x, _| Ok(text(&x.request.target)))),
    ("kong.request.get_port", Member::Function(|x, _| Ok(number(x.client.port)))),
    ("kong.request.get_query", Member::Function(|x, _| Ok(Value::Table(Table::Query(x.query()))))),
    ("kong.request.get_query_arg", Member::Function(|x, a| Ok(first(argument(x.query(), &name(a)?))))),
    ("kong.request.get_raw_path", Member::Function(|x, _| Ok(text(x.request.raw_path())))),
    ("kong.request.get_raw_query", Member::Function(|x, _| Ok(text(x.query())))),
    ("kong.request.get_scheme", Member::Function(|x, _| Ok(text(x.client.scheme)))),
    ("kong.response.get_header", Member::Function(|x, a| Ok(first(header(&x.response.headers, &name(a)?))))),
    ("kong.response.get_headers", Member::Function(|x, _| Ok(Value::Table(Table::Headers(&x.response.headers))))),
    ("kong.response.get_source", Member::Function(|x, _| Ok(text(if x.source == Source::Upstream { "service" } else { "exit" })))),
    ("kong.response.get_status", Member::Function(|x, _| Ok(number(x.response.status)))),
    ("kong.router.get_route", Member::Function(|x, _| Ok(entity(x, "routes", x.route.as_ref().map(|r| r.id))))),
    ("kong.router.get_service", Member::Function(|x, _| Ok(entity(x, "services", x.service.as_ref().map(|s| s.id))))),
    ("kong.service.response.get_header", Member::Function(|x, a| Ok(first(header(&x.response.headers, &name(a)?))))),
    ("kong.service.response.get_status", Member::Function(|x, _| Ok(upstream_status(x)))),
    ("ngx.now", Member::Function(|_, _| Ok(Value::Number(record::milliseconds(std::time::SystemTime::now()) as f64 / 1000.0)))),
    ("ngx.status", Member::Variable(|x| number(x.response.status))),
    ("ngx.time", Member::Function(|_, _| Ok(Value::Number((record::milliseconds(std::time::SystemTime::now()) / 1000) as f64)))),
    ("ngx.var.args", Member::Variable(|x| text(x.query()))),
    ("ngx.var.bytes_sent", Member::Variable(|x| owned(x.size.response))),
    ("ngx.var.host", Member::Variable(|x| Value::Text(record::host(x).into_owned().into_bytes().into()))),
    ("ngx.var.remote_addr", Member::Variable(|x| owned(x.client.ip))),
    ("ngx.var.request_id", Member::Variable(|x| text(x.request_id.as_str()))),
    ("ngx.var.request_length", Member::Variable(|x| owned(x.size.request))),
    ("ngx.var.request_method", Member::Variable(|x| text(x.request.method.as_str()))),
    ("ngx.var.request_uri", Member::Variable(|x| text(&x.request.target))),
    ("ngx.var.scheme", Member::Variable(|x| text(x.client.scheme))),
    ("ngx.var.server_port", Member::Variable(|x| owned(x.client.port))),
    ("ngx.var.status", Member::Variable(|x| owned(x.response.status))),
    ("ngx.var.upstream_status", Member::Variable(|x| owned(record::upstream_status(x)))),
    ("ngx.var.upstream_uri", Member::Variable(|x| text(&x.upstream.target))),
    ("ngx.var.uri", Member::Variable(|x| text(&x.path))),
    ("ngx.var.workspace_name", Member::Variable(|_| text(WORKSPACE))),
];

/// The tables that the members are in.
static TABLES: &[&str] =
    &["kong", "kong.client", "kong.request", "kong.response", "kong.router", "kong.service", "kong.service.response", "ngx", "ngx.var"];

/// Whether something has this full name.
pub fn is_known(name: &str) -> bool {
    MEMBERS.iter().any(|(known, _)| *known == name)
}

/// What `table.name` is.
pub fn member<'a>(x: &'a Exchange, table: &str, name: &str) -> Value<'a> {
    let full = |known: &&str| known.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) == Some(name);
    if let Some(table) = TABLES.iter().find(|known| full(known)) {
        return Value::Table(Table::Pdk(x, table));
    }
    match MEMBERS.iter().find(|(known, _)| full(known)) {
        Some((_, Member::Function(function))) => Value::Pdk(x, *function),
        Some((_, Member::Variable(variable))) => variable(x),
        None => Value::Nil,
    }
}

fn text(text: &str) -> Value<'_> {
    Value::text(text.as_bytes())
}

fn owned<'a>(value: impl std::fmt::Display) -> Value<'a> {
    Value::Text(value.to_string().into_bytes().into())
}

fn number<'a>(number: impl Into<f64>) -> Value<'a> {
    Value::Number(number.into())
}

/// Of a header that came twice the first value.
fn first(value: Value) -> Value {
    match value {
        Value::Table(Table::List(list)) => list.into_iter().next().unwrap_or(Value::Nil),
        other => other,
    }
}

/// The first argument, a name.
fn name(arguments: &[Value]) -> Result<String, RenderError> {
    match arguments.first() {
        Some(name @ Value::Text(_)) => Ok(String::from_utf8_lossy(&name.shown()).into_owned()),
        _ => Err(RenderError::new("header name must be a string")),
    }
}

fn upstream_status(x: &Exchange) -> Value<'_> {
    x.tries.last().and_then(|last| last.status).map_or(Value::Nil, number)
}

fn credential(x: &Exchange) -> Value<'_> {
    x.authenticated.credential.as_ref().map_or(Value::Nil, |credential| Value::Table(Table::Made(vec![(text("id"), text(&credential.id))])))
}

fn entity<'a>(x: &'a Exchange, entity: &'static str, id: Option<uuid::Uuid>) -> Value<'a> {
    id.and_then(|id| x.world.shown(entity, id)).map_or(Value::Nil, |row| of_json(serde_json::Value::Object(row)))
}

fn of_json<'a>(value: serde_json::Value) -> Value<'a> {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(b) => Value::Bool(b),
        serde_json::Value::Number(n) => n.as_f64().map_or(Value::Nil, Value::Number),
        serde_json::Value::String(text) => Value::Text(text.into_bytes().into()),
        serde_json::Value::Array(list) => Value::Table(Table::List(list.into_iter().map(of_json).collect())),
        serde_json::Value::Object(table) => {
            let pairs = table.into_iter().map(|(key, value)| (Value::Text(key.into_bytes().into()), of_json(value)));
            Value::Table(Table::Made(pairs.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_in_a_table() {
        for (name, _) in MEMBERS {
            let (table, _) = name.rsplit_once('.').expect("a table and a name");
            assert!(TABLES.contains(&table), "{name}");
        }
        assert!(MEMBERS.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, so that none stands twice");
    }
}
