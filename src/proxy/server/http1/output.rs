//! What is to be written to a client: own bytes and shared chunks in order, many of them in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::proxy::stream::Stream;

/// A shared chunk up to this size is copied behind what stands before it.
const COPIED: usize = 2048;
/// Most pieces in one system call.
const SLICES: usize = 16;

/// A queue of bytes. Who fills it looks at [`Output::len`] and stops at a bound.
#[derive(Debug, Default)]
pub struct Output {
    own: Vec<u8>,
    pieces: VecDeque<Piece>,
    len: usize,
}

#[derive(Debug)]
enum Piece {
    /// A range of `own`.
    Own(usize, usize),
    Shared(Bytes),
}

impl Output {
    /// Bytes not written yet.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends what `write` puts behind the bytes in the buffer it is given.
    pub fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.own.len();
        let result = write(&mut self.own);
        let end = self.own.len();
        self.len += end - start;
        match self.pieces.back_mut() {
            Some(Piece::Own(_, last)) if *last == start => *last = end,
            _ if end > start => self.pieces.push_back(Piece::Own(start, end)),
            _ => {}
        }
        result
    }

    pub fn push(&mut self, chunk: Bytes) {
        if chunk.len() <= COPIED {
            self.write(|own| own.extend_from_slice(&chunk));
        } else {
            self.len += chunk.len();
            self.pieces.push_back(Piece::Shared(chunk));
        }
    }

    /// Writes until nothing is left, or the stream takes no more; how many bytes it took.
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> (usize, Poll<io::Result<()>>) {
        let mut written = 0;
        while !self.is_empty() {
            let result = match self.pieces.front() {
                Some(Piece::Own(start, end)) if self.pieces.len() == 1 => {
                    Pin::new(&mut *stream).poll_write(cx, self.own.get(*start..*end).unwrap_or_default())
                }
                _ => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                        *slice = IoSlice::new(match piece {
                            Piece::Own(start, end) => self.own.get(*start..*end).unwrap_or_default(),
                            Piece::Shared(bytes) => bytes,
                        });
                    }
                    let used = self.pieces.len().min(SLICES);
                    Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used])
                }
            };
            match result {
                Poll::Ready(Ok(0)) => return (written, Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(n)) => {
                    written += n;
                    self.advance(n);
                }
                Poll::Ready(Err(error)) => return (written, Poll::Ready(Err(error))),
                Poll::Pending => return (written, Poll::Pending),
            }
        }
        (written, if let Stream::Tls(_) = stream { Pin::new(stream).poll_flush(cx) } else { Poll::Ready(Ok(())) })
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let len = match piece {
                Piece::Own(start, end) => *end - *start,
                Piece::Shared(bytes) => bytes.len(),
            };
            if n < len {
                match piece {
                    Piece::Own(start, _) => *start += n,
                    Piece::Shared(bytes) => bytes.advance(n),
                }
                return;
            }
            n -= len;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.own.clear();
        }
    }
}
