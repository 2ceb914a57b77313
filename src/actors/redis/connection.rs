//! One connection: how it is used, and the actor that makes it and keeps it.

use std::io::ErrorKind::ConnectionRefused;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisConnectionInfo, ServerErrorKind, Value, cmd};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant as Deadline, sleep, timeout, timeout_at};

use crate::actors::supervise::supervise;
use crate::balancer::Resolver;
use crate::plugin::redis::{Asked, Link, RedisError, Server};
use crate::snapshot::UpstreamTls;

/// Requests that may wait for one server; more fail at once.
const MOST_WAITING: usize = 4096;
/// Commands that may wait to be sent without anybody waiting for them.
const MOST_TOLD: usize = 10_000;
/// Of these as many are sent in one go.
const TOGETHER: usize = 1000;
/// Pause after the first try that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Tries that somebody waits for are no closer than this.
const CLOSEST: Duration = Duration::from_millis(5);
/// A connection that stood this long is made anew at once.
const STEADY: Duration = Duration::from_millis(100);
/// Time between two lines in the log about one server.
const QUIET: Duration = Duration::from_secs(10);
/// Time without traffic after which the system asks whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What connections are made with.
#[derive(Clone)]
pub struct Means {
    pub resolver: Resolver,
    /// Terms of TLS with verification.
    pub verified: Arc<UpstreamTls>,
}

/// The connection to a server, whichever is living now. Dropping it closes it, after what was told is sent.
pub struct Connection(Arc<Inner>);

struct Inner {
    server: Server,
    /// `host:port`, for the log.
    name: String,
    means: Means,
    state: watch::Sender<State>,
    waiting: AtomicUsize,
    told: Mutex<Vec<Cmd>>,
    telling: Notify,
    /// Somebody waits for the next try.
    wanted: Notify,
    closing: Notify,
    /// Of the node.
    failures: Arc<AtomicU64>,
    complaint: Mutex<Complaint>,
}

#[derive(Clone)]
enum State {
    /// A connection is being made; who asks waits for it.
    Connecting,
    Up(Living),
    /// The last try failed; who asks is told so.
    Away(Away),
}

#[derive(Clone)]
struct Away {
    why: Arc<str>,
    /// That was known quickly: who asks has another try made and waits for it, so that a server that is back is found by the
    /// first who needs it.
    quick: bool,
    since: Instant,
}

/// A connection that stands.
#[derive(Clone)]
struct Living {
    connection: MultiplexedConnection,
    /// An answer was late: is it still there?
    doubt: Arc<Notify>,
    /// The server has become the replica of another, which the same name may lead to by now.
    demoted: Arc<Notify>,
}

/// What was not yet said in the log.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    failures: u64,
}

impl Connection {
    /// Starts the keeper of a connection.
    pub fn start(server: Server, means: Means, failures: Arc<AtomicU64>, arbiter: &ArbiterHandle) -> Self {
        let inner = Arc::new(Inner {
            name: format!("{}:{}", server.host, server.port),
            server,
            means,
            state: watch::Sender::new(State::Connecting),
            waiting: AtomicUsize::new(0),
            told: Mutex::default(),
            telling: Notify::new(),
            wanted: Notify::new(),
            closing: Notify::new(),
            failures,
            complaint: Mutex::default(),
        });
        let kept = inner.clone();
        supervise("redis", arbiter, 1, move || Keeper(kept.clone()));
        Self(inner)
    }

    /// Sends what was told.
    pub async fn say(&self) {
        self.0.say().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.closing.notify_one();
    }
}

impl Link for Connection {
    fn ask(&self, commands: Pipeline) -> Asked<'_> {
        Box::pin(async move { self.0.exchange(&commands).await.inspect_err(|error| self.0.failed(error)) })
    }

    fn tell(&self, commands: Pipeline) {
        let mut told = self.0.told.lock();
        let fits = told.len() + commands.len() <= MOST_TOLD;
        if fits {
            told.extend(commands.cmd_iter().cloned());
        }
        drop(told);
        match fits {
            true => self.0.telling.notify_one(),
            false => self.0.failed(&RedisError::Busy),
        }
    }
}

