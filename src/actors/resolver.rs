//! The resolver: looks names up and is the only writer of the cache of names.
//!
//! A name is looked up as Kong's DNS client does it: the hosts file first, then the record types of `dns_order`, beginning
//! with the one that answered last time, each under the search domains of `resolv.conf`. Requests for a name that is being
//! looked up join the one lookup.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::ArbiterHandle;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as ServerError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType as WireType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::oneshot;

use super::supervise::{Supervised, supervise};
use crate::balancer::dns::{Answer, DnsCache, DnsError, Entry, Lookups, Record, RecordType, Resolved, Resolver};

/// The `dns_*` settings.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// `dns_resolver`; those of `resolv.conf` when empty.
    pub servers: Vec<SocketAddr>,
    /// Where search domains, options and default servers are read from.
    pub resolv_conf: PathBuf,
    /// `dns_hostsfile`
    pub hosts_file: PathBuf,
    /// `dns_order`
    pub order: Vec<Order>,
    /// `dns_valid_ttl`: in place of the records' own.
    pub valid_ttl: Option<Duration>,
    /// `dns_stale_ttl`: how long expired answers are given while they are looked up again.
    pub stale_ttl: Duration,
    /// `dns_not_found_ttl`
    pub not_found_ttl: Duration,
    /// `dns_error_ttl`
    pub error_ttl: Duration,
    /// `dns_cache_size`: names that are kept.
    pub cache_size: usize,
}

/// One step of `dns_order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The type that the name had last time.
    Last,
    Srv,
    A,
    Aaaa,
    /// Needs no step of its own: aliases are followed in every type.
    Cname,
}

impl std::str::FromStr for Order {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let steps = [("LAST", Self::Last), ("SRV", Self::Srv), ("A", Self::A), ("AAAA", Self::Aaaa), ("CNAME", Self::Cname)];
        steps.into_iter().find(|(name, _)| text.trim().eq_ignore_ascii_case(name)).map(|(_, step)| step).ok_or(())
    }
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts_file: "/etc/hosts".into(),
            order: vec![Order::Last, Order::Srv, Order::A, Order::Cname],
            valid_ttl: None,
            stale_ttl: Duration::from_secs(3600),
            not_found_ttl: Duration::from_secs(30),
            error_ttl: Duration::from_secs(1),
            cache_size: 10_000,
        }
    }
}

/// Lookups under way at once; more are refused.
const MOST_LOOKUPS: usize = 1024;
/// SRV records of one answer whose targets are looked up.
const MOST_SRV: usize = 64;
/// Names of the hosts file do not expire, and no setting reaches further.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Starts the resolver on an arbiter.
pub fn start(arbiter: &ArbiterHandle, options: DnsOptions) -> Resolver {
    let cache = Arc::new(DnsCache::default());
    let lookups = Arc::new(Mailbox::default());
    let actor = supervise("resolver", arbiter, MOST_LOOKUPS, {
        let cache = cache.clone();
        move || ResolverActor::new(options.clone(), cache.clone())
    });
    let _ = lookups.0.set(actor);
    Resolver::new(cache, lookups)
}

#[derive(Default)]
struct Mailbox(OnceLock<Supervised<ResolverActor>>);

impl Lookups for Mailbox {
    fn look_up(&self, name: &str, reply: Option<oneshot::Sender<Answer>>) -> bool {
        self.0.get().is_some_and(|actor| actor.address().try_send(LookUp { name: name.into(), reply }).is_ok())
    }
}

/// Looks a name up, or joins the lookup under way.
#[derive(Message)]
#[rtype(result = "()")]
struct LookUp {
    name: Arc<str>,
    reply: Option<oneshot::Sender<Answer>>,
}

struct ResolverActor {
    client: Arc<Client>,
    cache: Arc<DnsCache>,
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>,
}

impl ResolverActor {
    fn new(options: DnsOptions, cache: Arc<DnsCache>) -> Self {
        Self { client: Arc::new(Client::new(options)), cache, waiting: HashMap::new() }
    }

