//! A configuration value that is a piece of Lua as a whole: `return` and an expression.

use serde_json::{Map, Number, Value as Json};

use super::expression::Expression;
use super::value::{Table, Value, evaluate};
use super::{ParseError, RenderError, View, functions, pdk};
use crate::plugin::Exchange;

/// Tables of a result nest this deep at most.
const DEPTH: usize = 32;

/// `return expression`, or nothing at all.
#[derive(Clone, Debug)]
pub struct Script(Option<Expression>);

impl Script {
    /// Takes what can be evaluated here and nothing else: neither statements nor names that are not known.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let source = source.trim();
        if source.is_empty() {
            return Ok(Self(None));
        }
        let word = source.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(source.len());
        let (first, rest) = source.split_at(word);
        if first != "return" {
            return Err(ParseError(format!(
                "only 'return' and an expression is supported, not '{}'",
                source.lines().next().unwrap_or_default()
            )));
        }
        let rest = rest.trim_end();
        let rest = rest.strip_suffix(';').unwrap_or(rest);
        if rest.trim().is_empty() {
            return Ok(Self(None));
        }
        let expression = Expression::parse(rest)?;
        check(&expression)?;
        Ok(Self(Some(expression)))
    }

    /// The value as JSON; `None` is nil.
    pub fn value(&self, x: &Exchange) -> Result<Option<Json>, RenderError> {
        let Some(expression) = &self.0 else { return Ok(None) };
        let view = View { headers: &x.request.headers, query: x.query(), captures: &x.captures, exchange: Some(x) };
        match evaluate(expression, &view)? {
            Value::Nil => Ok(None),
            value => json(&value, 0).map(Some),
        }
    }
}

/// Whether every name in it is known. What Lua would find to be nil is told when it is configured, not when it runs.
fn check(expression: &Expression) -> Result<(), ParseError> {
    if let Some(path) = path(expression) {
        return if pdk::is_known(&path) { Ok(()) } else { Err(ParseError(format!("'{path}' is not supported"))) };
    }
    match expression {
        Expression::Nil | Expression::Bool(_) | Expression::Number(_) | Expression::Text(_) => Ok(()),
        Expression::Name(name) if functions::library(name).is_some() || functions::function("", name).is_some() => Ok(()),
        Expression::Name(name) => Err(ParseError(format!("'{name}' is not supported"))),
        Expression::Index { of, key } => match (&**of, &**key) {
            (Expression::Name(library), Expression::Text(name)) if functions::library(library).is_some() => {
                let name = String::from_utf8_lossy(name);
                let known = functions::function(library, &name).is_some();
                if known { Ok(()) } else { Err(ParseError(format!("'{library}.{name}' is not supported"))) }
            }
            (of, key) => check(of).and_then(|()| check(key)),
        },
        Expression::Call { function, arguments } => check(function).and_then(|()| arguments.iter().try_for_each(check)),
        Expression::Method { of, arguments, .. } => check(of).and_then(|()| arguments.iter().try_for_each(check)),
        Expression::Table(items) => items.iter().try_for_each(|(key, item)| key.iter().try_for_each(check).and_then(|()| check(item))),
        Expression::Unary(_, of) => check(of),
        Expression::Binary(_, left, right) => check(left).and_then(|()| check(right)),
    }
}

/// The full name of something in `kong` or `ngx`.
fn path(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Name(name) if name == "kong" || name == "ngx" => Some(name.clone()),
        Expression::Index { of, key } => match &**key {
            Expression::Text(name) => Some(format!("{}.{}", path(of)?, String::from_utf8_lossy(name))),
            _ => None,
        },
        _ => None,
    }
}

fn json(value: &Value, depth: usize) -> Result<Json, RenderError> {
    if depth > DEPTH {
        return Err(RenderError::new("excessively nested table"));
    }
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Number(n) => number(*n)?,
        Value::Text(text) => String::from_utf8_lossy(text).into(),
        Value::Function(_) | Value::Pdk(..) => return Err(RenderError::new("a function has no JSON")),
        Value::Table(table) => match table {
            Table::List(list) => Json::Array(list.iter().map(|item| json(item, depth + 1)).collect::<Result<_, _>>()?),
            Table::Made(made) => pairs(made, depth)?,
            Table::Headers(headers) => {
                let pairs = headers.iter().map(|(name, value)| (String::from_utf8_lossy(name).to_ascii_lowercase(), value));
                let mut table = Map::new();
                for (name, value) in pairs {
                    table.entry(name).or_insert_with(|| String::from_utf8_lossy(value).into());
                }
                Json::Object(table)
            }
            Table::Query(query) => serde_json::to_value(crate::plugin::record::Query(query)).unwrap_or_default(),
            Table::Captures(_) | Table::Empty | Table::Library(_) | Table::Pdk(..) => Json::Object(Map::new()),
        },
    })
}

