//! Limits that the nodes of a cluster share (`policy = cluster`), and the handle by which plugins spend of them.
//!
//! A node has been given a portion of each limit, of which most requests spend without asking anybody. Where that is not enough
//! the request asks the node that owns the window, for at most [`PATIENCE`]. `actors::replication` implements the handle over
//! the cluster's leases.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::plugin::counters::{Counters, Key, Moment, Period, Periods, Taken};
use crate::plugin::limits::{Identifier, Scope};

/// How long a request waits for the owners of its windows, all together.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Limits above are this one: numbers of a configuration are exact up to here.
const HIGHEST: f64 = 9_007_199_254_740_992.0;

/// A window of a limit, by its name on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub name: u128,
    pub limit: u64,
    pub since: Moment,
    pub until: Moment,
}

/// What a request wants of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To count as one.
    Spend,
    /// To know whether anything is left.
    Know,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something is left: as much as this node knows, without what was spent. At least 1 for who only wants to know.
    Left(i64),
    /// Nothing is left. Less than 0 when more was spent than there was.
    UsedUp(i64),
    /// The owner has to be asked, or was and has not answered.
    Unknown,
    /// So many windows are in use that the node counts this one by itself.
    Crowded,
}

pub type Asked<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The limits that nodes share, as this node sees them.
pub trait Quota: Send + Sync {
    /// By what this node has been given of the window with this key, if the limit still is this one. Never waits.
    fn attempt(&self, key: Key, limit: u64, want: Want, now: Moment) -> Outcome;

    /// The same, asking the owner if need be. `key` is where [`Quota::attempt`] finds the window from then on.
    fn ask(&self, key: Key, window: Window, want: Want, patience: Duration) -> Asked<'_>;

    /// Gives back one that was spent.
    fn give_back(&self, key: Key);

    /// What is left as far as this node knows; nothing is known of a window that it has not spent from.
    fn left(&self, key: Key) -> Option<i64>;

    /// Counts what was spent already, whether or not there was as much, in a window that was asked about. Less than 0 gives back.
    fn charge(&self, key: Key, cost: i64);

    /// Nodes that are alive, this one included.
    fn nodes(&self) -> usize;

    /// A request passes because the owner has not answered.
    fn passed(&self);
}

/// An owner has not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// The limits of one identifier.
pub struct Whose<'a> {
    pub scope: &'a Scope,
    pub identifier: &'a Identifier<'a>,
    /// Tells several limits of a plugin apart.
    pub name: &'a str,
}

/// As whole requests: half a request is one.
fn whole(limit: f64) -> u64 {
    limit.ceil().clamp(0.0, HIGHEST) as u64
}

impl Whose<'_> {
    fn key(&self) -> Key {
        self.scope.key(self.identifier, self.name)
    }

    /// The window of this period, which the other nodes know by the same name.
    fn window(&self, period: Period, limit: f64, now: Moment) -> Window {
        let (since, until) = (now.start(period), now.end(period));
        let name = self.scope.shared_name(self.identifier, self.name, period, since);
        Window { name, limit: whole(limit), since, until }
    }

    async fn decide(&self, quota: &dyn Quota, key: Key, of: (Period, f64), want: Want, now: Moment, end: &mut Option<Instant>) -> Outcome {
        let (period, limit) = of;
        let window_key = key.within(period, now.start(period));
        match quota.attempt(window_key, whole(limit), want, now) {
            Outcome::Unknown => {
                let started = Instant::now();
                let patience = end.get_or_insert(started + PATIENCE).saturating_duration_since(started);
                quota.ask(window_key, self.window(period, limit, now), want, patience).await
            }
            known => known,
        }
    }

    /// Counts one in each window that has a limit, or in none of them when a limit is reached.
    pub async fn take(&self, quota: &dyn Quota, alone: &Counters, limits: &Periods<Option<f64>>, now: Moment) -> Result<Taken, Unanswered> {
        let (key, mut end) = (self.key(), None);
        let counted = |period: Period, left: i64| (limits[period as usize].map_or(0, whole) as i64).saturating_sub(left);
        let mut taken = Taken { before: [0; 6], counted: true };
        for period in Period::ALL {
            let Some(limit) = limits[period as usize] else { continue };
            let left = match self.decide(quota, key, (period, limit), Want::Spend, now, &mut end).await {
                Outcome::Left(left) => {
                    taken.before[period as usize] = counted(period, left) - 1;
                    continue;
                }
                Outcome::UsedUp(left) => left,
                missed => {
                    self.give_back(quota, key, limits, period, now);
                    return match missed {
                        Outcome::Crowded => Ok(alone.take(key, &divided(limits, quota.nodes()), now)),
                        _ => Err(Unanswered),
                    };
                }
            };
            self.give_back(quota, key, limits, period, now);
            taken.counted = false;
            taken.before[period as usize] = counted(period, left);
            for longer in Period::ALL.into_iter().skip(period as usize + 1).filter(|longer| limits[*longer as usize].is_some()) {
                let left = quota.left(key.within(longer, now.start(longer)));
                taken.before[longer as usize] = left.map_or(0, |left| counted(longer, left));
            }
            break;
        }
        Ok(taken)
    }

    /// Undoes what was counted in the windows shorter than this.
    fn give_back(&self, quota: &dyn Quota, key: Key, limits: &Periods<Option<f64>>, refused: Period, now: Moment) {
        for shorter in Period::ALL.into_iter().take(refused as usize).filter(|shorter| limits[*shorter as usize].is_some()) {
            quota.give_back(key.within(shorter, now.start(shorter)));
        }
    }

    /// What is counted in a window, as far as that is known; where nothing is left, the limit or more. `None`: the node counts this
    /// one by itself.
    pub async fn counted(
        &self,
        quota: &dyn Quota,
        of: (Period, f64),
        now: Moment,
        end: &mut Option<Instant>,
    ) -> Result<Option<i64>, Unanswered> {
        let limit = whole(of.1) as i64;
        match self.decide(quota, self.key(), of, Want::Know, now, end).await {
            Outcome::Left(left) | Outcome::UsedUp(left) => Ok(Some(limit.saturating_sub(left))),
            Outcome::Unknown => Err(Unanswered),
            Outcome::Crowded => Ok(None),
        }
    }
}

