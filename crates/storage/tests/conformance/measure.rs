//! How fast it is on this machine, with SeaweedFS on the same one: not a promise, so it runs only when asked for
//! (`cargo nextest run -p reelyard-storage --features s3 --release --run-ignored only measure --no-capture`).

use crate::bench::{Bench, MIB, at, noise};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reelyard_storage::{
    Intent, Objects, Sources as _, Uploads as _,
    s3::{DEFAULT_MEMORY_BYTES, S3Store},
    source_key,
};
use reelyard_testkit::{Kind, S3Server};
use reelyard_upload::BodyEnd;
use std::{fs, time::Instant};

const GIB: usize = 1 << 30;

#[test]
#[ignore = "a measurement"]
fn measure_one_gibibyte_in_one_chunk() {
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (bench, store) = as_an_operator_has_it(&server).await;
        let upload = bench.new_upload(Some(GIB as u64)).await;
        let batch = Bytes::from(noise(MIB));
        let before = peak_kib();
        let begin = Instant::now();
        let open = store.open_upload(upload, bench.terms(Some(GIB as u64))).await.unwrap();
        let mut receiving = open.begin(&at(0)).unwrap();
        for _ in 0..GIB / MIB {
            // A copy, as from a socket: else one piece of memory would stand for all.
            receiving.write(batch.chunks(16 << 10).map(Bytes::copy_from_slice).collect()).await.unwrap();
        }
        receiving.end(BodyEnd::Complete).await.1.unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        println!("upload of 1 GiB: {seconds:.2} s, {:.0} MiB/s", 1024.0 / seconds);
        println!("peak memory: {} MiB, {} MiB before", peak_kib() / 1024, before / 1024);
        store.finish_upload(upload, GIB as u64).await.unwrap();
        let begin = Instant::now();
        store.open_source(&source_key(upload)).await.unwrap();
        println!("fetched as a file: {:.2} s", begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        assert!(store.assemble_source(&source_key(upload)).await.unwrap());
        println!("assembled: {:.2} s", begin.elapsed().as_secs_f64());
    });
}

#[test]
#[ignore = "a measurement"]
fn measure_a_thousand_stalled_uploads() {
    const UPLOADS: usize = 1_000;
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (bench, store) = as_an_operator_has_it(&server).await;
        let mut stalled = Vec::new();
        // What was free again after the first thousand serves the second, so the second shows what stays.
        for wave in 1..=2 {
            let before = kib("VmRSS:");
            for _ in 0..UPLOADS {
                let upload = bench.new_upload(Some(GIB as u64)).await;
                let open = store.open_upload(upload, bench.terms(Some(GIB as u64))).await.unwrap();
                let mut receiving = open.begin(&at(0)).unwrap();
                receiving.write(vec![Bytes::from(noise(64 << 10))]).await.unwrap();
                stalled.push(receiving);
            }
            while stalled.iter().any(|receiving| receiving.wants_checkpoint()) {
                for receiving in &mut stalled {
                    receiving.write(Vec::new()).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
            assert!(stalled.iter().all(|receiving| receiving.durable_offset() == 64 << 10));
            let more = (kib("VmRSS:") - before) / UPLOADS as u64;
            println!(
                "wave {wave}: {more} KiB more for each stalled upload, {} MiB at most in all",
                peak_kib() / 1024
            );
        }
    });
}

/// Two hours in a small ladder: what one publishing asks of the store.
#[test]
#[ignore = "a measurement"]
fn measure_a_publication_of_five_thousand_segments() {
    const SEGMENTS: usize = 5_000;
    const SEGMENT_BYTES: usize = 200 << 10;
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (bench, store) = as_an_operator_has_it(&server).await;
        let objects = store.objects();
        let from = |number: usize| format!("renditions/a/t{:02}/a1/v/{number:05}.m4s", number % 10);
        let to = |number: usize| format!("publications/a/a1/v{}/{number:05}.m4s", number % 10);
        let bytes = noise(SEGMENT_BYTES);
        let begin = Instant::now();
        let puts = (0..SEGMENTS).map(|number| {
            let (file, objects, key) = (bench.scratch_file(&bytes), &objects, from(number));
            async move { objects.put_file(&file, &key).await.unwrap() }
        });
        stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
        println!("{SEGMENTS} segments of 200 KiB put: {:.2} s", begin.elapsed().as_secs_f64());
        let (begin, own_cpu) = (Instant::now(), cpu_seconds());
        objects.copy_all((0..SEGMENTS).map(|number| (from(number), to(number))).collect()).await.unwrap();
        let own_cpu = cpu_seconds() - own_cpu;
        println!("copied: {:.2} s, {own_cpu:.2} s of CPU here", begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        assert_eq!(objects.list_prefix("publications/a").await.unwrap().len(), SEGMENTS);
        println!("listed: {:.2} s", begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        objects.delete_prefix("renditions/a").await.unwrap();
        println!("removed: {:.2} s", begin.elapsed().as_secs_f64());
        println!("peak memory: {} MiB", peak_kib() / 1024);
    });
}

#[test]
#[ignore = "a measurement"]
fn measure_a_hundred_viewers_who_take_nothing() {
    const VIEWERS: usize = 100;
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (bench, store) = as_an_operator_has_it(&server).await;
        let (objects, key) = (store.objects(), "publications/a/a1/long.mp4");
        objects.put_file(&bench.scratch_file(&noise(64 * MIB)), key).await.unwrap();
        let mut stalled = Vec::new();
        for wave in 1..=2 {
            let before = kib("VmRSS:");
            for _ in 0..VIEWERS {
                let opened = Objects::open(&objects, key, Intent::ReadAll).await.unwrap();
                let mut reading = opened.read(0..64 * MIB as u64).await.unwrap();
                reading.next().await.unwrap().unwrap();
                stalled.push(reading);
            }
            let more = (kib("VmRSS:") - before) / VIEWERS as u64;
            println!("wave {wave}: {more} KiB more for each viewer of 64 MiB who takes nothing");
        }
    });
}

/// The server itself, not a proxy before it, with the memory that an operator gets.
async fn as_an_operator_has_it(server: &S3Server) -> (Bench, S3Store) {
    let mut bench = Bench::in_s3(Kind::SeaweedFs, &server.endpoint());
    bench.place().memory_bytes = DEFAULT_MEMORY_BYTES;
    let scratch = bench.directory.path().to_owned();
    let store = bench.place().open_at(&server.endpoint(), &scratch).await.unwrap();
    (bench, store)
}

/// Of this process, in user and kernel: fields 14 and 15 of proc(5), in hundredths of a second on Linux.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

fn peak_kib() -> u64 {
    kib("VmHWM:")
}

fn kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
