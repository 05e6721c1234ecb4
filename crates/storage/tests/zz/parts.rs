//! Uploads in parts: side by side, in any order, repeated, damaged, and after a crash.

use crate::{
    bench::{Bench, Keeps, collected, noise, sha256},
    cases,
};
use bytes::Bytes;
use futures::future::join_all;
use reelyard_model::UploadId;
use reelyard_storage::{PartError, ReceivePart, Terms, source_key};
use reelyard_upload::{
    Algorithm, BodyEnd, Check, Checksum,
    parts::{DurablePart, ListedPart, PartRefusal, PartRequest, PartSettled},
};
use std::ops::Range;
use uuid::Uuid;

cases![
    a_new_upload_has_no_parts_and_its_id_is_taken,
    parts_that_come_at_once_and_in_any_order_become_the_source,
    a_part_counts_when_its_end_was_answered_and_not_before,
    after_a_crash_answered_parts_are_there_and_no_others,
    a_part_sent_again_is_compared,
    a_part_that_is_cut_short_long_or_damaged_leaves_nothing,
    a_part_may_take_no_place_that_is_taken,
    of_two_parts_at_one_place_one_is_stored,
    the_hash_follows_what_is_durable_from_the_front,
    an_upload_without_bytes_is_whole,
    what_was_given_up_is_gone,
];

/// Smallest part but the last that the dialect lets through.
const PART: u64 = 5 << 20;

/// A new upload in parts, which the ledger of a store that has one knows of.
async fn begun(bench: &Bench, length: u64) -> UploadId {
    let upload = UploadId::from_uuid(Uuid::now_v7());
    #[cfg(feature = "s3")]
    if let crate::bench::Keeper::S3(place) = &bench.keeper {
        place.ledger.add(upload);
    }
    bench.store.create_parts(upload, length).await.unwrap();
    upload
}

fn terms(length: u64) -> Terms {
    Terms { length: Some(length), limit: 1 << 40, fence: 0 }
}

fn request(number: u32, range: Range<u64>) -> PartRequest {
    PartRequest { number, range, check: Check::None }
}

async fn finish(mut part: Box<dyn ReceivePart>, body: &[u8], end: BodyEnd) -> Result<PartSettled, PartError> {
    for piece in body.chunks(1 << 20) {
        part.write(vec![Bytes::copy_from_slice(piece)]).await?;
    }
    part.end(end).await
}

async fn send_body(
    store: &dyn Keeps,
    upload: UploadId,
    length: u64,
    request: &PartRequest,
    body: &[u8],
) -> Result<PartSettled, PartError> {
    let part = store.begin_part(upload, terms(length), request).await?;
    finish(part, body, BodyEnd::Complete).await
}

async fn send(
    store: &dyn Keeps,
    upload: UploadId,
    whole: &[u8],
    number: u32,
    range: Range<u64>,
) -> Result<PartSettled, PartError> {
    let body = &whole[range.start as usize..range.end as usize];
    send_body(store, upload, whole.len() as u64, &request(number, range.clone()), body).await
}

