//! Changes a request before it goes upstream: its headers, query, body, method and path.
//!
//! Each of the five operations takes a list: `remove` names; `rename` pairs `old:new`, where there is an old one; `replace`
//! pairs `name:value`, where there is such a name; `add` pairs, where there is none; `append` pairs, always. They run in
//! this order, on the path (`replace.uri`), the method, headers, body and query, in that order. Values may hold
//! templates such as `$(headers["x-user"])`, `$(uri_captures.id)`, `$(query_params.page or "1")`; they see the request as it
//! was before the plugin.
//!
//! Bodies are changed when they are JSON objects, url-encoded or multipart forms of at most 1 MB; others pass as they are.
//! `Host` can be replaced and nothing else; the headers that frame the message are left alone.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 500 | a template fails, or the path does not begin with `/` |

mod apply;
mod config;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schema::Violations;

use crate::http::Method;
use crate::plugin::form::{self, Form, Kind, Multipart};
use crate::plugin::template::{RenderError, Template, View};
use crate::plugin::{ALL_PROTOCOLS, Env, Exchange, Flow, Phases, Plugin, Reply, query};
use apply::Arguments;
use config::Config;

pub struct RequestTransformer {
    method: Option<Method>,
    uri: Written,
    headers: Operations,
    body: Operations,
    query: Operations,
}

/// What is done to one part of the request.
struct Operations {
    remove: Vec<String>,
    rename: Vec<(String, Written)>,
    replace: Vec<(String, Written)>,
    add: Vec<(String, Written)>,
    append: Vec<(String, Written)>,
}

/// The same with the values that one request gives.
struct Rendered<'a> {
    remove: &'a [String],
    rename: Vec<Pair<'a>>,
    replace: Vec<Pair<'a>>,
    add: Vec<Pair<'a>>,
    append: Vec<Pair<'a>>,
}

type Pair<'a> = (&'a str, Option<Cow<'a, str>>);

/// A configured value.
enum Written {
    Nothing,
    Plain(String),
    Template(Template),
}

impl Plugin for RequestTransformer {
    const NAME: &'static str = "request-transformer";
    const PRIORITY: i32 = 801;
    const PHASES: Phases = Phases::ACCESS;
    const ALLOWED_PROTOCOLS: &'static [&'static str] = ALL_PROTOCOLS;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let Config { http_method, remove, rename, replace, add, append } = config;
        let uri = Written::new(&replace.uri.unwrap_or_default());
        Ok(Self {
            method: http_method.as_deref().map(Method::parse),
            uri,
            headers: Operations::new(remove.headers, rename.headers, replace.headers, add.headers, append.headers),
            body: Operations::new(remove.body, rename.body, replace.body, add.body, append.body),
            query: Operations::new(remove.querystring, rename.querystring, replace.querystring, add.querystring, append.querystring),
        })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let kind = Kind::of(&x.request.headers);
        let view = View { headers: &x.request.headers, query: x.query(), captures: &x.captures, exchange: None };
        let uri = self.uri.render(&view).map_err(failed)?;
        let headers = self.headers.render(&view).map_err(failed)?;
        let body = if kind.is_some() { self.body.render(&view).map_err(failed)? } else { None };
        let changes = self.query.render(&view).map_err(failed)?;

        let mut arguments = None;
        if let Some(method) = &self.method {
            x.request.method = method.clone();
            let bodiless = matches!(method, Method::Get | Method::Head | Method::Trace);
            if bodiless
                && kind == Some(Kind::Urlencoded)
                && let Some(bytes) = form::bytes(x, form::MAX_BODY).await?
            {
                let mut all = Arguments::parse(x.query());
                all.extend(Arguments::parse(&String::from_utf8_lossy(&bytes)));
                arguments = Some(all);
            }
        }
        if let Some(headers) = headers {
            headers.apply_to_headers(x);
        }
        if let (Some(kind), Some(body)) = (kind, body) {
            change_body(x, kind, &body).await?;
        }
        if let Some(changes) = changes {
            let mut all = arguments.unwrap_or_else(|| Arguments::parse(x.query()));
            changes.apply_to_arguments(&mut all);
            arguments = Some(all);
        }
        set_target(x, uri.as_deref(), arguments).map_err(failed)
    }
}

fn failed(error: RenderError) -> Reply {
    tracing::warn!(plugin = RequestTransformer::NAME, %error, "template failed");
    Reply::error(500, "An unexpected error occurred")
}

