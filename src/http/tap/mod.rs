//! A tap on a connection: a handler reads the rest of its request's body from the socket itself, past hyper.
//!
//! hyper hands a body on in pieces of its read buffer, from the connection's task to the request's, and whoever stores it
//! does so on a third thread. For an upload that costs as much again as hashing and writing it (`benches/README.md`).
//! So `connections` puts a [`Gate`] between each socket and hyper and [`attach`]es the service to it; a request whose
//! body has a known length then carries a [`Tap`]. Its handler may [`Tap::open`] it at any time while it reads the body:
//! the gate is shut, hyper hands on what it has read already, and all that follows is fetched from the socket.
//!
//! hyper still answers the request, interim answers included. But it waits for body bytes that it will never see, so when the
//! answer is flushed the connection goes on with a new hyper (`Gate::is_spent`). That is only so when the body was read
//! to its end ([`Rest::give_back`]); else hyper notices that nobody wants the body, says `connection: close` and closes,
//! as it does for every body that is not read.

mod rest;

pub(crate) use rest::{Rest, Slice};

use axum::body::Body;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::Service,
};
use rustix::net::Shutdown;
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// Smaller bodies are read by hyper in a few pieces.
const LEAST_BYTES: u64 = 256 << 10;

/// A socket as hyper reads and writes it, until the tap is opened. One for each hyper.
pub(crate) struct Gate(Arc<Shared>);

/// What [`connections`](super::connections) looks at beside the connection.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Shared>);

/// In the extensions of a request: the right to read the rest of its body from the socket.
#[derive(Clone)]
pub(crate) struct Tap(Arc<Shared>);

/// A service whose requests carry a [`Tap`] where one can be had.
pub(crate) struct Attached<S> {
    service: S,
    shared: Arc<Shared>,
}

/// The body of an answer; when it is dropped, hyper has all of it.
pub(crate) struct Answer {
    body: Body,
    shared: Arc<Shared>,
}

struct Shared {
    socket: Arc<TcpStream>,
    state: Mutex<State>,
    /// hyper has asked for more and got nothing: what it had read is handed on.
    is_dry: Notify,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// hyper's task, while it waits for bytes.
    reader: Option<Waker>,
    /// Read to its end past hyper, and kept so that hyper does not think that nobody wants it.
    finished: Option<Body>,
    is_answered: bool,
    is_flushed: bool,
    /// The client said nothing of closing the connection after this request.
    goes_on: bool,
}

impl Shared {
    /// Every critical section leaves the state whole, so a panic beside it does no harm.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on hyper reads nothing, and [`Shared::is_dry`] tells when it has tried to.
    fn shut(&self) {
        let mut state = self.state();
        state.is_shut = true;
        // One that was told before is no answer to this.
        let _ = self.is_dry.notified().now_or_never();
        // It may be waiting for the socket, where nothing comes for it any more.
        state.wake_reader();
    }
}

impl State {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wait_as_reader(&mut self, context: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Gate {
    pub(crate) fn new(socket: Arc<TcpStream>) -> Self {
        Self(Arc::new(Shared { socket, state: Mutex::default(), is_dry: Notify::new() }))
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Watch {
    /// A body was read past hyper to its end and its answer is on its way: this hyper is of no more use. Whether the
    /// connection goes on without it.
    pub(crate) fn is_spent(&self) -> Option<bool> {
        let state = self.0.state();
        (state.finished.is_some() && state.is_flushed).then_some(state.goes_on)
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.0;
        let mut state = shared.state();
        if state.is_shut {
            shared.is_dry.notify_one();
            state.wait_as_reader(context);
            return Poll::Pending;
        }
        loop {
            let Poll::Ready(outcome) = shared.socket.poll_read_ready(context) else {
                state.wait_as_reader(context);
                return Poll::Pending;
            };
            outcome?;
            match shared.socket.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Gate {
    fn poll_writing(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.socket.poll_write_ready(context))?;
            match write(&self.0.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper comes here when it has written all that it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        state.is_flushed = state.is_answered;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.0.socket, Shutdown::Write).map_err(Into::into))
    }
}

pub(crate) fn attach<S>(gate: &Gate, service: S) -> Attached<S> {
    Attached { service, shared: gate.0.clone() }
}

impl<S> Service<Request<Incoming>> for Attached<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // hyper calls for one request after the other, never before it has the whole answer to the last one in hand.
        let state = State { goes_on: goes_on(&request), ..State::default() };
        *self.shared.state() = state;
        // Of a body whose length is not told, its end is hyper's to find.
        if request.body().size_hint().exact().is_some() {
            request.extensions_mut().insert(Tap(self.shared.clone()));
        }
        let shared = self.shared.clone();
        let answer = self.service.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Answer { body, shared })) })
    }
}

/// RFC 9112 section 9.3; of HTTP/1.0 it is not expected.
fn goes_on<B>(request: &Request<B>) -> bool {
    let says_close = |value: &HeaderValue| {
        let options = value.to_str().unwrap_or_default().split(',');
        options.into_iter().any(|option| option.trim().eq_ignore_ascii_case("close"))
    };
    request.version() == Version::HTTP_11 && !request.headers().get_all(CONNECTION).iter().any(says_close)
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.state().is_answered = true;
    }
}

impl Tap {
    /// Whether so little is missing of this body that hyper may as well read it.
    pub(crate) fn is_small(body: &Body) -> bool {
        body.size_hint().exact().is_none_or(|byte_len| byte_len < LEAST_BYTES)
    }

    /// Shuts hyper off. What it has read of this body comes first, all that follows from the socket. The body comes back
    /// where hyper had read it to its end or its sender is gone. `body` is that of the request which carried the tap.
    pub(crate) async fn open(self, body: Body) -> Result<Rest, Body> {
        let (mut body, mut pieces) = (body, VecDeque::new());
        self.0.shut();
        loop {
            tokio::select! {
                biased;
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => pieces.extend(frame.into_data()),
                    None | Some(Err(_)) => return Err(self.leave(pieces, body)),
                },
                () = self.0.is_dry.notified() => break,
            }
        }
        // Handed on between the two looks above.
        while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
            pieces.extend(frame.into_data());
        }
        match body.size_hint().exact() {
            Some(missing) if missing > 0 => Ok(Rest::new(self, body, pieces, missing)),
            _ => Err(self.leave(pieces, body)),
        }
    }

    /// hyper goes on as if nothing had been.
    fn leave(self, pieces: VecDeque<Bytes>, body: Body) -> Body {
        let mut state = self.0.state();
        state.is_shut = false;
        state.wake_reader();
        drop(state);
        let pieces = stream::iter(pieces.into_iter().map(Ok));
        Body::from_stream(pieces.chain(body.into_data_stream()))
    }
}
