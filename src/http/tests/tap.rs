//! Bodies that a handler reads from the socket itself, on a real server: what comes before, between and after them on the
//! same connection stays whole.

use crate::http::{
    connections::{self, Limits},
    interim::Interim,
    tap::{Rest, Slice, Tap},
};
use axum::{Router, body::Body, extract::Request};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().fallback(receive);
        let serving = connections::serve(listener, router, Limits::of_this_process(), stop.clone());
        Self { address, stop, ended: tokio::spawn(serving) }
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }
}

/// Says by which way the body came, how long it was and what it hashed to. `/half` reads the first half of it.
async fn receive(request: Request) -> String {
    let (parts, body) = request.into_parts();
    let tap = parts.extensions.get::<Tap>().cloned().filter(|_| !Tap::is_small(&body));
    let Some(tap) = tap else { return told("hyper", &body.collect().await.unwrap().to_bytes()) };
    match tap.open(body).await {
        Err(body) => told("hyper", &body.collect().await.unwrap().to_bytes()),
        Ok(mut rest) => {
            let mut bytes: Vec<u8> = Vec::new();
            let half = rest.missing() / 2;
            let most = if parts.uri.path() == "/half" { half } else { u64::MAX };
            let interim = parts.extensions.get::<Interim>().unwrap();
            while rest.missing() > 0 && (bytes.len() as u64) < most && !rest.is_cut() {
                rest.readable().await;
                bytes.extend(fetch(&mut rest).await);
                interim.upload_resumption_supported(&HeaderMap::new());
            }
            let way = if rest.missing() == 0 { "socket" } else { "cut" };
            rest.give_back();
            told(way, &bytes)
        }
    }
}

async fn fetch(rest: &mut Rest) -> Vec<u8> {
    let slice = Slice {
        bytes: 1 << 20,
        silence: Duration::from_millis(1),
        patience: Duration::from_secs(1),
        stop: &[],
    };
    let inflow = rest.slice(&slice);
    let fetching = move || {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while let byte_len @ 1.. = inflow.fetch(&mut buffer) {
            all.extend_from_slice(&buffer[..byte_len]);
        }
        all
    };
    tokio::task::spawn_blocking(fetching).await.unwrap()
}

fn told(way: &str, bytes: &[u8]) -> String {
    format!("{way} {} {}", bytes.len(), hex::encode(Sha256::digest(bytes)))
}

fn bytes_of(seed: u64, byte_len: usize) -> Vec<u8> {
    (0..byte_len as u64).map(|at| (at.wrapping_mul(seed | 1) >> 7) as u8).collect()
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A head with the empty line behind it.
async fn head(socket: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = timeout(PATIENCE, socket.read_line(&mut head)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "closed after {head:?}");
    }
    head
}

/// The next answer, which has to be an interim one without headers: its status line.
async fn interim_answer(socket: &mut BufReader<TcpStream>) -> String {
    head(socket).await.trim_end().to_owned()
}

