//! Keeps answers of upstreams and gives them to later requests, without asking the upstream again.
//!
//! Answers are kept by consumer, route, method, path and query (`vary_query_params` and `vary_headers` say what else counts, or
//! what does not). Host and body of a request do not count: leave methods with a body out of `request_method` unless they do not
//! matter. A field `Vary` of an answer is not looked at: name the fields that count in `vary_headers`, `Accept-Encoding` for one.
//! What the upstream sets is kept as it is, `Set-Cookie` too.
//!
//! `X-Cache-Status` tells what has become of a request:
//!
//! - `Hit`: it was answered from the cache. `Age` tells for how many seconds the answer has been there.
//! - `Miss`: nothing was kept. The upstream's answer is, as soon as it is complete.
//! - `Refresh`: what is kept is older than `cache_ttl`, or than the client takes. The upstream's answer takes its place.
//! - `Bypass`: the request or the answer is not one that is kept.
//!
//! With `cache_control`, requests with `no-store`, `no-cache` or `Authorization` pass the cache, and so do answers with
//! `no-store`, `no-cache` or `private` and those that do not say how long they are fresh (`s-maxage`, `max-age`, `Expires`).
//! Of requests `max-age`, `max-stale`, `min-fresh` and `only-if-cached` count. An answer that is past its time, but within
//! `storage_ttl`, is given to clients that do not ask for less by `max-stale`.
//!
//! A client that has an answer already (`If-None-Match`, `If-Modified-Since`) is told so with 304. Of requests that come at the
//! same time for what is not kept, one asks the upstream; the others wait for its answer, for a second at most, unless it turns out
//! to be one that is not kept.
//!
//! Answers stream to the client while they are collected. All workers share the memory, `mem_cache_size` for all configurations
//! together; the least recently used give way. An answer larger than a sixteenth of it is not kept. `DELETE /proxy-cache` of the
//! Admin API forgets everything, `/proxy-cache/{key}` shows or forgets one answer.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | that of the kept answer | hit |
//! | 304 | hit, and the client has the answer already |
//! | 504 | `cache_control`, and the request says `only-if-cached` where nothing is kept |

use std::sync::Arc;

use bytes::Bytes;
use schema::{Check, Context, Record, Violations};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::Method;
use crate::plugin::cache::caching::{Policy, Told};
use crate::plugin::cache::key::Recipe;
use crate::plugin::cache::media_type::MediaType;
use crate::plugin::cache::{Caching, Storage};
use crate::plugin::{ALL_PROTOCOLS, Env, Exchange, Flow, Phases, Plugin};

/// `cache_ttl` where it was set to null.
const TTL: u64 = 300;
/// Memory that Kong's configuration has names for. Here it is all one.
const DICTIONARIES: &[&str] = &[
    "kong",
    "kong_cluster_events",
    "kong_core_db_cache",
    "kong_core_db_cache_miss",
    "kong_db_cache",
    "kong_db_cache_miss",
    "kong_healthchecks",
    "kong_locks",
    "kong_rate_limiting_counters",
    "kong_secrets",
    "prometheus_metrics",
];

pub struct ProxyCache(Caching);

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Statuses of answers that are kept.
    #[field(default = [200, 301, 404], len_min(1), elements(|e| e.between(100, 900)))]
    response_code: Vec<u16>,
    /// Methods of requests that are answered from the cache.
    #[field(default = ["GET", "HEAD"], elements(|e| e.one_of(&["HEAD", "GET", "POST", "PATCH", "PUT"])))]
    request_method: Vec<String>,
    /// Media types of answers that are kept, with all their parameters. `*` stands for any type or subtype.
    #[field(default = ["text/plain", "application/json"])]
    content_type: Vec<String>,
    /// Seconds for which answers are given.
    #[field(default = 300, gt(0.0))]
    cache_ttl: Option<u64>,
    /// Where answers are kept.
    #[field(one_of(&["memory"]))]
    #[expect(dead_code, reason = "validation has seen that it is the one there is")]
    strategy: String,
    /// Whether `Cache-Control` and `Expires` count.
    #[field(default = false)]
    cache_control: bool,
    /// Whether paths that differ in case alone are the same.
    #[field(default = false)]
    ignore_uri_case: Option<bool>,
    /// Seconds for which answers are kept, whether or not they are still given; 0 is without end. Unset: as long as they are fresh.
    storage_ttl: Option<i64>,
    #[expect(dead_code, reason = "all names mean the same memory")]
    memory: Memory,
    /// Arguments of the query that count. Unset: all.
    vary_query_params: Option<Vec<String>>,
    /// Header fields of requests that count.
    vary_headers: Option<Vec<String>>,
    response_headers: ResponseHeaders,
}

#[derive(Clone, Debug, Deserialize, Record)]
#[expect(dead_code, reason = "all names mean the same memory")]
struct Memory {
    /// As in Kong; all names mean the same memory.
    #[field(default = "kong_db_cache")]
    dictionary_name: String,
}

/// Which fields clients are told. A request with a field `Kong-Debug` is told all.
#[derive(Clone, Debug, Deserialize, Record)]
struct ResponseHeaders {
    #[field(default = true)]
    age: Option<bool>,
    #[field(default = true)]
    #[serde(rename = "X-Cache-Status")]
    status: Option<bool>,
    #[field(default = true)]
    #[serde(rename = "X-Cache-Key")]
    key: Option<bool>,
}

impl Plugin for ProxyCache {
    const NAME: &'static str = "proxy-cache";
    const PRIORITY: i32 = 100;
    const PHASES: Phases = Phases::ACCESS.and(Phases::HEADER_FILTER).and(Phases::BODY_FILTER);
    const ALLOWED_PROTOCOLS: &'static [&'static str] = ALL_PROTOCOLS;
    type Config = Config;

    fn checks() -> Vec<Check> {
        vec![Check::contextual(&["config"], check_dictionary)]
    }

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let told = &config.response_headers;
        let policy = Policy {
            methods: config.request_method.iter().map(|method| Method::parse(method)).collect(),
            statuses: config.response_code,
            // what is no media type matches no answer, as in Kong
            content_types: config.content_type.iter().filter_map(|text| MediaType::parse(text)).collect(),
            ttl: config.cache_ttl.unwrap_or(TTL),
            storage_ttl: config.storage_ttl.and_then(|seconds| u64::try_from(seconds).ok()),
            cache_control: config.cache_control,
            key: Recipe {
                ignore_uri_case: config.ignore_uri_case.unwrap_or_default(),
                vary_query_params: config.vary_query_params.unwrap_or_default(),
                vary_headers: config.vary_headers.unwrap_or_default(),
            },
            told: Told { age: told.age.unwrap_or_default(), status: told.status.unwrap_or_default(), key: told.key.unwrap_or_default() },
        };
        Ok(Self(Caching::new(policy, Storage::Memory(Arc::clone(&env.handles.cache)), env.id)))
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        self.0.access(x).await
    }

    fn header_filter(&self, x: &mut Exchange) {
        self.0.header_filter(x);
    }

    fn body_filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool) {
        self.0.body_filter(x, chunk, last);
    }
}

/// Where `nginx_http_lua_shared_dict` is set, names are not known here.
fn check_dictionary(row: &Map<String, Value>, context: &Context) -> Result<(), Violations> {
    let config = row.get("config").unwrap_or(&Value::Null);
    let known = |name: &str| DICTIONARIES.contains(&name) || context.has("shared_dict");
    match config["memory"]["dictionary_name"].as_str() {
        Some(name) if config["strategy"] == "memory" && !known(name) => Err(Violations::entity(format!("missing shared dict '{name}'"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
