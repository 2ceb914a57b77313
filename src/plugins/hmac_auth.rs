//! Authenticates a request by a signature over parts of it, made with a secret that the client shares with the gateway.
//!
//! ```text
//! Authorization: hmac username="bob", algorithm="hmac-sha256", headers="date @request-target", signature="<base64>"
//! ```
//!
//! What is signed has a line for each name in `headers`, in that order: `name: value` for a header, `name:` for one that is not
//! there, the request line for `request-line`, and `@request-target: get /path?query` for `@request-target`. The request needs
//! a `X-Date` or `Date` that is at most `clock_skew` seconds away from now. With `validate_request_body` the body has to fit
//! `Digest: SHA-256=<base64>`; without that header it has to be empty. Bodies of more than 8 MiB do not fit.
//!
//! `Proxy-Authorization` is looked at first, `Authorization` when it holds no such credential. With `hide_credentials` the
//! header that was used does not reach the upstream.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 401 | there is no credential, or it is wrong; with `WWW-Authenticate: hmac` |
//! | 500 | `anonymous` names a consumer that does not exist |

use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};
use base64::prelude::{BASE64_STANDARD, Engine};
use schema::{Record, Violations};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::http::Version;
use crate::model::HmacAuthCredential;
use crate::plugin::auth::{self, Verified};
use crate::plugin::header_credentials::{HEADERS, after_scheme};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes, form};

/// Longest body whose digest is computed.
const MAX_BODY: usize = 8 * 1024 * 1024;

const NO_CREDENTIAL: &str = "Unauthorized";
const BAD_DATE: &str = "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
const NOT_VERIFIED: &str = "HMAC signature cannot be verified";
const NO_MATCH: &str = "HMAC signature does not match";

pub struct HmacAuth {
    config: Config,
    challenge: String,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Removes the credential from the request before it goes upstream.
    #[field(default = false)]
    hide_credentials: bool,
    /// Seconds by which the clocks of client and gateway may differ.
    #[field(optional, default = 300, gt(0.0))]
    clock_skew: f64,
    /// Consumer (id or username) to go on as when authentication fails.
    anonymous: Option<String>,
    /// Compares the body with the header `Digest`.
    #[field(default = false)]
    validate_request_body: bool,
    /// Names that have to be signed.
    #[field(optional, default = [])]
    enforce_headers: Vec<String>,
    /// Algorithms that are accepted.
    #[field(optional, default = ALGORITHMS, elements(|e| e.one_of(ALGORITHMS)))]
    algorithms: Vec<String>,
    /// Realm of the challenge.
    realm: Option<String>,
}

const ALGORITHMS: &[&str] = &["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

impl Plugin for HmacAuth {
    const NAME: &'static str = "hmac-auth";
    const PRIORITY: i32 = 1030;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let challenge = auth::challenge("hmac", config.realm.as_deref());
        Ok(Self { config, challenge })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let anonymous = self.config.anonymous.as_deref();
        if auth::already_authenticated(x, anonymous) {
            return Ok(());
        }
        let outcome = self.verify(x).await;
        auth::settle(x, anonymous, outcome)
    }
}

impl HmacAuth {
    async fn verify(&self, x: &mut Exchange) -> Result<Verified, Reply> {
        if HEADERS.iter().all(|name| !x.request.headers.contains(name)) {
            return Err(self.refusal(NO_CREDENTIAL));
        }
        if !self.is_timely(x) {
            return Err(self.refusal(BAD_DATE));
        }
        let found = HEADERS.into_iter().find_map(|name| Some((name, Signature::parse(x.request.headers.get(name)?)?)));
        let (header, signature) = found.ok_or_else(|| self.refusal(NOT_VERIFIED))?;
        let algorithm = self.acceptable(&signature).ok_or_else(|| self.refusal(NOT_VERIFIED))?;
        let credential = x.world.find::<HmacAuthCredential>("username", &signature.username).ok_or_else(|| self.refusal(NOT_VERIFIED))?;
        let key = hmac::Key::new(algorithm, credential.secret.as_bytes());
        if hmac::verify(&key, &signed_text(x, &signature.headers), &signature.signature).is_err() {
            return Err(self.refusal(NO_MATCH));
        }
        if self.config.validate_request_body && !body_fits(x).await? {
            return Err(self.refusal(NO_MATCH));
        }
        if self.config.hide_credentials {
            x.request.headers.remove(header);
        }
        Verified::of(x, credential.id, credential.consumer.id, credential.username.as_str())
    }

