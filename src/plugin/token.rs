//! JSON Web Tokens (RFC 7519) in their compact form (RFC 7515): reading them, and verifying their signatures.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// Longer tokens are not read.
const MAX_TOKEN: usize = 64 * 1024;

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Decodes base64 in either alphabet, with or without padding.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|b| b == b'-' || b == b'_') {
        return BASE64.decode(text.replace('-', "+").replace('_', "/")).ok();
    }
    BASE64.decode(text).ok()
}

/// A token whose parts were read; its signature is not verified yet.
#[derive(Debug)]
pub struct Token<'a> {
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
    pub algorithm: Algorithm,
    /// Header and claims as they came.
    signed: &'a str,
    signature: Vec<u8>,
}

/// Signature algorithms (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "EdDSA" => Self::EdDSA,
            _ => return None,
        })
    }

    /// The algorithm with a shared secret.
    fn symmetric(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HS256 => Some(hmac::HMAC_SHA256),
            Self::HS384 => Some(hmac::HMAC_SHA384),
            Self::HS512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    /// The algorithm with a public key.
    pub fn asymmetric(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::HS256 | Self::HS384 | Self::HS512 => return None,
            Self::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::EdDSA => &signature::ED25519,
        })
    }
}

impl<'a> Token<'a> {
    /// Reads a token; `Err` says what is wrong with it, in Kong's words.
    pub fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > MAX_TOKEN {
            return Err("invalid JSON");
        }
        let mut parts = text.splitn(3, '.');
        let header = parts.next().unwrap_or_default();
        let claims = parts.next().unwrap_or_default();
        let end = (header.len() + 1 + claims.len()).min(text.len());
        let (header, claims) = (table(header).ok_or("invalid JSON")?, table(claims).ok_or("invalid JSON")?);
        let signature = parts.next().ok_or("invalid JSON")?;
        let kind = header.get("typ").map(|typ| typ.as_str().unwrap_or_default());
        if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT")) {
            return Err("invalid typ");
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::of).ok_or("invalid alg")?;
        let signature = decode_base64(signature).ok_or("invalid signature")?;
        Ok(Self { header, claims, algorithm, signed: &text[..end], signature })
    }

    /// Whether the signature was made with this secret.
    pub fn is_signed_with(&self, secret: &[u8]) -> bool {
        let key = self.algorithm.symmetric().map(|algorithm| hmac::Key::new(algorithm, secret));
        key.is_some_and(|key| hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok())
    }

    /// Whether the signature was made with the private half of this key, which was made ready for the token's algorithm.
    pub fn is_signed_by(&self, key: &ParsedPublicKey) -> bool {
        key.verify_sig(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

fn table(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode_base64(part)?).ok()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::hs256;

    #[test]
    fn secrets_sign() {
        let text = hs256("s", &json!({"typ": "JWT", "alg": "HS256"}), &json!({"iss": "a"}));
        let token = Token::read(&text).unwrap();
        assert_eq!((token.claims.get("iss"), token.algorithm), (Some(&json!("a")), Algorithm::HS256));
        assert!(token.is_signed_with(b"s") && !token.is_signed_with(b"x"));
        let other = text.replacen('.', ".e", 1);
        assert!(Token::read(&other).is_err() || !Token::read(&other).unwrap().is_signed_with(b"s"));
    }

    #[test]
    fn either_alphabet_and_padding() {
        // claims whose encoding has both characters that differ, and padding
        let claims = json!({"iss": "a", "x": "?>~ÿ?>~ÿ"}).to_string();
        let signed = format!("{}.{}", BASE64_STANDARD.encode(r#"{"alg":"HS256"}"#), BASE64_STANDARD.encode(claims));
        assert!(signed.contains(['+', '/']) && signed.contains('='), "{signed}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s"), signed.as_bytes());
        for signature in [BASE64_STANDARD.encode(tag), BASE64_URL_SAFE_NO_PAD.encode(tag)] {
            assert!(Token::read(&format!("{signed}.{signature}")).unwrap().is_signed_with(b"s"));
        }
    }

    #[test]
    fn what_is_no_token() {
        let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let (header, claims) = (encode(json!({"alg": "HS256"})), encode(json!({})));
        for (text, wrong) in [
            ("".to_owned(), "invalid JSON"),
            ("x.y.z".to_owned(), "invalid JSON"),
            (header.clone(), "invalid JSON"),
            (format!("{header}.{}.x", encode(json!([1]))), "invalid JSON"),
            (format!("{header}.{claims}"), "invalid JSON"),
            (format!("{header}.{claims}.AAAA.x"), "invalid signature"),
            (format!("{}.{claims}.AAAA", encode(json!({"alg": "none"}))), "invalid alg"),
            (format!("{}.{claims}.AAAA", encode(json!({"alg": 5}))), "invalid alg"),
            (format!("{}.{claims}.AAAA", encode(json!({"alg": "HS256", "typ": "JWE"}))), "invalid typ"),
            (format!("{header}.{}.x", "e".repeat(MAX_TOKEN)), "invalid JSON"),
        ] {
            assert_eq!(Token::read(&text).err(), Some(wrong), "{text:.80}");
        }
    }
}
