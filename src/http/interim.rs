//! `104 (Upload Resumption Supported)`: interim answers while a request is still being read. hyper sends no 1xx of a
//! handler's, so they are slipped in between hyper and the socket.
//!
//! `connections` puts a [`Channel`] around each socket and [`attach`]es the service to it: every request then carries an
//! [`Interim`] in its extensions, by which the handler, or a task of its, sends. An interim answer goes out only where hyper
//! flushes, because then nothing of hyper's own is on its way: not the rest of the answer before, not half a
//! `100 Continue`. And only until the handler has returned: from then on hyper holds the head of the final answer, and
//! what was not sent is dropped, silently, as is what does not fit the queue and what HTTP/1.0 asked for. Nothing
//! waits for an interim answer, so a client that does not read them is not held up and not cut off.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Version};
use hyper::{body::Incoming, service::Service};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Messages that wait for the socket. There are more only when the client reads slower than it is told of progress; it
/// loses nothing by missing some.
const MAX_QUEUED: usize = 8;
/// One message: an address, a limit and a number have some 300 bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// The one status that is sent. Clients read the number, people the text.
const STATUS_LINE: &str = "HTTP/1.1 104 Upload Resumption Supported\r\n";

/// Sends interim answers to one request. Cheap to clone; outlives the request without harm.
#[derive(Clone)]
pub(crate) struct Interim {
    line: Arc<Mutex<Line>>,
    request: u64,
}

/// What handlers and the socket share.
#[derive(Default)]
struct Line {
    /// Requests so far: the number of the last one.
    requests: u64,
    /// The request that may be sent interim answers: the last one, until its handler has returned.
    open: Option<u64>,
    queued: VecDeque<Bytes>,
    /// The connection's task, once it has flushed for the first time.
    connection: Option<Waker>,
}

/// A socket into which interim answers are slipped.
pub(crate) struct Channel<S> {
    socket: S,
    line: Arc<Mutex<Line>>,
    /// What has begun to go out and must end before anything else goes.
    begun: Bytes,
}

/// A service whose requests carry an [`Interim`].
pub(crate) struct Attached<S> {
    service: S,
    line: Arc<Mutex<Line>>,
}

/// Ends the interim answers to a request when its handler has returned or is dropped.
struct Turn(Interim);

impl Interim {
    /// Sends a 104 with these headers, if it can still be sent.
    pub(crate) fn upload_resumption_supported(&self, headers: &HeaderMap) {
        let mut message = BytesMut::from(STATUS_LINE.as_bytes());
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                message.extend_from_slice(part);
            }
        }
        message.extend_from_slice(b"\r\n");
        let mut line = lock(&self.line);
        if line.open != Some(self.request)
            || line.queued.len() == MAX_QUEUED
            || message.len() > MAX_MESSAGE_BYTES
        {
            return;
        }
        line.queued.push_back(message.freeze());
        let connection = line.connection.take();
        drop(line);
        // It flushes each time it is polled.
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = lock(&self.0.line);
        if line.open == Some(self.0.request) {
            line.open = None;
            line.queued.clear();
        }
    }
}

/// Gives every request of the connection behind `channel` an [`Interim`].
pub(crate) fn attach<T, S>(channel: &Channel<T>, service: S) -> Attached<S> {
    Attached { service, line: channel.line.clone() }
}

impl<S> Service<Request<Incoming>> for Attached<S>
where
    S: Service<Request<Incoming>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    /// hyper calls it for one request after the other, never before it has the whole answer to the last one in hand.
    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let interim = {
            let mut line = lock(&self.line);
            line.requests += 1;
            line.queued.clear();
            // RFC 9110 section 15.2: HTTP/1.0 has no interim answers.
            line.open = (request.version() >= Version::HTTP_11).then_some(line.requests);
            Interim { line: self.line.clone(), request: line.requests }
        };
        request.extensions_mut().insert(interim.clone());
        let turn = Turn(interim);
        let answer = self.service.call(request);
        // The turn ends in the same poll in which hyper gets the answer and begins to write it.
        Box::pin(async move {
            let _turn = turn;
            answer.await
        })
    }
}

