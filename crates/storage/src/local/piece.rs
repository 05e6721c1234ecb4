//! Pieces of an upload between their sender and the disk: the buffers they lie in, and the two ways to write them.
//!
//! A large piece goes past the page cache (`O_DIRECT`, open(2)). Nobody reads an upload again right away, and the copy into
//! the cache, with the pages made for it, is a quarter of what receiving one costs a processor (decision 0021). What is
//! small goes through the cache, and so do the ends of a piece that fill no block, and everything where the file system
//! knows no other way. Both ways meet in one file, never in one block: what is written past the cache are whole blocks.

use crate::StoreError;
use rustix::{
    fs::{Mode, OFlags},
    io::pwritev,
};
use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// The most that is fetched and written at a time. Each fetch opens the sender's window again, and the kernel then sends
/// for it on our time: with 256 KiB a GiB cost a tenth more (benches/README.md).
const PIECE_BYTES: usize = 2 << 20;
/// From here on a piece is large: worth a thread of its own, and a disk that is waited for.
const LARGE_BYTES: usize = 1 << 20;
/// Position, length and memory of what goes past the page cache are multiples of it. Disks ask for 512 or 4,096 bytes.
const BLOCK_BYTES: usize = 4096;
/// Kept when nothing is fetched: two for each of as many uploads as fetch at a time where few processors are.
const IDLE_BUFFERS: usize = 4;

/// The file that an upload grows in.
#[derive(Debug)]
pub(super) struct DataFile {
    file: File,
    path: PathBuf,
    /// The same past the page cache, once it was wanted; `None` inside: the file system has no such way.
    direct: OnceLock<Option<File>>,
}

impl DataFile {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, direct: OnceLock::new() }
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|e| StoreError::io("syncing", &self.path, e))
    }

    pub(super) fn cut(&self, byte_len: u64) -> Result<(), StoreError> {
        self.file.set_len(byte_len).map_err(|e| StoreError::io("cutting", &self.path, e))
    }

    /// Through the page cache, whatever their size.
    pub(super) fn write_slices(&self, slices: &mut [IoSlice<'_>], position: u64) -> Result<(), StoreError> {
        write_all_at(&self.file, slices, position).map_err(|e| StoreError::io("writing", &self.path, e))
    }

    /// Of a large piece the whole blocks past the page cache, the rest through it.
    pub(super) fn write(&self, piece: &Piece) -> Result<(), StoreError> {
        let (bytes, position) = (piece.bytes(), piece.position);
        let head = (position.next_multiple_of(BLOCK_BYTES as u64) - position) as usize;
        if !piece.is_large() || bytes.len() < head + BLOCK_BYTES {
            return self.write_cached(bytes, position);
        }
        let blocks = (bytes.len() - head) / BLOCK_BYTES * BLOCK_BYTES;
        let written = head + self.write_direct(&bytes[head..head + blocks], position + head as u64);
        self.write_cached(&bytes[..head], position)?;
        self.write_cached(&bytes[written..], position + written as u64)
    }

    /// How many bytes of whole blocks are written. What is not, for whatever reason, is the page cache's, which tells
    /// the reason if it cannot either.
    fn write_direct(&self, blocks: &[u8], position: u64) -> usize {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&self.path, flags, Mode::empty()).ok().map(File::from);
        let Some(direct) = self.direct.get_or_init(open) else { return 0 };
        let written = direct.write_at(blocks, position).unwrap_or_default();
        written / BLOCK_BYTES * BLOCK_BYTES
    }

    fn write_cached(&self, bytes: &[u8], position: u64) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, position).map_err(|e| StoreError::io("writing", &self.path, e))
    }
}

/// Bytes that follow each other, and where they go. They lie in memory as they will in the file: at the same distance
/// from the last block's beginning.
#[derive(Debug)]
pub(super) struct Piece {
    buffer: Vec<u8>,
    front: usize,
    /// The end of what is there.
    filled: usize,
    /// The end of what it can hold. A full one ends where a block does.
    end: usize,
    position: u64,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.front..self.filled]
    }

    pub(super) fn is_large(&self) -> bool {
        self.bytes().len() >= LARGE_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.end
    }

    /// Lets `fetch` put bytes behind those that are there, until it has none or the piece is full.
    pub(super) fn fill(&mut self, mut fetch: impl FnMut(&mut [u8]) -> usize) {
        while !self.is_full() {
            match fetch(&mut self.buffer[self.filled..self.end]) {
                0 => return,
                fetched => self.filled += fetched,
            }
        }
    }
}