impl Inner {
    async fn exchange(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let count = commands.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let _place = Place::among(&self.waiting)?;
        let deadline = Deadline::now() + self.server.timeout;
        let mut living = match timeout_at(deadline, self.living()).await {
            Ok(living) => living?,
            Err(_) => return Err(RedisError::Away(self.not_within())),
        };
        let answered = timeout_at(deadline, living.connection.send_packed_commands(commands, 0, count)).await;
        let values = match answered {
            Ok(Ok(values)) => values,
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => {
                living.doubt.notify_one();
                return Err(RedisError::Late(self.server.timeout));
            }
        };
        let refusal = values.iter().find_map(|value| match value {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        match refusal {
            Some(refusal) => {
                let words = format!("{} {}", refusal.code(), refusal.details().unwrap_or_default());
                if refusal.kind() == Some(ServerErrorKind::ReadOnly) {
                    living.demoted.notify_one();
                }
                Err(RedisError::Refused(words.into()))
            }
            None if values.len() == count => Ok(values),
            None => Err(RedisError::Unexpected),
        }
    }

    /// The connection that stands; waits while one is being made.
    async fn living(&self) -> Result<Living, RedisError> {
        let tried = match &*self.state.borrow() {
            State::Up(living) => return Ok(living.clone()),
            State::Away(away) if away.quick && away.since.elapsed() >= CLOSEST => Some(away.since),
            State::Away(away) => return Err(RedisError::Away(away.why.clone())),
            State::Connecting => None,
        };
        let mut states = self.state.subscribe();
        if tried.is_some() {
            self.wanted.notify_one();
        }
        let decided = |state: &State| match state {
            State::Connecting => false,
            State::Up(_) => true,
            State::Away(away) => Some(away.since) != tried,
        };
        match states.wait_for(decided).await.as_deref() {
            Ok(State::Up(living)) => Ok(living.clone()),
            Ok(State::Away(away)) => Err(RedisError::Away(away.why.clone())),
            Ok(State::Connecting) | Err(_) => Err(RedisError::Away("closed".into())),
        }
    }

    fn not_within(&self) -> Arc<str> {
        format!("no connection within {} ms", self.server.timeout.as_millis()).into()
    }

    /// Counts a failure, and says so in the log when the last line is long enough ago.
    fn failed(&self, error: &RedisError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.complaint.lock().failures += 1;
        self.complain(error);
    }

    fn complain(&self, error: &RedisError) {
        let mut complaint = self.complaint.lock();
        if complaint.last.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        let failures = std::mem::take(&mut complaint.failures);
        complaint.last = Some(Instant::now());
        drop(complaint);
        tracing::warn!(redis = %self.name, %error, failures, "redis fails");
    }

    /// Sends what was told, in as few parts as may be, up to the first that fails.
    async fn say(&self) {
        loop {
            let commands: Vec<Cmd> = {
                let mut told = self.told.lock();
                let count = told.len().min(TOGETHER);
                told.drain(..count).collect()
            };
            if commands.is_empty() {
                return;
            }
            let mut pipeline = Pipeline::with_capacity(commands.len());
            for command in commands {
                pipeline.add_command(command);
            }
            if let Err(error) = self.exchange(&pipeline).await {
                self.failed(&error);
                self.telling.notify_one();
                return;
            }
        }
    }

    /// Keeps a connection until it is to be closed.
    async fn keep(&self) {
        let (mut pause, mut away) = (FIRST_PAUSE, false);
        self.state.send_replace(State::Connecting);
        loop {
            let made = tokio::select! {
                made = timeout(self.server.timeout, self.connect()) => made.unwrap_or_else(|_| Err(self.not_within().into())),
                () = self.closing.notified() => return,
            };
            let (unmade, steady) = match made {
                Ok((connection, driver)) => {
                    if std::mem::take(&mut away) {
                        tracing::info!(redis = %self.name, "redis is back");
                    }
                    let since = Instant::now();
                    let living = Living { connection, doubt: Arc::default(), demoted: Arc::default() };
                    self.state.send_replace(State::Up(living.clone()));
                    let Some(lost) = self.watch(&living, driver).await else { return };
                    let steady = lost.quick && since.elapsed() >= STEADY;
                    (lost, steady)
                }
                Err(unmade) => (unmade, false),
            };
            if steady {
                // such as a server that closes idle connections, or was started anew: nobody needs to notice
                tracing::debug!(redis = %self.name, why = &*unmade.why, "redis connection lost, connecting again");
                pause = FIRST_PAUSE;
                self.state.send_replace(State::Connecting);
                continue;
            }
            away = true;
            self.complain(&RedisError::Away(unmade.why.clone()));
            self.state.send_replace(State::Away(Away { why: unmade.why, quick: unmade.quick, since: Instant::now() }));
            tokio::select! {
                () = sleep(pause.mul_f64(rand::rng().random_range(0.5..1.5))) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.wanted.notified() => {}
                () = self.closing.notified() => return,
            }
        }
    }

    /// Watches a connection, and sends what is told, until it is lost or to be closed; why it is lost.
    async fn watch(&self, living: &Living, mut driver: Driver) -> Option<Unmade> {
        let since = Instant::now();
        let quick = |why: &str| Some(Unmade { why: why.into(), quick: true });
        loop {
            tokio::select! {
                _ = &mut driver.0 => return quick("closed by the server"),
                () = living.demoted.notified() => {
                    if since.elapsed() >= LONGEST_PAUSE {
                        return quick("it has become read only");
                    }
                }
                () = living.doubt.notified() => {
                    if timeout(self.server.timeout, ping(&living.connection)).await.is_err() {
                        return Some(words(RedisError::Late(self.server.timeout)).into());
                    }
                }
                () = self.telling.notified() => self.say().await,
                () = self.closing.notified() => {
                    self.say().await;
                    return None;
                }
            }
        }
    }

    /// Makes a connection and logs in; the task that drives it with it.
    async fn connect(&self) -> Result<(MultiplexedConnection, Driver), Unmade> {
        let Server { host, port, login, database, tls, .. } = &self.server;
        let resolved = self.means.resolver.resolve(host).await.map_err(words)?;
        let address = resolved.next(*port).ok_or("no address").map_err(words)?;
        let connected = TcpStream::connect(address).await;
        let socket = connected.map_err(|error| Unmade { quick: error.kind() == ConnectionRefused, why: words(error) })?;
        socket.set_nodelay(true).map_err(words)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive).map_err(words)?;

        let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name().set_db(*database);
        if let Some((user, password)) = login {
            info = info.set_password(password);
            if let Some(user) = user {
                info = info.set_username(user);
            }
        }
        // the time for connecting and for each answer is measured here
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driver) = match tls {
            None => {
                let (connection, driver) = MultiplexedConnection::new_with_config(&info, socket, config).await.map_err(words)?;
                (connection, Driver(actix_rt::spawn(driver)))
            }
            Some(tls) => {
                let terms = if tls.verify { self.means.verified.clone() } else { UpstreamTls::unverified() };
                let name = ServerName::try_from(tls.name.trim_matches(['[', ']']).to_owned()).map_err(words)?;
                let stream = terms.connector().connect(name, socket).await.map_err(words)?;
                let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await.map_err(words)?;
                (connection, Driver(actix_rt::spawn(driver)))
            }
        };
        ping(&connection).await?;
        Ok((connection, driver))
    }
}

