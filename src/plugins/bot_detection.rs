//! Refuses bots, crawlers and HTTP libraries by what they call themselves in `User-Agent`.
//!
//! A client that a pattern of `allow` matches is let through, then one that a pattern of `deny` matches is refused, then one
//! of the families that are known. Patterns are regular expressions that match anywhere in the text, with regard to case. A
//! request without `User-Agent` is let through.
//!
//! | family | for example |
//! |---|---|
//! | monitors and previews | Pingdom, facebookexternalhit, Twitterbot, LinkedInBot, Google's web snippets |
//! | search engines | Googlebot, bingbot, Baiduspider, YandexBot, Yahoo! Slurp, Applebot, DuckDuckBot |
//! | crawlers, spiders and scrapers | Scrapy, Nutch, Heritrix, `examplebot/1.0` |
//! | HTTP libraries | okhttp, axios, Go-http-client, python-requests, Python-urllib, Apache-HttpClient, Java, libwww-perl |
//! | clients of clouds | aws-sdk-*, aws-cli, Boto3 |
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 403 | the client is a bot |
//! | 400 | there is more than one `User-Agent` |

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use lru::LruCache;
use parking_lot::Mutex;
use regex::{RegexSet, RegexSetBuilder};
use schema::{Record, Violations};
use serde::Deserialize;

use crate::plugin::pattern::{self, Pattern};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes};

/// Verdicts that are remembered.
const CACHE: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Longer texts are not remembered.
const MAX_CACHED: usize = 512;

/// Families of bots that are refused without being named in `deny`.
const BOTS: &[&str] = &[
    r"Pingdom|UptimeRobot|StatusCake|Site24x7|HttpMonitor",
    r"facebookexternalhit/|facebookcatalog/|meta-externalagent/",
    r"(?:Twitter|LinkedIn|Telegram|Discord|Slack|Pinterest)[Bb]ot\b|Slackbot-LinkExpanding",
    r"Google.{0,10}/\+/web/snippet|Google-HTTP-Java-Client|Mediapartners-Google|AdsBot-Google|APIs-Google|Google-Read-Aloud",
    r"(?i:googlebot|bingbot|msnbot|yandex(?:\w*)bot|baiduspider|duckduckbot|applebot|sogou web spider|ia_archiver|yahoo! slurp)",
    r"(?i:\b(?:scrapy|nutch|heritrix|grub|wget-crawler|webzip|webcopier|httrack|larbin|steeler|wminer|fetchurl|msiecrawler)\b)",
    r"(?i:(?:crawl(?:er)?|spider|scraper?)s?\b)",
    // A name that ends with "bot", with a version: not "Cubot", which makes telephones.
    r"[^Uu\W][Bb]ot[/ -]v?\d|[^Cc\W][Uu]bot[/ -]v?\d|\b[Bb]ot[/ -]v?\d",
    r"(?i:(?:ahrefs|semrush|mj12|dot|petal|seznam|exa|rogerbot|blex|mega?index|serpstat|bytes|gpt|claude|cc|perplexity)bot\b)",
    r"okhttp|Apache-HttpClient|Apache-HttpAsyncClient|Jakarta Commons-HttpClient|http%20client|^Java/|JNLP|WinHTTP|TLSProber",
    r"(?i:python-urllib|python-requests|python-httpx|aiohttp/|^python/|libwww-perl|lwp::|^ruby\b|faraday v|guzzlehttp|^php/)",
    r"axios/|node-fetch|^node$|undici|got \(https|superagent|Go-http-client|Go \d[\d.]* package http|reqwest/|^hyper/",
    r"(?i:aws-sdk-[\w+]+|aws-cli/|\bboto3?/|botocore/|aws-chalice|exec-env/aws)",
    r"(?i:phantomjs|headlesschrome|slimerjs|puppeteer)",
];

static KNOWN: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSetBuilder::new(BOTS).size_limit(1 << 24).build().expect("the patterns are fixed and tested"));

pub struct BotDetection {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    seen: Mutex<LruCache<Box<str>, bool, ahash::RandomState>>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Patterns of clients that are let through.
    #[field(optional, default = [], elements(|e| e.check("is_regex", pattern::check)))]
    allow: Vec<String>,
    /// Patterns of clients that are refused.
    #[field(optional, default = [], elements(|e| e.check("is_regex", pattern::check)))]
    deny: Vec<String>,
}

