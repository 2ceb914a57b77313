//! Templates in configuration values: text with `$(expression)` in it.
//!
//! An expression is one of Lua: literals, `headers.x`, `query_params.x`, `uri_captures.x`, `shared.x`, the operators, `or`
//! for a default, and the functions of [`functions`]. Statements and functions of one's own are not understood. An expression
//! that is nil or false gives nothing; one that fails (an index into nil, a call of nil) fails the request.
//!
//! | module | what it holds |
//! |---|---|
//! | [`expression`] | source -> tree |
//! | [`value`] | tree and request -> value |
//! | [`functions`] | `string.upper`, `math.floor`, ... |
//! | [`pattern`] | Lua's patterns |
//! | [`pdk`] | `kong.request.get_header`, `ngx.var.request_id`, ... |
//! | [`script`] | `return expression`: configuration values that are a piece of Lua as a whole |

mod expression;
mod functions;
mod pattern;
mod pdk;
mod script;
mod value;

use crate::http::Headers;
use crate::plugin::Exchange;
use crate::plugin::exchange::Captures;
use expression::Expression;
pub use script::Script;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Expression(Expression),
    /// Something in `$( )` that is no expression: rendering it fails.
    Broken(ParseError),
}

/// What expressions see of a request.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub headers: &'a Headers,
    /// The query without `?`.
    pub query: &'a str,
    pub captures: &'a Captures,
    /// The request, where expressions may ask for all of it (`kong`, `ngx`).
    pub exchange: Option<&'a Exchange>,
}

/// Why a source is no expression.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(String);

impl RenderError {
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Template {
    /// Takes any text; what cannot be understood fails when it is rendered. [`Template::check`] tells beforehand.
    pub fn new(source: &str) -> Self {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find("$(") {
            text.push_str(&rest[..at]);
            let opened = &rest[at + 1..];
            let Some(length) = balanced(opened) else {
                text.push_str("$(");
                rest = &opened[1..];
                continue;
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(match Expression::parse(&opened[1..length - 1]) {
                Ok(expression) => Piece::Expression(expression),
                Err(error) => Piece::Broken(error),
            });
            rest = &opened[length..];
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Self { pieces }
    }

    /// Whether every expression in it is understood.
    pub fn check(source: &str) -> Result<(), ParseError> {
        let broken = Self::new(source).pieces.into_iter().find_map(|piece| match piece {
            Piece::Broken(error) => Some(error),
            Piece::Text(_) | Piece::Expression(_) => None,
        });
        broken.map_or(Ok(()), Err)
    }

    pub fn render(&self, view: &View) -> Result<String, RenderError> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Expression(expression) => value::evaluate(expression, view)?.write(&mut out)?,
                Piece::Broken(error) => return Err(RenderError(error.0.clone())),
            }
        }
        Ok(String::from_utf8(out).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned()))
    }
}

