//! URLs, taken apart the way LuaSocket does: whatever is there, nothing refused.

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: Option<&'a str>,
    /// `user:password` before the host.
    pub userinfo: Option<&'a str>,
    /// Without brackets around an IPv6 address.
    pub host: Option<&'a str>,
    pub port: Option<&'a str>,
    /// With its leading slash.
    pub path: Option<&'a str>,
    pub query: Option<&'a str>,
    pub fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut url = Self::default();
        let mut rest = text;
        if let Some((before, fragment)) = rest.split_once('#') {
            (rest, url.fragment) = (before, Some(fragment));
        }
        if let Some((scheme, after)) = rest.split_once(':')
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'.' | b'-'))
        {
            (url.scheme, rest) = (Some(scheme), after);
        }
        let mut authority = None;
        if let Some(after) = rest.strip_prefix("//") {
            let end = after.find(['/', '?']).unwrap_or(after.len());
            (authority, rest) = (Some(&after[..end]), &after[end..]);
        }
        if let Some((before, query)) = rest.split_once('?') {
            (rest, url.query) = (before, Some(query));
        }
        url.path = Some(rest).filter(|path| !path.is_empty());
        if let Some(authority) = authority {
            url.authority(authority);
        }
        url
    }

    fn authority(&mut self, authority: &'a str) {
        let mut host = authority;
        if let Some((userinfo, after)) = host.rsplit_once('@') {
            (self.userinfo, host) = (Some(userinfo), after);
        }
        if let Some((before, port)) = host.rsplit_once(':')
            && !port.contains(']')
        {
            host = before;
            self.port = Some(port).filter(|port| !port.is_empty());
        }
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        self.host = Some(host).filter(|host| !host.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = Url::parse("https://u:p@example.test:8443/base?q=1#f");
        assert_eq!((url.scheme, url.userinfo, url.host), (Some("https"), Some("u:p"), Some("example.test")));
        assert_eq!((url.port, url.path, url.query, url.fragment), (Some("8443"), Some("/base"), Some("q=1"), Some("f")));
        assert_eq!(Url::parse("http://[::1]:80/").host, Some("::1"));
        assert_eq!(Url::parse("http://example.test").path, None);
        let bare = Url::parse("notaurl");
        assert_eq!((bare.host, bare.path), (None, Some("notaurl")));
    }
}
