//! Tree and request -> value.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::expression::{Binary, Expression, Unary};
use super::functions::{self, Function};
use super::pdk;
use super::{RenderError, View};
use crate::http::Headers;
use crate::plugin::Exchange;
use crate::plugin::exchange::Captures;

/// A value of an expression.
#[derive(Clone)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, [u8]>),
    Table(Table<'a>),
    Function(Function),
    /// A function of the plugin development kit, of this request.
    Pdk(&'a Exchange, pdk::Function),
}

#[derive(Clone)]
pub enum Table<'a> {
    Headers(&'a Headers),
    Query(&'a str),
    Captures(&'a Captures),
    /// Nobody has put anything there.
    Empty,
    List(Vec<Value<'a>>),
    /// Pairs; those of a list have the keys 1, 2, ...
    Made(Vec<(Value<'a>, Value<'a>)>),
    /// A table of the plugin development kit, by its name: `kong.request`.
    Pdk(&'a Exchange, &'static str),
    /// `string`, `math`, `table`, `os`
    Library(&'static str),
}

pub fn evaluate<'a>(expression: &Expression, view: &View<'a>) -> Result<Value<'a>, RenderError> {
    Ok(match expression {
        Expression::Nil => Value::Nil,
        Expression::Bool(b) => Value::Bool(*b),
        Expression::Number(n) => Value::Number(*n),
        Expression::Text(text) => Value::Text(Cow::Owned(text.clone())),
        Expression::Name(name) => global(name, view),
        Expression::Index { of, key } => {
            let table = evaluate(of, view)?;
            let key = evaluate(key, view)?;
            table.index(&key).ok_or_else(|| RenderError(format!("attempt to index {} (a {} value)", described(of), table.kind())))?
        }
        Expression::Call { function, arguments } => {
            let called = evaluate(function, view)?;
            call(&called, function, arguments.iter().map(|argument| evaluate(argument, view)).collect::<Result<_, _>>()?)?
        }
        Expression::Method { of, name, arguments } => {
            let this = evaluate(of, view)?;
            let key = Value::Text(Cow::Owned(name.clone().into_bytes()));
            let method = this.index(&key).unwrap_or(Value::Nil);
            let mut all = vec![this];
            for argument in arguments {
                all.push(evaluate(argument, view)?);
            }
            call(&method, &Expression::Index { of: of.clone(), key: Box::new(Expression::Text(name.clone().into_bytes())) }, all)?
        }
        Expression::Table(items) => {
            let (mut made, mut position) = (Vec::new(), 0.0);
            for (key, item) in items {
                let key = match key {
                    Some(key) => evaluate(key, view)?,
                    None => {
                        position += 1.0;
                        Value::Number(position)
                    }
                };
                made.push((key, evaluate(item, view)?));
            }
            Value::Table(Table::Made(made))
        }
        Expression::Unary(operator, of) => unary(*operator, evaluate(of, view)?)?,
        Expression::Binary(Binary::Or, left, right) => {
            let left = evaluate(left, view)?;
            if left.is_true() { left } else { evaluate(right, view)? }
        }
        Expression::Binary(Binary::And, left, right) => {
            let left = evaluate(left, view)?;
            if left.is_true() { evaluate(right, view)? } else { left }
        }
        Expression::Binary(operator, left, right) => binary(*operator, evaluate(left, view)?, evaluate(right, view)?)?,
    })
}

fn global<'a>(name: &str, view: &View<'a>) -> Value<'a> {
    match name {
        "headers" => Value::Table(Table::Headers(view.headers)),
        "query_params" => Value::Table(Table::Query(view.query)),
        "uri_captures" => Value::Table(Table::Captures(view.captures)),
        "shared" => Value::Table(Table::Empty),
        "kong" | "ngx" if view.exchange.is_some() => {
            view.exchange.map_or(Value::Nil, |x| Value::Table(Table::Pdk(x, if name == "kong" { "kong" } else { "ngx" })))
        }
        _ => match functions::library(name) {
            Some(library) => Value::Table(Table::Library(library)),
            None => functions::function("", name).map_or(Value::Nil, Value::Function),
        },
    }
}

fn call<'a>(called: &Value<'a>, named: &Expression, arguments: Vec<Value<'a>>) -> Result<Value<'a>, RenderError> {
    match called {
        Value::Function(function) => function(&arguments),
        Value::Pdk(x, function) => function(x, &arguments),
        other => Err(RenderError(format!("attempt to call {} (a {} value)", described(named), other.kind()))),
    }
}

/// How Lua names an expression in its error texts.
fn described(expression: &Expression) -> String {
    match expression {
        Expression::Name(name) => format!("global '{name}'"),
        Expression::Index { key, .. } => match &**key {
            Expression::Text(name) => format!("field '{}'", String::from_utf8_lossy(name)),
            _ => "field '?'".to_owned(),
        },
        _ => "a value".to_owned(),
    }
}

fn unary(operator: Unary, of: Value) -> Result<Value, RenderError> {
    match (operator, &of) {
        (Unary::Not, _) => Ok(Value::Bool(!of.is_true())),
        (Unary::Minus, _) => Ok(Value::Number(-arithmetic(&of)?)),
        (Unary::Length, Value::Text(text)) => Ok(Value::Number(text.len() as f64)),
        (Unary::Length, Value::Table(Table::List(list))) => Ok(Value::Number(list.len() as f64)),
        (Unary::Length, Value::Table(Table::Made(made))) => Ok(Value::Number(
            made.iter().filter(|(key, item)| matches!(key, Value::Number(_)) && !matches!(item, Value::Nil)).count() as f64,
        )),
        (Unary::Length, Value::Table(Table::Captures(captures))) => Ok(Value::Number(captures.numbered.len() as f64)),
        (Unary::Length, Value::Table(_)) => Ok(Value::Number(0.0)),
        (Unary::Length, _) => Err(RenderError(format!("attempt to get length of a {} value", of.kind()))),
    }
}

fn binary<'a>(operator: Binary, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, RenderError> {
    let number = |apply: fn(f64, f64) -> f64| Ok(Value::Number(apply(arithmetic(&left)?, arithmetic(&right)?)));
    match operator {
        Binary::Add => number(|a, b| a + b),
        Binary::Subtract => number(|a, b| a - b),
        Binary::Multiply => number(|a, b| a * b),
        Binary::Divide => number(|a, b| a / b),
        Binary::Modulo => number(|a, b| a - (a / b).floor() * b),
        Binary::Power => number(f64::powf),
        Binary::Concatenate => {
            let mut text = left.piece()?.into_owned();
            text.extend_from_slice(&right.piece()?);
            if text.len() > functions::LONGEST {
                return Err(RenderError("not enough memory".to_owned()));
            }
            Ok(Value::Text(Cow::Owned(text)))
        }
        Binary::Equal => Ok(Value::Bool(equal(&left, &right))),
        Binary::NotEqual => Ok(Value::Bool(!equal(&left, &right))),
        Binary::Less => Ok(Value::Bool(compare(&left, &right)?.is_some_and(|order| order.is_lt()))),
        Binary::LessEqual => Ok(Value::Bool(compare(&left, &right)?.is_some_and(|order| order.is_le()))),
        Binary::Greater => Ok(Value::Bool(compare(&left, &right)?.is_some_and(|order| order.is_gt()))),
        Binary::GreaterEqual => Ok(Value::Bool(compare(&left, &right)?.is_some_and(|order| order.is_ge()))),
        Binary::Or | Binary::And => Ok(right),
    }
}