/// Why there is no connection.
struct Unmade {
    why: Arc<str>,
    /// Nobody listens, or the server has closed it: another try is known to fail as quickly.
    quick: bool,
}

impl From<Arc<str>> for Unmade {
    fn from(why: Arc<str>) -> Self {
        Self { why, quick: false }
    }
}

/// Whether anybody answers, whatever it is.
async fn ping(connection: &MultiplexedConnection) -> Result<(), Arc<str>> {
    match connection.clone().send_packed_command(&cmd("PING")).await {
        Err(error) if matches!(failure(&error), RedisError::Lost(_)) => Err(words(error)),
        _ => Ok(()),
    }
}

fn failure(error: &redis::RedisError) -> RedisError {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => RedisError::Refused(error.to_string().into()),
        _ => RedisError::Lost(error.to_string().into()),
    }
}

fn words(error: impl ToString) -> Arc<str> {
    error.to_string().into()
}

/// One of those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn among(waiting: &'a AtomicUsize) -> Result<Self, RedisError> {
        let place = Self(waiting);
        match waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
            true => Ok(place),
            false => Err(RedisError::Busy),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task that reads and writes; ends with whoever holds this.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The owner of a connection.
pub struct Keeper(Arc<Inner>);

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let inner = self.0.clone();
        let life = async move { inner.keep().await };
        context.spawn(life.into_actor(self).map(|(), _, context| context.stop()));
    }
}