    /// Puts the answer into the cache and gives it to those who wait.
    fn answered(&mut self, name: Arc<str>, answer: Answer) {
        let now = Instant::now();
        let options = &self.client.options;
        let answer = match (answer, self.cache.entry(&name)) {
            (Ok(resolved), _) if resolved.transient => {
                self.cache.remove(&name);
                Ok(resolved)
            }
            (Ok(resolved), _) => {
                let entry = Entry::new(Ok(resolved.clone()), resolved.expires, resolved.expires + options.stale_ttl, now);
                self.cache.insert(name.clone(), Arc::new(entry), options.cache_size);
                Ok(resolved)
            }
            (Err(error), known) => {
                self.cache.counts.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%name, %error, "name resolution failed");
                let ttl = match error {
                    DnsError::NameError | DnsError::Empty => options.not_found_ttl,
                    DnsError::Failed(_) | DnsError::Busy => options.error_ttl,
                };
                match known.filter(|entry| entry.answer.is_ok() && now < entry.stale_until) {
                    Some(stale) => {
                        stale.put_off(now + ttl);
                        stale.answer.clone()
                    }
                    None => {
                        let entry = Entry::new(Err(error.clone()), now + ttl, now + ttl, now);
                        self.cache.insert(name.clone(), Arc::new(entry), options.cache_size);
                        Err(error)
                    }
                }
            }
        };
        for reply in self.waiting.remove(&name).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = reply.send(answer.clone());
        }
    }
}

impl Actor for ResolverActor {
    type Context = Context<Self>;
}

impl Handler<LookUp> for ResolverActor {
    type Result = ();

    fn handle(&mut self, look_up: LookUp, ctx: &mut Self::Context) {
        let LookUp { name, reply } = look_up;
        if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.extend(reply);
            return;
        }
        let known = self.cache.entry(&name);
        if let (Some(entry), Some(_)) = (known.as_ref().filter(|entry| Instant::now() < entry.expires), &reply) {
            // The answer came while the question was under way.
            let _ = reply.map(|reply| reply.send(entry.answer.clone()));
            return;
        }
        if self.waiting.len() >= MOST_LOOKUPS {
            let _ = reply.map(|reply| reply.send(Err(DnsError::Busy)));
            return;
        }
        self.waiting.insert(name.clone(), reply.into_iter().collect());
        let last = known.and_then(|entry| entry.answer.as_ref().ok().map(|resolved| resolved.kind));
        let client = self.client.clone();
        let lookup = {
            let name = name.clone();
            async move { client.look_up(&name, last).await }
        };
        ctx.spawn(lookup.into_actor(self).map(move |answer, actor, _| actor.answered(name, answer)));
    }
}

/// Asks the hosts file and the servers.
struct Client {
    options: DnsOptions,
    hosts: HashMap<String, Vec<IpAddr>>,
    servers: Option<TokioResolver>,
    search: Vec<Name>,
    ndots: usize,
}

impl Client {
    fn new(mut options: DnsOptions) -> Self {
        for time in [&mut options.stale_ttl, &mut options.not_found_ttl, &mut options.error_ttl].into_iter().chain(&mut options.valid_ttl) {
            *time = FOREVER.min(*time);
        }
        let system = std::fs::read(&options.resolv_conf).ok().and_then(|text| parse_resolv_conf(text).ok());
        let (config, mut opts) = system.unwrap_or_else(|| {
            // What the C library does without a configuration.
            let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
            (ResolverConfig::from_parts(None, Vec::new(), vec![local]), ResolverOpts::default())
        });
        let (_, search, system_servers) = config.into_parts();
        let servers = if options.servers.is_empty() { system_servers } else { options.servers.iter().map(server).collect() };
        // Names, order and caching are this module's own.
        opts.cache_size = 0;
        opts.use_hosts_file = ResolveHosts::Never;
        let ndots = opts.ndots;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = opts;
        let servers = builder.build().inspect_err(|error| tracing::error!(%error, "the DNS client cannot be built")).ok();
        let hosts = read_hosts(&options.hosts_file);
        Self { options, hosts, servers, search, ndots }
    }