async fn refused(
    store: &dyn Keeps,
    upload: UploadId,
    length: u64,
    request: &PartRequest,
    body: &[u8],
) -> PartRefusal {
    match send_body(store, upload, length, request, body).await {
        Err(PartError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn stored(store: &dyn Keeps, upload: UploadId, length: u64) -> Vec<DurablePart> {
    store.part_set(upload, terms(length)).await.unwrap().parts().cloned().collect()
}

async fn a_new_upload_has_no_parts_and_its_id_is_taken(bench: Bench) {
    let store = bench.store.as_ref();
    let upload = begun(&bench, 10).await;
    let set = store.part_set(upload, terms(10)).await.unwrap();
    assert_eq!((set.length(), set.contiguous(), set.parts().len()), (10, 0, 0));
    assert!(store.create_parts(upload, 10).await.is_err());
}

async fn parts_that_come_at_once_and_in_any_order_become_the_source(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(4 * PART as usize + 4321);
    let length = whole.len() as u64;
    let upload = begun(&bench, length).await;
    let ranges = [4 * PART..length, 2 * PART..3 * PART, 0..PART, 3 * PART..4 * PART, PART..2 * PART];
    let sending =
        ranges.into_iter().map(|range| send(store, upload, &whole, (range.start / PART) as u32 + 1, range));
    for outcome in join_all(sending).await {
        assert!(matches!(outcome.unwrap(), PartSettled::Store(_)));
    }
    let set = store.part_set(upload, terms(length)).await.unwrap();
    let list: Vec<ListedPart> =
        set.parts().map(|part| ListedPart { number: part.number, sha256: part.sha256 }).collect();
    assert_eq!(set.check_complete(&list), Ok(()));
    let transfer = store.hash_parts(upload, terms(length)).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&whole)));
    let key = source_key(upload);
    for _ in 0..2 {
        store.finish_upload(upload, length).await.unwrap();
        assert_eq!(store.source_len(&key).await.unwrap(), Some(length));
    }
    let again = store.hash_parts(upload, terms(length)).await.unwrap();
    assert_eq!(again.sha256(), Some(sha256(&whole)), "a lost answer can be asked again");
    let read = collected(store.read_source(&key, 0..length).await.unwrap()).await;
    assert!(read == whole, "the source is the file");
    store.forget_upload(upload).await.unwrap();
    assert_eq!(store.source_len(&key).await.unwrap(), Some(length), "the source stays");
    store.delete_source(&key).await.unwrap();
}

async fn a_part_counts_when_its_end_was_answered_and_not_before(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    let mut part = store.begin_part(upload, terms(100), &request(2, 50..100)).await.unwrap();
    part.write(vec![Bytes::copy_from_slice(&whole[50..])]).await.unwrap();
    assert_eq!(stored(store, upload, 100).await, []);
    let expected = DurablePart { number: 2, range: 50..100, sha256: sha256(&whole[50..]) };
    assert_eq!(part.end(BodyEnd::Complete).await.unwrap(), PartSettled::Store(expected.clone()));
    assert_eq!(stored(store, upload, 100).await, [expected]);
}

async fn after_a_crash_answered_parts_are_there_and_no_others(mut bench: Bench) {
    let whole = noise(300);
    let upload = begun(&bench, 300).await;
    send(bench.store.as_ref(), upload, &whole, 3, 200..300).await.unwrap();
    send(bench.store.as_ref(), upload, &whole, 1, 0..100).await.unwrap();
    assert_eq!(bench.store.hash_parts(upload, terms(300)).await.unwrap().offset(), 100);
    let mut lost = bench.store.begin_part(upload, terms(300), &request(2, 100..200)).await.unwrap();
    lost.write(vec![Bytes::copy_from_slice(&whole[100..200])]).await.unwrap();
    drop(lost);
    bench.crash().await;
    let store = bench.store.as_ref();
    let numbers: Vec<u32> = stored(store, upload, 300).await.iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 3]);
    send(store, upload, &whole, 2, 100..200).await.unwrap();
    let transfer = store.hash_parts(upload, terms(300)).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&whole)));
}

async fn a_part_sent_again_is_compared(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    send(store, upload, &whole, 1, 0..60).await.unwrap();
    let expected = DurablePart { number: 1, range: 0..60, sha256: sha256(&whole[..60]) };
    for _ in 0..2 {
        let again = send(store, upload, &whole, 1, 0..60).await.unwrap();
        assert_eq!(again, PartSettled::AlreadyThere(expected.clone()));
    }
    let other = refused(store, upload, 100, &request(1, 0..60), &[9; 60]).await;
    assert_eq!(other, PartRefusal::OtherBytes { number: 1 });
    let part = store.begin_part(upload, terms(100), &request(1, 0..60)).await.unwrap();
    assert_eq!(finish(part, &whole[..60], BodyEnd::Cut).await.unwrap(), PartSettled::Discard);
    assert_eq!(stored(store, upload, 100).await, [expected]);
}

