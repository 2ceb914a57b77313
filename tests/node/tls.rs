//! TLS, HTTP/2 and the PROXY protocol at the listeners of a whole node, and certificates that change while it runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Node, Upstream, ask, free_ports, wait_for};

/// What curl says of a request: its output and whether it succeeded.
fn curl(arguments: &[&str]) -> (String, bool) {
    let output = Command::new("curl").args(["-sk", "--max-time", "20"]).args(arguments).output().expect("curl runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// The name of the certificate's subject that a server shows.
fn subject(at: SocketAddr, name: &str) -> String {
    let script = format!("openssl s_client -connect {at} -servername {name} < /dev/null 2> /dev/null | openssl x509 -noout -subject");
    let output = Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Writes a certificate for this name, and its key.
fn write_pair(folder: &Path, name: &str) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a good name");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), certificate.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
}

fn with_route(settings: &[(&str, &str)], upstream: &Upstream) -> Node {
    let node = Node::start(settings);
    node.admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    node
}

#[test]
fn versions_of_http_and_tls() {
    let upstream = Upstream::start("hello");
    let node = with_route(&[], &upstream);
    let (plain, tls) = (format!("http://{}/", node.proxy), format!("https://{}/", node.tls));
    let version = ["-w", " %{http_version}"];
    assert_eq!(curl(&[version[0], version[1], "--http2", &tls]).0, "hello 2");
    assert_eq!(curl(&[version[0], version[1], "--http1.1", &tls]).0, "hello 1.1");
    assert_eq!(curl(&[version[0], version[1], "--http1.0", &plain]).0, "hello 1.1", "an answer names our own version");
    assert!(curl(&["--tls-max", "1.2", &tls]).1);
    assert!(!curl(&["--tls-max", "1.1", &tls]).1);
    assert!(!curl(&["--http2-prior-knowledge", &plain]).1, "the listener does not say http2");
    let refused = ask(node.tls, "GET", "/", "", b"").expect("an answer in plain text");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("The plain HTTP request was sent to HTTPS port"), "{}", refused.text());
}

#[test]
fn http2_without_tls_and_tls_13_alone() {
    let upstream = Upstream::start("hello");
    let [plain, tls] = free_ports();
    let listen = format!("{plain} http2, {tls} ssl");
    let node = with_route(&[("proxy_listen", &listen), ("ssl_cipher_suite", "modern")], &upstream);
    let url = format!("http://{plain}/");
    assert_eq!(curl(&["-w", " %{http_version}", "--http2-prior-knowledge", &url]).0, "hello 2");
    assert_eq!(curl(&["-w", " %{http_version}", "--http1.1", &url]).0, "hello 1.1");
    let url = format!("https://{tls}/");
    assert_eq!(curl(&["-w", " %{http_version}", "--http2", &url]).0, "hello 1.1", "the listener does not say http2");
    assert!(!curl(&["--tls-max", "1.2", &url]).1);
    drop(node);
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let upstream = Upstream::start("hello");
    let [plain, tls] = free_ports();
    let listen = format!("{plain} proxy_protocol, {tls} ssl proxy_protocol");
    let settings = [("proxy_listen", listen.as_str()), ("trusted_ips", "127.0.0.1"), ("real_ip_header", "proxy_protocol")];
    let node = with_route(&settings, &upstream);
    node.admin("POST", "/plugins", json!({"name": "ip-restriction", "config": {"allow": ["198.51.100.7"]}}));
    let status = |client: &str| {
        let mut stream = TcpStream::connect(plain).expect("a connection");
        let request = format!("PROXY TCP4 {client} 127.0.0.1 4000 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!(status("198.51.100.7"), "200");
    assert_eq!(status("198.51.100.8"), "403");
    // before TLS: curl says its own address
    let url = format!("https://{tls}/");
    let code = ["-o", "/dev/null", "-w", "%{http_code}", "--haproxy-protocol"];
    assert_eq!(curl(&[&code[..], &[&url]].concat()).0, "403");
    for url in [format!("http://{plain}/"), url] {
        assert!(!curl(&[&url]).1, "a connection without the header is closed: {url}");
    }
}

#[test]
fn certificates_change_while_the_node_runs() {
    let upstream = Upstream::start("hello");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a readable path").to_owned();
    write_pair(folder.path(), "first.test");
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let node = with_route(&[("ssl_cert", &cert), ("ssl_cert_key", &key)], &upstream);
    assert!(subject(node.tls, "a.test").ends_with("first.test"));

    // by the Admin API
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/tls").join(name)).expect("a file")
    };
    let body = json!({"cert": read("exact.crt"), "key": read("exact.key"), "snis": ["a.test"]});
    let configured = node.admin("POST", "/certificates", body);
    let shown = subject(node.tls, "a.test");
    assert!(!shown.ends_with("first.test"), "{shown}");
    let changed = json!({"cert": read("wild.crt"), "key": read("wild.key")});
    node.admin("PATCH", &format!("/certificates/{}", configured["id"].as_str().expect("an id")), changed);
    assert_ne!(subject(node.tls, "a.test"), shown);

    // by a reload
    write_pair(folder.path(), "second.test");
    node.signal(Signal::SIGHUP);
    wait_for("the new certificate", || subject(node.tls, "b.test").ends_with("second.test"));
    std::fs::write(folder.path().join("key.pem"), "no key").expect("written");
    node.signal(Signal::SIGHUP);
    wait_for("the complaint", || node.log().contains("the settings cannot be read again"));
    assert!(subject(node.tls, "b.test").ends_with("second.test"), "the old one stays");
}

/// Requests go on while workers are replaced; a kept connection is closed between two requests, as at any drain.
#[test]
fn a_reload_loses_no_request() {
    let upstream = Upstream::start("hello");
    let node = with_route(&[], &upstream);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, proxy) = (&stop, node.proxy);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut answered = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        assert_eq!(crate::support::get(proxy, "/").map(|answer| answer.status), Some(200));
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        for n in 1..=5 {
            node.signal(Signal::SIGHUP);
            wait_for("a reload", || node.log().matches("settings and certificates are read again").count() == n);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(clients.into_iter().map(|client| client.join().expect("a client")).sum::<usize>() > 0);
    });
}