fn arithmetic(value: &Value) -> Result<f64, RenderError> {
    value.number().ok_or_else(|| RenderError(format!("attempt to perform arithmetic on a {} value", value.kind())))
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => false,
    }
}

fn compare(left: &Value, right: &Value) -> Result<Option<std::cmp::Ordering>, RenderError> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => Ok(a.partial_cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        (a, b) if a.kind() == b.kind() => Err(RenderError(format!("attempt to compare two {} values", a.kind()))),
        (a, b) => Err(RenderError(format!("attempt to compare {} with {}", a.kind(), b.kind()))),
    }
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::Text(text.into())
    }

    pub fn is_true(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Table(_) => "table",
            Self::Function(_) | Self::Pdk(..) => "function",
        }
    }

    /// The number it is or that its text says.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => functions::to_number(std::str::from_utf8(text).ok()?),
            _ => None,
        }
    }

    /// What a template shows: nothing for nil and false; a header sent twice as its values with commas.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), RenderError> {
        match self {
            Self::Nil | Self::Bool(false) => Ok(()),
            Self::Table(Table::List(list)) => {
                for (n, value) in list.iter().enumerate() {
                    if n > 0 {
                        out.extend_from_slice(b", ");
                    }
                    value.write(out)?;
                }
                Ok(())
            }
            Self::Table(_) | Self::Function(_) | Self::Pdk(..) => Err(RenderError(format!("a {} has no text", self.kind()))),
            _ => {
                out.extend_from_slice(&self.shown());
                Ok(())
            }
        }
    }

    /// As Lua's `tostring`.
    pub fn shown(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Nil => Cow::Borrowed(b"nil"),
            Self::Bool(true) => Cow::Borrowed(b"true"),
            Self::Bool(false) => Cow::Borrowed(b"false"),
            Self::Number(n) => Cow::Owned(functions::number_text(*n).into_bytes()),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Table(_) | Self::Function(_) | Self::Pdk(..) => Cow::Borrowed(self.kind().as_bytes()),
        }
    }

    fn piece(&self) -> Result<Cow<'_, [u8]>, RenderError> {
        match self {
            Self::Text(_) | Self::Number(_) => Ok(self.shown()),
            _ => Err(RenderError(format!("attempt to concatenate a {} value", self.kind()))),
        }
    }

    /// The member of that key; `None` for what cannot be indexed.
    fn index(&self, key: &Value) -> Option<Value<'a>> {
        let name = match key {
            Value::Text(name) => std::str::from_utf8(name).ok(),
            _ => None,
        };
        Some(match self {
            Self::Text(_) => name.and_then(|name| functions::function("string", name)).map_or(Value::Nil, Value::Function),
            Self::Table(Table::Empty) => Value::Nil,
            Self::Table(Table::Library(library)) => {
                name.and_then(|name| functions::function(library, name)).map_or(Value::Nil, Value::Function)
            }
            Self::Table(Table::List(list)) => match key {
                Value::Number(n) if *n >= 1.0 && n.fract() == 0.0 => list.get(*n as usize - 1).cloned().unwrap_or(Value::Nil),
                _ => Value::Nil,
            },
            Self::Table(Table::Made(made)) => made.iter().find(|(at, _)| equal(at, key)).map_or(Value::Nil, |(_, item)| item.clone()),
            Self::Table(Table::Pdk(x, table)) => name.map_or(Value::Nil, |name| pdk::member(x, table, name)),
            Self::Table(Table::Captures(captures)) => capture(captures, key, name),
            Self::Table(Table::Headers(headers)) => name.map_or(Value::Nil, |name| header(headers, name)),
            Self::Table(Table::Query(query)) => name.map_or(Value::Nil, |name| argument(query, name)),
            _ => return None,
        })
    }
}