impl<S> Channel<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, line: Arc::default(), begun: Bytes::new() }
    }

    /// The next message, if there is one; else the connection is woken when one comes.
    fn next_queued(&self, context: &Context<'_>) -> Option<Bytes> {
        let mut line = lock(&self.line);
        let next = line.queued.pop_front();
        if next.is_none() {
            match &mut line.connection {
                Some(connection) => connection.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        next
    }
}

impl<S: AsyncWrite + Unpin> Channel<S> {
    /// What has begun goes out to its end.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let byte_len = ready!(Pin::new(&mut self.socket).poll_write(context, &self.begun))?;
            if byte_len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(byte_len);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Channel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Channel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper comes here when it has written all it has. A message that the socket does not take whole holds nothing up:
    /// the rest goes out when the socket takes more, or before hyper's next byte.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.poll_begun(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            match self.next_queued(context) {
                Some(message) => self.begun = message,
                None => break,
            }
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Every critical section leaves the line whole, so a panic beside it does no harm.
fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Channel, Interim, MAX_QUEUED, attach};
    use bytes::Bytes;
    use futures::stream;
    use http::{HeaderMap, HeaderValue, Request, Response};
    use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
    use hyper::{
        body::{Frame, Incoming},
        server::conn::http1,
        service::service_fn,
    };
    use hyper_util::rt::TokioIo;
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
        time::Duration,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::Semaphore,
        time::timeout,
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    const ROOMY: usize = 64 << 10;

    type Answer = Response<BoxBody<Bytes, Infallible>>;

    /// One answer as it came: a client that is strict about where each one ends.
    #[derive(Debug)]
    struct Message {
        status: u16,
        head: String,
        body: String,
    }

    struct Client {
        stream: DuplexStream,
        read: Vec<u8>,
    }

    impl Client {
        async fn send(&mut self, text: &str) {
            timeout(PATIENCE, self.stream.write_all(text.as_bytes())).await.expect("taken").unwrap();
        }

        /// `None` when the connection ended between two messages.
        async fn next(&mut self) -> Option<Message> {
            let head_len = loop {
                if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    break at + 4;
                }
                if !self.more().await {
                    assert!(
                        self.read.is_empty(),
                        "half a message: {:?}",
                        String::from_utf8_lossy(&self.read)
                    );
                    return None;
                }
            };
            let head = String::from_utf8(self.read.drain(..head_len).collect()).unwrap();
            let status = head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 "));
            let status: u16 =
                status.unwrap_or_else(|| panic!("no status line: {head:?}"))[..3].parse().unwrap();
            let body_len = match header(&head, "content-length") {
                Some(text) if status >= 200 => text.parse().unwrap(),
                _ => 0,
            };
            while self.read.len() < body_len {
                assert!(self.more().await, "half a body");
            }
            let body = String::from_utf8(self.read.drain(..body_len).collect()).unwrap();
            Some(Message { status, head, body })
        }

        /// The next one, which has to have this status.
        async fn expect(&mut self, status: u16) -> Message {
            let message = self.next().await.expect("a message");
            assert_eq!(message.status, status, "{message:?}");
            message
        }

        async fn more(&mut self) -> bool {
            let mut bytes = [0; 1024];
            let byte_len = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("an answer").unwrap();
            self.read.extend_from_slice(&bytes[..byte_len]);
            byte_len > 0
        }
    }

    fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// A real hyper connection; `pipe_bytes` is what lies on the way in each direction.
    fn serve<H, F>(pipe_bytes: usize, handler: H) -> Client
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let (stream, server) = tokio::io::duplex(pipe_bytes);
        let handler = Arc::new(handler);
        let service = service_fn(move |request| {
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(handler(request).await) }
        });
        let channel = Channel::new(server);
        let service = attach(&channel, service);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(channel), service));
        Client { stream, read: Vec::new() }
    }

    fn interim(request: &Request<Incoming>) -> Interim {
        request.extensions().get::<Interim>().expect("attached").clone()
    }

    fn headers(name: &'static str, value: impl ToString) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(&value.to_string()).unwrap(),
        )])
    }

    fn answer(text: impl Into<Bytes>) -> Answer {
        Response::builder().status(201).body(Full::new(text.into()).boxed()).unwrap()
    }

    /// Tells where the upload is, and then how many bytes there are, as often as some come.
    async fn receive(request: Request<Incoming>) -> Answer {
        let interim = interim(&request);
        interim.upload_resumption_supported(&headers("location", "/uploads/1"));
        let mut body = request.into_body();
        let mut offset = 0;
        while let Some(frame) = body.frame().await {
            offset += frame.unwrap().into_data().map_or(0, |bytes| bytes.len());
            interim.upload_resumption_supported(&headers("upload-offset", offset));
        }
        answer(offset.to_string())
    }

    #[tokio::test]
    async fn interim_answers_come_while_the_body_is_still_on_its_way() {
        let mut client = serve(ROOMY, receive);
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 15\r\n\r\n").await;
        let first = client.expect(104).await;
        assert!(first.head.starts_with("HTTP/1.1 104 Upload Resumption Supported\r\n"), "{first:?}");
        assert_eq!(header(&first.head, "location"), Some("/uploads/1"));
        for offset in ["5", "10"] {
            client.send("12345").await;
            assert_eq!(header(&client.expect(104).await.head, "upload-offset"), Some(offset));
        }
        client.send("12345").await;
        let mut last = client.next().await.unwrap();
        if last.status == 104 {
            last = client.next().await.unwrap();
        }
        assert_eq!((last.status, last.body.as_str()), (201, "15"));
    }

    #[tokio::test]
    async fn ietf_a_104_does_not_replace_100_continue() {
        let mut client = serve(ROOMY, receive);
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        client.send(head).await;
        let mut before_the_body = [client.next().await.unwrap().status, client.next().await.unwrap().status];
        before_the_body.sort_unstable();
        assert_eq!(before_the_body, [100, 104]);
        client.send("12345").await;
        while client.next().await.unwrap().status != 201 {}
    }

    #[tokio::test]
    async fn a_104_after_100_continue_comes_after_it() {
        let mut client = serve(ROOMY, async |request: Request<Incoming>| {
            let interim = interim(&request);
            let mut body = request.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            interim.upload_resumption_supported(&headers("upload-offset", first.len()));
            body.collect().await.unwrap();
            answer("done")
        });
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
        client.send(head).await;
        client.expect(100).await;
        client.send("12345").await;
        assert_eq!(header(&client.expect(104).await.head, "upload-offset"), Some("5"));
        client.send("12345").await;
        assert_eq!(client.expect(201).await.body, "done");
    }

    #[tokio::test]
    async fn the_interim_answers_of_a_request_end_with_it_on_a_connection_that_lives_on() {
        let kept: Arc<Mutex<Option<Interim>>> = Arc::default();
        let mut client = serve(ROOMY, move |request: Request<Incoming>| {
            let own = interim(&request);
            let before = kept.lock().unwrap().replace(own.clone());
            async move {
                if let Some(before) = before {
                    before.upload_resumption_supported(&headers("location", "/of-the-first-request"));
                }
                own.upload_resumption_supported(&headers("location", "/own"));
                request.into_body().collect().await.unwrap();
                answer("done")
            }
        });
        for _ in 0..3 {
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n").await;
            assert_eq!(header(&client.expect(104).await.head, "location"), Some("/own"));
            client.send("x").await;
            client.expect(201).await;
        }
    }

    #[tokio::test]
    async fn pipelined_requests_get_each_its_own_between_the_final_answers() {
        let may_end = Arc::new(Semaphore::new(0));
        let handler_may_end = may_end.clone();
        let mut client = serve(ROOMY, move |request: Request<Incoming>| {
            let may_end = handler_may_end.clone();
            async move {
                interim(&request).upload_resumption_supported(&headers("location", request.uri().path()));
                may_end.acquire().await.unwrap().forget();
                answer(request.uri().path().to_owned())
            }
        });
        let requests: String =
            (1..=5).map(|n| format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).collect();
        client.send(&requests).await;
        for path in ["/1", "/2", "/3", "/4", "/5"] {
            assert_eq!(header(&client.expect(104).await.head, "location"), Some(path));
            may_end.add_permits(1);
            assert_eq!(client.expect(201).await.body, path);
        }
    }

    #[tokio::test]
    async fn what_is_sent_when_the_final_answer_has_begun_is_dropped() {
        // The body of the final answer comes in two halves; between them the handler's task tries to send.
        let mut client = serve(ROOMY, async |request: Request<Incoming>| {
            let interim = interim(&request);
            interim.upload_resumption_supported(&headers("location", "/too-late"));
            let halves = stream::unfold(0, move |half| {
                let interim = interim.clone();
                async move {
                    interim.upload_resumption_supported(&headers("location", "/much-too-late"));
                    tokio::task::yield_now().await;
                    interim.upload_resumption_supported(&headers("location", "/much-too-late"));
                    (half < 2)
                        .then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"half"))), half + 1))
                }
            });
            let body = StreamBody::new(halves).boxed();
            Response::builder().status(201).header("content-length", 8).body(body).unwrap()
        });
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
            assert_eq!(client.expect(201).await.body, "halfhalf");
        }
    }

    #[tokio::test]
    async fn http_1_0_gets_none() {
        let mut client = serve(ROOMY, receive);
        client.send("POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await;
        client.send("12345").await;
        assert_eq!(client.expect(201).await.body, "5");
        assert!(client.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_until_it_has_sent_all_is_not_held_up() {
        const BODY_BYTES: usize = 64 << 10;
        // A pipe so small that not even one message fits.
        let mut client = serve(50, receive);
        client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY_BYTES}\r\n\r\n")).await;
        client.send(&"x".repeat(BODY_BYTES)).await;
        let mut interim_answers = 0;
        let last = loop {
            let message = client.next().await.unwrap();
            if message.status == 201 {
                break message;
            }
            assert_eq!(message.status, 104);
            interim_answers += 1;
        };
        assert_eq!(last.body, BODY_BYTES.to_string());
        // The queue was full, and what waited in it when the final answer began was dropped.
        assert!((1..=MAX_QUEUED).contains(&interim_answers), "{interim_answers}");
    }

    #[tokio::test]
    async fn another_task_may_send_and_wakes_the_connection() {
        let mut client = serve(ROOMY, async |request: Request<Incoming>| {
            let interim = interim(&request);
            let sender = tokio::spawn(async move {
                for offset in 0..3 {
                    tokio::task::yield_now().await;
                    interim.upload_resumption_supported(&headers("upload-offset", offset));
                }
            });
            sender.await.unwrap();
            request.into_body().collect().await.unwrap();
            answer("done")
        });
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n").await;
        for offset in ["0", "1", "2"] {
            assert_eq!(header(&client.expect(104).await.head, "upload-offset"), Some(offset));
        }
        client.send("x").await;
        client.expect(201).await;
    }

    #[tokio::test]
    async fn a_message_beyond_the_size_limit_is_dropped() {
        let mut client = serve(ROOMY, async |request: Request<Incoming>| {
            let interim = interim(&request);
            interim.upload_resumption_supported(&headers("location", "x".repeat(5000)));
            interim.upload_resumption_supported(&headers("location", "/short"));
            request.into_body().collect().await.unwrap();
            answer("done")
        });
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n").await;
        assert_eq!(header(&client.expect(104).await.head, "location"), Some("/short"));
        client.send("x").await;
        client.expect(201).await;
    }

    #[tokio::test]
    async fn every_cut_of_the_bytes_on_the_way_gives_the_same_messages() {
        for pipe_bytes in 1..80 {
            let mut client = serve(pipe_bytes, receive);
            for _ in 0..2 {
                let (mut reader, mut writer) = tokio::io::split(client.stream);
                let request =
                    format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n{}", "x".repeat(50));
                let sending = tokio::spawn(async move {
                    writer.write_all(request.as_bytes()).await.unwrap();
                    writer
                });
                let mut text = String::new();
                while !text.ends_with("\r\n\r\n50") {
                    let mut bytes = [0; 64];
                    let byte_len = timeout(PATIENCE, reader.read(&mut bytes)).await.expect("bytes").unwrap();
                    assert_ne!(byte_len, 0, "{text}");
                    text.push_str(std::str::from_utf8(&bytes[..byte_len]).unwrap());
                }
                client.stream = reader.unsplit(sending.await.unwrap());
                let mut heads: Vec<&str> = text.split_inclusive("\r\n\r\n").collect();
                assert_eq!(heads.pop(), Some("50"));
                assert!(heads.pop().unwrap().starts_with("HTTP/1.1 201 Created\r\n"), "{text}");
                for head in heads {
                    assert!(head.starts_with("HTTP/1.1 104 Upload"), "{text}");
                }
            }
        }
    }
}
