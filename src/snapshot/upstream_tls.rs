//! TLS towards upstreams: verification, authorities and client certificates of a service.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use ahash::AHashMap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

/// How TLS is spoken with an upstream. Built when the configuration changes, shared by all workers.
#[derive(Debug)]
pub struct UpstreamTls {
    id: u64,
    config: Arc<ClientConfig>,
}

/// What a service says about TLS.
pub struct Terms {
    /// Whether the upstream's certificate is verified.
    pub verify: bool,
    /// Most intermediate certificates between the upstream's and the authority's.
    pub depth: usize,
    /// Authorities; the system's when empty.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Certificate chain and key shown to the upstream.
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { verify: false, depth: usize::MAX, authorities: Vec::new(), client: None }
    }
}

impl Terms {
    /// The same for the same terms.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([u8::from(self.verify)]);
        hash.update(self.depth.to_be_bytes());
        let mut list = |parts: &mut dyn Iterator<Item = &[u8]>| {
            for part in parts {
                hash.update([1]);
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            hash.update([0]);
        };
        list(&mut self.authorities.iter().map(|der| der.as_ref()));
        if let Some((chain, key)) = &self.client {
            list(&mut chain.iter().map(|der| der.as_ref()).chain([key.secret_der()]));
        }
        hash.finalize().into()
    }
}

/// Terms that are in use, each once: services with the same terms share connections, and keep them when the configuration
/// changes elsewhere.
#[derive(Default)]
pub struct InUse(AHashMap<[u8; 32], Weak<UpstreamTls>>);

impl InUse {
    pub fn get(&mut self, terms: Terms) -> Result<Arc<UpstreamTls>, rustls::Error> {
        let digest = terms.digest();
        if let Some(tls) = self.0.get(&digest).and_then(Weak::upgrade) {
            return Ok(tls);
        }
        let tls = Arc::new(UpstreamTls::new(terms)?);
        self.0.retain(|_, tls| tls.strong_count() > 0);
        self.0.insert(digest, Arc::downgrade(&tls));
        Ok(tls)
    }
}

impl UpstreamTls {
    pub fn new(terms: Terms) -> Result<Self, rustls::Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if terms.verify {
            let mut roots = RootCertStore::empty();
            if terms.authorities.is_empty() {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            } else {
                for authority in terms.authorities {
                    roots.add(authority)?;
                }
            }
            if roots.is_empty() {
                // nothing is trusted, so nothing can be verified: each handshake fails, as it should
                Arc::new(TrustsNobody(Arc::clone(&provider)))
            } else {
                let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|e| rustls::Error::General(e.to_string()))?;
                Arc::new(Depth { inner, most: terms.depth })
            }
        } else {
            Arc::new(Anybody(Arc::clone(&provider)))
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match terms.client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(256);
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), config: Arc::new(config) })
    }

    /// Encryption without knowing with whom.
    pub fn unverified() -> Arc<Self> {
        static SHARED: LazyLock<Arc<UpstreamTls>> =
            LazyLock::new(|| Arc::new(UpstreamTls::new(Terms::default()).expect("terms without certificates are usable")));
        Arc::clone(&SHARED)
    }

    /// Terms under which every handshake fails.
    pub fn unusable() -> Arc<Self> {
        static SHARED: LazyLock<Arc<UpstreamTls>> = LazyLock::new(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("the provider has the default versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustsNobody(provider)))
                .with_no_client_auth();
            Arc::new(UpstreamTls { id: 0, config: Arc::new(config) })
        });
        Arc::clone(&SHARED)
    }

    /// Connections made under different terms are never mixed up.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// For a client that brings its own connections.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

/// Takes chains of at most so many intermediate certificates.
#[derive(Debug)]
struct Depth {
    inner: Arc<WebPkiServerVerifier>,
    most: usize,
}

impl ServerCertVerifier for Depth {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if intermediates.len() > self.most.saturating_add(1) {
            return Err(rustls::Error::General("certificate chain too long".into()));
        }
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

macro_rules! unverified {
    ($(#[$doc:meta])* $name:ident, $verdict:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $name(Arc<rustls::crypto::CryptoProvider>);

        impl ServerCertVerifier for $name {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: UnixTime,
            ) -> Result<ServerCertVerified, rustls::Error> {
                $verdict
            }

            fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
                rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
            }

            fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
                rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                self.0.signature_verification_algorithms.supported_schemes()
            }
        }
    };
}

unverified!(
    /// `tls_verify` is off, which is Kong's default: encryption without knowing with whom.
    Anybody,
    Ok(ServerCertVerified::assertion())
);

unverified!(
    /// Verification is wanted and there is no authority to trust.
    TrustsNobody,
    Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_terms_are_built_once() {
        let mut in_use = InUse::default();
        let of = |depth| Terms { depth, ..Terms::default() };
        let one = in_use.get(of(1)).unwrap();
        assert!(Arc::ptr_eq(&one, &in_use.get(of(1)).unwrap()));
        assert_ne!(one.id(), in_use.get(of(2)).unwrap().id());
        drop(one);
        in_use.get(of(3)).unwrap();
        assert_eq!(in_use.0.len(), 1, "what nobody uses is forgotten");
    }
}
