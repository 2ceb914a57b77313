//! Lua's patterns, with captures. Work is bounded: a search that takes too many steps fails.

use std::ops::Range;

use super::RenderError;

/// Steps that one search may take.
const STEPS: usize = 100_000;
/// Depth to which a search may go.
const DEPTH: usize = 200;
/// Captures of a pattern.
const GROUPS: usize = 32;

pub struct Pattern<'p> {
    source: &'p [u8],
    anchored: bool,
}

/// Where a pattern was found.
pub struct Found {
    pub whole: Range<usize>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
pub enum Group {
    Text(Range<usize>),
    /// `()`
    Position(usize),
}

impl Found {
    /// A capture from 1; the whole where there are no captures.
    pub fn group(&self, n: usize) -> Group {
        self.groups.get(n - 1).cloned().unwrap_or_else(|| Group::Text(self.whole.clone()))
    }
}

impl<'p> Pattern<'p> {
    pub fn new(source: &'p [u8]) -> Result<Self, RenderError> {
        Ok(match source.strip_prefix(b"^") {
            Some(source) => Self { source, anchored: true },
            None => Self { source, anchored: false },
        })
    }

    /// The first place at or after `start`.
    pub fn find(&self, text: &[u8], start: usize) -> Result<Option<Found>, RenderError> {
        let mut steps = STEPS;
        self.search(text, start, &mut steps)
    }

    fn search(&self, text: &[u8], start: usize, steps: &mut usize) -> Result<Option<Found>, RenderError> {
        let last = if self.anchored { start } else { text.len() };
        for from in start..=last {
            let mut search = Search { text, groups: Vec::new(), steps, depth: 0 };
            if let Some(end) = search.here(self.source, from)? {
                let groups = search.groups.into_iter().map(|group| match group.length {
                    Length::Known(length) => Group::Text(group.start..group.start + length),
                    Length::Open | Length::Position => Group::Position(group.start),
                });
                return Ok(Some(Found { whole: from..end, groups: groups.collect() }));
            }
        }
        Ok(None)
    }

