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
    use super::status;

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
