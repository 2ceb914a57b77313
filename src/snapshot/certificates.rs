//! The certificates that clients are shown, by the server name they ask for.

use std::sync::Arc;

use ahash::AHashMap;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::catalog::vault::Vaults;
use crate::catalog::{Catalog, Row};
use crate::model::{Certificate, Sni};

/// Certificates by server name. A name may have a `*` for its first or its last label; `*` alone is every name.
#[derive(Default)]
pub struct Certificates {
    by_name: AHashMap<Box<str>, Arc<KeyPairs>>,
}

/// A certificate with its key, perhaps one for each type of key.
#[derive(Debug)]
pub struct KeyPairs {
    pairs: SmallVec<[Arc<CertifiedKey>; 2]>,
}

/// Why a certificate cannot be shown to clients.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("the certificate cannot be read: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the key cannot be read: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error(transparent)]
    Pair(#[from] rustls::Error),
}

impl KeyPairs {
    /// From the PEM texts of certificate chains and their keys.
    pub fn of_pem<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, PairError> {
        let read = |(chain, key): (&str, &str)| {
            let chain: Vec<_> =
                CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(PairError::Certificate)?;
            if chain.is_empty() {
                return Err(PairError::NoCertificate);
            }
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(PairError::Key)?;
            Ok(Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?))
        };
        Ok(Self { pairs: pairs.into_iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The pair for a client that knows these signature schemes; where it knows several, not the RSA one, whose signatures
    /// cost more.
    pub fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(schemes).is_some();
        let rsa = |pair: &&Arc<CertifiedKey>| pair.key.algorithm() == rustls::SignatureAlgorithm::RSA;
        self.pairs.iter().filter(usable).min_by_key(rsa).cloned()
    }
}

impl Certificates {
    /// The certificate for a server name in lower case; `None` where the node's own is to be shown.
    pub fn find(&self, name: &str) -> Option<&Arc<KeyPairs>> {
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name
            .get(name)
            .or_else(|| {
                // a wildcard needs two labels beside it: `*.test` would stand for everybody's names
                let (_, rest) = name.split_once('.').filter(|(_, rest)| rest.contains('.'))?;
                self.by_name.get(format!("*.{rest}").as_str())
            })
            .or_else(|| self.by_name.get(format!("{}.*", name.rsplit_once('.')?.0).as_str()))
            .or_else(|| self.by_name.get("*"))
    }
}

/// Makes [`Certificates`] of catalogs, one after the other. What has not changed since the last one is used again.
#[derive(Default)]
pub(super) struct Builder {
    made: AHashMap<Uuid, (Arc<Row>, Option<Arc<KeyPairs>>)>,
    /// The catalog of the last result.
    last: Option<(Arc<Catalog>, Arc<Certificates>)>,
}

impl Builder {
    pub fn build(&mut self, catalog: &Arc<Catalog>) -> Arc<Certificates> {
        let same = |(last, _): &&(Arc<Catalog>, _)| ["certificates", "snis", "vaults"].iter().all(|entity| catalog.same_rows(last, entity));
        if let Some((_, certificates)) = self.last.as_ref().filter(same) {
            return Arc::clone(certificates);
        }
        let same_vaults = self.last.as_ref().is_some_and(|(last, _)| catalog.same_rows(last, "vaults"));
        let mut before = std::mem::take(&mut self.made);
        for row in catalog.rows("certificates") {
            let stays = |(old, _): &(Arc<Row>, _)| Arc::ptr_eq(old, row) && (same_vaults || !row.text().contains("{vault://"));
            let made = before.remove(&row.id).filter(stays).unwrap_or_else(|| (Arc::clone(row), key_pairs(row, catalog)));
            self.made.insert(row.id, made);
        }
        let mut certificates = Certificates::default();
        for sni in catalog.rows("snis").filter_map(|row| row.typed::<Sni>()) {
            if let Some((_, Some(pairs))) = self.made.get(&sni.certificate.id) {
                certificates.by_name.insert(sni.name.to_ascii_lowercase().into(), Arc::clone(pairs));
            }
        }
        let certificates = Arc::new(certificates);
        self.last = Some((Arc::clone(catalog), Arc::clone(&certificates)));
        certificates
    }
}

fn key_pairs(row: &Row, catalog: &Catalog) -> Option<Arc<KeyPairs>> {
    let certificate = row.typed::<Certificate>()?;
    let environment = |name: &str| std::env::var(name).ok();
    let vaults = Vaults::of(catalog, &environment);
    let text = |text: &str| if crate::catalog::vault::is_reference(text) { vaults.resolve(text) } else { Ok(text.to_owned()) };
    let read = || -> Result<KeyPairs, String> {
        let mut texts = vec![(text(&certificate.cert), text(&certificate.key))];
        if let (Some(cert), Some(key)) = (&certificate.cert_alt, &certificate.key_alt) {
            texts.push((text(cert), text(key)));
        }
        let mut pairs = Vec::with_capacity(2);
        for (cert, key) in texts {
            pairs.push((cert.map_err(|e| e.to_string())?, key.map_err(|e| e.to_string())?));
        }
        KeyPairs::of_pem(pairs.iter().map(|(cert, key)| (cert.as_str(), key.as_str()))).map_err(|e| e.to_string())
    };
    let unusable =
        |error: &String| tracing::error!(certificate = %row.id, error, "a certificate that cannot be used is not shown to clients");
    read().inspect_err(unusable).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let pair = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.replace('*', "x")]).unwrap();
            Arc::new(KeyPairs::of_pem([(made.cert.pem().as_str(), made.signing_key.serialize_pem().as_str())]).unwrap())
        };
        let mut certificates = Certificates::default();
        let names = ["a.test", "*.b.test", "*.test", "a.*"];
        for name in names {
            certificates.by_name.insert(name.into(), pair(name));
        }
        let found = |certificates: &Certificates, name: &str| {
            let found = certificates.find(name)?;
            certificates.by_name.iter().find(|(_, pairs)| Arc::ptr_eq(pairs, found)).map(|(name, _)| name.to_string())
        };
        for (asked, shown) in [
            ("a.test", Some("a.test")),
            ("a.b.test", Some("*.b.test")),
            ("c.a.b.test", None),
            ("b.test", None),
            ("a.example", Some("a.*")),
            ("b.a.example", None),
            ("test", None),
        ] {
            assert_eq!(found(&certificates, asked).as_deref(), shown, "{asked}");
        }
        certificates.by_name.insert("*".into(), pair("any"));
        assert_eq!(found(&certificates, "other.org").as_deref(), Some("*"));
    }

    #[test]
    fn of_two_keys_the_one_that_the_client_knows() {
        let made = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let cert = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let (one, other) = (made(&rcgen::PKCS_ECDSA_P256_SHA256), made(&rcgen::PKCS_ED25519));
        let pairs = KeyPairs::of_pem([(one.0.as_str(), one.1.as_str()), (other.0.as_str(), other.1.as_str())]).unwrap();
        let algorithm = |schemes: &[SignatureScheme]| pairs.choose(schemes).map(|pair| pair.key.algorithm());
        assert_eq!(algorithm(&[SignatureScheme::ED25519]), Some(rustls::SignatureAlgorithm::ED25519));
        assert_eq!(algorithm(&[SignatureScheme::ECDSA_NISTP256_SHA256]), Some(rustls::SignatureAlgorithm::ECDSA));
        assert_eq!(algorithm(&[SignatureScheme::RSA_PSS_SHA256]), None);
    }
}
