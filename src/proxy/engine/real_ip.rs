//! Who the client is behind trusted peers (`trusted_ips`, `real_ip_header`, `real_ip_recursive`).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::http::Headers;
use crate::plugin::exchange::Client;

/// Whose word on the client's address is taken, and where it stands.
#[derive(Clone, Debug, Default)]
pub struct RealIp {
    pub trusted: Vec<IpNet>,
    pub source: Source,
    pub recursive: bool,
}

/// Where a trusted peer says the client's address.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// In the PROXY header before the connection's first byte.
    #[default]
    ProxyProtocol,
    /// In the field of this name.
    Header(String),
}

impl RealIp {
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// Sets `trusted` and, where the peer is, `ip`.
    /// `proxied` is the client that the PROXY header named.
    pub fn apply(&self, client: &mut Client, proxied: Option<SocketAddr>, headers: &Headers) {
        client.trusted = !self.trusted.is_empty() && self.trusts(client.peer.ip());
        if !client.trusted {
            return;
        }
        let name = match &self.source {
            Source::Header(name) => name,
            Source::ProxyProtocol => {
                client.ip = proxied.map_or(client.ip, |address| address.ip());
                return;
            }
        };
        let values: Vec<&str> = headers.get_all(name).filter_map(|v| std::str::from_utf8(v).ok()).flat_map(|v| v.split(',')).collect();
        for value in values.iter().rev() {
            let Some(ip) = address(value.trim()) else { return };
            client.ip = ip;
            if !self.recursive || !self.trusts(ip) {
                return;
            }
        }
    }
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
mod tests {
    use super::{RealIp, Source};
    use crate::http::Headers;
    use crate::plugin::exchange::Client;

    fn client_ip(recursive: bool, forwarded: &str) -> String {
        let real_ip = RealIp {
            trusted: vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            source: Source::Header("X-Forwarded-For".into()),
            recursive,
        };
        let peer = "127.0.0.1:9".parse().unwrap();
        let mut client = Client {
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            local: std::net::Ipv4Addr::LOCALHOST.into(),
            peer,
            trusted: false,
            scheme: "http",
            port: 80,
            tls: None,
        };
        let mut headers = Headers::new();
        headers.append("X-Forwarded-For", forwarded);
        real_ip.apply(&mut client, None, &headers);
        client.ip.to_string()
    }

    #[test]
    fn the_last_address_or_the_last_untrusted_one() {
        assert_eq!(client_ip(false, "1.2.3.4, 10.0.0.1"), "10.0.0.1");
        assert_eq!(client_ip(true, "5.6.7.8, 1.2.3.4, 10.0.0.1"), "1.2.3.4");
        assert_eq!(client_ip(true, "10.0.0.2, 10.0.0.1"), "10.0.0.2");
        assert_eq!(client_ip(true, "1.2.3.4, nonsense"), "127.0.0.1");
        assert_eq!(client_ip(true, "[2001:db8::1]:80"), "2001:db8::1");
    }
}
