//! Calls of an Admin API, over one connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::load::http1::{Connection, connect};

pub struct Admin {
    address: SocketAddr,
    connection: Option<Connection<TcpStream>>,
}

/// An answer of the Admin API.
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Admin {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request, on the connection of the one before where that is still open.
    pub async fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Reply> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            self.address,
            text.len()
        );
        let mut bytes = Vec::new();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(connect(self.address).await?),
        };
        let answer = connection.exchange(request.as_bytes(), |piece| bytes.extend_from_slice(piece)).await;
        let answer = answer.with_context(|| format!("{method} {path}"))?;
        if !answer.close {
            self.connection = Some(connection);
        }
        Ok(Reply { status: answer.status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// A call that must succeed.
    pub async fn must(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let reply = self.call(method, path, body).await?;
        if reply.status >= 300 {
            bail!("{method} {path}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// Names of the plugins that the gateway has.
    pub async fn plugins(&mut self) -> Result<Vec<String>> {
        let root = self.must("GET", "/", &Value::Null).await?;
        let available = root["plugins"]["available_on_server"].as_object().context("GET / names no plugins")?;
        Ok(available.keys().cloned().collect())
    }
}
