//! A source that the parent reads for its child: a conversation over descriptor 3, where the worker is far from the bytes.
//!
//! Descriptor 3 is a plain file where the bytes lie on this machine, and a stream socket where they do not. The child
//! looks which of the two it got ([`Source`]); the parent's end is served by the agent. Version 1, all numbers little
//! endian:
//!
//! ```text
//!  parent ──▶ child   greeting   "RYSB"  version u32  length of the source u64
//!  child ──▶ parent   request    offset u64  length u32
//!  parent ──▶ child   answer     status u32  length u32, and with status 0 so many bytes
//! ```
//! One request is in flight at a time. An answer may be shorter than the request, but holds at least one byte: the end of
//! the source is known from the greeting. Neither side believes the other: both check every number before they use it.
//! When the parent goes away the child reads the end of the stream, which is an error like any other, and nothing that a
//! child asks for reaches beyond the one source it was started for.

mod inherited;

pub use inherited::Source;

use std::ops::Range;

/// Names this conversation and its byte order.
const MARK: [u8; 4] = *b"RYSB";
pub const VERSION: u32 = 1;
/// Longest read that may be asked for: FFmpeg reads whole packets past its own buffer, and they come in several answers.
pub const MAX_READ_BYTES: u32 = 1 << 20;

pub const GREETING_BYTES: usize = 16;
pub const REQUEST_BYTES: usize = 12;
pub const ANSWER_BYTES: usize = 8;

/// The other side said something that is not in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("what came is no greeting of a source")]
    NoGreeting,
    #[error(
        "the source speaks version {0}, this is version {VERSION}: build both programs from the same code"
    )]
    Version(u32),
    #[error("an answer with the unknown status {0}")]
    Status(u32),
    #[error("an answer of {got} bytes to a request for {wanted}")]
    AnswerLength { wanted: usize, got: u32 },
    #[error("a request for {length} bytes at {offset} of a source of {byte_len}")]
    Request { offset: u64, length: u32, byte_len: u64 },
}

/// The first thing on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub byte_len: u64,
}

impl Greeting {
    pub fn encode(self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..4].copy_from_slice(&MARK);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..].copy_from_slice(&self.byte_len.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Self, ProtocolError> {
        let [m0, m1, m2, m3, v0, v1, v2, v3, length @ ..] = *bytes;
        if [m0, m1, m2, m3] != MARK {
            return Err(ProtocolError::NoGreeting);
        }
        match u32::from_le_bytes([v0, v1, v2, v3]) {
            VERSION => Ok(Self { byte_len: u64::from_le_bytes(length) }),
            other => Err(ProtocolError::Version(other)),
        }
    }
}

/// What the child wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    pub offset: u64,
    pub length: u32,
}

impl ReadRequest {
    pub fn encode(self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, length @ ..] = *bytes;
        Self {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length: u32::from_le_bytes(length),
        }
    }

    /// The bytes meant, cut at the end of the source. An honest child asks for some, and not beyond the end.
    pub fn within(self, byte_len: u64) -> Result<Range<u64>, ProtocolError> {
        let Self { offset, length } = self;
        if length == 0 || length > MAX_READ_BYTES || offset >= byte_len {
            return Err(ProtocolError::Request { offset, length, byte_len });
        }
        Ok(offset..byte_len.min(offset.saturating_add(u64::from(length))))
    }
}

/// What the parent says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many bytes follow.
    Bytes(u32),
    /// The source is not there any more, or shorter than it was.
    Gone,
    /// It could not be read, after several tries.
    Unavailable,
}

impl Answer {
    const STATUS_BYTES: u32 = 0;
    const STATUS_GONE: u32 = 1;
    const STATUS_UNAVAILABLE: u32 = 2;

    pub fn encode(self) -> [u8; ANSWER_BYTES] {
        let (status, length) = match self {
            Self::Bytes(length) => (Self::STATUS_BYTES, length),
            Self::Gone => (Self::STATUS_GONE, 0),
            Self::Unavailable => (Self::STATUS_UNAVAILABLE, 0),
        };
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..4].copy_from_slice(&status.to_le_bytes());
        bytes[4..].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// `wanted` is what was asked for.
    pub fn decode(bytes: &[u8; ANSWER_BYTES], wanted: usize) -> Result<Self, ProtocolError> {
        let [s0, s1, s2, s3, length @ ..] = *bytes;
        let got = u32::from_le_bytes(length);
        match u32::from_le_bytes([s0, s1, s2, s3]) {
            Self::STATUS_BYTES if got > 0 && got as usize <= wanted => Ok(Self::Bytes(got)),
            Self::STATUS_BYTES => Err(ProtocolError::AnswerLength { wanted, got }),
            Self::STATUS_GONE => Ok(Self::Gone),
            Self::STATUS_UNAVAILABLE => Ok(Self::Unavailable),
            other => Err(ProtocolError::Status(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Greeting, MAX_READ_BYTES, ProtocolError, ReadRequest};

    #[test]
    fn what_is_written_is_what_was_agreed_byte_for_byte() {
        assert_eq!(Greeting { byte_len: 0x0102 }.encode(), *b"RYSB\x01\0\0\0\x02\x01\0\0\0\0\0\0");
        assert_eq!(ReadRequest { offset: 0x0304, length: 5 }.encode(), *b"\x04\x03\0\0\0\0\0\0\x05\0\0\0");
        assert_eq!(Answer::Bytes(7).encode(), *b"\0\0\0\0\x07\0\0\0");
        assert_eq!(Answer::Unavailable.encode(), *b"\x02\0\0\0\0\0\0\0");
    }

    #[test]
    fn each_message_comes_back_as_it_was_sent() {
        let greeting = Greeting { byte_len: u64::MAX };
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        let request = ReadRequest { offset: u64::MAX - 1, length: u32::MAX };
        assert_eq!(ReadRequest::decode(&request.encode()), request);
        for answer in [Answer::Bytes(9), Answer::Gone, Answer::Unavailable] {
            assert_eq!(Answer::decode(&answer.encode(), 9), Ok(answer));
        }
    }

    #[test]
    fn a_stranger_and_another_version_are_told_from_each_other() {
        assert_eq!(Greeting::decode(b"HTTP/1.1 200 OK\r"), Err(ProtocolError::NoGreeting));
        let mut later = Greeting { byte_len: 1 }.encode();
        later[4] = 2;
        assert_eq!(Greeting::decode(&later), Err(ProtocolError::Version(2)));
    }

    #[test]
    fn a_request_reaches_no_further_than_the_source() {
        let within = |offset, length| ReadRequest { offset, length }.within(100);
        assert_eq!(within(0, 100), Ok(0..100));
        assert_eq!(within(90, 64), Ok(90..100));
        assert!(within(100, 1).is_err(), "beyond the end");
        assert!(within(u64::MAX, u32::MAX).is_err(), "an overflow");
        assert!(within(0, 0).is_err(), "nothing");
        assert!(ReadRequest { offset: 0, length: MAX_READ_BYTES + 1 }.within(u64::MAX).is_err(), "too much");
    }

    #[test]
    fn an_answer_longer_than_the_question_is_refused_before_a_byte_is_read() {
        let long = Answer::Bytes(11).encode();
        assert_eq!(Answer::decode(&long, 10), Err(ProtocolError::AnswerLength { wanted: 10, got: 11 }));
        assert!(Answer::decode(&Answer::Bytes(0).encode(), 10).is_err(), "an empty answer would never end");
        assert_eq!(Answer::decode(&[9, 0, 0, 0, 0, 0, 0, 0], 10), Err(ProtocolError::Status(9)));
    }
}
