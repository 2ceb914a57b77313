//! The order in which the parts come up, and go down.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix_rt::Arbiter;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::actors::cache;
use crate::actors::catalog::{Configuration, load};
use crate::actors::rate_limits::RateLimits;
use crate::actors::resolver;
use crate::actors::upstreams::Upstreams;
use crate::admin::access_log::AccessLog;
use crate::admin::context::{Context, Node as Identity, Options};
use crate::admin::server::{self, Listener};
use crate::catalog::{Catalog, Schemas};
use crate::declarative::EMPTY_HASH;
use crate::node::declared::{self, Declared, declared};
use crate::node::signals::{Signals, Told};
use crate::node::vitals::Running;
use crate::node::workers::{Parts, Workers};
use crate::node::{StartError, log, terms};
use crate::plugin::{self, Descriptor, Handles};
use crate::plugins::PLUGINS;
use crate::proxy::server::{Bound, Counters};
use crate::settings::value::{Database, LogTarget};
use crate::settings::{Listen, Settings};
use crate::snapshot::Builder;
use crate::store::{Embedded, Store};

/// A running node.
pub struct Node {
    settings: Arc<Settings>,
    workers: Workers,
    servers: Vec<actix_web::dev::Server>,
    signals: Signals,
    log: Arc<log::Log>,
    /// Kept while the node runs: the thread of the actors.
    actors: Arbiter,
    _pid: PidFile,
}

impl Node {
    /// Brings everything up: store, actors, first snapshot, listeners.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let log = log::start(settings.log_level);
        for (name, why) in settings.without_effect() {
            tracing::info!(name, why, "a setting has no effect");
        }
        let signals = Signals::new().map_err(|error| StartError::Io { what: "cannot listen to signals", error })?;
        prepare_prefix(&settings)?;
        let count = settings.workers();
        let sockets = bind_proxy(&settings, count)?;
        let admin_sockets = bind("admin_listen", &settings.admin_listen)?;
        let status_sockets = bind("status_listen", &settings.status_listen)?;

        let dbless = settings.database == Database::Off;
        let directory = if dbless { settings.path(declared::KEPT) } else { settings.prefix.clone() };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&directory)?);
        let enabled = enabled_plugins(&settings);
        let schemas = schemas(&settings, enabled.clone());
        let (catalog, hash) = if dbless {
            let Declared { catalog, hash } = declared(&settings, &schemas, &*store)?;
            (catalog, hash)
        } else {
            (load(&*store)?, EMPTY_HASH.to_owned())
        };

        let actors = Arbiter::new();
        let arbiter = actors.handle();
        let resolver = resolver::start(&arbiter, terms::dns(&settings));
        let upstreams = Arc::new(Upstreams::new(arbiter.clone(), resolver.clone(), terms::recovery(&settings)));
        let node_id =
            settings.persistent_node_id().map_err(|error| StartError::Prefix { prefix: settings.prefix.display().to_string(), error })?;
        let identity = Identity::of(&settings, node_id);
        let node = plugin::Node { id: node_id, hostname: identity.hostname.clone() };
        let kept = Arc::new(plugin::cache::Cache::new(usize::try_from(settings.mem_cache_size.0).unwrap_or(usize::MAX)));
        let handles = Arc::new(Handles { node, cache: Arc::clone(&kept), ..Handles::default() });
        let _ = handles.health.set(Arc::clone(&upstreams) as Arc<_>);
        let _ = handles.cache_owner.set(Arc::new(cache::Handle::start(kept, &arbiter)));
        let _ = RateLimits::start(Arc::clone(&handles.counters), &arbiter);

        let mut builder = Builder::new(settings.router_flavor, terms::services(&settings)?, Arc::clone(&handles), resolver);
        let first = Arc::new(catalog.clone());
        let snapshot = Arc::new(ArcSwap::from_pointee(builder.build(Arc::clone(&first), upstreams.reconcile(&first))));
        let publish = {
            let (snapshot, upstreams, builder) = (Arc::clone(&snapshot), Arc::clone(&upstreams), Mutex::new(builder));
            Arc::new(move |catalog: &Arc<Catalog>, _: &[crate::catalog::Edit]| {
                let balancers = upstreams.reconcile(catalog);
                snapshot.store(Arc::new(builder.lock().build(Arc::clone(catalog), balancers)));
            })
        };
        let configuration = Configuration::start(&arbiter, store, catalog, schemas.clone(), publish);

        let counters = Counters::new(count);
        let running = Running {
            counters: Arc::clone(&counters),
            catalog: configuration.current(),
            dbless,
            unready: Arc::new(AtomicBool::new(false)),
        };
        let context = Arc::new(Context {
            node: identity,
            options: Options::of(&settings),
            plugins: enabled,
            schemas,
            catalog: configuration.current(),
            writer: Arc::new(configuration),
            configuration_hash: ArcSwap::from_pointee(hash),
            loading: tokio::sync::Mutex::default(),
            handles,
            health: upstreams,
            log_levels: Arc::clone(&log) as Arc<_>,
            vitals: Arc::new(running),
        });
        let serve = |error| StartError::Io { what: "cannot serve the Admin API", error };
        let mut servers = Vec::new();
        if !admin_sockets.is_empty() {
            let log = access_log(&settings, "admin_access_log", &settings.admin_access_log)?;
            servers.push(server::admin(Arc::clone(&context), admin_sockets, log).map_err(serve)?);
        }
        if !status_sockets.is_empty() {
            let log = access_log(&settings, "status_access_log", &settings.status_access_log)?;
            servers.push(server::status(context, status_sockets, log).map_err(serve)?);
        }
        let parts = Parts {
            terms: Arc::new(terms::engine(&settings)?),
            snapshot,
            pool: terms::pool(&settings),
            limits: terms::limits(&settings),
            counters,
            grace: settings.nginx_main_worker_shutdown_timeout.0,
        };
        let workers = Workers::start(count, &parts, sockets);
        let pid = PidFile::write(&settings)?;
        Ok(Self { settings: Arc::new(settings), workers, servers, signals, log, actors, _pid: pid })
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
                Told::Reload => match self.settings.again() {
                    Ok(settings) => self.log.configure(settings.log_level),
                    Err(error) => tracing::error!(%error, "the settings cannot be read again; the old ones stay"),
                },
            }
        }
        tracing::info!("stopping: requests under way are finished");
        self.workers.stop().await;
        for handle in handles {
            handle.stop(true).await;
        }
        self.actors.stop();
    }
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

fn bind_proxy(settings: &Settings, workers: usize) -> Result<Vec<(Listen, Bound)>, StartError> {
    let bind = |listen: &Listen| match Bound::new(listen, workers) {
        Ok(bound) => Ok((listen.clone(), bound)),
        Err(error) => Err(StartError::Listen { setting: "proxy_listen", address: listen.address, error }),
    };
    settings.proxy_listen.iter().filter(|l| !l.ssl).map(bind).collect()
}

fn bind(setting: &'static str, listens: &[Listen]) -> Result<Vec<Listener>, StartError> {
    let bind = |listen: &Listen| match std::net::TcpListener::bind(listen.address) {
        Ok(socket) => Ok(Listener { socket, tls: None }),
        Err(error) => Err(StartError::Listen { setting, address: listen.address, error }),
    };
    listens.iter().filter(|l| !l.ssl).map(bind).collect()
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