    /// The text with each of at most `most` places replaced by `with`, in which `%1` stands for a capture.
    pub fn replace(&self, text: &[u8], with: &[u8], most: f64, longest: usize) -> Result<Vec<u8>, RenderError> {
        let mut out = Vec::new();
        let mut at = 0;
        let mut times = 0.0;
        let mut steps = STEPS;
        while at <= text.len() && times < most && out.len() <= longest {
            let Some(found) = self.search(text, at, &mut steps)? else { break };
            out.extend_from_slice(&text[at..found.whole.start]);
            let mut with = with.iter();
            while let Some(&c) = with.next() {
                match (c, c == b'%') {
                    (_, false) => out.push(c),
                    (_, true) => match with.next() {
                        Some(b'0') => out.extend_from_slice(&text[found.whole.clone()]),
                        Some(digit @ b'1'..=b'9') => match found.group(usize::from(digit - b'0')) {
                            Group::Text(range) => out.extend_from_slice(&text[range]),
                            Group::Position(at) => out.extend_from_slice((at + 1).to_string().as_bytes()),
                        },
                        Some(&other) => out.push(other),
                        None => return Err(RenderError("invalid use of '%' in replacement string".to_owned())),
                    },
                }
            }
            times += 1.0;
            at = found.whole.end;
            if found.whole.is_empty() {
                if let Some(c) = text.get(at) {
                    out.push(*c);
                }
                at += 1;
            }
            if self.anchored {
                break;
            }
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        Ok(out)
    }
}

struct Search<'t> {
    text: &'t [u8],
    groups: Vec<Open>,
    steps: &'t mut usize,
    depth: usize,
}

#[derive(Clone, Copy)]
struct Open {
    start: usize,
    length: Length,
}

#[derive(Clone, Copy, PartialEq)]
enum Length {
    Open,
    Known(usize),
    Position,
}

impl Search<'_> {
    /// Where a match of the pattern that begins at `at` ends.
    fn here(&mut self, pattern: &[u8], at: usize) -> Result<Option<usize>, RenderError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(RenderError("pattern too complex".to_owned()));
        }
        let end = self.inner(pattern, at);
        self.depth -= 1;
        end
    }

    fn inner(&mut self, mut pattern: &[u8], mut at: usize) -> Result<Option<usize>, RenderError> {
        loop {
            *self.steps = self.steps.checked_sub(1).ok_or_else(|| RenderError("pattern too complex".to_owned()))?;
            match pattern {
                [] => return Ok(Some(at)),
                b"$" => return Ok((at == self.text.len()).then_some(at)),
                [b'(', b')', rest @ ..] => return self.grouped(Open { start: at, length: Length::Position }, rest, at),
                [b'(', rest @ ..] => return self.grouped(Open { start: at, length: Length::Open }, rest, at),
                [b')', rest @ ..] => {
                    let Some(n) = self.groups.iter().rposition(|group| group.length == Length::Open) else {
                        return Err(RenderError("invalid pattern capture".to_owned()));
                    };
                    self.groups[n].length = Length::Known(at - self.groups[n].start);
                    let end = self.here(rest, at)?;
                    if end.is_none() {
                        self.groups[n].length = Length::Open;
                    }
                    return Ok(end);
                }
                [b'%', b'b', open, close, rest @ ..] => {
                    let Some(end) = self.balanced(*open, *close, at) else { return Ok(None) };
                    (pattern, at) = (rest, end);
                }
                [b'%', b'f', rest @ ..] => {
                    let (set, rest) = rest.split_at(item(rest)?);
                    let before = at.checked_sub(1).and_then(|at| self.text.get(at)).copied().unwrap_or(0);
                    let after = self.text.get(at).copied().unwrap_or(0);
                    if matches(set, before) || !matches(set, after) {
                        return Ok(None);
                    }
                    pattern = rest;
                }
                [b'%', digit @ b'1'..=b'9', rest @ ..] => {
                    let group = self.groups.get(usize::from(digit - b'1'));
                    let Some(Open { start, length: Length::Known(length) }) = group.copied() else {
                        return Err(RenderError("invalid capture index".to_owned()));
                    };
                    let text = self.text;
                    if !text[at..].starts_with(&text[start..start + length]) {
                        return Ok(None);
                    }
                    (pattern, at) = (rest, at + length);
                }
                _ => {
                    let (one, rest) = pattern.split_at(item(pattern)?);
                    let fits = |at: usize| self.text.get(at).is_some_and(|c| matches(one, *c));
                    match rest {
                        [b'?', rest @ ..] => {
                            if fits(at)
                                && let Some(end) = self.here(rest, at + 1)?
                            {
                                return Ok(Some(end));
                            }
                            pattern = rest;
                        }
                        [sign @ (b'*' | b'+'), rest @ ..] => {
                            let most = (at..self.text.len()).take_while(|at| fits(*at)).count();
                            *self.steps = self.steps.saturating_sub(most);
                            for count in (usize::from(*sign == b'+')..=most).rev() {
                                if let Some(end) = self.here(rest, at + count)? {
                                    return Ok(Some(end));
                                }
                            }
                            return Ok(None);
                        }
                        [b'-', rest @ ..] => loop {
                            if let Some(end) = self.here(rest, at)? {
                                return Ok(Some(end));
                            }
                            if !self.text.get(at).is_some_and(|c| matches(one, *c)) {
                                return Ok(None);
                            }
                            at += 1;
                        },
                        rest => {
                            if !fits(at) {
                                return Ok(None);
                            }
                            (pattern, at) = (rest, at + 1);
                        }
                    }
                }
            }
        }
    }

    fn grouped(&mut self, group: Open, rest: &[u8], at: usize) -> Result<Option<usize>, RenderError> {
        if self.groups.len() >= GROUPS {
            return Err(RenderError("too many captures".to_owned()));
        }
        self.groups.push(group);
        let end = self.here(rest, at)?;
        if end.is_none() {
            self.groups.pop();
        }
        Ok(end)
    }

    fn balanced(&self, open: u8, close: u8, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (n, c) in self.text.get(at..)?.iter().enumerate() {
            if *c == close && depth > 0 {
                depth -= 1;
            } else if *c == open {
                depth += 1;
            }
            if depth == 0 {
                return (*c == close && n > 0).then_some(at + n + 1);
            }
        }
        None
    }
}

