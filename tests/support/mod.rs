//! Starts real gateways on free ports of 127.0.0.1 and stops them by their process id.

mod ports;
pub mod redis;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub use ports::free_ports;

/// How long a condition may take to come about on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_troop")
}

/// A running gateway with a directory of its own. Dropping it kills the process.
pub struct Node {
    child: Child,
    settings: Vec<(String, String)>,
    /// More variables of its environment.
    environment: Vec<(String, String)>,
    prefix: PathBuf,
    _directory: Option<tempfile::TempDir>,
    pub admin: SocketAddr,
    pub proxy: SocketAddr,
    pub tls: SocketAddr,
    pub status: SocketAddr,
}

impl Node {
    /// Starts a gateway with these settings over those that keep it off the usual ports, and waits until it answers.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the gateway");
        let prefix = directory.path().join("prefix");
        Self::launch(prefix, Some(directory), owned(settings), Vec::new())
    }

    /// The same in a directory of the caller's, with more variables in its environment.
    pub fn start_in(prefix: PathBuf, settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        Self::launch(prefix, None, owned(settings), owned(environment))
    }

    fn launch(
        prefix: PathBuf,
        directory: Option<tempfile::TempDir>,
        settings: Vec<(String, String)>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let [admin, proxy, tls, status] = free_ports();
        let mut command = command(&prefix, &settings, [admin, proxy, tls, status]);
        let child = command.envs(environment.iter().cloned()).spawn().expect("the gateway's process");
        let mut node = Self { child, settings, environment, prefix, _directory: directory, admin, proxy, tls, status };
        wait_for("the gateway answers", || {
            if let Ok(Some(ended)) = node.child.try_wait() {
                panic!("the gateway ended with {ended}:\n{}", node.log());
            }
            get(node.admin, "/status").is_some_and(|a| a.status == 200)
        });
        node
    }

    /// Starts it again, in the same directory, after it was stopped or killed.
    pub fn restart(mut self) -> Self {
        self.kill();
        let (prefix, directory) = (self.prefix.clone(), self._directory.take());
        Self::launch(prefix, directory, std::mem::take(&mut self.settings), std::mem::take(&mut self.environment))
    }

    /// The same with these settings too.
    pub fn restart_with(mut self, settings: &[(&str, String)]) -> Self {
        self.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.restart()
    }

    /// What the gateway has written about itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.prefix.with_extension("log")).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small")), signal).expect("the process is there");
    }

    /// Bytes of memory that the process has, as Linux counts.
    pub fn resident(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("Linux");
        text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4_096
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the process has ended by itself; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait_for("the gateway ends", || match self.child.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                true
            }
            _ => false,
        });
        code
    }

    /// A call of the Admin API with a JSON body; panics unless the answer is a success.
    pub fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.admin_answer(method, path, &body);
        assert!(answer.status < 300, "{method} {path} {body}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// A call of the Admin API with a JSON body.
    pub fn admin_answer(&self, method: &str, path: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let fields = if body.is_null() { "" } else { "Content-Type: application/json\r\n" };
        ask(self.admin, method, path, fields, text.as_bytes()).expect("the Admin API answers")
    }

    /// A request through the proxy.
    pub fn get(&self, path: &str) -> Answer {
        get(self.proxy, path).expect("the proxy answers")
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // what the gateway said is what one wants to read beside the failed assertion
            let _ = writeln!(std::io::stderr(), "--- log of the gateway ---\n{}", self.log());
        }
    }
}

/// The command that starts a gateway in the foreground.
pub fn command(prefix: &Path, settings: &[(String, String)], [admin, proxy, tls, status]: [SocketAddr; 4]) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(prefix.with_extension("log")).expect("a log file");
    let mut command = Command::new(program());
    command.arg("start").env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("KONG_PREFIX", prefix).env("KONG_ADMIN_LISTEN", admin.to_string()).env("KONG_STATUS_LISTEN", status.to_string());
    command.env("KONG_PROXY_LISTEN", format!("{proxy}, {tls} ssl http2")).env("KONG_NGINX_WORKER_PROCESSES", "2");
    for (name, value) in settings {
        command.env(format!("KONG_{}", name.to_uppercase()), value);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    command
}

/// Waits for a condition; panics when it does not come about.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited for too long: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|l| l.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }
}

/// A GET on a connection of its own; `None` when nobody answers.
pub fn get(at: SocketAddr, path: &str) -> Option<Answer> {
    ask(at, "GET", path, "", b"")
}

/// A request on a connection of its own. `fields` are whole lines.
pub fn ask(at: SocketAddr, method: &str, path: &str, fields: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body);
    }
    Some(answer)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok()).unwrap_or(0);
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else { break };
        out.extend_from_slice(chunk);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    out
}

/// An upstream that answers every request with the same text, until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
}

impl Upstream {
    pub fn start(text: &'static str) -> Self {
        Self::telling("", text)
    }

    /// With these header fields, which are whole lines.
    pub fn telling(fields: &'static str, text: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream, fields, text));
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers requests without a body, one after the other.
fn serve(mut stream: TcpStream, fields: &str, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{text}", text.len());
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            bytes.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}
