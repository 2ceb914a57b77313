//! What is measured, and the bars that measurements are held against.

use std::collections::BTreeMap;

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    CpuUs,
    Rate,
    Capacity,
    P50,
    P99,
    P999,
    Rss,
    Busy,
    LoadUs,
    Failed,
    Not2xx,
    Wrong,
    FirstByte,
    FirstByteAdded,
    EventP50,
    EventP99,
    Joined,
    Delayed,
    StreamKb,
    ChangeCpu,
    ChangeRate,
    ChangeFailed,
    MemoryBefore,
    MemoryTenth,
    MemoryAfter,
    MemoryRatio,
    BinaryMb,
}

impl Metric {
    /// Head of its column.
    pub fn label(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU µs",
            Self::Rate => "requests/s",
            Self::Capacity => "requests/CPU s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::P999 => "p99.9 ms",
            Self::Rss => "MB",
            Self::Busy => "CPU in use %",
            Self::LoadUs => "generator µs",
            Self::Failed => "failed",
            Self::Not2xx => "not 2xx",
            Self::Wrong => "wrong size",
            Self::FirstByte => "first byte ms",
            Self::FirstByteAdded => "first byte added ms",
            Self::EventP50 => "event p50 ms",
            Self::EventP99 => "event p99 ms",
            Self::Joined => "joined",
            Self::Delayed => "delayed",
            Self::StreamKb => "KB a stream",
            Self::ChangeCpu => "CPU ms a change",
            Self::ChangeRate => "changes/s",
            Self::ChangeFailed => "changes failed",
            Self::MemoryBefore => "MB before",
            Self::MemoryTenth => "MB after a tenth",
            Self::MemoryAfter => "MB after",
            Self::MemoryRatio => "after / before",
            Self::BinaryMb => "binary MB",
        }
    }

    /// Digits behind the point.
    pub fn digits(self) -> usize {
        match self {
            Self::Rate
            | Self::Capacity
            | Self::Busy
            | Self::Failed
            | Self::Not2xx
            | Self::Wrong
            | Self::Joined
            | Self::Delayed
            | Self::ChangeFailed => 0,
            Self::CpuUs | Self::LoadUs | Self::Rss | Self::StreamKb | Self::MemoryBefore | Self::MemoryTenth => 1,
            Self::MemoryAfter | Self::ChangeRate | Self::BinaryMb => 1,
            Self::P50 | Self::P99 | Self::P999 | Self::ChangeCpu => 2,
            Self::FirstByte | Self::FirstByteAdded | Self::EventP50 | Self::EventP99 | Self::MemoryRatio => 3,
        }
    }

    /// A column that is left out where it is 0 everywhere.
    pub fn only_when_wrong(self) -> bool {
        matches!(self, Self::Failed | Self::Not2xx | Self::Wrong | Self::ChangeFailed)
    }
}

/// The figures of one subject in one round.
pub type Sample = BTreeMap<Metric, f64>;
/// The samples of a round, by subject.
pub type Round = BTreeMap<&'static str, Sample>;

/// Where a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    Between(f64, f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Between(low, high) => (low..=high).contains(&value),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
            Self::Between(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

/// A figure of one subject, or its ratio to that of another in the same round, and where it should be.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    pub what: &'static str,
    pub metric: Metric,
    pub subject: &'static str,
    pub over: Option<&'static str>,
    pub limit: Limit,
    /// Better than asked for.
    pub aim: Option<f64>,
}

/// Middle, least and greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }
}

/// A figure of a subject over the rounds.
pub fn spread(rounds: &[Round], metric: Metric, subject: &str) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(|round| round.get(subject)?.get(&metric).copied()))
}

/// Its ratio to that of another subject, round by round.
pub fn ratio(rounds: &[Round], metric: Metric, subject: &str, over: &str) -> Option<Spread> {
    let figure = |round: &Round, subject: &str| round.get(subject)?.get(&metric).copied().filter(|v| *v > 0.0);
    Spread::of(rounds.iter().filter_map(|round| Some(figure(round, subject)? / figure(round, over)?)))
}

impl Bar {
    /// What was measured, over the rounds.
    pub fn measured(&self, rounds: &[Round]) -> Option<Spread> {
        match self.over {
            None => spread(rounds, self.metric, self.subject),
            Some(over) => ratio(rounds, self.metric, self.subject, over),
        }
    }

    /// Counts of what must not happen are judged by the worst round, all else by the median.
    pub fn reached(&self, measured: Spread) -> bool {
        let never = self.limit == Limit::AtMost(0.0);
        self.limit.holds(if never { measured.max } else { measured.median })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[(f64, f64)]) -> Vec<Round> {
        let sample = |value: f64| Sample::from([(Metric::CpuUs, value)]);
        values.iter().map(|(nginx, troop)| Round::from([("nginx", sample(*nginx)), ("troop", sample(*troop))])).collect()
    }

    const BAR: Bar =
        Bar { what: "x", metric: Metric::CpuUs, subject: "troop", over: Some("nginx"), limit: Limit::AtMost(0.95), aim: Some(0.85) };

    #[test]
    fn ratios_are_of_one_round() {
        let rounds = rounds(&[(10.0, 9.0), (20.0, 16.0), (10.0, 30.0)]);
        let measured = BAR.measured(&rounds).expect("both are there");
        assert_eq!(measured, Spread { median: 0.9, min: 0.8, max: 3.0 });
        assert!(BAR.reached(measured));
        assert!(!Bar { limit: Limit::AtMost(0.85), ..BAR }.reached(measured));
        assert_eq!(Bar { over: Some("haproxy"), ..BAR }.measured(&rounds), None);
    }

    #[test]
    fn what_must_not_happen_is_judged_by_the_worst_round() {
        let never = Bar { over: None, limit: Limit::AtMost(0.0), ..BAR };
        assert!(!never.reached(Spread { median: 0.0, min: 0.0, max: 1.0 }));
        assert!(never.reached(Spread { median: 0.0, min: 0.0, max: 0.0 }));
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).map(|s| s.median), Some(2.5));
        assert!(Limit::Between(0.95, 1.05).holds(1.0) && !Limit::Between(0.95, 1.05).holds(1.06));
    }
}
