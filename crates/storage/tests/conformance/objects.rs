//! Renditions and publications: put, copied, read by range, listed, removed.

use crate::bench::{Bench, MIB, collected, noise};
use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use reelyard_storage::{Intent, ObjectEntry, StoreError};
use std::time::SystemTime;

crate::cases!(
    a_file_is_moved_and_moving_it_again_is_fine,
    a_long_file_is_moved_like_a_short_one,
    a_file_that_is_not_there_is_told,
    copies_can_be_made_twice_and_replaced,
    a_missing_original_is_named,
    copies_stay_when_the_originals_go,
    any_range_of_an_object_can_be_read,
    an_object_tells_what_http_needs_to_know,
    a_reader_that_waits_gets_everything_later,
    pieces_of_a_source_are_read_by_the_keys_of_its_layout,
    prefixes_end_at_path_parts,
    a_prefix_with_more_than_a_page_is_listed_and_removed,
    what_is_not_there_is_not_found_and_directories_are_no_objects,
    keys_that_lead_elsewhere_are_refused,
);

async fn a_file_is_moved_and_moving_it_again_is_fine(bench: Bench) {
    for bytes in [noise(300_000), Vec::new()] {
        let file = bench.scratch_file(&bytes);
        for _ in 0..2 {
            bench.objects.put_file(&file, "renditions/a/b/a1/x.m4s").await.unwrap();
        }
        assert!(!file.exists());
        assert!(bench.objects.read("renditions/a/b/a1/x.m4s").await.unwrap() == bytes);
    }
}

/// In S3 this one goes up in parts.
async fn a_long_file_is_moved_like_a_short_one(bench: Bench) {
    let bytes = noise(70 * MIB + 3);
    let file = bench.scratch_file(&bytes);
    bench.objects.put_file(&file, "renditions/a/b/a1/long.mp4").await.unwrap();
    assert!(!file.exists());
    let opened = bench.objects.open("renditions/a/b/a1/long.mp4", Intent::ReadAll).await.unwrap();
    let byte_len = opened.byte_len;
    assert!(collected(opened.read(0..byte_len).await.unwrap()).await == bytes);
}

async fn a_file_that_is_not_there_is_told(bench: Bench) {
    let nowhere = bench.directory.path().join("scratch/nowhere");
    let error = bench.objects.put_file(&nowhere, "renditions/a/b/a1/x.m4s").await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nowhere"), "{error}");
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

async fn copies_can_be_made_twice_and_replaced(bench: Bench) {
    let objects = &bench.objects;
    objects.put_bytes("renditions/a/one.m4s", "1".into()).await.unwrap();
    objects.put_bytes("renditions/a/two.m4s", "22".into()).await.unwrap();
    for _ in 0..2 {
        objects.copy_all(vec![pair("renditions/a/one.m4s", "publications/p/x.m4s")]).await.unwrap();
    }
    assert_eq!(&objects.read("publications/p/x.m4s").await.unwrap()[..], b"1");
    objects.copy_all(vec![pair("renditions/a/two.m4s", "publications/p/x.m4s")]).await.unwrap();
    assert_eq!(&objects.read("publications/p/x.m4s").await.unwrap()[..], b"22");
    objects.copy_all(Vec::new()).await.unwrap();
}

async fn a_missing_original_is_named(bench: Bench) {
    bench.objects.put_bytes("renditions/a/one.m4s", "1".into()).await.unwrap();
    let copies = vec![
        pair("renditions/a/one.m4s", "publications/p/x.m4s"),
        pair("renditions/a/none.m4s", "publications/p/y.m4s"),
    ];
    let error = bench.objects.copy_all(copies).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("renditions/a/none.m4s"), "{error}");
}

async fn copies_stay_when_the_originals_go(bench: Bench) {
    let count = 70;
    let from = |number: usize| format!("renditions/a/{number:05}.m4s");
    let to = |number: usize| format!("publications/a/a1/{number:05}.m4s");
    let some = &bench;
    let puts =
        (0..count).map(|number| async move { bench_put(some, &from(number), &noise(number + 1)).await });
    join_all(puts).await;
    bench.objects.copy_all((0..count).map(|number| (from(number), to(number))).collect()).await.unwrap();
    bench.objects.delete_prefix("renditions/a").await.unwrap();
    for number in 0..count {
        assert!(bench.objects.read(&to(number)).await.unwrap() == noise(number + 1), "{number}");
    }
}

