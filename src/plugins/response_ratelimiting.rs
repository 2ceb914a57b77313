//! Limits by what the upstream says a request has cost.
//!
//! The upstream names costs in a header of its answer, `x-kong-limit: video=2, sms=1`, which the client does not see. For
//! each name in `limits` the cost is counted in windows of the UTC calendar, all of them, whichever have a limit. The
//! upstream is told what is left by `X-RateLimit-Remaining-video`, the client by `X-RateLimit-Limit-video-minute` and
//! `X-RateLimit-Remaining-video-minute`. A negative cost gives something back.
//!
//! An answer that costs something where nothing is left is replaced by an empty one, and its costs are not counted.
//!
//! # Policies
//! With `local` counters are kept in the memory of the node.
//!
//! With `cluster` the nodes of a [cluster](../cluster.md#limits-across-nodes) count together, in the windows that have a limit.
//! Before a request goes upstream the node makes sure that it has been given something of each limit, which it mostly has; else
//! it asks the node that owns the counter. On a node that is not one of a cluster this is `local`.
//!
//! With `redis` they are kept in a Redis that nodes share, under the keys that Kong uses
//! (`response-ratelimit:ROUTE:SERVICE:IDENTIFIER:START:NAME:PERIOD`): a request asks it, in one round trip, before it goes
//! upstream; costs are brought there soon after the answer.
//!
//! With all of them costs are known when the upstream has answered: requests that are under way when a limit is reached are not
//! held back.
//!
//! Where Redis has no answer within `redis.timeout`, or the owner of a counter within 500 ms, or is not there, requests pass
//! without limits, without their headers and without being counted, unless `fault_tolerant` is off.
//!
//! # Scope
//! Global, route, service, consumer, consumer group. Configurations of the same route and service share their counters.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 429 | the answer costs something of which nothing is left |
//! | 429 | `block_on_first_violation`, and nothing is left of one of the limits |
//! | 500 | Redis, or the owner of a counter, does not answer and `fault_tolerant` is off |

use std::collections::BTreeMap;
use std::sync::Arc;

use ::redis::Pipeline;
use schema::{Check, Record, Violations};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::http::Body;
use crate::plugin::counters::{Counters, Key, Moment, Period, Periods};
use crate::plugin::exchange::Source;
use crate::plugin::limits::{self, Identifier, Scope};
use crate::plugin::quota::{self, Quota};
use crate::plugin::redis::{self, Link, RedisConfig};
use crate::plugin::redis_counters::{RedisCounter, read};
use crate::plugin::{Env, Exchange, Flow, Handles, Phases, Plugin, Reply};

pub struct ResponseRateLimiting {
    config: Config,
    limits: Vec<Limit>,
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
}

/// Who keeps the counters does not answer; it has said so in the log.
struct Unreached;

/// One of the named limits, and the names of its headers.
struct Limit {
    name: String,
    upstream: String,
    windows: Vec<Window>,
}

struct Window {
    period: Period,
    limit: f64,
    limit_header: String,
    remaining_header: String,
}

#[derive(Clone, Debug, Deserialize, Record)]
#[record(aliases(redis::shorthands()))]
pub struct Config {
    /// Header of the upstream's answer that tells the costs.
    #[field(default = "x-kong-limit")]
    header_name: Option<String>,
    /// Whose requests are counted together.
    #[field(default = "consumer", one_of(&["consumer", "credential", "ip"]))]
    limit_by: Option<String>,
    /// Where counters are kept.
    #[field(default = "local", one_of(&["local", "cluster", "redis"]))]
    policy: Option<String>,
    /// Whether requests pass while the counters cannot be reached.
    #[field(default = true)]
    fault_tolerant: bool,
    redis: RedisConfig,
    /// Refuses requests as soon as nothing is left of one of the limits.
    #[field(default = false)]
    block_on_first_violation: bool,
    /// Leaves out the headers that tell limits.
    #[field(default = false)]
    hide_client_headers: bool,
    /// Limits by name.
    #[field(len_min(1), values(|v| v.check("order of limits", check_order)))]
    limits: BTreeMap<String, Limits>,
}

/// Limits by window.
#[derive(Clone, Debug, Deserialize, Record)]
#[record(check(Check::at_least_one_of(&["second", "minute", "hour", "day", "month", "year"])))]
struct Limits {
    #[field(gt(0.0))]
    second: Option<f64>,
    #[field(gt(0.0))]
    minute: Option<f64>,
    #[field(gt(0.0))]
    hour: Option<f64>,
    #[field(gt(0.0))]
    day: Option<f64>,
    #[field(gt(0.0))]
    month: Option<f64>,
    #[field(gt(0.0))]
    year: Option<f64>,
}