/// Length of the parenthesised text that this begins with; `None` when it is not closed.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.bytes().enumerate() {
        match c {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let mut headers = Headers::new();
        headers.append("X-In", "in");
        headers.append("X-Two", "1");
        headers.append("X-Two", "2");
        let captures = Captures {
            whole: Some("/t/one/".to_owned()),
            numbered: vec![Some("one".to_owned()), Some(String::new())],
            named: vec![("a".to_owned(), "one".to_owned()), ("b".to_owned(), String::new())],
        };
        let view = View { headers: &headers, query: "q=7&flag&a=1&a=2&sp=a+b%21", captures: &captures, exchange: None };
        Template::new(source).render(&view).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn renders(source: &str, expected: &str) {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }

    #[test]
    fn text_without_expressions_stays_as_it_is() {
        renders("a:b $5 and $x $", "a:b $5 and $x $");
        renders("/x/$(nope", "/x/$(nope");
        renders("$(($(query_params.q)", "$((7");
    }

    #[test]
    fn looks_into_the_request() {
        renders("<$(headers.x_in)|$(headers['X-IN'])|$(headers.none)>", "<in|in|>");
        renders("$(headers['x-two'])", "1, 2");
        renders("$(headers['x-two'][2])$(#headers['x-two'])", "22");
        renders("$(query_params.q)$(query_params.flag)$(query_params.none)$(query_params.sp)$(query_params.a[1])", "7truea b!1");
        renders("$(uri_captures[0])|$(uri_captures.a)-$(uri_captures[\"b\"])|$(uri_captures[1])|$(uri_captures[3])", "/t/one/|one-|one|");
        renders("$(shared.x)", "");
    }

    #[test]
    fn calculates_as_lua_does() {
        for (source, expected) in [
            ("$(1 + 2)", "3"),
            ("$(2 ^ 3 ^ 2)", "512"),
            ("$(-2 ^ 2)", "-4"),
            ("$(7 / 2)", "3.5"),
            ("$(-7 % 3)", "2"),
            ("$(1e15)", "1e+15"),
            ("$(0.1 + 0.2)", "0.3"),
            ("$('a' .. 1 .. 'b')", "a1b"),
            ("$('10' + 5)", "15"),
            ("$(#'abc')", "3"),
            ("$(query_params.none or 'default')", "default"),
            ("$(query_params.q and 'yes' or 'no')", "yes"),
            ("$(not query_params.q)", ""),
            ("$(1 < 2 and 'a' < 'b' and 1 ~= '1')", "true"),
            ("$(query_params.q == '7')", "true"),
            ("$(\"\\65\\n\\\"\")", "A\n\""),
            ("$([[a]b]])", "a]b"),
            ("$(#{ 1, 2, x = 3 })", "2"),
            ("$(({ 'a'; b = { c = 'd' }, [1 + 2] = 'e' }).b.c)", "d"),
            ("$(nil)", ""),
        ] {
            renders(source, expected);
        }
    }

    #[test]
    fn calls_functions() {
        for (source, expected) in [
            ("$(string.upper(uri_captures.a))", "ONE"),
            ("$(uri_captures.a:upper():lower())", "one"),
            ("$(('abc'):sub(-2))", "bc"),
            ("$(string.format('%05.1f|%s|%d|%%', 3.14159, 'x', 7))", "003.1|x|7|%"),
            ("$(string.rep('ab', 3, '-'))", "ab-ab-ab"),
            ("$(tostring(nil))", "nil"),
            ("$(tonumber('0x10') + tonumber(' 5 '))", "21"),
            ("$(tonumber('zz', 36))", "1295"),
            ("$(math.floor(2.7) + math.max(1, 3, 2))", "5"),
            ("$(type(headers))", "table"),
            ("$(string.byte('A') .. string.char(66, 67))", "65BC"),
            ("$(string.find('a.b', '.', 1, true))", "2"),
            ("$(table.concat(headers['x-two'], '+'))", "1+2"),
            ("$(string.match('key=value', '^(%w+)='))", "key"),
            ("$(string.gsub('hello', 'l+', 'L'))", "heLo"),
            ("$((uri_captures.a:gsub('(o)(n)', '%2%1')))", "noe"),
        ] {
            renders(source, expected);
        }
    }

    #[test]
    fn what_fails_fails_the_rendering() {
        assert_eq!(render("$(no.such.thing)").unwrap_err(), "attempt to index global 'no' (a nil value)");
        assert_eq!(render("$(string.nope('x'))").unwrap_err(), "attempt to call field 'nope' (a nil value)");
        assert_eq!(render("$('a' + 1)").unwrap_err(), "attempt to perform arithmetic on a string value");
        assert_eq!(render("$('a' .. nil)").unwrap_err(), "attempt to concatenate a nil value");
        assert_eq!(render("$(1 < 'a')").unwrap_err(), "attempt to compare number with string");
        assert!(render("$(string.rep('a', 1e9))").is_err());
        assert!(render("$(os.execute('true'))").is_err());
    }

    #[test]
    fn what_is_not_understood_is_told_beforehand() {
        assert_eq!(Template::check("$(a +)"), Err(ParseError("unexpected symbol near '<eof>'".to_owned())));
        assert_eq!(Template::check("x $(1 2)"), Err(ParseError("unexpected symbol near '2'".to_owned())));
        assert_eq!(Template::check("$('a)"), Err(ParseError("unfinished string near ''a'".to_owned())));
        assert!(Template::check("$((function() return 1 end)())").is_err());
        assert!(Template::check(&format!("$({}1{})", "(".repeat(5000), ")".repeat(5000))).is_err());
        assert!(Template::check(&format!("$({}1)", "-".repeat(5000))).is_err());
        assert_eq!(Template::check("/x/$(nope $(headers.x or 'y')"), Ok(()));
    }
}
