//! Who the client is behind trusted peers (`trusted_ips`, `real_ip_header`, `real_ip_recursive`).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::http::Headers;
use crate::plugin::exchange::Client;

/// Whose word on the client's address is taken, and where it stands.
#[derive(Clone, Debug, Default)]
pub struct RealIp {
    pub trusted: Vec<IpNet>,
    /// Name of the header field; `None` leaves the peer's address.
    pub header: Option<String>,
    pub recursive: bool,
}

impl RealIp {
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// Sets `trusted` and, where the peer is, `ip`.
    pub fn apply(&self, client: &mut Client, headers: &Headers) {
        client.trusted = !self.trusted.is_empty() && self.trusts(client.peer.ip());
        let Some(name) = self.header.as_deref().filter(|_| client.trusted) else { return };
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
    use super::RealIp;
    use crate::http::Headers;
    use crate::plugin::exchange::Client;

    fn client_ip(recursive: bool, forwarded: &str) -> String {
        let real_ip = RealIp {
            trusted: vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            header: Some("X-Forwarded-For".into()),
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
        real_ip.apply(&mut client, &headers);
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
