//! A disk that is full. Needs root, to mount a small one.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{figure, metric, root, skipped};
use crate::cluster::{Cloud, borrowed, join, proxies, publish, settings};
use crate::support::{Node, Upstream, free_ports, wait_for};

/// A small file system, gone when it is dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let options = ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"];
        let done = Command::new("mount").args(options).arg(at).output().is_ok_and(|output| output.status.success());
        done.then_some(Self(at))
    }

    /// Takes all that is left.
    fn fill(&self) {
        let _ = std::fs::write(self.0.join("filler"), vec![0; 16 * 1024 * 1024]);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// What a node says of itself in its status.
fn last_error(node: &Node) -> Value {
    let status = node.admin("GET", "/cluster/status", Value::Null);
    let own = status["nodes"].as_array().expect("a list").iter().find(|entry| entry["self"] == true);
    own.expect("its own entry")["last_error"].clone()
}

#[test]
fn a_node_whose_disk_is_full_refuses_writes_and_goes_on_serving() {
    if !root() {
        return skipped("a small disk can be mounted by root only");
    }
    // Outlives the cloud, and with it the log of the node.
    let own = tempfile::tempdir().expect("a directory");
    let mut cloud = Cloud::start(2);
    let folder = own.path().to_owned();
    let prefix = folder.join("prefix");
    let Some(disk) = Small::mount(&prefix) else { return skipped("nothing can be mounted here") };
    let seeds = cloud.listens[0].to_string();
    let certificates = folder.join("certificates");
    join(&cloud.directory.path().join("0"), &seeds, &certificates);
    let [listen] = free_ports();
    let own = settings(&certificates, listen, &seeds, "small");
    cloud.nodes.push(Node::start_in(prefix.clone(), &borrowed(&own), &[]));
    cloud.meet();
    let upstream = Upstream::start("from upstream");
    publish(&cloud.nodes[0], "small", &upstream);
    cloud.meet();
    let [a, _, small] = &cloud.nodes[..] else { panic!("three nodes") };
    wait_for("the route is there", || proxies(small, "/small"));

    disk.fill();
    // Large enough that pages which the store has left over do not hold it.
    let large = |name: &str| json!({"username": name, "tags": [("x").repeat(900_000)]});
    let mut refused = None;
    let mut taken: Vec<String> = Vec::new();
    wait_for("writes are refused", || {
        let name = format!("full-{}", taken.len());
        let answer = small.admin_answer("POST", "/consumers", &large(&name));
        if answer.status == 201 {
            taken.push(name);
            disk.fill();
            return false;
        }
        refused = Some((answer.status, answer.text()));
        true
    });
    let (status, why) = refused.expect("an answer");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("disk"), "the reason is told: {why}");
    wait_for("it is counted", || metric(small, "troop_cluster_commits_failed_total") > 0.0);
    assert_eq!(metric(small, "troop_store_writable"), 0.0);
    assert!(metric(small, "troop_store_errors_total") > 0.0);
    let error = last_error(small);
    assert!(error.as_str().is_some_and(|error| error.contains("No space left on device")), "{error}");
    assert!(small.log().contains("changes of the cluster cannot be stored"));
    // It serves, and hears what others write as far as it can.
    assert!(proxies(small, "/small"));
    let written = a.admin_answer("POST", "/consumers", &large("meanwhile"));
    assert_eq!(written.status, 201, "{}", written.text());
    a.admin("PATCH", "/routes/small", json!({"paths": ["/small", "/meanwhile"]}));
    assert_eq!(small.admin_answer("GET", "/services/small", &Value::Null).status, 200);
    assert!(proxies(small, "/small"));

    disk.free();
    let begin = std::time::Instant::now();
    wait_for("it takes writes again", || small.admin_answer("PUT", "/consumers/again", &json!({})).status < 300);
    let again = begin.elapsed();
    cloud.meet();
    let small = &cloud.nodes[2];
    wait_for("what others wrote is in effect", || proxies(small, "/meanwhile"));
    for node in &cloud.nodes {
        for name in taken.iter().map(String::as_str).chain(["meanwhile", "again"]) {
            assert_eq!(node.admin_answer("GET", &format!("/consumers/{name}"), &Value::Null).status, 200, "{name}");
        }
    }
    let equal = begin.elapsed();
    assert_eq!((metric(small, "troop_store_writable"), last_error(small)), (1.0, Value::Null));
    // And all of it is on its disk.
    let small = cloud.nodes.remove(2).restart();
    assert_eq!(small.admin("GET", "/consumers/meanwhile", Value::Null)["username"], "meanwhile");
    cloud.nodes.push(small);
    cloud.meet();
    // The disk goes after the node that is on it.
    cloud.nodes.clear();
    figure(&format!(
        "full disk: refused with {status} {}; writes again {} ms after there was space, all equal {} ms after",
        why.trim_end(),
        again.as_millis(),
        equal.as_millis()
    ));
}
