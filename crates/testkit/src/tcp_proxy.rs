//! A proxy before a server of any protocol over TCP, and what a network can do to its connections.
//!
//! It runs on a thread of its own, so tests with and without a runtime can use it. [`crate::FaultProxy`] knows requests
//! and answers; this one knows bytes only.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

/// Bytes on the way at a time and connection: small, so that a cut falls inside a message.
const PIECE_BYTES: usize = 16 << 10;

/// What the line does to its connections, those that are open and those that come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    #[default]
    Clear,
    /// Every piece arrives late.
    Delay(Duration),
    /// Each connection is reset when so many more bytes have passed on it, both ways together.
    CutAfter(u64),
    /// Who connects is reset at once, and so is everybody who is there.
    Reset,
    /// Nothing arrives and nobody hears of it, as when a cable is pulled; what was sent arrives when the line is whole
    /// again, as TCP sends it once more.
    BlackHole,
}

/// Bytes that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub to_server: u64,
    pub to_client: u64,
}

/// Dropped, it ends, and with it all its connections.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    line: watch::Sender<Line>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<String>,
    connections: AtomicU64,
    cuts: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl TcpProxy {
    /// Before the server at `host:port`.
    pub fn start(upstream: &str) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be asked not to block");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.to_owned()),
            connections: AtomicU64::default(),
            cuts: AtomicU64::default(),
            to_server: AtomicU64::default(),
            to_client: AtomicU64::default(),
        });
        let (line, line_seen) = watch::channel(Line::Clear);
        let (stop, stopped) = oneshot::channel();
        let of_thread = shared.clone();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, of_thread, line_seen) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, line, stop: Some(stop), thread: Some(thread) }
    }

    /// `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where new connections go: a server that was started again may have another port.
    pub fn set_upstream(&self, upstream: &str) {
        upstream.clone_into(&mut self.shared.upstream.lock().expect("nobody panicked with it"));
    }

    /// From now on, for open connections too.
    pub fn set_line(&self, line: Line) {
        let _ = self.line.send_replace(line);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that the line has cut or reset.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    pub fn passed(&self) -> Passed {
        Passed {
            to_server: self.shared.to_server.load(Ordering::Relaxed),
            to_client: self.shared.to_client.load(Ordering::Relaxed),
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, shared: Arc<Shared>, line: watch::Receiver<Line>) {
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, line) = (shared.clone(), line.clone());
        tokio::spawn(async move {
            // Whatever goes wrong here is what the proxy is for.
            let _ = pass(&shared, client, line).await;
        });
    }
}

/// Until both sides are done, or the line cuts it.
async fn pass(shared: &Shared, mut client: TcpStream, mut line: watch::Receiver<Line>) -> io::Result<()> {
    let mut budget = Budget::of(*line.borrow_and_update());
    let upstream = shared.upstream.lock().expect("nobody panicked with it").clone();
    // A server that is away: whoever connected is reset, as by the server's own machine.
    let Ok(mut server) = TcpStream::connect(&upstream).await else { return client.set_zero_linger() };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let outcome = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (mut up, mut down) = (Way::default(), Way::default());
        // To look at while the other one waits for a change.
        let seen = line.clone();
        loop {
            if line.has_changed().unwrap_or(false) {
                budget = Budget::of(*line.borrow_and_update());
            }
            if *line.borrow() == Line::Reset || budget.is_used_up() {
                break Err(io::ErrorKind::ConnectionReset.into());
            }
            if up.is_over && down.is_over {
                break Ok(());
            }
            let is_open = *line.borrow() != Line::BlackHole;
            tokio::select! {
                changed = line.changed() => match changed {
                    Ok(()) => budget = Budget::of(*line.borrow()),
                    Err(_) => break Ok(()),
                },
                step = up.step(&mut from_client, &mut to_server, &seen), if is_open && !up.is_over => {
                    budget.take(&shared.to_server, step?);
                }
                step = down.step(&mut from_server, &mut to_client, &seen), if is_open && !down.is_over => {
                    budget.take(&shared.to_client, step?);
                }
            }
        }
    };
    if outcome.is_err() {
        shared.cuts.fetch_add(1, Ordering::Relaxed);
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    outcome
}

