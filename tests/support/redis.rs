//! Real Redis servers on free ports of 127.0.0.1, stopped by their process id.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{FromRedisValue, IntoConnectionInfo, ToRedisArgs};

use super::ports::free_ports;

/// How long a server may take to come up, or a condition to come about, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server with a directory of its own. Dropping it kills the process.
pub struct RedisServer {
    child: Child,
    options: Vec<String>,
    password: Option<String>,
    /// The certificate of the authority that signed the server's, for a server that speaks TLS alone.
    pub authority: Option<PathBuf>,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[], None)
    }

    /// A server that wants a password of the default user.
    pub fn locked(password: &str) -> Self {
        Self::with(&["--requirepass", password], Some(password))
    }

    /// A server that speaks TLS alone, with a certificate for `redis.test`.
    pub fn tls() -> Self {
        Self::launch(&[], None, true)
    }

    /// A server with these options; `password` is what they ask for.
    pub fn with(options: &[&str], password: Option<&str>) -> Self {
        Self::launch(options, password, false)
    }

    fn launch(options: &[&str], password: Option<&str>, tls: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory for redis-server");
        let authority = tls.then(|| certificates(&directory));
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let [address] = free_ports();
        let child = spawn(address.port(), &directory, &options, tls);
        let mut server = Self { child, options, password: password.map(str::to_owned), authority, directory, port: address.port() };
        assert!(server.came_up(), "redis-server cannot be started");
        server
    }

    /// Waits until the server answers; false when it ends instead.
    fn came_up(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.child.try_wait().expect("a child of ours").is_some() {
                return false;
            }
            if self.answers().unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer");
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        if self.authority.is_some() {
            return Ok(true);
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        Ok(stream.read(&mut [0])? > 0)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.directory, &self.options, self.authority.is_some());
        assert!(self.came_up(), "redis-server cannot be started again");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small")), signal).expect("the process is there");
    }

    /// One command on a connection of its own, of database 0.
    pub fn ask<T: FromRedisValue>(&self, name: &str, arguments: impl ToRedisArgs) -> T {
        let mut info = format!("redis://127.0.0.1:{}", self.port).into_connection_info().expect("an address");
        if let Some(password) = &self.password {
            let login = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(login);
        }
        let mut connection = redis::Client::open(info).and_then(|client| client.get_connection()).expect("a connection");
        redis::cmd(name).arg(arguments).query(&mut connection).expect("an answer")
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask("KEYS", "*");
        keys.sort();
        keys
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, directory: &tempfile::TempDir, options: &[String], tls: bool) -> Child {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    match tls {
        true => command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]).args([
            "--tls-cert-file",
            "server.pem",
            "--tls-key-file",
            "server.key",
            "--tls-ca-cert-file",
            "ca.pem",
        ]),
        false => command.args(["--port", &port]),
    };
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(options);
    command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}

/// Writes an authority and a certificate for `redis.test`; where the authority's is.
fn certificates(directory: &tempfile::TempDir) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = Issuer::from_params(&params, &key);
    let server_key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["redis.test".to_owned()]).expect("a certificate");
    let certificate = params.signed_by(&server_key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).expect("written");
    write("ca.pem", authority.pem());
    write("server.pem", certificate.pem());
    write("server.key", server_key.serialize_pem());
    directory.path().join("ca.pem")
}
