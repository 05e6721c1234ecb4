//! The real child reads its source through a socket: the same results as from a file, for little more than the source's
//! size over all chunks together, each of them on a worker that has nothing in its cache.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod film;

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use reelyard_agent::source::{
    Habit, Patience, RangeReader, Served, Serving, SourceCache, SourceFailure, Traffic,
};
use reelyard_model::{
    FailureCode, Plan,
    child::{EncoderChoice, Job, Limits, Message, PROTOCOL, Request},
};
use reelyard_sandbox::supervise::{ChildCommand, Outcome, Watch, start};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Range,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Of the source's size, over all chunks together.
const MOST_READ: f64 = 1.1;
const MOST_READ_WITHOUT_INDEX: f64 = 1.15;
/// What is asked for in one piece comes in such pieces.
const PIECE_BYTES: u64 = 32 << 10;

/// A file as a store would give it: counts what it is asked for, read to the end or not.
struct Store {
    file: Arc<File>,
    byte_len: u64,
    asked_bytes: AtomicU64,
    /// Reads from here on fail.
    breaks_at: u64,
}

impl Store {
    fn of(path: &Path) -> Arc<Self> {
        Self::that_breaks(path, u64::MAX)
    }

    fn that_breaks(path: &Path, breaks_at: u64) -> Arc<Self> {
        let file = Arc::new(File::open(path).unwrap());
        let byte_len = file.metadata().unwrap().len();
        Arc::new(Self { file, byte_len, asked_bytes: AtomicU64::new(0), breaks_at })
    }

    fn asked_bytes(&self) -> u64 {
        self.asked_bytes.load(Ordering::Relaxed)
    }
}

impl RangeReader for Store {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        self.asked_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        let (file, breaks_at) = (Arc::clone(&self.file), self.breaks_at);
        let pieces = (0..(range.end - range.start).div_ceil(PIECE_BYTES)).map(move |number| {
            let from = range.start + number * PIECE_BYTES;
            let until = (from + PIECE_BYTES).min(range.end);
            if until > breaks_at {
                return Some(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let mut piece = vec![0; (until - from) as usize];
            // A file that was cut meanwhile ends early, as a store's answer would.
            match file.read_at(&mut piece, from) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some(Ok(Bytes::from(piece)))
                }
                Err(error) => Some(Err(error)),
            }
        });
        stream::iter(pieces.map_while(|piece| piece)).boxed()
    }
}

struct Done {
    outcome: Outcome,
    asked_bytes: u64,
    requests: u64,
    served_bytes: u64,
    failure: Option<SourceFailure>,
}

/// One job on a worker that knows nothing yet.
fn run(job: Job, store: &Arc<Store>, folder: &Path) -> Done {
    run_until(job, store, folder, |_| false)
}

/// As [`run`]; the parent stops serving with the first message of which `stop` says so.
fn run_until(job: Job, store: &Arc<Store>, folder: &Path, mut stop: impl FnMut(&Message) -> bool) -> Done {
    let patience = Patience {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        stall: Duration::from_secs(5),
        give_up_after: Duration::from_millis(200),
    };
    let scratch = tempfile::tempdir().unwrap();
    let cache = SourceCache::new(scratch.path(), 1 << 30);
    let habit = Habit::of(&job);
    let reader = Arc::clone(store) as Arc<dyn RangeReader>;
    let before = store.asked_bytes();
    let served = Served { key: "sources/one".to_owned(), reader, habit, patience };
    runtime().block_on(async {
        let (descriptor, serving) = Serving::start(&cache, served).unwrap();
        let mut serving = Some(serving);
        let outcome = run_child(job, descriptor, folder, |message| {
            if stop(message) {
                serving = None;
            }
        })
        .await;
        let Traffic { fetched_bytes, requests, served_bytes } = cache.traffic();
        let asked_bytes = store.asked_bytes() - before;
        assert!(fetched_bytes <= asked_bytes);
        let failure = serving.and_then(|serving| serving.failure());
        Done { outcome, asked_bytes, requests, served_bytes, failure }
    })
}

