//! S3 that does not answer, answers too late, or does what it was asked and loses the answer.

use crate::bench::{Bench, MIB, at, collected, in_s3::credentials, noise, sha256};
use futures::future::join_all;
use reelyard_storage::{
    ReceiveError, StoreError, Uploads,
    s3::{Patience, S3Config, S3Credentials, S3Settings, S3Store},
    source_key,
};
use reelyard_testkit::{Fault, Kind, Plan, S3Server};
use reelyard_upload::BodyEnd;
use std::time::Duration;

crate::cases!(
    uploads_come_through_faults_of_every_kind,
    an_s3_that_is_gone_is_told_and_nothing_acknowledged_is_lost,
    an_answer_that_is_lost_every_time_leaves_nothing_that_counts,
    a_bucket_that_does_not_answer_is_no_reason_not_to_begin,
    a_bucket_that_is_not_there_is_told_at_the_start,
    wrong_credentials_are_told_at_the_start,
);

async fn uploads_come_through_faults_of_every_kind(mut bench: Bench) {
    bench.place().proxy.set_plan(Plan {
        seed: 42,
        per_thousand: vec![
            (80, Fault::SlowDown),
            (40, Fault::CutBefore),
            (60, Fault::LostReply),
            (40, Fault::HalfReply),
            (40, Fault::Delay(Duration::from_millis(30))),
        ],
        methods: Vec::new(),
    });
    let bench = &bench;
    let uploads = (0..6).map(|number| async move {
        let bytes = noise(3 * MIB + number * 100_001);
        let length = Some(bytes.len() as u64);
        let upload = bench.new_upload(length).await;
        let mut offset = 0;
        for chunk in bytes.chunks(700_000) {
            let pieces: Vec<&[u8]> = chunk.chunks(MIB / 4).collect();
            bench.send(upload, length, &at(offset), &pieces, BodyEnd::Complete).await.1.unwrap();
            offset += chunk.len();
        }
        let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
        assert_eq!(open.transfer().sha256(), Some(sha256(&bytes)));
        bench.store.finish_upload(upload, bytes.len() as u64).await.unwrap();
        let key = source_key(upload);
        bench.store.assemble_source(&key).await.unwrap();
        let read = bench.store.read_source(&key, 0..bytes.len() as u64).await.unwrap();
        assert!(collected(read).await == bytes, "the bytes are others than were sent");
        bench.store.forget_upload(upload).await.unwrap();
    });
    join_all(uploads).await;
}

async fn an_s3_that_is_gone_is_told_and_nothing_acknowledged_is_lost(mut bench: Bench) {
    let bytes = noise(2 * MIB);
    let length = Some(bytes.len() as u64);
    let upload = bench.new_upload(length).await;
    bench.send(upload, length, &at(0), &[&bytes[..MIB / 2]], BodyEnd::Complete).await.1.unwrap();
    bench.place().patience =
        Patience { bound_ms: 300, attempt_ms: 100, first_wait_ms: 5, longest_wait_ms: 20 };
    bench.reopen().await;
    for fault in [Fault::SlowDown, Fault::CutBefore, Fault::Hang] {
        bench.place().proxy.set_plan(Plan::always(fault));
        let (offset, outcome) =
            bench.send(upload, length, &at(MIB / 2), &[&bytes[MIB / 2..]], BodyEnd::Complete).await;
        assert!(matches!(outcome, Err(ReceiveError::Store(StoreError::Unavailable { .. }))), "{outcome:?}");
        assert_eq!(offset, MIB as u64 / 2);
    }
    bench.place().proxy.set_plan(Plan::calm());
    bench.reopen().await;
    assert_eq!(bench.offset(upload, length).await, MIB as u64 / 2);
    let rest = bench.send(upload, length, &at(MIB / 2), &[&bytes[MIB / 2..]], BodyEnd::Complete).await;
    assert_eq!(rest.1.unwrap().sha256(), Some(sha256(&bytes)));
}

async fn an_answer_that_is_lost_every_time_leaves_nothing_that_counts(mut bench: Bench) {
    let upload = bench.new_upload(Some(3)).await;
    bench.place().patience =
        Patience { bound_ms: 300, attempt_ms: 2_000, first_wait_ms: 5, longest_wait_ms: 20 };
    bench.reopen().await;
    bench.place().proxy.set_plan(Plan { methods: vec!["PUT"], ..Plan::always(Fault::LostReply) });
    let (offset, outcome) = bench.send(upload, Some(3), &at(0), &[b"abc"], BodyEnd::Complete).await;
    assert!(matches!(outcome, Err(ReceiveError::Store(StoreError::Unavailable { .. }))), "{outcome:?}");
    assert_eq!(offset, 0);
    bench.place().proxy.set_plan(Plan::calm());
    assert_eq!(bench.offset(upload, Some(3)).await, 0);
    bench.store.forget_upload(upload).await.unwrap();
    assert!(bench.store.list_uploads().await.unwrap().is_empty(), "objects that nobody names are gone");
}

async fn a_bucket_that_does_not_answer_is_no_reason_not_to_begin(mut bench: Bench) {
    let scratch = bench.directory.path().to_owned();
    let place = bench.place();
    place.patience = Patience { bound_ms: 200, attempt_ms: 100, first_wait_ms: 5, longest_wait_ms: 20 };
    place.proxy.set_plan(Plan::always(Fault::SlowDown));
    let store = place.open(&scratch).await.expect("it may come back, so this is no reason not to begin");
    let error = Uploads::list_uploads(&store).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("media"), "it names the bucket: {error}");
}

async fn a_bucket_that_is_not_there_is_told_at_the_start(mut bench: Bench) {
    let scratch = bench.directory.path().to_owned();
    let place = bench.place();
    let url = format!("s3://nowhere-to-be-found?endpoint={}", place.proxy.url());
    let config = S3Config::parse(&url).unwrap();
    let opened = S3Store::open(&config, credentials(), place.ledger.clone(), S3Settings::new(scratch)).await;
    let error = opened.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nowhere-to-be-found"), "{error}");
}

async fn wrong_credentials_are_told_at_the_start(mut bench: Bench) {
    let scratch = bench.directory.path().to_owned();
    let place = bench.place();
    if place.kind == Kind::Moto {
        return eprintln!("moto lets everybody in");
    }
    let config = S3Config::parse(&S3Server::url(place.proxy.url(), &place.prefix)).unwrap();
    let wrong = S3Credentials { secret_access_key: "a guess".to_owned(), ..credentials() };
    let opened = S3Store::open(&config, wrong, place.ledger.clone(), S3Settings::new(scratch)).await;
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("credentials"), "{error}");
}
