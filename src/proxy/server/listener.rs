//! Sockets, and the loops that accept connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::plugin::exchange::Client;
use crate::proxy::handler::{Connection, Handler};
use crate::proxy::server::worker::Watched;
use crate::proxy::server::{Worker, http1};
use crate::proxy::stream::Stream;
use crate::settings::Listen;

/// After a failure to accept (no file descriptor is left, ...), in steps up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The listening sockets of one address: one for each worker, so that the system spreads connections (`reuseport`), or one
/// that all workers share.
#[derive(Debug)]
pub struct Bound {
    pub address: SocketAddr,
    sockets: Vec<StdListener>,
}

impl Bound {
    /// Takes the port for `workers` workers; from here on clients can connect.
    pub fn new(listen: &Listen, workers: usize) -> io::Result<Self> {
        if !listen.reuseport {
            let socket = bind(listen.address, listen, true)?;
            let sockets = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
            return Ok(Self { address: socket.local_addr()?, sockets });
        }
        // with reuseport the system would let two gateways share a port: a socket without it finds out that there is one already
        drop(bind(listen.address, &Listen { reuseport: false, ..listen.clone() }, false)?);
        let first = bind(listen.address, listen, true)?;
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(bind(address, listen, true)?);
        }
        Ok(Self { address, sockets })
    }

    /// A worker's socket; each is taken once.
    pub fn take(&mut self) -> Option<StdListener> {
        self.sockets.pop()
    }
}

fn bind(address: SocketAddr, listen: &Listen, accepting: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if listen.reuseport {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(listen.ipv6only)?;
    }
    if listen.so_keepalive {
        // accepted connections inherit it
        socket.set_keepalive(true)?;
    }
    socket.bind(&address.into())?;
    if accepting {
        socket.listen(i32::try_from(listen.backlog.max(1)).unwrap_or(i32::MAX))?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What a listener is for; shared by its connections.
pub struct Port {
    /// Address that is listened on.
    pub address: SocketAddr,
    /// Whether HTTP/2 without TLS is understood.
    pub http2: bool,
}

impl<H: Handler> Worker<H> {
    /// Accepts connections from `socket` until the worker drains.
    pub fn listen(self: &Rc<Self>, socket: StdListener, port: Rc<Port>) -> io::Result<()> {
        let listener = TcpListener::from_std(socket)?;
        tokio::task::spawn_local(accept(Rc::clone(self), listener, port));
        Ok(())
    }

    fn open(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr, port: &Rc<Port>) {
        let watched = self.shared.watch();
        let serve = serve(Rc::clone(self), tcp, peer, Rc::clone(port), Rc::clone(&watched));
        tokio::task::spawn_local(async move {
            let mut serve = pin!(serve);
            poll_fn(|cx| if watched.attend(cx) { serve.as_mut().poll(cx) } else { Poll::Ready(()) }).await;
        });
    }
}

async fn accept<H: Handler>(worker: Rc<Worker<H>>, listener: TcpListener, port: Rc<Port>) {
    let mut back_off = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.shared.drained() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                back_off = BACK_OFF.0;
                worker.open(tcp, peer, &port);
                worker.shared.room().await;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, address = %port.address, "cannot accept connections");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
    // connections that the system has accepted already would be reset with the socket
    while let Ok(Ok((tcp, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        worker.open(tcp, peer, &port);
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn serve<H: Handler>(worker: Rc<Worker<H>>, tcp: TcpStream, peer: SocketAddr, port: Rc<Port>, watched: Rc<Watched>) {
    // small answers are not to wait for the client's acknowledgement of the one before
    let _ = tcp.set_nodelay(true);
    let local = match port.address {
        any if any.ip().is_unspecified() => tcp.local_addr().unwrap_or(any),
        address => address,
    };
    let client = Client { ip: peer.ip(), peer, trusted: false, scheme: "http", local: local.ip(), port: local.port(), tls: None };
    let connection = Rc::new(Connection { client, proxied: None });
    http1::serve(&worker, Stream::Tcp(tcp), BytesMut::new(), connection, watched, port.http2).await;
}
