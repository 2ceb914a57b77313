//! The health of one address as a value: four counters and a state, packed so that an atomic holds them.

use crate::model::Healthchecks;

/// What a try or a probe turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status, before plugins change it; 0 stands for one that is not HTTP.
    Status(u16),
    /// The connection is there: the success of a probe of type tcp.
    Connected,
    /// Connection refused, reset or broken off; in a probe also a failed TLS handshake.
    TcpFailure,
    Timeout,
}

/// The state of an address. Traffic goes to the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Healthy,
    /// Failures, fewer than the limit.
    MostlyHealthy,
    /// Successes, fewer than the limit.
    MostlyUnhealthy,
    Unhealthy,
}

/// A state and its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub state: State,
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
}

impl State {
    pub fn available(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }
}

impl Health {
    pub fn of(healthy: bool) -> Self {
        Self { state: if healthy { State::Healthy } else { State::Unhealthy }, ..Self::default() }
    }

    pub fn available(self) -> bool {
        self.state.available()
    }

    pub fn pack(self) -> u64 {
        u64::from_le_bytes([self.state as u8, self.successes, self.http_failures, self.tcp_failures, self.timeouts, 0, 0, 0])
    }

    pub fn unpack(word: u64) -> Self {
        let [state, successes, http_failures, tcp_failures, timeouts, ..] = word.to_le_bytes();
        let state = match state {
            0 => State::Healthy,
            1 => State::MostlyHealthy,
            2 => State::MostlyUnhealthy,
            _ => State::Unhealthy,
        };
        Self { state, successes, http_failures, tcp_failures, timeouts }
    }

    /// The health after an outcome. A limit of 0 turns its counter off: such an outcome changes nothing at all.
    pub fn after(mut self, outcome: Outcome, limits: &Limits) -> Self {
        let Some((counter, limit)) = limits.counter(outcome) else { return self };
        let good = counter == Counter::Successes;
        let settled = self.state == if good { State::Healthy } else { State::Unhealthy };
        if limit == 0 || settled {
            return self;
        }
        let count = match counter {
            Counter::Successes => &mut self.successes,
            Counter::HttpFailures => &mut self.http_failures,
            Counter::TcpFailures => &mut self.tcp_failures,
            Counter::Timeouts => &mut self.timeouts,
        };
        *count = count.saturating_add(1);
        if *count >= limit {
            return Self::of(good);
        }
        if good {
            (self.http_failures, self.tcp_failures, self.timeouts) = (0, 0, 0);
        } else {
            self.successes = 0;
        }
        match self.state {
            State::Healthy => self.state = State::MostlyHealthy,
            State::Unhealthy => self.state = State::MostlyUnhealthy,
            State::MostlyHealthy | State::MostlyUnhealthy => {}
        }
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Successes,
    HttpFailures,
    TcpFailures,
    Timeouts,
}

/// The limits of one side, active or passive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
    healthy_statuses: Box<[u16]>,
    unhealthy_statuses: Box<[u16]>,
    /// A 504 counts as a timeout: it does in traffic, not in probes.
    gateway_timeout: bool,
}

impl Limits {
    fn counter(&self, outcome: Outcome) -> Option<(Counter, u8)> {
        match outcome {
            Outcome::Connected => Some((Counter::Successes, self.successes)),
            Outcome::TcpFailure => Some((Counter::TcpFailures, self.tcp_failures)),
            Outcome::Timeout => Some((Counter::Timeouts, self.timeouts)),
            Outcome::Status(504) if self.gateway_timeout => Some((Counter::Timeouts, self.timeouts)),
            Outcome::Status(status) if self.healthy_statuses.binary_search(&status).is_ok() => Some((Counter::Successes, self.successes)),
            Outcome::Status(status) if status == 0 || self.unhealthy_statuses.binary_search(&status).is_ok() => {
                Some((Counter::HttpFailures, self.http_failures))
            }
            Outcome::Status(_) => None,
        }
    }

    /// Whether an outcome is a success, counted or not.
    pub fn good(&self, outcome: Outcome) -> bool {
        self.counter(outcome).is_some_and(|(counter, _)| counter == Counter::Successes)
    }

    /// Whether no failure is counted.
    fn idle(&self) -> bool {
        self.http_failures == 0 && self.tcp_failures == 0 && self.timeouts == 0
    }
}

/// The health checks of an upstream, as they run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    pub active: Limits,
    pub passive: Limits,
    /// Whether there are any: without them every address is available, and health output says `HEALTHCHECKS_OFF`.
    pub on: bool,
    /// Whether traffic counts at all, so that a request knows at once.
    pub listens: bool,
    /// Percentage of the weight that must be available for the upstream to be.
    pub threshold: f64,
}