fn check_order(limits: &Value) -> Result<(), String> {
    limits.as_object().map_or(Ok(()), |limits| limits::check_order(limits, "the"))
}

impl Plugin for ResponseRateLimiting {
    const NAME: &'static str = "response-ratelimiting";
    const PRIORITY: i32 = 900;
    const PHASES: Phases = Phases::ACCESS.and(Phases::HEADER_FILTER);
    type Config = Config;

    fn checks() -> Vec<Check> {
        limits::redis_checks().to_vec()
    }

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let limits = config.limits.iter().map(|(name, limits)| Limit::new(name, limits)).collect();
        let store = match config.policy.as_deref() {
            Some("redis") => Store::Redis(config.redis.link(env)?),
            Some("cluster") => Store::Cluster(env.handles.clone()),
            _ => Store::Local(env.handles.counters.clone()),
        };
        Ok(Self { limits, config, id: env.id, scope: Scope::of("response-ratelimiting", env), store })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let now = Moment::from(x.timing.started_at);
        let usage = match self.usage(&self.identifier(x), now).await {
            Ok(usage) => usage,
            Err(_) if self.config.fault_tolerant => return Ok(()),
            Err(_) => return Err(Reply::error(500, "An unexpected error occurred")),
        };
        for (limit, counted) in self.limits.iter().zip(&usage.counted) {
            let remaining = limit.windows.iter().map(|window| window.remaining(counted)).fold(f64::INFINITY, f64::min);
            if self.config.block_on_first_violation && remaining <= 0.0 {
                return Err(Reply::error(429, format!("API rate limit exceeded for '{}'", limit.name)));
            }
            x.request.headers.set(&limit.upstream, remaining.to_string());
        }
        x.keep(self.id, usage);
        Ok(())
    }

    fn header_filter(&self, x: &mut Exchange) {
        let name = self.config.header_name.as_deref().unwrap_or("x-kong-limit");
        let told = x.response.headers.get_str(name).unwrap_or_default().to_owned();
        x.response.headers.remove(name);
        let Some(usage) = x.take_kept::<Usage>(self.id) else { return };
        let costs = costs(&told);
        let mut refused = false;
        for (limit, counted) in self.limits.iter().zip(&usage.counted) {
            let cost = costs.get(limit.name.as_str()).copied().unwrap_or(0);
            for window in &limit.windows {
                let remaining = window.remaining(counted);
                refused |= cost > 0 && remaining <= 0.0;
                if !self.config.hide_client_headers {
                    x.response.headers.set(&window.limit_header, window.limit.to_string());
                    x.response.headers.set(&window.remaining_header, (remaining - cost as f64).max(0.0).to_string());
                }
            }
        }
        if refused {
            refuse(x);
        } else {
            self.count(&costs, &usage);
        }
    }
}

/// What was counted when the request came, for each of the limits.
struct Usage {
    counted: Vec<Periods<i64>>,
    whose: Whose,
    now: Moment,
}

/// Whose counters they are, and where.
enum Whose {
    /// With the key of each of the limits, and how many times a cost counts.
    Local(Arc<Counters>, Vec<Key>, i64),
    /// With the keys of each of the limits' windows.
    Cluster(Arc<dyn Quota>, Vec<Vec<Key>>),
    /// With how the keys begin.
    Redis(Arc<dyn Link>, String),
}

/// Puts an empty 429 in the answer's place.
fn refuse(x: &mut Exchange) {
    x.response.status = 429;
    x.response.reason = None;
    x.response.body = Body::Empty;
    for name in ["Content-Length", "Content-Type", "Content-Encoding", "ETag", "Last-Modified", "Accept-Ranges", "Trailer"] {
        x.response.headers.remove(name);
    }
    x.source = Source::Gateway;
}

/// `video=2, sms=1`; what is no whole number costs nothing.
fn costs(header: &str) -> BTreeMap<&str, i64> {
    let pairs = header.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, cost)| (name.trim(), cost.trim().parse().unwrap_or(0))).collect()
}

impl ResponseRateLimiting {
    async fn usage(&self, identifier: &Identifier<'_>, now: Moment) -> Result<Usage, Unreached> {
        match &self.store {
            Store::Local(counters) => Ok(self.local(counters, identifier, now, 1)),
            Store::Cluster(handles) => match handles.quota.get() {
                Some(quota) => self.shared(quota, &handles.counters, identifier, now).await,
                None => Ok(self.local(&handles.counters, identifier, now, 1)),
            },
            Store::Redis(link) => {
                let whose = self.scope.redis_key("response-ratelimit", identifier);
                let windows = |limit: &Limit| RedisCounter::all(&whose, Some(&limit.name), limit.windows.iter().map(|w| w.period), now);
                let windows: Vec<Vec<RedisCounter>> = self.limits.iter().map(windows).collect();
                let mut said = read(&**link, windows.iter().flatten()).await.map_err(|_| Unreached)?.into_iter();
                let mut counted = vec![[0; 6]; windows.len()];
                for (counted, windows) in counted.iter_mut().zip(&windows) {
                    for (window, said) in windows.iter().zip(&mut said) {
                        counted[window.period as usize] = said;
                    }
                }
                Ok(Usage { counted, whose: Whose::Redis(link.clone(), whose), now })
            }
        }
    }