    async fn look_up(&self, name: &str, last: Option<RecordType>) -> Answer {
        let now = Instant::now();
        if let Some(ips) = self.hosts.get(name.trim_end_matches('.')) {
            let kind = if ips.iter().any(IpAddr::is_ipv4) { RecordType::A } else { RecordType::Aaaa };
            let of_kind = ips.iter().filter(|ip| ip.is_ipv4() == (kind == RecordType::A));
            let records = of_kind.map(|ip| Record { target: None, addresses: [*ip].into(), port: None, weight: 1 }).collect();
            return Ok(Arc::new(Resolved::new(kind, records, now + FOREVER, false)));
        }
        let mut error = None;
        for kind in self.kinds(last) {
            match self.ask_everywhere(name, kind).await {
                Ok(found) => match self.resolved(kind, found).await {
                    Ok(resolved) => return Ok(Arc::new(resolved)),
                    Err(failed) => error = Some(worse(error, failed)),
                },
                Err(failed) => error = Some(worse(error, failed)),
            }
        }
        Err(error.unwrap_or(DnsError::Empty))
    }

    /// The types to ask for, each once.
    fn kinds(&self, last: Option<RecordType>) -> Vec<RecordType> {
        let mut kinds = Vec::new();
        for step in &self.options.order {
            let kind = match step {
                Order::Last => last,
                Order::Srv => Some(RecordType::Srv),
                Order::A => Some(RecordType::A),
                Order::Aaaa => Some(RecordType::Aaaa),
                Order::Cname => None,
            };
            kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
        }
        kinds
    }

    /// Asks for one type under every name that the search list makes of `name`.
    async fn ask_everywhere(&self, name: &str, kind: RecordType) -> Result<Found, DnsError> {
        let mut error = None;
        for name in self.candidates(name)? {
            match self.ask(name, kind).await {
                Ok(found) => return Ok(found),
                Err(failed) => error = Some(worse(error, failed)),
            }
        }
        Err(error.unwrap_or(DnsError::Empty))
    }

