//! What is special about parts on a disk: files, journals, sessions, restarts. What every store promises is in
//! `tests/conformance`.

use super::testing::{id, sha256, store, terms};
use crate::{LocalStore, Objects as _, PartError, Parts as _, StoreError, Uploads as _, source_key};
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{
    BodyEnd, Check,
    parts::{PartRefusal, PartRequest, PartSettled},
};
use std::{fs, ops::Range, os::unix::fs::MetadataExt as _, path::PathBuf};

fn request(number: u32, range: Range<u64>) -> PartRequest {
    PartRequest { number, range, check: Check::None }
}

/// Bytes that differ from place to place.
fn content(byte_len: usize) -> Vec<u8> {
    (0..byte_len).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn send(
    store: &LocalStore,
    upload: UploadId,
    whole: &[u8],
    number: u32,
    range: Range<u64>,
) -> Result<PartSettled, PartError> {
    let bytes = Bytes::copy_from_slice(&whole[range.start as usize..range.end as usize]);
    let mut part = store.begin_part(upload, terms(whole.len() as u64), &request(number, range)).await?;
    for piece in bytes.chunks(100_000) {
        part.write(vec![bytes.slice_ref(piece)]).await?;
    }
    part.end(BodyEnd::Complete).await
}

fn data_path(store: &LocalStore, upload: UploadId) -> PathBuf {
    store.root().join("uploads").join(upload.to_string())
}

#[tokio::test]
async fn parts_that_come_at_once_and_in_any_order_become_one_source_without_a_second_copy() {
    const PART: u64 = 1 << 20;
    let (_directory, store) = store().await;
    let (upload, whole) = (id(), content(12 * PART as usize + 77));
    let length = whole.len() as u64;
    store.create_parts(upload, length).await.unwrap();
    let starts: Vec<u64> = (0..length).step_by(PART as usize).collect();
    let sending = starts.into_iter().rev().map(|start| {
        send(&store, upload, &whole, (start / PART) as u32 + 1, start..(start + PART).min(length))
    });
    for outcome in futures::future::join_all(sending).await {
        assert!(matches!(outcome.unwrap(), PartSettled::Store(_)));
    }
    let transfer = store.hash_parts(upload, terms(length)).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&whole)));
    let inode = fs::metadata(data_path(&store, upload)).unwrap().ino();
    store.finish_upload(upload, length).await.unwrap();
    let source = fs::metadata(store.root().join(source_key(upload))).unwrap();
    assert_eq!(source.ino(), inode, "the same file, renamed");
    let journal = fs::metadata(data_path(&store, upload).with_extension("journal")).unwrap();
    let used = (source.blocks() + journal.blocks()) * 512;
    assert!(used as f64 <= length as f64 * 1.01, "{used} bytes on the disk for {length}");
    assert_eq!(&store.read(&source_key(upload)).await.unwrap()[..], whole);
    let again = store.hash_parts(upload, terms(length)).await.unwrap();
    assert_eq!(again.sha256(), Some(sha256(&whole)), "the journal still tells");
}

#[tokio::test]
async fn after_a_restart_recorded_parts_count_and_others_do_not_and_the_hash_goes_on() {
    let (directory, store) = store().await;
    let (upload, whole) = (id(), content(300_000));
    store.create_parts(upload, 300_000).await.unwrap();
    send(&store, upload, &whole, 3, 200_000..300_000).await.unwrap();
    send(&store, upload, &whole, 1, 0..100_000).await.unwrap();
    assert_eq!(store.hash_parts(upload, terms(300_000)).await.unwrap().offset(), 100_000);
    // Written, and killed before its end.
    let mut lost = store.begin_part(upload, terms(300_000), &request(2, 100_000..200_000)).await.unwrap();
    lost.write(vec![Bytes::copy_from_slice(&whole[100_000..200_000])]).await.unwrap();
    std::mem::forget((lost, store));
    let store = LocalStore::open(directory.path()).await.unwrap();
    let set = store.part_set(upload, terms(300_000)).await.unwrap();
    assert_eq!((&set.missing()[0], set.contiguous()), (&(100_000..200_000), 100_000));
    send(&store, upload, &whole, 2, 100_000..200_000).await.unwrap();
    let transfer = store.hash_parts(upload, terms(300_000)).await.unwrap();
    assert_eq!(transfer.sha256(), Some(sha256(&whole)));
}

#[tokio::test]
async fn a_whole_that_was_hashed_is_not_hashed_again_after_a_restart() {
    let (directory, store) = store().await;
    let (upload, whole) = (id(), content(100_000));
    store.create_parts(upload, 100_000).await.unwrap();
    send(&store, upload, &whole, 1, 0..100_000).await.unwrap();
    let expected = store.hash_parts(upload, terms(100_000)).await.unwrap().sha256();
    store.finish_upload(upload, 100_000).await.unwrap();
    fs::remove_file(store.root().join(source_key(upload))).unwrap();
    let store = LocalStore::open(directory.path()).await.unwrap();
    assert_eq!(store.hash_parts(upload, terms(100_000)).await.unwrap().sha256(), expected);
}

