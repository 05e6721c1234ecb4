//! HTTP/1.1 by hand: so that a test can cut, stall and malform what a library would not.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A test that waits longer than this for an answer has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Or for something to become true: many times what a machine with other work takes.
const CONDITION_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What came before it, in order: 104 only, in this server.
    pub(crate) interim: Vec<Answer>,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self { address, method: method.to_owned(), path: path.to_owned(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn send(self, body: &[u8]) -> Answer {
        self.try_send(body).expect("no answer")
    }

    /// `None` when there was no connection, or it was closed before the answer came.
    pub(crate) fn try_send(self, body: &[u8]) -> Option<Answer> {
        let is_head = self.method == "HEAD";
        let mut connection = self.try_begin(Some(body.len())).ok()?;
        // A server may answer and close before it has read all.
        let _ = connection.write_all(body);
        read_answer(&mut connection, is_head)
    }

    /// With a body in chunked coding, whose length nobody told.
    pub(crate) fn send_chunked(self, pieces: &[&[u8]]) -> Answer {
        self.send_chunked_then(pieces, &[])
    }

    /// And with fields behind the body (RFC 9112 section 7.1.2).
    pub(crate) fn send_chunked_then(self, pieces: &[&[u8]], trailers: &[(&str, &str)]) -> Answer {
        let mut connection = self.with("Transfer-Encoding", "chunked").begin(None);
        for piece in pieces {
            let _ = write!(connection, "{:x}\r\n", piece.len());
            let _ = connection.write_all(piece);
            let _ = connection.write_all(b"\r\n");
        }
        let _ = connection.write_all(b"0\r\n");
        for (name, value) in trailers {
            let _ = write!(connection, "{name}: {value}\r\n");
        }
        let _ = connection.write_all(b"\r\n");
        read_answer(&mut connection, false).expect("no answer")
    }

    /// Sends the head; the body is the caller's to send, or not.
    pub(crate) fn begin(self, body_len: Option<usize>) -> TcpStream {
        self.try_begin(body_len).unwrap()
    }

    /// For a server that may be away.
    pub(crate) fn try_begin(self, body_len: Option<usize>) -> io::Result<TcpStream> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(ANSWER_LIMIT))?;
        connection.set_nodelay(true)?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.method, self.path, self.address
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body_len) = body_len {
            head.push_str(&format!("Content-Length: {body_len}\r\n"));
        }
        head.push_str("\r\n");
        let _ = connection.write_all(head.as_bytes());
        Ok(connection)
    }
}

/// The final answer, with the interim ones (but for `100 Continue`) that came before it. `None` when the connection ended
/// before the answer did.
pub(crate) fn read_answer(connection: &mut TcpStream, is_head: bool) -> Option<Answer> {
    let mut interim = Vec::new();
    loop {
        let answer = read_message(connection, is_head)?;
        match answer.status {
            100 => {}
            101..200 => interim.push(answer),
            _ => return Some(Answer { interim, ..answer }),
        }
    }
}

/// The next answer, interim or final, and not a byte of what comes after it.
pub(crate) fn read_message(connection: &mut TcpStream, is_head: bool) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new(), interim: Vec::new() };
    if !is_head && status >= 200 {
        answer.body = vec![0; answer.header("content-length").map_or(0, |text| text.parse().unwrap())];
        connection.read_exact(&mut answer.body).ok()?;
    }
    Some(answer)
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < CONDITION_LIMIT, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Sends this much and no more, and waits until the server has closed as well: a side that closes with an interim answer
/// unread resets the connection, and what it has sent may never arrive.
pub(crate) fn cut(mut connection: TcpStream, body: &[u8]) {
    connection.write_all(body).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    connection.set_read_timeout(Some(CONDITION_LIMIT)).unwrap();
    match connection.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("the server did not close: {error}")
        }
        _ => {}
    }
}

/// Until all that was written is on the server's side, read or still in its socket. What is on ours may come too late for
/// a server that looks what there is.
pub(crate) fn wait_until_arrived(connection: &TcpStream) {
    wait_until("all that was sent has arrived", || unacknowledged_bytes(connection) == Some(0));
}

/// `tx_queue` in proc_net(5): what the other side's kernel has not taken yet. `None`: the table was read while others
/// changed it, and the row was not in what was read.
fn unacknowledged_bytes(connection: &TcpStream) -> Option<u64> {
    let port = format!(":{:04X}", connection.local_addr().unwrap().port());
    let peer_port = format!(":{:04X}", connection.peer_addr().unwrap().port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&port) && row[2].ends_with(&peer_port))?;
    let (not_taken, _) = row[4].split_once(':')?;
    Some(u64::from_str_radix(not_taken, 16).unwrap())
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).parse().unwrap()
    }

    /// The problem document of a refusal.
    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem
    }

    pub(crate) fn detail(&self) -> String {
        self.problem()["detail"].as_str().unwrap().to_owned()
    }
}
