//! From an accepted socket to the protocol that is spoken on it: PROXY header, TLS, HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::plugin::exchange::Client;
use crate::proxy::handler::{Connection, Handler};
use crate::proxy::server::worker::Watched;
use crate::proxy::server::{Worker, http1, http2, proxy_protocol, tls};
use crate::proxy::stream::Stream;

/// Status of nginx's own for plain HTTP sent to a TLS port.
const PLAIN_TO_TLS: u16 = 497;
/// First byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// What a listener is for; shared by its connections.
pub struct Port {
    /// Address that is listened on.
    pub address: SocketAddr,
    /// The port that clients see, where something in front maps it (`port_maps`).
    pub external: u16,
    /// Whether HTTP/2 without TLS is understood.
    pub http2: bool,
    /// Whether a PROXY header comes first.
    pub proxy_protocol: bool,
    pub tls: Option<TlsAcceptor>,
}

/// Serves a connection to its end.
pub async fn serve<H: Handler>(worker: Rc<Worker<H>>, mut tcp: TcpStream, peer: SocketAddr, port: Rc<Port>, watched: Rc<Watched>) {
    // small answers are not to wait for the client's acknowledgement of the one before
    let _ = tcp.set_nodelay(true);
    let local = match port.address {
        any if any.ip().is_unspecified() => tcp.local_addr().unwrap_or(any),
        address => address,
    };
    let limit = worker.shared.limits.header_timeout;
    let proxied = match port.proxy_protocol {
        false => None,
        true => match tokio::time::timeout(limit, proxy_protocol::read(&mut tcp)).await {
            Ok(Ok(proxied)) => proxied,
            Ok(Err(error)) => return tracing::info!(%error, client = %peer, "connection closed"),
            Err(_) => return tracing::info!(client = %peer, "connection closed: no PROXY header came in time"),
        },
    };
    let mut client = Client { ip: peer.ip(), peer, trusted: false, scheme: "http", local: local.ip(), port: port.external, tls: None };
    let Some(acceptor) = &port.tls else {
        let connection = Rc::new(Connection { client, proxied });
        let spoken = http1::serve(&worker, Stream::Tcp(tcp), BytesMut::new(), Rc::clone(&connection), Rc::clone(&watched), port.http2);
        if let Some((stream, read_ahead)) = spoken.await {
            http2::serve(&worker, stream, read_ahead, connection, watched).await;
        }
        return;
    };
    let mut first = [0];
    match tokio::time::timeout(limit, tcp.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == HANDSHAKE => {}
        Ok(Ok(1)) => {
            let connection = Rc::new(Connection { client, proxied });
            return http1::refuse(&worker, Stream::Tcp(tcp), PLAIN_TO_TLS, connection, watched).await;
        }
        _ => return,
    }
    let stream = match tokio::time::timeout(limit, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, client = %peer, "TLS handshake failed"),
        Err(_) => return tracing::debug!(client = %peer, "TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    client.scheme = "https";
    client.tls = Some(Arc::new(tls::facts(session)));
    let h2 = session.alpn_protocol() == Some(b"h2");
    let stream = Stream::Tls(Box::new(TlsStream::Server(stream)));
    let connection = Rc::new(Connection { client, proxied });
    if h2 {
        http2::serve(&worker, stream, BytesMut::new(), connection, watched).await;
    } else {
        http1::serve(&worker, stream, BytesMut::new(), connection, watched, false).await;
    }
}
