//! Two nodes on one upload: the newer one goes on, the older one is told and leaves nothing.

use crate::{
    bench::{Bench, MIB, at, noise, sha256},
    parts::part,
};
use bytes::Bytes;
use reelyard_storage::{PartError, Parts as _, ReceiveError, StoreError};
use reelyard_upload::{
    BodyEnd,
    parts::{PartRefusal, PartSettled},
};

crate::cases!(an_older_node_is_refused_and_the_newer_one_goes_on, the_same_part_from_two_nodes_counts_once);

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
    bench.place().wait_for_no_leftovers(upload).await;
    let rest = bench.send(upload, length, &at(MIB / 4), &[&bytes[MIB / 4..]], BodyEnd::Complete).await;
    assert_eq!(rest.1.unwrap().sha256(), Some(sha256(&bytes)));
}

async fn the_same_part_from_two_nodes_counts_once(mut bench: Bench) {
    let bytes = noise(MIB + 1);
    let scratch = bench.directory.path().to_owned();
    let other = bench.place().open(&scratch).await.unwrap();
    let terms = bench.terms(Some(bytes.len() as u64));
    for (sent_there, is_same) in [(bytes.clone(), true), (vec![0; bytes.len()], false)] {
        let upload = bench.new_parts(bytes.len()).await;
        let request = part(1, 0..bytes.len());
        let mut here = bench.store.begin_part(upload, terms, &request).await.unwrap();
        let mut there = other.begin_part(upload, terms, &request).await.unwrap();
        here.write(vec![Bytes::from(bytes.clone())]).await.unwrap();
        there.write(vec![Bytes::from(sent_there)]).await.unwrap();
        assert!(matches!(here.end(BodyEnd::Complete).await, Ok(PartSettled::Store(_))));
        match there.end(BodyEnd::Complete).await {
            Ok(PartSettled::AlreadyThere(_)) => assert!(is_same),
            Err(PartError::Refused(PartRefusal::OtherBytes { number: 1 })) => assert!(!is_same),
            outcome => panic!("{outcome:?}"),
        }
        assert_eq!(bench.store.hash_parts(upload, terms).await.unwrap().sha256(), Some(sha256(&bytes)));
    }
}
