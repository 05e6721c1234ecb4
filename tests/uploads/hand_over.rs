//! Cut connections and requests that take over from each other.

use super::{server::Server, wire::read_answer};
use std::{
    io::Write as _,
    net::Shutdown,
    time::{Duration, Instant},
};

const CONDITION_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn what_arrived_before_a_cut_is_kept_to_the_byte() {
    let server = Server::start();
    for sent in [1, 1000, 300 << 10, 5 << 20, (10 << 20) - 1] {
        let upload = server.create(10 << 20);
        let body = vec![5; sent];
        let mut connection = server.patch_request(&upload, 0).begin(Some(10 << 20));
        connection.write_all(&body).unwrap();
        connection.shutdown(Shutdown::Both).unwrap();
        drop(connection);
        // What was written may not count yet: the next request, which takes over, must find all of it.
        let file = server.data.join("uploads").join(upload.rsplit('/').next().unwrap());
        let began = Instant::now();
        while std::fs::metadata(&file).unwrap().len() < sent as u64 {
            assert!(began.elapsed() < CONDITION_LIMIT, "{sent} bytes were sent and are not there");
            std::thread::yield_now();
        }
        assert_eq!(server.offset(&upload), sent);
    }
}

#[test]
fn what_arrived_of_a_checked_chunk_before_a_cut_does_not_count() {
    let server = Server::start();
    let upload = server.create(10);
    let request =
        server.patch_request(&upload, 0).with("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=");
    let mut connection = request.begin(Some(10));
    connection.write_all(b"hello").unwrap();
    drop(connection);
    assert_eq!(server.offset(&upload), 0);
    assert_eq!(server.patch(&upload, 0, b"0123456789").status, 204);
}

#[test]
fn a_new_request_takes_over_from_a_stalled_one_at_the_exact_offset() {
    const ROUNDS: usize = 40;
    // More than a batch, so that the beginning of it shows in the file.
    const ROUND_BYTES: usize = 1_500_000;
    let server = Server::start();
    let upload = server.create(ROUNDS * ROUND_BYTES + 1);
    let mut waits = Vec::new();
    let mut offset = 0;
    let mut stalled = Vec::new();
    for round in 0..ROUNDS {
        assert_eq!(offset, round * ROUND_BYTES);
        let mut connection = server.patch_request(&upload, offset).begin(Some(ROUND_BYTES + 1));
        connection.write_all(&vec![round as u8; ROUND_BYTES]).unwrap();
        // The connection stays open, and the server waits for one more byte.
        let file = server.data.join(upload.trim_start_matches('/'));
        let began = Instant::now();
        while std::fs::metadata(&file).unwrap().len() <= offset as u64 {
            assert!(began.elapsed() < CONDITION_LIMIT, "nothing arrives");
            std::thread::yield_now();
        }
        let asked = Instant::now();
        offset = server.offset(&upload);
        waits.push(asked.elapsed());
        let answer = read_answer(&mut connection, false).expect("the one that was stopped is told so");
        assert_eq!((answer.status, answer.number("upload-offset")), (423, offset));
        stalled.push(connection);
        if round + 1 == ROUNDS {
            assert_eq!(offset, ROUNDS * ROUND_BYTES);
        }
    }
    waits.sort();
    eprintln!("hand-over: median {:?}, worst {:?} of {ROUNDS}", waits[ROUNDS / 2], waits[ROUNDS - 1]);
    assert!(waits[ROUNDS - 1] < Duration::from_secs(2), "{:?}", waits[ROUNDS - 1]);
    assert!(server.patch(&upload, offset, b"x").header("reelyard-asset").is_some());
}

#[test]
fn a_slow_sender_is_counted_on_the_way() {
    let server = Server::start();
    let upload = server.create(1000);
    let mut connection = server.patch_request(&upload, 0).begin(Some(1000));
    connection.write_all(b"slow").unwrap();
    // The journal is the witness: HEAD would stop the sender.
    let journal = server.data.join(format!("{}.journal", upload.trim_start_matches('/')));
    let began = Instant::now();
    while std::fs::metadata(&journal).unwrap().len() <= 64 {
        assert!(began.elapsed() < CONDITION_LIMIT, "no checkpoint while the sender rests");
        std::thread::yield_now();
    }
    connection.write_all(b"er").unwrap();
    drop(connection);
    assert_eq!(server.offset(&upload), 6);
}

#[test]
fn a_server_that_stops_keeps_what_arrived_and_says_so() {
    const SENT: usize = 1_500_000;
    let mut server = Server::start();
    let upload = server.create(10 << 20);
    let mut connection = server.patch_request(&upload, 0).begin(Some(10 << 20));
    connection.write_all(&vec![9; SENT]).unwrap();
    let file = server.data.join(upload.trim_start_matches('/'));
    let began = Instant::now();
    while std::fs::metadata(&file).unwrap().len() == 0 {
        assert!(began.elapsed() < CONDITION_LIMIT, "nothing arrives");
        std::thread::yield_now();
    }
    server.stop();
    let answer = read_answer(&mut connection, false).expect("the sender is told");
    assert_eq!((answer.status, answer.number("upload-offset")), (503, SENT));
    server.restart();
    assert_eq!(server.offset(&upload), SENT);
}
