//! TLS towards clients: which versions, which certificate, and what plugins are told of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, ServerConnection};

use crate::plugin::exchange::Tls;
use crate::snapshot::Snapshot;
use crate::snapshot::certificates::KeyPairs;

/// Sessions that can be resumed without a ticket.
const SESSIONS: usize = 4096;

/// What the settings say of TLS.
#[derive(Clone, Debug)]
pub struct Terms {
    pub tls12: bool,
    pub tls13: bool,
    /// Clients may resume sessions by tickets.
    pub tickets: bool,
}

impl Terms {
    /// How a listener speaks TLS; with HTTP/2 where `http2` says so and the client wants it.
    pub fn server(&self, certificates: Arc<dyn ResolvesServerCert>, http2: bool) -> Result<ServerConfig, rustls::Error> {
        let mut versions = Vec::with_capacity(2);
        if self.tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if self.tls12 {
            versions.push(&rustls::version::TLS12);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        if self.tickets {
            config.ticketer = aws_lc_rs::Ticketer::new()?;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

/// Shows the certificate of the configuration that is in effect when a client connects, else the node's own.
pub struct ByServerName {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub own: Arc<KeyPairs>,
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.snapshot.load();
        let configured = hello.server_name().and_then(|name| snapshot.certificates().find(name));
        configured.unwrap_or(&self.own).choose(hello.signature_schemes())
    }
}

impl std::fmt::Debug for ByServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByServerName")
    }
}

/// What plugins are told of a connection.
pub fn facts(connection: &ServerConnection) -> Tls {
    Tls {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: connection.negotiated_cipher_suite().map_or_else(String::new, |suite| cipher(suite.suite())),
        sni: connection.server_name().map(str::to_owned),
        client_chain: connection.peer_certificates().into_iter().flatten().map(|der| der.to_vec()).collect(),
    }
}

/// A cipher suite as OpenSSL calls it, which is what logs have always shown.
fn cipher(suite: CipherSuite) -> String {
    let name = match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}