/// A node's part of limits that it counts by itself.
fn divided(limits: &Periods<Option<f64>>, nodes: usize) -> Periods<Option<f64>> {
    limits.map(|limit| limit.map(|limit| (limit / nodes.max(1) as f64).floor().max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{env, run};

    /// A node of three that has too many windows to keep, or whose owners are away.
    struct Fake(Outcome);

    impl Quota for Fake {
        fn attempt(&self, _: Key, _: u64, _: Want, _: Moment) -> Outcome {
            Outcome::Unknown
        }

        fn ask(&self, _: Key, _: Window, _: Want, patience: Duration) -> Asked<'_> {
            assert!(patience <= PATIENCE);
            Box::pin(async { self.0 })
        }

        fn give_back(&self, _: Key) {}

        fn left(&self, _: Key) -> Option<i64> {
            None
        }

        fn charge(&self, _: Key, _: i64) {}

        fn nodes(&self) -> usize {
            3
        }

        fn passed(&self) {}
    }

    fn take(outcome: Outcome, limit: f64, times: usize) -> Result<usize, Unanswered> {
        let (alone, scope) = (Counters::default(), Scope::of("rate-limiting", &env()));
        let whose = Whose { scope: &scope, identifier: &Identifier::Text("a"), name: "" };
        let limits = [None, Some(limit), None, None, None, None];
        let taken = (0..times).map(|_| run(whose.take(&Fake(outcome), &alone, &limits, Moment(90_000))));
        let taken: Vec<Taken> = taken.collect::<Result<_, _>>()?;
        Ok(taken.iter().filter(|taken| taken.counted).count())
    }

    #[test]
    fn a_node_that_counts_by_itself_allows_its_part() {
        assert_eq!(take(Outcome::Crowded, 30.0, 40), Ok(10));
        assert_eq!(take(Outcome::Crowded, 2.0, 40), Ok(1));
        assert_eq!(take(Outcome::Unknown, 30.0, 1), Err(Unanswered));
    }

    #[test]
    fn windows_have_names_of_their_own() {
        let env = env();
        let scopes = ["rate-limiting", "response-ratelimiting"].map(|plugin| Scope::of(plugin, &env));
        let identifiers = [Identifier::Text("a"), Identifier::Text("ab"), Identifier::Id(uuid::Uuid::nil())];
        let mut names = std::collections::HashSet::new();
        for scope in &scopes {
            for identifier in &identifiers {
                for name in ["", "b", "ab"] {
                    let whose = Whose { scope, identifier, name };
                    for (period, at) in [(Period::Minute, 0), (Period::Minute, 60_000), (Period::Hour, 0), (Period::Month, 0)] {
                        let window = whose.window(period, 1.5, Moment(at));
                        assert!(names.insert(window.name), "{period:?} {identifier:?} {name}");
                        assert_eq!((window.limit, window.since), (2, Moment(at)));
                        assert!(window.until > window.since);
                        assert_eq!(whose.window(period, 9.0, Moment(at + 59_999)).name, window.name);
                    }
                }
            }
        }
    }
}
