//! Finished uploads: read, opened, put together, joined with others, removed.

use crate::bench::{Bench, MIB, at, collected, noise, sha256};
use futures::{StreamExt as _, future::join_all};
use reelyard_storage::source_key;
use reelyard_upload::BodyEnd;
use std::io::Read as _;

crate::cases!(
    any_range_of_a_source_can_be_read,
    a_source_is_put_together_and_stays_the_same,
    readers_notice_nothing_of_an_assembly,
    a_source_opens_as_a_file_for_many_at_once,
    a_layout_names_the_objects_that_hold_a_source,
    a_deleted_source_is_gone,
    partials_become_one_upload_also_when_it_was_interrupted,
    a_source_that_nobody_made_is_not_found,
);

async fn any_range_of_a_source_can_be_read(bench: Bench) {
    let bytes = noise(5 * MIB + 123);
    let key = source_key(bench.source(&bytes).await);
    assert_eq!(bench.store.source_len(&key).await.unwrap(), Some(bytes.len() as u64));
    for range in
        [0..1, 0..bytes.len(), MIB - 1..MIB + 1, 3 * MIB - 7..5 * MIB + 1, bytes.len() - 1..bytes.len(), 5..5]
    {
        let read = bench.store.read_source(&key, range.start as u64..range.end as u64).await.unwrap();
        assert!(collected(read).await == bytes[range.clone()], "{range:?}");
    }
}

async fn a_source_is_put_together_and_stays_the_same(bench: Bench) {
    // Short objects, long ones, and both beside one another.
    for chunks in
        [vec![100], vec![12 * MIB], vec![1_000, 900, 6 * MIB, 5], vec![5 * MIB, 300_000, 7 * MIB, MIB]]
    {
        let bytes = noise(chunks.iter().sum());
        let length = bytes.len() as u64;
        let upload = bench.new_upload(Some(length)).await;
        let mut offset = 0;
        for byte_len in chunks {
            let batches: Vec<_> = bytes[offset..offset + byte_len].chunks(MIB).collect();
            bench.send(upload, Some(length), &at(offset), &batches, BodyEnd::Complete).await.1.unwrap();
            offset += byte_len;
        }
        bench.store.finish_upload(upload, length).await.unwrap();
        let key = source_key(upload);
        bench.store.assemble_source(&key).await.unwrap();
        assert!(!bench.store.assemble_source(&key).await.unwrap(), "there is nothing left to do");
        bench.store.forget_upload(upload).await.unwrap();
        assert_eq!(bench.store.source_len(&key).await.unwrap(), Some(length));
        let read = bench.store.read_source(&key, 0..length).await.unwrap();
        assert!(collected(read).await == bytes, "the bytes are others than were sent");
        assert!(bench.store.list_uploads().await.unwrap().is_empty(), "nothing is left of the pieces");
    }
}

async fn readers_notice_nothing_of_an_assembly(bench: Bench) {
    let bytes = noise(8 * MIB);
    let key = source_key(bench.source(&bytes).await);
    let mut reading = bench.store.read_source(&key, 0..bytes.len() as u64).await.unwrap();
    let mut read = reading.next().await.unwrap().unwrap().to_vec();
    bench.store.assemble_source(&key).await.unwrap();
    while let Some(piece) = reading.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == bytes, "the bytes are others than were sent");
}

async fn a_source_opens_as_a_file_for_many_at_once(bench: Bench) {
    let bytes = noise(3 * MIB + 1);
    let key = source_key(bench.source(&bytes).await);
    let files = join_all((0..10).map(|_| bench.store.open_source(&key))).await;
    for file in files {
        let mut read = Vec::new();
        file.unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes, "each has a position of its own");
    }
}

async fn a_layout_names_the_objects_that_hold_a_source(bench: Bench) {
    let bytes = noise(5 * MIB + 9);
    let key = source_key(bench.source(&bytes).await);
    for assembled in [false, true] {
        if assembled {
            bench.store.assemble_source(&key).await.unwrap();
        }
        let layout = bench.store.layout(&key).await.unwrap();
        assert_eq!(layout.byte_len, bytes.len() as u64);
        let mut end = 0;
        for piece in &layout.pieces {
            assert_eq!(piece.start, end, "no gap");
            assert_eq!(layout.piece_at(piece.start), Some(piece));
            assert_eq!(layout.piece_at(piece.end - 1), Some(piece));
            end = piece.end;
        }
        assert_eq!(end, layout.byte_len);
        assert_eq!(layout.piece_at(end), None);
        if assembled {
            assert_eq!(layout.pieces.len(), 1);
            assert_eq!(layout.pieces[0].key, key);
        }
    }
    let nobody = source_key(reelyard_model::UploadId::from_uuid(uuid::Uuid::now_v7()));
    assert!(bench.store.layout(&nobody).await.unwrap_err().is_not_found());
}

async fn a_deleted_source_is_gone(bench: Bench) {
    for assembled in [false, true] {
        let upload = bench.source(&noise(2 * MIB)).await;
        let key = source_key(upload);
        if assembled {
            bench.store.assemble_source(&key).await.unwrap();
        }
        for _ in 0..2 {
            bench.store.delete_source(&key).await.unwrap();
            assert_eq!(bench.store.source_len(&key).await.unwrap(), None);
            bench.store.forget_upload(upload).await.unwrap();
        }
        assert!(bench.store.list_uploads().await.unwrap().is_empty());
    }
}

async fn partials_become_one_upload_also_when_it_was_interrupted(mut bench: Bench) {
    let parts = [noise(2 * MIB + 5), Vec::new(), noise(MIB)];
    let mut partials = Vec::new();
    for bytes in &parts {
        let length = bytes.len() as u64;
        let upload = bench.new_upload(Some(length)).await;
        bench.send(upload, Some(length), &at(0), &[bytes], BodyEnd::Complete).await.1.unwrap();
        partials.push((upload, length));
    }
    let bytes = parts.concat();
    let length = Some(bytes.len() as u64);
    let whole = bench.new_upload(length).await;
    bench.send(whole, length, &at(0), &[&bytes[..MIB + 3]], BodyEnd::Cut).await.1.unwrap();
    for _ in 0..2 {
        bench.crash().await;
        let transfer = bench.store.concatenate(whole, bench.terms(length), &partials).await.unwrap();
        assert_eq!(transfer.sha256(), Some(sha256(&bytes)));
    }
    bench.store.finish_upload(whole, bytes.len() as u64).await.unwrap();
    let read = bench.store.read_source(&source_key(whole), 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}

async fn a_source_that_nobody_made_is_not_found(bench: Bench) {
    let upload = bench.source(b"abc").await;
    let nobody = source_key(reelyard_model::UploadId::from_uuid(uuid::Uuid::now_v7()));
    assert!(bench.store.open_source(&nobody).await.unwrap_err().is_not_found());
    assert!(bench.store.read_source(&nobody, 0..1).await.err().is_some_and(|error| error.is_not_found()));
    assert!(bench.store.open_source(&format!("{}/../x", source_key(upload))).await.is_err());
}
