//! Redis: how a plugin's configuration names one, and the handle by which plugins ask it.
//!
//! A plugin that wants a Redis takes a [`Link`] from [`Redis::link`] when it is built and keeps it. A request may wait for
//! [`Link::ask`]; everything else is told ([`Link::tell`]) or kept for a while ([`Batches`]). The connections are made and
//! kept by `actors::redis`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Pipeline, ToRedisArgs, Value};
use bytes::Bytes;
use schema::types::{Host, Sni};
use schema::{Field, FieldType, Record, Violations};
use serde::Deserialize;

use crate::plugin::Env;
use crate::plugin::redis_counters::Batches;

/// Where the Redis is and how to log in.
#[derive(Clone, Deserialize, Record)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: Option<Host>,
    #[field(default = 6379, between(0, 65535))]
    pub port: Option<u16>,
    /// Milliseconds to connect, and to answer commands that are sent together; 0 means a minute.
    #[field(default = 2000, between(0, 2147483646))]
    pub timeout: Option<u64>,
    /// User of Redis 6 ACLs; without one only the password is sent, without a password neither.
    #[field(referenceable)]
    pub username: Option<String>,
    #[field(len_min(0), referenceable, encrypted)]
    pub password: Option<String>,
    /// Number of the database.
    #[field(default = 0)]
    pub database: Option<i64>,
    /// Whether to connect with TLS.
    #[field(default = false)]
    pub ssl: Option<bool>,
    /// Whether the server's certificate is verified, by the authorities of `lua_ssl_trusted_certificate`.
    #[field(default = false)]
    pub ssl_verify: Option<bool>,
    /// Server name in TLS, `host` where there is none.
    pub server_name: Option<Sni>,
}

/// Passwords are in no log and no error.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The names that these fields had beside the others of a plugin: `redis_host` for `redis.host`.
pub fn shorthands() -> Vec<(Field, &'static [&'static str])> {
    let field = |name, field: Field| field.nullable().named(name);
    vec![
        (field("redis_host", String::field()), &["redis", "host"]),
        (field("redis_port", i64::field()), &["redis", "port"]),
        (field("redis_password", String::field().len_min(0)), &["redis", "password"]),
        (field("redis_username", String::field()), &["redis", "username"]),
        (field("redis_ssl", bool::field()), &["redis", "ssl"]),
        (field("redis_ssl_verify", bool::field()), &["redis", "ssl_verify"]),
        (field("redis_server_name", String::field()), &["redis", "server_name"]),
        (field("redis_timeout", i64::field()), &["redis", "timeout"]),
        (field("redis_database", i64::field()), &["redis", "database"]),
    ]
}

/// Where a Redis is and how to reach it: a [`RedisConfig`] with nothing left open. Links of equal servers are one connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    pub port: u16,
    /// For connecting, and for commands that are sent together.
    pub timeout: Duration,
    /// User, where there is one, and password.
    pub login: Option<(Option<String>, String)>,
    pub database: i64,
    pub tls: Option<ServerTls>,
}

/// How TLS is spoken with a Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// The name that the server is asked for, and that its certificate is verified for.
    pub name: String,
}

/// What a timeout of 0 means.
const LONG: Duration = Duration::from_secs(60);

impl RedisConfig {
    /// The server that is meant; none without a host.
    pub fn server(&self) -> Option<Server> {
        let host = self.host.as_deref()?.to_owned();
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let name = || self.server_name.as_deref().map_or_else(|| host.clone(), str::to_owned);
        let tls = self.ssl.unwrap_or(false).then(|| ServerTls { verify: self.ssl_verify.unwrap_or(false), name: name() });
        Some(Server {
            port: self.port.unwrap_or(6379),
            timeout: self.timeout.filter(|ms| *ms > 0).map_or(LONG, Duration::from_millis),
            login: given(&self.password).map(|password| (given(&self.username), password)),
            database: self.database.unwrap_or(0),
            tls,
            host,
        })
    }