async fn bench_put(bench: &Bench, key: &str, bytes: &[u8]) {
    bench.objects.put_bytes(key, bytes.to_vec().into()).await.unwrap();
}

async fn any_range_of_an_object_can_be_read(bench: Bench) {
    let bytes = noise(2 * MIB + 123);
    let key = "publications/a/a1/1080p/00001.m4s";
    bench_put(&bench, key, &bytes).await;
    let end = bytes.len();
    for range in [0..1, 0..end, MIB - 1..MIB + 1, MIB..end, end - 1..end, 5..5] {
        let wanted = range.start as u64..range.end as u64;
        for intent in [Intent::Look, Intent::ReadAll] {
            let opened = bench.objects.open(key, intent).await.unwrap();
            let read = collected(opened.read(wanted.clone()).await.unwrap()).await;
            assert!(read == bytes[range.clone()], "{range:?}");
        }
        let read = collected(bench.objects.read_range(key, wanted).await.unwrap()).await;
        assert!(read == bytes[range.clone()], "{range:?}");
    }
}

async fn an_object_tells_what_http_needs_to_know(bench: Bench) {
    let key = "publications/a/a1/master.m3u8";
    let before = SystemTime::now();
    bench_put(&bench, key, b"#EXTM3U").await;
    let look = bench.objects.open(key, Intent::Look).await.unwrap();
    let read = bench.objects.open(key, Intent::ReadAll).await.unwrap();
    assert_eq!(look.byte_len, 7);
    assert_eq!((look.byte_len, look.modified, &look.etag), (read.byte_len, read.modified, &read.etag));
    assert!(look.etag.len() > 2 && look.etag.starts_with('"') && look.etag.ends_with('"'), "{}", look.etag);
    // S3 tells whole seconds.
    let modified = look.modified.unwrap();
    assert!(modified + std::time::Duration::from_secs(2) > before, "{modified:?} {before:?}");
    bench_put(&bench, key, b"#EXTM3U and more").await;
    let other = bench.objects.open(key, Intent::Look).await.unwrap();
    assert_ne!(other.etag, look.etag, "other bytes have another tag");
}

async fn a_reader_that_waits_gets_everything_later(bench: Bench) {
    let bytes = noise(6 * MIB);
    let key = "publications/a/a1/1080p/00001.m4s";
    bench_put(&bench, key, &bytes).await;
    let opened = bench.objects.open(key, Intent::ReadAll).await.unwrap();
    let mut reading = opened.read(0..bytes.len() as u64).await.unwrap();
    let mut read = reading.next().await.unwrap().unwrap().to_vec();
    // Somebody else reads the whole meanwhile.
    let other = bench.objects.read_range(key, 0..bytes.len() as u64).await.unwrap();
    assert!(collected(other).await == bytes);
    while let Some(piece) = reading.try_next().await.unwrap() {
        assert!(piece.len() <= MIB, "a piece of {} bytes", piece.len());
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
}

async fn pieces_of_a_source_are_read_by_the_keys_of_its_layout(bench: Bench) {
    let bytes = noise(3 * MIB + 7);
    let key = reelyard_storage::source_key(bench.source(&bytes).await);
    let layout = bench.store.layout(&key).await.unwrap();
    let mut read = Vec::new();
    for piece in &layout.pieces {
        let stream = bench.objects.read_range(&piece.key, 0..piece.end - piece.start).await.unwrap();
        read.extend(collected(stream).await);
    }
    assert!(read == bytes);
    bench.store.delete_source(&key).await.unwrap();
    let gone = bench.objects.read_range(&layout.pieces[0].key, 0..1).await;
    assert!(gone.err().is_some_and(|error| error.is_not_found()), "told before the first byte");
}

fn keys(entries: Vec<ObjectEntry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.key).collect()
}

