//! Hosts, server names and header values that routes name.

use regex::Regex;

/// A name with at most one star at one of its ends: a host without its port, or a server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Exact(String),
    /// `*.a.com`: whatever ends with `.a.com`.
    Suffix(String),
    /// `a.*`: whatever starts with `a.`.
    Prefix(String),
}

impl Name {
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text)
        }
    }

    /// Whether a name in lower case is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

/// A host of a route: a name, and a port when one is given.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: Name,
    pub port: Option<u16>,
}

impl Host {
    pub fn parse(text: &str) -> Self {
        let (name, port) = split_port(text);
        Self { name: Name::parse(name), port }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.name, Name::Exact(_))
    }
}

/// A host without its port, and the port.
pub fn split_port(host: &str) -> (&str, Option<u16>) {
    let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (name, port) = host.split_at(host.len() - digits);
    match name.strip_suffix(':') {
        Some(bare) if !bare.is_empty() && !port.is_empty() => (bare, port.parse().ok()),
        _ => (host, None),
    }
}

/// A value that a route wants of a header field.
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// Compared without case.
    Exact(String),
    /// `~*...`: found anywhere, without case.
    Pattern(Regex),
}

impl HeaderValue {
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("~*") {
            Some(pattern) => Regex::new(&format!("(?i){pattern}")).ok().map(Self::Pattern),
            None => Some(Self::Exact(text.to_owned())),
        }
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Pattern(pattern) => std::str::from_utf8(value).is_ok_and(|v| pattern.is_match(v)),
        }
    }
}

/// The text with which everything that a regular expression matches begins, as far as that is easy to see.
pub fn literal_prefix(pattern: &str) -> &str {
    if pattern.contains('|') || pattern.contains("(?") && !pattern.contains("(?<") {
        return "";
    }
    let end = pattern.find(|c: char| "\\^$.[]()*+?{}".contains(c)).unwrap_or(pattern.len());
    let literal = &pattern[..end];
    // the character before a quantifier may be absent
    match pattern[end..].chars().next() {
        Some('*' | '+' | '?' | '{') => literal.char_indices().next_back().map_or("", |(at, _)| &literal[..at]),
        _ => literal,
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, literal_prefix, split_port};

    #[test]
    fn names() {
        assert!(Name::parse("*.A.com").matches("x.a.com"));
        assert!(!Name::parse("*.a.com").matches("a.com"));
        assert!(Name::parse("a.*").matches("a.example"));
        assert!(Name::parse("A.test").matches("a.test"));
    }

    #[test]
    fn ports() {
        assert_eq!(split_port("a.test:80"), ("a.test", Some(80)));
        assert_eq!(split_port("[::1]:80"), ("[::1]", Some(80)));
        assert_eq!(split_port("[::1]"), ("[::1]", None));
        assert_eq!(split_port("a.test"), ("a.test", None));
    }

    #[test]
    fn prefixes_of_patterns() {
        for (pattern, prefix) in [
            ("/a/\\d+", "/a/"),
            ("/ab*", "/a"),
            ("/a|/b", ""),
            ("/u/(?<user>\\w+)", "/u/"),
            ("/(?i)a", ""),
            ("/plain", "/plain"),
            ("/é?", "/"),
        ] {
            assert_eq!(literal_prefix(pattern), prefix, "{pattern}");
        }
    }
}