async fn change_body(x: &mut Exchange, kind: Kind, changes: &Rendered<'_>) -> Flow {
    let Some(bytes) = form::bytes(x, form::MAX_BODY).await? else { return Ok(()) };
    let content_type = x.request.headers.get_str("content-type").unwrap_or_default();
    let form = if bytes.is_empty() { empty(kind, content_type) } else { Form::parse(kind, content_type, &bytes) };
    let Some(mut form) = form else { return Ok(()) };
    let changed = match &mut form {
        Form::Json(members) => changes.apply_to_json(members),
        Form::Urlencoded(text) => {
            let mut arguments = Arguments::parse(text);
            let changed = changes.apply_to_arguments(&mut arguments);
            *text = arguments.encode();
            changed
        }
        Form::Multipart(multipart) => changes.apply_to_multipart(multipart),
    };
    if changed {
        form::replace(x, form.into_bytes());
    }
    Ok(())
}

fn empty(kind: Kind, content_type: &str) -> Option<Form> {
    match kind {
        Kind::Json => Some(Form::Json(serde_json::Map::new())),
        Kind::Urlencoded => Some(Form::Urlencoded(String::new())),
        Kind::Multipart => {
            form::parameter(content_type, "boundary").map(|boundary| Form::Multipart(Multipart { boundary, parts: Vec::new() }))
        }
    }
}

/// Puts the path and the query that go upstream together. A path that holds a `?` keeps it.
fn set_target(x: &mut Exchange, uri: Option<&str>, arguments: Option<Arguments>) -> Result<(), RenderError> {
    if uri.is_none() && arguments.is_none() {
        return Ok(());
    }
    let (path, query) = x.upstream.target.split_once('?').map_or((x.upstream.target.as_str(), ""), |split| split);
    let path = match uri {
        Some(uri) if !uri.starts_with('/') => return Err(RenderError::new("the path does not begin with /")),
        Some(uri) => Cow::from(utf8_percent_encode(uri, PATH)),
        None => Cow::Borrowed(path),
    };
    let query = arguments.map_or(Cow::Borrowed(query), |arguments| Cow::Owned(arguments.encode()));
    x.upstream.target = if query.is_empty() { path.into_owned() } else { format!("{path}?{query}") };
    Ok(())
}

/// What cannot stand in a path; `%` can, for it may begin an escape.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

impl Operations {
    fn new(remove: Vec<String>, rename: Vec<String>, replace: Vec<String>, add: Vec<String>, append: Vec<String>) -> Self {
        let pairs = |list: Vec<String>| {
            let pair = |entry: &String| {
                let (name, value) = config::pair(entry);
                (name.to_owned(), Written::new(value))
            };
            list.iter().map(pair).collect::<Vec<_>>()
        };
        let names = remove.iter().map(|entry| config::pair(entry).0.to_owned()).collect();
        Self { remove: names, rename: pairs(rename), replace: pairs(replace), add: pairs(add), append: pairs(append) }
    }

    /// `None` when there is nothing to do.
    fn render(&self, view: &View) -> Result<Option<Rendered<'_>>, RenderError> {
        let Self { remove, rename, replace, add, append } = self;
        if remove.is_empty() && [rename, replace, add, append].iter().all(|list| list.is_empty()) {
            return Ok(None);
        }
        let [rename, replace, add, append] = [pairs(rename, view)?, pairs(replace, view)?, pairs(add, view)?, pairs(append, view)?];
        Ok(Some(Rendered { remove, rename, replace, add, append }))
    }
}

fn pairs<'a>(list: &'a [(String, Written)], view: &View) -> Result<Vec<Pair<'a>>, RenderError> {
    list.iter().map(|(name, value)| Ok((name.as_str(), value.render(view)?))).collect()
}

impl Written {
    fn new(source: &str) -> Self {
        match source {
            "" => Self::Nothing,
            template if template.contains("$(") => Self::Template(Template::new(template)),
            plain => Self::Plain(plain.to_owned()),
        }
    }

    fn render(&self, view: &View) -> Result<Option<Cow<'_, str>>, RenderError> {
        Ok(match self {
            Self::Nothing => None,
            Self::Plain(text) => Some(Cow::Borrowed(text)),
            Self::Template(template) => Some(Cow::Owned(template.render(view)?)),
        })
    }
}

impl Arguments {
    fn parse(text: &str) -> Self {
        Self(query::arguments(text).map(|argument| (argument.name.into_owned(), argument.value.map(Cow::into_owned))).collect())
    }
}
