//! Probes: one question to one address, and what it turned out to be.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_tls::connect::{Connector as TcpConnector, Resolve, Resolver};
use awc::error::SendRequestError;
use awc::http::header::HOST;
use awc::{Client, Connector};
use futures_util::future::LocalBoxFuture;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::balancer::{Address, Outcome};
use crate::model::Healthchecks;
use crate::snapshot::UpstreamTls;

/// How the addresses of an upstream are probed.
pub struct Probe {
    kind: Kind,
    path: String,
    headers: BTreeMap<String, Vec<String>>,
    sni: Option<String>,
    /// For each step: connecting with its handshake, and the answer.
    timeout: Duration,
    tls: Arc<UpstreamTls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Https,
    /// A connection that stands is a success.
    Grpc,
    /// A TLS connection that stands is a success.
    Grpcs,
}

/// Terms of TLS with verification, without a client certificate.
static VERIFIED: LazyLock<Arc<UpstreamTls>> = LazyLock::new(|| {
    let terms = crate::snapshot::upstream_tls::Terms { verify: true, ..Default::default() };
    UpstreamTls::new(terms).map_or_else(
        |error| {
            tracing::error!(%error, "probes over TLS cannot verify certificates and will fail");
            UpstreamTls::unusable()
        },
        Arc::new,
    )
});

impl Probe {
    /// `tls` are terms with the upstream's client certificate, where it has one.
    pub fn of(checks: &Healthchecks, tls: Option<Arc<UpstreamTls>>) -> Self {
        let active = &checks.active;
        let kind = match &*active.r#type {
            "tcp" => Kind::Tcp,
            "https" => Kind::Https,
            "grpc" => Kind::Grpc,
            "grpcs" => Kind::Grpcs,
            _ => Kind::Http,
        };
        let secure = matches!(kind, Kind::Https | Kind::Grpcs);
        let tls = tls.unwrap_or_else(|| match secure && active.https_verify_certificate {
            true => VERIFIED.clone(),
            false => UpstreamTls::unverified(),
        });
        Self {
            kind,
            path: active.http_path.to_string(),
            headers: active.headers.clone().unwrap_or_default(),
            sni: active.https_sni.as_deref().map(str::to_owned),
            timeout: Duration::from_secs_f64(active.timeout.clamp(0.001, 65535.0)),
            tls,
        }
    }

    /// Probes an address. Called on an actor's thread.
    pub async fn run(&self, address: &Address) -> Outcome {
        let Some(socket_address) = address.socket_address() else { return Outcome::TcpFailure };
        let outcome = match self.kind {
            Kind::Http | Kind::Https => self.ask(socket_address, &address.host).await,
            // What a status of 200 is to the other types.
            Kind::Tcp | Kind::Grpc | Kind::Grpcs => self.connect(socket_address, &address.host).await.map(|()| Outcome::Connected),
        };
        outcome.unwrap_or_else(|error| {
            tracing::debug!(target_host = %address.target, %socket_address, %error, "probe failed");
            error.outcome()
        })
    }

    /// Connects, and is content.
    async fn connect(&self, address: SocketAddr, host: &str) -> Result<(), ProbeError> {
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            if self.kind == Kind::Grpcs {
                let name = ServerName::try_from(self.server_name(host).to_owned()).map_err(std::io::Error::other)?;
                self.tls.connector().connect(name, tcp).await?;
            }
            Ok(())
        };
        tokio::time::timeout(self.timeout, connect).await.map_err(|_| ProbeError::Timeout)?.map_err(ProbeError::Connect)
    }

    /// Asks for the path; what the status says.
    async fn ask(&self, address: SocketAddr, host: &str) -> Result<Outcome, ProbeError> {
        let name = self.server_name(host);
        // in a URI stands what is verified; where it is an address, or nothing is verified, it is the one that is probed
        let (scheme, authority) = match self.kind {
            Kind::Https if name.parse::<IpAddr>().is_err() => ("https", format!("{name}:{}", address.port())),
            Kind::Https => ("https", address.to_string()),
            _ => ("http", address.to_string()),
        };
        let resolver = Resolver::custom(Fixed(address));
        let connector = Connector::new()
            .connector(TcpConnector::new(resolver).service())
            .rustls_0_23(self.tls.config())
            .timeout(self.timeout)
            .handshake_timeout(self.timeout);
        let client = Client::builder().connector(connector).timeout(self.timeout).disable_redirects().no_default_headers().finish();
        let mut request = client.get(format!("{scheme}://{authority}{}", self.path)).force_close().camel_case().insert_header((HOST, host));
        for (name, value) in self.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value))) {
            request = request.append_header((name.as_str(), value.as_str()));
        }
        match request.send().await {
            Ok(answer) => Ok(Outcome::Status(answer.status().as_u16())),
            // the answer is no HTTP
            Err(SendRequestError::Response(_)) => Ok(Outcome::Status(0)),
            Err(SendRequestError::Timeout | SendRequestError::Connect(awc::error::ConnectError::Timeout)) => Err(ProbeError::Timeout),
            Err(error) => Err(ProbeError::Ask(error)),
        }
    }

    /// The name that TLS asks for and verifies.
    fn server_name<'a>(&'a self, host: &'a str) -> &'a str {
        self.sni.as_deref().unwrap_or(host).trim_start_matches('[').trim_end_matches(']')
    }
}

