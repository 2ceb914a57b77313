//! What unit tests of plugins need: a validated configuration, a request without a server, a runtime.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use schema::{Context, EntitySchema, EntityType, Object, Typed, Value, Violations, json};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::catalog::Row;
use crate::http::{Body, BodyError, BodySource, Method, Request};
use crate::model::{Consumer, PluginRow, Route, Service};
use crate::plugin::exchange::{Client, RequestId, Via};
use crate::plugin::reply::ReplyBody;
use crate::plugin::{Descriptor, Env, Exchange, Handles, Plugin, Reply, World};

/// A row as a snapshot's entry for it, which it is all of.
pub fn via<T: Send + Sync + 'static>(row: T) -> Via<T> {
    struct Itself<T>(T);
    impl<T> AsRef<T> for Itself<T> {
        fn as_ref(&self) -> &T {
            &self.0
        }
    }
    Via::new(Arc::new(Itself(row)))
}

/// The configuration as the Admin API would store it.
pub fn validated<P: Plugin>(config: Value) -> Result<Value, Violations> {
    let choose = |_: &str, _: &str| Some(Descriptor::of::<P>().chosen());
    let context = Context { choose: &choose, ..Context::bare() };
    let Value::Object(row) = json!({"name": P::NAME, "config": config}) else { unreachable!("a row is an object") };
    let mut row = schema::validate::insert(PluginRow::entity(), row, &context)?;
    Ok(row.remove("config").unwrap_or_default())
}

/// What the Admin API says about a configuration that it refuses.
pub fn refused<P: Plugin>(config: Value) -> Value {
    match validated::<P>(config) {
        Ok(config) => panic!("accepted: {config}"),
        Err(violations) => Value::Object(violations.0),
    }
}

/// A plugin of that configuration, of no scope.
pub fn plugin<P: Plugin>(config: Value) -> P {
    plugin_with(config, &env())
}

pub fn plugin_with<P: Plugin>(config: Value, env: &Env) -> P {
    let config = validated::<P>(config).unwrap_or_else(|violations| panic!("{violations}"));
    let config = schema::read(<P::Config as schema::RecordType>::record(), config).expect("a valid configuration can be read");
    P::new(config, env).unwrap_or_else(|violations| panic!("{violations}"))
}

pub fn env() -> Env {
    Env {
        id: Uuid::new_v4(),
        instance_name: None,
        route: None,
        service: None,
        consumer: None,
        consumer_group: None,
        handles: Arc::new(Handles::default()),
    }
}

/// A request from 127.0.0.1 as it is when access begins, on no route: `exchange("GET", "/a?b=c", &[("Host", "a.test")])`.
pub fn exchange(method: &str, target: &str, headers: &[(&str, &str)]) -> Exchange {
    let mut request = Request { method: Method::parse(method), target: target.to_owned(), ..Request::default() };
    for (name, value) in headers {
        request.headers.append(name, value);
    }
    let client = Client {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: SocketAddr::from(([127, 0, 0, 1], 50000)),
        local: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trusted: false,
        scheme: "http",
        port: 8000,
        tls: None,
    };
    let mut x = Exchange::new(request, client, Rows::default().world(), RequestId([b'0'; 32]));
    x.path = x.request.raw_path().to_owned();
    x.upstream.scheme = "http".to_owned();
    x.upstream.host = "upstream.test".to_owned();
    x.upstream.port = 80;
    x.upstream.target = target.to_owned();
    x
}

