//! A child's reads, through a real socket, against a store in memory that counts and fails.

use super::{Habit, Patience, RangeReader, Served, Serving, SourceCache, SourceFailure, blocks::BLOCK_BYTES};
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use reelyard_sandbox::source::Source;
use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::task::spawn_blocking;

const KEY: &str = "sources/one";
/// A mebibyte and a bit: the last block is short.
const BYTE_LEN: u64 = (1 << 20) + 77;
/// Tries again soon, and gives up only when the test has failed.
const PATIENT: Patience = Patience {
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(4),
    stall: Duration::from_millis(50),
    give_up_after: Duration::from_secs(30),
};
/// For failures that last as long as they are borne.
const IMPATIENT: Patience = Patience { give_up_after: Duration::from_millis(200), ..PATIENT };

fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(2_654_435_761) >> 16) as u8
}

fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}

/// What the next tries do, one after the other; after them all is well.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// After so many bytes, the connection breaks.
    Breaks(usize),
    /// After so many bytes, nothing more comes.
    Stalls(usize),
    /// After so many bytes, an orderly end.
    Ends(usize),
    Missing,
}

#[derive(Default)]
struct Store {
    asked: Mutex<Vec<Range<u64>>>,
    mishaps: Mutex<Vec<Mishap>>,
    /// Every try goes wrong so.
    always: Option<Mishap>,
    open_streams: Arc<AtomicU32>,
}

struct OpenStream(Arc<AtomicU32>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    fn that(mishaps: &[Mishap]) -> Arc<Self> {
        Arc::new(Self { mishaps: Mutex::new(mishaps.to_vec()), ..Self::default() })
    }
    fn always(mishap: Mishap) -> Arc<Self> {
        Arc::new(Self { always: Some(mishap), ..Self::default() })
    }
    fn asked(&self) -> Vec<Range<u64>> {
        self.asked.lock().unwrap().clone()
    }
}

impl RangeReader for Store {
    fn byte_len(&self) -> u64 {
        BYTE_LEN
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        self.asked.lock().unwrap().push(range.clone());
        let next = {
            let mut mishaps = self.mishaps.lock().unwrap();
            if mishaps.is_empty() { self.always } else { Some(mishaps.remove(0)) }
        };
        self.open_streams.fetch_add(1, Ordering::SeqCst);
        let open = OpenStream(Arc::clone(&self.open_streams));
        let whole = bytes(range);
        let (count, end) = match next {
            None => (whole.len(), stream::empty().boxed()),
            Some(Mishap::Breaks(count)) => {
                (count, stream::once(async { Err(io::ErrorKind::ConnectionReset.into()) }).boxed())
            }
            Some(Mishap::Stalls(count)) => (count, stream::pending().boxed()),
            Some(Mishap::Ends(count)) => (count, stream::empty().boxed()),
            Some(Mishap::Missing) => (0, stream::once(async { Err(io::ErrorKind::NotFound.into()) }).boxed()),
        };
        // In pieces that fit no block.
        let pieces: Vec<_> = whole[..count.min(whole.len())]
            .chunks(10_007)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        stream::iter(pieces)
            .chain(end)
            .map(move |piece| {
                let _held = &open;
                piece
            })
            .boxed()
    }
}

struct Child {
    source: Arc<Source>,
    serving: Serving,
}

fn cache() -> (tempfile::TempDir, SourceCache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = SourceCache::new(folder.path(), 64 << 20);
    (folder, cache)
}

impl Child {
    async fn of(cache: &SourceCache, store: &Arc<Store>, habit: Habit) -> Self {
        Self::with_patience(cache, store, habit, PATIENT).await
    }

    async fn with_patience(
        cache: &SourceCache,
        store: &Arc<Store>,
        habit: Habit,
        patience: Patience,
    ) -> Self {
        let reader = Arc::clone(store) as Arc<dyn RangeReader>;
        let served = Served { key: KEY.to_owned(), reader, habit, patience };
        let (descriptor, serving) = Serving::start(cache, served).unwrap();
        let source = spawn_blocking(move || Source::open(descriptor).unwrap()).await.unwrap();
        assert_eq!(source.byte_len(), BYTE_LEN);
        Self { source: Arc::new(source), serving }
    }

    /// All of a range, however many answers it takes.
    async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let source = Arc::clone(&self.source);
        let reading = spawn_blocking(move || {
            let mut read = vec![0; (range.end - range.start) as usize];
            let mut filled = 0;
            while filled < read.len() {
                match source.read_at(&mut read[filled..], range.start + filled as u64)? {
                    0 => break,
                    count => filled += count,
                }
            }
            read.truncate(filled);
            Ok(read)
        });
        reading.await.unwrap()
    }
}

#[tokio::test]
async fn a_child_reads_what_it_asks_for_wherever_it_lies() {
    let (_folder, cache) = cache();
    let child = Child::of(&cache, &Store::that(&[]), Habit::Parts).await;
    for range in
        [5..10, BLOCK_BYTES - 1..BLOCK_BYTES + 1, BYTE_LEN - 3..BYTE_LEN, 0..BYTE_LEN, 500_000..900_000]
    {
        assert!(child.read(range.clone()).await.unwrap() == bytes(range.clone()), "{range:?}");
    }
    assert_eq!(child.read(BYTE_LEN - 2..BYTE_LEN + 50).await.unwrap(), bytes(BYTE_LEN - 2..BYTE_LEN));
    assert_eq!(child.serving.traffic().fetched_bytes, BYTE_LEN, "each byte once");
    assert_eq!(child.serving.failure(), None);
}

