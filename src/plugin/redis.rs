//! How a plugin's configuration names a Redis.

use schema::types::{Host, Sni};
use schema::{Field, FieldType, Record};
use serde::Deserialize;

/// Where the Redis is and how to log in.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: Option<Host>,
    #[field(default = 6379, between(0, 65535))]
    pub port: Option<u16>,
    /// Milliseconds to connect, to send and to receive.
    #[field(default = 2000, between(0, 2147483646))]
    pub timeout: Option<u64>,
    /// User of Redis 6 ACLs; without one only the password is sent.
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
    /// Whether the server's certificate is verified.
    #[field(default = false)]
    pub ssl_verify: Option<bool>,
    /// Server name in TLS.
    pub server_name: Option<Sni>,
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
