//! The order in which the parts come up, and go down.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::cluster::mesh::tls::Tls;
use actix_rt::Arbiter;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::actors::cache;
use crate::actors::catalog::{Configuration, load};
use crate::actors::file_log::FileWriters;
use crate::actors::rate_limits::RateLimits;
use crate::actors::redis::Connections;
use crate::actors::replication::{self, Commands, Replication};
use crate::actors::resolver;
use crate::actors::upstreams::Upstreams;
use crate::admin::access_log::AccessLog;
use crate::admin::context::{Context, Node as Identity, Options, TROOP_VERSION};
use crate::admin::server;
use crate::admin::vitals::Vitals;
use crate::catalog::{Catalog, Schemas};
use crate::declarative::EMPTY_HASH;
use crate::node::certificates::{self, Replaceable};
use crate::node::cluster::{self, Membership};
use crate::node::declared::{self, Declared, declared};
use crate::node::metrics::NodeMetrics;
use crate::node::proxy::Proxy;
use crate::node::signals::{Signals, Told};
use crate::node::vitals::Running;
use crate::node::{StartError, listeners, log, terms};
use crate::plugin::redis::Redis;
use crate::plugin::{self, Descriptor, Handles};
use crate::plugins::PLUGINS;
use crate::proxy::server::Counters;
use crate::settings::value::{Database, LogTarget};
use crate::settings::{self, Settings};
use crate::snapshot::Builder;
use crate::store::Embedded;

/// Upper bounds, in seconds, of the time in which changes take effect.
const APPLY: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// How long a node that stops waits for log records to be written.
const LOGS: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    settings: Settings,
    proxy: Proxy,
    /// Of the Admin API and the status API, where they speak TLS.
    certificates: [(certificates::Listener, Option<Arc<Replaceable>>); 2],
    /// Towards the other nodes of a cluster.
    tls: Option<Arc<Tls>>,
    servers: Vec<actix_web::dev::Server>,
    signals: Signals,
    log: Arc<log::Log>,
    handles: Arc<Handles>,
    redis: Connections,
    replication: Option<Arc<Replication>>,
    /// Kept while the node runs: the thread of the actors.
    actors: Arbiter,
    _pid: PidFile,
}

impl Node {
    /// Brings everything up: store, actors, first snapshot, listeners.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let log = log::start(settings.log_level);
        let file = settings.file().map_or("none".to_owned(), |file| file.display().to_string());
        tracing::info!(version = env!("CARGO_PKG_VERSION"), prefix = %settings.prefix.display(), file, "starting");
        for (name, why) in settings.without_effect() {
            match why {
                settings::UNKNOWN => tracing::warn!(name, why, "a setting has no effect"),
                why => tracing::info!(name, why, "a setting has no effect"),
            }
        }
        let signals = Signals::new().map_err(|error| StartError::Io { what: "cannot listen to signals", error })?;
        prepare_prefix(&settings)?;
        let sockets = listeners::proxy(&settings, Vec::new())?;
        let admin_api = listeners::api(&settings, certificates::Listener::Admin)?;
        let status_api = listeners::api(&settings, certificates::Listener::Status)?;

        let dbless = settings.database == Database::Off;
        let directory = if dbless { settings.path(declared::KEPT) } else { settings.prefix.clone() };
        let membership = Membership::of(&settings)?;
        let mut store = Embedded::open(&directory)?;
        if membership.is_none() {
            store = store.not_clustered()?;
        }
        let store = Arc::new(store);
        let writing = store.health();
        let enabled = enabled_plugins(&settings);
        let schemas = schemas(&settings, enabled.clone());
        let (catalog, hash) = if dbless {
            let Declared { catalog, hash } = declared(&settings, &schemas, &*store)?;
            (catalog, hash)
        } else if membership.is_some() {
            (replication::first(&store)?, EMPTY_HASH.to_owned())
        } else {
            (load(&*store)?, EMPTY_HASH.to_owned())
        };

