//! A TCP proxy that cuts connections: on the way in, after some bytes, or on the way out, so that an answer is lost.

use super::Chance;
use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A connection that is to be cut is cut within so many bytes of a body.
const CUT_WITHIN_BYTES: usize = 6 << 20;
/// The server is being started again: somebody who connects waits so long in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    /// So many of a hundred connections are cut.
    share: AtomicU64,
    cuts: AtomicU64,
    stopped: AtomicBool,
    seed: u64,
}

#[derive(Clone, Copy)]
enum Cut {
    Never,
    /// After so many bytes to the server.
    Request(usize),
    /// The server gets everything; its answer is thrown away.
    Answer,
}

impl CuttingProxy {
    pub(super) fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            share: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            seed,
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for (number, client) in (1..).zip(listener.incoming()) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, accepting.clone()) else { continue };
                thread::spawn(move || {
                    // Whatever goes wrong here is what the proxy is for.
                    let _ = pass(&shared, client, number);
                });
            }
        });
        Self { address, shared }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn cut_share(&self, of_a_hundred: u64) {
        self.shared.share.store(of_a_hundred, Ordering::Relaxed);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let begin = std::time::Instant::now();
    loop {
        match TcpStream::connect(upstream) {
            Ok(server) => return Ok(server),
            Err(error) if begin.elapsed() > CONNECT_LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn pass(shared: &Arc<Shared>, client: TcpStream, number: u64) -> io::Result<()> {
    let mut chance = Chance::new(shared.seed.wrapping_mul(1_000_003).wrapping_add(number));
    let cut = if (chance.below(100) as u64) < shared.share.load(Ordering::Relaxed) {
        if chance.below(3) == 0 { Cut::Answer } else { Cut::Request(chance.below(CUT_WITHIN_BYTES)) }
    } else {
        Cut::Never
    };
    let server = connect(shared.upstream)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let counted = shared.clone();
    let upwards = thread::spawn(move || {
        let limit = if let Cut::Request(limit) = cut { limit } else { usize::MAX };
        if copy(from_client, to_server, limit).is_ok_and(|whole| !whole) {
            counted.cuts.fetch_add(1, Ordering::Relaxed);
        }
    });
    let limit = if matches!(cut, Cut::Answer) { 0 } else { usize::MAX };
    if copy(server, client, limit).is_ok_and(|whole| !whole) {
        shared.cuts.fetch_add(1, Ordering::Relaxed);
    }
    let _ = upwards.join();
    Ok(())
}

/// Up to so many bytes, then both ends are closed; false: there was more.
fn copy(mut from: TcpStream, mut to: TcpStream, limit: usize) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    let whole = loop {
        let byte_len = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break true,
            Ok(byte_len) => byte_len,
        };
        let allowed = byte_len.min(limit - passed);
        if to.write_all(&buffer[..allowed]).is_err() {
            break true;
        }
        passed += allowed;
        if allowed < byte_len {
            break false;
        }
    };
    if whole {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }
    Ok(whole)
}
