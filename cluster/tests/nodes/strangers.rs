//! Who should not get in: nothing changes, memory stays bounded, and it is counted.

use std::sync::Arc;
use std::time::Duration;

use cluster::engine::Concern;
use cluster::id::NodeId;
use cluster::mesh::ca::{self, Pair};
use cluster::mesh::frame::{self, Frame, Hello};
use cluster::mesh::tls::{Stream, Tls};
use cluster::mesh::{self, Mesh, MeshError, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Cloud, draft, tls, until};

const PATIENCE: Duration = Duration::from_secs(20);

async fn refused(cloud: &Cloud) -> u64 {
    cloud.nodes[0].handle.status().await.expect("a status").traffic.refused
}

/// Opens a connection to the first node as somebody.
async fn dial(cloud: &Cloud, tls: &Tls) -> std::io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(cloud.nodes[0].address).await?;
    tls.connect(stream).await.map(|(stream, _)| stream).map_err(std::io::Error::other)
}

fn hello(node: NodeId) -> Frame {
    Frame::Hello(Hello { protocol: 1, oldest: 1, cluster: "test".into(), node, advertise: String::new(), probe: false })
}

/// Whether the node ends the connection, whatever it says before.
async fn ends(mut stream: impl AsyncReadExt + Unpin) -> bool {
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.is_ok()
}