        let actors = Arbiter::new();
        let arbiter = actors.handle();
        let resolver = resolver::start(&arbiter, terms::dns(&settings));
        let upstreams = Arc::new(Upstreams::new(arbiter.clone(), resolver.clone(), terms::recovery(&settings)));
        let node_id = match &membership {
            Some(membership) => membership.node,
            None => settings
                .persistent_node_id()
                .map_err(|error| StartError::Prefix { prefix: settings.prefix.display().to_string(), error })?,
        };
        let identity = Identity::of(&settings, node_id);
        let node = plugin::Node { id: node_id, hostname: identity.hostname.clone() };
        let kept = Arc::new(plugin::cache::Cache::new(usize::try_from(settings.mem_cache_size.0).unwrap_or(usize::MAX)));
        let handles = Arc::new(Handles { node, cache: Arc::clone(&kept), ..Handles::default() });
        let _ = handles.health.set(Arc::clone(&upstreams) as Arc<_>);
        let defaults = terms::services(&settings)?;
        let redis = Connections::new(arbiter.clone(), resolver.clone(), defaults.authorities.clone(), defaults.tls_verify_depth);
        let _ = handles.redis.set(Arc::new(redis.clone()));
        let _ = handles.cache_owner.set(Arc::new(cache::Handle::start(kept, &arbiter)));
        let _ = RateLimits::start(Arc::clone(&handles.counters), &arbiter);
        handles.files.written_by(Box::new(FileWriters(arbiter.clone())));
        handles.metrics.show_targets(Arc::clone(&upstreams) as Arc<_>);

        let mut builder = Builder::new(settings.router_flavor, defaults, Arc::clone(&handles), resolver);
        let first = Arc::new(catalog.clone());
        let snapshot = Arc::new(ArcSwap::from_pointee(builder.build(Arc::clone(&first), upstreams.reconcile(&first))));
        let publish = {
            let (snapshot, upstreams, builder) = (Arc::clone(&snapshot), Arc::clone(&upstreams), Mutex::new(builder));
            let applied = handles.metrics.histogram("troop_configuration_apply_seconds", "Time from a stored change to its effect", APPLY);
            Arc::new(move |catalog: &Arc<Catalog>, _: &[crate::catalog::Edit]| {
                let _timer = applied.start_timer();
                let balancers = upstreams.reconcile(catalog);
                snapshot.store(Arc::new(builder.lock().build(Arc::clone(catalog), balancers)));
            })
        };
        let (configuration, replication) = match &membership {
            None => (Configuration::start(&arbiter, store, catalog, schemas.clone(), publish), None),
            Some(membership) => {
                let configuration = Configuration::following(&arbiter, catalog, schemas.clone(), publish);
                let config = membership.config(&settings, &handles.node.hostname, TROOP_VERSION);
                let commands = Commands::new(Arc::clone(&handles.cache), Arc::clone(&upstreams));
                let replication = Replication::start(config, store, configuration.clone(), commands).await;
                let replication = replication.map_err(|error| StartError::Cluster(reasons(&error)))?;
                let _ = handles.quota.set(Arc::clone(replication.limits()) as Arc<_>);
                (configuration, Some(replication))
            }
        };

        let counters = Arc::new(Counters::default());
        let names = Arc::clone(&snapshot);
        handles.metrics.name_by(move || names.load_full());
        let running = Running {
            counters: Arc::clone(&counters),
            catalog: configuration.current(),
            dbless,
            replication: replication.clone(),
            unready: Arc::new(AtomicBool::new(false)),
            metrics: enabled.iter().any(|plugin| plugin.name == "prometheus").then(|| Arc::clone(&handles.metrics)),
        };
        let vitals = Arc::new(running);
        let store = Arc::downgrade(&vitals);
        handles.metrics.register(Box::new(NodeMetrics {
            id: node_id.to_string(),
            connections: Arc::clone(&counters),
            rate_limits: Arc::clone(&handles.counters),
            cache: Arc::clone(&handles.cache),
            traffic: Arc::clone(&handles.metrics.traffic),
            redis_failures: Box::new({
                let redis = redis.clone();
                move || redis.failures()
            }),
            cluster: replication.clone(),
            certificate: membership.as_ref().and_then(|membership| membership.tls.clone()),
            store: writing,
            reachable: Box::new(move || store.upgrade().is_some_and(|vitals| vitals.store_reachable())),
        }));

