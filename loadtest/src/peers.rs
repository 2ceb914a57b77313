//! The gateways that Troop is measured beside, the upstream behind all of them, and the files that they start from.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::cpu::Cpus;
use crate::documents::Sinks;
use crate::live::Live;
use crate::load::tls::NAME;
use crate::service::{Service, free_addresses, program};

/// Bytes of the body of a plain answer.
pub const BODY: usize = 120;
/// Files of the upstream, by size.
pub const FILES: [(&str, usize); 2] = [("/files/10k", 10_000), ("/files/1m", 1_000_000)];

/// Where a gateway takes requests.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    pub http: SocketAddr,
    /// HTTP/2 in clear.
    pub h2c: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
}

/// What all measurements share: a directory, a certificate, the upstreams.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub cpus: Cpus,
    pub upstream: SocketAddr,
    pub live: Rc<Live>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one file.
    pair: PathBuf,
    /// Takes what plugins send; nobody reads it.
    sink: UdpSocket,
    upstream_service: Service,
}

impl Place {
    /// Starts the upstreams. Needs a `LocalSet`.
    pub async fn prepare(cpus: Cpus) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("loadtest-").tempdir()?;
        // nginx's worker gives up root, and reads files below
        open_to_all(directory.path())?;
        let [certificate, key, pair] = ["cert.pem", "key.pem", "pair.pem"].map(|name| directory.path().join(name));
        let keys = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let signed = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&keys)?.pem();
        fs::write(&certificate, &signed)?;
        fs::write(&key, keys.serialize_pem())?;
        fs::write(&pair, format!("{signed}{}", keys.serialize_pem()))?;
        fs::create_dir(directory.path().join("files"))?;
        for (path, size) in FILES {
            fs::write(directory.path().join(&path[1..]), "x".repeat(size))?;
        }
        let [upstream] = free_addresses()?;
        let program = program("nginx").context("nginx is needed as the upstream: apt-get install nginx")?;
        let values = Values::new([
            ("directory", directory.path().display().to_string()),
            ("http", upstream.to_string()),
            ("body", "x".repeat(BODY)),
        ]);
        let file = values.write(include_str!("../peers/upstream.conf"), &directory.path().join("upstream.conf"))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(directory.path()).arg("-c").arg(file);
        let mut service = Service::start("upstream", &mut command, cpus.upstream, directory.path())?;
        service.listens(upstream).await?;
        let live = Rc::new(Live::start().await?);
        let sink = UdpSocket::bind("127.0.0.1:0")?;
        Ok(Self { directory, cpus, upstream, live, certificate, key, pair, sink, upstream_service: service })
    }

    /// The process of the upstream.
    pub fn upstream_id(&self) -> u32 {
        self.upstream_service.id()
    }

    /// Where what plugins send goes.
    pub fn sinks(&self, folder: &Path) -> Sinks {
        let udp = self.sink.local_addr().unwrap_or(self.upstream);
        Sinks { http: self.upstream, udp, file: folder.join("requests.log") }
    }

    /// A directory for one process.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let mut number = 0;
        loop {
            let folder = self.directory.path().join(format!("{name}-{number}"));
            if !folder.exists() {
                fs::create_dir(&folder)?;
                open_to_all(&folder)?;
                return Ok(folder);
            }
            number += 1;
        }
    }
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

/// Values for the `{{names}}` in a file.
struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn new(values: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(values.into_iter().collect())
    }

    /// Fills a file in; a name that has no value is an error.
    fn fill(&self, text: &str) -> Result<String> {
        let mut out = text.to_owned();
        for (name, value) in &self.0 {
            out = out.replace(&format!("{{{{{name}}}}}"), value);
        }
        if let Some((_, rest)) = out.split_once("{{") {
            bail!("no value for {}", rest.split("}}").next().unwrap_or_default());
        }
        Ok(out)
    }

    fn write(&self, text: &str, to: &Path) -> Result<PathBuf> {
        fs::write(to, self.fill(text)?)?;
        Ok(to.to_owned())
    }
}

/// A gateway beside Troop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Nginx,
    Haproxy,
    Envoy,
    /// One that runs already, without a database: the addresses of its proxy and of its Admin API, through which it is given
    /// each scenario's configuration, and the process whose CPU is counted, where that is known.
    Kong {
        proxy: SocketAddr,
        admin: Option<SocketAddr>,
        pid: Option<u32>,
    },
}