fn run_near(job: Job, source: &Path, folder: &Path) -> Outcome {
    let file = File::open(source).unwrap();
    runtime().block_on(run_child(job, file.into(), folder, |_| ()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn run_child(job: Job, source: OwnedFd, folder: &Path, mut hear: impl FnMut(&Message)) -> Outcome {
    fs::create_dir_all(folder).unwrap();
    // With more threads x264 makes slightly different files of the same pictures.
    let limits = Limits { threads: 1, ..Limits::default() };
    let mut running = start(ChildCommand {
        program: env!("CARGO_BIN_EXE_reelyard-media").into(),
        arguments: Vec::new(),
        request: Request { protocol: PROTOCOL, job, limits },
        source: Some(source),
        scratch: folder.to_owned(),
        watch: Watch::default(),
    })
    .await
    .unwrap();
    while let Some(message) = running.next().await {
        hear(&message);
    }
    running.ended().await.outcome
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn assert_same_files(near: &Path, far: &Path) {
    let (near, far) = (files(near), files(far));
    assert!(near.keys().eq(far.keys()), "{:?} and {:?}", near.keys(), far.keys());
    for (name, bytes) in &near {
        let (one, other) = (bytes.len(), far[name].len());
        assert!(*bytes == far[name], "{name}: {one} bytes from the file, {other} by ranges, not the same");
    }
}

/// Pictures that do not compress well, about six megabits a second, with sound between them.
fn make(folder: &Path, file: &str, seconds: u32, options: &str) -> PathBuf {
    child::ffmpeg(
        folder,
        &format!(
            "-f lavfi -i testsrc2=s=426x240:r=25:d={seconds},noise=alls=24:allf=t -f lavfi -i sine=d={seconds} \
             -c:v libx264 -preset ultrafast -bf 2 -g 50 -b:v 6M -maxrate 6M -bufsize 6M -pix_fmt yuv420p \
             -c:a aac -b:a 128k {options} {file}"
        ),
    );
    folder.join(file)
}

/// The film's own chunks, in the smallest size alone: what is read of the source is the same for one as for all.
fn plan_of(source: &Path, folder: &Path) -> Plan {
    let mut plan = film::plan(&film::info(source, folder), "web-h264");
    let video = plan.video.as_mut().unwrap();
    video.rungs.drain(..video.rungs.len() - 1);
    plan
}

fn encode(plan: &Plan, chunk: usize) -> Job {
    let video = plan.video.clone().unwrap();
    let chunk = video.chunks[chunk];
    Job::Encode { video, chunk, encoder: EncoderChoice::X264 }
}

fn told(what: &str, done: &Done, byte_len: u64) -> f64 {
    assert_eq!(done.outcome, Outcome::Done, "{what}: {:?}", done.failure);
    let share = done.asked_bytes as f64 / byte_len as f64;
    println!(
        "{what}: {} bytes in {} requests, {} read by the child; {share:.4} of the source",
        done.asked_bytes, done.requests, done.served_bytes
    );
    share
}

/// All chunks, each on a fresh worker, compared with what a file gives; then the other jobs. The share of the source that
/// was asked for by all chunks together.
fn measure(file: &str, options: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let source = make(folder, file, 64, options);
    let plan = plan_of(&source, folder);
    let chunks = plan.video.as_ref().unwrap().chunks.len();
    let store = Store::of(&source);
    println!("{file} {options}: {} bytes, {chunks} chunks", store.byte_len);
    assert!(chunks >= 3);
    let mut share = 0.0;
    for chunk in 0..chunks {
        let (near, far) = (folder.join(format!("near{chunk}")), folder.join(format!("far{chunk}")));
        assert_eq!(run_near(encode(&plan, chunk), &source, &near), Outcome::Done);
        let done = run(encode(&plan, chunk), &store, &far);
        share += told(&format!("  chunk {chunk}"), &done, store.byte_len);
        assert_same_files(&near, &far);
    }
    println!("  all chunks: {share:.4}");
    let (audio, stills) = (plan.audio.unwrap(), plan.stills.unwrap());
    for (what, job) in
        [("probe", Job::Probe), ("audio", Job::Audio { audio }), ("stills", Job::Stills { stills })]
    {
        let (near, far) = (folder.join(format!("near-{what}")), folder.join(format!("far-{what}")));
        assert_eq!(run_near(job.clone(), &source, &near), Outcome::Done);
        let alone = told(&format!("  {what}"), &run(job, &store, &far), store.byte_len);
        assert!(alone <= 1.0, "each byte at most once: {alone}");
        assert_same_files(&near, &far);
    }
    share
}

#[test]
fn chunks_of_an_mp4_with_its_index_at_the_end_read_little_more_than_the_source() {
    let share = measure("source.mp4", "");
    assert!(share <= MOST_READ, "{share}");
}

#[test]
fn chunks_of_an_mp4_with_its_index_in_front_read_little_more_than_the_source() {
    let share = measure("source.mp4", "-movflags +faststart");
    assert!(share <= MOST_READ, "{share}");
}

#[test]
fn chunks_of_a_matroska_file_read_little_more_than_the_source() {
    let share = measure("source.mkv", "");
    assert!(share <= MOST_READ, "{share}");
}

/// Without an index every chunk looks at the first second and searches for its place.
#[test]
fn chunks_of_a_transport_stream_read_what_it_takes_to_find_them() {
    let share = measure("source.ts", "");
    assert!(share <= MOST_READ_WITHOUT_INDEX, "{share}");
}

/// A short film, what it is encoded by, and where the middle of its bytes is.
fn short_film(folder: &Path) -> (PathBuf, Job, u64) {
    let source = make(folder, "source.mp4", 8, "-movflags +faststart");
    let job = encode(&plan_of(&source, folder), 0);
    let middle = fs::metadata(&source).unwrap().len() / 2;
    (source, job, middle)
}

fn code(outcome: &Outcome) -> FailureCode {
    match outcome {
        Outcome::Failed(failure) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_fails_in_the_middle_is_no_end_of_the_film() {
    let folder = tempfile::tempdir().unwrap();
    let (source, job, middle) = short_film(folder.path());
    let done = run(job, &Store::that_breaks(&source, middle), &folder.path().join("far"));
    assert_eq!(code(&done.outcome), FailureCode::SourceMissing);
    assert!(matches!(done.failure, Some(SourceFailure::Unavailable(_))), "{:?}", done.failure);
}

#[test]
fn a_source_that_has_become_shorter_is_no_end_of_the_film_either() {
    let folder = tempfile::tempdir().unwrap();
    let (source, job, middle) = short_film(folder.path());
    let store = Store::of(&source);
    File::options().write(true).open(&source).unwrap().set_len(middle).unwrap();
    let done = run(job, &store, &folder.path().join("far"));
    assert_eq!(code(&done.outcome), FailureCode::SourceMissing);
    assert!(matches!(done.failure, Some(SourceFailure::Gone(_))), "{:?}", done.failure);
}

#[test]
fn a_parent_that_stops_reading_for_its_child_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (source, job, _) = short_film(folder.path());
    let greeted = |message: &Message| matches!(message, Message::Hello { .. });
    let done = run_until(job, &Store::of(&source), &folder.path().join("far"), greeted);
    assert_eq!(code(&done.outcome), FailureCode::SourceMissing);
    assert!(done.asked_bytes < fs::metadata(&source).unwrap().len());
}
