//! Chunks that are checked: no byte of them counts before their checksum does.

use crate::bench::{Bench, MIB, at, noise, sha256};
use bytes::Bytes;
use reelyard_storage::ReceiveError;
use reelyard_upload::{Algorithm, BodyEnd, Check, Checksum, ChunkRequest, Refusal};

crate::cases!(
    a_chunk_with_a_wrong_checksum_leaves_nothing,
    a_chunk_that_is_cut_before_it_is_verified_counts_for_nothing,
    a_checksum_may_come_behind_the_body,
    a_long_checked_chunk_counts_at_its_end_and_not_before,
);

fn checked(bytes: &[u8], offset: usize) -> ChunkRequest {
    ChunkRequest { check: Check::Announced(Checksum::of(Algorithm::Sha1, bytes)), ..at(offset) }
}

async fn a_chunk_with_a_wrong_checksum_leaves_nothing(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    let request = checked(b"abc", 0);
    let (offset, outcome) = bench.send(upload, Some(10), &request, &[b"abX"], BodyEnd::Complete).await;
    assert_eq!(offset, 0);
    assert!(matches!(outcome, Err(ReceiveError::Refused(Refusal::ChecksumMismatch { .. }))), "{outcome:?}");
    assert_eq!(bench.offset(upload, Some(10)).await, 0);
    bench.send(upload, Some(10), &request, &[b"a", b"bc"], BodyEnd::Complete).await.1.unwrap();
    assert_eq!(bench.offset(upload, Some(10)).await, 3);
}

async fn a_chunk_that_is_cut_before_it_is_verified_counts_for_nothing(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    bench.send(upload, Some(10), &checked(b"abc", 0), &[b"ab"], BodyEnd::Cut).await.1.unwrap();
    assert_eq!(bench.offset(upload, Some(10)).await, 0);
}

async fn a_checksum_may_come_behind_the_body(bench: Bench) {
    let upload = bench.new_upload(Some(10)).await;
    let request = ChunkRequest { check: Check::Trailing, ..at(0) };
    let end = |bytes| BodyEnd::CompleteWith(Checksum::of(Algorithm::Crc32c, bytes));
    let (_, wrong) = bench.send(upload, Some(10), &request, &[b"abc"], end(b"abX")).await;
    assert!(matches!(wrong, Err(ReceiveError::Refused(Refusal::ChecksumMismatch { .. }))), "{wrong:?}");
    let (_, none) = bench.send(upload, Some(10), &request, &[b"abc"], BodyEnd::Complete).await;
    assert!(matches!(none, Err(ReceiveError::Refused(Refusal::ChecksumMissing { .. }))), "{none:?}");
    assert_eq!(bench.offset(upload, Some(10)).await, 0);
    bench.send(upload, Some(10), &request, &[b"abc"], end(b"abc")).await.1.unwrap();
    assert_eq!(bench.offset(upload, Some(10)).await, 3);
}

async fn a_long_checked_chunk_counts_at_its_end_and_not_before(bench: Bench) {
    let bytes = noise(5 * MIB + 3);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    for is_right in [false, true] {
        let request = checked(if is_right { &bytes } else { b"something else" }, 0);
        let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
        let mut receiving = open.begin(&request).unwrap();
        for batch in bytes.chunks(MIB / 2) {
            receiving.write(vec![Bytes::copy_from_slice(batch)]).await.unwrap();
            assert_eq!(receiving.durable_offset(), 0);
        }
        let (offset, outcome) = receiving.end(BodyEnd::Complete).await;
        assert_eq!(outcome.is_ok(), is_right, "{outcome:?}");
        assert_eq!(offset, if is_right { bytes.len() as u64 } else { 0 });
    }
    let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
    assert_eq!(open.transfer().sha256(), Some(sha256(&bytes)));
}
