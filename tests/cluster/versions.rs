//! A rolling upgrade: a node of a later version, which has entities and fields that the others do not know, among nodes of this one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::engine::{Commit, Concern, Draft, Kept, Meta};
use cluster::id::{Key, NodeId};
use cluster::mesh::ca::{self, Pair};
use cluster::mesh::tls::Tls;
use cluster::mesh::{self, Security};
use cluster::record::Record;
use cluster::replica::{Change, Conflict};
use cluster::{Config, Handle, Storage};
use serde_json::{Value, json};

use super::{Cloud, proxies, status};
use crate::support::{Upstream, free_ports, get, wait_for};

const LATER: &str = "99.0.0";

/// The disk of the later node. Everything is in effect there.
#[derive(Default)]
struct Disk {
    kept: Mutex<(BTreeMap<Key, Record>, Meta)>,
    generation: AtomicU64,
}

#[async_trait]
impl Storage for Disk {
    async fn load(&self) -> Result<Kept, String> {
        let kept = self.kept.lock().expect("a lock");
        Ok(Kept { records: kept.0.values().cloned().collect(), meta: kept.1.clone() })
    }

    async fn commit(&self, changes: Commit) -> Result<(), String> {
        let mut kept = self.kept.lock().expect("a lock");
        kept.0.extend(changes.put.into_iter().map(|record| (record.key.clone(), record)));
        kept.0.retain(|key, _| !changes.removed.contains(key));
        kept.1 = changes.meta;
        Ok(())
    }

    async fn apply(&self, _: Vec<Change>) -> Vec<(Key, String)> {
        Vec::new()
    }

    async fn load_conflicts(&self) -> Result<Vec<(u64, Conflict)>, String> {
        Ok(Vec::new())
    }

    async fn keep_conflicts(&self, _: Vec<(u64, Conflict)>, _: u64) -> Result<(), String> {
        Ok(())
    }

    async fn next_generation(&self) -> Result<u64, String> {
        Ok(self.generation.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Starts a node of the later version in this process; it answers once it has what the others have.
async fn later(cloud: &Cloud) -> (Handle, Arc<Disk>) {
    let read = |name: &str| std::fs::read_to_string(cloud.directory.path().join("0").join(name)).expect("a file of the authority");
    let (authority, node) = (Pair { certificate: read("ca.crt"), key: read("ca.key") }, NodeId::random());
    let pair = ca::issue(&authority, node, Duration::from_secs(3_600)).expect("a certificate");
    let tls = Tls::new(pair.certificate.as_bytes(), pair.key.as_bytes(), authority.certificate.as_bytes()).expect("certificates");
    let [listen] = free_ports();
    let mesh = mesh::Config {
        node,
        cluster: "troop".to_owned(),
        listen,
        advertise: listen.to_string(),
        seeds: vec![cloud.listens[0].to_string()],
        security: Security::Tls(Arc::new(tls)),
    };
    let disk = Arc::<Disk>::default();
    let handle = cluster::start(Config::new(mesh, "later", LATER), disk.clone()).await.expect("a node");
    tokio::time::timeout(Duration::from_secs(60), handle.ready()).await.expect("in time").expect("it runs");
    (handle, disk)
}

fn draft(kind: &str, id: &str, body: &Value, parents: Vec<Key>) -> Draft {
    Draft { key: Key::new(kind, id), parents, unique: Vec::new(), body: Some(body.to_string().as_bytes().into()), expect: None }
}

/// Waits until the nodes of this version and the later one have the same digest.
fn agree(cloud: &Cloud, among: usize) {
    for node in &cloud.nodes {
        wait_for("the versions agree", || {
            let nodes = status(node)["nodes"].as_array().cloned().unwrap_or_default();
            nodes.len() == among && nodes.iter().all(|other| other["digest"] == nodes[0]["digest"] && other["alive"] == true)
        });
    }
}

#[test]
fn versions_that_differ_serve_side_by_side() {
    let mut cloud = Cloud::start(2);
    let upstream = Upstream::start("from upstream");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (handle, disk) = runtime.block_on(later(&cloud));
    let service = cloud.nodes[0].admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    let id = service["id"].as_str().expect("an id").to_owned();
    cloud.nodes[0].admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/r"]}));
    agree(&cloud, 3);

    // what the later version knows and this one does not: an entity, and a field of a service
    let mut changed = service.clone();
    changed["tags"] = json!(["later"]);
    changed["weather"] = json!({"sunny": true});
    let drafts = vec![
        draft("services", &id, &changed, Vec::new()),
        draft("moods", "m", &json!({"id": "m", "mood": "good"}), vec![Key::new("services", id.as_str())]),
    ];
    let written = runtime.block_on(handle.write(drafts, Concern::None, Duration::from_secs(5)));
    assert_eq!(written.expect("the later node takes it").versions.len(), 2);
    agree(&cloud, 3);
    for node in &cloud.nodes {
        wait_for("the change is in effect", || {
            get(node.admin, "/services/s").is_some_and(|answer| answer.json()["tags"] == json!(["later"])) && proxies(node, "/r")
        });
        assert!(status(node)["nodes"].as_array().expect("nodes").iter().any(|other| other["version"] == LATER));
    }

    // a node that starts anew has kept what it does not understand, and a fresh one of this version gets it from it
    let first = cloud.nodes.remove(0).restart();
    cloud.nodes.insert(0, first);
    cloud.add();
    agree(&cloud, 4);
    let moods: Vec<Record> = disk.kept.lock().expect("a lock").0.values().filter(|record| &*record.key.kind == "moods").cloned().collect();
    assert_eq!(moods.len(), 1);

    // an edit by a node that does not know the field would lose it: it is refused, and what it does not touch can be edited
    let answer = cloud.nodes[1].admin_answer("PATCH", "/services/s", &json!({"retries": 3}));
    assert_eq!((answer.status, &answer.json()["fields"]["weather"]), (400, &json!("unknown field")));
    cloud.nodes[1].admin("PATCH", "/routes/r", json!({"tags": ["edited"]}));
    agree(&cloud, 4);
    let record = runtime.block_on(handle.record(Key::new("services", id.as_str()))).expect("it runs").expect("a record");
    let body: Value = serde_json::from_slice(record.body.as_deref().expect("a body")).expect("an object");
    assert_eq!(body, changed);
}