async fn a_part_that_is_cut_short_long_or_damaged_leaves_nothing(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    let part = store.begin_part(upload, terms(100), &request(1, 0..60)).await.unwrap();
    assert_eq!(finish(part, &whole[..30], BodyEnd::Cut).await.unwrap(), PartSettled::Discard);
    let short = refused(store, upload, 100, &request(1, 0..60), &whole[..59]).await;
    assert_eq!(short, PartRefusal::BodyTooShort { number: 1, range: 0..60, received: 59 });
    let long = refused(store, upload, 100, &request(1, 0..60), &whole[..61]).await;
    assert_eq!(long, PartRefusal::BodyTooLong { number: 1, range: 0..60 });
    let check = Check::Announced(Checksum::of(Algorithm::Md5, &whole[..60]));
    let checked = PartRequest { check, ..request(1, 0..60) };
    let damaged = refused(store, upload, 100, &checked, &[9; 60]).await;
    assert_eq!(damaged, PartRefusal::ChecksumMismatch { number: 1, algorithm: "md5" });
    assert_eq!(stored(store, upload, 100).await, []);
    send_body(store, upload, 100, &checked, &whole[..60]).await.unwrap();
    assert_eq!(stored(store, upload, 100).await.len(), 1);
}

async fn a_part_may_take_no_place_that_is_taken(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    send(store, upload, &whole, 1, 0..60).await.unwrap();
    for (number, range, expected) in [
        (1, 0..50, PartRefusal::OtherRange { number: 1, stored: 0..60 }),
        (2, 50..100, PartRefusal::Overlaps { number: 2, other: 1, taken: 0..60 }),
        (2, 60..101, PartRefusal::OutsideLength { number: 2, range: 60..101, length: 100 }),
    ] {
        let refusal = store.begin_part(upload, terms(100), &request(number, range)).await.err();
        assert!(matches!(&refusal, Some(PartError::Refused(refusal)) if *refusal == expected), "{refusal:?}");
    }
}

/// Whether the second is refused when it begins or when it ends is the store's choice.
async fn of_two_parts_at_one_place_one_is_stored(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    let first = store.begin_part(upload, terms(100), &request(1, 0..60)).await.unwrap();
    let second = match store.begin_part(upload, terms(100), &request(2, 40..100)).await {
        Ok(part) => finish(part, &whole[40..], BodyEnd::Complete).await,
        Err(error) => Err(error),
    };
    let first = finish(first, &whole[..60], BodyEnd::Complete).await;
    let outcomes = [first.is_ok(), second.is_ok()];
    assert_eq!(outcomes.iter().filter(|stored| **stored).count(), 1, "{first:?} {second:?}");
    assert_eq!(stored(store, upload, 100).await.len(), 1);
}

async fn the_hash_follows_what_is_durable_from_the_front(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(300);
    let upload = begun(&bench, 300).await;
    for (number, range, hashed) in [(3, 200..300, 0), (1, 0..100, 100), (2, 100..200, 300)] {
        send(store, upload, &whole, number, range).await.unwrap();
        let transfer = store.hash_parts(upload, terms(300)).await.unwrap();
        assert_eq!((transfer.offset(), transfer.is_whole()), (hashed, hashed == 300));
    }
    let at_once = (0..4).map(|_| store.hash_parts(upload, terms(300)));
    for transfer in join_all(at_once).await {
        assert_eq!(transfer.unwrap().sha256(), Some(sha256(&whole)));
    }
}

async fn an_upload_without_bytes_is_whole(bench: Bench) {
    let store = bench.store.as_ref();
    let upload = begun(&bench, 0).await;
    assert!(store.part_set(upload, terms(0)).await.unwrap().is_whole());
    assert_eq!(store.hash_parts(upload, terms(0)).await.unwrap().sha256(), Some(sha256(b"")));
    store.finish_upload(upload, 0).await.unwrap();
    assert_eq!(store.source_len(&source_key(upload)).await.unwrap(), Some(0));
}

async fn what_was_given_up_is_gone(bench: Bench) {
    let store = bench.store.as_ref();
    let whole = noise(100);
    let upload = begun(&bench, 100).await;
    send(store, upload, &whole, 2, 60..100).await.unwrap();
    for _ in 0..2 {
        store.forget_upload(upload).await.unwrap();
    }
    assert!(!store.list_uploads().await.unwrap().contains(&upload));
}
