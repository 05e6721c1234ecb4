//! Cut connections and requests that take over from each other.

use super::{
    server::Server,
    wire::{cut, read_answer, wait_until, wait_until_arrived},
};
use std::{
    io::Write as _,
    time::{Duration, Instant},
};

/// What is promised is 100 ms; a machine that runs other tests beside this one gets more, and the worst of many meets its
/// worst moment.
const USUAL_HAND_OVER: Duration = Duration::from_secs(1);
const WORST_HAND_OVER: Duration = Duration::from_secs(10);

/// How long the one who came later waited each time.
pub(crate) fn check_hand_overs(mut waits: Vec<Duration>) {
    waits.sort();
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    eprintln!("hand-over: median {median:?}, worst {worst:?} of {}", waits.len());
    assert!(median < USUAL_HAND_OVER && worst < WORST_HAND_OVER, "median {median:?}, worst {worst:?}");
}

#[test]
fn what_arrived_before_a_cut_is_kept_to_the_byte() {
    let server = Server::start();
    for sent in [1, 1000, 300 << 10, 5 << 20, (10 << 20) - 1] {
        let upload = server.create(10 << 20);
        cut(server.patch_request(&upload, 0).begin(Some(10 << 20)), &vec![5; sent]);
        // What was written may not count yet: the next request, which takes over, must find all of it.
        server.wait_until_file_has(&upload, sent);
        assert_eq!(server.offset(&upload), sent);
    }
}

#[test]
fn what_arrived_of_a_checked_chunk_before_a_cut_does_not_count() {
    let server = Server::start();
    let upload = server.create(10);
    let request =
        server.patch_request(&upload, 0).with("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=");
    let connection = request.begin(Some(10));
    server.wait_until_receiving(1);
    cut(connection, b"hello");
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
        // The connection stays open, and the server waits for one more byte. It has begun with this request, and the
        // rest may still lie in its socket, where the one that takes over must find it.
        server.wait_until_file_has(&upload, offset + 1);
        wait_until_arrived(&connection);
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
    check_hand_overs(waits);
    assert!(server.patch(&upload, offset, b"x").header("reelyard-asset").is_some());
}

#[test]
fn a_slow_sender_is_counted_on_the_way() {
    let server = Server::start();
    let upload = server.create(1000);
    let mut connection = server.patch_request(&upload, 0).begin(Some(1000));
    connection.write_all(b"slow").unwrap();
    // The journal is the witness: HEAD would stop the sender.
    let journal = server.file_of(&format!("{upload}.journal"));
    wait_until("there is a checkpoint while the sender rests", || {
        std::fs::metadata(&journal).unwrap().len() > 64
    });
    connection.write_all(b"er").unwrap();
    drop(connection);
    server.wait_until_file_has(&upload, 6);
    assert_eq!(server.offset(&upload), 6);
}

#[test]
fn a_server_that_stops_keeps_what_arrived_and_says_so() {
    const SENT: usize = 1_500_000;
    let mut server = Server::start();
    let upload = server.create(10 << 20);
    let mut connection = server.patch_request(&upload, 0).begin(Some(10 << 20));
    connection.write_all(&vec![9; SENT]).unwrap();
    server.wait_until_file_has(&upload, 1);
    wait_until_arrived(&connection);
    server.stop();
    let answer = read_answer(&mut connection, false).expect("the sender is told");
    assert_eq!((answer.status, answer.number("upload-offset")), (503, SENT));
    server.restart();
    assert_eq!(server.offset(&upload), SENT);
}