    /// The link of a plugin that is built with this configuration.
    pub fn link(&self, env: &Env) -> Result<Arc<dyn Link>, Violations> {
        self.reach(env, |redis, server| redis.link(server))
    }

    /// The batches of a plugin that is built with this configuration.
    pub fn batches(&self, env: &Env, period: Duration) -> Result<Arc<Batches>, Violations> {
        self.reach(env, |redis, server| redis.batches(server, period))
    }

    fn reach<T>(&self, env: &Env, get: impl FnOnce(&dyn Redis, &Server) -> T) -> Result<T, Violations> {
        let server = self.server().ok_or_else(|| Violations::field("redis", "no host"))?;
        let redis = env.handles.redis.get().ok_or_else(|| Violations::field("redis", "this node connects to no Redis"))?;
        Ok(get(&**redis, &server))
    }
}

/// Knows all connections of this node.
pub trait Redis: Send + Sync {
    /// The link to a server. Connecting begins at once and goes on until it succeeds.
    fn link(&self, server: &Server) -> Arc<dyn Link>;

    /// Counters that are brought to this server every `period`, shared by all who ask for the same.
    fn batches(&self, server: &Server, period: Duration) -> Arc<Batches>;

    /// How often commands that were sent together failed since the node started.
    fn failures(&self) -> u64;
}

/// The one connection to a server, for all who keep this link. Closed when nobody does.
pub trait Link: Send + Sync {
    /// Sends commands in one go; answers with what the server answered to each, in order, and with an error if one of them
    /// was refused. Takes no longer than the server's timeout, and no time where it is known that there is no connection.
    /// Failures are counted and logged here: who asks decides what they mean.
    fn ask(&self, commands: Pipeline) -> Asked<'_>;

    /// Sends commands soon, and waits for nothing. They are lost, and the loss is counted and logged, when too many wait or
    /// the server is away.
    fn tell(&self, commands: Pipeline);
}

/// What [`Link::ask`] waits for.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, RedisError>> + Send + 'a>>;

impl dyn Link {
    /// The value of a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RedisError> {
        match self.one("GET", (key,)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(value) => Ok(Some(value.into())),
            _ => Err(RedisError::Unexpected),
        }
    }

    /// Sets a key to a value that goes after `ttl`, of which milliseconds count.
    pub async fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), RedisError> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.one("SET", (key, value, "PX", ttl)).await.map(drop)
    }

    /// Deletes keys; how many there were.
    pub async fn delete(&self, keys: &[&[u8]]) -> Result<u64, RedisError> {
        if keys.is_empty() {
            return Ok(0);
        }
        match self.one("DEL", keys).await? {
            Value::Int(deleted) => Ok(deleted.unsigned_abs()),
            _ => Err(RedisError::Unexpected),
        }
    }

    /// Runs a Lua script; the server keeps it compiled.
    pub async fn script(&self, text: &str, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Value, RedisError> {
        self.one("EVAL", (text, keys.len(), keys, arguments)).await
    }

    async fn one(&self, name: &str, arguments: impl ToRedisArgs) -> Result<Value, RedisError> {
        let mut commands = Pipeline::with_capacity(1);
        commands.cmd(name).arg(arguments);
        self.ask(commands).await?.pop().ok_or(RedisError::Unexpected)
    }
}

/// Why a Redis did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// There is no connection. Nothing was sent.
    #[error("not connected: {0}")]
    Away(Arc<str>),
    /// Nothing was sent.
    #[error("too many wait for its answers")]
    Busy,
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("connection lost: {0}")]
    Lost(Arc<str>),
    /// The server's own words.
    #[error("{0}")]
    Refused(Arc<str>),
    #[error("an answer of another kind than expected")]
    Unexpected,
}

impl RedisError {
    /// Whether it is sure that the server has seen nothing of it.
    pub fn unsent(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Busy)
    }
}
