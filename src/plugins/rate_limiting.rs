//! Limits how many requests a client may make in a second, minute, hour, day, month or year.
//!
//! Windows are fixed and follow the UTC calendar. A request is counted in all configured windows or, when a limit is
//! reached, in none. A client is told its limits by `X-RateLimit-Limit-Minute`, `X-RateLimit-Remaining-Minute`, ..., and by
//! `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` of the window that has least left.
//!
//! `limit_by` says whose requests are counted together: those of a consumer, a credential, an address, a service, a header's
//! value or a path. Where there is no such thing the client's address stands for it.
//!
//! # Policies
//! With `local` counters are kept in the memory of the node.
//!
//! With `cluster` the nodes of a [cluster](../cluster.md#limits-across-nodes) allow the limit together. Most requests spend
//! what the node has been given of it; others wait for the node that owns the counter, as all do where the limit is less than 20
//! for each node. What is told to be left is what the node knows to be left; it may be less than all nodes have together.
//! A limit that is changed keeps what was counted. On a node that is not one of a cluster this is `local`.
//!
//! With `redis` they are kept in a Redis that nodes share, under the keys that Kong uses
//! (`ratelimit:ROUTE:SERVICE:IDENTIFIER:START:PERIOD`). Each request asks it, in one round trip, and is counted there whether
//! or not it is refused. With a `sync_rate` the node asks once for each counter, counts by itself and brings what it has
//! counted after that many seconds: the limit may be exceeded by one in that time, and by what other nodes count in it.
//!
//! Where Redis has no answer within `redis.timeout`, or the owner of a counter within 500 ms, or is not there, requests pass
//! without limits and without their headers, unless `fault_tolerant` is off. What was counted and could not be brought to Redis is
//! brought later.
//!
//! # Scope
//! Global, route, service, consumer, consumer group. Configurations of the same route and service share their counters.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | `error_code` (429) | a limit is reached: `error_message`, and `Retry-After` in seconds |
//! | 500 | Redis, or the owner of a counter, does not answer and `fault_tolerant` is off |

use std::sync::Arc;
use std::time::Duration;

use schema::types::{HeaderName, Path};
use schema::{Check, Record, Violations};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::http::Headers;
use crate::plugin::counters::{Counters, Moment, Period, Periods, Taken};
use crate::plugin::limits::{self, Identifier, Scope};
use crate::plugin::quota::{Unanswered, Whose};
use crate::plugin::redis::{self, Link, RedisConfig};
use crate::plugin::redis_counters::{Batches, RedisCounter, count, taken};
use crate::plugin::{Env, Exchange, Flow, Handles, Phases, Plugin, Reply};

/// A `sync_rate` above is this one: nothing is kept longer, and timers have an end.
const LONGEST_SYNC: Duration = Duration::from_secs(366 * 24 * 3600);

const PERIOD_FIELDS: &[&str] = &["config.second", "config.minute", "config.hour", "config.day", "config.month", "config.year"];
const CHECKED_FIELDS: &[&str] =
    &["config.second", "config.minute", "config.hour", "config.day", "config.month", "config.year", "config.policy", "config.sync_rate"];

pub struct RateLimiting {
    config: Config,
    limits: Periods<Option<f64>>,
    id: Uuid,
    scope: Scope,
    store: Store,
}

/// Where counters are kept.
enum Store {
    Local(Arc<Counters>),
    /// Common to the nodes, if there are several.
    Cluster(Arc<Handles>),
    Redis(Arc<dyn Link>),
    Batches(Arc<Batches>),
}

