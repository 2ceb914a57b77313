//! A certificate and key that the nodes of a cluster share.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::Hybrid;
use super::{Outcome, say, wrong};

pub fn run(command: &Hybrid) -> Outcome {
    let Hybrid::GenCert { cert, key, days, .. } = command;
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (None, None) => (PathBuf::from("./cluster.crt"), PathBuf::from("./cluster.key")),
        _ => return wrong("both cert and key path needs to be provided"),
    };
    for path in [&cert, &key] {
        if path.exists() {
            return wrong(format!("{} already exists.\nWill not overwrite it.", path.display()));
        }
    }
    let (cert_pem, key_pem) = generate(*days)?;
    write(&key, &key_pem, 0o600)?;
    write(&cert, &cert_pem, 0o644)?;
    say(&format!("Successfully generated certificate/key pairs, they have been written to: '{}' and '{}'.", cert.display(), key.display()));
    Ok(ExitCode::SUCCESS)
}

/// A self-signed certificate for `kong_clustering` and its key, on the curve secp384r1.
fn generate(days: u32) -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    let mut parameters = rcgen::CertificateParams::new(vec!["kong_clustering".to_owned()])?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "kong_clustering");
    parameters.not_before = time::OffsetDateTime::now_utc();
    parameters.not_after = parameters.not_before + time::Duration::days(days.into());
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn certificates_name_the_cluster() {
        let (cert, key) = super::generate(30).expect("a pair");
        assert!(key.contains("PRIVATE KEY"));
        let pem = x509_parser::pem::parse_x509_pem(cert.as_bytes()).expect("PEM").1;
        let parsed = pem.parse_x509().expect("a certificate");
        assert_eq!(parsed.subject().to_string(), "CN=kong_clustering");
        assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 30 * 86_400);
    }
}
