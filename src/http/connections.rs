//! The server's sockets: how many, how long one may do nothing, and their end.
//!
//! `cmd/serve` hands over the listener and the router. Whoever opens connections and then sends no request, sends it
//! byte by byte, or takes nothing of the answer is cut off, so that doing nothing does not keep others out. Request
//! bodies have their limits where they are read (`uploads::body`); refused ones are not read. Every request carries an
//! [`interim::Interim`], by which its handler can answer before the answer.

use super::{
    auth::Peer,
    interim,
    tap::{self, Gate, Watch},
};
use axum::{Router, response::Response};
use http::{Request, StatusCode, header::CONTENT_LENGTH};
use hyper::{body::Incoming, server::conn::http1, service::HttpService};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    error::Error,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// Connections at a time; the others wait in the kernel's queue. Some 100 KiB each when all of them are busy.
const MAX_CONNECTIONS: u64 = 4096;
/// A connection may hold its socket, and the journal and the file of an upload, that one twice (decision 0021).
const DESCRIPTORS_EACH: u64 = 4;
/// For the catalogue, the log, the children's pipes.
const OTHER_DESCRIPTORS: u64 = 256;
/// A whole request head must be there so soon after the connection opened or the answer before it ended. Also how long
/// an idle connection is kept.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// The most that is read at once, and kept while nothing comes: what a stalled upload holds. hyper's own limit is 13
/// times as much, and an upload that ran fast and stopped held all of it; a GiB costs little more this way (see
/// `benches/README.md`). Also the longest request head.
const READ_BUFFER_BYTES: usize = 32 << 10;
/// A client that takes no byte of its answer for so long is gone. Players that pause for longer ask again.
const WRITE_STALL_LIMIT: Duration = Duration::from_secs(120);
/// After the system refused a connection (no descriptors left, say): trying at once would only burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Limits {
    connections: usize,
    head: Duration,
    write_stall: Duration,
}

impl Limits {
    /// As many connections as this process may have descriptors for; the soft limit of 1024 that systems begin with is
    /// raised as far as it may be.
    pub(crate) fn of_this_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = MAX_CONNECTIONS * DESCRIPTORS_EACH + OTHER_DESCRIPTORS;
        let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let raised = current.is_some_and(|current| current < allowed)
            && setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }).is_ok();
        let descriptors = if raised { allowed } else { current.unwrap_or(wanted) };
        let connections = (descriptors.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_EACH).max(64);
        Self {
            connections: usize::try_from(connections.min(MAX_CONNECTIONS)).unwrap_or(usize::MAX),
            head: HEAD_LIMIT,
            write_stall: WRITE_STALL_LIMIT,
        }
    }
}

