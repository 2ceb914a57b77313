//! A stand-in for the phase engine, and what the tests of the servers need around it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use troop::http::{Body, BodyError, BodySource, Request, Response};
use troop::plugin::exchange::RequestId;
use troop::plugin::{Exchange, World};
use troop::proxy::handler::{Connection, End, Handler};
use troop::proxy::server::{Bound, Counters, Limits, Port, Worker};
use troop::settings::Listen;
use uuid::Uuid;

struct Nothing;

impl World for Nothing {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn find_any(&self, _: &'static str, _: &'static str, _: &str) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    fn get_any(&self, _: &'static str, _: Uuid) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    fn children_any(&self, _: &'static str, _: &'static str, _: Uuid) -> Vec<Arc<dyn Any + Send + Sync>> {
        Vec::new()
    }

    fn shown(&self, _: &'static str, _: Uuid) -> Option<schema::Object> {
        None
    }

    fn logged(&self, _: &'static str, _: Uuid) -> Option<&serde_json::value::RawValue> {
        None
    }
}

/// What the handler saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub end: Option<End>,
    pub body: Option<Result<usize, String>>,
    pub trailers: Vec<(String, String)>,
    pub sizes: (u64, u64, u64),
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Answers by path: `/echo` with the request's body once it is complete, `/pipe` with the body as it comes, `/feed` with what
/// the test feeds, `/trailers` with nothing once body and trailers are complete, `/ignore` without looking at the body, `/never` not at all, `/upgrade` with a tunnel that echoes, `/flood`
/// without end.
#[derive(Default)]
pub struct StandIn {
    pub seen: RefCell<Vec<Seen>>,
    pub draining: Cell<bool>,
    pub feed: RefCell<VecDeque<Feed>>,
    /// Bytes that `/flood` was asked for.
    pub flooded: Rc<Cell<usize>>,
}

impl Handler for StandIn {
    fn blank(&self) -> Box<Exchange> {
        Box::new(Exchange::blank(Arc::new(Nothing)))
    }

    fn begin(&self, exchange: &mut Exchange, client: &Rc<Connection>) {
        let request = &exchange.request;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.seen.borrow_mut().push(Seen {
            method: request.method.as_str().to_owned(),
            target: request.target.clone(),
            headers: request.headers.iter().map(|(n, v)| (text(n), text(v))).collect(),
            end: None,
            body: None,
            trailers: Vec::new(),
            sizes: (0, 0, 0),
        });
        exchange.begin(&client.client, Arc::new(Nothing), RequestId([b'0'; 32]));
        exchange.keep(Uuid::nil(), self.seen.borrow().len() - 1);
    }

    async fn respond(&self, exchange: &mut Exchange) {
        let at = *exchange.kept::<usize>(Uuid::nil()).unwrap();
        exchange.response.status = 200;
        let path = exchange.request.raw_path().to_owned();
        let query = exchange.request.query().unwrap_or_default().to_owned();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("status", status)) => exchange.response.status = status.parse().unwrap(),
                Some(("header", field)) => {
                    let (name, value) = field.split_once(':').unwrap();
                    exchange.response.headers.append(name, value);
                }
                _ => {}
            }
        }
        exchange.response.body = match path.as_str() {
            "/pipe" => std::mem::take(&mut exchange.request.body),
            "/feed" => Body::Stream(Box::new(self.feed.borrow_mut().pop_front().expect("the test has fed something"))),
            "/flood" => Body::Stream(Box::new(Flood(Rc::clone(&self.flooded)))),
            "/trailers" => {
                let mut body = std::mem::take(&mut exchange.request.body);
                while let Some(chunk) = std::future::poll_fn(|cx| body.poll_chunk(cx)).await {
                    assert!(!chunk.expect("a whole body").is_empty(), "no chunk is empty");
                }
                if let Body::Stream(source) = &mut body
                    && let Some(trailers) = source.trailers()
                {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    self.seen.borrow_mut()[at].trailers = trailers.iter().map(|(n, v)| (text(n), text(v))).collect();
                }
                Body::Empty
            }
            "/never" => std::future::pending().await,
            "/later" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Body::Bytes("later".into())
            }
            "/ignore" => Body::Bytes("ignored".into()),
            "/big" => Body::Bytes(vec![b'x'; 3_000_000].into()),
            "/upgrade" => {
                let (near, mut far) = tokio::io::duplex(1024);
                tokio::task::spawn_local(async move {
                    let mut buf = [0; 512];
                    while let Ok(n @ 1..) = far.read(&mut buf).await {
                        let _ = far.write_all(&buf[..n]).await;
                    }
                });
                exchange.response.status = 101;
                exchange.response.headers.append("Upgrade", "echo");
                exchange.response.tunnel = Some(Box::new(near));
                Body::Empty
            }
            _ => {
                let collected = exchange.request.body.collect(100_000_000).await;
                let seen = &mut self.seen.borrow_mut()[at];
                seen.body = Some(collected.as_ref().map(Bytes::len).map_err(ToString::to_string));
                match collected {
                    Ok(body) => body.into(),
                    Err(_) => {
                        exchange.response.status = 400;
                        Body::Empty
                    }
                }
            }
        };
    }

    fn filter(&self, exchange: &mut Exchange, _: &mut Bytes, last: bool) {
        if last {
            assert!(exchange.take_kept::<bool>(Uuid::nil()).is_none(), "the last chunk comes once");
            exchange.keep(Uuid::nil(), true);
        }
    }

    fn finish(&self, mut exchange: Box<Exchange>, end: End) {
        assert!(end != End::Complete || exchange.take_kept::<bool>(Uuid::nil()).is_some(), "the last chunk comes");
        let at = *exchange.kept::<usize>(Uuid::nil()).unwrap();
        let seen = &mut self.seen.borrow_mut()[at];
        seen.end = Some(end);
        seen.sizes = (exchange.size.request, exchange.size.response, exchange.size.response_body);
    }

    fn refuse(&self, status: u16, _: Option<&Request>, _: &Rc<Connection>) -> Response {
        let mut response = Response { status: if (490..500).contains(&status) { 400 } else { status }, ..Response::default() };
        response.headers.append("Content-Type", "text/plain");
        response.body = Body::Bytes(format!("refused {status}").into());
        response
    }

    fn draining(&self) -> bool {
        self.draining.get()
    }
}