impl Peer {
    /// As it is asked for: `nginx`, `haproxy`, `envoy`, `kong=PROXY_URL;ADMIN_URL;PID`, of which the last two may be left out.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None if text == "nginx" => Ok(Self::Nginx),
            None if text == "haproxy" => Ok(Self::Haproxy),
            None if text == "envoy" => Ok(Self::Envoy),
            Some(("kong", rest)) => {
                let mut parts = rest.split(';');
                let proxy = address(parts.next().unwrap_or_default())?;
                let admin = parts.next().map(address).transpose()?;
                Ok(Self::Kong { proxy, admin, pid: parts.next().map(str::parse).transpose()? })
            }
            _ => bail!("{text}: peers are nginx, haproxy, envoy, kong=URL"),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Kong { .. } => "kong",
        }
    }

    /// Whether it can be started here.
    pub fn installed(&self) -> bool {
        matches!(self, Self::Kong { .. }) || program(self.name()).is_some()
    }

    /// Its version, as it says it.
    pub fn version(&self) -> String {
        let flag = if *self == Self::Envoy { "--version" } else { "-v" };
        let run = program(self.name()).and_then(|program| Command::new(program).arg(flag).output().ok());
        let text = run.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }

    pub async fn start(&self, place: &Place) -> Result<Running> {
        if let Self::Kong { proxy, pid, .. } = self {
            return Ok(Running { listeners: Listeners { http: *proxy, h2c: None, https: None }, pid: *pid, service: None });
        }
        let program = program(self.name()).with_context(|| format!("{} is not installed", self.name()))?;
        let [http, h2c, https] = free_addresses()?;
        let folder = place.folder(self.name())?;
        let mut values = Values::new([
            ("directory", folder.display().to_string()),
            ("certificate", place.certificate.display().to_string()),
            ("key", place.key.display().to_string()),
            ("pair", place.pair.display().to_string()),
        ]);
        let addresses = [
            (["http", "http_host", "http_port"], http),
            (["h2c", "h2c_host", "h2c_port"], h2c),
            (["https", "https_host", "https_port"], https),
            (["upstream", "upstream_host", "upstream_port"], place.upstream),
            (["live", "live_host", "live_port"], place.live.address),
        ];
        for ([both, host, port], address) in addresses {
            values.0.extend([(both, address.to_string()), (host, address.ip().to_string()), (port, address.port().to_string())]);
        }
        let mut command = Command::new(program);
        match self {
            Self::Nginx => {
                let file = values.write(include_str!("../peers/nginx.conf"), &folder.join("nginx.conf"))?;
                command.arg("-p").arg(&folder).arg("-c").arg(file);
            }
            Self::Haproxy => {
                let file = values.write(include_str!("../peers/haproxy.cfg"), &folder.join("haproxy.cfg"))?;
                command.arg("-db").arg("-f").arg(file);
            }
            Self::Envoy | Self::Kong { .. } => {
                let file = values.write(include_str!("../peers/envoy.yaml"), &folder.join("envoy.yaml"))?;
                command.arg("-c").arg(file).args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]);
            }
        }
        let mut service = Service::start(self.name(), &mut command, place.cpus.proxy, &folder)?;
        for listener in [http, h2c, https] {
            service.listens(listener).await?;
        }
        let listeners = Listeners { http, h2c: Some(h2c), https: Some(https) };
        Ok(Running { listeners, pid: Some(service.id()), service: Some(service) })
    }
}

/// The address in `http://HOST:PORT`.
fn address(url: &str) -> Result<SocketAddr> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url}: addresses are written http://HOST:PORT") };
    rest.trim_end_matches('/').to_socket_addrs()?.next().with_context(|| format!("{url} has no address"))
}

/// A gateway that takes requests.
pub struct Running {
    pub listeners: Listeners,
    /// Its process, where that is known: it and its descendants are measured.
    pub pid: Option<u32>,
    /// Nothing when somebody else has started it.
    pub service: Option<Service>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let values = Values::new([("a", "1".to_owned()), ("b", "2".to_owned())]);
        assert_eq!(values.fill("{{a}} {b} {{b}}").expect("all are known"), "1 {b} 2");
        assert!(values.fill("{{c}}").is_err());
    }

    #[test]
    fn peers_as_they_are_asked_for() {
        assert_eq!(Peer::parse("nginx").expect("known"), Peer::Nginx);
        let [proxy, admin] = [8000, 8001].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let kong = Peer::parse("kong=http://127.0.0.1:8000;http://127.0.0.1:8001/;42").expect("known");
        assert_eq!(kong, Peer::Kong { proxy, admin: Some(admin), pid: Some(42) });
        assert_eq!(Peer::parse("kong=http://127.0.0.1:8000").expect("known"), Peer::Kong { proxy, admin: None, pid: None });
        assert!(Peer::parse("kong").is_err());
        assert!(Peer::parse("caddy").is_err());
        assert!(Peer::parse("kong=https://x").is_err());
    }
}
