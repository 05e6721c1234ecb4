//! Uploads in parts: in any order, several at the same time, each whole or not at all.

use crate::bench::{Bench, MIB, collected, noise, sha256};
use bytes::Bytes;
use futures::future::join_all;
use reelyard_model::UploadId;
use reelyard_storage::{PartError, source_key};
use reelyard_upload::{
    Algorithm, BodyEnd, Check, Checksum,
    parts::{PartRefusal, PartRequest, PartSettled},
};
use std::ops::Range;

crate::cases!(
    parts_come_in_any_order_and_become_a_source,
    the_hash_goes_as_far_as_there_is_no_gap,
    a_part_that_comes_again_is_compared,
    a_part_that_is_cut_or_dropped_leaves_nothing,
    a_part_with_a_wrong_checksum_or_length_leaves_nothing,
    parts_survive_a_crash,
    parts_of_an_upload_that_was_given_up_are_gone,
);

pub(crate) fn part(number: u32, range: Range<usize>) -> PartRequest {
    PartRequest { number, range: range.start as u64..range.end as u64, check: Check::None }
}

/// Sends the bytes of the range; `bytes` is the whole.
async fn send(
    bench: &Bench,
    upload: UploadId,
    request: &PartRequest,
    bytes: &[u8],
) -> Result<PartSettled, PartError> {
    let terms = bench.terms(Some(bytes.len() as u64));
    let range = request.range.start as usize..request.range.end as usize;
    let mut receiving = bench.store.begin_part(upload, terms, request).await?;
    for batch in bytes[range].chunks(MIB / 2) {
        receiving.write(vec![Bytes::copy_from_slice(batch)]).await?;
    }
    receiving.end(BodyEnd::Complete).await
}

fn ranges(byte_len: usize, step: usize) -> Vec<Range<usize>> {
    (0..byte_len).step_by(step).map(|start| start..byte_len.min(start + step)).collect()
}

async fn parts_come_in_any_order_and_become_a_source(bench: Bench) {
    let bytes = noise(9 * MIB + 5);
    let length = bytes.len() as u64;
    let upload = bench.new_parts(bytes.len()).await;
    let mut parts: Vec<_> = (1..).zip(ranges(bytes.len(), 2 * MIB)).collect();
    parts.rotate_left(2);
    let requests: Vec<_> = parts.into_iter().map(|(number, range)| part(number, range)).collect();
    let sent = join_all(requests.iter().map(|request| send(&bench, upload, request, &bytes))).await;
    assert!(sent.into_iter().all(|settled| matches!(settled.unwrap(), PartSettled::Store(_))));
    let set = bench.store.part_set(upload, bench.terms(Some(length))).await.unwrap();
    assert!(set.is_whole());
    let transfer = bench.store.hash_parts(upload, bench.terms(Some(length))).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&bytes)));
    let key = source_key(upload);
    for _ in 0..2 {
        bench.store.finish_upload(upload, length).await.unwrap();
        let transfer = bench.store.hash_parts(upload, bench.terms(Some(length))).await.unwrap();
        assert_eq!(transfer.sha256(), Some(sha256(&bytes)), "it still answers");
    }
    bench.store.assemble_source(&key).await.unwrap();
    bench.store.forget_upload(upload).await.unwrap();
    let read = bench.store.read_source(&key, 0..length).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}

async fn the_hash_goes_as_far_as_there_is_no_gap(bench: Bench) {
    let bytes = noise(3 * MIB);
    let terms = bench.terms(Some(bytes.len() as u64));
    let upload = bench.new_parts(bytes.len()).await;
    for number in [3, 1] {
        let start = (number as usize - 1) * MIB;
        send(&bench, upload, &part(number, start..start + MIB), &bytes).await.unwrap();
    }
    let transfer = bench.store.hash_parts(upload, terms).await.unwrap();
    assert_eq!((transfer.offset(), transfer.sha256()), (MIB as u64, None));
    let set = bench.store.part_set(upload, terms).await.unwrap();
    assert_eq!(set.missing(), vec![part(2, MIB..2 * MIB).range]);
    send(&bench, upload, &part(2, MIB..2 * MIB), &bytes).await.unwrap();
    assert_eq!(bench.store.hash_parts(upload, terms).await.unwrap().sha256(), Some(sha256(&bytes)));
}

