//! Addresses of listeners and their flags.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use serde_json::{Value as Json, json};

use crate::settings::value::{Kind, Value, list};

/// One address of a listener and its flags: `0.0.0.0:8443 http2 ssl reuseport backlog=16384`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub ssl: bool,
    pub http2: bool,
    pub proxy_protocol: bool,
    pub reuseport: bool,
    pub backlog: u32,
    /// A listener on an IPv6 address takes no IPv4 connections.
    pub ipv6only: bool,
    /// Keep-alive probes of TCP.
    pub so_keepalive: bool,
    /// As it was written.
    pub text: String,
}

/// Addresses of one listener; none when it is `off`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners(pub Vec<Listen>);

impl Deref for Listeners {
    type Target = Vec<Listen>;

    fn deref(&self) -> &Vec<Listen> {
        &self.0
    }
}

impl Value for Listeners {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        if matches!(text, "off" | "") {
            return Ok(Self::default());
        }
        list(text).map(|entry| Listen::parse(entry).ok_or_else(|| form(name))).collect::<Result<_, _>>().map(Self)
    }
}

fn form(name: &str) -> String {
    format!(
        "{name} must be of form: [off] | <ip>:<port> [ssl] [http2] [proxy_protocol] [deferred] [bind] [reuseport] [backlog=%d+] \
         [ipv6only=on] [ipv6only=off] [so_keepalive=on] [so_keepalive=off] [so_keepalive=%w*:%w*:%d*], [... next entry ...]"
    )
}

impl Listen {
    /// Reads one entry.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut listen = Self {
            address: address(words.next()?)?,
            ssl: false,
            http2: false,
            proxy_protocol: false,
            reuseport: false,
            backlog: 511,
            ipv6only: true,
            so_keepalive: false,
            text: text.to_owned(),
        };
        for word in words {
            match word {
                "ssl" => listen.ssl = true,
                "http2" => listen.http2 = true,
                "proxy_protocol" => listen.proxy_protocol = true,
                "reuseport" => listen.reuseport = true,
                // Neither has a meaning where each address has a socket of its own.
                "deferred" | "bind" => {}
                "ipv6only=on" => listen.ipv6only = true,
                "ipv6only=off" => listen.ipv6only = false,
                "so_keepalive=on" => listen.so_keepalive = true,
                "so_keepalive=off" => listen.so_keepalive = false,
                word if word.starts_with("so_keepalive=") && word.matches(':').count() == 2 => listen.so_keepalive = true,
                word => listen.backlog = word.strip_prefix("backlog=")?.parse().ok()?,
            }
        }
        Some(listen)
    }

    /// As the Admin API shows it.
    pub fn as_json(&self) -> Json {
        json!({
            "listener": self.text,
            "ip": self.address.ip().to_string(),
            "port": self.address.port(),
            "ssl": self.ssl,
            "http2": self.http2,
            "proxy_protocol": self.proxy_protocol,
            "reuseport": self.reuseport,
            "deferred": self.text.contains(" deferred"),
            "bind": self.text.contains(" bind"),
            format!("backlog={}", self.backlog): self.text.contains("backlog="),
            "ipv6only=on": self.text.contains("ipv6only=on"),
            "ipv6only=off": self.text.contains("ipv6only=off"),
            "so_keepalive=on": self.text.contains("so_keepalive=on"),
            "so_keepalive=off": self.text.contains("so_keepalive=off"),
        })
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        let ip = match host {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port.parse().ok()?))
    })
}