        let context = Arc::new(Context {
            node: identity,
            options: Options::of(&settings),
            plugins: enabled,
            schemas,
            catalog: configuration.current(),
            writer: Arc::new(configuration),
            cluster: replication.clone(),
            configuration_hash: ArcSwap::from_pointee(hash),
            loading: tokio::sync::Mutex::default(),
            handles: Arc::clone(&handles),
            health: upstreams,
            log_levels: Arc::clone(&log) as Arc<_>,
            vitals,
        });
        let serve = |error| StartError::Io { what: "cannot serve the Admin API", error };
        let mut servers = Vec::new();
        if !admin_api.listeners.is_empty() {
            let log = access_log(&settings, "admin_access_log", &settings.admin_access_log)?;
            servers.push(server::admin(Arc::clone(&context), admin_api.listeners, log).map_err(serve)?);
        }
        if !status_api.listeners.is_empty() {
            let log = access_log(&settings, "status_access_log", &settings.status_access_log)?;
            servers.push(server::status(context, status_api.listeners, log).map_err(serve)?);
        }
        let certificates =
            [(certificates::Listener::Admin, admin_api.certificate), (certificates::Listener::Status, status_api.certificate)];
        let proxy = Proxy::start(&settings, sockets, snapshot, counters, Arc::clone(&handles))?;
        let pid = PidFile::write(&settings)?;
        let tls = membership.and_then(|membership| membership.tls);
        Ok(Self { settings, proxy, certificates, tls, servers, signals, log, handles, redis, replication, actors, _pid: pid })
    }

    /// Serves until told to stop, then finishes what is under way.
    pub async fn serve(mut self) {
        let handles: Vec<_> = self.servers.iter().map(actix_web::dev::Server::handle).collect();
        for server in self.servers.drain(..) {
            actix_rt::spawn(server);
        }
        loop {
            match self.signals.next().await {
                Told::Stop => break,
                Told::Reload => {
                    self.handles.files.reopen();
                    match self.reload() {
                        Ok(()) => tracing::info!("settings and certificates are read again"),
                        Err(error) => tracing::error!(%error, "the settings cannot be read again; the old ones stay"),
                    }
                }
            }
        }
        tracing::info!("stopping: requests under way are finished");
        self.proxy.stop().await;
        self.redis.settle().await;
        if !self.handles.files.settled(LOGS).await {
            tracing::error!("log records are still waiting for their files and are lost");
        }
        for handle in handles {
            handle.stop(true).await;
        }
        if let Some(replication) = self.replication {
            replication.stop().await;
        }
        self.actors.stop();
    }

    /// Reads settings and certificates again. New connections are served by new workers; the old ones finish what they have.
    /// When something is wrong everything stays as it was.
    fn reload(&mut self) -> Result<(), StartError> {
        let next = self.settings.again().map_err(|error| StartError::Settings(error.to_string()))?;
        let mut shown = Vec::new();
        for (listener, shows) in &self.certificates {
            if let Some(shows) = shows {
                shown.push((shows, certificates::own(&next, *listener)?));
            }
        }
        self.proxy.reload(&next)?;
        if let Some(tls) = &self.tls {
            cluster::reload(tls, &next)?;
        }
        for (shows, certificate) in shown {
            shows.0.store(certificate);
        }
        self.log.configure(next.log_level);
        for name in next.waiting_for_a_restart(&self.settings) {
            tracing::warn!(name, "a changed setting takes effect after a restart");
        }
        self.settings = next;
        Ok(())
    }
}

/// An error with what is behind it.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

/// The plugins that may be configured.
pub fn enabled_plugins(settings: &Settings) -> Vec<&'static Descriptor> {
    let bundled: Vec<&str> = PLUGINS.iter().map(|p| p.name).collect();
    let names = settings.enabled_plugins(&bundled);
    PLUGINS.iter().filter(|p| names.contains(&p.name)).collect()
}

/// What the schemas of rows depend on.
pub fn schemas(settings: &Settings, enabled: Vec<&'static Descriptor>) -> Schemas {
    let choose = move |entity: &str, name: &str| match entity {
        "plugins" => enabled.iter().find(|p| p.name == name).map(|p| p.chosen()),
        _ => None,
    };
    let mut features = Vec::new();
    if settings.router_flavor == crate::router::Flavor::Expressions {
        features.push("expressions");
    }
    if settings.nginx_http_lua_shared_dict.is_some() {
        features.push("shared_dict");
    }
    Schemas { choose: Arc::new(choose), features }
}

/// The access log that a setting names.
fn access_log(settings: &Settings, what: &'static str, target: &LogTarget) -> Result<Option<AccessLog>, StartError> {
    let Some(path) = settings.log_file(target) else { return Ok(None) };
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder.and_then(|()| AccessLog::open(&path)).map(Some).map_err(|error| StartError::Io { what, error })
}

fn prepare_prefix(settings: &Settings) -> Result<(), StartError> {
    std::fs::create_dir_all(&settings.prefix)
        .and_then(|()| std::fs::create_dir_all(settings.path("pids")))
        .map_err(|error| StartError::Prefix { prefix: settings.prefix.display().to_string(), error })
}

/// The file that names the process, for as long as it runs.
struct PidFile(std::path::PathBuf);

impl PidFile {
    fn write(settings: &Settings) -> Result<Self, StartError> {
        let path = settings.pid_file();
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .map_err(|error| StartError::Prefix { prefix: settings.prefix.display().to_string(), error })?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