impl Plugin for BotDetection {
    const NAME: &'static str = "bot-detection";
    const PRIORITY: i32 = 2500;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let compile = |list: &[String]| list.iter().filter_map(|text| Pattern::new(text)).collect();
        let seen = Mutex::new(LruCache::with_hasher(CACHE, ahash::RandomState::new()));
        Ok(Self { allow: compile(&config.allow), deny: compile(&config.deny), seen })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let mut agents = x.request.headers.get_all("user-agent");
        let Some(agent) = agents.next() else { return Ok(()) };
        if agents.next().is_some() {
            return Err(Reply::error(400, "Only one User-Agent header allowed"));
        }
        if self.is_bot(&String::from_utf8_lossy(agent)) { Err(Reply::error(403, "Forbidden")) } else { Ok(()) }
    }
}

impl BotDetection {
    fn is_bot(&self, agent: &str) -> bool {
        if agent.len() > MAX_CACHED {
            return self.judge(agent);
        }
        if let Some(verdict) = self.seen.lock().get(agent) {
            return *verdict;
        }
        let verdict = self.judge(agent);
        self.seen.lock().put(agent.into(), verdict);
        verdict
    }

    fn judge(&self, agent: &str) -> bool {
        if self.allow.iter().any(|pattern| pattern.matches(agent, false)) {
            return false;
        }
        self.deny.iter().any(|pattern| pattern.matches(agent, true)) || KNOWN.is_match(agent)
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::plugin::testing::{exchange, message, plugin, refused, run};

    fn status(config: Value, agents: &[&str]) -> u16 {
        let headers: Vec<_> = agents.iter().map(|agent| ("User-Agent", *agent)).collect();
        let plugin = plugin::<BotDetection>(config);
        let ask = || run(plugin.access(&mut exchange("GET", "/", &headers))).map_or_else(|reply| reply.status, |()| 200);
        let first = ask();
        assert_eq!(ask(), first, "what is remembered is what was found");
        first
    }

    #[test]
    fn bots_are_refused() {
        for agent in [
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "facebookexternalhit/1.1",
            "Twitterbot/1.0",
            "LinkedInBot/1.0",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0)",
            "Scrapy/1.0 (+http://scrapy.org)",
            "Mozilla/5.0 (compatible; Baiduspider/2.0)",
            "my-crawler/1.0",
            "ExampleBot/1.0",
            "aws-sdk-go/1.8.1 (go1.8; linux; amd64)",
            "aws-cli/2.0.0 Python/3.7.3",
            "Boto3/1.9",
            "okhttp/4.9.0",
            "axios/0.21.1",
            "Go-http-client/1.1",
            "Python-urllib/3.8",
            "python-requests/2.25",
            "Apache-HttpClient/4.5.13 (Java/11.0.8)",
            "Java/1.8.0_151",
        ] {
            assert_eq!(status(json!({}), &[agent]), 403, "{agent}");
        }
    }

    #[test]
    fn people_are_not() {
        for agent in [
            "curl/8.5.0",
            "Wget/1.21",
            "HTTPie/3.2",
            "PostmanRuntime/7.29",
            "",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/90.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 11; Cubot 5) AppleWebKit/537.36",
        ] {
            assert_eq!(status(json!({}), &[agent]), 200, "{agent}");
        }
        assert_eq!(status(json!({}), &[]), 200);
    }

    #[test]
    fn lists_come_before_families() {
        let config = || json!({"allow": ["googlebot"], "deny": ["malicious-bot", "^curl"]});
        for (agent, expected) in [("googlebot/2", 200), ("malicious-bot/1", 403), ("curl/8", 403), ("x curl", 200), ("Scrapy/1.0", 403)] {
            assert_eq!(status(config(), &[agent]), expected, "{agent}");
        }
    }

    #[test]
    fn one_name_only() {
        let reply = run(plugin::<BotDetection>(json!({})).access(&mut exchange("GET", "/", &[("User-Agent", "a"), ("user-agent", "b")])));
        let reply = reply.unwrap_err();
        assert_eq!((reply.status, message(&reply)), (400, "Only one User-Agent header allowed"));
    }

    #[test]
    fn patterns_are_checked() {
        assert_eq!(refused::<BotDetection>(json!({"allow": ["("]})), json!({"config": {"allow": ["not a valid regex: ("]}}));
    }
}
