//! `Content-Type`, compared with the configuration.

use std::borrow::Cow;

/// A media type of the configuration; `*` stands for any type and any subtype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    essence: String,
    subtype: String,
    /// Sorted by name.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Type, subtype and the names of parameters in small letters; `None` when it is no media type.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (essence, subtype) = parts.next()?.split_once('/')?;
        if essence.is_empty() || subtype.is_empty() || essence.contains(' ') || subtype.contains([' ', '/']) {
            return None;
        }
        let mut parameters = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            // of the common parameters this one has values that are compared without regard to case
            let value = if name == "charset" { Cow::Owned(value.to_ascii_lowercase()) } else { Cow::Borrowed(value) };
            parameters.push((name, value.into_owned()));
        }
        parameters.sort_unstable();
        Some(Self { essence: essence.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), parameters })
    }

    /// Whether this is the other type, or stands for it; the parameters must be the same.
    pub fn matches(&self, other: &Self) -> bool {
        let fits = |ours: &str, other: &str| ours == "*" || ours == other;
        fits(&self.essence, &other.essence) && fits(&self.subtype, &other.subtype) && self.parameters == other.parameters
    }

    /// Whether it is of gRPC, whose answers end in trailers.
    pub fn is_grpc(&self) -> bool {
        self.essence == "application" && self.subtype.starts_with("grpc")
    }
}

#[cfg(test)]
mod tests {
    use super::MediaType;

    #[test]
    fn types_match() {
        for (configured, answer, matches) in [
            ("text/plain", "text/plain", true),
            ("text/plain", "Text/PLAIN", true),
            ("text/plain", "text/plain; charset=utf-8", false),
            ("text/plain;charset=UTF-8", "text/plain; Charset=utf-8", true),
            ("text/plain; charset=\"utf-8\"", "text/plain; charset=utf-8", true),
            ("a/b; x=1; y=2", "a/b; y=2; x=1", true),
            ("a/b; x=A", "a/b; x=a", false),
            ("text/*", "text/html", true),
            ("text/*", "text/html; charset=utf-8", false),
            ("text/*; charset=utf-8", "text/html; charset=utf-8", true),
            ("*/*", "image/png", true),
            ("*/*", "image/png; q=1", false),
            ("text/html", "application/html", false),
        ] {
            let [configured, answer] = [configured, answer].map(|text| MediaType::parse(text).unwrap());
            assert_eq!(configured.matches(&answer), matches, "{configured:?} {answer:?}");
        }
        for text in ["", "text", "/", "text/", "application/xml;", "a/b/c", "a b/c", "text/plain; charset"] {
            assert_eq!(MediaType::parse(text), None, "{text}");
        }
        assert!(MediaType::parse("application/grpc+proto").unwrap().is_grpc());
    }
}
