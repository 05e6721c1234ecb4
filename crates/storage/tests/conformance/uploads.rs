//! Uploads that grow from the front to the back.

use crate::bench::{Bench, MIB, at, collected, noise, sha256};
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_storage::{ReceiveError, source_key};
use reelyard_upload::{BodyEnd, ChunkRequest, Refusal};
use uuid::Uuid;

crate::cases!(
    bytes_come_in_chunks_and_become_a_source,
    what_a_cut_connection_brought_counts,
    a_wrong_offset_is_answered_with_the_right_one,
    a_body_that_overruns_is_refused_and_the_upload_is_not_whole,
    a_length_may_be_told_later,
    an_upload_of_unknown_length_ends_at_its_limit,
    nobody_knows_an_upload_that_was_not_made,
    an_id_with_bytes_is_taken,
    a_long_chunk_makes_checkpoints_on_the_way,
    a_crash_loses_nothing_that_was_durable,
    small_chunks_become_the_whole_as_well,
    an_upload_that_was_given_up_leaves_nothing,
    an_upload_of_no_bytes_is_whole,
);

async fn bytes_come_in_chunks_and_become_a_source(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    let sent = bench.send(upload, Some(10), &at(0), &[b"abc", b"", b"de"], BodyEnd::Complete).await;
    assert_eq!(sent.0, 5);
    sent.1.unwrap();
    let whole = bench.send(upload, Some(10), &at(5), &[b"fghij"], BodyEnd::Complete).await.1.unwrap();
    assert_eq!(whole.sha256(), Some(sha256(b"abcdefghij")));
    let key = source_key(upload);
    for _ in 0..2 {
        bench.store.finish_upload(upload, 10).await.unwrap();
        let open = bench.store.open_upload(upload, bench.terms(Some(10))).await.unwrap();
        assert_eq!(open.transfer().sha256(), Some(sha256(b"abcdefghij")), "it still tells");
    }
    for _ in 0..2 {
        bench.store.forget_upload(upload).await.unwrap();
        assert_eq!(bench.store.source_len(&key).await.unwrap(), Some(10));
        assert_eq!(collected(bench.store.read_source(&key, 0..10).await.unwrap()).await, b"abcdefghij");
    }
}

