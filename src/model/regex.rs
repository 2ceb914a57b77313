//! Regular expressions in configuration: what is wrong with one, in PCRE's words where they are known.

use regex::RegexBuilder;

/// Bytes that a compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// What is wrong with a pattern, if anything.
pub fn pattern_error(pattern: &str) -> Option<String> {
    let error = RegexBuilder::new(pattern).size_limit(SIZE_LIMIT).build().err()?;
    let text = error.to_string();
    let in_pattern = |text: &str| format!("pcre2_compile() failed: {text} in \"{pattern}\"");
    Some(match text.rsplit_once("error: ").map(|(_, why)| why.trim()) {
        Some("unclosed group") => in_pattern("missing closing parenthesis"),
        Some("unopened group") => in_pattern("unmatched closing parenthesis"),
        Some("unclosed character class") => in_pattern("missing terminating ] for character class"),
        Some("repetition operator missing expression") => in_pattern("quantifier does not follow a repeatable item"),
        Some(why) => why.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::pattern_error;

    #[test]
    fn words() {
        assert_eq!(pattern_error("/foo(bar").as_deref(), Some(r#"pcre2_compile() failed: missing closing parenthesis in "/foo(bar""#));
        assert_eq!(pattern_error(r"/users/\d+$"), None);
        assert!(pattern_error("(a{1000}){1000}").is_some());
    }
}