async fn still_works(cloud: &Cloud) {
    cloud.until_live(0, cloud.nodes.len() - 1).await;
    let written = cloud.nodes[0].handle.write(vec![draft("after", "{}")], Concern::All, PATIENCE).await.expect("a write");
    assert_eq!(written.applied, cloud.nodes.len(), "{}", cloud.describe().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_another_authority_and_expired_ones_do_not_get_in() {
    let cloud = Cloud::start(2).await;
    let before = refused(&cloud).await;
    let other = ca::create("other").expect("an authority");
    let stranger = NodeId::random();
    // Trusts our authority, and shows a certificate of its own.
    let pair = ca::issue(&other, stranger, PATIENCE).expect("a certificate");
    let wrong = Tls::new(pair.certificate.as_bytes(), pair.key.as_bytes(), cloud.ca.certificate.as_bytes()).expect("certificates");
    // Made two hours ago for an hour.
    let expired = expired(&cloud.ca, stranger);
    for tls in [wrong, expired] {
        // With TLS 1.3 the client learns only afterwards that its certificate was refused.
        if let Ok(mut stream) = dial(&cloud, &tls).await {
            let _ = frame::write(&mut stream, &hello(stranger)).await;
            let _ = stream.flush().await;
            assert!(ends(stream).await);
        }
    }
    until("they are counted", async || refused(&cloud).await >= before + 2).await;
    still_works(&cloud).await;
    assert_eq!(cloud.nodes[0].handle.status().await.expect("a status").alive.len(), 1);
}

fn expired(ca: &Pair, node: NodeId) -> Tls {
    use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key).expect("a key")).expect("an issuer");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::new(vec![node.dns_name()]).expect("a name");
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(7_200)).into();
    params.not_after = (now - Duration::from_secs(3_600)).into();
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    Tls::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes(), ca.certificate.as_bytes()).expect("certificates")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cannot_say_that_it_is_another_one() {
    let cloud = Cloud::start(2).await;
    let before = refused(&cloud).await;
    let tls = tls(&cloud.ca, NodeId::random());
    let mut stream = dial(&cloud, &tls).await.expect("a good certificate");
    frame::write(&mut stream, &hello(cloud.nodes[1].node)).await.expect("a frame");
    stream.flush().await.expect("a frame");
    assert!(ends(stream).await);
    until("it is counted", async || refused(&cloud).await > before).await;
    still_works(&cloud).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_certificate_of_another_address_is_not_spoken_to() {
    let cloud = Cloud::start(1).await;
    let impostor = NodeId::random();
    let config = mesh::Config {
        node: impostor,
        cluster: "test".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: String::new(),
        seeds: vec![],
        security: Security::Tls(tls(&cloud.ca, NodeId::random())),
    };
    let (events, _heard) = tokio::sync::mpsc::channel(1);
    assert!(matches!(Mesh::start(config, events).await, Err(MeshError::OtherNode { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_another_name_names_no_node() {
    use rcgen::{CertificateParams, KeyPair};
    let key = KeyPair::generate().expect("a key");
    for names in [vec!["localhost".to_owned()], vec![NodeId(1).dns_name(), NodeId(2).dns_name()], vec![]] {
        let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
        let pem = certificate.pem();
        assert!(Tls::new(pem.as_bytes(), key.serialize_pem().as_bytes(), pem.as_bytes()).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_a_member_that_are_cut_off_repeated_or_nonsense_change_nothing() {
    let cloud = Cloud::start(2).await;
    let node = NodeId::random();
    let tls: Arc<Tls> = tls(&cloud.ca, node);
    let digest = || async { cloud.nodes[0].handle.status().await.expect("a status") };
    let before = digest().await;
    let open = async || {
        let mut stream = dial(&cloud, &tls).await.expect("a good certificate");
        frame::write(&mut stream, &hello(node)).await.expect("a frame");
        stream.flush().await.expect("a frame");
        frame::read(&mut stream, frame::MAX_HELLO).await.expect("a frame").expect("an answer");
        stream
    };
    // Nonsense in a frame is counted and passed over; so is a repeated acknowledgement of nothing.
    let mut stream = open().await;
    let nonsense = Frame::Message(vec![0xee; 5_000]);
    let ack = Frame::Message(cluster::wire::Message::Ack { seq: 7, refused: 0 }.encode());
    let unreadable = cluster::wire::Message::Push { seq: 1, records: vec![cluster::wire::Blob(vec![9; 100])] };
    for frame in [&nonsense, &ack, &ack, &nonsense, &Frame::Message(unreadable.encode()), &Frame::Gossip(vec![0xff; 900])] {
        frame::write(&mut stream, frame).await.expect("a frame");
    }
    stream.flush().await.expect("frames");
    until("they are counted", async || digest().await.traffic.undecodable >= before.traffic.undecodable + 2).await;
    // A frame that ends too early, and one that is longer than any may be, end the connection.
    let mut stream = open().await;
    stream.write_all(&Frame::Message(vec![1; 1_000]).encode()[..500]).await.expect("half a frame");
    stream.shutdown().await.expect("an end");
    assert!(ends(stream).await);
    let mut stream = open().await;
    stream.write_all(&u32::MAX.to_be_bytes()).await.expect("a length");
    stream.flush().await.expect("a length");
    assert!(ends(stream).await);
    still_works(&cloud).await;
    let after = digest().await;
    assert_eq!(after.status.digest.count, before.status.digest.count + 1);
    assert_eq!(after.status.counters.unreadable, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_of_garbage_take_no_memory() {
    let cloud = Cloud::start(2).await;
    let before = refused(&cloud).await;
    let memory = resident();
    let garbage = vec![0xa5_u8; 1024 * 1024];
    let mut sent = 0_usize;
    // Each connection is ended after a few bytes, so it takes many of them.
    let begin = tokio::time::Instant::now();
    while sent < 100 * 1024 * 1024 && begin.elapsed() < PATIENCE {
        let Ok(mut stream) = TcpStream::connect(cloud.nodes[0].address).await else { continue };
        while let Ok(bytes) = stream.write(&garbage).await {
            sent += bytes;
        }
    }
    // Hundreds that say nothing at all.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(cloud.nodes[0].address).await.expect("a connection"));
    }
    until("they are counted", async || refused(&cloud).await > before + 50).await;
    let grown = resident().saturating_sub(memory);
    assert!(grown < 64 * 1024 * 1024, "memory grew by {grown} bytes after {sent}");
    drop(silent);
    still_works(&cloud).await;
}

/// Bytes of memory that this process has, as Linux counts.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tls_only_loopback_is_spoken_to() {
    let config = |listen: [u8; 4]| mesh::Config {
        node: NodeId::random(),
        cluster: "test".into(),
        listen: (listen, 0).into(),
        advertise: String::new(),
        seeds: vec![],
        security: Security::Plaintext,
    };
    let (events, _heard) = tokio::sync::mpsc::channel(1);
    assert!(matches!(Mesh::start(config([0, 0, 0, 0]), events.clone()).await, Err(MeshError::NotLoopback(_))));
    assert!(Mesh::start(config([127, 0, 0, 1]), events).await.is_ok());
}