fn capture<'a>(captures: &'a Captures, key: &Value, name: Option<&str>) -> Value<'a> {
    let found = match (key, name) {
        (Value::Number(n), _) if *n == 0.0 => captures.whole.as_deref(),
        (Value::Number(n), _) if *n > 0.0 && n.fract() == 0.0 => captures.number(*n as usize),
        (_, Some(name)) => captures.named(name),
        _ => None,
    };
    found.map_or(Value::Nil, |text| Value::text(text.as_bytes()))
}

/// `_` in the name may stand for `-`.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Value<'a> {
    let wanted = |field: &[u8]| {
        field.len() == name.len() && field.iter().zip(name.bytes()).all(|(a, b)| a.eq_ignore_ascii_case(&b) || (b == b'_' && *a == b'-'))
    };
    one_or_list(headers.iter().filter(|(field, _)| wanted(field)).map(|(_, value)| Value::text(value)).collect())
}

pub fn argument<'a>(query: &'a str, name: &str) -> Value<'a> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    });
    let value = |value: Option<&'a str>| value.map_or(Value::Bool(true), |value| Value::Text(decoded(value)));
    one_or_list(pairs.filter(|(n, _)| decoded(n) == name.as_bytes()).map(|(_, v)| value(v)).collect())
}

fn one_or_list(mut found: Vec<Value>) -> Value {
    match found.len() {
        0 => Value::Nil,
        1 => found.remove(0),
        _ => Value::Table(Table::List(found)),
    }
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        Cow::Owned(percent_decode(text.replace('+', " ").as_bytes()).collect())
    } else {
        percent_decode(text.as_bytes()).into()
    }
}
