//! The rest of a body, fetched from the socket on a thread that may block, slice by slice.
//!
//! Made by [`Tap::open`](super::Tap::open), handed to a store as its [`Inflow`]. It never takes a byte beyond the body's end:
//! that one is the next request's.

use super::Tap;
use axum::body::Body;
use bytes::Bytes;
use nix::sys::socket::SetSockOpt as _;
use reelyard_storage::Inflow;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::RecvFlags,
};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{io::Interest, net::TcpStream};
use tokio_util::sync::CancellationToken;

/// The rest of a body, on the socket.
pub(crate) struct Rest {
    fetcher: Arc<Fetcher>,
    tap: Tap,
    body: Body,
}

/// How much of it at a time.
pub(crate) struct Slice<'a> {
    pub(crate) bytes: u64,
    /// So long without a byte, and it is over.
    pub(crate) silence: Duration,
    /// So long is the sender waited for in all.
    pub(crate) patience: Duration,
    /// Any of these ends it at once.
    pub(crate) stop: &'a [&'a CancellationToken],
}

impl Rest {
    /// `pieces` is what hyper had read, `on_socket` how many bytes follow there.
    pub(super) fn new(tap: Tap, body: Body, pieces: VecDeque<Bytes>, on_socket: u64) -> Self {
        let fetcher = Arc::new(Fetcher::new(tap.0.socket.clone(), pieces, on_socket));
        Self { fetcher, tap, body }
    }

    /// In bytes, those included that hyper had read.
    pub(crate) fn missing(&self) -> u64 {
        self.fetcher.inner().missing
    }

    /// The sender is gone before all was there.
    pub(crate) fn is_cut(&self) -> bool {
        self.fetcher.inner().is_cut
    }

    /// When there is something to fetch, the end of it included.
    pub(crate) async fn readable(&mut self) {
        if self.fetcher.inner().ahead.is_empty() {
            self.fetcher.set_low_water(1);
            self.woken().await;
        }
    }

    /// When there are so many bytes to fetch, or all that are missing; or the end.
    pub(crate) async fn gathered(&mut self, byte_len: u64) {
        // What the runtime has seen of the socket until now is of no interest; a new mark makes it look again.
        let _ =
            self.fetcher.socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        self.fetcher.set_low_water(byte_len.min(self.missing()));
        self.woken().await;
    }

    async fn woken(&mut self) {
        // Fails when the runtime ends; what the socket has to say comes to whoever fetches.
        if self.fetcher.socket.readable().await.is_err() {
            self.fetcher.inner().is_cut = true;
        }
    }

    /// To be handed to a thread that may block. One at a time.
    pub(crate) fn slice(&self, slice: &Slice<'_>) -> Arc<dyn Inflow> {
        let mut inner = self.fetcher.inner();
        inner.left = slice.bytes;
        inner.silence = slice.silence;
        inner.patience = slice.patience;
        inner.stop = slice.stop.iter().map(|stop| (*stop).clone()).collect();
        inner.waited = Duration::ZERO;
        if !slice.silence.is_zero() {
            let most = inner.most().min(WAITED_FOR_BYTES);
            inner.set_low_water(&self.fetcher.socket, most);
        }
        self.fetcher.clone()
    }

    /// Of the time of the last slice, how long the sender was waited for.
    pub(crate) fn waited(&self) -> Duration {
        self.fetcher.inner().waited
    }

    /// The body was read to its end: the connection can go on when it is answered.
    pub(crate) fn give_back(self) {
        if self.missing() == 0 {
            self.fetcher.set_low_water(1);
            self.tap.0.state().finished = Some(self.body);
        }
    }
}

struct Fetcher {
    socket: Arc<TcpStream>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// What hyper had read.
    ahead: VecDeque<Bytes>,
    missing: u64,
    is_cut: bool,
    /// Nobody is woken for fewer bytes.
    low_water: u64,
    /// Of this slice.
    left: u64,
    silence: Duration,
    patience: Duration,
    stop: Vec<CancellationToken>,
    waited: Duration,
}

