//! Seeded schedules: nodes of the cluster under loss, delay, duplication, partitions, crashes, failing disks and wrong clocks.
//! `CLUSTER_SCHEDULES` sets how many are run, `CLUSTER_SEED` the first; a failure names its seed.

mod world;

use world::{Options, World};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_all_nodes_end_with_the_same_and_nothing_acknowledged_is_lost() {
    let first = setting("CLUSTER_SEED").unwrap_or(0);
    let schedules = setting("CLUSTER_SCHEDULES").unwrap_or(100);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let run = |thread| {
            let mut failures = Vec::new();
            for seed in (first..first + schedules).skip(thread as usize).step_by(threads as usize) {
                let run = std::panic::catch_unwind(|| World::new(seed, Options::any(seed)).run());
                let failure = match run {
                    Ok(Ok(())) => continue,
                    Ok(Err(failure)) => failure,
                    Err(_) => "it panicked".to_owned(),
                };
                failures.push(format!("CLUSTER_SEED={seed} CLUSTER_SCHEDULES=1: {failure}"));
            }
            failures
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the test")).collect()
    });
    assert!(
        failures.is_empty(),
        "{} schedules failed:\n{}",
        failures.len(),
        failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn without_faults_one_of_those_that_create_the_same_at_once_is_told_that_it_has_it() {
    for seed in 0..40 {
        let mut world = World::new(seed, Options::quiet());
        world.settle();
        let told = world.create_everywhere("the one name");
        assert_eq!(told, 1, "seed {seed}");
    }
}

#[test]
fn without_faults_a_write_is_in_effect_everywhere_when_it_is_answered() {
    for seed in 0..20 {
        let mut world = World::new(seed, Options::quiet());
        world.settle();
        world.write_to_all();
    }
}

#[test]
fn a_fresh_node_is_ready_when_it_has_everything() {
    for seed in 0..3 {
        let mut world = World::new(seed, Options::quiet());
        world.settle();
        world.fresh_node();
    }
}

#[test]
fn a_node_that_was_away_for_longer_than_tombstones_live_revives_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, Options { tombstone_max: 60_000, tombstone_life: 20_000, ..Options::quiet() });
        world.settle();
        world.away_for_too_long();
    }
}

#[test]
fn a_record_that_ends_the_node_twice_is_put_in_quarantine() {
    let mut world = World::new(1, Options::quiet());
    world.settle();
    world.poison();
}

#[test]
fn a_node_whose_clock_is_off_takes_no_writes() {
    let mut world = World::new(1, Options::quiet());
    world.settle();
    world.wrong_clock();
}

#[test]
fn a_barrier_is_reached_when_all_have_everything_and_names_those_that_have_not() {
    let mut world = World::new(1, Options::quiet());
    world.settle();
    world.barrier();
}

#[test]
fn a_forgotten_node_no_longer_keeps_tombstones() {
    let mut world = World::new(1, Options { tombstone_life: 20_000, ..Options::quiet() });
    world.settle();
    world.forget();
}
