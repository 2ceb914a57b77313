//! TLS between nodes: version 1.3 only, both sides show a certificate of the cluster's authority, and the certificate says
//! which node its owner is. Replaced as a whole when certificates are rotated: new connections use the new ones.

use std::sync::{Arc, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::id::NodeId;

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("a certificate or key that cannot be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("a certificate or key that cannot be used")]
    Tls(#[from] rustls::Error),
    #[error("an authority that cannot be used")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the certificate does not name a node of the cluster")]
    NoNode,
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    node: NodeId,
    /// Seconds since 1970.
    expires: i64,
}

/// The node's certificate and whom it trusts.
pub struct Tls(RwLock<Arc<Configs>>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Tls {
    /// All PEM: the node's certificate with what is between it and the authority, its key, and the trusted authorities.
    pub fn new(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(configs(certificate, key, ca)?))))
    }

    /// Uses other certificates from now on. Connections that exist stay.
    pub fn reload(&self, certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<(), TlsError> {
        let configs = Arc::new(configs(certificate, key, ca)?);
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = configs;
        Ok(())
    }

    fn configs(&self) -> Arc<Configs> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The node that the certificate names.
    pub fn node(&self) -> NodeId {
        self.configs().node
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.configs().expires
    }

    /// Takes a connection; answers who the other side is.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, NodeId), TlsError> {
        let stream = TlsAcceptor::from(self.configs().server.clone()).accept(stream).await?;
        let node = peer(stream.get_ref().1.peer_certificates())?;
        Ok((Box::new(stream), node))
    }

    /// Opens a connection; answers who the other side is. The caller compares that with whom it wanted.
    pub async fn connect(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, NodeId), TlsError> {
        // No name is sent: the verifier reads the name from the certificate.
        let anyone = ServerName::try_from("node.troop").map_err(|_| TlsError::NoNode)?;
        let stream = TlsConnector::from(self.configs().client.clone()).connect(anyone, stream).await?;
        let node = peer(stream.get_ref().1.peer_certificates())?;
        Ok((Box::new(stream), node))
    }
}

fn configs(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Configs, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let own = chain.first().ok_or(TlsError::NoCertificate)?;
    let (node, expires) = named(own)?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        roots.add(authority?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let versions = &[&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), PrivateKeyDer::from_pem_slice(key)?)?;
    // Every connection shows its certificate anew, so that a rotation takes hold.
    server.send_tls13_tickets = 0;
    let verifier = NodeVerifier { inner: WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()? };
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    Ok(Configs { server: Arc::new(server), client: Arc::new(client), node, expires })
}

fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Result<NodeId, TlsError> {
    let own = certificates.and_then(<[_]>::first).ok_or(TlsError::NoCertificate)?;
    Ok(named(own)?.0)
}

/// The node that a certificate names, in DER, and its end in seconds since 1970. It names one and has no other names.
pub fn named(certificate: &[u8]) -> Result<(NodeId, i64), TlsError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|_| TlsError::NoNode)?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(TlsError::NoNode)?;
    match names.value.general_names.as_slice() {
        [x509_parser::extensions::GeneralName::DNSName(name)] => {
            let node = NodeId::from_dns_name(name).ok_or(TlsError::NoNode)?;
            Ok((node, certificate.validity().not_after.timestamp()))
        }
        _ => Err(TlsError::NoNode),
    }
}

/// Verifies a certificate as usual, under the name that it has itself: any node of the cluster may answer at an address, and
/// which one it is says the certificate.
#[derive(Debug)]
struct NodeVerifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (node, _) = named(certificate).map_err(|_| rustls::Error::General("the certificate names no node".to_owned()))?;
        let name = ServerName::try_from(node.dns_name()).map_err(|_| rustls::Error::General("the node has no name".to_owned()))?;
        self.inner.verify_server_cert(certificate, between, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