    fn candidates(&self, name: &str) -> Result<Vec<Name>, DnsError> {
        let mut given = Name::from_utf8(name).map_err(|_| DnsError::NameError)?;
        if given.is_fqdn() {
            return Ok(vec![given]);
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let mut names: Vec<Name> = self.search.iter().filter_map(|domain| given.clone().append_domain(domain).ok()).collect();
        given.set_fqdn(true);
        // The order is that of resolv.conf(5).
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, given);
        Ok(names)
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Found, DnsError> {
        let servers = self.servers.as_ref().ok_or_else(|| failed("no DNS client"))?;
        let wire = match kind {
            RecordType::A => WireType::A,
            RecordType::Aaaa => WireType::AAAA,
            RecordType::Srv => WireType::SRV,
        };
        let lookup = servers.lookup(name, wire).await.map_err(|error| match error {
            NetError::Dns(ServerError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => DnsError::NameError,
                ResponseCode::NoError => DnsError::Empty,
                code => failed(&format!("dns server error: {} {code}", u16::from(code))),
            },
            error => failed(&format!("dns client error: {error}")),
        })?;
        // An alias on the way may live shorter than what it leads to.
        let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let mut found = Found { ttl, ips: Vec::new(), services: Vec::new() };
        for record in lookup.answers() {
            match &record.data {
                RData::A(a) if kind == RecordType::A => found.ips.push(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) if kind == RecordType::Aaaa => found.ips.push(IpAddr::V6(aaaa.0)),
                RData::SRV(srv) if kind == RecordType::Srv => found.services.push(srv.clone()),
                _ => {}
            }
        }
        if found.ips.is_empty() && found.services.is_empty() { Err(DnsError::Empty) } else { Ok(found) }
    }

    async fn resolved(&self, kind: RecordType, found: Found) -> Result<Resolved, DnsError> {
        let mut ttl = found.ttl;
        let plain = |ip: IpAddr| Record { target: None, addresses: [ip].into(), port: None, weight: 1 };
        let mut records: Vec<Record> = found.ips.into_iter().map(plain).collect();
        if kind == RecordType::Srv {
            let mut error = None;
            for (srv, looked_up) in self.services(found.services).await {
                match looked_up {
                    Ok((addresses, least)) => {
                        ttl = ttl.min(least);
                        let target: Arc<str> = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase().into();
                        let port = (srv.port != 0).then_some(srv.port);
                        records.push(Record { target: Some(target), addresses, port, weight: u32::from(srv.weight.max(1)) });
                    }
                    Err(failed) => error = Some(worse(error, failed)),
                }
            }
            if records.is_empty() {
                return Err(error.unwrap_or(DnsError::Empty));
            }
        }
        let ttl = self.options.valid_ttl.unwrap_or(Duration::from_secs(u64::from(ttl)));
        Ok(Resolved::new(kind, records, Instant::now() + ttl, ttl.is_zero()))
    }

    /// The SRV records of the first priority, with their targets' addresses.
    async fn services(&self, mut services: Vec<SRV>) -> Vec<(SRV, Result<(Box<[IpAddr]>, u32), DnsError>)> {
        let first = services.iter().map(|srv| srv.priority).min();
        services.retain(|srv| Some(srv.priority) == first);
        services.truncate(MOST_SRV);
        let lookups = services.into_iter().map(|srv| async move {
            let addresses = self.service(&srv).await;
            (srv, addresses)
        });
        futures_util::future::join_all(lookups).await
    }

    async fn service(&self, srv: &SRV) -> Result<(Box<[IpAddr]>, u32), DnsError> {
        let name = srv.target.to_ascii().to_ascii_lowercase();
        if let Some(ips) = self.hosts.get(name.trim_end_matches('.')) {
            return Ok((ips.clone().into_boxed_slice(), u32::MAX));
        }
        let mut error = None;
        for kind in self.kinds(None).into_iter().filter(|kind| *kind != RecordType::Srv) {
            match self.ask(srv.target.clone(), kind).await {
                Ok(found) => return Ok((found.ips.into_boxed_slice(), found.ttl)),
                Err(failed) => error = Some(worse(error, failed)),
            }
        }
        Err(error.unwrap_or(DnsError::Empty))
    }
}

/// What one question found.
struct Found {
    ttl: u32,
    ips: Vec<IpAddr>,
    services: Vec<SRV>,
}

fn failed(text: &str) -> DnsError {
    DnsError::Failed(text.into())
}

/// Of several failures the one to report: that a server failed says more than that another had nothing.
fn worse(known: Option<DnsError>, next: DnsError) -> DnsError {
    let rank = |error: &DnsError| match error {
        DnsError::NameError => 0,
        DnsError::Empty => 1,
        DnsError::Busy | DnsError::Failed(_) => 2,
    };
    match known {
        Some(known) if rank(&known) >= rank(&next) => known,
        _ => next,
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    let mut config = NameServerConfig::udp_and_tcp(address.ip());
    config.connections = connections.into();
    config
}

/// Names of a hosts file. `localhost` is there in any case (RFC 6761).
fn read_hosts(path: &Path) -> HashMap<String, Vec<IpAddr>> {
    let text = std::fs::read_to_string(path)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the hosts file cannot be read"))
        .unwrap_or_default();
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let ips = hosts.entry(name.to_ascii_lowercase()).or_default();
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    hosts.entry("localhost".to_owned()).or_insert_with(|| vec![IpAddr::from([127, 0, 0, 1])]);
    hosts
}

#[cfg(test)]
pub(super) mod tests;
