//! The body of an upstream's answer while it arrives.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::http::{Body, BodyError, BodySource, Headers, Response};
use crate::proxy::client::chunked::Decoder;
use crate::proxy::client::connection::Answer;
use crate::proxy::client::head::Framing;
use crate::proxy::client::pool::Key;
use crate::proxy::client::{Ask, Client, Connection};
use crate::proxy::stream::Rewound;
use crate::snapshot::Timeouts;

/// Gives `response` its body: at hand when all of it has come already, streaming otherwise. A connection that is free again
/// goes back to the pool.
pub(super) fn attach(client: &Rc<Client>, key: Key, mut connection: Box<Connection>, answer: Answer, ask: &Ask, response: &mut Response) {
    if response.status == 101 {
        let (stream, read_ahead) = connection.into_parts();
        response.tunnel = Some(Box::new(Rewound::new(stream, read_ahead.freeze())));
        response.body = Body::Empty;
        return;
    }
    let mut left = Left::of(answer.framing);
    if let Left::Length(n) = left
        && connection.input.len() as u64 >= n
    {
        response.body = Body::Bytes(connection.input.split_to(n as usize).freeze());
        left = Left::Nothing;
    } else if let Left::Nothing = left {
        response.body = Body::Empty;
    }
    if let Left::Nothing = left
        && connection.uploaded()
    {
        if answer.keep_alive && connection.input.is_empty() {
            client.pool.put(key, connection);
        }
        return;
    }
    if let Left::Nothing = left {
        // the answer is complete before the request is: what is left of the request is nobody's concern, the connection goes
        return;
    }
    connection.limit(ask.timeouts.read);
    response.body = Body::Stream(Box::new(UpstreamBody {
        client: Rc::clone(client),
        key: Some(key),
        connection: Some(connection),
        left,
        keep_alive: answer.keep_alive,
        timeouts: ask.timeouts,
        trailers: None,
    }));
}

/// What is left of a body.
enum Left {
    Nothing,
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

impl Left {
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Nothing,
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

struct UpstreamBody {
    client: Rc<Client>,
    key: Option<Key>,
    connection: Option<Box<Connection>>,
    left: Left,
    keep_alive: bool,
    timeouts: Timeouts,
    trailers: Option<Headers>,
}

impl UpstreamBody {
    /// The next chunk of what was read already; `None` when more must be read.
    fn next_of_input(&mut self) -> Option<Result<Option<Bytes>, BodyError>> {
        let input = &mut self.connection.as_mut()?.input;
        match &mut self.left {
            Left::Nothing => Some(Ok(None)),
            _ if input.is_empty() => None,
            Left::UntilClose => Some(Ok(Some(input.split().freeze()))),
            Left::Length(n) => {
                let take = (*n).min(input.len() as u64);
                *n -= take;
                if *n == 0 {
                    self.left = Left::Nothing;
                }
                Some(Ok(Some(input.split_to(take as usize).freeze())))
            }
            Left::Chunked(decoder) => match decoder.decode(input) {
                Err(what) => Some(Err(BodyError::Malformed(what))),
                Ok(Some(chunk)) => Some(Ok(Some(chunk))),
                Ok(None) if decoder.is_finished() => {
                    self.trailers = decoder.take_trailers();
                    self.left = Left::Nothing;
                    Some(Ok(None))
                }
                Ok(None) => None,
            },
        }
    }

    /// The body is complete: the connection is free.
    fn release(&mut self) {
        if let (Some(connection), Some(key)) = (self.connection.take(), self.key.take())
            && self.keep_alive
            && connection.uploaded()
            && connection.input.is_empty()
        {
            self.client.pool.put(key, connection);
        }
    }
}

impl BodySource for UpstreamBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if !connection.uploaded() && connection.poll_upload(cx, &self.timeouts).is_err() {
            // the client has broken off; it will not read the answer either
            self.connection = None;
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        loop {
            match self.next_of_input() {
                Some(Ok(Some(chunk))) => {
                    if let Left::Nothing = self.left {
                        self.release();
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Ok(None)) => {
                    self.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) if matches!(self.left, Left::UntilClose) => {
                    self.connection = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(BodyError::Incomplete)));
                }
                Poll::Ready(Ok(_)) => connection.limit(self.timeouts.read),
                Poll::Ready(Err(error)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Pending if connection.poll_passed(cx, self.timeouts.read) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self.left {
            Left::Nothing => Some(0),
            Left::Length(n) => Some(n),
            Left::Chunked(_) | Left::UntilClose => None,
        }
    }

    fn trailers(&mut self) -> Option<Headers> {
        self.trailers.take()
    }
}
