//! Credentials in `Authorization` and `Proxy-Authorization`: `Basic dXNlcjpwYXNz`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The standard alphabet, with or without padding.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The headers in the order in which they are looked at.
pub const HEADERS: [&str; 2] = ["Proxy-Authorization", "Authorization"];

/// What follows the scheme. As in Kong the scheme begins with a capital letter or is in small letters altogether: `scheme` is
/// given in small letters.
pub fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a str> {
    let value = std::str::from_utf8(value).ok()?.trim_start();
    let (name, rest) = value.split_at_checked(scheme.len())?;
    let capital = name.get(1..) == scheme.get(1..) && name.eq_ignore_ascii_case(scheme);
    if capital && rest.starts_with([' ', '\t']) { Some(rest.trim()) } else { None }
}

/// A user name and a password behind the scheme.
pub fn user_and_password(value: &[u8], scheme: &str) -> Option<(String, String)> {
    let decoded = BASE64.decode(after_scheme(value, scheme)?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        for (value, rest) in [
            ("Basic  x y ", Some("x y")),
            ("basic x", Some("x")),
            (" Basic x", Some("x")),
            ("BASIC x", None),
            ("bASIC x", None),
            ("Basic", None),
            ("Basicx", None),
            ("Bas", None),
            ("", None),
            ("Bearer x", None),
        ] {
            assert_eq!(after_scheme(value.as_bytes(), "basic"), rest, "{value:?}");
        }
    }

    #[test]
    fn users_and_passwords() {
        let pair = |text: &str| user_and_password(format!("Basic {text}").as_bytes(), "basic");
        let bob = Some(("bob".to_owned(), "p:w".to_owned()));
        assert_eq!(pair("Ym9iOnA6dw=="), bob);
        assert_eq!(pair("Ym9iOnA6dw"), bob);
        assert_eq!(pair("Ym9iOg=="), Some(("bob".to_owned(), String::new())));
        for none in ["Ym9i", "OnA6dw==", "!!!", "%%%", ""] {
            assert_eq!(pair(none), None, "{none}");
        }
    }
}