/// While a thread fetches, nobody is woken for less.
const WAITED_FOR_BYTES: u64 = 1 << 20;

/// SO_RCVLOWAT (socket(7)): without it each packet wakes the thread that waits, and the runtime, which has nothing to do.
#[derive(Clone, Copy)]
struct LowWater;
nix::setsockopt_impl!(
    LowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize,
    nix::sys::socket::sockopt::SetUsize
);

impl Fetcher {
    fn new(socket: Arc<TcpStream>, ahead: VecDeque<Bytes>, on_socket: u64) -> Self {
        let missing = on_socket + ahead.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let inner = Inner {
            ahead,
            missing,
            is_cut: false,
            low_water: 1,
            left: 0,
            silence: Duration::ZERO,
            patience: Duration::ZERO,
            stop: Vec::new(),
            waited: Duration::ZERO,
        };
        Self { socket, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_low_water(&self, byte_len: u64) {
        self.inner().set_low_water(&self.socket, byte_len);
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match rustix::net::recv(&*self.socket, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => return received.map(|(byte_len, _)| byte_len),
            }
        }
    }

    /// True: there is something. Waits on the thread; the runtime's own view of the socket is not asked.
    fn wait(&self, most: Duration) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: most.as_nanos() as i64 };
        let mut sockets = [PollFd::new(&*self.socket, PollFlags::IN)];
        rustix::event::poll(&mut sockets, Some(&timeout)).is_ok_and(|count| count > 0)
    }

    /// Looks once more in the way that makes the runtime wake us when something comes.
    fn look_again(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let looked = self.socket.try_io(Interest::READABLE, || self.receive(buffer).map_err(Into::into));
        looked.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
    }

    /// From the socket, after some waiting where that is bare.
    fn take_in(&self, inner: &mut Inner, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self.receive(buffer) {
            Err(Errno::AGAIN) => {}
            received => return received,
        }
        inner.set_low_water(&self.socket, WAITED_FOR_BYTES.min(buffer.len() as u64));
        let begun = Instant::now();
        let something = self.wait(inner.silence.min(inner.patience.saturating_sub(inner.waited)));
        inner.waited += begun.elapsed();
        if something { self.receive(buffer) } else { self.look_again(buffer) }
    }
}

impl Inner {
    fn most(&self) -> u64 {
        if self.is_cut { 0 } else { self.left.min(self.missing) }
    }

    fn set_low_water(&mut self, socket: &TcpStream, byte_len: u64) {
        if self.low_water != byte_len {
            // A system that has no such mark wakes us more often.
            let _ = LowWater.set(socket, &(byte_len as usize));
            self.low_water = byte_len;
        }
    }
}

impl Inflow for Fetcher {
    fn fetch(&self, buffer: &mut [u8]) -> usize {
        let mut inner = self.inner();
        let most = inner.most().min(buffer.len() as u64) as usize;
        if most == 0 || inner.stop.iter().any(CancellationToken::is_cancelled) {
            return 0;
        }
        let buffer = &mut buffer[..most];
        let byte_len = match inner.ahead.pop_front() {
            Some(mut piece) => {
                let taken = piece.split_to(most.min(piece.len()));
                buffer[..taken.len()].copy_from_slice(&taken);
                if !piece.is_empty() {
                    inner.ahead.push_front(piece);
                }
                taken.len()
            }
            None => match self.take_in(&mut inner, buffer) {
                Err(Errno::AGAIN) => return 0,
                Ok(byte_len @ 1..) => byte_len,
                Ok(_) | Err(_) => {
                    inner.is_cut = true;
                    return 0;
                }
            },
        };
        inner.missing -= byte_len as u64;
        inner.left -= byte_len as u64;
        byte_len
    }

    fn most(&self) -> u64 {
        self.inner().most()
    }
}
