//! One connection: HTTP/1.1 or HTTP/2, whichever the peer begins with, its limits, and its end.

use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    /// The certificates of its TLS handshake, its own one first; empty without any.
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
}

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Time for a TLS handshake, for the head of a request, and for the first one of a connection
    /// to begin.
    pub header_read: Duration,
    /// How long an HTTP/2 connection may carry nothing. HTTP/1.1 has `header_read` for that.
    pub idle: Duration,
    /// How long the peer's kernel may acknowledge nothing or take nothing (`TCP_USER_TIMEOUT`), and
    /// how long an HTTP/2 peer may leave a ping unanswered.
    pub unacknowledged: Duration,
}

/// Bytes of a request's head, HTTP/1.1.
const MAX_HEAD: usize = 32 * 1024;
/// Header fields of a request.
const MAX_HEADERS: usize = 64;
/// Decoded bytes of a request's header list, HTTP/2.
const MAX_HEADER_LIST: u32 = 32 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 16;
/// Between two pings to an HTTP/2 peer, and before the first keepalive probe of TCP.
const PROBE: Duration = Duration::from_secs(30);

/// How long the end of an answer may wait for the peer's HTTP/2 window while the server stops.
const LINGER: Duration = Duration::from_secs(5);

/// Requests of one connection that are being answered.
#[derive(Debug)]
struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Whether the last request came over HTTP/2. There an answer that is over may still wait for the
    /// peer's window, and only the connection's own end tells that it has gone.
    http2: AtomicBool,
    /// Milliseconds after `opened` at which the last request ended; `u64::MAX` before the first.
    last: AtomicU64,
    closing: Notify,
    /// How many short answers are on their way, and since when there is one.
    short: Mutex<(usize, Option<Instant>)>,
}

/// One request being answered, its body included.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    /// Its answer is short, and on its way.
    short: Arc<AtomicBool>,
}

/// What the answer to a request may want of its connection.
#[derive(Debug)]
pub(super) struct Closer {
    activity: Arc<Activity>,
    short: Arc<AtomicBool>,
}

impl InFlight {
    pub(super) fn closer(&self) -> Closer {
        Closer {
            activity: self.activity.clone(),
            short: self.short.clone(),
        }
    }
}

impl Closer {
    /// Ends it gracefully: no further requests, what is being answered is finished.
    pub(super) fn close(&self) {
        self.activity.closing.notify_one();
    }

