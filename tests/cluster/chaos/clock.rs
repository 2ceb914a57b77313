//! A clock that is off, by libfaketime. Nothing is done where that is not installed.

use std::path::PathBuf;

use serde_json::json;

use super::{figure, metric, skipped};
use crate::cluster::{Cloud, borrowed, join, proxies, publish, settings, text};
use crate::support::{Node, Upstream, free_ports, wait_for};

/// The library, wherever a distribution puts it.
fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let below = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    let all = folders.iter().cloned().chain(below).map(|folder| folder.join("faketime/libfaketime.so.1"));
    let mut there = all.filter(|file| file.is_file());
    there.next()
}

#[test]
fn a_node_whose_clock_is_off_refuses_writes_and_goes_on_serving() {
    let Some(library) = library() else { return skipped("libfaketime is not installed") };
    let mut cloud = Cloud::start(2);
    let folder = cloud.directory.path().join("off");
    std::fs::create_dir_all(&folder).expect("a directory");
    let clock = folder.join("clock");
    let set = |text: &str| std::fs::write(&clock, text).expect("written");
    set("+0");
    let seeds = cloud.listens[0].to_string();
    let certificates = folder.join("certificates");
    join(&cloud.directory.path().join("0"), &seeds, &certificates);
    let [listen] = free_ports();
    let own = settings(&certificates, listen, &seeds, "off");
    let environment = [
        ("LD_PRELOAD", text(&library)),
        ("FAKETIME_TIMESTAMP_FILE", text(&clock)),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    cloud.nodes.push(Node::start_in(folder.join("prefix"), &borrowed(&own), &environment));
    cloud.meet();
    let upstream = Upstream::start("from upstream");
    publish(&cloud.nodes[0], "clock", &upstream);
    cloud.meet();
    let [a, b, off] = &cloud.nodes[..] else { panic!("three nodes") };
    wait_for("the route is there", || proxies(off, "/clock"));
    let write = |node: &Node, name: &str| node.admin_answer("PUT", &format!("/consumers/{name}"), &json!({}));
    assert_eq!(write(off, "before").status, 200);

    for offset in ["+2", "-3"] {
        set(offset);
        let begin = std::time::Instant::now();
        let mut refused = String::new();
        wait_for("its writes are refused", || {
            let answer = write(off, "wrong");
            refused = answer.text();
            assert!(answer.status == 200 || answer.status == 503, "{} {refused}", answer.status);
            answer.status == 503
        });
        let noticed = begin.elapsed();
        assert!(refused.contains("clock"), "{refused}");
        assert!(proxies(off, "/clock"), "it goes on serving");
        wait_for("it is shown", || metric(off, "troop_cluster_accepts_writes") == 0.0);
        let shown = metric(off, "troop_cluster_clock_offset_seconds");
        assert!(shown.abs() > 1.0, "{shown}");
        // The others write, and it takes what they write.
        for (node, name) in [(a, "a"), (b, "b")] {
            assert_eq!(write(node, &format!("{name}{offset}")).status, 200);
        }
        for name in ["a", "b"] {
            let path = format!("/consumers/{name}{offset}");
            wait_for("it hears them", || off.admin_answer("GET", &path, &serde_json::Value::Null).status == 200);
        }
        set("+0");
        let begin = std::time::Instant::now();
        wait_for("it takes writes again", || write(off, &format!("again{offset}")).status == 200);
        figure(&format!(
            "clock {offset} s off: refused after {} ms with {}; writes again {} ms after it is right",
            noticed.as_millis(),
            refused.trim_end(),
            begin.elapsed().as_millis()
        ));
    }
    cloud.meet();
}
