//! Who dials the port of a node and is none, seen from the outside. `cluster/tests/nodes/strangers.rs` has the frames of members
//! that are not what they should be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ::cluster::id::NodeId;
use ::cluster::mesh::ca;
use ::cluster::mesh::frame::{self, Frame, Hello};
use ::cluster::mesh::tls::Tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{figure, metric};
use crate::cluster::{Cloud, proxies, publish, status};
use crate::support::{Upstream, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody with these certificates says hello as this node; what it was told before the connection ended.
fn hello(to: SocketAddr, tls: &Tls, as_node: NodeId) -> Option<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.ok()?;
        let (mut stream, _) = tls.connect(stream).await.ok()?;
        let hello = Hello { protocol: 1, oldest: 1, cluster: "troop".into(), node: as_node, advertise: "127.0.0.1:1".into(), probe: false };
        frame::write(&mut stream, &Frame::Hello(hello)).await.ok()?;
        stream.flush().await.ok()?;
        let mut said = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "the connection is held");
        Some(said)
    })
}

#[test]
fn strangers_at_the_port_of_the_cluster_change_nothing() {
    let cloud = Cloud::start(2);
    let (node, port) = (&cloud.nodes[0], cloud.listens[0]);
    let upstream = Upstream::start("from upstream");
    publish(node, "own", &upstream);
    cloud.meet();
    wait_for("the route is there", || proxies(node, "/own"));
    let seen = |node| status(node)["nodes"].as_array().cloned().unwrap_or_default();
    let before = seen(node);
    let refused = || metric(node, "troop_cluster_connections_refused_total");
    let read = |name: &str| std::fs::read_to_string(cloud.directory.path().join("0").join(name)).expect("a file");
    let (authority, other) = (ca::Pair { certificate: read("ca.crt"), key: read("ca.key") }, ca::create("other").expect("an authority"));
    let certificates = |ca: &ca::Pair, node: NodeId| {
        let pair = ca::issue(ca, node, PATIENCE * 60).expect("a certificate");
        Tls::new(pair.certificate.as_bytes(), pair.key.as_bytes(), authority.certificate.as_bytes()).expect("certificates")
    };
    let (stranger, known) = (NodeId::random(), before.iter().find(|node| node["self"] != true).expect("the other")["id"].clone());
    let known: NodeId = known.as_str().and_then(|id| id.parse().ok()).expect("an id");

    // Another authority's certificate, and one's own certificate with another node's id.
    let count = refused();
    let _ = hello(port, &certificates(&other, stranger), stranger);
    let _ = hello(port, &certificates(&authority, stranger), known);
    wait_for("they are counted", || refused() >= count + 2.0);
    assert!(node.log().contains("refused"), "{}", node.log());

    // A hundred megabytes that are no TLS.
    let (memory, count) = (node.resident(), refused());
    let garbage = vec![0xa5_u8; 1024 * 1024];
    let (mut sent, begin) = (0, Instant::now());
    while sent < 100 * 1024 * 1024 && begin.elapsed() < PATIENCE {
        let Ok(mut stream) = TcpStream::connect(port) else { continue };
        let _ = stream.set_write_timeout(Some(PATIENCE));
        while let Ok(bytes @ 1..) = stream.write(&garbage) {
            sent += bytes;
        }
    }
    // What another connection said is of no use on this one: its keys are others.
    let recorded: Vec<u8> = {
        let mut stream = TcpStream::connect(port).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let _ = stream.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said
    };
    for _ in 0..3 {
        let mut stream = TcpStream::connect(port).expect("a connection");
        let _ = stream.write_all(&recorded);
    }
    // Many who say nothing.
    let silent: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(port).ok()).collect();
    wait_for("they are counted", || refused() >= count + 100.0);
    let grown = node.resident().saturating_sub(memory);
    assert!(grown < 64 * 1024 * 1024, "memory grew by {grown} bytes after {sent}");
    drop(silent);

    // It is as it was: the same members, the same records, and it works.
    assert!(proxies(node, "/own"));
    cloud.meet();
    let after = seen(node);
    let ids = |all: &[Value]| all.iter().map(|node| (node["id"].clone(), node["digest"].clone())).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    cloud.nodes[1].admin("POST", "/consumers", json!({"username": "after"}));
    wait_for("a write is there", || node.admin_answer("GET", "/consumers/after", &Value::Null).status == 200);
    // A connection is logged at most every ten seconds, however many there are.
    let lines = node.log().lines().filter(|line| line.contains("refused")).count();
    assert!(lines <= 10, "{lines} lines");
    figure(&format!(
        "strangers: {} MB of garbage and {} refused connections, memory grew by {} KiB, {lines} lines in the log",
        sent / 1024 / 1024,
        refused(),
        grown / 1024
    ));
}
