//! Regular expressions of configurations, in the dialect of PCRE as far as it is known, with bounded work.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Steps of backtracking after which a text counts as not decided.
const MAX_STEPS: usize = 100_000;
/// Longest pattern.
const MAX_LEN: usize = 16 * 1024;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    pub fn new(pattern: &str) -> Option<Self> {
        if pattern.len() > MAX_LEN {
            return None;
        }
        RegexBuilder::new(pattern).backtrack_limit(MAX_STEPS).build().ok().map(Self)
    }

    /// A pattern that has to match the whole text.
    pub fn whole(pattern: &str) -> Option<Self> {
        Self::new(pattern)?;
        Self::new(&format!(r"\A(?:{pattern})\z"))
    }

    /// Whether the pattern matches somewhere in the text; `undecided` when that takes too many steps.
    pub fn matches(&self, text: &str, undecided: bool) -> bool {
        self.0.is_match(text).unwrap_or(undecided)
    }
}

/// A check of a field that holds a pattern: `not a valid regex: (`.
pub fn check(value: &Value) -> Result<(), String> {
    let pattern = value.as_str().unwrap_or_default();
    if Pattern::new(pattern).is_some() { Ok(()) } else { Err(format!("not a valid regex: {pattern}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_pcre() {
        let pattern = Pattern::new(r"(?i)^bot(?!tle)").unwrap();
        assert!(pattern.matches("BOT/1", false) && !pattern.matches("bottle", false));
        assert_eq!(check(&"(".into()), Err("not a valid regex: (".to_owned()));
        assert_eq!(check(&r"a\.b".into()), Ok(()));
    }

    #[test]
    fn whole_texts() {
        let pattern = Pattern::whole("a|b$").unwrap();
        assert!(pattern.matches("a", false) && pattern.matches("b", false) && !pattern.matches("ab", false));
        assert!(Pattern::whole("a)(b").is_none(), "the frame does not make a pattern of what is none");
    }

    #[test]
    fn work_is_bounded() {
        let pattern = Pattern::new(r"(?=(a+)+$)\1c").unwrap();
        let text = format!("{}b", "a".repeat(60));
        assert!(pattern.matches(&text, true) || !pattern.matches(&text, false));
    }
}