/// Every name is this address.
struct Fixed(SocketAddr);

impl Resolve for Fixed {
    fn lookup<'a>(&'a self, _: &'a str, _: u16) -> LocalBoxFuture<'a, Result<Vec<SocketAddr>, Box<dyn std::error::Error>>> {
        Box::pin(std::future::ready(Ok(vec![self.0])))
    }
}

/// Why a probe has no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no answer: {0}")]
    Ask(SendRequestError),
    #[error("took too long")]
    Timeout,
}

impl ProbeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout => Outcome::Timeout,
            Self::Connect(_) | Self::Ask(_) => Outcome::TcpFailure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::Probe;
    use crate::balancer::{Address, Outcome};
    use crate::model::Healthchecks;
    use crate::snapshot::UpstreamTls;
    use crate::snapshot::upstream_tls::Terms;

    fn checks(kind: &str, sni: Option<&str>, verify: bool) -> Healthchecks {
        let table = serde_json::json!({
            "threshold": 0,
            "active": {
                "concurrency": 1, "http_path": "/", "https_sni": sni, "https_verify_certificate": verify, "timeout": 5, "type": kind,
                "healthy": {"http_statuses": [200], "interval": 1, "successes": 1},
                "unhealthy": {"http_statuses": [500], "interval": 1, "tcp_failures": 1, "timeouts": 1, "http_failures": 1},
            },
            "passive": {
                "type": "http",
                "healthy": {"http_statuses": [200], "successes": 0},
                "unhealthy": {"http_statuses": [500], "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
            },
        });
        serde_json::from_value(table).expect("the table fits")
    }

    /// A TLS server for `a.test` that answers 200 to whatever comes; the names that it was asked for.
    async fn serve() -> (Address, CertificateDer<'static>, Arc<Mutex<Vec<Option<String>>>>) {
        let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
        let certificate = pair.cert.der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key))
            .expect("a usable configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = names.clone();
        actix_rt::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                seen.lock().push(tls.get_ref().1.server_name().map(str::to_owned));
                // The prober may be content with the handshake.
                let _ = tls.read(&mut [0; 1024]).await;
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let _ = tls.shutdown().await;
            }
        });
        let ips = Box::new([[127, 0, 0, 1].into()]);
        let address = Address::new("127.0.0.1".into(), port, 1, "b.test".into(), ips, "b.test".into(), Arc::default());
        (address, certificate, names)
    }

    #[actix_rt::test]
    async fn probes_over_tls() {
        let (address, certificate, names) = serve().await;
        let run = async |kind: &str, sni: Option<&str>, verify: bool, trusted: bool| {
            let terms = Terms { verify: true, authorities: vec![certificate.clone()], ..Terms::default() };
            let tls = trusted.then(|| Arc::new(UpstreamTls::new(terms).expect("usable terms")));
            Probe::of(&checks(kind, sni, verify), tls).run(&address).await
        };
        assert_eq!(run("https", None, false, false).await, Outcome::Status(200));
        assert_eq!(run("https", Some("sni.test"), false, false).await, Outcome::Status(200));
        assert_eq!(run("grpcs", Some("grpc.test"), false, false).await, Outcome::Connected);
        // A prober that is content with the handshake may be done before the server is.
        while names.lock().len() < 3 {
            tokio::task::yield_now().await;
        }
        let seen: Vec<Option<String>> = std::mem::take(&mut names.lock());
        assert_eq!(seen.iter().map(Option::as_deref).collect::<Vec<_>>(), [Some("b.test"), Some("sni.test"), Some("grpc.test")]);

        assert_eq!(run("https", Some("a.test"), true, true).await, Outcome::Status(200));
        assert_eq!(run("https", None, true, true).await, Outcome::TcpFailure, "the certificate is for another name");
        assert_eq!(run("https", Some("a.test"), true, false).await, Outcome::TcpFailure, "nobody has signed it");
        // What is no TLS, and what is not HTTP.
        assert_eq!(run("tcp", None, true, false).await, Outcome::Connected);
        let plain = run("http", None, true, false).await;
        assert!(matches!(plain, Outcome::Status(0) | Outcome::TcpFailure), "{plain:?}");
    }
}