    fn is_timely(&self, x: &Exchange) -> bool {
        let allowed = Duration::try_from_secs_f64(self.config.clock_skew).unwrap_or(Duration::MAX);
        let now = SystemTime::now();
        ["x-date", "date"].into_iter().any(|name| {
            let date = x.request.headers.get_str(name).and_then(|text| httpdate::parse_http_date(text).ok());
            // a date says whole seconds
            date.is_some_and(|date| now.duration_since(date).unwrap_or_else(|early| early.duration()).as_secs() <= allowed.as_secs())
        })
    }

    /// The algorithm, when it is accepted and all signs that has to be.
    fn acceptable(&self, signature: &Signature) -> Option<hmac::Algorithm> {
        let signed = |name: &String| signature.headers.iter().any(|header| header.eq_ignore_ascii_case(name));
        if !self.config.algorithms.contains(&signature.algorithm) || !self.config.enforce_headers.iter().all(signed) {
            return None;
        }
        match signature.algorithm.as_str() {
            "hmac-sha1" => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            "hmac-sha256" => Some(hmac::HMAC_SHA256),
            "hmac-sha384" => Some(hmac::HMAC_SHA384),
            "hmac-sha512" => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn refusal(&self, message: &str) -> Reply {
        Reply::error(401, message).header("WWW-Authenticate", &self.challenge)
    }
}

/// What the header says.
#[derive(Debug, Default, PartialEq)]
struct Signature {
    username: String,
    algorithm: String,
    headers: Vec<String>,
    signature: Vec<u8>,
}

impl Signature {
    fn parse(value: &[u8]) -> Option<Self> {
        let mut rest = after_scheme(value, "hmac")?;
        let mut found = Self::default();
        while !rest.is_empty() {
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            match name.trim() {
                "username" => found.username = value.to_owned(),
                "algorithm" => found.algorithm = value.to_owned(),
                "headers" => found.headers = value.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                "signature" => found.signature = BASE64_STANDARD.decode(value).unwrap_or_default(),
                _ => {}
            }
            let after = after.trim_start();
            rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
        }
        (!found.username.is_empty()).then_some(found)
    }
}

/// The text that the client has signed.
fn signed_text(x: &Exchange, names: &[String]) -> Vec<u8> {
    let (method, target) = (x.request.method.as_str(), x.request.target.as_str());
    let mut out = Vec::new();
    for name in names {
        if !out.is_empty() {
            out.push(b'\n');
        }
        match (x.request.headers.get(name), name.as_str()) {
            (Some(value), _) => out.extend_from_slice(&[name.as_bytes(), b": ", value].concat()),
            (None, "@request-target") => out.extend_from_slice(format!("{name}: {} {target}", method.to_lowercase()).as_bytes()),
            (None, "request-line") => out.extend_from_slice(format!("{method} {target} HTTP/{}", version(x)).as_bytes()),
            (None, _) => out.extend_from_slice(format!("{name}:").as_bytes()),
        }
    }
    out
}

fn version(x: &Exchange) -> &'static str {
    if x.request.version == Version::Http2 { "2.0" } else { x.request.version.number() }
}

async fn body_fits(x: &mut Exchange) -> Result<bool, Reply> {
    let Some(body) = form::bytes(x, MAX_BODY).await? else { return Ok(false) };
    let Some(told) = x.request.headers.get("digest") else { return Ok(body.is_empty()) };
    let made = format!("SHA-256={}", BASE64_STANDARD.encode(digest::digest(&digest::SHA256, &body)));
    Ok(made.as_bytes().ct_eq(told).into())
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::model::Consumer;
    use crate::plugin::testing::{Rows, exchange_with_body, message, plugin, refused, run, values};

    const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";

    /// A request and how it is signed.
    struct Ask<'a> {
        method: &'a str,
        target: &'a str,
        headers: Vec<(&'a str, String)>,
        body: &'a str,
        names: &'a str,
        /// What is signed.
        text: String,
        algorithm: &'a str,
        user: &'a str,
        secret: &'a str,
        scheme: &'a str,
        header: &'a str,
    }

    fn date(ahead: i64) -> String {
        let now = SystemTime::now();
        let moment = if ahead < 0 { now - Duration::from_secs(ahead.unsigned_abs()) } else { now + Duration::from_secs(ahead as u64) };
        httpdate::fmt_http_date(moment)
    }

    /// A good request that signs its date.
    fn ask() -> Ask<'static> {
        let date = date(0);
        Ask {
            method: "GET",
            target: "/a/b?x=1&y=%20z",
            text: format!("date: {date}"),
            headers: vec![("Date", date)],
            body: "",
            names: "date",
            algorithm: "hmac-sha256",
            user: "bob-1",
            secret: "s3cret",
            scheme: "hmac",
            header: "Authorization",
        }
    }