#[tokio::test]
async fn a_dropped_part_frees_its_place_when_its_last_byte_is_written() {
    let (_directory, store) = store().await;
    let (upload, whole) = (id(), content(1 << 20));
    store.create_parts(upload, 1 << 20).await.unwrap();
    let mut part = store.begin_part(upload, terms(1 << 20), &request(1, 0..1 << 20)).await.unwrap();
    part.write(vec![Bytes::copy_from_slice(&whole)]).await.unwrap();
    let other = store.begin_part(upload, terms(1 << 20), &request(2, 5..6)).await;
    assert!(matches!(other, Err(PartError::Refused(PartRefusal::OverlapsUnderWay { other: 1, .. }))));
    drop(part);
    loop {
        match send(&store, upload, &whole, 2, 5..6).await {
            Err(PartError::Refused(PartRefusal::OverlapsUnderWay { .. })) => tokio::task::yield_now().await,
            outcome => {
                outcome.unwrap();
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_room_of_a_part_that_does_not_count_is_given_back() {
    let (_directory, store) = store().await;
    let (upload, whole) = (id(), content(2 << 20));
    store.create_parts(upload, 2 << 20).await.unwrap();
    let mut part = store.begin_part(upload, terms(2 << 20), &request(1, 0..1 << 20)).await.unwrap();
    part.write(vec![Bytes::copy_from_slice(&whole[..1 << 20])]).await.unwrap();
    assert_eq!(part.end(BodyEnd::Cut).await.unwrap(), PartSettled::Discard);
    fs::File::open(data_path(&store, upload)).unwrap().sync_all().unwrap();
    assert_eq!(fs::metadata(data_path(&store, upload)).unwrap().blocks(), 0);
}

#[tokio::test]
async fn an_upload_in_parts_cannot_be_opened_as_one_that_grows_from_the_front() {
    let (_directory, store) = store().await;
    let (upload, whole) = (id(), content(100));
    store.create_parts(upload, 100).await.unwrap();
    send(&store, upload, &whole, 2, 50..100).await.unwrap();
    assert!(matches!(store.open_upload(upload, terms(100)).await, Err(StoreError::Damaged { .. })));
    assert_eq!(fs::metadata(data_path(&store, upload)).unwrap().len(), 100, "nothing was cut off");
}

#[tokio::test]
async fn acknowledged_parts_that_are_gone_are_reported_as_damage() {
    let (directory, store) = store().await;
    let (upload, whole) = (id(), content(100));
    store.create_parts(upload, 100).await.unwrap();
    send(&store, upload, &whole, 2, 50..100).await.unwrap();
    fs::write(data_path(&store, upload), b"short").unwrap();
    let store = LocalStore::open(directory.path()).await.unwrap();
    assert!(matches!(store.part_set(upload, terms(100)).await, Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn sessions_of_uploads_that_nobody_uses_are_let_go_and_their_files_closed() {
    let (_directory, store) = store().await;
    let uploads: Vec<UploadId> = (0..80).map(|_| id()).collect();
    for upload in &uploads {
        store.create_parts(*upload, 100).await.unwrap();
        send(&store, *upload, &content(100), 1, 0..50).await.unwrap();
    }
    let open = || {
        let links = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.starts_with(store.root())).count()
    };
    assert!(open() <= 2 * 64, "{}", open());
    for upload in &uploads {
        assert_eq!(store.part_set(*upload, terms(100)).await.unwrap().contiguous(), 50);
        store.forget_upload(*upload).await.unwrap();
        assert!(store.part_set(*upload, terms(100)).await.unwrap_err().is_not_found());
    }
    assert_eq!(open(), 0);
}

#[tokio::test]
async fn a_part_whose_upload_was_given_up_while_it_came_is_not_stored() {
    let (_directory, store) = store().await;
    let upload = id();
    store.create_parts(upload, 100).await.unwrap();
    let mut part = store.begin_part(upload, terms(100), &request(1, 0..100)).await.unwrap();
    part.write(vec![Bytes::from(content(100))]).await.unwrap();
    store.forget_upload(upload).await.unwrap();
    assert!(part.end(BodyEnd::Complete).await.is_err());
    assert_eq!(store.list_uploads().await.unwrap(), []);
}

/// For a look at speed: `cargo test --release -p reelyard-storage parts_speed -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 2 GiB and takes its time"]
async fn parts_speed() {
    const PART: u64 = 16 << 20;
    const LENGTH: u64 = 2 << 30;
    let senders: u64 = std::env::var("SENDERS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let (_directory, store) = store().await;
    let upload = id();
    store.create_parts(upload, LENGTH).await.unwrap();
    let piece = Bytes::from(content(1 << 20));
    let began = std::time::Instant::now();
    let sending = (0..senders).map(|sender| {
        let (store, piece) = (store.clone(), piece.clone());
        tokio::spawn(async move {
            for number in (sender..LENGTH / PART).step_by(senders as usize) {
                let start = number * PART;
                let request = request(number as u32 + 1, start..start + PART);
                let mut part = store.begin_part(upload, terms(LENGTH), &request).await.unwrap();
                for _ in 0..PART / (1 << 20) {
                    part.write(vec![piece.clone()]).await.unwrap();
                }
                part.end(BodyEnd::Complete).await.unwrap();
                let store = store.clone();
                tokio::spawn(async move { store.hash_parts(upload, terms(LENGTH)).await });
            }
        })
    });
    futures::future::join_all(sending).await;
    let landed = began.elapsed();
    let transfer = store.hash_parts(upload, terms(LENGTH)).await.unwrap();
    let hashed = began.elapsed();
    store.finish_upload(upload, LENGTH).await.unwrap();
    let finished = began.elapsed();
    assert!(transfer.is_whole());
    println!(
        "{senders} senders: landed {landed:?}, hashed {:?} later, renamed {:?} later",
        hashed - landed,
        finished - hashed
    );
}
