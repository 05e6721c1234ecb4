//! The parent's side of `reelyard_sandbox::source`: answers one child's requests, out of the cache or the store.
//!
//! The child is not trusted: each request is checked, one is answered at a time, and a child that does not read its
//! answers holds up only itself. Ends when the child closes its end, when the source fails, or when [`Serving`] is
//! dropped.

use super::{
    RangeReader, SourceFailure,
    blocks::{BLOCK_BYTES, BlockId},
    cache::{Counters, Found, SourceCache, Traffic},
    fetch::{Fetch, Fetcher, Patience},
    read_ahead::{Advice, Habit, ReadAhead},
};
use bytes::Bytes;
use reelyard_sandbox::source::{Answer, Greeting, REQUEST_BYTES, ReadRequest};
use std::{
    io,
    ops::Range,
    os::{fd::OwnedFd, unix::net::UnixStream as BlockingStream},
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};

/// Fetches begun for one read, after which something is wrong that no further try will mend.
const MOST_FETCHES_FOR_A_READ: u32 = 4;

/// What is served, and how.
pub struct Served {
    /// The storage key: names the source in the cache.
    pub key: String,
    pub reader: Arc<dyn RangeReader>,
    pub habit: Habit,
    pub patience: Patience,
}

/// A source that is being served. Dropping it ends the conversation: the child then cannot read any more.
pub struct Serving {
    task: JoinHandle<()>,
    counters: Arc<Counters>,
    failure: Arc<Mutex<Option<SourceFailure>>>,
}

impl Serving {
    /// Begins, and gives the child's end of the socket, to become its descriptor 3. Must be called in a runtime.
    pub fn start(cache: &SourceCache, served: Served) -> io::Result<(OwnedFd, Self)> {
        let (ours, childs) = BlockingStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let counters = Arc::new(Counters::default());
        let failure = Arc::new(Mutex::new(None));
        let byte_len = served.reader.byte_len();
        let totals = Arc::clone(&cache.shared.counters);
        let session = Session {
            cache: cache.clone(),
            source: format!("{} {byte_len}", served.key).into(),
            byte_len,
            failure: Arc::clone(&failure),
            ahead: ReadAhead::new(served.habit),
            fetches: Vec::new(),
            fetcher: Fetcher {
                reader: served.reader,
                patience: served.patience,
                counters: [Arc::clone(&counters), totals],
            },
        };
        let task = tokio::spawn(session.serve(socket));
        Ok((childs.into(), Self { task, counters, failure }))
    }

    /// Why the child could not go on reading, if so. It says "the source could not be read"; this is the reason.
    pub fn failure(&self) -> Option<SourceFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn traffic(&self) -> Traffic {
        self.counters.now()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    cache: SourceCache,
    source: Arc<str>,
    byte_len: u64,
    failure: Arc<Mutex<Option<SourceFailure>>>,
    ahead: ReadAhead,
    fetches: Vec<Fetch>,
    fetcher: Fetcher,
}

impl Session {
    /// Until the child wants no more. Its going away is no failure: what became of it is told elsewhere.
    async fn serve(mut self, mut socket: UnixStream) {
        if socket.write_all(&Greeting { byte_len: self.byte_len }.encode()).await.is_err() {
            return;
        }
        let mut request = [0; REQUEST_BYTES];
        while socket.read_exact(&mut request).await.is_ok() {
            let outcome = match ReadRequest::decode(&request).within(self.byte_len) {
                Ok(range) => self.read(range).await,
                Err(error) => Err(SourceFailure::Protocol(error.to_string())),
            };
            match outcome {
                Ok(bytes) => {
                    self.fetcher.counters.iter().for_each(|counters| {
                        counters.served_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    });
                    let head = Answer::Bytes(bytes.len() as u32).encode();
                    if socket.write_all(&head).await.is_err() || socket.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Err(failure) => {
                    let answer = match failure {
                        SourceFailure::Gone(_) => Answer::Gone,
                        SourceFailure::Unavailable(_) | SourceFailure::Protocol(_) => Answer::Unavailable,
                    };
                    // Before the child hears of it and ends.
                    self.tell(failure);
                    let _ = socket.write_all(&answer.encode()).await;
                    return;
                }
            }
        }
    }

    fn tell(&self, failure: SourceFailure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// The first bytes of the range: as many as lie in one block.
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, SourceFailure> {
        let id = BlockId { source: Arc::clone(&self.source), number: range.start / BLOCK_BYTES };
        let advice = self.ahead.read(id.number);
        if let Some(run) = advice.given_up {
            self.fetches.retain(|fetch| fetch.run != run);
        }
        let block = self.block(&id, advice).await?;
        if advice.early {
            self.fetch_early(id.number, advice);
        }
        let from = (range.start % BLOCK_BYTES) as usize;
        let until = (range.end - id.number * BLOCK_BYTES).min(block.len() as u64) as usize;
        if from >= until {
            // Cannot be: blocks are as long as the length of the source says. But the child would wait for ever.
            return Err(SourceFailure::Unavailable(format!("block {} is too short", id.number)));
        }
        Ok(block.slice(from..until))
    }

    async fn block(&mut self, id: &BlockId, advice: Advice) -> Result<Bytes, SourceFailure> {
        let shared = Arc::clone(&self.cache.shared);
        let mut begun = 0;
        loop {
            let mut changed = pin!(shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            match shared.look(id) {
                Found::Bytes(bytes) => return Ok(bytes),
                Found::OnDisk(slot) => {
                    if let Some(bytes) = shared.read(id, slot).await {
                        return Ok(bytes);
                    }
                }
                Found::Arriving => changed.await,
                Found::Nowhere => {
                    let ours = self.fetches.iter().find(|fetch| fetch.blocks.contains(&id.number));
                    if let Some(failure) = ours.and_then(Fetch::failure) {
                        return Err(failure);
                    }
                    if begun == MOST_FETCHES_FOR_A_READ {
                        let what = format!("{begun} fetches of block {} came to nothing", id.number);
                        return Err(SourceFailure::Unavailable(what));
                    }
                    begun += 1;
                    let expected = self.ahead.expected_from(id.number, advice.window);
                    // Behind what is expected: it was asked for all the same.
                    let end = if expected.is_empty() { id.number + advice.window } else { expected.end };
                    self.begin(id.number..end, advice.run);
                }
            }
        }
    }

    /// The next stretch is begun when half of the present one is still to be read.
    fn fetch_early(&mut self, block: u64, advice: Advice) {
        let of_run = self.fetches.iter().filter(|fetch| fetch.run == advice.run);
        if let Some(end) = of_run.map(|fetch| fetch.blocks.end).max()
            && end.saturating_sub(block) <= advice.window / 2
        {
            self.begin(self.ahead.expected_from(end, advice.window), advice.run);
        }
    }

    fn begin(&mut self, blocks: Range<u64>, run: u64) {
        let last = self.byte_len.div_ceil(BLOCK_BYTES);
        let claim = self.cache.shared.claim(&self.source, blocks.start, blocks.end.min(last));
        // A later stretch of the same reading says where that stands; those that are over have nothing to say.
        self.fetches.retain(|fetch| !fetch.is_over() || fetch.failure().is_some());
        if !claim.blocks().is_empty() {
            self.fetches.push(Fetch::start(self.fetcher.clone(), run, claim));
        }
    }
}