    impl Ask<'_> {
        /// Signs further names, which make these lines.
        fn also(mut self, names: &'static str, lines: &str) -> Self {
            self.names = names;
            self.text = format!("{}\n{lines}", self.text);
            self
        }

        fn exchange(&self) -> Exchange {
            let algorithm = match self.algorithm {
                "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                "hmac-sha384" => hmac::HMAC_SHA384,
                "hmac-sha512" => hmac::HMAC_SHA512,
                _ => hmac::HMAC_SHA256,
            };
            let tag = hmac::sign(&hmac::Key::new(algorithm, self.secret.as_bytes()), self.text.as_bytes());
            let signature = BASE64_STANDARD.encode(tag);
            let (scheme, user, algorithm, names) = (self.scheme, self.user, self.algorithm, self.names);
            let value = format!(r#"{scheme} username="{user}", algorithm="{algorithm}", headers="{names}", signature="{signature}""#);
            let mut headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            headers.push((self.header, &value));
            let mut x = exchange_with_body(self.method, self.target, &headers, self.body);
            x.world = Rows::default()
                .with::<Consumer>(json!({"id": BOB, "username": "bob"}))
                .with::<HmacAuthCredential>(json!({"consumer": {"id": BOB}, "username": "bob-1", "secret": "s3cret"}))
                .world();
            x
        }

        fn outcome(&self, config: Value) -> Result<(), String> {
            run(plugin::<HmacAuth>(config).access(&mut self.exchange())).map_err(|reply| {
                assert_eq!(reply.status, 401);
                message(&reply).to_owned()
            })
        }
    }

    fn refusal(text: &str) -> Result<(), String> {
        Err(text.to_owned())
    }

    #[test]
    fn algorithms_and_schemes() {
        for algorithm in ALGORITHMS {
            assert_eq!(Ask { algorithm, ..ask() }.outcome(json!({})), Ok(()), "{algorithm}");
        }
        for algorithm in ["hmac-sha224", "hmac-md5"] {
            assert_eq!(Ask { algorithm, ..ask() }.outcome(json!({})), refusal(NOT_VERIFIED));
        }
        assert_eq!(ask().outcome(json!({"algorithms": ["hmac-sha384"]})), refusal(NOT_VERIFIED));
        assert_eq!(Ask { scheme: "Hmac", ..ask() }.outcome(json!({})), Ok(()));
        assert_eq!(Ask { scheme: "HMAC", ..ask() }.outcome(json!({})), refusal(NOT_VERIFIED));
        assert_eq!(Ask { secret: "other", ..ask() }.outcome(json!({})), refusal(NO_MATCH));
        assert_eq!(Ask { user: "eve", ..ask() }.outcome(json!({})), refusal(NOT_VERIFIED));
    }

