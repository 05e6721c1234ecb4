//! Many uploads share little memory: each gets its turn, none waits for ever.

use crate::{
    bench::{Bench, at, collected, noise, sha256},
    parts::part,
};
use bytes::Bytes;
use futures::future::join_all;
use reelyard_storage::source_key;
use reelyard_testkit::{Fault, Plan};
use reelyard_upload::{Algorithm, BodyEnd, Check, Checksum, ChunkRequest};
use std::time::Duration;
use tokio::time::timeout;

crate::cases!(
    many_uploads_get_through_a_tiny_budget,
    uploads_that_stall_do_not_keep_the_others_waiting,
    parts_that_stall_do_not_keep_the_others_waiting,
    a_batch_larger_than_the_budget_gets_through,
    a_write_that_is_dropped_while_it_waits_takes_nothing,
);

const KIB: usize = 1 << 10;
/// Past this, they wait for one another for ever.
const STUCK: Duration = Duration::from_secs(60);

async fn many_uploads_get_through_a_tiny_budget(mut bench: Bench) {
    bench.place().memory_bytes = 128 << 10;
    bench.reopen().await;
    let bench = &bench;
    let uploads = (0..30).map(|number| async move {
        let bytes = noise(100 * KIB + number * 7 * KIB);
        let length = Some(bytes.len() as u64);
        let upload = bench.new_upload(length).await;
        // Every second one may not count anything before its end.
        let check = Check::Announced(Checksum::of(Algorithm::Sha1, &bytes));
        let request = if number % 2 == 0 { at(0) } else { ChunkRequest { check, ..at(0) } };
        let batches: Vec<&[u8]> = bytes.chunks(10 * KIB).collect();
        let (_, outcome) = bench.send(upload, length, &request, &batches, BodyEnd::Complete).await;
        assert_eq!(outcome.unwrap().sha256(), Some(sha256(&bytes)), "upload {number}");
    });
    timeout(STUCK, join_all(uploads)).await.expect("the uploads wait for one another");
}

async fn uploads_that_stall_do_not_keep_the_others_waiting(mut bench: Bench) {
    bench.place().memory_bytes = 64 << 10;
    bench.reopen().await;
    let bytes = noise(200 * KIB);
    let length = Some(bytes.len() as u64);
    // As many as fill the budget, each with a little that makes no part; their callers ask again, as the routes do.
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let upload = bench.new_upload(length).await;
        let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
        let mut receiving = open.begin(&at(0)).unwrap();
        receiving.write(vec![Bytes::copy_from_slice(&bytes[..5 * KIB])]).await.unwrap();
        stalled.push(receiving);
    }
    let asking = async {
        loop {
            for receiving in &mut stalled {
                if receiving.wants_checkpoint() {
                    receiving.write(Vec::new()).await.unwrap();
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let sending = async {
        let upload = bench.new_upload(length).await;
        let batches: Vec<&[u8]> = bytes.chunks(20 * KIB).collect();
        bench.send(upload, length, &at(0), &batches, BodyEnd::Complete).await.1.unwrap();
    };
    tokio::select! {
        () = asking => {}
        done = timeout(STUCK, sending) => done.expect("the upload waits for those that stall"),
    }
    assert!(stalled.iter().all(|receiving| !receiving.wants_checkpoint() || receiving.durable_offset() == 0));
}

async fn parts_that_stall_do_not_keep_the_others_waiting(mut bench: Bench) {
    bench.place().memory_bytes = 64 << 10;
    bench.reopen().await;
    let bytes = noise(200 * KIB);
    let length = bytes.len() as u64;
    let terms = bench.terms(Some(length));
    let upload = bench.new_parts(bytes.len()).await;
    let mut stalled = Vec::new();
    for number in 0..12 {
        let at = number * 10 * KIB;
        let request = part(number as u32 + 1, at..at + 10 * KIB);
        let mut receiving = bench.store.begin_part(upload, terms, &request).await.unwrap();
        receiving.write(vec![Bytes::copy_from_slice(&bytes[at..at + 5 * KIB])]).await.unwrap();
        stalled.push(receiving);
    }
    let other = bench.new_upload(Some(length)).await;
    let (request, batches) = (at(0), bytes.chunks(20 * KIB).collect::<Vec<_>>());
    let sending = bench.send(other, Some(length), &request, &batches, BodyEnd::Complete);
    timeout(STUCK, sending).await.expect("the upload waits for those that stall").1.unwrap();
}

async fn a_batch_larger_than_the_budget_gets_through(mut bench: Bench) {
    bench.place().memory_bytes = 4 << 10;
    bench.reopen().await;
    let bytes = noise(100 * KIB);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let (request, batches) = (at(0), [&bytes[..50 * KIB], &bytes[50 * KIB..]]);
    let sending = bench.send(upload, length, &request, &batches, BodyEnd::Complete);
    let (_, outcome) = timeout(STUCK, sending).await.expect("it waits for more than there is");
    assert_eq!(outcome.unwrap().sha256(), Some(sha256(&bytes)));
}

async fn a_write_that_is_dropped_while_it_waits_takes_nothing(mut bench: Bench) {
    bench.place().memory_bytes = 64 << 10;
    bench.reopen().await;
    bench
        .place()
        .proxy
        .set_plan(Plan { methods: vec!["PUT"], ..Plan::always(Fault::Delay(Duration::from_millis(100))) });
    let bytes = noise(400 * KIB);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let (mut offset, mut dropped) = (0, 0);
    while offset < bytes.len() {
        let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
        let mut receiving = open.begin(&at(offset)).unwrap();
        for batch in bytes[offset..].chunks(10 * KIB) {
            let writing = receiving.write(vec![Bytes::copy_from_slice(batch)]);
            if timeout(Duration::from_millis(20), writing).await.is_err() {
                dropped += 1;
                break;
            }
        }
        let (durable, outcome) = receiving.end(BodyEnd::Cut).await;
        outcome.unwrap();
        offset = durable as usize;
    }
    assert!(dropped > 3, "{dropped} writes were dropped");
    let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
    assert_eq!(open.transfer().sha256(), Some(sha256(&bytes)));
    bench.store.finish_upload(upload, bytes.len() as u64).await.unwrap();
    let read = bench.store.read_source(&source_key(upload), 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}
