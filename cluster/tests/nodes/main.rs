//! Real nodes in one process: real connections on 127.0.0.x, real certificates, records in memory.

mod relay;
mod strangers;
mod support;

use std::time::{Duration, Instant};

use cluster::WriteError;
use cluster::engine::Concern;
use cluster::id::Key;
use cluster::lease::{Decision, Name, Window};
use support::{Cloud, draft, named, until};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_any_of_three_nodes_is_in_effect_on_all_when_it_is_answered() {
    let cloud = Cloud::start(3).await;
    for (number, node) in cloud.nodes.iter().enumerate() {
        let key = format!("of {number}");
        let written = node.handle.write(vec![draft(&key, "{}")], Concern::All, PATIENCE).await.expect("a write");
        assert_eq!((written.applied, written.of, written.unasked), (3, 3, 0));
        assert!(cloud.nodes.iter().all(|node| node.storage.serves("things", &key)));
    }
    assert_eq!(cloud.nodes[1].handle.barrier(PATIENCE).await.expect("a barrier"), []);
    let overview = cloud.nodes[0].handle.status().await.expect("a status");
    assert_eq!(overview.status.members.len(), 3);
    assert!(overview.alive.values().all(|member| member.version == "1.0" && member.state.is_some()));
    assert!(overview.status.clock_offset.abs() < 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_value_goes_to_one_of_those_who_want_it_at_once() {
    let cloud = Cloud::start(3).await;
    for round in 0..5 {
        let name = format!("name {round}");
        let [a, b, c] = [0, 1, 2].map(|number| {
            let draft = named(&format!("{round} of {number}"), &name);
            cloud.nodes[number].handle.write(vec![draft], Concern::All, PATIENCE)
        });
        let (a, b, c) = tokio::join!(a, b, c);
        let results = [a, b, c];
        let (written, taken): (Vec<_>, Vec<_>) = results.iter().partition(|result| result.is_ok());
        assert_eq!(written.len(), 1, "{results:?}");
        assert!(taken.iter().all(|result| matches!(result, Err(WriteError::Taken { .. }))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sides_of_a_partition_take_writes_and_have_them_all_when_it_is_over() {
    let cloud = Cloud::start(3).await;
    cloud.cut(&[0], &[1, 2]);
    cloud.until_live(0, 0).await;
    cloud.until_live(1, 1).await;
    for n in 0..50 {
        for number in [0, 1] {
            let key = format!("{n} of {number}");
            let written = cloud.nodes[number].handle.write(vec![draft(&key, "{}")], Concern::Majority, PATIENCE).await.expect("a write");
            assert_eq!(written.of, [1, 2][number]);
        }
    }
    assert!(!cloud.nodes[0].storage.serves("things", "7 of 1"));
    cloud.heal();
    let begin = Instant::now();
    cloud.until_equal().await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    for node in &cloud.nodes {
        assert_eq!(node.storage.served(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_is_missed_and_comes_back_with_what_it_had() {
    let mut cloud = Cloud::start(3).await;
    cloud.nodes[0].handle.write(vec![draft("before", "{}")], Concern::All, PATIENCE).await.expect("a write");
    cloud.nodes[2].handle.stop().await.expect("it stops");
    cloud.until_live(0, 1).await;
    cloud.until_live(1, 1).await;
    let written = cloud.nodes[0].handle.write(vec![draft("meanwhile", "{}")], Concern::All, PATIENCE).await.expect("a write");
    assert_eq!(written.of, 2);
    let gone = cloud.nodes[2].node;
    cloud.restart(2).await;
    assert!(cloud.nodes[2].handle.is_ready(), "a restarted node serves at once");
    assert!(cloud.nodes[2].storage.serves("things", "before"));
    cloud.until_equal().await;
    assert!(cloud.nodes[2].storage.serves("things", "meanwhile"));
    assert!(matches!(cloud.nodes[0].handle.forget(gone).await, Err(WriteError::Refused(_))), "it is alive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_find_each_other_by_one_seed() {
    let cloud = Cloud::start(10).await;
    let written = cloud.nodes[7].handle.write(vec![draft("one", "{}")], Concern::All, PATIENCE).await.expect("a write");
    assert_eq!((written.applied, written.of), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_written_can_be_waited_for_on_another() {
    let cloud = Cloud::start(2).await;
    let written = cloud.nodes[0].handle.write(vec![draft("1", "{}")], Concern::None, PATIENCE).await.expect("a write");
    let (key, version) = written.versions[0].clone();
    tokio::time::timeout(PATIENCE, cloud.nodes[1].handle.wait_for(key, version)).await.expect("in time").expect("it runs");
    assert!(cloud.nodes[1].storage.serves("things", "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_node_cannot_use_is_kept_and_shown_and_keeps_nothing_away() {
    let mut cloud = Cloud::start(2).await;
    cloud.nodes[1].storage.refuse("bad");
    let drafts = vec![draft("bad", "{}"), draft("good", "{}")];
    cloud.nodes[0].handle.write(drafts, Concern::All, PATIENCE).await.expect("a write");
    assert!(cloud.nodes[1].storage.serves("things", "good") && !cloud.nodes[1].storage.serves("things", "bad"));
    let status = cloud.nodes[1].handle.status().await.expect("a status").status;
    assert_eq!(status.bad.len(), 1);
    assert!(cloud.nodes[1].handle.record(Key::new("things", "bad")).await.expect("it runs").is_some());
    // It is as bad after a restart.
    cloud.nodes[1].handle.stop().await.expect("it stops");
    cloud.restart(1).await;
    let status = cloud.nodes[1].handle.status().await.expect("a status").status;
    assert_eq!(status.bad.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_disk_is_full_nothing_happens_and_the_writer_is_told() {
    let cloud = Cloud::start(2).await;
    cloud.nodes[0].storage.fail_commits(true);
    let refused = cloud.nodes[0].handle.write(vec![draft("1", "{}")], Concern::None, PATIENCE).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    // What the peer writes is not acknowledged, and comes when there is room again.
    let written = cloud.nodes[1].handle.write(vec![draft("2", "{}")], Concern::All, Duration::from_millis(300)).await.expect("a write");
    assert_eq!((written.applied, written.of), (1, 2));
    cloud.nodes[0].storage.fail_commits(false);
    cloud.until_equal().await;
    assert!(cloud.nodes[0].storage.serves("things", "2") && !cloud.nodes[1].storage.serves("things", "1"));
}

/// One thread: while a write of 40 MiB is handed to the connection, nothing leaves.
#[tokio::test]
async fn what_finds_the_queue_to_a_peer_full_is_counted_and_told_of_and_repaired() {
    let cloud = Cloud::start(2).await;
    let body = " ".repeat(1024 * 1024);
    let drafts = (0..40).map(|n| draft(&n.to_string(), &body)).collect();
    let written = cloud.nodes[0].handle.write(drafts, Concern::All, Duration::from_millis(100)).await.expect("a write");
    assert_eq!((written.applied, written.of), (1, 2));
    let overview = cloud.nodes[0].handle.status().await.expect("a status");
    assert!((5..15).contains(&overview.traffic.dropped), "{:?}", overview.traffic);
    let told = &overview.troubles[&cloud.nodes[1].node];
    assert!(told.contains("too much waits for it"), "{told}");
    cloud.until_equal().await;
    assert_eq!(cloud.nodes[1].storage.served(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_without_a_restart() {
    let cloud = Cloud::start(2).await;
    let first = cloud.nodes[0].tls.expires();
    for node in &cloud.nodes {
        node.renew(&cloud.ca, Duration::from_secs(7_200));
    }
    assert!(cloud.nodes[0].tls.expires() > first);
    cloud.cut(&[0], &[1]);
    cloud.until_live(0, 0).await;
    cloud.heal();
    cloud.until_live(0, 1).await;
    cloud.nodes[0].handle.write(vec![draft("1", "{}")], Concern::All, PATIENCE).await.expect("a write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_across_nodes() {
    let cloud = Cloud::start(3).await;
    let until = cluster_time() + 60_000;
    for limit in [10, 100, 1_000] {
        let window = Window { name: Name(limit.into()), limit, since: 0, until };
        let mut tasks = tokio::task::JoinSet::new();
        for turn in 0..limit * 2 {
            let (handle, window) = (cloud.nodes[turn as usize % 3].handle.clone(), window);
            tasks.spawn(async move { handle.leases().spend(&window, 1, PATIENCE).await });
        }
        let decisions = tasks.join_all().await;
        let allowed = decisions.iter().filter(|decision| **decision == Decision::Allowed).count();
        assert_eq!(allowed as u64, limit);
        assert!(decisions.iter().all(|decision| *decision != Decision::Unanswered));
    }
}

/// What nodes say of one, that one included, which all of them see alive.
async fn troubles(cloud: &Cloud, of: usize) -> Vec<String> {
    let mut all = Vec::new();
    for node in &cloud.nodes {
        let overview = node.handle.status().await.expect("a status");
        all.push(overview.troubles.get(&cloud.nodes[of].node).cloned().unwrap_or_default());
    }
    all
}

/// Nobody can dial it: the others answer on what it has dialed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_tells_a_wrong_address_takes_part_and_the_trouble_is_shown() {
    let mut cloud = Cloud::start(2).await;
    let wrong = "127.0.0.1:1";
    let third = cloud.add_telling(Some(wrong)).await;
    for node in 0..3 {
        cloud.until_live(node, 2).await;
    }
    cloud.nodes[third].handle.ready().await.expect("it runs");
    cloud.until_equal().await;
    for (number, node) in cloud.nodes.iter().enumerate() {
        let written = node.handle.write(vec![draft(&format!("of {number}"), "{}")], Concern::All, PATIENCE).await.expect("a write");
        assert_eq!((written.applied, written.of), (3, 3), "{number}");
    }
    let offset = |peers: &[cluster::engine::PeerStatus]| peers.iter().all(|peer| peer.clock_offset.is_some_and(|off| off.abs() < 100));
    until("clocks are compared", async || offset(&cloud.nodes[0].handle.status().await.expect("a status").status.peers)).await;
    until("the trouble is shown", async || {
        let [one, two, own] = &troubles(&cloud, third).await[..] else { panic!("three nodes") };
        let named = |text: &str| text.starts_with(&format!("cannot be reached at {wrong}"));
        let used = |text: &str| named(text) && text.contains("refused") && text.contains("the connection that it has opened is used");
        used(one) && used(two) && named(own) && own.contains("cluster_advertise") && own.contains(&cloud.nodes[1].node.to_string())
    })
    .await;
    // It is missed and found again as any other.
    cloud.cut(&[third], &[0, 1]);
    cloud.until_live(0, 1).await;
    cloud.heal();
    cloud.until_live(0, 2).await;
    cloud.nodes[0].handle.write(vec![draft("after", "{}")], Concern::All, PATIENCE).await.expect("a write");
    cloud.until_equal().await;
}

/// The seed tells a wrong address: whoever has found it dials it where it was found. It tells one itself, so that the seed's own
/// dialing is no way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_tells_a_wrong_address_is_dialed_where_it_was_found() {
    let mut cloud = Cloud::alone();
    let seed = cloud.add_telling(Some("127.0.0.1:1")).await;
    cloud.add_telling(Some("127.0.0.1:2")).await;
    cloud.until_live(0, 1).await;
    cloud.until_live(1, 1).await;
    cloud.nodes[1].handle.ready().await.expect("it runs");
    cloud.nodes[1].handle.write(vec![draft("1", "{}")], Concern::All, PATIENCE).await.expect("a write");
    let found = cloud.nodes[seed].seed_address();
    let told = troubles(&cloud, seed).await;
    assert!(told[1].contains(&format!("{found} is used")), "{told:?}");
}

fn cluster_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// For whoever runs the test to see.
#[expect(clippy::print_stderr, reason = "the figure is what the test is run by hand for")]
fn figure(text: &str) {
    eprintln!("{text}");
}

/// Milliseconds of processor time that this process has taken, as Linux counts.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("the fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    (ticks(11) + ticks(12)) * 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_nodes_cost_little() {
    let _cloud = Cloud::start(3).await;
    let (begin, before) = (Instant::now(), processor_time());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let share = (processor_time() - before) as f64 / begin.elapsed().as_millis() as f64 / 3.0;
    figure(&format!("an idle node of three, with gossip every 100 ms, takes {:.2} % of a core", share * 100.0));
    assert!(share < 0.1);
}

/// Prints how long a pushed write takes to be in effect on three nodes; run by hand with the release profile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagation_over_three_nodes() {
    let writes = std::env::var("CLUSTER_WRITES").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let cloud = Cloud::start(3).await;
    let mut times = Vec::new();
    for n in 0..writes {
        let node = &cloud.nodes[n % 3];
        let begin = Instant::now();
        let written =
            node.handle.write(vec![draft(&format!("{n}"), "{\"some\":\"thing\"}")], Concern::All, PATIENCE).await.expect("a write");
        times.push(begin.elapsed());
        assert_eq!(written.applied, 3);
    }
    times.sort();
    let (half, most) = (times[writes / 2], times[writes * 99 / 100]);
    figure(&format!("{writes} writes in effect on 3 nodes: p50 {half:?}, p99 {most:?}"));
    assert!(times[writes / 2] < Duration::from_millis(50), "half of them took longer than {:?}", times[writes / 2]);
}

/// How long a fresh node takes for `CLUSTER_RECORDS` records of 500 bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_node_takes_everything_before_it_is_ready() {
    let records: usize = std::env::var("CLUSTER_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let mut cloud = Cloud::start(2).await;
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(490));
    for portion in (0..records).collect::<Vec<_>>().chunks(1_000) {
        let drafts = portion.iter().map(|n| draft(&format!("{n}"), &body)).collect();
        cloud.nodes[0].handle.write(drafts, Concern::All, PATIENCE).await.expect("a write");
    }
    cloud.until_equal().await;
    let begin = Instant::now();
    let fresh = cloud.add().await;
    cloud.nodes[fresh].handle.ready().await.expect("it runs");
    figure(&format!("a fresh node was ready with {records} records of 500 B after {:?}", begin.elapsed()));
    assert_eq!(cloud.nodes[fresh].storage.served(), records);
    until("all are equal", async || cloud.equal().await).await;
}
