//! Host names and addresses with an optional port, read the way Kong reads them.

use std::net::Ipv6Addr;

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name as written, an IPv4 address without leading zeros, or an IPv6 address in full, without brackets.
    pub host: String,
    pub kind: HostKind,
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    Name,
    V4,
    V6,
}

impl HostPort {
    /// Reads `example.test`, `example.test:80`, `127.0.0.1:80`, `::1` or `[::1]:80`; says what is wrong otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bracketed = text.starts_with('[');
        let before_port = text.split_once(':').map_or(text, |(host, _)| host);
        if bracketed || text.matches(':').count() > 1 {
            v6(text)
        } else if !before_port.is_empty() && before_port.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
            v4(text)
        } else {
            name(text)
        }
    }

    /// `host:port`, brackets around an IPv6 address.
    pub fn with_port(&self, default: u16) -> String {
        let port = self.port.unwrap_or(default);
        match self.kind {
            HostKind::V6 => format!("[{}]:{port}", self.host),
            _ => format!("{}:{port}", self.host),
        }
    }
}

fn port(text: &str, invalid: impl Fn() -> String) -> Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(invalid());
    }
    text.parse().map_err(|_| "invalid port number".to_owned())
}

fn v4(text: &str) -> Result<HostPort, String> {
    let invalid = || format!("invalid ipv4 address: {text}");
    let (address, rest) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    let mut bytes = Vec::with_capacity(4);
    for part in address.split('.') {
        if part.is_empty() || part.len() > 3 {
            return Err(invalid());
        }
        bytes.push(part.parse::<u8>().map_err(|_| invalid())?);
    }
    let [a, b, c, d] = bytes[..] else {
        return Err(invalid());
    };
    let port = rest.map(|rest| port(rest, invalid)).transpose()?;
    Ok(HostPort { host: format!("{a}.{b}.{c}.{d}"), kind: HostKind::V4, port })
}

fn v6(text: &str) -> Result<HostPort, String> {
    let invalid = || format!("invalid ipv6 address: {text}");
    let (address, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']').ok_or_else(invalid)?;
            let rest = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(invalid)?) };
            (address, rest)
        }
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
    let host = address.segments().map(|s| format!("{s:04x}")).join(":");
    let port = rest.map(|rest| port(rest, invalid)).transpose()?;
    Ok(HostPort { host, kind: HostKind::V6, port })
}

fn name(text: &str) -> Result<HostPort, String> {
    let invalid = || format!("invalid hostname: {text}");
    let (host, rest) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if host.is_empty() || !host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
        return Err(invalid());
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    if labels.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
        return Err(invalid());
    }
    let port = rest.map(|rest| port(rest, invalid)).transpose()?;
    Ok(HostPort { host: host.to_owned(), kind: HostKind::Name, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let shown = |text: &str| HostPort::parse(text).map(|h| h.with_port(8000));
        assert_eq!(shown("example.test").as_deref(), Ok("example.test:8000"));
        assert_eq!(shown("example.test:80").as_deref(), Ok("example.test:80"));
        assert_eq!(shown("127.000.0.1").as_deref(), Ok("127.0.0.1:8000"));
        assert_eq!(shown("[::1]:80").as_deref(), Ok("[0000:0000:0000:0000:0000:0000:0000:0001]:80"));
        assert_eq!(shown("::1").as_deref(), Ok("[0000:0000:0000:0000:0000:0000:0000:0001]:8000"));
        assert_eq!(shown("a.test:99999"), Err("invalid port number".to_owned()));
        for wrong in ["", "a b", "inv@lid", "-a.test", "a-.test", "a..test", "a.test:", "a.test:x", "1.2.3", "256.1.1.1", "[::1", "1:2:3"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
