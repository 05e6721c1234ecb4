//! The real child reads its source through a socket: the same results as from a file, for little more than the source's
//! size over all chunks together, each of them on a worker that has nothing in its cache.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod film;

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use reelyard_agent::source::{Habit, Patience, RangeReader, Served, Serving, SourceCache, SourceFailure};
use reelyard_model::{
    Plan,
    child::{EncoderChoice, Job, Limits, Message, PROTOCOL, Request},
};
use reelyard_sandbox::supervise::{ChildCommand, Outcome, Watch, start};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Of the source's size, over all chunks together.
const MOST_READ: f64 = 1.1;
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
    messages: Vec<Message>,
    outcome: Outcome,
    asked_bytes: u64,
    requests: u64,
    served_bytes: u64,
    failure: Option<SourceFailure>,
}

/// One job on a worker that knows nothing yet.
fn run(job: Job, store: &Arc<Store>, folder: &Path) -> Done {
    run_until(job, store, folder, |_, _| false)
}

/// As [`run`]; the parent stops serving when `stop` says so of a message.
fn run_until(
    job: Job,
    store: &Arc<Store>,
    folder: &Path,
    mut stop: impl FnMut(&Message, &Store) -> bool,
) -> Done {
    fs::create_dir_all(folder).unwrap();
    let patience = Patience {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        stall: Duration::from_secs(5),
        give_up_after: Duration::from_millis(200),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scratch = tempfile::tempdir().unwrap();
        let cache = SourceCache::new(scratch.path(), 1 << 30);
        let habit = Habit::of(&job);
        let reader = Arc::clone(store) as Arc<dyn RangeReader>;
        let before = store.asked_bytes();
        let served = Served { key: "sources/one".to_owned(), reader, habit, patience };
        let (descriptor, serving) = Serving::start(&cache, served).unwrap();
        let mut serving = Some(serving);
        let mut running = start(ChildCommand {
            program: env!("CARGO_BIN_EXE_reelyard-media").into(),
            arguments: Vec::new(),
            request: Request { protocol: PROTOCOL, job, limits: Limits::default() },
            source: Some(descriptor),
            scratch: folder.to_owned(),
            watch: Watch::default(),
        })
        .await
        .unwrap();
        let mut messages = Vec::new();
        while let Some(message) = running.next().await {
            if stop(&message, store) {
                serving = None;
            }
            messages.push(message);
        }
        let outcome = running.ended().await.outcome;
        let traffic = cache.traffic();
        let asked_bytes = store.asked_bytes() - before;
        let failure = serving.and_then(|serving| serving.failure());
        assert!(traffic.fetched_bytes <= asked_bytes);
        Done {
            messages,
            outcome,
            asked_bytes,
            requests: traffic.requests,
            served_bytes: traffic.served_bytes,
            failure,
        }
    })
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

/// A minute of pictures that do not compress well, with sound between them.
fn make(folder: &Path, file: &str, seconds: u32, options: &str) {
    child::ffmpeg(
        folder,
        &format!(
            "-f lavfi -i testsrc2=s=640x360:r=25:d={seconds},noise=alls=24:allf=t -f lavfi -i sine=d={seconds} \
             -c:v libx264 -preset ultrafast -bf 2 -g 50 -b:v 6M -maxrate 6M -bufsize 6M -pix_fmt yuv420p \
             -c:a aac -b:a 128k {options} {file}"
        ),
    );
}

fn plan_of(source: &Path, folder: &Path) -> Plan {
    film::plan(&film::info(source, folder), "web-h264")
}

fn told(what: &str, done: &Done, byte_len: u64) -> f64 {
    let share = done.asked_bytes as f64 / byte_len as f64;
    println!(
        "{what}: {} bytes in {} requests, {} read by the child; {share:.4} of the source",
        done.asked_bytes, done.requests, done.served_bytes
    );
    share
}

/// All chunks, each on a fresh worker; compared with what a file gives. The share of the source that was asked for.
fn encode_all(source: &Path, folder: &Path, plan: &Plan) -> f64 {
    let video = plan.video.as_ref().unwrap();
    let store = Store::of(source);
    let mut share = 0.0;
    for chunk in &video.chunks {
        let job = || Job::Encode { video: video.clone(), chunk: *chunk, encoder: EncoderChoice::X264 };
        let (near, far) =
            (folder.join(format!("near{}", chunk.index)), folder.join(format!("far{}", chunk.index)));
        fs::create_dir_all(&near).unwrap();
        assert!(child::run(job(), source, &near).is_done());
        let done = run(job(), &store, &far);
        assert_eq!(done.outcome, Outcome::Done, "{:?}", done.failure);
        share += told(&format!("  chunk {}", chunk.index), &done, store.byte_len);
        assert!(files(&near) == files(&far), "chunk {}: other files than from disk", chunk.index);
    }
    share
}

fn measure(file: &str, seconds: u32, options: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make(folder, file, seconds, options);
    let source = folder.join(file);
    let plan = plan_of(&source, folder);
    let byte_len = fs::metadata(&source).unwrap().len();
    println!("{file} {options}: {byte_len} bytes, {} chunks", plan.video.as_ref().unwrap().chunks.len());
    let share = encode_all(&source, folder, &plan);
    println!("  all chunks: {share:.4}");
    let store = Store::of(&source);
    told("  probe", &run(Job::Probe, &store, &folder.join("probe")), byte_len);
    if let Some(audio) = plan.audio.clone() {
        told("  audio", &run(Job::Audio { audio }, &store, &folder.join("audio")), byte_len);
    }
    if let Some(stills) = plan.stills.clone() {
        told("  stills", &run(Job::Stills { stills }, &store, &folder.join("stills")), byte_len);
    }
    share
}

#[test]
fn chunks_of_an_mp4_with_its_index_at_the_end_read_little_more_than_the_source() {
    let share = measure("source.mp4", 64, "");
    assert!(share <= MOST_READ, "{share}");
}

#[test]
fn chunks_of_an_mp4_with_its_index_in_front_read_little_more_than_the_source() {
    let share = measure("source.mp4", 64, "-movflags +faststart");
    assert!(share <= MOST_READ, "{share}");
}

#[test]
fn chunks_of_a_matroska_file_read_little_more_than_the_source() {
    let share = measure("source.mkv", 64, "");
    assert!(share <= MOST_READ, "{share}");
}

#[test]
fn chunks_of_a_transport_stream_read_what_it_takes_to_find_them() {
    let share = measure("source.ts", 64, "");
    assert!(share <= MOST_READ, "{share}");
}