/// A request with a body.
pub fn exchange_with_body(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Exchange {
    let mut x = exchange(method, target, headers);
    x.request.headers.set("Content-Length", body.len().to_string());
    x.request.body = Body::from(Bytes::copy_from_slice(body.as_bytes()));
    x
}

/// What an exchange holds between two requests.
pub fn nothing() -> Arc<dyn World> {
    Arc::new(crate::plugin::world::Nothing)
}

pub fn consumer(username: &str) -> Consumer {
    row(json!({"username": username}))
}

pub fn service(name: &str) -> Service {
    row(json!({"name": name, "host": "upstream.test"}))
}

pub fn route(name: &str) -> Route {
    row(json!({"name": name, "paths": ["/"]}))
}

/// A valid row as its entity's struct.
pub fn row<T: EntityType + serde::de::DeserializeOwned>(input: Value) -> T {
    let Value::Object(mut input) = input else { panic!("a row is an object") };
    input.entry("id").or_insert_with(|| Uuid::new_v4().to_string().into());
    let row = schema::validate::insert(T::entity(), input, &Context::bare()).unwrap_or_else(|violations| panic!("{violations}"));
    schema::read(T::record(), Value::Object(row)).expect("a valid row can be read")
}

/// Values of a header as text, in order.
pub fn values(headers: &crate::http::Headers, name: &str) -> Vec<String> {
    headers.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Runs a future to its end.
pub fn run<F: Future>(future: F) -> F::Output {
    actix_rt::System::new().block_on(future)
}

/// A configuration of some rows: `x.world = Rows::default().with::<Consumer>(json!({...})).world()`.
#[derive(Default)]
pub struct Rows(Vec<(&'static EntitySchema, Object, Typed, Row)>);

impl Rows {
    /// Adds a row as the Admin API would.
    pub fn with<T: EntityType>(mut self, input: Value) -> Self {
        let schema = T::entity();
        let Value::Object(input) = input else { panic!("a row is an object") };
        let row = schema::validate::insert(schema, input, &Context::bare()).unwrap_or_else(|violations| panic!("{violations}"));
        let typed = (schema.parse)(&Value::Object(row.clone()).to_string()).expect("a valid row can be read");
        let stored = Row::new(schema, row["id"].as_str().and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_default(), &row);
        self.0.push((schema, row, typed, stored));
        self
    }

    pub fn world(self) -> Arc<dyn World> {
        Arc::new(self)
    }

    fn all<'a>(&'a self, entity: &'a str, path: &'a str, value: &'a str) -> impl Iterator<Item = Typed> {
        let holds = move |row: &Object| schema::check::at(row, path).as_str() == Some(value);
        self.0.iter().filter(move |(schema, row, ..)| schema.name == entity && holds(row)).map(|(_, _, typed, _)| typed.clone())
    }
}

impl World for Rows {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn find_any(&self, entity: &'static str, field: &'static str, value: &str) -> Option<Typed> {
        self.all(entity, field, value).next()
    }

    fn get_any(&self, entity: &'static str, id: Uuid) -> Option<Typed> {
        self.all(entity, "id", &id.to_string()).next()
    }

    fn shown(&self, entity: &'static str, id: Uuid) -> Option<Object> {
        let id = id.to_string();
        self.0.iter().find(|(schema, row, ..)| schema.name == entity && row["id"] == id).map(|(_, row, ..)| row.clone())
    }

    fn logged(&self, entity: &'static str, id: Uuid) -> Option<&RawValue> {
        self.0.iter().find(|(schema, _, _, row)| schema.name == entity && row.id == id).map(|(_, _, _, row)| row.logged())
    }

    fn children_any(&self, entity: &'static str, field: &'static str, parent: Uuid) -> Vec<Typed> {
        self.all(entity, &format!("{field}.id"), &parent.to_string()).collect()
    }
}

/// A body that arrives in these pieces, without a length.
pub fn chunks(parts: &[&str]) -> Body {
    Body::Stream(Box::new(Chunks(parts.iter().map(|part| Bytes::copy_from_slice(part.as_bytes())).collect())))
}

struct Chunks(VecDeque<Bytes>);

impl BodySource for Chunks {
    fn poll_chunk(&mut self, _: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// A JSON Web Token that is signed with a secret.
pub fn hs256(secret: &str, header: &Value, claims: &Value) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", encode(tag.as_ref()))
}

/// The message of an answer that the gateway makes.
pub fn message(reply: &Reply) -> &str {
    match &reply.body {
        ReplyBody::Message(text) => text,
        ReplyBody::Bytes(bytes) => std::str::from_utf8(bytes).expect("answers are UTF-8"),
        ReplyBody::Default | ReplyBody::Empty | ReplyBody::InPlace => "",
    }
}
