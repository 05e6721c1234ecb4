//! The child's side: descriptor 3, whatever it is, as something that can be read at any place.

use super::{ANSWER_BYTES, Answer, GREETING_BYTES, Greeting, MAX_READ_BYTES, ReadRequest};
use reelyard_model::child::SOURCE_DESCRIPTOR;
use rustix::fs::{FileType, fstat};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Mutex, PoisonError},
};

/// The source, opened once and shared by all who read it. Reading at one place disturbs nobody who reads at another.
#[derive(Debug)]
pub struct Source {
    bytes: Bytes,
    byte_len: u64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    /// The parent reads. One question at a time; `None` once the conversation was broken off.
    ///
    /// A `File`, because that reads and writes by the plain calls: those that are for sockets alone are forbidden here.
    Asked(Mutex<Option<File>>),
}

impl Source {
    /// What the parent left open for us. The descriptor itself stays open, and is never read by number again.
    pub fn inherited() -> io::Result<Self> {
        // SAFETY: fcntl on any integer is allowed; it answers -1 for one that is not open.
        let copy = unsafe { libc::fcntl(SOURCE_DESCRIPTOR, libc::F_DUPFD_CLOEXEC, SOURCE_DESCRIPTOR + 1) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: freshly made, owned by nobody else.
        Self::open(unsafe { OwnedFd::from_raw_fd(copy) })
    }

    /// A file, or the child's end of the socket: then this waits for the parent's greeting.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let status = fstat(&descriptor)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::Socket {
            let byte_len = u64::try_from(status.st_size).unwrap_or(0);
            return Ok(Self { bytes: Bytes::File(File::from(descriptor)), byte_len });
        }
        let mut socket = File::from(descriptor);
        let mut greeting = [0; GREETING_BYTES];
        socket.read_exact(&mut greeting).map_err(parent_gone)?;
        let Greeting { byte_len } = Greeting::decode(&greeting).map_err(io::Error::other)?;
        Ok(Self { bytes: Bytes::Asked(Mutex::new(Some(socket))), byte_len })
    }

    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// Some bytes from `offset` on, seldom all that the buffer could hold. Zero is the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.bytes {
            Bytes::File(file) => file.read_at(buffer, offset),
            Bytes::Asked(_) if buffer.is_empty() || offset >= self.byte_len => Ok(0),
            Bytes::Asked(socket) => {
                let mut place = socket.lock().unwrap_or_else(PoisonError::into_inner);
                // Taken out, so that a conversation that broke off in the middle is not gone on with.
                let mut socket = place.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
                let answer = ask(&mut socket, buffer, offset)?;
                *place = Some(socket);
                match answer {
                    Answer::Bytes(count) => Ok(count as usize),
                    Answer::Gone => Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        "the parent says that the source is gone",
                    )),
                    Answer::Unavailable => {
                        Err(io::Error::other("the parent says that the source cannot be read now"))
                    }
                }
            }
        }
    }
}

/// One question and its answer. After an error nobody knows what is still under way on the socket.
fn ask(socket: &mut File, buffer: &mut [u8], offset: u64) -> io::Result<Answer> {
    let length = buffer.len().min(MAX_READ_BYTES as usize);
    let request = ReadRequest { offset, length: length as u32 };
    socket.write_all(&request.encode()).map_err(parent_gone)?;
    let mut head = [0; ANSWER_BYTES];
    socket.read_exact(&mut head).map_err(parent_gone)?;
    let answer = Answer::decode(&head, length).map_err(io::Error::other)?;
    if let Answer::Bytes(count) = answer {
        socket.read_exact(&mut buffer[..count as usize]).map_err(parent_gone)?;
    }
    Ok(answer)
}

fn parent_gone(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            io::Error::new(error.kind(), "the parent stopped reading the source for this child")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::Source;
    use crate::source::{Answer, Greeting, ReadRequest};
    use std::{
        io::{ErrorKind, Read, Write},
        os::unix::net::UnixStream,
        thread,
    };

    /// A parent that greets with this length and then does what it is told with its end of the socket.
    fn source_of(byte_len: u64, parent: impl FnOnce(UnixStream) + Send + 'static) -> std::io::Result<Source> {
        let (ours, childs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut ours = ours;
            ours.write_all(&Greeting { byte_len }.encode()).unwrap();
            parent(ours);
        });
        Source::open(childs.into())
    }

    fn next_request(socket: &mut UnixStream) -> ReadRequest {
        let mut bytes = [0; 12];
        socket.read_exact(&mut bytes).unwrap();
        ReadRequest::decode(&bytes)
    }

    #[test]
    fn a_file_is_read_as_the_file_that_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let source = Source::open(file.into()).unwrap();
        assert_eq!(source.byte_len(), 10);
        let mut buffer = [0; 4];
        assert_eq!(source.read_at(&mut buffer, 8).unwrap(), 2);
        assert_eq!(&buffer[..2], b"89");
        assert_eq!(source.read_at(&mut buffer, 10).unwrap(), 0);
    }

    #[test]
    fn a_short_answer_is_no_end_and_the_end_is_not_asked_for() {
        let source = source_of(10, |mut socket| {
            assert_eq!(next_request(&mut socket), ReadRequest { offset: 2, length: 8 });
            socket.write_all(&Answer::Bytes(3).encode()).unwrap();
            socket.write_all(b"234").unwrap();
        })
        .unwrap();
        let mut buffer = [0; 8];
        assert_eq!(source.read_at(&mut buffer, 2).unwrap(), 3);
        assert_eq!(&buffer[..3], b"234");
        assert_eq!(source.read_at(&mut buffer, 10).unwrap(), 0, "the parent is gone, but nobody asks it");
    }

    #[test]
    fn a_parent_that_goes_away_is_an_error_and_stays_one() {
        let source = source_of(10, |mut socket| {
            next_request(&mut socket);
            socket.write_all(&Answer::Bytes(8).encode()).unwrap();
            socket.write_all(b"012").unwrap();
        })
        .unwrap();
        let mut buffer = [0; 8];
        assert_eq!(source.read_at(&mut buffer, 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(source.read_at(&mut buffer, 0).is_err(), "nothing is read out of step");
    }

    #[test]
    fn a_failure_that_the_parent_tells_of_leaves_the_conversation_whole() {
        let source = source_of(10, |mut socket| {
            next_request(&mut socket);
            socket.write_all(&Answer::Gone.encode()).unwrap();
            next_request(&mut socket);
            socket.write_all(&Answer::Bytes(1).encode()).unwrap();
            socket.write_all(b"0").unwrap();
        })
        .unwrap();
        let mut buffer = [0; 8];
        assert_eq!(source.read_at(&mut buffer, 0).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(source.read_at(&mut buffer, 0).unwrap(), 1);
    }

    #[test]
    fn a_parent_that_says_nothing_at_all_is_an_error() {
        let (ours, childs) = UnixStream::pair().unwrap();
        drop(ours);
        assert_eq!(Source::open(childs.into()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
