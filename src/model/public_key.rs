//! Public keys given as PEM: which kind they are, and whether they can be used at all.

use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, VerificationAlgorithm};
use x509_parser::pem::Pem;

/// Longest PEM text that is looked at: an RSA key of 8192 bits has a tenth of it.
const MAX_PEM: usize = 64 * 1024;

/// A public key in the encoding that the verification reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub kind: KeyKind,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// 2048 to 8192 bits.
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyKind {
    const ALL: [Self; 5] = [Self::Rsa, Self::P256, Self::P384, Self::P521, Self::Ed25519];

    /// Some algorithm for keys of this kind, to find out whether a key is one.
    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::Ed25519 => &signature::ED25519,
        }
    }
}

impl PublicKey {
    /// The first key of a PEM text. Of a private key, which is accepted as Kong does, the public half.
    pub fn from_pem(text: &str) -> Option<Self> {
        if text.len() > MAX_PEM {
            return None;
        }
        let pem = Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?;
        let bytes = match pem.label.as_str() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => pem.contents,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => public_half(&pem.contents)?,
            _ => return None,
        };
        let kind = KeyKind::ALL.into_iter().find(|kind| ParsedPublicKey::new(kind.algorithm(), &bytes).is_ok())?;
        Some(Self { kind, bytes })
    }

    /// The key made ready for this algorithm; `None` when it is not for keys of this kind.
    pub fn verifier(&self, algorithm: &'static dyn VerificationAlgorithm) -> Option<ParsedPublicKey> {
        ParsedPublicKey::new(algorithm, &self.bytes).ok()
    }
}

fn public_half(private: &[u8]) -> Option<Vec<u8>> {
    if let Ok(pair) = signature::RsaKeyPair::from_pkcs8(private).or_else(|_| signature::RsaKeyPair::from_der(private)) {
        return Some(pair.public_key().as_ref().to_vec());
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private) {
        return Some(pair.public_key().as_ref().to_vec());
    }
    [&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P521_SHA512_FIXED_SIGNING]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, private).ok())
        .map(|pair| pair.public_key().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::{KeyKind, PublicKey};

    #[test]
    fn public_and_private_keys_of_each_kind() {
        for (alg, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::P384),
            (&rcgen::PKCS_ECDSA_P521_SHA512, KeyKind::P521),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
            (&rcgen::PKCS_RSA_SHA256, KeyKind::Rsa),
        ] {
            let pair = rcgen::KeyPair::generate_for(alg).expect("keys can be made");
            let public = PublicKey::from_pem(&pair.public_key_pem()).expect("a public key");
            assert_eq!(public.kind, kind);
            assert_eq!(PublicKey::from_pem(&pair.serialize_pem()).map(|k| k.kind), Some(kind), "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_key() {
        let pair = rcgen::KeyPair::generate().expect("keys can be made");
        let other_label = pair.public_key_pem().replace("PUBLIC KEY", "CERTIFICATE");
        for text in ["", "nope", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &other_label] {
            assert_eq!(PublicKey::from_pem(text), None);
        }
    }
}