async fn a_part_that_comes_again_is_compared(bench: Bench) {
    let bytes = noise(2 * MIB);
    let upload = bench.new_parts(bytes.len()).await;
    let request = part(1, 0..MIB);
    send(&bench, upload, &request, &bytes).await.unwrap();
    let again = send(&bench, upload, &request, &bytes).await.unwrap();
    assert!(matches!(again, PartSettled::AlreadyThere(part) if part.sha256 == sha256(&bytes[..MIB])));
    let other = send(&bench, upload, &request, &vec![0; 2 * MIB]).await;
    assert!(matches!(other, Err(PartError::Refused(PartRefusal::OtherBytes { number: 1 }))), "{other:?}");
    let overlaps = send(&bench, upload, &part(2, MIB - 1..2 * MIB), &bytes).await;
    assert!(matches!(overlaps, Err(PartError::Refused(PartRefusal::Overlaps { .. }))), "{overlaps:?}");
    let outside =
        bench.store.begin_part(upload, bench.terms(Some(2 * MIB as u64)), &part(2, MIB..3 * MIB)).await;
    assert!(matches!(outside.err(), Some(PartError::Refused(PartRefusal::OutsideLength { .. }))));
}

async fn a_part_that_is_cut_or_dropped_leaves_nothing(bench: Bench) {
    let bytes = noise(2 * MIB);
    let terms = bench.terms(Some(bytes.len() as u64));
    let upload = bench.new_parts(bytes.len()).await;
    let request = part(1, 0..2 * MIB);
    let mut cut = bench.store.begin_part(upload, terms, &request).await.unwrap();
    cut.write(vec![Bytes::copy_from_slice(&bytes[..MIB])]).await.unwrap();
    assert_eq!(cut.end(BodyEnd::Cut).await.unwrap(), PartSettled::Discard);
    let mut dropped = bench.store.begin_part(upload, terms, &request).await.unwrap();
    dropped.write(vec![Bytes::copy_from_slice(&bytes[..MIB])]).await.unwrap();
    drop(dropped);
    assert_eq!(bench.store.part_set(upload, terms).await.unwrap().durable_bytes(), 0);
}

async fn a_part_with_a_wrong_checksum_or_length_leaves_nothing(bench: Bench) {
    let bytes = noise(MIB);
    let terms = bench.terms(Some(bytes.len() as u64));
    let upload = bench.new_parts(bytes.len()).await;
    let check = Check::Announced(Checksum::of(Algorithm::Md5, b"something else"));
    let wrong = send(&bench, upload, &PartRequest { check, ..part(1, 0..MIB) }, &bytes).await;
    assert!(matches!(wrong, Err(PartError::Refused(PartRefusal::ChecksumMismatch { .. }))), "{wrong:?}");
    for (byte_len, end) in [(MIB - 1, BodyEnd::Complete), (MIB, BodyEnd::Complete)] {
        let mut receiving = bench.store.begin_part(upload, terms, &part(1, 0..MIB)).await.unwrap();
        receiving.write(vec![Bytes::copy_from_slice(&bytes[..byte_len])]).await.unwrap();
        let outcome = receiving.end(end).await;
        match byte_len == MIB {
            true => assert!(matches!(outcome, Ok(PartSettled::Store(_))), "{outcome:?}"),
            false => {
                assert!(matches!(outcome, Err(PartError::Refused(PartRefusal::BodyTooShort { .. }))));
                assert_eq!(bench.store.part_set(upload, terms).await.unwrap().durable_bytes(), 0);
            }
        }
    }
}

async fn parts_survive_a_crash(mut bench: Bench) {
    let bytes = noise(4 * MIB);
    let terms = |bench: &Bench| bench.terms(Some(4 * MIB as u64));
    let upload = bench.new_parts(bytes.len()).await;
    for (number, range) in (1..).zip(ranges(bytes.len(), MIB)) {
        send(&bench, upload, &part(number, range), &bytes).await.unwrap();
        bench.crash().await;
        let set = bench.store.part_set(upload, terms(&bench)).await.unwrap();
        assert_eq!(set.contiguous(), u64::from(number) * MIB as u64);
        bench.store.hash_parts(upload, terms(&bench)).await.unwrap();
    }
    let transfer = bench.store.hash_parts(upload, terms(&bench)).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&bytes)));
}

async fn parts_of_an_upload_that_was_given_up_are_gone(bench: Bench) {
    let bytes = noise(MIB);
    let upload = bench.new_parts(bytes.len()).await;
    send(&bench, upload, &part(1, 0..MIB), &bytes).await.unwrap();
    bench.give_up(upload);
    for _ in 0..2 {
        bench.store.forget_upload(upload).await.unwrap();
        assert!(bench.store.list_uploads().await.unwrap().is_empty());
    }
}
