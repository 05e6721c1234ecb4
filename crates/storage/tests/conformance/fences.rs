//! Two nodes on one upload: the newer one goes on, the older one is told and leaves nothing.

use crate::bench::{Bench, MIB, at, noise, sha256};
use bytes::Bytes;
use reelyard_storage::{ReceiveError, StoreError};
use reelyard_upload::BodyEnd;

crate::cases!(an_older_node_is_refused_and_the_newer_one_goes_on);

async fn an_older_node_is_refused_and_the_newer_one_goes_on(mut bench: Bench) {
    let bytes = noise(3 * MIB);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    bench.send(upload, length, &at(0), &[&bytes[..MIB / 4]], BodyEnd::Complete).await.1.unwrap();
    let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
    let mut older = open.begin(&at(MIB / 4)).unwrap();
    older.write(vec![Bytes::copy_from_slice(&bytes[MIB / 4..MIB])]).await.unwrap();
    bench.crash().await;
    // The older node did not notice.
    let (offset, outcome) = older.end(BodyEnd::Complete).await;
    assert!(matches!(outcome, Err(ReceiveError::Store(StoreError::Fenced { .. }))), "{outcome:?}");
    assert_eq!(offset, MIB as u64 / 4);
    assert_eq!(bench.offset(upload, length).await, MIB as u64 / 4);
    let rest = bench.send(upload, length, &at(MIB / 4), &[&bytes[MIB / 4..]], BodyEnd::Complete).await;
    assert_eq!(rest.1.unwrap().sha256(), Some(sha256(&bytes)));
}
