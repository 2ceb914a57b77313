//! Sockets, and the loops that accept connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::clock;
use crate::proxy::handler::Handler;
use crate::proxy::server::Worker;
use crate::proxy::server::connection::{Port, serve};
use crate::proxy::server::worker::Listening;
use crate::settings::Listen;

/// After a failure to accept (no file descriptor is left, ...), in steps up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The listening sockets of one address: one for each worker, so that the system spreads connections (`reuseport`), or one
/// that all workers share.
#[derive(Debug)]
pub struct Bound {
    pub address: SocketAddr,
    pub listen: Listen,
    sockets: Vec<StdListener>,
}

impl Bound {
    /// Takes the port for `workers` workers; from here on clients can connect.
    pub fn new(listen: &Listen, workers: usize) -> io::Result<Self> {
        if listen.reuseport {
            // with reuseport the system would let two gateways share a port: a socket without it finds out that there is one already
            drop(bind(listen.address, &Listen { reuseport: false, ..listen.clone() }, false)?);
        }
        let first = bind(listen.address, listen, true)?;
        let mut bound = Self { address: first.local_addr()?, listen: listen.clone(), sockets: vec![first] };
        bound.resize(workers)?;
        Ok(bound)
    }

    /// Makes as many sockets as there are workers. One too many would be given connections that nobody accepts.
    pub fn resize(&mut self, workers: usize) -> io::Result<()> {
        let workers = workers.max(1);
        self.sockets.truncate(workers);
        while self.sockets.len() < workers {
            let next = if self.listen.reuseport { bind(self.address, &self.listen, true)? } else { self.sockets[0].try_clone()? };
            self.sockets.push(next);
        }
        Ok(())
    }

    /// The same sockets again.
    pub fn try_clone(&self) -> io::Result<Self> {
        let sockets = self.sockets.iter().map(StdListener::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { address: self.address, listen: self.listen.clone(), sockets })
    }

    /// The socket of a worker, from 0.
    pub fn socket(&self, worker: usize) -> io::Result<StdListener> {
        self.sockets[worker % self.sockets.len()].try_clone()
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

impl<H: Handler> Worker<H> {
    /// Accepts connections from `socket` until the worker drains.
    pub fn listen(self: &Rc<Self>, socket: StdListener, port: Rc<Port>) -> io::Result<()> {
        let listener = TcpListener::from_std(socket)?;
        tokio::task::spawn_local(accept(Rc::clone(self), listener, port, self.shared.listening()));
        Ok(())
    }

    fn open(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr, port: &Rc<Port>) {
        let watched = self.shared.watch();
        let serve = serve(Rc::clone(self), tcp, peer, Rc::clone(port), Rc::clone(&watched));
        tokio::task::spawn_local(async move {
            let mut serve = pin!(serve);
            poll_fn(|cx| if watched.attend(cx) { clock::hold(|| serve.as_mut().poll(cx)) } else { Poll::Ready(()) }).await;
        });
    }
}

async fn accept<H: Handler>(worker: Rc<Worker<H>>, listener: TcpListener, port: Rc<Port>, _listening: Listening) {
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