/// A list where all keys are those of a list; without any pair, a table with names.
fn pairs(made: &[(Value, Value)], depth: usize) -> Result<Json, RenderError> {
    let there = || made.iter().filter(|(_, item)| !matches!(item, Value::Nil));
    let is_list = there().enumerate().all(|(n, (key, _))| matches!(key, Value::Number(at) if *at == (n + 1) as f64));
    if is_list && there().next().is_some() {
        return Ok(Json::Array(there().map(|(_, item)| json(item, depth + 1)).collect::<Result<_, _>>()?));
    }
    let mut table = Map::new();
    for (key, item) in there() {
        table.insert(String::from_utf8_lossy(&key.shown()).into_owned(), json(item, depth + 1)?);
    }
    Ok(Json::Object(table))
}

/// Whole numbers are written without a fraction.
fn number(n: f64) -> Result<Json, RenderError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= EXACT {
        return Ok(Json::from(n as i64));
    }
    Number::from_f64(n).map(Json::Number).ok_or_else(|| RenderError::new("number must not be NaN or Inf"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{Rows, exchange};

    fn value(source: &str) -> Result<Json, String> {
        let mut x = exchange("POST", "/p?a=1&b", &[("X-In", "in"), ("X-Two", "1"), ("X-Two", "2"), ("Host", "A.test:80")]);
        x.response.status = 201;
        x.authenticated.consumer = Some(std::sync::Arc::new(crate::plugin::testing::row(json!({"username": "bob"}))));
        let id = x.authenticated.consumer.as_ref().map(|c| c.id.to_string()).unwrap_or_default();
        x.world = Rows::default().with::<crate::model::Consumer>(json!({"id": id, "username": "bob"})).world();
        let script = Script::parse(source).map_err(|error| error.to_string())?;
        script.value(&x).map(Option::unwrap_or_default).map_err(|error| error.to_string())
    }

    #[test]
    fn values() {
        for (source, expected) in [
            ("", json!(null)),
            ("return", json!(null)),
            ("return nil", json!(null)),
            ("return 'v'", json!("v")),
            (" return \"v\" ; ", json!("v")),
            ("return 7", json!(7)),
            ("return 7.5 - 0.25", json!(7.25)),
            ("return true", json!(true)),
            ("return { 1, 2 }", json!([1, 2])),
            ("return {}", json!({})),
            ("return { a = { 'x' }, ['b-c'] = nil, d = 1 }", json!({"a": ["x"], "d": 1})),
            ("return kong.request.get_header('x-in')", json!("in")),
            ("return kong.request.get_header('x-two')", json!("1")),
            ("return kong.request.get_header('none') or 'nobody'", json!("nobody")),
            ("return kong.request.get_method():lower() .. ' ' .. kong.request.get_path()", json!("post /p")),
            ("return kong.request.get_query_arg('a')", json!("1")),
            ("return kong.request.get_query()", json!({"a": "1", "b": true})),
            ("return kong.request.get_headers()['x-in']", json!("in")),
            ("return kong.request.get_host()", json!("a.test")),
            ("return kong.response.get_status() + 1", json!(202)),
            ("return kong.client.get_consumer().username", json!("bob")),
            ("return kong.router.get_route()", json!(null)),
            ("return ngx.var.request_id", json!("0".repeat(32))),
            ("return ngx.status", json!(201)),
            ("return ngx.now() > 1e9", json!(true)),
        ] {
            assert_eq!(value(source), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_told_beforehand() {
        for (source, error) in [
            ("return (", "unexpected symbol near '<eof>'"),
            ("return 1 2", "unexpected symbol near '2'"),
            ("return {1", "unexpected symbol near '<eof>'"),
            ("local x = 1 return x", "only 'return' and an expression is supported, not 'local x = 1 return x'"),
            ("returned", "only 'return' and an expression is supported, not 'returned'"),
            ("return kong.ctx.shared.x", "'kong.ctx.shared.x' is not supported"),
            ("return kong.request", "'kong.request' is not supported"),
            ("return ngx.var.nothing", "'ngx.var.nothing' is not supported"),
            ("return headers.x", "'headers' is not supported"),
            ("return { a = os.getenv }", "'os.getenv' is not supported"),
            ("return function() end", "unexpected symbol near 'function'"),
        ] {
            assert_eq!(value(source), Err(error.to_owned()), "{source}");
        }
    }

    #[test]
    fn what_fails_says_why() {
        assert_eq!(value("return 1 / 0"), Err("number must not be NaN or Inf".to_owned()));
        assert_eq!(value("return kong.request.get_header()"), Err("header name must be a string".to_owned()));
        assert_eq!(value("return kong.router.get_route().name"), Err("attempt to index a value (a nil value)".to_owned()));
        assert_eq!(value("return string.upper"), Err("a function has no JSON".to_owned()));
    }
}