    #[test]
    fn what_is_signed() {
        assert_eq!(ask().also("date request-line", "GET /a/b?x=1&y=%20z HTTP/1.1").outcome(json!({})), Ok(()));
        assert_eq!(ask().also("date @request-target", "@request-target: get /a/b?x=1&y=%20z").outcome(json!({})), Ok(()));
        assert_eq!(ask().also("date x-none", "x-none:").outcome(json!({})), Ok(()));
        let mut own = ask().also("date X-Own", "X-Own: v");
        own.headers.push(("x-own", "v".to_owned()));
        assert_eq!(own.outcome(json!({})), Ok(()));
        let enforce = || json!({"enforce_headers": ["date", "@Request-Target"]});
        assert_eq!(ask().also("date @request-target", "@request-target: get /a/b?x=1&y=%20z").outcome(enforce()), Ok(()));
        assert_eq!(ask().outcome(enforce()), refusal(NOT_VERIFIED));
    }

    #[test]
    fn dates() {
        let at = |name: &'static str, date: String| Ask {
            text: format!("{}: {date}", name.to_lowercase()),
            headers: vec![(name, date)],
            ..ask()
        };
        assert_eq!(at("Date", date(-200)).outcome(json!({})), Ok(()));
        assert_eq!(Ask { names: "x-date", ..at("X-Date", date(0)) }.outcome(json!({})), Ok(()));
        for bad in [date(-302), date(310), "yesterday".to_owned()] {
            assert_eq!(at("Date", bad).outcome(json!({})), refusal(BAD_DATE));
        }
        assert_eq!(at("Date", date(-200)).outcome(json!({"clock_skew": 10})), refusal(BAD_DATE));
        assert_eq!(Ask { headers: vec![], ..ask() }.outcome(json!({})), refusal(BAD_DATE));
    }

    #[test]
    fn digests_of_bodies() {
        let hello = format!("SHA-256={}", BASE64_STANDARD.encode(digest::digest(&digest::SHA256, b"hello")));
        let call = |digest: Option<&str>, body| {
            let mut ask = Ask { method: "POST", body, ..ask() };
            ask.headers.extend(digest.map(|digest| ("Digest", digest.to_owned())));
            ask.outcome(json!({"validate_request_body": true}))
        };
        assert_eq!(call(Some(&hello), "hello"), Ok(()));
        assert_eq!(call(Some(&hello), "other"), refusal(NO_MATCH));
        assert_eq!(call(Some(&hello.replace("SHA", "sha")), "hello"), refusal(NO_MATCH));
        assert_eq!((call(None, ""), call(None, "hello")), (Ok(()), refusal(NO_MATCH)));
    }

    #[test]
    fn headers_and_identity() {
        let proxy = Ask { header: "Proxy-Authorization", ..ask() };
        let mut x = proxy.exchange();
        x.request.headers.append("Authorization", "Bearer x");
        assert!(run(plugin::<HmacAuth>(json!({"hide_credentials": true})).access(&mut x)).is_ok());
        assert_eq!(values(&x.request.headers, "x-credential-identifier"), ["bob-1"]);
        assert!(!x.request.headers.contains("proxy-authorization") && x.request.headers.contains("authorization"));

        let mut x = ask().exchange();
        x.request.headers.remove("authorization");
        let reply = run(plugin::<HmacAuth>(json!({"realm": "shop"})).access(&mut x)).unwrap_err();
        assert_eq!((message(&reply), values(&reply.headers, "www-authenticate")), (NO_CREDENTIAL, vec!["hmac realm=\"shop\"".to_owned()]));
    }

    #[test]
    fn malformed_headers() {
        for text in
            ["hmac", "hmac username=\"bob\" algorithm=\"x\"", "hmac username=bob", "hmac algorithm=\"x\"", "hmac username=\"bob", "Basic x"]
        {
            assert_eq!(Signature::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn bad_configurations() {
        assert_eq!(refused::<HmacAuth>(json!({"clock_skew": 0})), json!({"config": {"clock_skew": "value must be greater than 0"}}));
        let algorithms = "expected one of: hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512";
        assert_eq!(refused::<HmacAuth>(json!({"algorithms": ["hmac-md5"]})), json!({"config": {"algorithms": [algorithms]}}));
    }
}
