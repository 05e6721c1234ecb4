//! Uploads of several nodes: who holds one, and what is durable of it.

use crate::support::Bench;
use reelyard_catalog::{LedgerError, Taken};
use reelyard_upload::ledger::{Extent, LedgerChange, LedgerPart, LedgerState};

fn extent(start: u64, end: u64, key: &str) -> Extent {
    Extent { start, end, key: key.to_owned() }
}

#[tokio::test]
async fn an_upload_changes_hands_when_its_holder_lets_go_or_is_silent_for_too_long() {
    let bench = Bench::new().await;
    let (catalog, upload) = (&bench.catalog, bench.upload(1).await);
    assert_eq!(catalog.take_upload(upload, "a", 0, 1_000).await.unwrap(), Taken::Held { fence: 1 });
    assert_eq!(catalog.take_upload(upload, "b", 500, 1_500).await.unwrap(), Taken::Busy);
    assert_eq!(catalog.wanted_uploads("a").await.unwrap(), [(upload, 1)]);
    catalog.extend_holds("a", 2_000).await.unwrap();
    assert_eq!(catalog.take_upload(upload, "b", 1_500, 2_500).await.unwrap(), Taken::Busy);
    catalog.release_upload(upload, "a", 1).await.unwrap();
    assert_eq!(catalog.take_upload(upload, "b", 1_600, 2_600).await.unwrap(), Taken::Held { fence: 2 });
    catalog.release_upload(upload, "a", 1).await.unwrap();
    assert!(catalog.wanted_uploads("b").await.unwrap().is_empty());
    assert_eq!(catalog.take_upload(upload, "a", 2_600, 3_600).await.unwrap(), Taken::Held { fence: 3 });
}

#[tokio::test]
async fn only_the_newest_holder_adds_bytes() {
    let bench = Bench::new().await;
    let (catalog, upload) = (&bench.catalog, bench.upload(1).await);
    assert_eq!(catalog.load_ledger(upload).await.unwrap(), LedgerState::default());
    catalog.take_upload(upload, "a", 0, 1_000).await.unwrap();
    let first = LedgerChange {
        checkpoint: Some((5, vec![1])),
        insert: vec![extent(0, 5, "one")],
        ..LedgerChange::default()
    };
    catalog.commit_ledger(upload, Some(1), &first).await.unwrap();
    catalog.take_upload(upload, "b", 1_000, 2_000).await.unwrap();
    let longer = LedgerChange {
        checkpoint: Some((8, vec![2])),
        remove: vec![0],
        insert: vec![extent(0, 8, "two")],
        part: None,
    };
    let late = catalog.commit_ledger(upload, Some(1), &longer).await;
    assert!(matches!(late, Err(LedgerError::Fenced)), "{late:?}");
    assert_eq!(catalog.load_ledger(upload).await.unwrap().extents, [extent(0, 5, "one")]);
    catalog.commit_ledger(upload, Some(2), &longer).await.unwrap();
    let state = catalog.load_ledger(upload).await.unwrap();
    assert_eq!((state.offset, state.hash, state.extents), (8, Some(vec![2]), vec![extent(0, 8, "two")]));
    catalog.terminate_upload(upload, 5).await.unwrap();
    let ended = catalog.commit_ledger(upload, Some(2), &LedgerChange::default()).await;
    assert!(matches!(ended, Err(LedgerError::Fenced)), "{ended:?}");
    assert!(
        catalog.load_ledger(upload).await.is_err(),
        "nobody needs the bytes of an upload that was given up"
    );
}

#[tokio::test]
async fn what_was_replaced_is_not_replaced_again() {
    let bench = Bench::new().await;
    let (catalog, upload) = (&bench.catalog, bench.upload(1).await);
    let insert = vec![extent(0, 5, "one"), extent(5, 8, "two")];
    catalog.commit_ledger(upload, None, &LedgerChange { insert, ..LedgerChange::default() }).await.unwrap();
    let joined =
        LedgerChange { remove: vec![0, 5], insert: vec![extent(0, 8, "joined")], ..LedgerChange::default() };
    catalog.commit_ledger(upload, None, &joined).await.unwrap();
    let again = catalog.commit_ledger(upload, None, &joined).await;
    assert!(matches!(again, Err(LedgerError::Replaced { start: 5 })), "{again:?}");
    assert_eq!(catalog.load_ledger(upload).await.unwrap().extents, [extent(0, 8, "joined")]);
}

#[tokio::test]
async fn parts_neither_repeat_nor_overlap() {
    let bench = Bench::new().await;
    let (catalog, upload) = (&bench.catalog, bench.upload(1).await);
    let part = |number, start, end| LedgerChange {
        part: Some(LedgerPart { number, start, end, sha256: [number as u8; 32] }),
        insert: vec![extent(start, end, "p")],
        ..LedgerChange::default()
    };
    catalog.commit_ledger(upload, None, &part(2, 10, 20)).await.unwrap();
    for refused in [part(2, 30, 40), part(3, 19, 30), part(3, 0, 11), part(3, 0, 100)] {
        let answer = catalog.commit_ledger(upload, None, &refused).await;
        assert!(matches!(answer, Err(LedgerError::Conflict { .. })), "{answer:?}");
    }
    catalog.commit_ledger(upload, None, &part(1, 0, 10)).await.unwrap();
    let state = catalog.load_ledger(upload).await.unwrap();
    assert_eq!(state.parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(state.extents.len(), 2);
}