/// Bytes until the cut.
struct Budget(Option<u64>);

impl Budget {
    fn of(line: Line) -> Self {
        Self(if let Line::CutAfter(bytes) = line { Some(bytes) } else { None })
    }

    fn is_used_up(&self) -> bool {
        self.0 == Some(0)
    }

    fn take(&mut self, counter: &AtomicU64, byte_len: usize) {
        counter.fetch_add(byte_len as u64, Ordering::Relaxed);
        if let Some(left) = &mut self.0 {
            *left = left.saturating_sub(byte_len as u64);
        }
    }
}

/// One direction. A step that is dropped in the middle (the other direction was quicker) goes on with the next.
struct Way {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    due: Option<tokio::time::Instant>,
    is_over: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self { buffer: vec![0; PIECE_BYTES].into(), start: 0, end: 0, due: None, is_over: false }
    }
}

impl Way {
    /// Bytes that went on, which may be none.
    async fn step(
        &mut self,
        from: &mut tokio::net::tcp::ReadHalf<'_>,
        to: &mut tokio::net::tcp::WriteHalf<'_>,
        line: &watch::Receiver<Line>,
    ) -> io::Result<usize> {
        if self.start == self.end {
            let read = from.read(&mut self.buffer).await?;
            (self.start, self.end) = (0, read);
            if read == 0 {
                self.is_over = true;
                let _ = to.shutdown().await;
                return Ok(0);
            }
            if let Line::Delay(time) = *line.borrow() {
                self.due = Some(tokio::time::Instant::now() + time);
            }
        }
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
            self.due = None;
        }
        let written = to.write(&self.buffer[self.start..self.end]).await?;
        self.start += written;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, TcpProxy};
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    /// A server that says everything back.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                thread::spawn(move || std::io::copy(&mut socket.try_clone().unwrap(), &mut socket));
            }
        });
        address
    }

    fn say(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        socket.write_all(text)?;
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back)?;
        assert_eq!(back, text);
        Ok(())
    }

    #[test]
    fn a_line_that_is_clear_passes_everything_and_counts_it() {
        let proxy = TcpProxy::start(&echo());
        let mut socket = TcpStream::connect(proxy.address()).unwrap();
        say(&mut socket, b"hello").unwrap();
        // The count follows the bytes.
        while (proxy.passed().to_server, proxy.passed().to_client) != (5, 5) {
            thread::yield_now();
        }
        assert_eq!((proxy.connections(), proxy.cuts()), (1, 0));
    }

    #[test]
    fn a_line_cuts_after_so_many_bytes_and_resets_whoever_comes() {
        let proxy = TcpProxy::start(&echo());
        proxy.set_line(Line::CutAfter(10));
        let mut socket = TcpStream::connect(proxy.address()).unwrap();
        say(&mut socket, b"12345").unwrap();
        assert!(say(&mut socket, b"6").is_err() || say(&mut socket, b"7").is_err());
        proxy.set_line(Line::Reset);
        let refused = TcpStream::connect(proxy.address()).and_then(|mut socket| say(&mut socket, b"x"));
        assert!(refused.is_err());
        assert!(proxy.cuts() >= 2);
        proxy.set_line(Line::Clear);
        say(&mut TcpStream::connect(proxy.address()).unwrap(), b"again").unwrap();
    }

    #[test]
    fn what_fell_into_a_black_hole_arrives_when_the_line_is_whole_again() {
        let proxy = TcpProxy::start(&echo());
        let mut socket = TcpStream::connect(proxy.address()).unwrap();
        say(&mut socket, b"before").unwrap();
        proxy.set_line(Line::BlackHole);
        socket.write_all(b"lost?").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(socket.read(&mut [0; 5]).is_err(), "nothing comes through");
        proxy.set_line(Line::Clear);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut back = [0; 5];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"lost?");
    }

    #[test]
    fn a_delay_holds_for_each_piece() {
        let proxy = TcpProxy::start(&echo());
        proxy.set_line(Line::Delay(Duration::from_millis(60)));
        let mut socket = TcpStream::connect(proxy.address()).unwrap();
        let begin = Instant::now();
        say(&mut socket, b"slow").unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(120), "both ways: {:?}", begin.elapsed());
    }
}
