//! A line between a client and the server, and what it does to the bytes: cuts, damages, holds and counts them.

use super::{server::Server, wire::wait_until};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Who is held for so long goes on, and the test sees that it was for nothing.
const HOLD_LIMIT: Duration = Duration::from_secs(60);
/// A body of more is the bytes of a file.
const LARGE_BODY_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Default)]
pub(crate) struct Harm {
    /// Cuts every connection after so many bytes from the client: the mobile network of a train.
    pub(crate) cut_after: Option<u64>,
    /// Changes this byte of what the first connections send, as many times in all.
    pub(crate) flip: Option<(usize, usize)>,
    /// The server's digest of the whole comes out as another.
    pub(crate) wrong_digest: bool,
    /// After so many bytes from the client, of all connections, nothing more goes on to the server until
    /// [`Line::release`]: so the client cannot be done before the test has done something to it.
    pub(crate) hold_after: Option<u64>,
    /// Large bodies stay in their middle until so many of them do.
    pub(crate) hold_until_bodies: Option<usize>,
}

pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    passed: Arc<Passed>,
}

#[derive(Default)]
struct Passed {
    sent: AtomicU64,
    /// Connections of which more may come.
    open: AtomicUsize,
    flips: AtomicUsize,
    traffic: Mutex<Traffic>,
    changed: Condvar,
}

#[derive(Default)]
struct Traffic {
    is_released: bool,
    /// Large bodies that are in their middle, and the most that were at the same time.
    bodies: usize,
    most_bodies: usize,
}

pub(crate) fn line(server: &Server, harm: Harm) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = Arc::new(Passed::default());
    passed.flips.store(harm.flip.map_or(0, |(_, times)| times), Ordering::Relaxed);
    let line = Line { address: listener.local_addr().unwrap(), passed: passed.clone() };
    let address = server.address;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(address) else { continue };
            passed.open.fetch_add(1, Ordering::Relaxed);
            let (back_from, back_to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || answers(back_from, back_to, harm));
            let passed = passed.clone();
            thread::spawn(move || {
                requests(client, upstream, harm, &passed);
                passed.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    line
}

impl Line {
    /// Bytes from the client, of all connections.
    pub(crate) fn sent(&self) -> u64 {
        self.passed.sent.load(Ordering::Relaxed)
    }

    /// What is held goes on, and nothing is held any more.
    pub(crate) fn release(&self) {
        self.passed.traffic().is_released = true;
        self.passed.changed.notify_all();
    }

    /// When a client is gone, what it had handed to the kernel still comes: until all of that came.
    pub(crate) fn wait_until_empty(&self) {
        wait_until("nothing more comes over the line", || self.passed.open.load(Ordering::Relaxed) == 0);
    }

    pub(crate) fn most_bodies(&self) -> usize {
        self.passed.traffic().most_bodies
    }
}

impl Passed {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap()
    }

    fn hold_while(&self, is_held: impl Fn(&Traffic) -> bool) {
        drop(
            self.changed.wait_timeout_while(self.traffic(), HOLD_LIMIT, |traffic| is_held(traffic)).unwrap(),
        );
    }

    fn count_body(&self, was_in_body: bool, is_in_body: bool) {
        let mut traffic = self.traffic();
        traffic.bodies = traffic.bodies + usize::from(is_in_body) - usize::from(was_in_body);
        traffic.most_bodies = traffic.most_bodies.max(traffic.bodies);
        self.changed.notify_all();
    }
}

fn answers(mut from: TcpStream, mut to: TcpStream, harm: Harm) {
    const DIGEST: &[u8] = b"\"sha256\":\"";
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = &mut buffer[..count];
        let found = piece.windows(DIGEST.len()).position(|window| window == DIGEST);
        if let (true, Some(at)) = (harm.wrong_digest, found) {
            let digit = &mut piece[at + DIGEST.len()];
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn requests(client: TcpStream, mut upstream: TcpStream, harm: Harm, passed: &Passed) {
    let mut from = (&client).take(harm.cut_after.unwrap_or(u64::MAX));
    let (mut buffer, mut at) = (vec![0; 64 << 10], 0);
    let mut place = Place::default();
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some((flipped, _)) = harm.flip
            && (at..at + count).contains(&flipped)
            && passed
                .flips
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        {
            buffer[flipped - at] ^= 1;
        }
        at += count;
        let sent = passed.sent.fetch_add(count as u64, Ordering::Relaxed);
        if harm.hold_after.is_some_and(|most| sent >= most) {
            passed.hold_while(|traffic| !traffic.is_released);
        }
        if let Some(bodies) = harm.hold_until_bodies {
            let was_in_body = place.is_in_body();
            place.pass(&buffer[..count]);
            passed.count_body(was_in_body, place.is_in_body());
            if place.is_in_body() {
                passed.hold_while(|traffic| traffic.most_bodies < bodies);
            }
        }
        if upstream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    passed.count_body(place.is_in_body(), false);
    let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
}

/// Where in its requests a connection is. Their lengths are told: no chunks.
#[derive(Default)]
struct Place {
    head: Vec<u8>,
    body_len: u64,
    /// Of the body.
    left: u64,
}

impl Place {
    fn is_in_body(&self) -> bool {
        self.left > 0 && self.body_len > LARGE_BODY_BYTES
    }

    fn pass(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let of_body = self.left.min(bytes.len() as u64);
                self.left -= of_body;
                bytes = &bytes[of_body as usize..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8(std::mem::take(&mut self.head)).unwrap().to_ascii_lowercase();
                let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                self.body_len = told.map_or(0, |text| text.parse().unwrap());
                self.left = self.body_len;
            }
        }
    }
}