#[derive(Clone, Debug, Deserialize, Record)]
#[record(aliases(redis::shorthands()))]
pub struct Config {
    /// Requests in a second.
    #[field(gt(0.0))]
    second: Option<f64>,
    /// Requests in a minute.
    #[field(gt(0.0))]
    minute: Option<f64>,
    /// Requests in an hour.
    #[field(gt(0.0))]
    hour: Option<f64>,
    /// Requests in a day.
    #[field(gt(0.0))]
    day: Option<f64>,
    /// Requests in a month.
    #[field(gt(0.0))]
    month: Option<f64>,
    /// Requests in a year.
    #[field(gt(0.0))]
    year: Option<f64>,
    /// Whose requests are counted together.
    #[field(default = "consumer", one_of(&["consumer", "credential", "ip", "service", "header", "path"]))]
    limit_by: Option<String>,
    /// The header for `limit_by = header`.
    header_name: Option<HeaderName>,
    /// The path for `limit_by = path`: its requests are counted together, others by address.
    path: Option<Path>,
    /// Where counters are kept.
    #[field(default = "local", len_min(0), one_of(&["local", "cluster", "redis"]))]
    policy: Option<String>,
    /// Whether requests pass while the counters cannot be reached.
    #[field(default = true)]
    fault_tolerant: bool,
    redis: RedisConfig,
    /// Leaves out the headers that tell limits.
    #[field(default = false)]
    hide_client_headers: bool,
    /// Status of the answer when a limit is reached.
    #[field(default = 429, gt(0.0))]
    error_code: Option<f64>,
    /// Message of the answer when a limit is reached.
    #[field(default = "API rate limit exceeded")]
    error_message: Option<String>,
    /// Seconds until what was counted is brought to Redis, from 0.02 on; -1 to ask Redis for each request.
    #[field(default = -1)]
    sync_rate: f64,
}

impl Plugin for RateLimiting {
    const NAME: &'static str = "rate-limiting";
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS.and(Phases::HEADER_FILTER);
    type Config = Config;

    fn checks() -> Vec<Check> {
        let [host, port, timeout] = limits::redis_checks();
        vec![
            Check::at_least_one_of(PERIOD_FIELDS),
            host,
            port,
            timeout,
            limits::needs("config.limit_by", "header", "config.header_name"),
            limits::needs("config.limit_by", "path", "config.path"),
            Check::custom(CHECKED_FIELDS, check_config),
        ]
    }

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let limits = [config.second, config.minute, config.hour, config.day, config.month, config.year];
        let store = match config.policy.as_deref() {
            Some("redis") if config.sync_rate > 0.0 => {
                let period = Duration::try_from_secs_f64(config.sync_rate).unwrap_or(Duration::MAX).min(LONGEST_SYNC);
                Store::Batches(config.redis.batches(env, period)?)
            }
            Some("redis") => Store::Redis(config.redis.link(env)?),
            Some("cluster") => Store::Cluster(env.handles.clone()),
            _ => Store::Local(env.handles.counters.clone()),
        };
        Ok(Self { config, limits, id: env.id, scope: Scope::of(Self::NAME, env), store })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let now = Moment::from(x.timing.started_at);
        let taken = match self.take(&self.identifier(x), now).await {
            Ok(taken) => taken,
            Err(_) if self.config.fault_tolerant => return Ok(()),
            Err(_) => return Err(Reply::error(500, "An unexpected error occurred")),
        };
        let usage = Usage::new(&self.limits, taken, now);
        if !usage.exceeded {
            if !self.config.hide_client_headers {
                x.keep(self.id, usage);
            }
            return Ok(());
        }
        let message = self.config.error_message.as_deref().unwrap_or("API rate limit exceeded");
        let mut reply = Reply::error(self.status(), message);
        if !self.config.hide_client_headers {
            usage.tell(&self.limits, &mut reply.headers);
            reply.headers.set("Retry-After", itoa::Buffer::new().format(usage.reset));
        }
        Err(reply)
    }

    fn header_filter(&self, x: &mut Exchange) {
        if let Some(usage) = x.take_kept::<Usage>(self.id) {
            usage.tell(&self.limits, &mut x.response.headers);
        }
    }
}