    fn local(&self, counters: &Arc<Counters>, identifier: &Identifier<'_>, now: Moment, times: i64) -> Usage {
        let keys: Vec<Key> = self.limits.iter().map(|limit| self.scope.key(identifier, &limit.name)).collect();
        let counted = keys.iter().map(|key| counters.read(*key, now)).collect();
        Usage { counted, whose: Whose::Local(counters.clone(), keys, times), now }
    }

    /// What nodes have counted together. A cost counts for every node where this one counts by itself.
    async fn shared(
        &self,
        quota: &Arc<dyn Quota>,
        alone: &Arc<Counters>,
        identifier: &Identifier<'_>,
        now: Moment,
    ) -> Result<Usage, Unreached> {
        let (mut all, mut windows, mut end) = (Vec::new(), Vec::new(), None);
        for limit in &self.limits {
            let whose = quota::Whose { scope: &self.scope, identifier, name: &limit.name };
            let key = self.scope.key(identifier, &limit.name);
            let (mut counted, mut of_limit) = ([0; 6], Vec::new());
            for Window { period, limit, .. } in &limit.windows {
                match whose.counted(&**quota, (*period, *limit), now, &mut end).await {
                    Ok(Some(known)) => counted[*period as usize] = known,
                    Ok(None) => return Ok(self.local(alone, identifier, now, i64::try_from(quota.nodes()).unwrap_or(1))),
                    Err(quota::Unanswered) => {
                        if self.config.fault_tolerant {
                            quota.passed();
                        }
                        return Err(Unreached);
                    }
                }
                of_limit.push(key.within(*period, now.start(*period)));
            }
            all.push(counted);
            windows.push(of_limit);
        }
        Ok(Usage { counted: all, whose: Whose::Cluster(quota.clone(), windows), now })
    }

    /// Counts costs in the windows of all periods; what nodes share, in those that have a limit.
    fn count(&self, costs: &BTreeMap<&str, i64>, usage: &Usage) {
        let cost = |limit: &Limit| costs.get(limit.name.as_str()).copied().filter(|cost| *cost != 0);
        match &usage.whose {
            Whose::Local(counters, keys, times) => {
                for (limit, key) in self.limits.iter().zip(keys) {
                    if let Some(cost) = cost(limit) {
                        counters.add(*key, cost.saturating_mul(*times), usage.now);
                    }
                }
            }
            Whose::Cluster(quota, windows) => {
                for (limit, windows) in self.limits.iter().zip(windows) {
                    if let Some(cost) = cost(limit) {
                        windows.iter().for_each(|key| quota.charge(*key, cost));
                    }
                }
            }
            Whose::Redis(link, whose) => {
                let mut commands = Pipeline::new();
                for limit in &self.limits {
                    let Some(cost) = cost(limit) else { continue };
                    for window in RedisCounter::all(whose, Some(&limit.name), Period::ALL.into_iter(), usage.now) {
                        commands.add_command(window.counting(cost));
                    }
                }
                if !commands.is_empty() {
                    link.tell(commands);
                }
            }
        }
    }

    fn identifier<'a>(&self, x: &'a Exchange) -> Identifier<'a> {
        match (self.config.limit_by.as_deref(), &x.authenticated.credential) {
            (Some("credential"), Some(credential)) => Identifier::Text(&credential.id),
            (Some("credential" | "ip"), _) => Identifier::Address(x.client.ip),
            _ => limits::consumer(x),
        }
    }
}

impl Limit {
    fn new(name: &str, limits: &Limits) -> Self {
        let all = [limits.second, limits.minute, limits.hour, limits.day, limits.month, limits.year];
        let window = |period: Period| {
            let (limit, period_name) = (all[period as usize]?, period.name());
            let (limit_header, remaining_header) =
                (format!("X-RateLimit-Limit-{name}-{period_name}"), format!("X-RateLimit-Remaining-{name}-{period_name}"));
            Some(Window { period, limit, limit_header, remaining_header })
        };
        let windows = Period::ALL.into_iter().filter_map(window).collect();
        Self { name: name.to_owned(), upstream: format!("X-RateLimit-Remaining-{name}"), windows }
    }
}

