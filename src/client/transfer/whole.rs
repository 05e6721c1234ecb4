//! SHA-256 of the whole file while its parts are sent, in any order, by others.
//!
//! A hash goes from the first byte to the last, so a thread of its own follows the parts in the order of the file. It
//! takes a part's bytes from whoever has just read them; a part that is far ahead, such as the tail that was sent first,
//! and one that the server had already, it reads by itself when it gets there, and compares: a file that is not what was
//! sent is noticed even when its size and times are the same.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// So many parts ahead of the hash are kept in memory for it; one farther ahead is read a second time.
const PARTS_AHEAD: usize = 4;
const READ_BYTES: usize = 1 << 20;

pub(super) struct WholeDigest {
    shared: Arc<Shared>,
    thread: tokio::task::JoinHandle<Result<[u8; 32], WholeError>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WholeError {
    #[error(transparent)]
    Read(#[from] io::Error),
    /// What was sent of this part, now or earlier, is not what the file holds.
    #[error("part {number} of the file is not what was sent")]
    OtherBytes { number: usize },
    #[error("stopped")]
    Stopped,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    /// Parts before this index are in the hash.
    next: usize,
    parts: Vec<Waiting>,
    stopped: bool,
}

#[derive(Clone, Debug)]
enum Waiting {
    /// Somebody will read it.
    Unread,
    Here(Bytes),
    /// Stored, with this digest where it is known; to be read once more.
    Stored(Option<String>),
    Done,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WholeDigest {
    /// `stored`: whether the server had a part already, by its index, and its digest where it is known.
    pub(super) fn start(
        file: Arc<File>,
        parts: Vec<Range<u64>>,
        stored: impl Fn(usize) -> Option<Option<String>>,
    ) -> Self {
        let waiting = (0..parts.len()).map(|index| stored(index).map_or(Waiting::Unread, Waiting::Stored));
        let progress = Progress { next: 0, parts: waiting.collect(), stopped: false };
        let shared = Arc::new(Shared { progress: Mutex::new(progress), changed: Condvar::new() });
        let follower = shared.clone();
        let thread = tokio::task::spawn_blocking(move || follow(&follower, &file, &parts));
        Self { shared, thread }
    }

    /// A part was read to be sent.
    pub(super) fn offer(&self, index: usize, bytes: &Bytes, sha256: &[u8; 32]) {
        let mut progress = self.shared.progress();
        let near = index < progress.next + PARTS_AHEAD;
        if let Some(waiting @ Waiting::Unread) = progress.parts.get_mut(index) {
            *waiting =
                if near { Waiting::Here(bytes.clone()) } else { Waiting::Stored(Some(hex::encode(sha256))) };
            self.shared.changed.notify_all();
        }
    }

    /// Every part was offered or stored.
    pub(super) async fn finish(mut self) -> Result<[u8; 32], WholeError> {
        (&mut self.thread).await.unwrap_or(Err(WholeError::Stopped))
    }
}

impl Drop for WholeDigest {
    fn drop(&mut self) {
        self.shared.progress().stopped = true;
        self.shared.changed.notify_all();
    }
}

fn follow(shared: &Shared, file: &File, parts: &[Range<u64>]) -> Result<[u8; 32], WholeError> {
    let mut whole = Sha256::new();
    for (index, range) in parts.iter().enumerate() {
        match take(shared, index)? {
            Waiting::Here(bytes) => whole.update(&bytes),
            Waiting::Stored(digest) => {
                let found = hex::encode(read(shared, file, range, &mut whole)?);
                if digest.is_some_and(|digest| digest != found) {
                    return Err(WholeError::OtherBytes { number: index + 1 });
                }
            }
            Waiting::Unread | Waiting::Done => return Err(WholeError::Stopped),
        }
    }
    Ok(whole.finalize().into())
}

/// Waits for the part, and counts it as hashed.
fn take(shared: &Shared, index: usize) -> Result<Waiting, WholeError> {
    let unread = |progress: &mut Progress| {
        !progress.stopped && matches!(progress.parts.get(index), Some(Waiting::Unread))
    };
    let progress = shared.changed.wait_while(shared.progress(), unread);
    let mut progress = progress.unwrap_or_else(PoisonError::into_inner);
    if progress.stopped {
        return Err(WholeError::Stopped);
    }
    progress.next = index + 1;
    Ok(progress.parts.get_mut(index).map_or(Waiting::Done, |part| std::mem::replace(part, Waiting::Done)))
}

/// The digest of the part, whose bytes go into the whole's as well.
fn read(
    shared: &Shared,
    file: &File,
    range: &Range<u64>,
    whole: &mut Sha256,
) -> Result<[u8; 32], WholeError> {
    let (mut part, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    for start in (range.start..range.end).step_by(READ_BYTES) {
        if shared.progress().stopped {
            return Err(WholeError::Stopped);
        }
        let piece = &mut buffer[..READ_BYTES.min(usize::try_from(range.end - start).unwrap_or(READ_BYTES))];
        file.read_exact_at(piece, start)?;
        part.update(&piece);
        whole.update(&piece);
    }
    Ok(part.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::{WholeDigest, WholeError};
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};
    use std::{io::Write as _, ops::Range, sync::Arc};

    const PART: usize = 3000;

    fn file_of(bytes: &[u8]) -> Arc<std::fs::File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn parts_of(bytes: &[u8]) -> Vec<Range<u64>> {
        let starts = (0..bytes.len()).step_by(PART);
        starts.map(|start| start as u64..(start + PART).min(bytes.len()) as u64).collect()
    }

    fn digest(bytes: &[u8], range: &Range<u64>) -> [u8; 32] {
        Sha256::digest(&bytes[range.start as usize..range.end as usize]).into()
    }

    #[tokio::test]
    async fn in_whatever_order_parts_are_sent_the_digest_is_the_files() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let parts = parts_of(&bytes);
        // Two were stored before; the tail comes first, the rest from the end to the beginning.
        let stored = |index: usize| {
            (index < 2).then(|| (index > 0).then(|| hex::encode(digest(&bytes, &parts[index]))))
        };
        let whole = WholeDigest::start(file_of(&bytes), parts.clone(), stored);
        for index in (2..parts.len()).rev() {
            let range = &parts[index];
            let part = Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            whole.offer(index, &part, &digest(&bytes, range));
        }
        assert_eq!(whole.finish().await.unwrap(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        let nothing = WholeDigest::start(file_of(b""), Vec::new(), |_| None);
        assert_eq!(nothing.finish().await.unwrap(), <[u8; 32]>::from(Sha256::digest(b"")));
    }

    #[tokio::test]
    async fn a_stored_part_that_the_file_does_not_hold_is_noticed() {
        let bytes = vec![1; PART * 2];
        let of_another = |index: usize| Some(Some(hex::encode(Sha256::digest([index as u8; PART]))));
        let whole = WholeDigest::start(file_of(&bytes), parts_of(&bytes), of_another);
        assert!(matches!(whole.finish().await, Err(WholeError::OtherBytes { number: 1 })));
    }
}