async fn what_a_cut_connection_brought_counts(mut bench: Bench) {
    let bytes = noise(3 * MIB / 2);
    let length = Some(2 * bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let (offset, outcome) = bench.send(upload, length, &at(0), &[&bytes], BodyEnd::Cut).await;
    outcome.unwrap();
    assert_eq!(offset, bytes.len() as u64);
    bench.crash().await;
    assert_eq!(bench.offset(upload, length).await, bytes.len() as u64);
    let rest = bench.send(upload, length, &at(bytes.len()), &[&bytes], BodyEnd::Complete).await.1.unwrap();
    assert_eq!(rest.sha256(), Some(sha256(&bytes.repeat(2))));
}

async fn a_wrong_offset_is_answered_with_the_right_one(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    bench.send(upload, Some(10), &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
    let open = bench.store.open_upload(upload, bench.terms(Some(10))).await.unwrap();
    let refused = open.begin(&at(4)).err();
    let expected = Refusal::OffsetMismatch { claimed: 4, durable: 3 };
    assert!(matches!(refused, Some(ReceiveError::Refused(refusal)) if refusal == expected));
    assert_eq!(bench.offset(upload, Some(10)).await, 3);
}

async fn a_body_that_overruns_is_refused_and_the_upload_is_not_whole(bench: Bench) {
    let upload = bench.new_upload(Some(4)).await;
    let told = ChunkRequest { body_len: Some(5), ..at(0) };
    let open = bench.store.open_upload(upload, bench.terms(Some(4))).await.unwrap();
    assert!(matches!(open.begin(&told), Err(ReceiveError::Refused(Refusal::BeyondLength { .. }))));
    let (offset, outcome) = bench.send(upload, Some(4), &at(0), &[b"abcd", b"e"], BodyEnd::Complete).await;
    assert!(matches!(outcome, Err(ReceiveError::Refused(Refusal::BeyondLength { .. }))), "{outcome:?}");
    assert_eq!(offset, 0);
    assert_eq!(bench.offset(upload, Some(4)).await, 0, "whether it is whole is known when the body ends");
}

async fn a_length_may_be_told_later(bench: Bench) {
    let upload = bench.new_upload(None).await;
    bench.send(upload, None, &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
    bench.send(upload, None, &at(3), &[b"def"], BodyEnd::Complete).await.1.unwrap();
    let open = bench.store.open_upload(upload, bench.terms(None)).await.unwrap();
    assert!(!open.transfer().is_whole());
    let open = bench.store.open_upload(upload, bench.terms(Some(6))).await.unwrap();
    assert_eq!(open.transfer().sha256(), Some(sha256(b"abcdef")));
    assert!(bench.store.open_upload(upload, bench.terms(Some(5))).await.is_err(), "shorter than it is");
}

async fn an_upload_of_unknown_length_ends_at_its_limit(bench: Bench) {
    let upload = bench.new_upload(None).await;
    let terms = reelyard_storage::Terms { limit: 4, ..bench.terms(None) };
    let open = bench.store.open_upload(upload, terms).await.unwrap();
    let mut receiving = open.begin(&at(0)).unwrap();
    let _ = receiving.write(vec![Bytes::from_static(b"abc")]).await;
    let _ = receiving.write(vec![Bytes::from_static(b"de")]).await;
    let (offset, outcome) = receiving.end(BodyEnd::Complete).await;
    assert!(matches!(outcome, Err(ReceiveError::Refused(Refusal::BeyondLimit { .. }))), "{outcome:?}");
    assert_eq!(offset, bench.offset(upload, None).await);
}

async fn nobody_knows_an_upload_that_was_not_made(bench: Bench) {
    let nobody = UploadId::from_uuid(Uuid::now_v7());
    let error = bench.store.open_upload(nobody, bench.terms(Some(1))).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    bench.store.forget_upload(nobody).await.unwrap();
    assert_eq!(bench.store.source_len(&source_key(nobody)).await.unwrap(), None);
    bench.store.delete_source(&source_key(nobody)).await.unwrap();
}

async fn an_id_with_bytes_is_taken(bench: Bench) {
    let upload = bench.new_upload(Some(3)).await;
    bench.send(upload, Some(3), &at(0), &[b"ab"], BodyEnd::Complete).await.1.unwrap();
    assert!(bench.store.create_upload(upload, Some(3)).await.is_err());
}

async fn a_long_chunk_makes_checkpoints_on_the_way(bench: Bench) {
    let length = Some(200 * MIB as u64);
    let upload = bench.new_upload(length).await;
    let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
    let mut receiving = open.begin(&at(0)).unwrap();
    let batch = Bytes::from(vec![3; MIB]);
    let mut sent = 0;
    while receiving.durable_offset() == 0 {
        receiving.write(vec![batch.clone()]).await.unwrap();
        sent += 1;
        assert!(sent < 150, "no checkpoint in 150 MiB");
    }
    let durable = receiving.durable_offset();
    drop(receiving);
    assert!(bench.offset(upload, length).await >= durable);
}

async fn a_crash_loses_nothing_that_was_durable(mut bench: Bench) {
    let bytes = noise(6 * MIB + 77);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let mut position = 0;
    // Every life brings one batch more than the last one.
    for batches in 1..4 {
        let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
        assert!(open.transfer().offset() >= position as u64, "what was durable is lost");
        position = open.transfer().offset() as usize;
        let mut receiving = open.begin(&at(position)).unwrap();
        for batch in bytes[position..].chunks(MIB).take(batches) {
            receiving.write(vec![Bytes::copy_from_slice(batch)]).await.unwrap();
        }
        position = receiving.durable_offset() as usize;
        drop(receiving);
        bench.crash().await;
    }
    let offset = bench.offset(upload, length).await as usize;
    let rest: Vec<&[u8]> = bytes[offset..].chunks(MIB).collect();
    let whole = bench.send(upload, length, &at(offset), &rest, BodyEnd::Complete).await.1.unwrap();
    assert_eq!(whole.sha256(), Some(sha256(&bytes)));
    bench.store.finish_upload(upload, bytes.len() as u64).await.unwrap();
    let read = bench.store.read_source(&source_key(upload), 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}

async fn small_chunks_become_the_whole_as_well(bench: Bench) {
    let bytes = noise(MIB / 2);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let mut offset = 0;
    for chunk in bytes.chunks(17_000) {
        bench.send(upload, length, &at(offset), &[chunk], BodyEnd::Complete).await.1.unwrap();
        offset += chunk.len();
    }
    bench.store.finish_upload(upload, bytes.len() as u64).await.unwrap();
    bench.store.forget_upload(upload).await.unwrap();
    let read = bench.store.read_source(&source_key(upload), 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}

async fn an_upload_that_was_given_up_leaves_nothing(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    bench.send(upload, Some(10), &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
    assert_eq!(bench.store.list_uploads().await.unwrap(), [upload]);
    bench.give_up(upload);
    for _ in 0..2 {
        bench.store.forget_upload(upload).await.unwrap();
        assert!(bench.store.list_uploads().await.unwrap().is_empty());
        assert!(bench.store.open_upload(upload, bench.terms(Some(10))).await.unwrap_err().is_not_found());
    }
}

async fn an_upload_of_no_bytes_is_whole(bench: Bench) {
    let upload = bench.new_upload(Some(0)).await;
    let open = bench.store.open_upload(upload, bench.terms(Some(0))).await.unwrap();
    assert_eq!(open.transfer().sha256(), Some(sha256(b"")));
    bench.store.finish_upload(upload, 0).await.unwrap();
    assert_eq!(bench.store.source_len(&source_key(upload)).await.unwrap(), Some(0));
}
