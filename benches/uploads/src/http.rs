//! A client of few words: HTTP/1.1 over a blocking socket, the same for every server that is measured.
//!
//! It sends what it is told and reads one answer. Interim answers (1xx) are skipped. It never retries.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

/// Longer than any of the servers lets a request wait for a lock.
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCK_BYTES: usize = 1 << 20;
const MAX_HEAD_BYTES: usize = 64 << 10;

/// What is sent, again and again. No zeros: a file system could leave them out.
pub(crate) static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while block.len() < BLOCK_BYTES {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
});

/// The bytes of every upload from `offset`, `byte_len` of them, piece by piece.
pub(crate) fn send_bytes(socket: &mut TcpStream, offset: u64, byte_len: u64) -> io::Result<()> {
    let mut position = offset;
    let end = offset + byte_len;
    while position < end {
        let from = (position % BLOCK_BYTES as u64) as usize;
        let to = BLOCK_BYTES.min(from.saturating_add(usize::try_from(end - position).unwrap_or(BLOCK_BYTES)));
        socket.write_all(&BLOCK[from..to])?;
        position += (to - from) as u64;
    }
    Ok(())
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        let value = self.field(name).with_context(|| format!("an answer {} has no {name}", self.status))?;
        value.parse().with_context(|| format!("{name} is {value:?}"))
    }
}

pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    address: SocketAddr,
    /// What was read beyond the last answer.
    pending: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address, pending: Vec::new() })
    }

    /// Sends a request without a body, or the head of one.
    pub(crate) fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.socket.write_all(head.as_bytes()).with_context(|| format!("sending {method} {path}"))
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        self.send(method, path, fields)?;
        self.answer(method == "HEAD")
    }

    pub(crate) fn answer(&mut self, without_body: bool) -> Result<Answer> {
        loop {
            let head = self.head()?;
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            let answer = Answer { status: status.with_context(|| format!("no answer: {head:?}"))?, head };
            if (100..200).contains(&answer.status) {
                continue;
            }
            if !without_body && answer.status != 204 {
                self.discard_body(&answer)?;
            }
            return Ok(answer);
        }
    }

    fn head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.pending.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = self.pending.split_off(end + 4);
                let head = std::mem::replace(&mut self.pending, rest);
                return String::from_utf8(head).context("a head that is not text");
            }
            ensure!(self.pending.len() < MAX_HEAD_BYTES, "a head without an end");
            self.read_more()?;
        }
    }

    fn discard_body(&mut self, answer: &Answer) -> Result<()> {
        if answer.field("Transfer-Encoding").is_some() {
            while !self.pending.ends_with(b"0\r\n\r\n") {
                self.read_more()?;
            }
            self.pending.clear();
            return Ok(());
        }
        let byte_len = usize::try_from(answer.number("Content-Length").unwrap_or(0))?;
        while self.pending.len() < byte_len {
            self.read_more()?;
        }
        self.pending.drain(..byte_len);
        Ok(())
    }

    fn read_more(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        let byte_len = self.socket.read(&mut bytes).context("waiting for an answer")?;
        ensure!(byte_len > 0, "the server closed the connection");
        self.pending.extend_from_slice(&bytes[..byte_len]);
        Ok(())
    }
}
