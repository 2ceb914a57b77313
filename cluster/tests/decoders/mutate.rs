//! Bytes that are nearly right.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// Longer than this nothing is made: what a length says is more than what is there long before.
const LONGEST: usize = 64 * 1024;

/// One of the seeds with some changes.
pub fn any(seeds: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seeds.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut bytes, seeds, rng);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut SmallRng) {
    if bytes.is_empty() {
        return bytes.push(rng.random());
    }
    // Lengths and kinds stand at the beginning, as a rule.
    let end = if rng.random() { bytes.len() } else { bytes.len().min(64) };
    let at = rng.random_range(0..end);
    match rng.random_range(0..7) {
        0 => bytes[at] = rng.random(),
        1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.random()),
        4 => drop(bytes.drain(at..(at + rng.random_range(1..16)).min(bytes.len()))),
        5 => {
            let Some(other) = seeds.choose(rng).filter(|other| !other.is_empty()) else { return };
            let from = rng.random_range(0..other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => length(bytes, at, rng),
    }
}

/// Puts a great number where a length may be: as bincode writes it, or as digits.
fn length(bytes: &mut Vec<u8>, at: usize, rng: &mut SmallRng) {
    let number = rng.next_u64() >> rng.random_range(0..64);
    let text = number.to_string();
    let wide = number.to_le_bytes();
    let with = match rng.random_range(0..5) {
        0 => [&[0xfb], &wide[..2]].concat(),
        1 => [&[0xfc], &wide[..4]].concat(),
        2 => [&[0xfd], &wide[..]].concat(),
        3 => number.to_be_bytes()[4..].to_vec(),
        _ => text.into_bytes(),
    };
    let over = if rng.random() { (at + with.len()).min(bytes.len()) } else { at + 1 };
    bytes.splice(at..over, with);
}