impl Window {
    fn remaining(&self, counted: &Periods<i64>) -> f64 {
        self.limit - counted[self.period as usize] as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::plugin::reply::ReplyBody;
    use crate::plugin::testing::{exchange, plugin, refused, run, values};

    fn at(seconds: u64) -> Exchange {
        let mut x = exchange("GET", "/", &[]);
        x.timing.started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_295_300 + seconds);
        x
    }

    /// The status and what is left of video and sms, by minute and hour, after an answer with these costs.
    fn answer(plugin: &ResponseRateLimiting, costs: &str) -> (u16, [String; 3]) {
        let mut x = at(0);
        run(Plugin::access(plugin, &mut x)).unwrap();
        x.response.status = 200;
        x.response.headers.append("X-Kong-Limit", costs);
        plugin.header_filter(&mut x);
        let left = ["video-minute", "video-hour", "sms-minute"];
        let left = left.map(|name| values(&x.response.headers, &format!("X-RateLimit-Remaining-{name}")).concat());
        assert!(!x.response.headers.contains("x-kong-limit"));
        (x.response.status, left)
    }

    #[test]
    fn counts_what_the_upstream_says() {
        let plugin: ResponseRateLimiting = plugin(json!({"limits": {"video": {"minute": 4, "hour": 100}, "sms": {"minute": 2}}}));
        for (costs, status, left) in [
            ("video=1", 200, ["3", "99", "2"]),
            ("video=2,sms=1", 200, ["1", "97", "1"]),
            ("sms=1", 200, ["1", "97", "0"]),
            ("sms=1", 429, ["1", "97", "0"]),
            (" video = 9 ", 200, ["0", "88", "0"]),
            ("video=1", 429, ["0", "87", "0"]),
            ("other=5", 200, ["0", "88", "0"]),
            ("video=x", 200, ["0", "88", "0"]),
            ("video=-2", 200, ["0", "90", "0"]),
        ] {
            assert_eq!(answer(&plugin, costs), (status, left.map(str::to_owned)), "{costs}");
        }
        let mut x = at(0);
        run(Plugin::access(&plugin, &mut x)).unwrap();
        let told = ["video", "sms"].map(|name| values(&x.request.headers, &format!("X-RateLimit-Remaining-{name}")).concat());
        assert_eq!(told, ["-6", "0"]);
        let mut x = at(60);
        run(Plugin::access(&plugin, &mut x)).unwrap();
        assert_eq!(values(&x.request.headers, "X-RateLimit-Remaining-video"), ["4"]);
    }

    #[test]
    fn a_refused_answer_is_empty() {
        let plugin: ResponseRateLimiting = plugin(json!({"limits": {"video": {"minute": 1}}, "hide_client_headers": true}));
        answer(&plugin, "video=1");
        let mut x = at(0);
        run(Plugin::access(&plugin, &mut x)).unwrap();
        x.response.body = Body::from(bytes::Bytes::from_static(b"secret"));
        for (name, value) in [("X-Kong-Limit", "video=1"), ("Content-Length", "6"), ("Content-Type", "text/plain"), ("X-Own", "1")] {
            x.response.headers.append(name, value);
        }
        plugin.header_filter(&mut x);
        assert_eq!((x.response.status, x.response.body.is_empty(), x.response.headers.len()), (429, true, 1));
    }

    #[test]
    fn blocks_at_the_first_violation() {
        let plugin: ResponseRateLimiting = plugin(json!({"limits": {"video": {"minute": 2}}, "block_on_first_violation": true}));
        assert_eq!(answer(&plugin, "video=3").0, 200);
        let reply = run(Plugin::access(&plugin, &mut at(0))).unwrap_err();
        assert_eq!(reply.status, 429);
        assert_eq!(reply.body, ReplyBody::Message("API rate limit exceeded for 'video'".to_owned()));
    }

    #[test]
    fn refuses_configurations_in_kongs_words() {
        let refused = refused::<ResponseRateLimiting>;
        assert_eq!(refused(json!({})), json!({"config": {"limits": "required field missing"}}));
        assert_eq!(refused(json!({"limits": {}})), json!({"config": {"limits": "length must be at least 1"}}));
        assert_eq!(
            refused(json!({"limits": {"a": {}}})),
            json!({"config": {"limits": {"@entity": ["at least one of these fields must be non-empty: 'second', 'minute', 'hour', 'day', 'month', 'year'"]}}})
        );
        assert_eq!(
            refused(json!({"limits": {"a": {"minute": 5, "hour": 3}}})),
            json!({"config": {"limits": "the limit for hour(3.0) cannot be lower than the limit for minute(5.0)"}})
        );
    }
}