/// The next answer that is not an interim one: its head and its body.
async fn answer(socket: &mut BufReader<TcpStream>) -> (String, String) {
    loop {
        let head = head(socket).await;
        if head.starts_with("HTTP/1.1 1") {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        timeout(PATIENCE, socket.read_exact(&mut body)).await.expect("a body").unwrap();
        return (head, String::from_utf8(body).unwrap());
    }
}

async fn is_closed(socket: &mut BufReader<TcpStream>) -> bool {
    timeout(PATIENCE, socket.read(&mut [0]))
        .await
        .expect("it is closed")
        .map_or(true, |byte_len| byte_len == 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_one_behind_the_other_get_each_its_own_body_however_they_are_cut() {
    let server = Server::start().await;
    let bodies: Vec<Vec<u8>> = [3 << 20, 10, 300_000, 0, 1 << 20, 262_144, 262_143, 1, 700_001]
        .into_iter()
        .zip(1..)
        .map(|(byte_len, seed)| bytes_of(seed * 0x9e37_79b9, byte_len))
        .collect();
    for step in [997, 65_536, 1_000_003, usize::MAX] {
        let sent: Vec<u8> = bodies.iter().flat_map(|body| request("/", "", body)).collect();
        let (reading, mut writing) = TcpStream::connect(server.address).await.unwrap().into_split();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(step.min(sent.len())) {
                writing.write_all(piece).await.unwrap();
            }
            writing
        });
        // Nothing is read until the last answer is there, so the answers lie behind each other as the requests do.
        let mut socket = {
            let writing = sending.await.unwrap();
            BufReader::new(reading.reunite(writing).unwrap())
        };
        for body in &bodies {
            let (_, text) = answer(&mut socket).await;
            let (way, rest) = text.split_once(' ').unwrap();
            assert_eq!(rest, told("", body).trim_start());
            assert_eq!(way, if body.len() < 256 << 10 { "hyper" } else { "socket" }, "{text}");
        }
    }
}

#[tokio::test]
async fn interim_answers_and_100_continue_come_while_the_body_is_fetched() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    let body = bytes_of(5, 2 << 20);
    let whole = request("/", "expect: 100-continue\r\n", &body);
    let head_len = whole.len() - body.len();
    for _ in 0..2 {
        socket.write_all(&whole[..head_len]).await.unwrap();
        assert_eq!(interim_answer(&mut socket).await, "HTTP/1.1 100 Continue");
        socket.write_all(&whole[head_len..head_len + 1000]).await.unwrap();
        assert_eq!(interim_answer(&mut socket).await, "HTTP/1.1 104 Upload Resumption Supported");
        socket.write_all(&whole[head_len + 1000..]).await.unwrap();
        assert_eq!(answer(&mut socket).await.1, told("socket", &body));
    }
}

#[tokio::test]
async fn a_body_that_is_not_read_to_its_end_ends_the_connection() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    let body = bytes_of(7, 1 << 20);
    let sent = request("/half", "", &body);
    socket.write_all(&sent[..sent.len() * 3 / 4]).await.unwrap();
    assert!(answer(&mut socket).await.1.starts_with("cut "));
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn a_client_that_said_close_is_answered_and_the_connection_closed() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    let body = bytes_of(9, 1 << 20);
    socket.write_all(&request("/", "connection: close\r\n", &body)).await.unwrap();
    let (head, text) = answer(&mut socket).await;
    assert_eq!(text, told("socket", &body));
    assert!(head.contains("connection: close"), "{head}");
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn a_sender_that_goes_away_frees_the_connection() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    let sent = request("/", "", &bytes_of(11, 1 << 20));
    socket.write_all(&sent[..sent.len() / 2]).await.unwrap();
    drop(socket);
    server.stop.cancel();
    timeout(PATIENCE, server.ended).await.expect("no connection is left").unwrap();
}

#[tokio::test]
async fn a_stopping_server_answers_the_body_in_hand_and_takes_no_other() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    let body = bytes_of(13, 1 << 20);
    let sent = request("/", "", &body);
    socket.write_all(&sent[..sent.len() / 2]).await.unwrap();
    // It is being received.
    interim_answer(&mut socket).await;
    server.stop.cancel();
    socket.write_all(&sent[sent.len() / 2..]).await.unwrap();
    assert_eq!(answer(&mut socket).await.1, told("socket", &body));
    assert!(is_closed(&mut socket).await);
    timeout(PATIENCE, server.ended).await.expect("no connection is left").unwrap();
}

#[test]
fn small_bodies_and_those_without_a_length_are_left_to_hyper() {
    assert!(Tap::is_small(&Body::from(vec![0; 1000])));
    assert!(Tap::is_small(&Body::from_stream(
        futures::stream::empty::<Result<bytes::Bytes, std::io::Error>>()
    )));
    assert!(!Tap::is_small(&Body::from(vec![0; 1 << 20])));
}
