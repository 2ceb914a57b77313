//! Texts with a meaning: each is a type that derefs to `str`, with its rules and Kong's words for a breach.

use serde::Deserialize;
use serde_json::Value;

use crate::field::{Field, Kind};
use crate::host::{HostKind, HostPort};
use crate::types::FieldType;

/// A string with rules of its own.
macro_rules! text {
    ($($(#[doc = $doc:literal])* $name:ident $(. $call:ident ( $($argument:expr),* ))*;)+) => {
        $($(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl FieldType for $name {
            fn field() -> Field {
                Field::new(Kind::String).required().doc(concat!($($doc),*).trim())$(.$call($($argument),*))*
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        })+
    };
}

text! {
    /// A string representing a tag.
    Tag.check("tag", tag);
    /// A string of letters, digits and `.-_~`.
    Name.check("name", name);
    /// A valid UTF-8 string whose ASCII part is letters, digits and `.-_~`.
    UtfName.check("utf8_name", utf8_name);
    /// A string representing a host name, such as example.com.
    Host.check("host", host);
    /// A string representing a host name with an optional port number, such as example.com or example.com:8080.
    HostWithOptionalPort.check("host_with_optional_port", host_with_optional_port);
    /// A string representing a wildcard host name, such as *.example.com.
    WildcardHost.check("wildcard_host", wildcard_host);
    /// A string representing an SNI (server name indication) value for TLS.
    Sni.check("sni", sni);
    /// A string representing a URL path, such as /path/to/resource. Must start with a forward slash (/) and must not contain empty segments (i.e., two consecutive forward slashes).
    Path.starts_with("/").match_none(&[("//", "must not have empty segments")]).check("path", path);
    /// A string representing a URL, such as https://example.com/path/to/resource?q=search.
    Url.check("url", url);
    /// A string representing an HTTP header name.
    HeaderName.check("header_name", header_name);
    /// A string representing an HTTP token defined by RFC 2616.
    CookieName.check("cookie_name", cookie_name);
    /// A string representing an HTTP method, such as GET, POST, PUT, or DELETE. The string must contain only uppercase letters.
    Method.matches("^%u+$");
    /// A string representing an IP address.
    Ip.check("ip", ip);
    /// A string representing an IP address or CIDR block, such as 192.168.1.1 or 192.168.0.0/16.
    IpOrCidr.check("ip_or_cidr", ip_or_cidr);
    /// A string representing an IPv4 range.
    CidrV4.check("cidr_v4", cidr_v4);
}

fn of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn require(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~')
}

fn tag(value: &Value) -> Result<(), String> {
    let tag = of(value);
    let fine = tag.chars().all(|c| !c.is_ascii() || (matches!(c, ' '..='~') && c != ',' && c != '/'));
    require(fine, || format!("invalid tag '{tag}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"))
}

fn name(value: &Value) -> Result<(), String> {
    let name = of(value);
    let text = || format!("invalid value '{name}': it must only contain alphanumeric and '., -, _, ~' characters");
    require(name.chars().all(is_name_char), text)
}

fn utf8_name(value: &Value) -> Result<(), String> {
    let name = of(value);
    let text = || format!("invalid value '{name}': the only accepted ascii characters are alphanumerics or ., -, _, and ~");
    require(name.chars().all(|c| !c.is_ascii() || is_name_char(c)), text)
}

fn host(value: &Value) -> Result<(), String> {
    let host = of(value);
    match HostPort::parse(host) {
        Ok(HostPort { port: None, .. }) => Ok(()),
        Err(text) if text != "invalid port number" => Err(format!("invalid value: {host}")),
        _ => Err("must not have a port".to_owned()),
    }
}

fn host_with_optional_port(value: &Value) -> Result<(), String> {
    HostPort::parse(of(value)).map(drop)
}

fn wildcard_host(value: &Value) -> Result<(), String> {
    let host = of(value);
    if let Some(at) = host.find('*') {
        require(at == 0 || at == host.len() - 1, || "wildcard must be leftmost or rightmost character".to_owned())?;
        require(host.matches('*').count() == 1, || "only one wildcard must be specified".to_owned())?;
    }
    named(&host.replace('*', "wildcard"), host)
}

fn sni(value: &Value) -> Result<(), String> {
    named(of(value), of(value))
}

/// A name without a port that is not an address.
fn named(host: &str, shown: &str) -> Result<(), String> {
    match HostPort::parse(host) {
        Err(text) if text != "invalid port number" => Err(format!("invalid value: {shown}")),
        Ok(HostPort { kind: HostKind::V4 | HostKind::V6, .. }) => Err("must not be an IP".to_owned()),
        Ok(HostPort { port: None, .. }) => Ok(()),
        _ => Err("must not have a port".to_owned()),
    }
}

fn path(value: &Value) -> Result<(), String> {
    let path = of(value);
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-_~/%:@!$&'()*+,;=".contains(c);
    let text = || format!("invalid path: '{path}' (characters outside of the reserved list of RFC 3986 found)");
    require(path.chars().all(fine), text)?;
    percent_encoded(path)
}

/// Every `%` is followed by two hexadecimal digits.
pub fn percent_encoded(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let rest = &text[at..];
        let digits = rest.bytes().skip(1).take(2).filter(u8::is_ascii_hexdigit).count();
        if digits < 2 {
            let shown: String = rest.chars().take(3).collect();
            return Err(format!("invalid url-encoded value: '{shown}'"));
        }
    }
    Ok(())
}

fn url(value: &Value) -> Result<(), String> {
    let url = crate::url::Url::parse(of(value));
    require(url.host.is_some(), || "missing host in url".to_owned())?;
    require(url.scheme.is_some(), || "missing scheme in url".to_owned())
}

fn header_name(value: &Value) -> Result<(), String> {
    let name = of(value);
    require(!name.is_empty(), || "no header name provided".to_owned())?;
    let fine = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    require(fine, || format!("bad header name '{name}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"))
}

fn cookie_name(value: &Value) -> Result<(), String> {
    let name = of(value);
    require(!name.is_empty(), || "no token provided".to_owned())?;
    let fine = name.bytes().all(|c| c.is_ascii_graphic() && !b"()<>@,;:\\\"/?={}[]".contains(&c));
    require(fine, || {
        "contains one or more invalid characters. ASCII control characters (0-31;127), space, tab and the characters \
         ()<>@,;:\\\"/?={}[] are not allowed."
            .to_owned()
    })
}

fn ip(value: &Value) -> Result<(), String> {
    let address = of(value);
    require(address.parse::<std::net::IpAddr>().is_ok(), || format!("not an ip address: {address}"))
}

fn ip_or_cidr(value: &Value) -> Result<(), String> {
    let range = of(value);
    let fine = range.parse::<std::net::IpAddr>().is_ok() || range.parse::<ipnet::IpNet>().is_ok();
    require(fine, || format!("invalid ip or cidr range: '{range}'"))
}

fn cidr_v4(value: &Value) -> Result<(), String> {
    let range = of(value);
    let fine = range.parse::<std::net::Ipv4Addr>().is_ok() || range.parse::<ipnet::Ipv4Net>().is_ok();
    require(fine, || format!("invalid ipv4 cidr range: '{range}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(check: fn(&Value) -> Result<(), String>, text: &str) -> String {
        check(&Value::from(text)).expect_err("refused")
    }

    #[test]
    fn names() {
        assert!(utf8_name(&"sérvice-1.v2~x_y".into()).is_ok());
        assert!(refused(utf8_name, "a b").starts_with("invalid value 'a b': the only accepted ascii"));
        assert!(tag(&"team platform é".into()).is_ok());
        assert!(refused(tag, "a/b").starts_with("invalid tag 'a/b'"));
    }

    #[test]
    fn hosts() {
        assert_eq!(refused(host, "h:80"), "must not have a port");
        assert_eq!(refused(host, "h:99999"), "must not have a port");
        assert_eq!(refused(host, "inv@lid"), "invalid value: inv@lid");
        assert!(host(&"::1".into()).is_ok());
        assert!(wildcard_host(&"*.a.test".into()).is_ok());
        assert_eq!(refused(wildcard_host, "a.*.test"), "wildcard must be leftmost or rightmost character");
        assert_eq!(refused(wildcard_host, "*.a.*"), "only one wildcard must be specified");
        assert_eq!(refused(wildcard_host, "1.1.1.1"), "must not be an IP");
        assert_eq!(refused(sni, "a.test:443"), "must not have a port");
    }

    #[test]
    fn paths_and_urls() {
        assert_eq!(refused(path, "/a%zz"), "invalid url-encoded value: '%zz'");
        assert_eq!(refused(path, "/a%é"), "invalid path: '/a%é' (characters outside of the reserved list of RFC 3986 found)");
        assert_eq!(refused(url, "foo"), "missing host in url");
        assert_eq!(refused(url, "//a/"), "missing scheme in url");
        assert!(url(&"http://a/".into()).is_ok());
    }

    #[test]
    fn addresses() {
        assert_eq!(refused(ip_or_cidr, "1.2.3"), "invalid ip or cidr range: '1.2.3'");
        assert!(ip_or_cidr(&"10.0.0.0/8".into()).is_ok());
        assert!(ip_or_cidr(&"fe80::/10".into()).is_ok());
        assert!(refused(cidr_v4, "::1").starts_with("invalid ipv4"));
    }
}
