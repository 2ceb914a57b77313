//! An upstream that answers as a test says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::Node;

/// An upstream whose answers a function writes, one thread a connection, until the process ends.
pub struct Scripted {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    /// `answer` gets the head of a request without a body, and its number from 1. An error closes the connection.
    #[allow(clippy::disallowed_methods, reason = "an upstream of a test is no task of a runtime")]
    pub fn start(answer: impl Fn(&str, usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (asked, answer) = (Arc::<AtomicUsize>::default(), Arc::new(answer));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                std::thread::spawn(move || {
                    while let Some(head) = head(&mut stream) {
                        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                        if answer(&head, number, &mut stream).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// An upstream that answers with these header lines and this text.
    pub fn plain(fields: &'static str, text: &'static str) -> Self {
        Self::start(move |head, _, stream| stream.write_all(whole(head, fields, text).as_bytes()))
    }

    /// How many requests have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A gateway with a service `s`, this upstream behind it, and a route `r` to it for all paths.
    pub fn behind(&self, settings: &[(&str, &str)]) -> Node {
        let node = Node::start(settings);
        node.admin("POST", "/services", json!({"name": "s", "url": format!("http://{}", self.address), "retries": 0}));
        node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
        node
    }
}

/// A whole answer.
pub fn whole(head: &str, fields: &str, text: &str) -> String {
    let body = if head.starts_with("HEAD") { "" } else { text };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", text.len())
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
