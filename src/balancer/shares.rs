//! Exact shares by weight, without a wheel in memory.

/// Deals turns to entries so that over each cycle of turns every entry gets exactly its share by weight, well mixed.
///
/// Kong repeats each address weight / gcd times in a shuffled wheel, which for weights without a common divisor means
/// millions of entries. Here turn `n` stands for the point `n * step mod total`; as `step` and `total` have no common
/// divisor, a cycle of `total` turns visits each point once, and as `step / total` is near the golden ratio, neighbouring
/// turns are far apart.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// Where each entry's points end.
    ends: Box<[u64]>,
    total: u64,
    step: u64,
}

impl Shares {
    pub fn new(weights: impl Iterator<Item = u32> + Clone) -> Self {
        let divisor = weights.clone().fold(0, |divisor, weight| gcd(divisor, u64::from(weight))).max(1);
        let mut total = 0;
        let ends: Box<[u64]> = weights
            .map(|weight| {
                total += u64::from(weight) / divisor;
                total
            })
            .collect();
        Self { ends, total, step: step(total) }
    }

    /// How many turns make a cycle.
    pub fn cycle(&self) -> u64 {
        self.total
    }

    /// The entry of a turn; none when all weights are 0.
    pub fn at(&self, turn: u64) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        let turn = turn % self.total;
        let point = match turn.checked_mul(self.step) {
            Some(product) => product % self.total,
            None => (u128::from(turn) * u128::from(self.step) % u128::from(self.total)) as u64,
        };
        Some(self.ends.partition_point(|end| *end <= point))
    }
}

/// The number nearest to the golden section of `total` that shares no divisor with it.
fn step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895).round().max(1.0) as u64;
    (golden..=total.max(golden)).chain((1..golden).rev()).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    fn count(weights: &[u32], from: u64, turns: u64) -> Vec<u64> {
        let shares = Shares::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        for turn in from..from + turns {
            counts[shares.at(turn).expect("some weight is not zero")] += 1;
        }
        counts
    }

    #[test]
    fn each_cycle_is_exact() {
        for (weights, cycle) in [
            (&[100, 100][..], 2),
            (&[100, 100, 0], 2),
            (&[100, 50, 25], 7),
            (&[1], 1),
            (&[65535, 1], 65536),
            (&[3, 5, 7, 11], 26),
            (&[10, 20, 30, 40, 50], 15),
        ] {
            let divisor = u64::from(weights.iter().sum::<u32>()) / cycle;
            let wanted: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
            for from in [0, 1, cycle / 2, 1 << 60] {
                assert_eq!(count(weights, from, cycle), wanted, "{weights:?} from {from}");
            }
        }
    }

    #[test]
    fn turns_are_mixed() {
        let halves = count(&[100, 100], 0, 10);
        assert_eq!(halves, [5, 5]);
        let third = count(&[200, 100], 0, 6);
        assert_eq!(third, [4, 2]);
        // A tenth of a long cycle is close to the shares already.
        let part = count(&[600, 300, 100, 1], 0, 100);
        assert!((58..=62).contains(&part[0]) && (28..=32).contains(&part[1]), "{part:?}");
    }

    #[test]
    fn no_weight_no_turn() {
        assert_eq!(Shares::new([0, 0].into_iter()).at(3), None);
        assert_eq!(Shares::new([].into_iter()).at(0), None);
    }
}
