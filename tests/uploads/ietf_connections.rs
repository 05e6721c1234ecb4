//! The IETF dialect where connections matter: interim answers, cut bodies, requests that take over, `kill -9`.

use super::{
    crash::Chance,
    hand_over::check_hand_overs,
    ietf::{
        announced, append, completeness, create, creation, digest, head, request, source, sources, state,
        unlabelled,
    },
    server::Server,
    wire::{cut, read_answer, read_message, wait_until, wait_until_arrived},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// More than a batch, so that the beginning of it shows in the file before its end has come.
const SHOWS_BYTES: usize = 1_500_000;

// Status 104

#[test]
fn ietf_creation_is_announced_by_104() {
    let server = Server::start();
    // Before a byte of the body was sent.
    let (mut connection, announced) = announced(creation(&server, true), 6);
    assert_eq!(announced.header("upload-draft-interop-version"), Some("8"));
    assert!(announced.header("upload-limit").is_some());
    let upload = announced.header("location").unwrap();
    connection.write_all(b"abcdef").unwrap();
    let created = read_answer(&mut connection, false).unwrap();
    assert_eq!((created.status, completeness(&created)), (201, true));
    assert_eq!(created.header("location"), Some(upload), "the same in all answers");
}

#[test]
fn ietf_a_client_that_asks_first_gets_the_address_and_is_told_to_continue() {
    let server = Server::start();
    let mut connection = creation(&server, true).with("Expect", "100-continue").begin(Some(6));
    let told = [(); 2].map(|()| read_message(&mut connection, false).unwrap());
    let announced = told.iter().find(|answer| answer.status == 104).unwrap_or_else(|| panic!("{told:?}"));
    assert!(told.iter().any(|answer| answer.status == 100), "{told:?}");
    connection.write_all(b"abcdef").unwrap();
    let created = read_answer(&mut connection, false).unwrap();
    assert_eq!((created.status, created.header("location")), (201, announced.header("location")));
}

#[test]
fn ietf_progress_is_told_while_a_long_body_comes() {
    const BODY_BYTES: usize = 24 << 20;
    let server = Server::start();
    let upload = create(&server, None);
    let mut connection = append(&server, &upload, 0, true).begin(Some(BODY_BYTES));
    let mut told = 0;
    let mut sent = 0;
    // The next piece is sent when the last one was told of.
    while sent < BODY_BYTES {
        connection.write_all(&vec![3; 6 << 20]).unwrap();
        sent += 6 << 20;
        if sent == BODY_BYTES {
            break;
        }
        let progress = read_message(&mut connection, false).unwrap();
        assert_eq!((progress.status, progress.header("location")), (104, None));
        assert_eq!(progress.header("upload-draft-interop-version"), Some("8"));
        let offset = progress.number("upload-offset");
        assert!(offset > told && offset <= sent, "{offset} after {told}, {sent} sent");
        told = offset;
    }
    let last = read_answer(&mut connection, false).unwrap();
    assert_eq!((last.status, last.number("upload-offset")), (201, BODY_BYTES));
}

#[test]
fn ietf_nobody_gets_a_104_who_did_not_name_a_version_or_speaks_http_1_0() {
    let server = Server::start();
    for version in [None, Some("2"), Some("9"), Some("eight")] {
        let mut request = unlabelled(&server, "POST", "/uploads").with("Upload-Complete", "?1");
        if let Some(version) = version {
            request = request.with("Upload-Draft-Interop-Version", version);
        }
        let answer = request.send(b"abcdef");
        assert_eq!((answer.status, answer.interim.len()), (201, 0), "{version:?}");
    }
    let mut connection = TcpStream::connect(server.address).unwrap();
    write!(
        connection,
        "POST /uploads HTTP/1.0\r\nAuthorization: Bearer {}\r\nUpload-Draft-Interop-Version: 8\r\n\
         Upload-Complete: ?1\r\nContent-Length: 6\r\n\r\nabcdef",
        server.key
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 201"), "{answer}");
    assert!(!answer.contains(" 104 "), "{answer}");
}

// Cut bodies

/// A HEAD that comes before the server has read all would stop it there, so the file is the witness.
fn wait_for_offset(server: &Server, upload: &str, sent: usize) {
    server.wait_until_file_has(upload, sent);
    let (offset, _, complete) = state(server, upload);
    assert_eq!((offset, complete), (sent, false));
}

#[test]
fn ietf_a_cut_body_does_not_complete() {
    const WHOLE_BYTES: usize = 10 << 20;
    let server = Server::start();
    let body = vec![5; WHOLE_BYTES];
    // Each cut request brings a byte at least, for only that shows in the file that the server has begun with it.
    for sent in [1, 300 << 10, WHOLE_BYTES - 2] {
        let (connection, announced) = announced(creation(&server, true), WHOLE_BYTES);
        let upload = announced.header("location").unwrap();
        cut(connection, &body[..sent]);
        wait_for_offset(&server, upload, sent);
        let again = (sent + WHOLE_BYTES) / 2;
        cut(append(&server, upload, sent, true).begin(Some(WHOLE_BYTES - sent)), &body[sent..again]);
        wait_for_offset(&server, upload, again);
        let last = append(&server, upload, again, true).send(&body[again..]);
        assert_eq!((last.status, completeness(&last)), (201, true));
        assert_eq!(last.header("repr-digest"), Some(digest(&body).as_str()));
    }
}

#[test]
fn ietf_a_cut_chunked_body_does_not_complete() {
    let server = Server::start();
    let upload = create(&server, None);
    let connection = append(&server, &upload, 0, true).with("Transfer-Encoding", "chunked").begin(None);
    cut(connection, b"3\r\nabc\r\n");
    wait_for_offset(&server, &upload, 3);
    assert_eq!(state(&server, &upload), (3, None, false));
}

#[test]
fn ietf_the_length_is_told_after_a_cut() {
    let server = Server::start();
    // By a body that was to be the whole file.
    let (connection, announced) = announced(creation(&server, true), 6);
    let upload = announced.header("location").unwrap();
    cut(connection, b"abc");
    wait_for_offset(&server, upload, 3);
    assert_eq!(state(&server, upload), (3, Some(6), false));
    // By one that was to be its rest, and by the header.
    for (complete, length) in [(true, None), (false, Some("6"))] {
        let upload = create(&server, None);
        append(&server, &upload, 0, false).send(b"ab");
        assert_eq!(state(&server, &upload), (2, None, false));
        let mut request = append(&server, &upload, 2, complete);
        if let Some(length) = length {
            request = request.with("Upload-Length", length);
        }
        cut(request.begin(Some(4)), b"c");
        wait_for_offset(&server, &upload, 3);
        assert_eq!(state(&server, &upload), (3, Some(6), false));
        assert_eq!(append(&server, &upload, 3, true).send(b"de").status, 400, "it was told otherwise");
        assert_eq!(append(&server, &upload, 3, true).send(b"def").status, 201);
    }
}

#[test]
fn ietf_a_beginning_that_nobody_was_told_of_leaves_nothing_behind() {
    let server = Server::start();
    let left = || std::fs::read_dir(server.data.join("uploads")).unwrap().count();
    let mut connection =
        unlabelled(&server, "POST", "/uploads").with("Upload-Complete", "?1").begin(Some(2 * SHOWS_BYTES));
    connection.write_all(&vec![7; SHOWS_BYTES]).unwrap();
    wait_until("it is begun", || left() == 2);
    drop(connection);
    wait_until("it is removed", || left() == 0);
}

// Requests that take over

#[test]
fn ietf_a_new_append_stops_the_old_one() {
    let server = Server::start();
    let upload = create(&server, Some(2 * SHOWS_BYTES));
    let mut stalled = append(&server, &upload, 0, true).begin(Some(2 * SHOWS_BYTES));
    stalled.write_all(&vec![1; SHOWS_BYTES]).unwrap();
    server.wait_until_file_has(&upload, 1);
    wait_until_arrived(&stalled);
    // One that is wrong about the offset stops it too, and is told where to go on.
    let refused = append(&server, &upload, 0, true).send(&vec![2; 2 * SHOWS_BYTES]);
    assert_eq!((refused.status, refused.number("upload-offset")), (409, SHOWS_BYTES));
    let stopped = read_answer(&mut stalled, false).expect("the one that was stopped is told so");
    assert_eq!((stopped.status, stopped.number("upload-offset")), (423, SHOWS_BYTES));
    assert!(!completeness(&stopped));
    let last = append(&server, &upload, SHOWS_BYTES, true).send(&vec![2; SHOWS_BYTES]);
    assert_eq!(last.status, 201);
    let stored = source(&server, last.header("reelyard-asset").unwrap());
    assert!(stored[..SHOWS_BYTES].iter().all(|byte| *byte == 1));
    assert!(stored[SHOWS_BYTES..].iter().all(|byte| *byte == 2));
}

#[test]
fn ietf_an_append_at_the_offset_of_head_is_taken_while_another_stalls() {
    const ROUNDS: usize = 40;
    let server = Server::start();
    let upload = create(&server, None);
    let mut waits = Vec::new();
    let mut offset = 0;
    for round in 0..ROUNDS {
        let mut stalled = append(&server, &upload, offset, false).begin(Some(SHOWS_BYTES + 1));
        stalled.write_all(&vec![round as u8; SHOWS_BYTES]).unwrap();
        server.wait_until_file_has(&upload, offset + 1);
        wait_until_arrived(&stalled);
        let asked = Instant::now();
        let (told, ..) = state(&server, &upload);
        waits.push(asked.elapsed());
        assert_eq!(told, offset + SHOWS_BYTES, "round {round}");
        let stopped = read_answer(&mut stalled, false).expect("the one that was stopped is told so");
        assert_eq!((stopped.status, stopped.number("upload-offset")), (423, told));
        offset = told;
    }
    check_hand_overs(waits);
    assert_eq!(append(&server, &upload, offset, true).send(b"end").number("upload-offset"), offset + 3);
}

// Crashes

#[test]
fn ietf_the_offset_never_falls() {
    const KILLS: usize = 5;
    let mut chance = Chance::new(0x1e7f);
    let bytes: Vec<u8> = (0..40 << 20).map(|_| chance.below(256) as u8).collect();
    let mut server = Server::start();
    let (mut killed, mut finished) = (0, 0);
    while killed < KILLS || finished == 0 {
        let length = (16 << 20) + chance.below(bytes.len() - (16 << 20));
        let upload = create(&server, None);
        let mut told = 0;
        loop {
            let (offset, _, complete) = state(&server, &upload);
            assert!(offset >= told, "{offset} after {told} was told");
            told = offset;
            if complete {
                break;
            }
            let end = length.min(offset + 1 + chance.below(24 << 20));
            let body = &bytes[offset..end];
            let mut connection = append(&server, &upload, offset, end == length).begin(Some(body.len()));
            let kill = killed < KILLS && chance.below(3) > 0;
            let sent = if kill && chance.below(2) == 0 { chance.below(body.len()) } else { body.len() };
            connection.write_all(&body[..sent]).unwrap();
            if kill {
                // Not a wait for something: this is the random moment.
                std::thread::sleep(Duration::from_micros(chance.below(60_000) as u64));
                server.kill();
                killed += 1;
            }
            while let Some(answer) = read_message(&mut connection, false) {
                let offset = answer.number("upload-offset");
                assert!(offset >= told && offset <= end, "{offset} after {told}: {answer:?}");
                told = offset;
                if answer.status != 104 {
                    break;
                }
            }
            if kill {
                server.restart();
            }
        }
        assert_eq!(told, length);
        let last = head(&server, &upload);
        assert!(source(&server, last.header("reelyard-asset").unwrap()) == bytes[..length], "other bytes");
        assert_eq!(last.header("repr-digest"), Some(digest(&bytes[..length]).as_str()));
        finished += 1;
    }
    assert_eq!(sources(&server), finished, "one source for each finished upload");
    eprintln!("{killed} kills, {finished} uploads finished");
}

#[test]
fn ietf_an_upload_that_lost_bytes_is_refused() {
    let mut server = Server::start();
    let upload = create(&server, None);
    assert_eq!(append(&server, &upload, 0, false).send(&vec![1; SHOWS_BYTES]).status, 204);
    server.kill();
    let file = std::fs::OpenOptions::new().write(true).open(server.file_of(&upload)).unwrap();
    file.set_len(SHOWS_BYTES as u64 / 2).unwrap();
    server.restart();
    for offset in [0, SHOWS_BYTES / 2, SHOWS_BYTES] {
        for request in [
            request(&server, "HEAD", &upload),
            append(&server, &upload, offset, false),
            append(&server, &upload, offset, true),
        ] {
            let answer = request.send(b"");
            assert_eq!((answer.status, answer.header("upload-offset")), (410, None), "{answer:?}");
        }
    }
    assert_eq!(sources(&server), 0, "nothing is made of it");
}
