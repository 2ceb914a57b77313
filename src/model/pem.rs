//! Certificates and keys as they are written in configuration: PEM texts.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schema::Value;
use x509_parser::prelude::*;

/// The certificates of a PEM text, leaf first.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|e| e.to_string())?;
    if certificates.is_empty() { Err("no certificate in PEM text".to_owned()) } else { Ok(certificates) }
}

/// The private key of a PEM text.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())
}

/// `certificate` as a rule of a field.
pub fn check_certificate(value: &Value) -> Result<(), String> {
    let check = |pem| certificates(pem)?.iter().try_for_each(|der| parse(der).map(drop));
    check(value.as_str().unwrap_or_default()).map_err(|why| format!("invalid certificate: {why}"))
}

/// `key` as a rule of a field.
pub fn check_key(value: &Value) -> Result<(), String> {
    let key = private_key(value.as_str().unwrap_or_default());
    key.and_then(|key| any_supported_type(&key).map(drop).map_err(|e| e.to_string())).map_err(|why| format!("invalid key: {why}"))
}

fn parse<'a>(der: &'a CertificateDer) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|e| e.to_string())
}

/// What a check across fields wants to know of a leaf certificate.
pub struct Leaf {
    /// The public key, as SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Object identifier of the kind of key.
    pub algorithm: String,
    pub is_ca: bool,
    /// Seconds since the epoch.
    pub not_after: i64,
}

impl Leaf {
    /// The first certificate of a PEM text.
    pub fn of(pem: &str) -> Result<Self, String> {
        let list = certificates(pem)?;
        let certificate = parse(list.first().ok_or("no certificate in PEM text")?)?;
        Ok(Self {
            public_key: certificate.public_key().raw.to_vec(),
            algorithm: certificate.public_key().algorithm.algorithm.to_id_string(),
            is_ca: certificate.is_ca(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Whether a private key belongs to the certificate of that public key.
pub fn belongs(key: &str, public_key: &[u8]) -> bool {
    let signer = private_key(key).ok().and_then(|key| any_supported_type(&key).ok());
    let of_key = signer.and_then(|signer| signer.public_key().map(|key| key.to_vec()));
    // Keys are compared without the names of their algorithms, of which some have several.
    let bits = |key: &[u8]| SubjectPublicKeyInfo::from_der(key).map(|(_, key)| key.subject_public_key.data.to_vec()).ok();
    // A kind of key whose public half cannot be computed is let through.
    of_key.is_none_or(|of_key| bits(&of_key) == bits(public_key))
}

/// Whether a PEM text holds a public key that can be read.
pub fn is_public_key(pem: &str) -> bool {
    match section(pem) {
        Some(section) if section.label == "PUBLIC KEY" => {
            SubjectPublicKeyInfo::from_der(&section.contents).is_ok_and(|(_, key)| key.parsed().is_ok())
        }
        Some(section) => section.label == "RSA PUBLIC KEY" && !section.contents.is_empty(),
        None => false,
    }
}

/// The public key of a PEM text, as SubjectPublicKeyInfo.
pub fn public_key(pem: &str) -> Option<Vec<u8>> {
    section(pem).filter(|section| section.label == "PUBLIC KEY").map(|section| section.contents)
}

fn section(pem: &str) -> Option<Pem> {
    Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()
}

/// Whether a PEM text holds a private key that can be read.
pub fn is_private_key(pem: &str) -> bool {
    check_key(&pem.into()).is_ok()
}
