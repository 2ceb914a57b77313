//! `Cache-Control` (RFC 9111, section 5.2), as far as the cache obeys it.

use std::time::SystemTime;

use crate::http::Headers;

/// Directives of a request or of an answer. Of a directive that stands twice the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub only_if_cached: bool,
    /// Seconds; what is no number is 0, as RFC 9111 has it: stale at once.
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    /// Seconds past its time; without a value the client takes any answer, which is the same as not asking.
    pub max_stale: Option<u64>,
    pub min_fresh: Option<u64>,
}

impl Directives {
    pub fn of(headers: &Headers) -> Self {
        let mut all = Self::default();
        for value in headers.get_all("cache-control") {
            for directive in Split(value) {
                let equals = directive.iter().position(|b| *b == b'=').unwrap_or(directive.len());
                let (name, value) = directive.split_at(equals);
                all.add(name.trim_ascii(), value.get(1..));
            }
        }
        all
    }

    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is = |directive: &str| name.eq_ignore_ascii_case(directive.as_bytes());
        let seconds = || value.map_or(0, seconds);
        match name.len() {
            7 if is("private") => self.private = true,
            7 if is("max-age") => self.max_age = Some(seconds()),
            8 if is("no-store") => self.no_store = true,
            8 if is("no-cache") => self.no_cache = true,
            8 if is("s-maxage") => self.s_maxage = Some(seconds()),
            9 if is("max-stale") => self.max_stale = value.map(self::seconds),
            9 if is("min-fresh") => self.min_fresh = Some(seconds()),
            14 if is("only-if-cached") => self.only_if_cached = true,
            _ => {}
        }
    }

    /// Seconds for which an answer with these directives is fresh, by `s-maxage`, else `max-age`, else `Expires`; 0 when none
    /// says anything.
    pub fn lifetime(&self, headers: &Headers, now: SystemTime) -> u64 {
        let by_date = || {
            let expires = headers.get_all("expires").last()?;
            let expires = httpdate::parse_http_date(std::str::from_utf8(expires).ok()?.trim()).ok()?;
            Some(expires.duration_since(now).unwrap_or_default().as_secs())
        };
        self.s_maxage.or(self.max_age).or_else(by_date).unwrap_or(0)
    }
}

/// A number of seconds, quoted or not; 0 when it is none. RFC 9111, section 1.2.2, lets large ones be cut.
fn seconds(value: &[u8]) -> u64 {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = || value.iter().fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    if is_number { number().min(1 << 31) } else { 0 }
}

/// The members of a list; commas in quotes do not part them.
struct Split<'a>(&'a [u8]);

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = self.0.iter().position(|b| {
            quoted ^= *b == b'"';
            *b == b',' && !quoted
        });
        let (member, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &self.0[self.0.len()..]),
        };
        self.0 = rest;
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    fn directives(values: &[&str]) -> Directives {
        Directives::of(&headers(&values.iter().map(|v| ("Cache-Control", *v)).collect::<Vec<_>>()))
    }

    #[test]
    fn directives_are_read() {
        let none = Directives::default();
        assert_eq!(directives(&[]), none);
        assert_eq!(directives(&["public, must-revalidate,,", ""]), none);
        assert_eq!(
            directives(&["No-Store , no-cache=\"set-cookie\"", "private=\"a, max-age=1\",only-if-cached"]),
            Directives { no_store: true, no_cache: true, private: true, only_if_cached: true, ..none }
        );
        assert_eq!(
            directives(&["max-age=5, s-maxage=\"7\", min-fresh= 3 ,max-stale=2"]),
            Directives { max_age: Some(5), s_maxage: Some(7), min_fresh: Some(3), max_stale: Some(2), ..none }
        );
        assert_eq!(directives(&["max-age=5", "max-age=6"]).max_age, Some(6));
        assert_eq!(directives(&["max-stale"]).max_stale, None);
    }

    #[test]
    fn numbers_that_are_none_are_stale() {
        for (value, seconds) in [("x", 0), ("", 0), ("-1", 0), ("1.5", 0), ("99999999999999999999", 1 << 31), ("\"9", 0)] {
            assert_eq!(directives(&[&format!("max-age={value}")]).max_age, Some(seconds), "{value}");
        }
        assert_eq!(directives(&["max-age"]).max_age, Some(0));
    }

    #[test]
    fn how_long_an_answer_is_fresh() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let lifetime = |fields: &[(&str, &str)]| {
            let headers = headers(fields);
            Directives::of(&headers).lifetime(&headers, now)
        };
        let late = ("Expires", "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(lifetime(&[]), 0);
        assert_eq!(lifetime(&[("Cache-Control", "public, max-age=4"), late]), 4);
        assert_eq!(lifetime(&[("Cache-Control", "max-age=4, s-maxage=9")]), 9);
        assert_eq!(lifetime(&[late]), 30);
        assert_eq!(lifetime(&[late, ("Expires", "Sun, 06 Nov 1994 08:49:38 GMT")]), 1);
        for past in ["Sun, 06 Nov 1994 08:49:36 GMT", "0", "-1", ""] {
            assert_eq!(lifetime(&[("Expires", past)]), 0, "{past}");
        }
    }
}