impl RateLimiting {
    fn identifier<'a>(&self, x: &'a Exchange) -> Identifier<'a> {
        let found = match self.config.limit_by.as_deref() {
            Some("credential") => x.authenticated.credential.as_ref().map(|credential| Identifier::Text(&credential.id)),
            Some("ip") => None,
            Some("service") => x.service.as_ref().map(|service| Identifier::Id(service.id)),
            Some("header") => {
                let name = self.config.header_name.as_deref().unwrap_or_default();
                x.request.headers.get_str(name).map(Identifier::Text)
            }
            Some("path") => self.config.path.as_deref().is_some_and(|path| path == x.path).then_some(Identifier::Text(&x.path)),
            _ => return limits::consumer(x),
        };
        found.unwrap_or(Identifier::Address(x.client.ip))
    }

    /// Counts a request, unless a limit is reached.
    async fn take(&self, whose: &Identifier<'_>, now: Moment) -> Result<Taken, Unreached> {
        match &self.store {
            Store::Local(counters) => Ok(counters.take(self.scope.key(whose, ""), &self.limits, now)),
            Store::Cluster(handles) => self.take_shared(handles, whose, now).await,
            Store::Batches(batches) => batches.take(&self.windows(whose, now), &self.limits).await.map_err(|_| Unreached),
            Store::Redis(link) => {
                let windows = self.windows(whose, now);
                let before = count(&**link, windows.iter(), 1).await.map_err(|_| Unreached)?;
                Ok(taken(&windows, &before, &self.limits))
            }
        }
    }

    async fn take_shared(&self, handles: &Handles, whose: &Identifier<'_>, now: Moment) -> Result<Taken, Unreached> {
        let Some(quota) = handles.quota.get() else {
            return Ok(handles.counters.take(self.scope.key(whose, ""), &self.limits, now));
        };
        let whose = Whose { scope: &self.scope, identifier: whose, name: "" };
        whose.take(&**quota, &handles.counters, &self.limits, now).await.map_err(|Unanswered| {
            if self.config.fault_tolerant {
                quota.passed();
            }
            Unreached
        })
    }

    /// The counters of an identifier in Redis.
    fn windows(&self, whose: &Identifier<'_>, now: Moment) -> Vec<RedisCounter> {
        let limited = Period::ALL.into_iter().filter(|period| self.limits[*period as usize].is_some());
        RedisCounter::all(&self.scope.redis_key("ratelimit", whose), None, limited, now)
    }

    /// A status that is none of an answer would break the connection.
    fn status(&self) -> u16 {
        let status = self.config.error_code.unwrap_or(429.0) as u16;
        if (200..=599).contains(&status) { status } else { 500 }
    }
}

/// Who keeps the counters does not answer; it has said so in the log.
struct Unreached;

/// What is left in each window, after this request.
#[derive(Debug, PartialEq)]
struct Usage {
    exceeded: bool,
    remaining: Periods<f64>,
    /// The window with least left; the longer of two.
    tightest: Period,
    /// Seconds until that window ends.
    reset: u64,
}

impl Usage {
    fn new(limits: &Periods<Option<f64>>, taken: Taken, now: Moment) -> Self {
        let this = if taken.counted { 1.0 } else { 0.0 };
        let mut remaining = [f64::INFINITY; 6];
        let mut tightest = Period::Second;
        for period in Period::ALL {
            let n = period as usize;
            let Some(limit) = limits[n] else { continue };
            remaining[n] = (limit - taken.before[n] as f64 - this).max(0.0);
            if remaining[n] <= remaining[tightest as usize] {
                tightest = period;
            }
        }
        Self { exceeded: !taken.counted, remaining, tightest, reset: now.reset(tightest) }
    }