/// Buffers between two pieces: new memory costs a page fault for each 4 KiB, a twentieth of receiving a GiB.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty piece that can hold `most` bytes, or as many as fit.
    pub(super) fn piece(&self, position: u64, most: u64) -> Piece {
        let in_block = (position % BLOCK_BYTES as u64) as usize;
        let byte_len = most.min((PIECE_BYTES - in_block) as u64) as usize;
        let mut buffer = self.idle().pop().unwrap_or_default();
        buffer.resize(buffer.len().max(byte_len + 2 * BLOCK_BYTES), 0);
        let front = buffer.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES) + in_block;
        Piece { buffer, front, filled: front, end: front + byte_len, position }
    }

    pub(super) fn give_back(&self, piece: Piece) {
        let mut idle = self.idle();
        if idle.len() < IDLE_BUFFERS {
            idle.push(piece.buffer);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Taking and giving leave it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match pwritev(file, slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(byte_len) => {
                IoSlice::advance_slices(&mut slices, byte_len);
                position += byte_len as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Buffers, DataFile, LARGE_BYTES, PIECE_BYTES};
    use std::{
        fs::{self, File},
        path::Path,
    };

    fn data_file(path: &Path) -> DataFile {
        DataFile::new(File::create_new(path).unwrap(), path.to_owned())
    }

    /// Writes `bytes` from `position` on, as the pieces they come in.
    fn write(data: &DataFile, buffers: &Buffers, bytes: &[u8], position: usize) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = position + bytes.len() - rest.len();
            let mut piece = buffers.piece(at as u64, rest.len() as u64);
            piece.fill(|room| {
                // A socket gives what it has, not what is wanted.
                let byte_len = room.len().min(rest.len()).min(100_001);
                room[..byte_len].copy_from_slice(&rest[..byte_len]);
                rest = &rest[byte_len..];
                byte_len
            });
            data.write(&piece).unwrap();
            buffers.give_back(piece);
        }
    }

    fn bytes(byte_len: usize) -> Vec<u8> {
        (0..byte_len).map(|n| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }

    #[test]
    fn pieces_of_every_alignment_become_the_file_that_was_sent() {
        let directory = tempfile::tempdir().unwrap();
        let buffers = Buffers::default();
        let seams =
            [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 70_000, LARGE_BYTES + 5, PIECE_BYTES, PIECE_BYTES + 1];
        for first in seams {
            let expected = bytes(first + 2 * PIECE_BYTES + 777);
            let path = directory.path().join(first.to_string());
            let data = data_file(&path);
            write(&data, &buffers, &expected[..first], 0);
            write(&data, &buffers, &expected[first..], first);
            data.sync().unwrap();
            assert!(fs::read(&path).unwrap() == expected, "cut at {first}");
        }
    }

    #[test]
    fn without_a_way_past_the_page_cache_it_is_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let expected = bytes(3 * PIECE_BYTES + 1);
        let path = directory.path().join("data");
        let data = data_file(&path);
        data.direct.set(None).unwrap();
        write(&data, &Buffers::default(), &expected, 0);
        assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn what_the_direct_way_refuses_goes_through_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let expected = bytes(PIECE_BYTES);
        let path = directory.path().join("data");
        let data = data_file(&path);
        // A descriptor that nothing can be written to.
        data.direct.set(Some(File::open(&path).unwrap())).unwrap();
        write(&data, &Buffers::default(), &expected, 0);
        assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn a_full_piece_ends_where_a_block_does() {
        let piece = Buffers::default().piece(5, u64::MAX);
        assert_eq!((5 + piece.end - piece.front) % BLOCK_BYTES, 0);
        assert_eq!((piece.buffer.as_ptr().addr() + piece.front) % BLOCK_BYTES, 5);
    }
}
