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

/// How far the request on a connection is. HTTP/1.1: one at a time. Nothing when nobody watches.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Option<Arc<Watched>>);

#[derive(Debug)]
struct Watched {
    state: AtomicU8,
    trace: Trace,
}

impl Exchange {
    pub(super) fn new(trace: &Trace) -> Self {
        let watched = || Watched {
            state: AtomicU8::new(IDLE),
            trace: trace.clone(),
        };
        Self(trace.watched().then(|| Arc::new(watched())))
    }

    /// A request is about to be written.
    pub(super) fn begin(&self) {
        if let Some(watched) = &self.0 {
            watched.state.store(ASKED, Ordering::Release);
        }
    }
}

impl Watched {
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
        if buf.filled().len() > before
            && let Some(watched) = &self.exchange.0
        {
            watched.answered();
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
        if let (Poll::Ready(written), Some(watched)) = (&written, &self.exchange.0) {
            watched.wrote(written);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let (Poll::Ready(written), Some(watched)) = (&written, &self.exchange.0) {
            watched.wrote(written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if let (Poll::Ready(flushed), Some(watched)) = (&flushed, &self.exchange.0) {
            watched.flushed(flushed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::ClientTrace;
    use super::*;
    use std::{
        future::poll_fn,
        sync::Mutex,
        task::{Waker, ready},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Recorder {
        fn note(&self, what: impl Into<String>) {
            self.0.lock().unwrap().push(what.into());
        }

        fn seen(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl ClientTrace for Recorder {
        fn wrote_headers(&self) {
            self.note("wrote headers");
        }
        fn wrote_request(&self, result: Result<(), &str>) {
            self.note(format!("wrote request {result:?}"));
        }
        fn got_first_response_byte(&self) {
            self.note("first byte");
        }
    }

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn each_request_is_told_once() {
        let recorder = Arc::new(Recorder::default());
        let (ours, mut theirs) = sockets().await;
        let exchange = Exchange::new(&Trace::of(recorder.clone()));
        let mut io = TracedIo::new(ours, exchange.clone());
        for _ in 0..2 {
            exchange.begin();
            io.write_all(b"head").await.unwrap();
            io.write_all(b"more").await.unwrap();
            assert_eq!(recorder.seen(), ["wrote headers"]);
            io.flush().await.unwrap();
            io.flush().await.unwrap();
            assert_eq!(recorder.seen(), ["wrote request Ok(())"]);
            theirs.read_exact(&mut [0; 8]).await.unwrap();
            theirs.write_all(b"answer").await.unwrap();
            io.read_exact(&mut [0; 2]).await.unwrap();
            io.read_exact(&mut [0; 4]).await.unwrap();
            assert_eq!(recorder.seen(), ["first byte"]);
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_flush_comes_after_the_request() {
        let recorder = Arc::new(Recorder::default());
        let (ours, mut theirs) = sockets().await;
        let exchange = Exchange::new(&Trace::of(recorder.clone()));
        let mut io = TracedIo::new(ours, exchange.clone());
        exchange.begin();
        io.write_all(b"head").await.unwrap();
        theirs.write_all(b"answer").await.unwrap();
        io.read_exact(&mut [0; 6]).await.unwrap();
        io.flush().await.unwrap();
        let seen = recorder.seen();
        assert_eq!(
            seen,
            ["wrote headers", "wrote request Ok(())", "first byte"]
        );
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_written_is_told_with_its_error() {
        let recorder = Arc::new(Recorder::default());
        let (ours, theirs) = sockets().await;
        // Unread bytes make the kernel answer with a reset.
        ours.try_write(b"unread").unwrap();
        theirs.readable().await.unwrap();
        drop(theirs);
        poll_fn(|cx| {
            // The reset has come when reading ends.
            let mut byte = [0];
            let mut buf = ReadBuf::new(&mut byte);
            let _ = ready!(ours.poll_peek(cx, &mut buf));
            Poll::Ready(())
        })
        .await;
        let exchange = Exchange::new(&Trace::of(recorder.clone()));
        let mut io = TracedIo::new(ours, exchange.clone());
        exchange.begin();
        assert!(io.write_all(b"head").await.is_err());
        let seen = recorder.seen();
        assert!(
            matches!(&seen[..], [told] if told.starts_with("wrote request Err(")),
            "{seen:?}"
        );
    }

    #[test]
    fn without_a_watcher_nothing_is_allocated() {
        let exchange_of = |trace: &Trace| {
            allocation_counter::measure(|| {
                let trace = trace.clone();
                let exchange = Exchange::new(&trace);
                let mut answer = &b"answer"[..];
                let mut io = TracedIo::new(
                    tokio::io::join(&mut answer, tokio::io::sink()),
                    exchange.clone(),
                );
                let mut cx = Context::from_waker(Waker::noop());
                exchange.begin();
                let mut read = [0; 6];
                assert!(Pin::new(&mut io).poll_write(&mut cx, b"head").is_ready());
                assert!(Pin::new(&mut io).poll_flush(&mut cx).is_ready());
                let mut buf = ReadBuf::new(&mut read);
                assert!(Pin::new(&mut io).poll_read(&mut cx, &mut buf).is_ready());
                trace.tell(|t| t.body_end(Ok(6)));
            })
            .count_total
        };
        struct Nothing;
        impl ClientTrace for Nothing {}
        assert_eq!(exchange_of(&Trace::none()), 0);
        assert_eq!(
            allocation_counter::measure(|| drop(Trace::none())).count_total,
            0
        );
        // That it is counted at all.
        assert!(exchange_of(&Trace::of(Arc::new(Nothing))) > 0);
    }
}
