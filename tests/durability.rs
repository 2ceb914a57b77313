//! What a node has acknowledged outlives the node, however it ends.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::admin::client::send;

/// Writers at once.
const WRITERS: usize = 8;
/// Writes that are begun.
const WRITES: usize = 1000;

/// A node of its own process with an empty prefix.
struct Node {
    process: Child,
    admin: SocketAddr,
}

impl Node {
    /// Starts a node and waits until its Admin API answers.
    fn start(prefix: &Path) -> Self {
        let admin = free_address();
        let process = command(prefix).env("KONG_ADMIN_LISTEN", admin.to_string()).spawn().expect("the binary is built");
        let mut node = Self { process, admin };
        let begun = Instant::now();
        while TcpStream::connect(admin).is_err() {
            assert!(node.process.try_wait().expect("its state is known").is_none(), "the node ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "the node does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        node
    }

    fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(prefix: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troop"));
    command.arg("start").env("KONG_PREFIX", prefix);
    command.env("KONG_PROXY_LISTEN", free_address().to_string()).env("KONG_STATUS_LISTEN", "off").env("KONG_ADMIN_LISTEN", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Creates a consumer. Nothing when the node goes away meanwhile.
fn create(admin: SocketAddr, name: &str) -> io::Result<u16> {
    let body = json!({"username": name}).to_string();
    let mut stream = TcpStream::connect(admin)?;
    let length = body.len();
    let head = "POST /consumers HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn usernames(admin: SocketAddr) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut path = "/consumers?size=1000".to_owned();
    loop {
        let page = send(admin, "GET", &path, &[], b"").expect(200);
        let rows = page["data"].as_array().expect("a list");
        names.extend(rows.iter().filter_map(|row| row["username"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => path = format!("{next}&size=1000"),
            None => return names,
        }
    }
}

#[test]
fn an_acknowledged_write_survives_a_kill() {
    let prefix = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(prefix.path());
    let admin = node.admin;
    let next = AtomicUsize::new(0);
    let acknowledged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= WRITES {
                        return;
                    }
                    let name = format!("user-{n}");
                    match create(admin, &name) {
                        Ok(201) => acknowledged.lock().expect("no writer panics").push(name),
                        Ok(status) => panic!("status {status}"),
                        Err(_) => return,
                    }
                }
            });
        }
        while acknowledged.lock().expect("no writer panics").len() < WRITES / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        node.kill();
    });
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    assert!(acknowledged.len() < WRITES, "the node was killed in the middle");
    let node = Node::start(prefix.path());
    let found = usernames(node.admin);
    let lost: Vec<_> = acknowledged.iter().filter(|name| !found.contains(*name)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
}

#[test]
fn a_damaged_store_ends_the_start_with_advice() {
    let prefix = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(prefix.path());
    assert_eq!(create(node.admin, "a").ok(), Some(201));
    node.kill();
    let store = prefix.path().join("data/troop.redb");
    std::fs::write(&store, "this is no store").expect("a file");
    let (ended, told) = ends(&mut command(prefix.path()));
    assert!(!ended, "{told}");
    assert!(told.contains("troop.redb") && told.contains("restore it from a backup"), "{told}");
}

#[test]
fn a_second_node_on_the_same_prefix_is_refused() {
    let prefix = tempfile::tempdir().expect("a directory");
    let _node = Node::start(prefix.path());
    let (ended, told) = ends(&mut command(prefix.path()));
    assert!(!ended, "{told}");
    assert!(told.contains("prefix"), "{told}");
}

/// Runs a command that is expected to end by itself: whether it succeeded, and what it told.
fn ends(command: &mut Command) -> (bool, String) {
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().expect("its state is known") {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(30) {
            let _ = process.kill();
            panic!("the command does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut told = String::new();
    let _ = process.stdout.take().expect("it is piped").read_to_string(&mut told);
    let _ = process.stderr.take().expect("it is piped").read_to_string(&mut told);
    (status.success(), told)
}
