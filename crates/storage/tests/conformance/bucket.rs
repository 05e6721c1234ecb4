//! What really lies in the bucket: few objects, none that nobody names, none lost by an assembly that breaks off.

use crate::bench::{Bench, MIB, at, collected, noise, sha256};
use futures::future::join_all;
use reelyard_storage::{Sources as _, StoreError, s3::Patience, source_key};
use reelyard_testkit::{Fault, Kind, Plan};
use reelyard_upload::BodyEnd;

crate::cases!(
    many_small_chunks_become_few_objects,
    bytes_of_a_checked_chunk_that_was_wrong_are_removed,
    an_assembly_that_breaks_off_is_done_again,
    an_assembly_whose_answers_are_lost_is_done,
    more_objects_than_s3_joins_at_once_are_joined_in_steps,
    two_assemblies_at_once_do_no_harm,
    a_source_is_fetched_once_for_all_who_open_it,
    bytes_that_change_on_the_way_are_sent_again,
);

async fn many_small_chunks_become_few_objects(mut bench: Bench) {
    let bytes = noise(MIB * 2);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    let mut offset = 0;
    for chunk in bytes.chunks(20_000) {
        bench.send(upload, length, &at(offset), &[chunk], BodyEnd::Complete).await.1.unwrap();
        offset += chunk.len();
    }
    let place = bench.place();
    let objects = place.ledger.state(upload).extents.len();
    assert!(objects <= 12, "105 chunks lie in {objects} objects");
    place.wait_for_no_leftovers(upload).await;
}

async fn bytes_of_a_checked_chunk_that_was_wrong_are_removed(mut bench: Bench) {
    use reelyard_upload::{Algorithm, Check, Checksum, ChunkRequest};
    let bytes = noise(3 * MIB);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    bench.send(upload, length, &at(0), &[&bytes[..1_000]], BodyEnd::Complete).await.1.unwrap();
    let check = Check::Announced(Checksum::of(Algorithm::Sha256, b"something else"));
    let request = ChunkRequest { check, ..at(1_000) };
    let batches: Vec<&[u8]> = bytes[1_000..].chunks(MIB).collect();
    bench.send(upload, length, &request, &batches, BodyEnd::Complete).await.1.unwrap_err();
    bench.place().wait_for_no_leftovers(upload).await;
    assert_eq!(bench.offset(upload, length).await, 1_000);
    let rest = bench.send(upload, length, &at(1_000), &[&bytes[1_000..]], BodyEnd::Complete).await;
    assert_eq!(rest.1.unwrap().sha256(), Some(sha256(&bytes)));
}

/// A source of a few objects that are long enough to be copied.
async fn source_of_long_objects(bench: &mut Bench) -> (String, reelyard_model::UploadId, Vec<u8>) {
    bench.place().memory_bytes = 24 << 20;
    bench.reopen().await;
    let bytes = noise(20 * MIB + 17);
    let upload = bench.source(&bytes).await;
    assert!(bench.place().ledger.state(upload).extents.len() > 2);
    (source_key(upload), upload, bytes)
}

async fn assert_source(bench: &Bench, key: &str, bytes: &[u8]) {
    let read = bench.store.read_source(key, 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes, "the bytes are others than were sent");
}

const SHORT: Patience = Patience { bound_ms: 250, attempt_ms: 3_000, first_wait_ms: 5, longest_wait_ms: 20 };

async fn an_assembly_that_breaks_off_is_done_again(mut bench: Bench) {
    let (key, upload, bytes) = source_of_long_objects(&mut bench).await;
    bench.place().patience = SHORT;
    bench.reopen().await;
    for methods in [vec!["PUT"], vec!["PUT", "DELETE"], vec!["POST"]] {
        bench.place().proxy.set_plan(Plan { methods, ..Plan::always(Fault::SlowDown) });
        let outcome = bench.store.assemble_source(&key).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
        bench.place().proxy.set_plan(Plan::calm());
        assert_source(&bench, &key, &bytes).await;
    }
    assert!(bench.place().begun().await > 0, "one could not be aborted");
    assert!(bench.store.assemble_source(&key).await.unwrap());
    assert_eq!(bench.place().begun().await, 0);
    assert_source(&bench, &key, &bytes).await;
    bench.place().wait_for_no_leftovers(upload).await;
    bench.give_up(upload);
    bench.store.delete_source(&key).await.unwrap();
    assert!(bench.place().objects().await.is_empty());
}

async fn an_assembly_whose_answers_are_lost_is_done(mut bench: Bench) {
    let (key, upload, bytes) = source_of_long_objects(&mut bench).await;
    bench.place().proxy.set_plan(Plan {
        seed: 3,
        per_thousand: vec![(500, Fault::LostReply)],
        methods: vec!["PUT", "POST"],
    });
    bench.store.assemble_source(&key).await.unwrap();
    bench.place().proxy.set_plan(Plan::calm());
    assert_source(&bench, &key, &bytes).await;
    bench.place().wait_for_no_leftovers(upload).await;
}

async fn more_objects_than_s3_joins_at_once_are_joined_in_steps(mut bench: Bench) {
    bench.place().objects_joined_at_once = 3;
    let (key, upload, bytes) = source_of_long_objects(&mut bench).await;
    bench.place().memory_bytes = 4 << 20;
    bench.reopen().await;
    assert!(bench.store.assemble_source(&key).await.unwrap());
    assert_source(&bench, &key, &bytes).await;
    bench.place().wait_for_no_leftovers(upload).await;
}

async fn two_assemblies_at_once_do_no_harm(mut bench: Bench) {
    bench.place().objects_joined_at_once = 3;
    let (key, upload, bytes) = source_of_long_objects(&mut bench).await;
    let scratch = bench.directory.path().to_owned();
    let other = bench.place().open(&scratch).await.unwrap();
    let assemblies = [bench.store.assemble_source(&key), other.assemble_source(&key)];
    let outcomes = join_all(assemblies).await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    bench.store.assemble_source(&key).await.unwrap();
    assert_source(&bench, &key, &bytes).await;
    assert_eq!(bench.place().ledger.state(upload).extents.len(), 1);
    bench.store.forget_upload(upload).await.unwrap();
    bench.place().wait_for_no_leftovers(upload).await;
}

async fn a_source_is_fetched_once_for_all_who_open_it(mut bench: Bench) {
    let (key, _, _) = source_of_long_objects(&mut bench).await;
    let before = bench.place().proxy.requests();
    let files = join_all((0..10).map(|_| bench.store.open_source(&key))).await;
    assert!(files.iter().all(Result::is_ok));
    let requests = bench.place().proxy.requests() - before;
    assert!(requests <= 8, "{requests} requests for 20 MiB in parts of 6 MiB");
    drop(files);
    bench.store.open_source(&key).await.unwrap();
    assert_eq!(bench.place().proxy.requests() - before, requests, "it stays for a while");
}

async fn bytes_that_change_on_the_way_are_sent_again(mut bench: Bench) {
    if bench.place().kind == Kind::Moto {
        return eprintln!("moto takes bytes whatever their checksum is");
    }
    let bytes = noise(3 * MIB);
    bench.place().proxy.set_plan(Plan {
        seed: 5,
        per_thousand: vec![(400, Fault::Corrupt)],
        methods: vec!["PUT"],
    });
    let upload = bench.source(&bytes).await;
    bench.place().proxy.set_plan(Plan::calm());
    assert!(bench.place().proxy.faults() > 0);
    assert_source(&bench, &source_key(upload), &bytes).await;
}
