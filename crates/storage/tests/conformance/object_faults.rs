//! Renditions and publications in an S3 that asks to wait, breaks off in the middle, or loses its answers.

use crate::bench::{Bench, MIB, collected, noise};
use futures::future::join_all;
use reelyard_storage::{Intent, StoreError, s3::Patience};
use reelyard_testkit::{BUCKET, Fault, Plan};
use std::time::{Duration, Instant};

crate::cases!(
    objects_tell_a_cdn_what_they_are,
    publishing_comes_through_faults_of_every_kind,
    answers_that_are_cut_in_the_middle_are_read_to_their_end,
    a_long_file_comes_through_faults_of_every_kind,
    a_long_file_that_breaks_off_leaves_nothing_and_goes_up_again,
    a_store_that_is_gone_is_told_to_a_viewer_in_seconds,
    an_object_that_changes_while_it_is_read_is_not_spliced,
    a_whole_object_costs_one_request,
);

const SEVERAL: [(u16, Fault); 4] =
    [(80, Fault::SlowDown), (40, Fault::CutBefore), (60, Fault::LostReply), (40, Fault::HalfReply)];

fn rough(seed: u64) -> Plan {
    Plan { seed, per_thousand: SEVERAL.to_vec(), methods: Vec::new() }
}

async fn objects_tell_a_cdn_what_they_are(mut bench: Bench) {
    let file = bench.scratch_file(&noise(1_000));
    bench.objects.put_file(&file, "renditions/a/t/a1/00001.m4s").await.unwrap();
    let long = bench.scratch_file(&noise(65 * MIB));
    bench.objects.put_file(&long, "renditions/a/t/a1/long.m4s").await.unwrap();
    bench.objects.put_bytes("publications/a/a1/master.m3u8", "#EXTM3U".into()).await.unwrap();
    let copies = ["00001.m4s", "long.m4s"]
        .map(|file| (format!("renditions/a/t/a1/{file}"), format!("publications/a/a1/{file}")));
    bench.objects.copy_all(copies.to_vec()).await.unwrap();
    let place = bench.place();
    for (file, media_type, cache_control) in [
        ("00001.m4s", "video/iso.segment", "public, max-age=31536000, immutable"),
        ("long.m4s", "video/iso.segment", "public, max-age=31536000, immutable"),
        ("master.m3u8", "application/vnd.apple.mpegurl", "public, max-age=60"),
    ] {
        let key = format!("{}/publications/a/a1/{file}", place.prefix);
        let head = place.witness().head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.content_type(), Some(media_type), "{file}");
        assert_eq!(head.cache_control(), Some(cache_control), "{file}");
    }
}

async fn publishing_comes_through_faults_of_every_kind(mut bench: Bench) {
    bench.place().proxy.set_plan(rough(7));
    let (bench, count) = (&bench, 60);
    let from = |number: usize| format!("renditions/a/t/a1/{number:05}.m4s");
    let to = |number: usize| format!("publications/a/a1/{number:05}.m4s");
    let puts = (0..count).map(|number| async move {
        let file = bench.scratch_file(&noise(10_000 + number));
        bench.objects.put_file(&file, &from(number)).await.unwrap();
        assert!(!file.exists());
    });
    join_all(puts).await;
    bench.objects.copy_all((0..count).map(|number| (from(number), to(number))).collect()).await.unwrap();
    bench.objects.delete_prefix("renditions/a").await.unwrap();
    assert!(bench.objects.list_prefix("renditions/a").await.unwrap().is_empty());
    assert_eq!(bench.objects.list_prefix("publications/a").await.unwrap().len(), count);
    for number in 0..count {
        assert!(bench.objects.read(&to(number)).await.unwrap() == noise(10_000 + number), "{number}");
    }
}

async fn answers_that_are_cut_in_the_middle_are_read_to_their_end(mut bench: Bench) {
    let bytes = noise(2 * MIB);
    let key = "publications/a/a1/00001.m4s";
    bench.objects.put_bytes(key, bytes.clone().into()).await.unwrap();
    let plan = Plan { seed: 11, per_thousand: vec![(500, Fault::HalfReply)], methods: vec!["GET"] };
    bench.place().proxy.set_plan(plan);
    for intent in [Intent::ReadAll, Intent::Look].repeat(4) {
        let opened = bench.objects.open(key, intent).await.unwrap();
        let read = opened.read(0..bytes.len() as u64).await.unwrap();
        assert!(collected(read).await == bytes);
    }
    assert!(bench.place().proxy.faults() > 0);
}