/// A body that the test feeds.
pub struct Feed {
    receiver: tokio::sync::mpsc::UnboundedReceiver<Option<Bytes>>,
}

pub type Feeder = tokio::sync::mpsc::UnboundedSender<Option<Bytes>>;

impl Feed {
    pub fn new() -> (Feeder, Self) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (sender, Self { receiver })
    }
}

impl BodySource for Feed {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.receiver.poll_recv(cx).map(|fed| match fed {
            Some(Some(chunk)) => Some(Ok(chunk)),
            Some(None) => Some(Err(BodyError::Incomplete)),
            None => None,
        })
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

struct Flood(Rc<Cell<usize>>);

impl BodySource for Flood {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.set(self.0.get() + 8192);
        Poll::Ready(Some(Ok(Bytes::from_static(&[b'f'; 8192]))))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// A worker with one plain listener.
pub struct Site {
    pub handler: Rc<StandIn>,
    pub worker: Rc<Worker<StandIn>>,
    pub counters: Arc<Counters>,
    pub address: SocketAddr,
}

pub fn listen() -> Listen {
    Listen {
        address: ([127, 0, 0, 1], 0).into(),
        ssl: false,
        http2: false,
        proxy_protocol: false,
        reuseport: true,
        backlog: 64,
        ipv6only: true,
        so_keepalive: false,
        text: String::new(),
    }
}

impl Site {
    pub fn new(limits: Limits) -> Self {
        Self::with(limits, |address| Port { address, external: address.port(), http2: false, proxy_protocol: false, tls: None })
    }

    pub fn with(limits: Limits, port: impl FnOnce(SocketAddr) -> Port) -> Self {
        let handler = Rc::new(StandIn::default());
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(Rc::clone(&handler), limits, &counters);
        let bound = Bound::new(&listen(), 1).unwrap();
        worker.listen(bound.socket(0).unwrap(), Rc::new(port(bound.address))).unwrap();
        Self { handler, worker, counters, address: bound.address }
    }

    pub async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes on a connection of their own, and reads until the server closes it.
    pub async fn talk(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut wire = self.connect().await;
        wire.send(bytes).await;
        wire.rest().await
    }

    /// The requests that the handler saw.
    pub fn seen(&self) -> Vec<Seen> {
        self.handler.seen.borrow().clone()
    }

    pub async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "waited in vain: {what}");
    }
}

/// The client's end of a connection.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // a server that refuses may have closed already
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads until what came ends so.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let read = async {
            while !got.ends_with(end.as_bytes()) {
                let mut byte = [0; 1];
                match self.0.read(&mut byte).await {
                    Ok(1) => got.push(byte[0]),
                    _ => break,
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), read).await.is_ok();
        let text = String::from_utf8_lossy(&got).into_owned();
        assert!(in_time && text.ends_with(end), "{end:?} did not come: {text:?}");
        text
    }

    /// Reads until the server closes the connection.
    pub async fn rest(&mut self) -> String {
        let mut got = Vec::new();
        let read = self.0.read_to_end(&mut got);
        let result = tokio::time::timeout(Duration::from_secs(10), read).await;
        let text = String::from_utf8_lossy(&got).into_owned();
        assert!(result.is_ok(), "the connection stays open: {text:?}");
        text
    }
}

/// Runs a test on a worker's kind of runtime.
pub fn on_worker<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Limits with short times.
pub fn hasty() -> Limits {
    let short = Duration::from_millis(100);
    Limits {
        header_timeout: short,
        keepalive_timeout: short,
        body_timeout: short,
        send_timeout: short,
        lingering_timeout: short,
        drain_grace: short,
        ..Limits::default()
    }
}
