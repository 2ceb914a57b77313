//! Probes: one question to one address, and what it turned out to be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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

/// Longest status line that is looked at.
const LONGEST_LINE: usize = 512;

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

    /// Probes an address.
    pub async fn run(&self, address: &Address) -> Outcome {
        let Some(socket_address) = address.socket_address() else { return Outcome::TcpFailure };
        let connected = tokio::time::timeout(self.timeout, self.connect(socket_address, &address.host)).await;
        let mut stream = match connected {
            Err(_) => return Outcome::Timeout,
            Ok(Err(error)) => {
                tracing::debug!(target_host = %address.target, %socket_address, %error, "probe could not connect");
                return Outcome::TcpFailure;
            }
            Ok(Ok(stream)) => stream,
        };
        match self.kind {
            Kind::Tcp => Outcome::Connected,
            // What a status of 200 is to the other types.
            Kind::Grpc | Kind::Grpcs => Outcome::Connected,
            Kind::Http | Kind::Https => match tokio::time::timeout(self.timeout, self.ask(&mut stream, &address.host)).await {
                Err(_) => Outcome::Timeout,
                Ok(Err(error)) => {
                    tracing::debug!(target_host = %address.target, %socket_address, %error, "probe got no answer");
                    Outcome::TcpFailure
                }
                Ok(Ok(status)) => Outcome::Status(status),
            },
        }
    }

    async fn connect(&self, address: SocketAddr, host: &str) -> std::io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect(address).await?;
        if !matches!(self.kind, Kind::Https | Kind::Grpcs) {
            return Ok(Box::new(tcp));
        }
        let name = self.sni.as_deref().unwrap_or(host).trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
        Ok(Box::new(self.tls.connector().connect(name, tcp).await?))
    }

    /// Sends the request; the status of the answer, or 0 when it is not HTTP.
    async fn ask(&self, stream: &mut dyn Stream, host: &str) -> std::io::Result<u16> {
        stream.write_all(self.request(host).as_bytes()).await?;
        stream.flush().await?;
        let mut line = Vec::with_capacity(64);
        let mut buffer = [0; LONGEST_LINE];
        loop {
            let length = stream.read(&mut buffer).await?;
            line.extend_from_slice(buffer.get(..length).unwrap_or_default());
            if line.contains(&b'\n') || line.len() > LONGEST_LINE {
                return Ok(status(&line));
            }
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn request(&self, host: &str) -> String {
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.path);
        for (name, values) in &self.headers {
            for value in values {
                request.extend([name, ": ", value, "\r\n"]);
            }
        }
        request.push_str("\r\n");
        request
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// The status in a status line; 0 when it is none.
fn status(line: &[u8]) -> u16 {
    let parse = || {
        let rest = line.strip_prefix(b"HTTP/")?;
        let (version, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b' ')?)?;
        let digits = rest.trim_ascii_start().get(..3)?;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.').then_some(number)
    };
    parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{Probe, status};
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

    #[test]
    fn status_lines() {
        for (line, wanted) in [
            ("HTTP/1.1 200 OK\r\n", 200),
            ("HTTP/1.0 404\r\n", 404),
            ("HTTP/1.1  503 x\n", 503),
            ("HTTP/x 200 OK\r\n", 0),
            ("HTTP/1.1 20\r\n", 0),
            ("HTTP/1.1 2x0 OK\r\n", 0),
            ("SSH-2.0-x\r\n", 0),
            ("\n", 0),
        ] {
            assert_eq!(status(line.as_bytes()), wanted, "{line:?}");
        }
    }
}