    fn tell(&self, limits: &Periods<Option<f64>>, headers: &mut Headers) {
        const LIMIT: Periods<&str> = [
            "X-RateLimit-Limit-Second",
            "X-RateLimit-Limit-Minute",
            "X-RateLimit-Limit-Hour",
            "X-RateLimit-Limit-Day",
            "X-RateLimit-Limit-Month",
            "X-RateLimit-Limit-Year",
        ];
        const REMAINING: Periods<&str> = [
            "X-RateLimit-Remaining-Second",
            "X-RateLimit-Remaining-Minute",
            "X-RateLimit-Remaining-Hour",
            "X-RateLimit-Remaining-Day",
            "X-RateLimit-Remaining-Month",
            "X-RateLimit-Remaining-Year",
        ];
        let mut whole = itoa::Buffer::new();
        let mut set = |name: &str, value: f64| match value as i64 {
            // nearly all limits are whole numbers, which are written faster
            integer if integer as f64 == value => headers.set_checked(name.as_bytes(), whole.format(integer).as_bytes()),
            _ => headers.set_checked(name.as_bytes(), value.to_string().as_bytes()),
        };
        for (n, limit) in limits.iter().enumerate() {
            if let Some(limit) = limit {
                set(LIMIT[n], *limit);
                set(REMAINING[n], self.remaining[n]);
            }
        }
        let n = self.tightest as usize;
        set("RateLimit-Limit", limits[n].unwrap_or(0.0));
        set("RateLimit-Remaining", self.remaining[n]);
        set("RateLimit-Reset", self.reset as f64);
    }
}