/// Bytes of the first item: a character, an escape or a set.
fn item(pattern: &[u8]) -> Result<usize, RenderError> {
    match pattern {
        [b'%'] => Err(RenderError("malformed pattern (ends with '%')".to_owned())),
        [b'%', ..] => Ok(2),
        [b'[', rest @ ..] => {
            let mut at = usize::from(rest.first() == Some(&b'^'));
            loop {
                // A bracket that comes first is a member of the set.
                match rest.get(at) {
                    Some(b'%') => at += 2,
                    Some(_) => at += 1,
                    None => return Err(RenderError("malformed pattern (missing ']')".to_owned())),
                }
                if rest.get(at) == Some(&b']') {
                    return Ok(at + 2);
                }
            }
        }
        _ => Ok(1),
    }
}

fn matches(item: &[u8], c: u8) -> bool {
    match item {
        b"." => true,
        [b'%', class] => in_class(*class, c),
        [b'[', b'^', set @ .., b']'] => !in_set(set, c),
        [b'[', set @ .., b']'] => in_set(set, c),
        [only] => *only == c,
        _ => false,
    }
}

fn in_set(mut set: &[u8], c: u8) -> bool {
    loop {
        let found;
        (found, set) = match set {
            [] => return false,
            [b'%', class, rest @ ..] => (in_class(*class, c), rest),
            [low, b'-', high, rest @ ..] => ((*low..=*high).contains(&c), rest),
            [one, rest @ ..] => (*one == c, rest),
        };
        if found {
            return true;
        }
    }
}

fn in_class(class: u8, c: u8) -> bool {
    let inside = match class.to_ascii_lowercase() {
        b'a' => c.is_ascii_alphabetic(),
        b'c' => c.is_ascii_control(),
        b'd' => c.is_ascii_digit(),
        b'l' => c.is_ascii_lowercase(),
        b'p' => c.is_ascii_punctuation(),
        b's' => c.is_ascii_whitespace() || c == 0x0b,
        b'u' => c.is_ascii_uppercase(),
        b'w' => c.is_ascii_alphanumeric(),
        b'x' => c.is_ascii_hexdigit(),
        _ => return class == c,
    };
    inside != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pattern: &str, text: &str) -> Option<(usize, usize)> {
        let found = Pattern::new(pattern.as_bytes()).unwrap().find(text.as_bytes(), 0).unwrap();
        found.map(|found| (found.whole.start, found.whole.end))
    }

    fn replace(text: &str, pattern: &str, with: &str) -> String {
        let pattern = Pattern::new(pattern.as_bytes()).unwrap();
        String::from_utf8(pattern.replace(text.as_bytes(), with.as_bytes(), f64::INFINITY, 1000).unwrap()).unwrap()
    }

    #[test]
    fn finds_what_lua_finds() {
        assert_eq!(find("b+", "abbc"), Some((1, 3)));
        assert_eq!(find("^b", "abb"), None);
        assert_eq!(find("c$", "abc"), Some((2, 3)));
        assert_eq!(find("<.->", "x<a><b>"), Some((1, 4)));
        assert_eq!(find("<.*>", "x<a><b>"), Some((1, 7)));
        assert_eq!(find("[^%s%d]+", " 1ab 2"), Some((2, 4)));
        assert_eq!(find("[]]", "a]"), Some((1, 2)));
        assert_eq!(find("%b()", "f(a(b)c)d"), Some((1, 8)));
        assert_eq!(find("%f[%w]%w+", "  word"), Some((2, 6)));
        assert_eq!(find("(a)%1", "abaa"), Some((2, 4)));
        assert_eq!(find("colou?r", "color"), Some((0, 5)));
        assert_eq!(find("", "abc"), Some((0, 0)));
    }

    #[test]
    fn replaces_what_lua_replaces() {
        assert_eq!(replace("hello world", "o", "0"), "hell0 w0rld");
        assert_eq!(replace("a,b", "(%w),(%w)", "%2,%1%%%0"), "b,a%a,b");
        assert_eq!(replace("abc", "", "-"), "-a-b-c-");
        assert_eq!(replace("aaa", "^a", "b"), "baa");
        assert_eq!(replace("a b", "()b", "%1"), "a 3");
    }

    #[test]
    fn work_is_bounded() {
        let text = "a".repeat(5000);
        let pattern = Pattern::new(b"a*a*a*a*a*b").unwrap();
        assert!(pattern.find(text.as_bytes(), 0).is_err());
        let deep = "a?".repeat(1000);
        assert!(Pattern::new(deep.as_bytes()).unwrap().find(text.as_bytes(), 0).is_err());
        assert!(Pattern::new(b"[a").unwrap().find(b"a", 0).is_err());
    }
}
