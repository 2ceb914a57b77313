//! TLS towards upstreams: verification, authorities and client certificates of a service.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// How TLS is spoken with an upstream. Built when the configuration changes, shared by all workers.
#[derive(Debug)]
pub struct UpstreamTls {
    id: u64,
    config: Arc<ClientConfig>,
}

/// What a service says about TLS.
#[derive(Default)]
pub struct Terms {
    /// Whether the upstream's certificate is verified.
    pub verify: bool,
    /// Most intermediate certificates between the upstream's and the authority's.
    pub depth: Option<usize>,
    /// Authorities; the system's when empty.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Certificate chain and key shown to the upstream.
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
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

    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

/// Takes chains of at most so many intermediate certificates.
#[derive(Debug)]
struct Depth {
    inner: Arc<WebPkiServerVerifier>,
    most: Option<usize>,
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
        if self.most.is_some_and(|most| intermediates.len() > most + 1) {
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
