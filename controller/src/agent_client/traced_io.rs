//! Sees when a request has left and when its answer begins; hyper does not tell.

use super::trace::Trace;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const IDLE: u8 = 0;
const ASKED: u8 = 1;
const WROTE_HEADERS: u8 = 2;
const WROTE_REQUEST: u8 = 3;

/// How far the request on a connection is. HTTP/1.1: one at a time.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    state: Arc<AtomicU8>,
    trace: Trace,
}

impl Exchange {
    pub(super) fn new(trace: Trace) -> Self {
        Self {
            state: Arc::default(),
            trace,
        }
    }

    /// A request is about to be written.
    pub(super) fn begin(&self) {
        self.state.store(ASKED, Ordering::Release);
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn wrote(&self, written: &io::Result<usize>) {
        match written {
            Ok(0) => {}
            Ok(_) => {
                if self.step(ASKED, WROTE_HEADERS) {
                    self.trace.tell(|t| t.wrote_headers());
                }
            }
            Err(error) => self.failed(error),
        }
    }

    fn flushed(&self, flushed: &io::Result<()>) {
        match flushed {
            Ok(()) => {
                if self.step(WROTE_HEADERS, WROTE_REQUEST) {
                    self.trace.tell(|t| t.wrote_request(Ok(())));
                }
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &io::Error) {
        if self.step(ASKED, IDLE) || self.step(WROTE_HEADERS, IDLE) {
            let error = error.kind().to_string();
            self.trace.tell(|t| t.wrote_request(Err(&error)));
        }
    }

    fn answered(&self) {
        // An answer can be there before hyper comes round to flushing.
        self.flushed(&Ok(()));
        if self.step(WROTE_REQUEST, IDLE) {
            self.trace.tell(|t| t.got_first_response_byte());
        }
    }
}

/// A connection that tells its [`Exchange`]. It lies above TLS, whose own messages are no answer.
#[derive(Debug)]
pub(super) struct TracedIo<I> {
    inner: I,
    exchange: Exchange,
}

impl<I> TracedIo<I> {
    pub(super) fn new(inner: I, exchange: Exchange) -> Self {
        Self { inner, exchange }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TracedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.exchange.answered();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TracedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(written) = &written {
            self.exchange.wrote(written);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(written) = &written {
            self.exchange.wrote(written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if let Poll::Ready(flushed) = &flushed {
            self.exchange.flushed(flushed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
