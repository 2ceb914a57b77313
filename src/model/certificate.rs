//! Certificates with their keys, the server names they are shown for, and the authorities that peers are checked against.

use schema::rules::is_reference;
use schema::types::{Id, Parent, Tags, WildcardHost};
use schema::{Check, Context, Entity, Object, Value, Violations};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::pem::{self, Leaf, check_certificate, check_key};

/// A certificate and its private key, perhaps with another pair of another type.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "certificates")]
#[record(
    check(Check::mutually_required(&["cert_alt", "key_alt"])),
    check(Check::custom(&["cert", "key"], |row| pair(row, "cert", "key", "certificate does not match key"))),
    check(Check::custom(&["cert_alt", "key_alt"], |row| {
        pair(row, "cert_alt", "key_alt", "alternative certificate does not match key")
    })),
    check(Check::custom(&["cert", "cert_alt"], different_types)),
)]
pub struct Certificate {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// The certificate, with those of the authorities that link it to a root, as PEM.
    #[field(referenceable, check("certificate", check_certificate))]
    pub cert: String,
    /// The private key, as PEM.
    #[field(referenceable, encrypted, check("key", check_key))]
    pub key: String,
    /// A second certificate, of another type (RSA beside ECDSA).
    #[field(referenceable, check("certificate", check_certificate))]
    pub cert_alt: Option<String>,
    /// The private key of the second certificate.
    #[field(referenceable, encrypted, check("key", check_key))]
    pub key_alt: Option<String>,
    pub tags: Option<Tags>,
    /// Names for which the certificate is shown; each becomes an SNI.
    #[field(transient, elements(|_| <WildcardHost as schema::FieldType>::field()))]
    #[serde(skip)]
    pub snis: Option<Vec<String>>,
}

/// A name that a client may ask for in TLS, and the certificate it is shown.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "snis", endpoint_key = "name")]
pub struct Sni {
    #[field(auto)]
    pub id: Id,
    /// The name, perhaps with a wildcard label at one end.
    #[field(unique)]
    pub name: WildcardHost,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    pub tags: Option<Tags>,
    /// The certificate shown to clients who ask for the name.
    #[field(parent("certificates"))]
    pub certificate: Parent,
}

/// A certificate of an authority.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "ca_certificates", transform(&["cert"], digest))]
#[record(check(Check::contextual(&["cert"], authority)))]
pub struct CaCertificate {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// The certificate, as PEM.
    #[field(check("certificate", check_certificate))]
    pub cert: String,
    /// SHA-256 of the certificate, in hexadecimal.
    #[field(unique)]
    pub cert_digest: Option<String>,
    pub tags: Option<Tags>,
}

fn text<'a>(row: &'a Object, field: &str) -> Option<&'a str> {
    row.get(field).and_then(Value::as_str).filter(|text| !is_reference(text))
}

fn pair(row: &Object, cert: &str, key: &str, error: &str) -> Result<(), Violations> {
    let (Some(cert), Some(key)) = (text(row, cert), text(row, key)) else {
        return Ok(());
    };
    let fits = Leaf::of(cert).is_ok_and(|leaf| pem::belongs(key, &leaf.public_key));
    if fits { Ok(()) } else { Err(Violations::entity(error)) }
}

fn different_types(row: &Object) -> Result<(), Violations> {
    let (Some(one), Some(other)) = (text(row, "cert"), text(row, "cert_alt")) else {
        return Ok(());
    };
    match (Leaf::of(one), Leaf::of(other)) {
        (Ok(one), Ok(other)) if one.algorithm == other.algorithm => Err(Violations::entity(
            "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), the provided \
             certificates were both of the same type",
        )),
        _ => Ok(()),
    }
}

fn authority(row: &Object, context: &Context) -> Result<(), Violations> {
    let cert = text(row, "cert").unwrap_or_default();
    let refused = |why: &str| Err(Violations::entity(why));
    if pem::certificates(cert).is_ok_and(|list| list.len() > 1) {
        return refused("please submit only one certificate at a time");
    }
    match Leaf::of(cert) {
        Ok(leaf) if (leaf.not_after as f64) < context.now => refused("certificate expired, \"Not After\" time is in the past"),
        Ok(leaf) if !leaf.is_ca => refused("certificate does not appear to be a CA because it is missing the \"CA\" basic constraint"),
        _ => Ok(()),
    }
}

fn digest(row: &mut Object) -> Result<(), Violations> {
    let cert = text(row, "cert").unwrap_or_default();
    if let Some(der) = pem::certificates(cert).ok().and_then(|list| list.into_iter().next()) {
        row.insert("cert_digest".to_owned(), super::hex(&Sha256::digest(&der)).into());
    }
    Ok(())
}