fn check_config(row: &Map<String, Value>) -> Result<(), Violations> {
    let Some(Value::Object(config)) = row.get("config") else { return Ok(()) };
    limits::check_order(config, "The").map_err(|text| Violations::field("config", text))?;
    let sync_rate = config.get("sync_rate").and_then(Value::as_f64).unwrap_or(-1.0);
    let redis = config.get("policy").and_then(Value::as_str) == Some("redis");
    let wrong = match redis {
        false if sync_rate != -1.0 => "sync_rate can only be used with the redis policy",
        true if (0.0..0.02).contains(&sync_rate) => "sync_rate must be greater than 0.02, or -1 to disable",
        _ => return Ok(()),
    };
    Err(Violations::field("config", wrong))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{consumer, exchange, plugin, refused, run, values};

    /// A quarter past noon, 2024-03-01.
    fn moment() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_295_300)
    }

    fn at(seconds: u64, headers: &[(&str, &str)]) -> Exchange {
        let mut x = exchange("GET", "/here", headers);
        x.timing.started_at = moment() + Duration::from_secs(seconds);
        x
    }

    fn ask(plugin: &RateLimiting, x: &mut Exchange) -> Result<Headers, Reply> {
        run(Plugin::access(plugin, x))?;
        plugin.header_filter(x);
        Ok(x.response.headers.clone())
    }

    fn told(headers: &Headers) -> Vec<String> {
        headers.iter().map(|(n, v)| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect()
    }

    #[test]
    fn passes_up_to_the_limit_and_tells_what_is_left() {
        let plugin: RateLimiting = plugin(json!({"minute": 2, "hour": 100}));
        let headers = ask(&plugin, &mut at(18, &[])).unwrap();
        assert_eq!(
            told(&headers),
            [
                "X-RateLimit-Limit-Minute: 2",
                "X-RateLimit-Remaining-Minute: 1",
                "X-RateLimit-Limit-Hour: 100",
                "X-RateLimit-Remaining-Hour: 99",
                "RateLimit-Limit: 2",
                "RateLimit-Remaining: 1",
                "RateLimit-Reset: 42"
            ]
        );
        ask(&plugin, &mut at(18, &[])).unwrap();
        let reply = ask(&plugin, &mut at(20, &[])).unwrap_err();
        assert_eq!(reply.status, 429);
        assert_eq!(reply.body, crate::plugin::reply::ReplyBody::Message("API rate limit exceeded".to_owned()));
        assert_eq!(
            told(&reply.headers),
            [
                "X-RateLimit-Limit-Minute: 2",
                "X-RateLimit-Remaining-Minute: 0",
                "X-RateLimit-Limit-Hour: 100",
                "X-RateLimit-Remaining-Hour: 98",
                "RateLimit-Limit: 2",
                "RateLimit-Remaining: 0",
                "RateLimit-Reset: 40",
                "Retry-After: 40"
            ]
        );
        let headers = ask(&plugin, &mut at(60, &[])).unwrap();
        assert_eq!(values(&headers, "X-RateLimit-Remaining-Hour"), ["97"]);
    }

    #[test]
    fn of_two_windows_with_as_much_left_the_longer_is_told() {
        let plugin: RateLimiting = plugin(json!({"second": 2, "minute": 2}));
        let headers = ask(&plugin, &mut at(0, &[])).unwrap();
        assert_eq!(values(&headers, "RateLimit-Reset"), ["60"]);
    }

    #[test]
    fn answers_as_configured_and_hides_headers() {
        let config = json!({"minute": 1, "error_code": 403, "error_message": "enough", "hide_client_headers": true});
        let plugin: RateLimiting = plugin(config);
        assert!(ask(&plugin, &mut at(0, &[])).unwrap().is_empty());
        let reply = ask(&plugin, &mut at(0, &[])).unwrap_err();
        assert_eq!((reply.status, reply.headers.len()), (403, 0));
    }

    #[test]
    fn counts_by_what_limit_by_says() {
        let left = |config: Value, change: fn(&mut Exchange)| {
            let plugin: RateLimiting = plugin(config);
            ask(&plugin, &mut at(0, &[("X-Who", "a")])).unwrap();
            let mut x = at(0, &[("X-Who", "a")]);
            change(&mut x);
            values(&ask(&plugin, &mut x).unwrap(), "RateLimit-Remaining").concat()
        };
        let by = |by: &str| json!({"minute": 9, "limit_by": by, "header_name": "x-who", "path": "/here"});
        let other_header = |x: &mut Exchange| x.request.headers.set("x-who", "b");
        let other_address = |x: &mut Exchange| x.client.ip = [10, 0, 0, 1].into();
        let other_path = |x: &mut Exchange| x.path = "/there".to_owned();
        let known = |x: &mut Exchange| x.authenticated.consumer = Some(Arc::new(consumer("bob")));
        assert_eq!(left(by("header"), other_header), "8");
        assert_eq!(left(by("header"), other_address), "7");
        assert_eq!(left(by("ip"), other_address), "8");
        assert_eq!(left(by("ip"), other_header), "7");
        assert_eq!(left(by("path"), other_path), "8");
        assert_eq!(left(by("path"), other_address), "7");
        assert_eq!(left(by("consumer"), known), "8");
        assert_eq!(left(by("credential"), known), "7");
    }

    #[test]
    fn refuses_configurations_in_kongs_words() {
        assert_eq!(
            refused::<RateLimiting>(json!({})),
            json!({"@entity": ["at least one of these fields must be non-empty: 'config.second', 'config.minute', 'config.hour', 'config.day', 'config.month', 'config.year'"]})
        );
        assert_eq!(
            refused::<RateLimiting>(json!({"second": 10, "minute": 5})),
            json!({"config": "The limit for minute(5.0) cannot be lower than the limit for second(10.0)"})
        );
        assert_eq!(
            refused::<RateLimiting>(json!({"minute": 5, "limit_by": "header"})),
            json!({"@entity": ["failed conditional validation given value of field 'config.limit_by'"], "config": {"header_name": "required field missing"}})
        );
        assert_eq!(
            refused::<RateLimiting>(json!({"minute": 5, "policy": "redis"})),
            json!({"@entity": ["failed conditional validation given value of field 'config.policy'"], "config": {"redis": {"host": "required field missing"}}})
        );
        assert_eq!(
            refused::<RateLimiting>(json!({"minute": 5, "sync_rate": 1})),
            json!({"config": "sync_rate can only be used with the redis policy"})
        );
        assert_eq!(refused::<RateLimiting>(json!({"minute": 0})), json!({"config": {"minute": "value must be greater than 0"}}));
    }
}
