//! Every decoder of `fuzz/targets.rs` with the bytes of `fuzz/seeds` and with bytes made of those by a seeded generator.
//! `DECODER_ROUNDS` sets how many are made for each; a failure prints the bytes, which then belong among the seeds.

mod memory;
mod mutate;
#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cluster::mesh::frame::MAX_FRAME;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use targets::{TARGETS, Target};

/// Bytes that a decoder has to refuse are in files whose names begin so; it takes those of all others.
const REFUSED: &str = "refused-";
/// What a decoder may take, in bytes: a frame in its wire form, and what it holds.
const MOST_MEMORY: usize = 2 * MAX_FRAME;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The seeds of a target by file name, in order.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("seeds").join(target.name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten();
    let read = |file: std::fs::DirEntry| (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("a seed"));
    let mut seeds: Vec<_> = files.map(read).collect();
    seeds.sort();
    seeds
}

/// Gives the bytes to the decoder; what it says. Panics with the bytes when it panics or takes too much memory.
fn run(target: &Target, bytes: &[u8]) -> bool {
    let (done, most) = memory::most(|| catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))));
    let shown =
        || format!("{}: {} bytes: {}", target.name, bytes.len(), bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let taken = done.unwrap_or_else(|_| panic!("it panicked: {}", shown()));
    assert!(most <= MOST_MEMORY, "{most} bytes of memory: {}", shown());
    taken
}

#[test]
fn what_is_right_is_taken_and_what_is_wrong_is_refused() {
    for target in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.iter().any(|(name, _)| !name.starts_with(REFUSED)), "{}: nothing that is right", target.name);
        for (name, bytes) in seeds {
            assert_eq!(run(target, &bytes), !name.starts_with(REFUSED), "{}/{name}", target.name);
        }
    }
}

#[test]
fn whatever_bytes_come_decoding_ends_and_takes_little_memory() {
    let rounds = std::env::var("DECODER_ROUNDS").map_or(10_000, |rounds| rounds.parse().expect("a number"));
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || {
                let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, bytes)| bytes).collect();
                let mut rng = SmallRng::seed_from_u64(7);
                let taken = (0..rounds).filter(|_| run(target, &mutate::any(&seeds, &mut rng))).count();
                assert!(taken < rounds, "{}: no bytes are wrong", target.name);
            });
        }
    });
}

#[test]
fn the_fuzzer_has_the_same_targets() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("the fuzzer's manifest");
    let bins = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1));
    let bins: Vec<&str> = bins.collect();
    assert_eq!(bins, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    let folders: BTreeSet<String> = std::fs::read_dir(fuzz().join("seeds"))
        .expect("the seeds")
        .flatten()
        .map(|folder| folder.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, bins.into_iter().map(str::to_owned).collect());
}
