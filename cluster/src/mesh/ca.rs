//! The cluster's certificate authority: makes it, issues the nodes' certificates, and packs what a new node needs into a token.

use std::time::{Duration, SystemTime};

use bincode::{Decode, Encode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::id::NodeId;

/// How long the authority's certificate is valid.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How long before now a certificate is valid: the clocks of nodes differ.
const EARLIER: Duration = Duration::from_secs(3_600);
const TOKEN: &str = "troop-join-1:";

/// A certificate and its private key, both PEM.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("not a join token of this release")]
    Token,
}

/// Makes the authority of a cluster.
pub fn create(cluster: &str) -> Result<Pair, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} cluster authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_LIFE);
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Issues a certificate to a node, for both ends of a connection. It names the node and nothing else.
pub fn issue(ca: &Pair, node: NodeId, life: Duration) -> Result<Pair, CaError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![node.dns_name()])?;
    params.distinguished_name.push(DnType::CommonName, node.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid_for(&mut params, life);
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn valid_for(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + life).into();
}

/// What a new node needs: who it is, its certificate and key, whom to trust, and where to find the others. A secret: whoever
/// has it can be that node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinToken {
    pub node: NodeId,
    pub pair: Pair,
    /// The certificates of the authorities that are trusted, PEM. Two while the authority itself is being replaced.
    pub ca: String,
    pub seeds: Vec<String>,
}

impl JoinToken {
    /// A token for a node.
    pub fn issue(ca: &Pair, node: NodeId, seeds: Vec<String>, life: Duration) -> Result<Self, CaError> {
        Ok(Self { node, pair: issue(ca, node, life)?, ca: ca.certificate.clone(), seeds })
    }

    /// One line of text.
    pub fn to_text(&self) -> String {
        let bytes = bincode::encode_to_vec(self, bincode::config::standard()).expect("a vector takes every byte");
        bytes.iter().fold(TOKEN.to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }

    pub fn from_text(text: &str) -> Result<Self, CaError> {
        let digits = text.trim().strip_prefix(TOKEN).ok_or(CaError::Token)?.as_bytes();
        if digits.len() % 2 == 1 || digits.len() > 64 * 1024 {
            return Err(CaError::Token);
        }
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let config = bincode::config::standard().with_limit::<{ 64 * 1024 }>();
        let (token, _) = bincode::decode_from_slice(&bytes.ok_or(CaError::Token)?, config).map_err(|_| CaError::Token)?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_shows_no_key() {
        let ca = create("test").expect("an authority");
        let token = JoinToken::issue(&ca, NodeId::random(), vec!["10.0.0.1:8005".into()], Duration::from_secs(60)).expect("a token");
        assert_eq!(JoinToken::from_text(&format!(" {}\n", token.to_text())).expect("a token"), token);
        assert!(!format!("{token:?}").contains("PRIVATE"));
        for text in ["", "troop-join-1:", "troop-join-1:0", "troop-join-1:zz", "troop-join-2:00", "troop-join-1:ffffffffffffffffffff"] {
            assert!(JoinToken::from_text(text).is_err(), "{text}");
        }
    }
}