async fn a_long_file_comes_through_faults_of_every_kind(mut bench: Bench) {
    let bytes = noise(66 * MIB + 1);
    bench.place().proxy.set_plan(rough(23));
    let file = bench.scratch_file(&bytes);
    bench.objects.put_file(&file, "renditions/a/t/a1/long.mp4").await.unwrap();
    bench.place().proxy.set_plan(Plan::calm());
    let read = bench.objects.read_range("renditions/a/t/a1/long.mp4", 0..bytes.len() as u64).await.unwrap();
    assert!(collected(read).await == bytes);
}

const SHORT: Patience = Patience { bound_ms: 250, attempt_ms: 3_000, first_wait_ms: 5, longest_wait_ms: 20 };

async fn a_long_file_that_breaks_off_leaves_nothing_and_goes_up_again(mut bench: Bench) {
    let bytes = noise(66 * MIB);
    bench.place().patience = SHORT;
    bench.reopen().await;
    let file = bench.scratch_file(&bytes);
    let key = "renditions/a/t/a1/long.mp4";
    for methods in [vec!["PUT"], vec!["PUT", "DELETE"]] {
        bench.place().proxy.set_plan(Plan { methods, ..Plan::always(Fault::SlowDown) });
        let error = bench.objects.put_file(&file, key).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(file.exists(), "it is still there to be tried again");
        bench.place().proxy.set_plan(Plan::calm());
        assert_eq!(bench.objects.byte_len(key).await.unwrap(), None);
    }
    assert!(bench.place().begun().await > 0, "one could not be aborted");
    bench.objects.put_file(&file, key).await.unwrap();
    assert_eq!(bench.objects.byte_len(key).await.unwrap(), Some(bytes.len() as u64));
    bench.objects.delete_prefix("renditions/a").await.unwrap();
    assert_eq!(bench.place().begun().await, 0, "what was begun goes with the rest");
    assert!(bench.place().objects().await.is_empty());
}

async fn a_store_that_is_gone_is_told_to_a_viewer_in_seconds(mut bench: Bench) {
    bench.place().patience = Patience::default();
    bench.reopen().await;
    let key = "publications/a/a1/00001.m4s";
    bench.objects.put_bytes(key, "x".into()).await.unwrap();
    for fault in [Fault::SlowDown, Fault::CutBefore, Fault::Hang] {
        bench.place().proxy.set_plan(Plan::always(fault));
        let begin = Instant::now();
        let error = bench.objects.open(key, Intent::ReadAll).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
    bench.place().proxy.set_plan(Plan::calm());
    bench.objects.open(key, Intent::ReadAll).await.unwrap();
}

async fn an_object_that_changes_while_it_is_read_is_not_spliced(bench: Bench) {
    let key = "publications/a/a1/master.m3u8";
    bench.objects.put_bytes(key, "one".into()).await.unwrap();
    let opened = bench.objects.open(key, Intent::Look).await.unwrap();
    bench.objects.put_bytes(key, "two".into()).await.unwrap();
    let error = opened.read(0..3).await.err().expect("it is another object now");
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    let opened = bench.objects.open(key, Intent::Look).await.unwrap();
    bench.objects.delete_prefix(key).await.unwrap();
    assert!(opened.read(0..3).await.err().is_some_and(|error| error.is_not_found()));
}

async fn a_whole_object_costs_one_request(mut bench: Bench) {
    let key = "publications/a/a1/00001.m4s";
    bench.objects.put_bytes(key, noise(MIB).into()).await.unwrap();
    let before = bench.place().proxy.requests();
    let opened = bench.objects.open(key, Intent::ReadAll).await.unwrap();
    assert_eq!(collected(opened.read(0..MIB as u64).await.unwrap()).await.len(), MIB);
    assert_eq!(bench.place().proxy.requests() - before, 1);
}
