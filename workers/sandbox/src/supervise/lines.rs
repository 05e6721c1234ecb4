//! Reading a child's output without trusting it: lines with a largest length, the tail of a stream, and file names
//! that cannot point out of the scratch directory.

use std::{collections::VecDeque, io};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// Longest file name and path a child may announce, in bytes.
const FILE_NAME_BYTES: usize = 200;
/// `{rung}/{segment}` is two; one more for whatever comes.
const FILE_NAME_PARTS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("a line longer than {0} bytes")]
    TooLong(usize),
    #[error("the pipe broke: {0}")]
    Pipe(#[from] io::Error),
}

/// Splits a stream at line feeds, holding at most one line and one read.
pub(super) struct Lines<R> {
    reader: R,
    longest: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line starts.
    start: usize,
    /// Up to where in `buffer` there is known to be no line feed of that line.
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, longest: usize) -> Self {
        Self { reader, longest, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// The next line without its line feed; `None` at the end. What follows the last line feed is a line that the
    /// writer did not live to finish, and is left out. Safe to drop and call again: what was read stays.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + found;
                let line = self.buffer[self.start..end].to_vec();
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.searched = self.buffer.len();
            if self.buffer.len() > self.longest {
                return Err(LineError::TooLong(self.longest));
            }
            self.buffer.reserve(READ_BYTES);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The last bytes of a stream.
pub(super) struct Tail {
    kept: VecDeque<u8>,
    most: usize,
}

impl Tail {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.most)..];
        let excess = (self.kept.len() + bytes.len()).saturating_sub(self.most);
        self.kept.drain(..excess);
        self.kept.extend(bytes);
    }

    /// As text, with bytes that are none replaced, and without control characters that could drive a terminal.
    pub(super) fn text(&self) -> String {
        let (first, second) = self.kept.as_slices();
        let text = String::from_utf8_lossy(&[first, second].concat()).into_owned();
        text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
    }
}

/// Whether a child may announce this path: relative, plain parts, of letters that need no care in a shell or a URL.
pub fn is_safe_file_name(file: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    file.len() <= FILE_NAME_BYTES
        && file.split('/').count() <= FILE_NAME_PARTS
        && file.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::{LineError, Lines, Tail, is_safe_file_name};

    #[tokio::test]
    async fn lines_come_whole_however_they_were_cut() {
        let (near, mut far) = tokio::io::duplex(3);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut far, b"first\n\nthird\nno end").await.unwrap();
        });
        let mut lines = Lines::new(near, 10);
        for expected in ["first", "", "third"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), expected.as_bytes());
        }
        assert!(lines.next().await.unwrap().is_none());
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let mut lines = Lines::new(tokio::io::repeat(b'x'), 100_000);
        assert!(matches!(lines.next().await, Err(LineError::TooLong(100_000))));
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::new(5);
        for piece in ["a", "bc\u{1b}", "", "d\ne"] {
            tail.push(piece.as_bytes());
        }
        assert_eq!(tail.text(), "cd\ne");
        tail.push(b"0123456789");
        assert_eq!(tail.text(), "56789");
    }

    #[test]
    fn file_names_stay_below_scratch() {
        for good in ["poster.jpg", "1080p/init.mp4", "audio/00000.m4s", "a/b/c"] {
            assert!(is_safe_file_name(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            ".hidden",
            "a/.",
            "a b",
            "a\0",
            "a\\b",
            "a/b/c/d",
            "é",
        ] {
            assert!(!is_safe_file_name(bad), "{bad}");
        }
        assert!(!is_safe_file_name(&"x".repeat(201)));
    }
}
