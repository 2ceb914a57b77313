//! Requests over HTTP/2: several at a time on each connection.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::load::Run;
use crate::load::http1::connect;
use crate::load::tls::Client;

/// A request without a body.
pub type Request = http::Request<()>;

/// Bytes that a server may send before it is told to go on.
const WINDOW: u32 = 4 << 20;

/// A connection in clear, opened anew when the server has closed it.
pub async fn clear(run: Rc<Run>, streams: usize) {
    loop {
        match connect(run.plan.address).await {
            Ok(tcp) => {
                if !serve(&run, tcp, streams).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// The same over TLS.
pub async fn over_tls(run: Rc<Run>, streams: usize, tls: Client) {
    loop {
        let stream = async { tls.connect(connect(run.plan.address).await?).await };
        match stream.await {
            Ok(stream) => {
                if !serve(&run, stream, streams).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// Requests until the connection ends; false when there are no more.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(run: &Rc<Run>, stream: S, streams: usize) -> bool {
    let builder = client::Builder::new().initial_window_size(WINDOW).initial_connection_window_size(WINDOW).clone();
    let Ok((sender, connection)) = builder.handshake::<_, Bytes>(stream).await else {
        run.refused().await;
        return true;
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_local(async move {
        let _ = connection.await;
        true
    });
    for _ in 0..streams {
        tasks.spawn_local(requests(Rc::clone(run), sender.clone()));
    }
    drop(sender);
    // the first that ends says why: there are no more requests, or the connection is gone
    match tasks.join_next().await {
        Some(Ok(more)) => more,
        _ => true,
    }
}

async fn requests(run: Rc<Run>, mut sender: SendRequest<Bytes>) -> bool {
    while let Some(turn) = run.turn().await {
        match request(&run, &mut sender).await {
            Ok((status, size)) => run.answered(turn, status, size),
            // a server that closes in good order says so, and the request may be sent again elsewhere
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => return true,
            Err(_) => {
                run.failed(turn);
                return true;
            }
        }
    }
    false
}

async fn request(run: &Run, sender: &mut SendRequest<Bytes>) -> Result<(u16, u64), h2::Error> {
    let requests = &run.plan.requests.http2;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, _) = sender.send_request(requests[run.any(requests.len())].clone(), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut size = 0;
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        body.flow_control().release_capacity(bytes.len())?;
    }
    Ok((head.status.as_u16(), size))
}
