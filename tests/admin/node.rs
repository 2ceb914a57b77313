//! A node's Admin API on a free port, over a catalog in memory.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use troop::admin::context::{Context, Node, Options, Pending, Schemas, Writer};
use troop::admin::health::{Address, BalancerHealth, Health, SetError, State, TargetHealth, Which};
use troop::admin::node::log_level::LogLevels;
use troop::admin::server::{self, Listener};
use troop::admin::vitals::{Connections, Readiness, Vitals};
use troop::catalog::{Catalog, Change, WriteError, Written};
use troop::plugin::Handles;
use troop::plugin::cache::entry::Status;
use troop::plugin::cache::{self, Cache, Entry, Key, Owner};
use troop::plugin::counters::Moment;
use troop::settings::value::LogLevel;
use uuid::Uuid;

use super::client::{self, Answer};

/// A running Admin API and status API.
pub struct TestNode {
    pub admin: SocketAddr,
    pub status: SocketAddr,
    pub catalog: Arc<ArcSwap<Catalog>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
}

impl TestNode {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn dbless() -> Self {
        Self::with(Options { dbless: true, ..Options::default() })
    }

    #[allow(clippy::disallowed_methods, reason = "the node of a test is no task of a runtime")]
    pub fn with(options: Options) -> Self {
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::default()));
        let context = context(options, catalog.clone());
        let (admin, status) = (bind(), bind());
        let addresses = (admin.local_addr().expect("bound"), status.local_addr().expect("bound"));
        let (sent, handles) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let admin = server::admin(context.clone(), vec![Listener { socket: admin, tls: None }], None).expect("a bound socket");
                let status = server::status(context, vec![Listener { socket: status, tls: None }], None).expect("a bound socket");
                sent.send((admin.handle(), status.handle())).expect("the test waits");
                let _ = futures_util::future::join(admin, status).await;
            });
        });
        let (admin, status) = handles.recv().expect("the servers start");
        let stop = move || {
            drop(admin.stop(false));
            drop(status.stop(false));
            let _ = thread.join();
        };
        Self { admin: addresses.0, status: addresses.1, catalog, stop: Some(Box::new(stop)) }
    }

    pub fn get(&self, path: &str) -> Answer {
        client::send(self.admin, "GET", path, &[], b"")
    }

    pub fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        client::send(self.admin, method, path, &[("content-type", "application/json")], body.as_bytes())
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body)
    }

    pub fn form(&self, method: &str, path: &str, body: &str) -> Answer {
        client::send(self.admin, method, path, &[("content-type", "application/x-www-form-urlencoded")], body.as_bytes())
    }

    pub fn delete(&self, path: &str) -> Answer {
        client::send(self.admin, "DELETE", path, &[], b"")
    }

    /// A service named `svc`.
    pub fn service(&self) -> Value {
        self.post("/services", json!({"name": "svc", "url": "http://upstream.test"})).expect(201)
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn context(options: Options, catalog: Arc<ArcSwap<Catalog>>) -> Arc<Context> {
    let choose = |entity: &str, name: &str| match entity {
        "plugins" => troop::plugins::plugin(name).map(|p| p.chosen()),
        _ => None,
    };
    let schemas = Schemas { choose: Arc::new(choose), features: Vec::new() };
    Arc::new(Context {
        node: Node { id: Uuid::from_u128(1), hostname: "node.test".to_owned(), configuration: json!({"pg_password": "******"}) },
        options,
        plugins: troop::plugins::PLUGINS.iter().collect(),
        schemas: schemas.clone(),
        handles: handles(),
        catalog: catalog.clone(),
        writer: Arc::new(InMemory { catalog, schemas, turn: Arc::default() }),
        configuration_hash: ArcSwap::from_pointee("0".repeat(32)),
        loading: tokio::sync::Mutex::default(),
        health: Arc::new(Balancers),
        log_levels: Arc::new(Levels(Mutex::new(LogLevel::Notice))),
        vitals: Arc::new(Pulse { draining: AtomicBool::new(false) }),
    })
}

/// A cache with one answer, under the key of all ones.
fn handles() -> Arc<Handles> {
    let handles = Handles::default();
    let entry = Entry {
        status: 200,
        headers: troop::http::Headers::new(),
        body: "kept".into(),
        stored: Moment(1000),
        ttl: 300,
        expires: Moment(u64::MAX),
        brought_by: Status::Miss,
    };
    let key = Key([0x11; 32]);
    handles.cache.memory.store(key, Arc::new(entry), handles.cache.memory.epoch(&key));
    let _ = handles.cache_owner.set(Arc::new(Owned(Arc::clone(&handles.cache))));
    Arc::new(handles)
}

/// The cache's owner, without an actor.
struct Owned(Arc<Cache>);

impl Owner for Owned {
    fn find(&self, key: Key) -> cache::Answer<Option<Arc<Entry>>> {
        let found = self.0.memory.peek(&key, Moment(0));
        Box::pin(std::future::ready(Ok(found)))
    }

    fn purge(&self, key: Key) -> cache::Answer<bool> {
        let was_there = self.0.memory.purge(&key);
        Box::pin(std::future::ready(Ok(was_there)))
    }

    fn purge_all(&self) -> cache::Answer<()> {
        drop(self.0.memory.purge_all());
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Plans and puts the plan into effect, one after the other.
struct InMemory {
    catalog: Arc<ArcSwap<Catalog>>,
    schemas: Schemas,
    turn: Arc<Mutex<()>>,
}

impl Writer for InMemory {
    fn write(&self, change: Change) -> Pending<Result<Written, WriteError>> {
        let _turn = self.turn.lock();
        let written = self.catalog.load().plan(change, &self.schemas.context()).map(|plan| {
            let written = plan.written();
            self.catalog.store(Arc::new(plan.next));
            written
        });
        Box::pin(std::future::ready(written))
    }
}

/// Every target has one healthy address. Health can be set, except that of address 9.9.9.9.
struct Balancers;

fn target_health() -> TargetHealth {
    let address = Address { ip: "127.0.0.1".to_owned(), port: 9101, weight: 100, state: State::Healthy };
    TargetHealth {
        host: "127.0.0.1".to_owned(),
        port: 9101,
        dns: "A".to_owned(),
        node_weight: 100,
        addresses: vec![address],
        state: State::Healthy,
    }
}

impl Health for Balancers {
    fn target(&self, _: Uuid, _: Uuid) -> Option<TargetHealth> {
        Some(target_health())
    }

    fn balancer(&self, _: Uuid) -> Option<BalancerHealth> {
        Some(BalancerHealth { healthy: true, checks: true, hosts: vec![target_health()] })
    }

    fn set(&self, which: &Which, healthy: bool) -> Result<(), SetError> {
        match (which.address.as_deref(), healthy) {
            (Some("9.9.9.9"), _) => Err(SetError::UnknownAddress),
            (_, true) => Ok(()),
            (_, false) => Err(SetError::NoChecks),
        }
    }
}

struct Levels(Mutex<LogLevel>);

impl LogLevels for Levels {
    fn current(&self) -> LogLevel {
        *self.0.lock()
    }

    fn set(&self, level: LogLevel, _: Option<Duration>) {
        *self.0.lock() = level;
    }
}

struct Pulse {
    draining: AtomicBool,
}

impl Vitals for Pulse {
    fn connections(&self) -> Connections {
        Connections { accepted: 7, requests: 9, ..Connections::default() }
    }

    fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) { Readiness::Draining } else { Readiness::Ready }
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn store_reachable(&self) -> bool {
        true
    }

    fn metrics(&self) -> Option<String> {
        Some("# TYPE kong_node_info gauge\n".to_owned())
    }
}