#[tokio::test]
async fn a_look_here_and_there_fetches_little_and_reading_all_fetches_all_at_once() {
    let (_folder, cache) = cache();
    let store = Store::that(&[]);
    let child = Child::of(&cache, &store, Habit::Parts).await;
    child.read(0..10).await.unwrap();
    child.read(800_000..800_010).await.unwrap();
    assert_eq!(store.asked(), [0..2 * BLOCK_BYTES, 48 * BLOCK_BYTES..50 * BLOCK_BYTES]);

    let whole = Store::that(&[]);
    let child = Child::of(&self::cache().1, &whole, Habit::Whole).await;
    child.read(0..BYTE_LEN).await.unwrap();
    assert_eq!(whole.asked(), [0..1 << 20, 1 << 20..BYTE_LEN]);
}

#[tokio::test]
async fn what_one_child_fetched_the_next_one_of_the_worker_finds() {
    let (_folder, cache) = cache();
    let store = Store::that(&[]);
    let first = Child::of(&cache, &store, Habit::Parts).await;
    first.read(100_000..300_000).await.unwrap();
    let before = store.asked().len();
    let second = Child::of(&cache, &store, Habit::Parts).await;
    assert!(second.read(150_000..250_000).await.unwrap() == bytes(150_000..250_000));
    assert_eq!(store.asked().len(), before);
    assert_eq!(second.serving.traffic().fetched_bytes, 0);
    assert_eq!(cache.traffic().fetched_bytes, first.serving.traffic().fetched_bytes);
}

#[tokio::test]
async fn children_that_read_the_same_at_the_same_time_fetch_it_once() {
    let (_folder, cache) = cache();
    let store = Store::that(&[]);
    let children = futures::future::join_all((0..8).map(|_| Child::of(&cache, &store, Habit::Parts))).await;
    let read = futures::future::join_all(children.iter().map(|child| child.read(0..BYTE_LEN))).await;
    assert!(read.into_iter().all(|read| read.unwrap() == bytes(0..BYTE_LEN)));
    assert_eq!(cache.traffic().fetched_bytes, BYTE_LEN);
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_is_asked_for_the_rest() {
    let (_folder, cache) = cache();
    let store =
        Store::that(&[Mishap::Breaks(0), Mishap::Breaks(70_000), Mishap::Stalls(20_000), Mishap::Ends(5)]);
    let child = Child::of(&cache, &store, Habit::Whole).await;
    assert!(child.read(0..BYTE_LEN).await.unwrap() == bytes(0..BYTE_LEN));
    assert_eq!(store.asked()[..4], [0..1 << 20, 0..1 << 20, 70_000..1 << 20, 90_000..1 << 20]);
    assert_eq!(child.serving.traffic().fetched_bytes, BYTE_LEN, "what came before the break is kept");
}

#[tokio::test]
async fn each_lasting_failure_has_its_own_name_and_comes_soon() {
    for (mishap, is_gone, patience) in [
        (Mishap::Missing, true, PATIENT),
        (Mishap::Ends(100), false, PATIENT),
        (Mishap::Ends(0), true, PATIENT),
        (Mishap::Breaks(0), false, IMPATIENT),
        (Mishap::Stalls(0), false, IMPATIENT),
    ] {
        let (_folder, cache) = cache();
        let store = Store::always(mishap);
        let child = Child::with_patience(&cache, &store, Habit::Parts, patience).await;
        if let Mishap::Ends(100) = mishap {
            // Slow but never silent: it gets there.
            assert!(child.read(0..1000).await.unwrap() == bytes(0..1000));
            continue;
        }
        assert!(child.read(0..1000).await.is_err(), "{mishap:?}");
        let failure = child.serving.failure().unwrap();
        assert_eq!(matches!(failure, SourceFailure::Gone(_)), is_gone, "{mishap:?}: {failure}");
        assert!(child.read(0..1000).await.is_err(), "the conversation is over");
    }
}

#[tokio::test]
async fn a_child_that_asks_for_what_is_not_there_is_not_answered() {
    use std::io::{Read, Write};
    let (_folder, cache) = cache();
    let reader = Store::that(&[]) as Arc<dyn RangeReader>;
    let served = Served { key: KEY.to_owned(), reader, habit: Habit::Parts, patience: PATIENT };
    let (descriptor, serving) = Serving::start(&cache, served).unwrap();
    let said = spawn_blocking(move || {
        let mut socket = std::os::unix::net::UnixStream::from(descriptor);
        socket.write_all(&[0xff; 12]).unwrap();
        let mut said = Vec::new();
        socket.read_to_end(&mut said).unwrap();
        said
    });
    assert_eq!(said.await.unwrap().len(), 16 + 8, "the greeting, a refusal, the end");
    assert!(matches!(serving.failure(), Some(SourceFailure::Protocol(_))));
}

#[tokio::test]
async fn when_the_parent_stops_serving_the_child_reads_an_error_and_the_store_is_left_alone() {
    let (_folder, cache) = cache();
    let store = Store::always(Mishap::Stalls(0));
    let child = Child::of(&cache, &store, Habit::Parts).await;
    let Child { source, serving } = child;
    let reading = spawn_blocking(move || source.read_at(&mut [0; 10], 0));
    while store.open_streams.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(serving);
    assert!(reading.await.unwrap().is_err());
    while store.open_streams.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}