    /// The answer is a short one: a peer that leaves it where it is, as one may over HTTP/2 with a
    /// window of 0, has `header_read` to take it, and then loses the connection.
    pub(super) fn answers_shortly(&self) {
        if !self.short.swap(true, Ordering::AcqRel) {
            self.activity.short_answer_begins();
        }
    }
}

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            http2: AtomicBool::new(false),
            last: AtomicU64::new(u64::MAX),
            closing: Notify::new(),
            short: Mutex::default(),
        })
    }

    fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        self.http2
            .store(version == Version::HTTP_2, Ordering::Release);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.touch();
        InFlight {
            activity: self.clone(),
            short: Arc::default(),
        }
    }

    fn short_answers(&self, change: impl FnOnce(&mut (usize, Option<Instant>))) -> Option<Instant> {
        let mut short = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut short);
        short.1
    }

    fn short_answer_begins(&self) {
        self.short_answers(|(count, since)| {
            *count += 1;
            since.get_or_insert_with(Instant::now);
        });
    }

    fn short_answer_ends(&self) {
        self.short_answers(|(count, since)| {
            *count = count.saturating_sub(1);
            if *count == 0 {
                *since = None;
            }
        });
    }

    /// Whether the peer leaves a short answer where it is.
    fn stuck(&self, limits: &Limits) -> bool {
        self.short_answers(|_| {})
            .is_some_and(|since| since.elapsed() >= limits.header_read)
    }

    fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(now, Ordering::Release);
    }

    fn quiet(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Whether the end of an answer may still be on its way to the peer.
    fn lingers(&self) -> bool {
        match self.last.load(Ordering::Acquire) {
            u64::MAX => false,
            last => {
                self.http2.load(Ordering::Acquire)
                    && self.opened.elapsed() < LINGER.saturating_add(Duration::from_millis(last))
            }
        }
    }

    /// Whether it has carried nothing for longer than it may.
    fn overdue(&self, limits: &Limits) -> bool {
        if !self.quiet() {
            return false;
        }
        match self.last.load(Ordering::Acquire) {
            u64::MAX => self.opened.elapsed() >= limits.header_read,
            last => {
                self.opened.elapsed() >= limits.idle.saturating_add(Duration::from_millis(last))
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.short.load(Ordering::Acquire) {
            self.activity.short_answer_ends();
        }
        self.activity.touch();
        self.activity.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Knows whether bytes were last refused, by the kernel or by what TLS holds back for it: then some
/// are still on their way out.
struct Observed<S> {
    stream: S,
    blocked: Arc<AtomicBool>,
    activity: Arc<Activity>,
    shut: bool,
}

impl<S> Observed<S> {
    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.blocked.store(poll.is_pending(), Ordering::Release);
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(poll)
    }

    /// Over HTTP/2 a peer that takes an answer goes on to send: the kernel would reset a connection that
    /// is closed by then, and drop what the peer has not taken yet. So what comes is read to its end.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        let mut unread = [0; 1024];
        while self.activity.lingers() {
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Has the kernel notice peers that are gone without a word.
///
/// # Errors
/// When it refuses an option.
pub(super) fn probe(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(PROBE)
        .with_interval(PROBE / 3)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(limits.unacknowledged))
}

/// Serves a connection until it ends, or until `stop` says so and nothing is in flight on it any
/// more: then it closes at once, whatever its peer has half sent; over HTTP/2 when the last answer has
/// gone, for which it has [`LINGER`].
pub(super) async fn serve<S, H, F, B>(
    stream: S,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Fn(Request<Incoming>, InFlight) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Activity::new();
    let blocked = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Observed {
        stream,
        blocked: blocked.clone(),
        activity: activity.clone(),
        shut: false,
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PROBE)
        .keep_alive_timeout(limits.unacknowledged)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST);
    let service = {
        let activity = activity.clone();
        service_fn(move |request: Request<Incoming>| {
            let in_flight = activity.begin(request.version());
            let response = handler(request, in_flight);
            async move { Ok::<_, Infallible>(response.await) }
        })
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut check = tokio::time::interval(limits.header_read / 4);
    let mut stopping = false;
    loop {
        let served = poll_fn(|cx| {
            // Read before the poll: what a request that is over by now has left to be written,
            // this poll writes.
            let quiet = activity.quiet();
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let gone = !blocked.load(Ordering::Acquire) && !activity.lingers();
            if stopping && quiet && activity.quiet() && gone {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        });
        tokio::select! {
            result = served => {
                if let Err(error) = result {
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            // An error means that the server is gone, and its connections with it.
            _ = stop.wait_for(|stop| *stop), if !stopping => {}
            () = activity.closing.notified(), if !stopping => {
                connection.as_mut().graceful_shutdown();
                continue;
            }
            _ = check.tick() => {
                if activity.stuck(&limits) {
                    tracing::debug!("connection closed: its peer does not take a short answer");
                    return;
                }
                if stopping || !activity.overdue(&limits) {
                    continue;
                }
            }
        }
        stopping = true;
        connection.as_mut().graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream, DuplexStream};

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMITS: Limits = Limits {
        connections: 1,
        header_read: MINUTE,
        idle: MINUTE,
        unacknowledged: MINUTE,
    };

    /// Stops a server behind `server` that has answered what came through `client`, and reads the
    /// answer only then.
    async fn stopped_while_writing(
        mut client: DuplexStream,
        server: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let (stop, stopped) = watch::channel(false);
        let (over, mut is_over) = watch::channel(false);
        let over = Arc::new(over);
        let served = tokio::spawn(serve(server, LIMITS, stopped, move |_, in_flight| {
            let over = over.clone();
            async move {
                drop(in_flight);
                over.send_replace(true);
                Response::new(Full::new(Bytes::from(vec![b'x'; 1000])))
            }
        }));
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        is_over.wait_for(|over| *over).await.unwrap();
        stop.send_replace(true);
        // Both ends run in this thread: the server gets its turns to see the stop.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.ends_with(&"x".repeat(1000)),
            "{} bytes came",
            answer.len()
        );
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_the_kernel_has_not_taken_yet() {
        // The pipe holds less than the head, so most of the answer waits in hyper.
        let (client, server) = tokio::io::duplex(16);
        stopped_while_writing(client, server).await;
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_lies_between_hyper_and_the_kernel() {
        // As TLS does: it takes all of the answer, and passes it on as the pipe has room.
        let (client, server) = tokio::io::duplex(16);
        stopped_while_writing(client, BufStream::new(server)).await;
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_the_window_of_http2_holds_back() {
        use http_body_util::BodyExt as _;
        let (client, server) = tokio::io::duplex(1 << 20);
        let (stop, stopped) = watch::channel(false);
        let (over, mut is_over) = watch::channel(false);
        let over = Arc::new(over);
        let served = tokio::spawn(serve(server, LIMITS, stopped, move |_, in_flight| {
            let over = over.clone();
            async move {
                drop(in_flight);
                over.send_replace(true);
                Response::new(Full::new(Bytes::from(vec![b'x'; 100_000])))
            }
        }));
        let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http2.initial_stream_window_size(1000);
        let (mut sender, connection) = http2.handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://a/").body(Full::<Bytes>::default());
        let mut response = sender.send_request(request.unwrap()).await.unwrap();
        is_over.wait_for(|over| *over).await.unwrap();
        // The peer's window is used up, and it reads on only when the server has seen the stop.
        let mut read = response
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
        stop.send_replace(true);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        while let Some(frame) = response.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(read, 100_000);
        drop(sender);
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_the_kernel_still_has_of_http2() {
        const BYTES: usize = 300_000;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let connecting = socket.connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (mut client, server) = (client.unwrap(), accepted.unwrap().0);
        let socket = socket2::SockRef::from(&server);
        socket.set_send_buffer_size(2 * BYTES).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (begun, mut has_begun) = watch::channel(false);
        let (answer, answered) = watch::channel(false);
        let begun = Arc::new(begun);
        let served = tokio::spawn(serve(server, LIMITS, stopped, move |_, in_flight| {
            begun.send_replace(true);
            let mut answered = answered.clone();
            async move {
                answered.wait_for(|now| *now).await.unwrap();
                drop(in_flight);
                Response::new(Full::new(Bytes::from(vec![b'x'; BYTES])))
            }
        }));
        let window = 1_u32 << 24;
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
            [&head, payload].concat()
        };
        let (data, headers, settings, ping, goaway, update) = (0, 1, 4, 6, 7, 8);
        let large = [&[0, 4], &window.to_be_bytes()[..]].concat();
        let open = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(settings, 0, 0, &large),
            frame(update, 0, 0, &window.to_be_bytes()),
            // GET http / of the static table, and an authority.
            frame(headers, 5, 1, b"\x82\x86\x84\x41\x01a"),
        ];
        client.write_all(&open.concat()).await.unwrap();
        has_begun.wait_for(|begun| *begun).await.unwrap();
        stop.send_replace(true);
        let (mut taken, mut told) = (0, 0);
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            client.read_exact(&mut payload).await.unwrap();
            let (kind, flags) = (head[3], head[4]);
            let reply = match kind {
                _ if kind == settings && flags & 1 == 0 => frame(settings, 1, 0, b""),
                _ if kind == ping && flags & 1 == 0 => frame(ping, 1, 0, &payload),
                _ if kind == data && length > 0 => frame(update, 0, 0, &length.to_be_bytes()),
                _ => Vec::new(),
            };
            let _ = client.write_all(&reply).await;
            if kind == goaway {
                told += 1;
                // With the second one this answer is all that is waited for.
                answer.send_replace(told == 2);
            }
            if kind == data {
                taken += payload.len();
                if flags & 1 == 1 {
                    break;
                }
            }
        }
        assert_eq!(taken, BYTES);
        drop(client);
        served.await.unwrap();
    }

    /// Whether a peer that never makes room for an answer keeps its connection.
    async fn kept_by_a_window_of_0(short: bool) -> bool {
        let (client, server) = tokio::io::duplex(1 << 16);
        let limits = Limits {
            header_read: Duration::from_millis(200),
            ..LIMITS
        };
        let (_stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(server, limits, stopped, move |_, in_flight| {
            if short {
                in_flight.closer().answers_shortly();
            }
            let body = Full::new(Bytes::from_static(b"an answer")).map_frame(move |frame| {
                let _held = &in_flight;
                frame
            });
            async move { Response::new(body) }
        }));
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(0);
        let (mut client, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://a/").body(Full::<Bytes>::default());
        let answer = client.send_request(request.unwrap()).await.unwrap();
        // Long after the limit: what is kept by then is kept.
        let kept = tokio::time::timeout(limits.header_read * 10, served)
            .await
            .is_err();
        drop((answer, client));
        connection.abort();
        kept
    }

    #[tokio::test]
    async fn a_short_answer_that_is_not_taken_costs_the_peer_its_connection() {
        assert!(!kept_by_a_window_of_0(true).await);
        // A backup's reader has its own limit.
        assert!(kept_by_a_window_of_0(false).await);
    }

    #[tokio::test]
    async fn peers_that_are_gone_are_noticed_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (stream, _) = accepted.unwrap();
        probe(&stream, &LIMITS).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE / 3);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(MINUTE));
        assert!(stream.nodelay().unwrap());
    }
}
