//! A message body: nothing, bytes at hand, or a stream of chunks.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

/// The body of a request or a response.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    /// The whole body.
    Bytes(Bytes),
    /// Chunks as they arrive.
    Stream(Box<dyn BodySource>),
}

/// A body that arrives piece by piece. Dropping it before its end gives up the message: the connection under it is not
/// used again.
pub trait BodySource {
    /// The next chunk; `None` at the end. Never an empty chunk.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;

    /// The length announced by Content-Length, of what is still to come.
    fn length(&self) -> Option<u64>;

    /// Trailer fields, known once the end was reached.
    fn trailers(&mut self) -> Option<crate::http::Headers> {
        None
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender broke the protocol's framing (bad chunk, ...).
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    /// The connection ended before the body did.
    #[error("connection closed within the body")]
    Incomplete,
    /// Nothing arrived for too long.
    #[error("time-out within the body")]
    Timeout,
    /// More than the reader takes.
    #[error("body larger than {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Body {
    /// Makes the length unknown, if there is a body at all.
    pub fn forget_length(&mut self) {
        if !self.is_empty() {
            *self = Self::Stream(Box::new(Unmeasured(std::mem::take(self))));
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    /// The length when it is known beforehand.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream(source) => source.length(),
        }
    }

    /// The next chunk; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Self::Stream(source) => source.poll_chunk(cx),
        }
    }

    /// Reads the whole body, of at most `limit` bytes, and leaves it in place as [`Body::Bytes`].
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Bytes(bytes) if bytes.len() > limit => return Err(BodyError::TooLarge(limit)),
            Self::Bytes(bytes) => return Ok(bytes.clone()),
            Self::Stream(source) if source.length().is_some_and(|n| n > limit as u64) => {
                return Err(BodyError::TooLarge(limit));
            }
            Self::Stream(_) => {}
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = poll_fn(|cx| self.poll_chunk(cx)).await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        let whole = whole.freeze();
        *self = Self::Bytes(whole.clone());
        Ok(whole)
    }
}

impl Body {
    /// Lets a streaming body break off when it turns out to be larger than `limit` bytes.
    pub fn limit(&mut self, limit: u64) {
        if let Self::Stream(_) = self {
            let body = std::mem::take(self);
            *self = Self::Stream(Box::new(Limited { body, left: limit, limit }));
        }
    }

    /// Reads on until the body is at its end or `limit` bytes are there; what comes after them still streams.
    pub async fn buffer(&mut self, limit: usize) -> Result<(), BodyError> {
        let Self::Stream(source) = self else { return Ok(()) };
        if source.length().is_some_and(|n| n > limit as u64) {
            return Ok(());
        }
        let mut read = BytesMut::new();
        while read.len() <= limit {
            match poll_fn(|cx| source.poll_chunk(cx)).await {
                Some(Ok(chunk)) => read.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(error),
                None => {
                    *self = read.freeze().into();
                    return Ok(());
                }
            }
        }
        if let Self::Stream(rest) = std::mem::take(self) {
            *self = Self::Stream(Box::new(Prefixed { first: read.freeze(), rest }));
        }
        Ok(())
    }
}

/// A body that breaks off when it turns out to be larger than the limit.
struct Limited {
    body: Body,
    left: u64,
    limit: u64,
}

impl BodySource for Limited {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = self.body.poll_chunk(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            match self.left.checked_sub(chunk.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge(usize::try_from(self.limit).unwrap_or(usize::MAX))))),
            }
        }
        polled
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }

    fn trailers(&mut self) -> Option<crate::http::Headers> {
        match &mut self.body {
            Body::Stream(source) => source.trailers(),
            Body::Empty | Body::Bytes(_) => None,
        }
    }
}

/// A stream whose first bytes were read already.
struct Prefixed {
    first: Bytes,
    rest: Box<dyn BodySource>,
}

impl BodySource for Prefixed {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.first.is_empty() { self.rest.poll_chunk(cx) } else { Poll::Ready(Some(Ok(std::mem::take(&mut self.first)))) }
    }

    fn length(&self) -> Option<u64> {
        self.rest.length().map(|n| n + self.first.len() as u64)
    }

    fn trailers(&mut self) -> Option<crate::http::Headers> {
        self.rest.trailers()
    }
}

/// A body of which no one knows the length any more, because a filter will change it.
struct Unmeasured(Body);

impl BodySource for Unmeasured {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll_chunk(cx)
    }

    fn length(&self) -> Option<u64> {
        None
    }

    fn trailers(&mut self) -> Option<crate::http::Headers> {
        match &mut self.0 {
            Body::Stream(source) => source.trailers(),
            Body::Empty | Body::Bytes(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Bytes(bytes) }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(source) => write!(f, "Stream({:?})", source.length()),
        }
    }
}