impl From<&Healthchecks> for Checks {
    fn from(checks: &Healthchecks) -> Self {
        let limit = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        let statuses = |statuses: &[u16]| {
            let mut statuses = statuses.to_vec();
            statuses.sort_unstable();
            statuses.into_boxed_slice()
        };
        let active = Limits {
            successes: limit(checks.active.healthy.successes),
            http_failures: limit(checks.active.unhealthy.http_failures),
            tcp_failures: limit(checks.active.unhealthy.tcp_failures),
            timeouts: limit(checks.active.unhealthy.timeouts),
            healthy_statuses: statuses(&checks.active.healthy.http_statuses),
            unhealthy_statuses: statuses(&checks.active.unhealthy.http_statuses),
            gateway_timeout: false,
        };
        let passive = Limits {
            successes: limit(checks.passive.healthy.successes),
            http_failures: limit(checks.passive.unhealthy.http_failures),
            tcp_failures: limit(checks.passive.unhealthy.tcp_failures),
            timeouts: limit(checks.passive.unhealthy.timeouts),
            healthy_statuses: statuses(&checks.passive.healthy.http_statuses),
            unhealthy_statuses: statuses(&checks.passive.unhealthy.http_statuses),
            gateway_timeout: true,
        };
        let probes = checks.active.healthy.interval > 0.0 || checks.active.unhealthy.interval > 0.0;
        let on = probes || !passive.idle();
        let listens = on && (!passive.idle() || passive.successes > 0);
        Self { active, passive, on, listens, threshold: checks.threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Limits, Outcome, State};

    fn limits(successes: u8, http_failures: u8, tcp_failures: u8, timeouts: u8) -> Limits {
        Limits {
            successes,
            http_failures,
            tcp_failures,
            timeouts,
            healthy_statuses: [200, 302].into(),
            unhealthy_statuses: [429, 500, 503].into(),
            gateway_timeout: true,
        }
    }

    fn run(limits: &Limits, outcomes: &[Outcome]) -> Health {
        outcomes.iter().fold(Health::default(), |health, outcome| health.after(*outcome, limits))
    }

    const OK: Outcome = Outcome::Status(200);
    const BAD: Outcome = Outcome::Status(500);

    #[test]
    fn failures_below_the_limit_keep_traffic() {
        let limits = limits(2, 3, 1, 2);
        let health = run(&limits, &[BAD, BAD]);
        assert_eq!((health.state, health.http_failures, health.available()), (State::MostlyHealthy, 2, true));
        let health = run(&limits, &[BAD, BAD, BAD]);
        assert_eq!((health, health.available()), (Health::of(false), false));
    }

    #[test]
    fn a_success_clears_failures_and_a_failure_successes() {
        let limits = limits(2, 3, 0, 0);
        assert_eq!(run(&limits, &[BAD, BAD, OK, BAD, BAD]).state, State::MostlyHealthy);
        assert_eq!(run(&limits, &[BAD, BAD, OK, OK]), Health::default());
        let down = [BAD, BAD, BAD];
        let health = down.iter().chain(&[OK, BAD, OK]).fold(Health::default(), |health, o| health.after(*o, &limits));
        assert_eq!((health.state, health.successes, health.available()), (State::MostlyUnhealthy, 1, false));
        assert_eq!(health.after(OK, &limits), Health::default());
    }

    #[test]
    fn failure_counters_are_separate_and_accumulate() {
        let limits = limits(0, 3, 2, 2);
        assert_eq!(run(&limits, &[BAD, Outcome::TcpFailure, Outcome::Timeout, BAD]).state, State::MostlyHealthy);
        assert_eq!(run(&limits, &[BAD, Outcome::TcpFailure, BAD, Outcome::TcpFailure]).state, State::Unhealthy);
        assert_eq!(run(&limits, &[Outcome::Status(504), Outcome::Timeout]).state, State::Unhealthy);
    }

    #[test]
    fn a_limit_of_zero_turns_a_counter_off() {
        let limits = limits(0, 2, 0, 0);
        assert_eq!(run(&limits, &[Outcome::TcpFailure; 9]), Health::default());
        // Successes that are not counted clear nothing.
        assert_eq!(run(&limits, &[BAD, OK, OK, BAD]).state, State::Unhealthy);
        assert_eq!(run(&limits, &[BAD, BAD, OK, OK, OK]).state, State::Unhealthy);
    }

    #[test]
    fn statuses_in_neither_list_do_not_count() {
        let limits = limits(1, 1, 1, 1);
        assert_eq!(run(&limits, &[Outcome::Status(418)]), Health::default());
        assert_eq!(run(&limits, &[Outcome::Status(0)]).state, State::Unhealthy);
    }

    #[test]
    fn packing_loses_nothing() {
        for state in [State::Healthy, State::MostlyHealthy, State::MostlyUnhealthy, State::Unhealthy] {
            let health = Health { state, successes: 1, http_failures: 255, tcp_failures: 3, timeouts: 77 };
            assert_eq!(Health::unpack(health.pack()), health);
        }
    }
}