async fn prefixes_end_at_path_parts(bench: Bench) {
    let objects = &bench.objects;
    for key in ["renditions/x/a1/1", "renditions/x/a2/1", "renditions/x/top", "renditions/xy/1"] {
        objects.put_bytes(key, "...".into()).await.unwrap();
    }
    let below = objects.list_prefix("renditions/x/").await.unwrap();
    assert_eq!(below[0].byte_len, 3);
    assert_eq!(keys(below), ["renditions/x/a1/1", "renditions/x/a2/1", "renditions/x/top"]);
    assert_eq!(objects.list_folders("renditions/x").await.unwrap(), ["a1", "a2"]);
    assert!(objects.list_folders("renditions/none").await.unwrap().is_empty());
    objects.delete_prefix("renditions/xy/1").await.unwrap();
    assert_eq!(objects.byte_len("renditions/xy/1").await.unwrap(), None, "one object is a prefix, too");
    objects.put_bytes("renditions/xy/1", "...".into()).await.unwrap();
    for _ in 0..2 {
        objects.delete_prefix("renditions/x").await.unwrap();
    }
    assert!(objects.list_prefix("renditions/x").await.unwrap().is_empty());
    assert_eq!(objects.byte_len("renditions/xy/1").await.unwrap(), Some(3));
    assert_eq!(objects.byte_len("renditions/x/a1/1").await.unwrap(), None);
}

/// S3 lists a thousand keys at a time.
async fn a_prefix_with_more_than_a_page_is_listed_and_removed(bench: Bench) {
    let count = 1_050;
    let key = |number: usize| format!("renditions/big/t/a1/{number:05}.m4s");
    let puts = (0..count).map(|number| bench_put_owned(&bench, key(number)));
    futures::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    let listed = keys(bench.objects.list_prefix("renditions/big").await.unwrap());
    assert!(listed.iter().eq(&(0..count).map(key).collect::<Vec<_>>()), "{} keys", listed.len());
    bench.objects.delete_prefix("renditions/big").await.unwrap();
    assert!(bench.objects.list_prefix("renditions/big").await.unwrap().is_empty());
}

async fn bench_put_owned(bench: &Bench, key: String) {
    bench_put(bench, &key, b"x").await;
}

async fn what_is_not_there_is_not_found_and_directories_are_no_objects(bench: Bench) {
    bench_put(&bench, "renditions/a/b", b"x").await;
    for key in ["renditions/none", "renditions/a"] {
        for intent in [Intent::Look, Intent::ReadAll] {
            let error = bench.objects.open(key, intent).await.unwrap_err();
            assert!(error.is_not_found(), "{key}: {error}");
        }
        assert_eq!(bench.objects.byte_len(key).await.unwrap(), None, "{key}");
        assert!(bench.objects.read_range(key, 0..1).await.err().is_some_and(|error| error.is_not_found()));
    }
    assert!(bench.objects.read("renditions/none").await.unwrap_err().is_not_found());
}

async fn keys_that_lead_elsewhere_are_refused(bench: Bench) {
    let is_invalid = |error: StoreError| matches!(error, StoreError::InvalidKey { .. });
    for key in ["", "admin.key", "renditions/../admin.key", "catalog.sqlite/x", "renditions//x"] {
        assert!(is_invalid(bench.objects.open(key, Intent::Look).await.unwrap_err()), "{key}");
        assert!(is_invalid(bench.objects.delete_prefix(key).await.unwrap_err()), "{key}");
        assert!(is_invalid(bench.objects.put_bytes(key, "x".into()).await.unwrap_err()), "{key}");
        assert!(is_invalid(bench.objects.copy_all(vec![pair("renditions/a", key)]).await.unwrap_err()));
    }
    for writing in ["uploads/a/b", "uploads"] {
        assert!(is_invalid(bench.objects.put_bytes(writing, "x".into()).await.unwrap_err()), "{writing}");
        assert!(is_invalid(bench.objects.delete_prefix(writing).await.unwrap_err()), "{writing}");
    }
}
