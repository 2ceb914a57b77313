//! The node's own certificates: those that the settings name, else a self-signed pair under the prefix.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::node::StartError;
use crate::settings::{Settings, files};
use crate::snapshot::certificates::KeyPairs;

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Proxy,
    Admin,
    Status,
}

/// Days for which a self-signed certificate is good: twenty years, as Kong's.
const DAYS: i64 = 7300;

/// The certificates of these listeners.
pub fn own(settings: &Settings, listener: Listener) -> Result<Arc<KeyPairs>, StartError> {
    let (setting, certificates, keys) = match listener {
        Listener::Proxy => ("ssl_cert", &settings.ssl_cert, &settings.ssl_cert_key),
        Listener::Admin => ("admin_ssl_cert", &settings.admin_ssl_cert, &settings.admin_ssl_cert_key),
        Listener::Status => ("status_ssl_cert", &settings.status_ssl_cert, &settings.status_ssl_cert_key),
    };
    if certificates.is_empty() {
        return self_signed(settings, listener);
    }
    let read = |entry: &String| files::pem(entry).map_err(|error| StartError::Settings(format!("{setting}: {error}")));
    let mut pairs = Vec::new();
    for (certificate, key) in certificates.iter().zip(keys) {
        pairs.push((read(certificate)?, read(key)?));
    }
    let pairs = KeyPairs::of_pem(pairs.iter().map(|(certificate, key)| (certificate.as_str(), key.as_str())));
    pairs.map(Arc::new).map_err(|error| StartError::Settings(format!("{setting}: {error}")))
}

/// The pair under the prefix, RSA and ECDSA, which is made at the first call.
fn self_signed(settings: &Settings, listener: Listener) -> Result<Arc<KeyPairs>, StartError> {
    let folder = settings.path("ssl");
    let name = match listener {
        Listener::Proxy => "default",
        Listener::Admin => "admin-default",
        Listener::Status => "status-default",
    };
    let failed = |error: io::Error| StartError::Io { what: "cannot make the default certificates", error };
    let mut pairs = Vec::new();
    for (kind, algorithm) in [("", &PKCS_RSA_SHA256), ("-ecdsa", &PKCS_ECDSA_P256_SHA256)] {
        let (certificate, key) = (folder.join(format!("{name}{kind}.crt")), folder.join(format!("{name}{kind}.key")));
        let pair = match (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key)) {
            (Ok(certificate), Ok(key)) => (certificate, key),
            _ => make(&certificate, &key, algorithm).map_err(failed)?,
        };
        pairs.push(pair);
    }
    let pairs = KeyPairs::of_pem(pairs.iter().map(|(certificate, key)| (certificate.as_str(), key.as_str())));
    let unusable =
        |error| StartError::Settings(format!("the default certificates in {} are unusable: {error}. Remove them", folder.display()));
    pairs.map(Arc::new).map_err(unusable)
}

/// Makes a self-signed certificate and writes it and its key.
fn make(certificate: &Path, key: &Path, algorithm: &'static rcgen::SignatureAlgorithm) -> io::Result<(String, String)> {
    let pair = KeyPair::generate_for(algorithm).map_err(io::Error::other)?;
    let mut params = CertificateParams::new(["localhost".to_owned()]).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.distinguished_name.push(DnType::OrganizationName, "Troop");
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    params.not_after = params.not_before + time::Duration::days(DAYS);
    let made = params.self_signed(&pair).map_err(io::Error::other)?;
    let (text, secret) = (made.pem(), pair.serialize_pem());
    if let Some(folder) = certificate.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write(key, &secret, 0o600)?;
    write(certificate, &text, 0o644)?;
    Ok((text, secret))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

/// Shows one certificate to everybody; it can be replaced while connections are taken.
pub struct Replaceable(pub ArcSwap<KeyPairs>);

impl ResolvesServerCert for Replaceable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.signature_schemes())
    }
}

impl std::fmt::Debug for Replaceable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replaceable")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pair_of_our_own_is_made_once_and_its_keys_are_nobodys_business() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::from_pairs(&[("prefix", folder.path().to_str().unwrap())]).unwrap();
        own(&settings, Listener::Proxy).unwrap();
        let files =
            ["default.crt", "default.key", "default-ecdsa.crt", "default-ecdsa.key"].map(|name| folder.path().join("ssl").join(name));
        let texts = files.clone().map(|file| std::fs::read_to_string(file).unwrap());
        for key in [&files[1], &files[3]] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        own(&settings, Listener::Proxy).unwrap();
        assert_eq!(files.map(|file| std::fs::read_to_string(file).unwrap()), texts);
    }

    #[test]
    fn a_certificate_and_another_key_are_refused() {
        let made = || rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let (cert, key) = (one.cert.pem(), other.signing_key.serialize_pem());
        let folder = tempfile::tempdir().unwrap();
        let paths = [("cert", cert), ("key", key)].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let settings = Settings::from_pairs(&[("ssl_cert", &paths[0]), ("ssl_cert_key", &paths[1])]).unwrap();
        let error = own(&settings, Listener::Proxy).unwrap_err().to_string();
        assert!(error.starts_with("ssl_cert: "), "{error}");
    }
}
