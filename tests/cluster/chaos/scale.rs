//! Many nodes. `CLUSTER_SCALE_WRITES=1000` makes it as busy as what is promised.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Addresses, Ledger, Writers, figure, number_of};
use crate::cluster::{Cloud, status};
use crate::support::wait_for;

const MANY: usize = 10;
const WRITES: u32 = 400;

#[test]
fn ten_nodes_take_many_writes_and_become_three() {
    let begin = Instant::now();
    let mut cloud = Cloud::start(MANY);
    let formed = begin.elapsed();
    let admin = Addresses::of(&cloud.nodes, |node| node.admin);
    let writers = Writers::every(Duration::from_millis(1));
    let writes = usize::try_from(number_of("CLUSTER_SCALE_WRITES", WRITES)).expect("few writes");
    let begin = Instant::now();
    let ledger = std::thread::scope(|scope| {
        let tasks = ["a", "b", "c", "d"].map(|name| {
            let (writers, admin) = (&writers, &admin);
            scope.spawn(move || writers.run(name, admin))
        });
        while writers.made() < writes && begin.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(10));
        }
        writers.stop();
        tasks.into_iter().map(|task| task.join().expect("a writer")).fold(Ledger::default(), Ledger::join)
    });
    let written = begin.elapsed();
    let agreement = cloud.agreement();
    cloud.check(&ledger);
    let (made, refused, unanswered) = (ledger.acknowledged(), ledger.refused, ledger.unanswered);
    assert!(made >= writes * 9 / 10, "{made} writes, {refused} refused, {unanswered} unanswered");

    // Seven go for good, and the others forget them.
    let begin = Instant::now();
    let gone: Vec<String> =
        cloud.nodes[3..].iter().map(|node| node.admin("GET", "/", Value::Null)["node_id"].as_str().expect("an id").to_owned()).collect();
    cloud.nodes.truncate(3);
    for id in &gone {
        let path = format!("/cluster/nodes/{id}");
        wait_for("it is missed", || cloud.nodes[0].admin_answer("DELETE", &path, &Value::Null).status == 204);
    }
    cloud.meet();
    let back = begin.elapsed();
    for node in &cloud.nodes {
        assert_eq!(status(node)["nodes"].as_array().map(Vec::len), Some(3));
    }
    cloud.check(&ledger);
    cloud.nodes[2].admin("PUT", "/consumers/after", serde_json::json!({}));
    cloud.meet();
    figure(&format!(
        "{MANY} nodes: formed in {:.1} s; {} writes in {:.1} s, equal {} ms after; 3 nodes {:.1} s after seven were killed",
        formed.as_secs_f64(),
        ledger.acknowledged(),
        written.as_secs_f64(),
        agreement.as_millis(),
        back.as_secs_f64()
    ));
}
