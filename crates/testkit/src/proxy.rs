//! A proxy before an HTTP server that meets requests with faults, by a plan that can change while it runs.
//!
//! It runs on a thread of its own, so tests with and without a runtime can use it. It changes nothing in what it
//! passes on; the `Host` field stays the proxy's, which is what the client has signed.

use crate::faults::{Fault, Plan};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    future, io,
    net::TcpListener as StdListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

type Body = BoxBody<Bytes, io::Error>;

/// Dropped, it ends, and with it all its connections.
#[derive(Debug)]
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// `127.0.0.1:port` of the server behind.
    upstream: String,
    plan: Mutex<Plan>,
    requests: AtomicU64,
    faults: AtomicU64,
}

impl FaultProxy {
    /// Before the server at `http://127.0.0.1:port`.
    pub fn start(upstream: &str, plan: Plan) -> Self {
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be asked not to block");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(plan),
            requests: AtomicU64::default(),
            faults: AtomicU64::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let of_thread = shared.clone();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, of_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From the next request on.
    pub fn set_plan(&self, plan: Plan) {
        *self.shared.plan.lock().expect("nobody panicked with it") = plan;
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Requests so far that met a fault.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let shared = shared.clone();
        let service = service_fn(move |request| serve(shared.clone(), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
        );
    }
}

/// An error cuts the connection.
async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let fault = shared.plan.lock().expect("nobody panicked with it").fault(request.method().as_str(), number);
    if fault.is_some() {
        shared.faults.fetch_add(1, Ordering::Relaxed);
    }
    match fault {
        None => pass_on(&shared, request.map(boxed)).await,
        Some(Fault::SlowDown) => Ok(slow_down(request).await),
        Some(Fault::CutBefore) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Hang) => future::pending().await,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            pass_on(&shared, request.map(boxed)).await
        }
        Some(Fault::LostReply) => {
            let answer = pass_on(&shared, request.map(boxed)).await?;
            let _ = answer.into_body().collect().await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::HalfReply) => half_reply(pass_on(&shared, request.map(boxed)).await?).await,
        Some(Fault::Corrupt) => pass_on(&shared, corrupted(request).await?).await,
    }
}

async fn pass_on(shared: &Shared, request: Request<Body>) -> Result<Response<Body>, io::Error> {
    let socket = TcpStream::connect(&shared.upstream).await?;
    socket.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(answer.map(boxed))
}

fn boxed(body: Incoming) -> Body {
    body.map_err(io::Error::other).boxed()
}

/// Its head tells the whole length.
async fn half_reply(answer: Response<Body>) -> Result<Response<Body>, io::Error> {
    let (head, body) = answer.into_parts();
    let whole = body.collect().await?.to_bytes();
    let half = Frame::data(whole.slice(..whole.len() / 2));
    let cut = futures::stream::iter([Ok(half), Err(io::ErrorKind::ConnectionReset.into())]);
    Ok(Response::from_parts(head, StreamBody::new(cut).boxed()))
}

async fn corrupted(request: Request<Incoming>) -> Result<Request<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let mut bytes = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    Ok(Request::from_parts(head, Full::from(bytes).map_err(|never| match never {}).boxed()))
}

/// The body is read first, as S3 does, so that the client hears the answer.
async fn slow_down(request: Request<Incoming>) -> Response<Body> {
    let _ = request.into_body().collect().await;
    let text = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}
