//! Arguments of a query string or of an url-encoded form, as plugins read and change them.
//!
//! Text that nobody asks to change goes upstream byte for byte as it came.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::plugin::Exchange;

/// What a look-up by name has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(Cow<'a, str>),
    /// Something without a text: a name without `=`, a number in JSON.
    NoText,
    /// Several values, or a list.
    Many,
}

/// One `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// As it stands in the text.
    pub raw: &'a str,
    pub name: Cow<'a, str>,
    /// `None` without `=`.
    pub value: Option<Cow<'a, str>>,
}

/// The arguments of a text in order, decoded.
pub fn arguments(text: &str) -> impl Iterator<Item = Argument<'_>> {
    text.split('&').filter(|raw| !raw.is_empty()).map(|raw| match raw.split_once('=') {
        Some((name, value)) => Argument { raw, name: decode(name), value: Some(decode(value)) },
        None => Argument { raw, name: decode(raw), value: None },
    })
}

/// The value of the argument of this name.
pub fn find<'a>(text: &'a str, name: &str) -> Found<'a> {
    let mut named = arguments(text).filter(|argument| argument.name == name);
    match (named.next(), named.next()) {
        (None, _) => Found::Nothing,
        (Some(Argument { value: Some(value), .. }), None) => Found::One(value),
        (Some(_), None) => Found::NoText,
        (Some(_), Some(_)) => Found::Many,
    }
}

/// The text without arguments of this name.
pub fn without(text: &str, name: &str) -> String {
    let kept: Vec<_> = arguments(text).filter(|argument| argument.name != name).map(|argument| argument.raw).collect();
    kept.join("&")
}

/// Decodes `%XX` and `+`; what is not UTF-8 then gets replacement characters.
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Everything but letters, digits and `-._~!'()*`, which is what Kong leaves as it is.
const ARGUMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Encodes a name or a value.
pub fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ARGUMENT).into()
}

impl Exchange {
    /// The query as it is to go upstream: the client's, with what plugins changed. Empty when there is none.
    pub fn query(&self) -> &str {
        let target = if self.upstream.target.is_empty() { &self.request.target } else { &self.upstream.target };
        target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Changes the query that goes upstream; an empty one takes the `?` away too.
    pub fn set_query(&mut self, query: &str) {
        let target = &mut self.upstream.target;
        target.truncate(target.find('?').unwrap_or(target.len()));
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::exchange;

    #[test]
    fn arguments_are_found_by_their_decoded_name() {
        let text = "a=1&b+c=x%20y&&d&e=&f=1&f=2&%67=+";
        assert_eq!(find(text, "a"), Found::One("1".into()));
        assert_eq!(find(text, "b c"), Found::One("x y".into()));
        assert_eq!(find(text, "d"), Found::NoText);
        assert_eq!(find(text, "e"), Found::One("".into()));
        assert_eq!(find(text, "f"), Found::Many);
        assert_eq!(find(text, "g"), Found::One(" ".into()));
        assert_eq!(find(text, "A"), Found::Nothing);
        assert_eq!(find("", ""), Found::Nothing);
    }

    #[test]
    fn removal_keeps_the_rest_as_it_was() {
        assert_eq!(without("a=%7e&k=1&b=+&%6B=2", "k"), "a=%7e&b=+");
        assert_eq!(without("k=1", "k"), "");
    }

    #[test]
    fn the_query_of_an_exchange() {
        let mut x = exchange("GET", "/p?a=1?b", &[]);
        assert_eq!(x.query(), "a=1?b");
        x.set_query("c=2");
        assert_eq!((x.upstream.target.as_str(), x.request.target.as_str()), ("/p?c=2", "/p?a=1?b"));
        x.set_query("");
        assert_eq!((x.upstream.target.as_str(), x.query()), ("/p", ""));
    }

    #[test]
    fn encoding_round_trips() {
        for text in ["a b", "x=1&y", "é%", "-._~!'()*"] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(encode("a b&é"), "a%20b%26%C3%A9");
    }
}
