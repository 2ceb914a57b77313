//! The client towards upstreams: HTTP/1.1, a pool of connections on each worker, no timer and no allocation a request.
//!
//! | module | what it holds |
//! |---|---|
//! | [`connection`] | one connection: send a request, read the head of its answer |
//! | [`body`] | the body of an answer while it arrives |
//! | [`chunked`] | the chunked transfer coding |
//! | [`head`] | the head of an answer |
//! | [`pool`] | idle connections, the last one used first |

pub mod body;
pub mod chunked;
pub mod connection;
pub mod head;
pub mod pool;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::http::{Body, BodyError, Response};
use crate::proxy::stream::Stream;
use crate::snapshot::{Timeouts, UpstreamTls};

pub use connection::Connection;
use pool::{Key, Pool};

/// Where a connection leads.
#[derive(Clone, Debug)]
pub struct Origin {
    pub address: SocketAddr,
    pub tls: Option<TlsOrigin>,
}

/// How TLS is spoken with an upstream.
#[derive(Clone, Debug)]
pub struct TlsOrigin {
    pub tls: Arc<UpstreamTls>,
    /// Name sent as SNI and verified; an address is verified and not sent.
    pub name: rustls::pki_types::ServerName<'static>,
}

/// Why a try to get an answer failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connect: {0}")]
    Connect(std::io::Error),
    #[error("connect: timed out")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The connection ended before the head of the answer was complete.
    #[error("closed before the head of the answer was complete")]
    Closed,
    #[error("no answer in time")]
    Timeout,
    /// What came is no HTTP answer.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The client's own body broke off.
    #[error("request body: {0}")]
    RequestBody(BodyError),
}

/// A failed try, with what is needed to decide on another one.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    /// The connection had served requests before: the upstream may just have closed it.
    pub reused: bool,
    /// The request's body when it can be sent again.
    pub body: Option<Body>,
}

/// What is asked of an upstream.
pub struct Ask {
    pub origin: Origin,
    pub timeouts: Timeouts,
    /// The answer has no body whatever its head says.
    pub head: bool,
    /// The request asks to switch protocols.
    pub upgrade: bool,
    /// The request must not be sent twice.
    pub once: bool,
}

/// Limits of the pool, as in `upstream_keepalive_*`.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections kept for each upstream address; 0 keeps none.
    pub size: usize,
    /// Requests after which a connection is closed; 0 is no limit.
    pub max_requests: u64,
    pub idle_timeout: Option<Duration>,
}

/// The client of one worker.
pub struct Client {
    pool: Pool,
}

impl Client {
    pub fn new(limits: PoolLimits) -> Rc<Self> {
        Rc::new(Self { pool: Pool::new(limits) })
    }

    /// Closes connections that were idle for too long; called every few seconds.
    pub fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }

    /// A connection for one request: the idle one that was used last, or a new one.
    pub async fn lease(self: &Rc<Self>, ask: &Ask) -> Result<Lease<'_>, Failure> {
        let key = Key::of(&ask.origin);
        let connection = match self.pool.take(&key, ask.once) {
            Some(connection) => connection,
            None => Box::new(Connection::new(connect(&ask.origin, ask.timeouts.connect).await?)),
        };
        Ok(Lease { client: self, key, connection })
    }
}

/// A connection for one request.
pub struct Lease<'a> {
    client: &'a Rc<Client>,
    key: Key,
    connection: Box<Connection>,
}

impl Lease<'_> {
    /// The buffer into which the head of the request is written.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.connection.out()
    }

    /// Sends the request, and reads the head of the answer into `response`.
    ///
    /// The body of `response` is at hand when all of it came with the head; otherwise it streams, and a request body that
    /// is still being sent goes on being sent while the answer is read.
    pub async fn exchange(mut self, body: Body, chunked: bool, ask: &Ask, response: &mut Response) -> Result<(), Failed> {
        let reused = self.connection.served() > 0;
        let resend = match &body {
            Body::Empty => Some(Body::Empty),
            Body::Bytes(bytes) => Some(Body::Bytes(bytes.clone())),
            Body::Stream(_) => None,
        };
        match self.connection.exchange(body, chunked, ask, response).await {
            Ok(answer) => body::attach(self.client, self.key, self.connection, answer, ask, response),
            Err(failure) => return Err(Failed { failure, reused, body: resend }),
        }
        Ok(())
    }
}

async fn connect(origin: &Origin, limit: Duration) -> Result<Stream, Failure> {
    let establish = async {
        let tcp = TcpStream::connect(origin.address).await.map_err(Failure::Connect)?;
        tcp.set_nodelay(true).map_err(Failure::Connect)?;
        match &origin.tls {
            None => Ok(Stream::Tcp(tcp)),
            Some(TlsOrigin { tls, name }) => {
                let tls = tls.connector().connect(name.clone(), tcp).await.map_err(Failure::Tls)?;
                Ok(Stream::Tls(Box::new(tls.into())))
            }
        }
    };
    match tokio::time::timeout(limit, establish).await {
        Ok(result) => result,
        Err(_) => Err(Failure::ConnectTimeout),
    }
}