/// Serves until `shutdown`, then lets the requests in hand end. The caller bounds that time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let seats = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        let Some((socket, peer, seat)) = accepted else { continue };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        let limits = limits.clone();
        connections.spawn(async move {
            let _seat = seat;
            metrics::gauge!("reelyard_http_connections").increment(1.0);
            // Small answers (playlists, offsets) are not to wait for more to come.
            let _ = socket.set_nodelay(true);
            one_connection(socket, peer, router, limits, shutdown).await;
            metrics::gauge!("reelyard_http_connections").decrement(1.0);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is a seat for it.
async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer.ip(), seat)),
        // It was gone before we came.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionRefused
            ) =>
        {
            None
        }
        Err(error) => {
            tracing::error!(%error, "connections cannot be taken; trying again");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// axum counts the bytes of every body, and a 204 must not tell of them (RFC 9110 section 8.6).
fn without_idle_length(response: Response) -> Response {
    let mut response = response;
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// One hyper after the other, where bodies are read past it.
async fn one_connection(
    socket: TcpStream,
    peer: IpAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let socket = Arc::new(socket);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let router = TowerToHyperService::new(router.map_response(without_idle_length));
    while !shutdown.is_cancelled() {
        let gate = Gate::new(socket.clone());
        let watch = gate.watch();
        let service = tap::attach(&gate, router.clone());
        let channel = interim::Channel::new(gate);
        let service = interim::attach(&channel, service);
        let io = Stalling { socket: channel, limit: limits.write_stall, due: None };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(READ_BUFFER_BYTES)
            .serve_connection(TokioIo::new(io), service);
        if !serve_one(Box::new(connection), &watch, &shutdown).await {
            return;
        }
    }
}

/// Until the connection ends, or its hyper is of no more use and the next one goes on: true.
async fn serve_one<S>(
    mut connection: Box<http1::Connection<TokioIo<Stalling>, S>>,
    watch: &Watch,
    shutdown: &CancellationToken,
) -> bool
where
    S: HttpService<Incoming, ResBody = tap::Answer>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut shutdown = pin!(shutdown.cancelled());
    let mut stops = false;
    poll_fn(|context| {
        if !stops && shutdown.as_mut().poll(context).is_ready() {
            stops = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        match Pin::new(&mut *connection).poll(context) {
            Poll::Ready(ended) => {
                if let Err(error) = ended {
                    // It is the client's or the network's: it spoke no HTTP, was too slow, or went away.
                    tracing::debug!(%error, "a connection broke");
                }
                Poll::Ready(false)
            }
            Poll::Pending => watch.is_spent().map_or(Poll::Pending, |goes_on| Poll::Ready(goes_on && !stops)),
        }
    })
    .await
}

/// A socket whose writes fail when the other side takes nothing for `limit`. Interim answers, which lie below it, are not
/// timed: nothing waits for them.
struct Stalling {
    socket: interim::Channel<Gate>,
    limit: Duration,
    /// While a write waits.
    due: Option<Pin<Box<Sleep>>>,
}

impl Stalling {
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.due = None;
            return polled;
        }
        let limit = self.limit;
        let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        due.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, serve};
    use axum::{Router, http::Uri};
    use std::{net::SocketAddr, time::Duration};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(20);
    const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn server(limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let router = Router::new().fallback(async |address: Uri| match address.path() {
            "/large" => vec![b'x'; 64 << 20],
            _ => b"hello".to_vec(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        (address, shutdown.clone(), tokio::spawn(serve(listener, router, limits, shutdown)))
    }

    async fn answer(socket: &mut TcpStream) -> String {
        let mut text = String::new();
        while !text.ends_with("hello") {
            let mut bytes = [0; 512];
            let byte_len = timeout(PATIENCE, socket.read(&mut bytes)).await.expect("an answer").unwrap();
            assert_ne!(byte_len, 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&bytes[..byte_len]));
        }
        text
    }

    /// How many bytes came before the end.
    async fn until_closed(socket: &mut TcpStream) -> usize {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it is closed");
        rest.len()
    }

    #[tokio::test]
    async fn half_a_request_and_an_idle_connection_are_closed_in_time() {
        let limits = Limits { connections: 10, head: SHORT, write_stall: LONG };
        let (address, _shutdown, _server) = server(limits).await;
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /small HTTP/1.1\r\nHost: local").await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200"));
        for socket in [&mut half, &mut silent, &mut idle] {
            until_closed(socket).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
        let limits = Limits { connections: 10, head: LONG, write_stall: SHORT };
        let (address, shutdown, server) = server(limits).await;
        let mut greedy = TcpStream::connect(address).await.unwrap();
        greedy.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        greedy.readable().await.unwrap();
        // The server ends only when the connection has, whose client reads nothing.
        shutdown.cancel();
        timeout(PATIENCE, server).await.expect("the connection was cut off").unwrap();
        assert!(until_closed(&mut greedy).await < 64 << 20);
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_seat() {
        let limits = Limits { connections: 1, head: SHORT, write_stall: LONG };
        let (address, _shutdown, _server) = server(limits).await;
        let _holder = TcpStream::connect(address).await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut next).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_stopping_server_ends_idle_connections_at_once() {
        let limits = Limits { connections: 10, head: LONG, write_stall: LONG };
        let (address, shutdown, server) = server(limits).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        answer(&mut idle).await;
        shutdown.cancel();
        timeout(PATIENCE, server).await.expect("it ends").unwrap();
        assert_eq!(until_closed(&mut idle).await, 0);
    }

    #[test]
    fn there_is_room_for_some() {
        let limits = Limits::of_this_process();
        assert!((64..=4096).contains(&limits.connections), "{}", limits.connections);
    }
}
