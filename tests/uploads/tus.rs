//! The extensions of tus 1.0.0 on the wire, and what `protocol.rs` leaves of the core: a test for each demand that
//! `docs/conformance/tus.md` lists. Concatenation is in `tus_concatenation.rs`.

use super::{
    server::Server,
    wire::{Answer, Request, wait_until},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, fmt::rfc2822};
use reelyard_catalog::Catalog;
use sha2::{Digest, Sha256};
use std::time::Duration;

const BODY_TYPE: &str = "application/offset+octet-stream";
/// Checksums of `hello world` by other programs, in the order in which OPTIONS offers the algorithms.
const HELLO: &[u8] = b"hello world";
const HELLO_CHECKSUMS: [&str; 5] = [
    "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
    "sha256 uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=",
    "md5 XrY7u+Ae7tCTyyK7j1rNww==",
    "crc32 DUoRhQ==",
    "crc32c yZRlqg==",
];

/// An upload whose length is told later.
fn deferred(server: &Server) -> String {
    let answer = server.tus("POST", "/uploads").with("Upload-Defer-Length", "1").send(b"");
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

fn patch_telling(server: &Server, upload: &str, offset: usize, length: usize) -> Request {
    server.patch_request(upload, offset).with("Upload-Length", &length.to_string())
}

/// Its length is still open.
fn assert_open(server: &Server, upload: &str, offset: usize) {
    let head = server.tus("HEAD", upload).send(b"");
    assert_eq!((head.status, head.number("upload-offset")), (200, offset), "{head:?}");
    assert_eq!((head.header("upload-defer-length"), head.header("upload-length")), (Some("1"), None));
}

fn content(server: &Server, upload: &str) -> Vec<u8> {
    let answer = server.tus("GET", upload).send(b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

// Core protocol

#[test]
fn tus_every_answer_names_the_version() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let upload = server.create(5);
    let given_up = server.create(5);
    server.tus("DELETE", &given_up).send(b"");
    let request = |method: &str, path: &str| server.tus(method, path);
    let patch = || server.patch_request(&upload, 0);
    for (status, answer) in [
        (400, request("POST", "/uploads").send(b"")),
        (400, request("POST", "/uploads").with("X-HTTP-Method-Override", "BREW").send(b"")),
        (401, server.bare("HEAD", &upload).with("Tus-Resumable", "1.0.0").send(b"")),
        (404, request("HEAD", "/uploads/nonsense").send(b"")),
        (405, request("PUT", &upload).send(b"")),
        (405, request("DELETE", "/uploads").send(b"")),
        (409, server.patch(&upload, 4, b"x")),
        (409, request("GET", &upload).send(b"")),
        (410, request("HEAD", &given_up).send(b"")),
        (401, server.bare("HEAD", &upload).send(b"")),
        (412, request("HEAD", &upload).with("Tus-Resumable", "0.2.2").send(b"")),
        (413, request("POST", "/uploads").with("Upload-Length", "1001").send(b"")),
        (413, server.patch(&upload, 0, b"abcdef")),
        (415, request("PATCH", &upload).with("Upload-Offset", "0").send(b"x")),
        (460, patch().with("Upload-Checksum", HELLO_CHECKSUMS[0]).send(b"other")),
        (201, request("POST", "/uploads").with("Upload-Length", "5").send(b"")),
        (204, patch().send(b"abcde")),
        (200, request("HEAD", &upload).send(b"")),
        (200, request("GET", &upload).send(b"")),
        (204, request("DELETE", &upload).send(b"")),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("tus-resumable"), Some("1.0.0"), "{answer:?}");
    }
}

#[test]
fn tus_head_tells_the_offset_at_the_start_and_when_complete() {
    let server = Server::start();
    let upload = server.create(3);
    for (offset, body) in [(0, b"".as_slice()), (1, b"a"), (3, b"bc")] {
        if !body.is_empty() {
            assert_eq!(server.patch(&upload, offset - body.len(), body).status, 204);
        }
        let head = server.tus("HEAD", &upload).send(b"");
        assert_eq!(
            (head.status, head.number("upload-offset"), head.number("upload-length")),
            (200, offset, 3)
        );
        assert_eq!(head.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn tus_options_ignores_the_version_of_the_request() {
    let server = Server::start();
    for version in [None, Some("1.0.0"), Some("0.2.2"), Some("nonsense")] {
        let request = server.bare("OPTIONS", "/uploads");
        let answer =
            version.into_iter().fold(request, |request, v| request.with("Tus-Resumable", v)).send(b"");
        assert_eq!(answer.status, 204, "{version:?}");
        assert_eq!(answer.header("tus-version"), Some("1.0.0"), "{version:?}");
    }
}

// A length that is told later

#[test]
fn tus_a_deferral_that_is_not_1_is_400() {
    let server = Server::start();
    for value in ["0", "2", "true", "", "1, 1"] {
        let answer = server.tus("POST", "/uploads").with("Upload-Defer-Length", value).send(b"");
        assert_eq!(answer.status, 400, "{value:?}");
        assert!(answer.detail().contains("Upload-Defer-Length: 1"), "{answer:?}");
    }
    let both = server.tus("POST", "/uploads").with("Upload-Defer-Length", "1").with("Upload-Length", "3");
    assert_eq!(both.send(b"").status, 400);
    assert_eq!(std::fs::read_dir(server.data.join("uploads")).unwrap().count(), 0, "nothing was made");
}

#[test]
fn tus_a_deferred_length_is_told_with_a_patch_and_then_shown() {
    let server = Server::start();
    let upload = deferred(&server);
    assert_open(&server, &upload, 0);
    assert_eq!(server.patch(&upload, 0, b"abc").status, 204);
    assert_open(&server, &upload, 3);
    let answer = patch_telling(&server, &upload, 3, 8).send(b"de");
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 5));
    let head = server.tus("HEAD", &upload).send(b"");
    assert_eq!((head.number("upload-offset"), head.number("upload-length")), (5, 8));
    assert_eq!(head.header("upload-defer-length"), None);
    assert_eq!(server.patch(&upload, 5, b"fghi").status, 413, "the length counts from now on");
    assert!(server.patch(&upload, 5, b"fgh").header("reelyard-asset").is_some());
    assert_eq!(content(&server, &upload), b"abcdefgh");
}

/// What tus-js-client does: it learns the end of a stream when nothing comes any more.
#[test]
fn tus_a_length_that_is_told_without_bytes_completes_the_upload() {
    let server = Server::start();
    let upload = deferred(&server);
    server.patch(&upload, 0, b"abc");
    let answer = patch_telling(&server, &upload, 3, 3).send(b"");
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 3));
    let asset = answer.header("reelyard-asset").expect("complete").to_owned();
    let again = patch_telling(&server, &upload, 3, 3).send(b"");
    assert_eq!((again.status, again.header("reelyard-asset")), (204, Some(asset.as_str())));
    let empty = deferred(&server);
    assert!(patch_telling(&server, &empty, 0, 0).send(b"").header("reelyard-asset").is_some());
    assert_eq!(content(&server, &empty), b"");
}

#[test]
fn tus_a_length_that_was_told_cannot_be_changed() {
    let mut server = Server::start();
    let (told_late, told_at_once) = (deferred(&server), server.create(10));
    assert_eq!(patch_telling(&server, &told_late, 0, 10).send(b"abc").status, 204);
    assert_eq!(server.patch(&told_at_once, 0, b"abc").status, 204);
    server.kill();
    server.restart();
    for upload in [&told_late, &told_at_once] {
        for other in [9, 11] {
            let answer = patch_telling(&server, upload, 3, other).send(b"d");
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.detail().contains("10 bytes"), "{answer:?}");
        }
        let head = server.tus("HEAD", upload).send(b"");
        assert_eq!((head.number("upload-offset"), head.number("upload-length")), (3, 10));
        assert_eq!(patch_telling(&server, upload, 3, 10).send(b"d").status, 204, "the same again is fine");
    }
}

#[test]
fn tus_a_length_below_the_offset_or_senseless_is_400_and_stays_open() {
    let server = Server::start();
    let upload = deferred(&server);
    server.patch(&upload, 0, b"abcde");
    assert_eq!(patch_telling(&server, &upload, 5, 4).send(b"").status, 400);
    for senseless in ["-1", "many", "99999999999999999999"] {
        let request = server.patch_request(&upload, 5).with("Upload-Length", senseless);
        assert_eq!(request.send(b"f").status, 400, "{senseless}");
    }
    assert_open(&server, &upload, 5);
}

/// "If the offsets do not match, the server must answer 409 without modifying the upload": its length neither.
#[test]
fn tus_a_patch_that_is_refused_tells_no_length() {
    let server = Server::start();
    let upload = deferred(&server);
    server.patch(&upload, 0, b"abc");
    assert_eq!(patch_telling(&server, &upload, 2, 10).send(b"d").status, 409);
    assert_eq!(patch_telling(&server, &upload, 2, 2).send(b"").status, 409, "whatever the length");
    assert_eq!(patch_telling(&server, &upload, 3, 4).send(b"def").status, 413, "more than it says itself");
    assert_open(&server, &upload, 3);
}

#[test]
fn tus_a_deferred_upload_ends_at_the_largest_size() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let upload = deferred(&server);
    assert_eq!(patch_telling(&server, &upload, 0, 1001).send(b"abc").status, 413);
    assert_eq!(server.patch(&upload, 0, &[7; 1001]).status, 413);
    assert_eq!(server.patch_request(&upload, 0).send_chunked(&[&[7; 600], &[7; 600]]).status, 413);
    let head = server.tus("HEAD", &upload).send(b"");
    assert!(head.number("upload-offset") <= 1000);
    assert_eq!(head.header("upload-defer-length"), Some("1"));
    let offset = head.number("upload-offset");
    assert_eq!(server.patch(&upload, offset, &vec![7; 1000 - offset]).status, 204);
    let one_more = server.patch(&upload, 1000, b"x");
    assert_eq!((one_more.status, &one_more.problem()["max_bytes"]), (413, &1000.into()));
    assert!(patch_telling(&server, &upload, 1000, 1000).send(b"").header("reelyard-asset").is_some());
}

#[test]
fn tus_a_deferred_upload_may_begin_with_its_creation() {
    let server = Server::start();
    let create =
        || server.tus("POST", "/uploads").with("Upload-Defer-Length", "1").with("Content-Type", BODY_TYPE);
    for answer in [create().send(b"abc"), create().send_chunked(&[b"ab", b"c"])] {
        assert_eq!((answer.status, answer.number("upload-offset")), (201, 3));
        let upload = answer.header("location").unwrap();
        assert_open(&server, upload, 3);
        assert!(patch_telling(&server, upload, 3, 6).send(b"def").header("reelyard-asset").is_some());
        assert_eq!(content(&server, upload), b"abcdef");
    }
}

#[test]
fn tus_a_deferred_length_outlives_a_kill() {
    let mut server = Server::start();
    let (open, told) = (deferred(&server), deferred(&server));
    server.patch(&open, 0, b"abc");
    assert_eq!(patch_telling(&server, &told, 0, 6).send(b"abc").status, 204);
    server.kill();
    server.restart();
    assert_open(&server, &open, 3);
    assert_eq!(server.tus("HEAD", &told).send(b"").number("upload-length"), 6);
    assert!(server.patch(&told, 3, b"def").header("reelyard-asset").is_some());
    assert!(patch_telling(&server, &open, 3, 6).send(b"def").header("reelyard-asset").is_some());
    assert_eq!((content(&server, &told), content(&server, &open)), (b"abcdef".to_vec(), b"abcdef".to_vec()));
}

// Metadata

#[test]
fn tus_metadata_without_values_comes_back_as_it_came() {
    let server = Server::start();
    for metadata in
        ["is_confidential", "a ,b", "a,b,filename aG9saWRheS5tcDQ=", "filename aG9saWRheS5tcDQ=,a "]
    {
        let create =
            server.tus("POST", "/uploads").with("Upload-Length", "3").with("Upload-Metadata", metadata);
        let answer = create.send(b"");
        assert_eq!(answer.status, 201, "{metadata:?}");
        let upload = answer.header("location").unwrap().to_owned();
        for _ in ["before", "after"] {
            let head = server.tus("HEAD", &upload).send(b"");
            // Blanks around a header's value are not part of it (RFC 9110 section 5.5).
            assert_eq!(head.header("upload-metadata"), Some(metadata.trim()));
            server.patch(&upload, 0, b"abc");
        }
    }
    let none =
        server.tus("POST", "/uploads").with("Upload-Length", "3").with("Upload-Metadata", "").send(b"");
    let head = server.tus("HEAD", none.header("location").unwrap()).send(b"");
    assert_eq!((head.status, head.header("upload-metadata")), (200, None));
}

// Expiration

fn expires(answer: &Answer) -> Timestamp {
    let text = answer.header("upload-expires").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(text.ends_with(" GMT"), "{text}");
    rfc2822::parse(text).unwrap().timestamp()
}

#[test]
fn tus_creation_and_patch_tell_when_the_upload_expires() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    let server = Server::start();
    // Dates are told by the second.
    let earliest = Timestamp::now() + WEEK - Duration::from_secs(2);
    let created = server.tus("POST", "/uploads").with("Upload-Length", "5").send(b"");
    let upload = created.header("location").unwrap();
    let begun = server.tus("POST", "/uploads").with("Upload-Length", "5").with("Content-Type", BODY_TYPE);
    let last = server.tus("POST", "/uploads").with("Upload-Defer-Length", "1").send(b"");
    let answers = [
        expires(&created),
        expires(&begun.send(b"abc")),
        expires(&last),
        expires(&server.patch(upload, 0, b"ab")),
        expires(&server.patch(upload, 2, b"c")),
        expires(&server.tus("HEAD", upload).send(b"")),
    ];
    for told in answers {
        assert!(told >= earliest && told <= Timestamp::now() + WEEK, "{told:?}");
    }
    let finished = server.patch(upload, 3, b"de");
    assert_eq!(finished.header("upload-expires"), None, "what is finished does not expire");
    assert_eq!(server.tus("HEAD", upload).send(b"").header("upload-expires"), None);
}

/// The server's own sweep, which runs when it starts; only the week of waiting is skipped.
#[test]
fn tus_an_expired_upload_is_410() {
    let mut server = Server::start();
    let (expired, kept) = (server.create(5), server.create(5));
    server.patch(&expired, 0, b"abc");
    server.patch(&kept, 0, b"abc");
    server.stop();
    expire(&server, &expired);
    server.restart();
    wait_until("it expires", || server.tus("HEAD", &expired).send(b"").status == 410);
    let head = server.tus("HEAD", &expired).send(b"");
    assert_eq!(head.header("upload-offset"), None);
    let refused = server.patch(&expired, 3, b"de");
    assert_eq!(refused.status, 410);
    assert!(refused.detail().contains("expired"), "{refused:?}");
    assert_eq!(server.tus("DELETE", &expired).send(b"").status, 410);
    assert_eq!(server.offset(&kept), 3);
}

/// In the catalogue of a server that is not running, its time is over.
pub(crate) fn expire(server: &Server, upload: &str) {
    let id = upload.rsplit('/').next().unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let catalog = Catalog::open(&server.data.join("catalog.sqlite")).await.unwrap();
        catalog.upload_received(id, 0, 1, 2).await.unwrap();
        catalog.close().await;
    });
}

// Checksums

#[test]
fn tus_every_offered_algorithm_is_compared() {
    let server = Server::start();
    let upload = server.create(HELLO_CHECKSUMS.len() * HELLO.len());
    let offered = server.bare("OPTIONS", "/uploads").send(b"");
    let offered: Vec<&str> = offered.header("tus-checksum-algorithm").unwrap().split(',').collect();
    for (n, checksum) in HELLO_CHECKSUMS.into_iter().enumerate() {
        assert_eq!(offered[n], checksum.split(' ').next().unwrap());
        let offset = n * HELLO.len();
        let patch = || server.patch_request(&upload, offset).with("Upload-Checksum", checksum);
        let wrong = patch().send(b"Hello world");
        assert_eq!((wrong.status, wrong.number("upload-offset")), (460, offset), "{checksum}");
        assert_eq!(server.offset(&upload), offset);
        assert_eq!(patch().send(HELLO).status, 204, "{checksum}");
    }
    assert_eq!(content(&server, &upload), HELLO.repeat(HELLO_CHECKSUMS.len()));
}

fn trailing(server: &Server, upload: &str, offset: usize, body: &[u8], trailers: &[(&str, &str)]) -> Answer {
    let request = server.patch_request(upload, offset).with("Trailer", "Upload-Checksum");
    request.send_chunked_then(&[&body[..4], &body[4..]], trailers)
}

#[test]
fn tus_a_checksum_behind_the_body_is_compared() {
    let server = Server::start();
    let upload = server.create(1 + HELLO_CHECKSUMS.len() * HELLO.len());
    for (n, checksum) in HELLO_CHECKSUMS.into_iter().enumerate() {
        let offset = n * HELLO.len();
        let wrong = trailing(&server, &upload, offset, b"Hello world", &[("Upload-Checksum", checksum)]);
        assert_eq!((wrong.status, wrong.number("upload-offset")), (460, offset), "{wrong:?}");
        assert_eq!(server.offset(&upload), offset);
        let right = trailing(&server, &upload, offset, HELLO, &[("upload-checksum", checksum)]);
        assert_eq!((right.status, right.number("upload-offset")), (204, offset + HELLO.len()));
    }
}

#[test]
fn tus_a_checksum_that_does_not_come_or_cannot_be_read_discards_the_chunk() {
    let server = Server::start();
    let upload = server.create(100);
    for trailers in [
        [].as_slice(),
        &[("Upload-Checksum", "sha512 kAFQmDzST7DWlj99KOF/cg==")],
        &[("Upload-Checksum", "sha1 !!!")],
        &[("Upload-Checksum", HELLO_CHECKSUMS[0]), ("Upload-Checksum", HELLO_CHECKSUMS[0])],
        &[("X-Other", "1")],
    ] {
        let answer = trailing(&server, &upload, 0, HELLO, trailers);
        assert_eq!((answer.status, answer.number("upload-offset")), (400, 0), "{trailers:?}");
        assert_eq!(server.offset(&upload), 0, "{trailers:?}");
    }
    let request = server.patch_request(&upload, 0).with("Trailer", "Upload-Checksum");
    let twice = request.with("Upload-Checksum", HELLO_CHECKSUMS[0]);
    assert_eq!(twice.send_chunked_then(&[HELLO], &[("Upload-Checksum", HELLO_CHECKSUMS[0])]).status, 400);
    assert_eq!(server.offset(&upload), 0);
}

#[test]
fn tus_a_checksum_that_nobody_announced_is_refused_and_the_bytes_before_it_count() {
    let server = Server::start();
    let upload = server.create(100);
    let trailer = [("Upload-Checksum", HELLO_CHECKSUMS[0])];
    let answer = server.patch_request(&upload, 0).send_chunked_then(&[HELLO], &trailer);
    assert_eq!((answer.status, answer.number("upload-offset")), (400, HELLO.len()));
    assert!(answer.detail().contains("Trailer: Upload-Checksum"), "{answer:?}");
    assert_eq!(server.offset(&upload), HELLO.len());
}

#[test]
fn tus_a_creation_may_carry_its_checksum_behind_the_body() {
    let server = Server::start();
    let create = || {
        let request = server.tus("POST", "/uploads").with("Content-Type", BODY_TYPE);
        request.with("Upload-Length", &HELLO.len().to_string()).with("Trailer", "Upload-Checksum")
    };
    let wrong = create().send_chunked_then(&[b"Hello world"], &[("Upload-Checksum", HELLO_CHECKSUMS[1])]);
    assert_eq!(wrong.status, 460, "{wrong:?}");
    assert_eq!(std::fs::read_dir(server.data.join("uploads")).unwrap().count(), 0, "nothing was made");
    let right = create().send_chunked_then(&[HELLO], &[("Upload-Checksum", HELLO_CHECKSUMS[1])]);
    assert_eq!((right.status, right.number("upload-offset")), (201, HELLO.len()));
    assert_eq!(content(&server, right.header("location").unwrap()), HELLO);
}

// Browsers

#[test]
fn tus_a_page_of_another_origin_may_use_every_extension() {
    const SENT: &str = "upload-concat,upload-defer-length,upload-checksum,x-http-method-override";
    let server = Server::start();
    let preflight = server
        .bare("OPTIONS", "/uploads")
        .with("Origin", "https://app.example")
        .with("Access-Control-Request-Method", "PATCH")
        .with("Access-Control-Request-Headers", SENT)
        .send(b"");
    let names = |answer: &Answer, header: &str| -> Vec<String> {
        answer.header(header).unwrap().split(',').map(|name| name.trim().to_owned()).collect()
    };
    let allowed = names(&preflight, "access-control-allow-headers");
    assert!(SENT.split(',').all(|name| allowed.iter().any(|allowed| allowed == name)), "{allowed:?}");
    let head = server.tus("HEAD", &deferred(&server)).with("Origin", "https://app.example").send(b"");
    let exposed = names(&head, "access-control-expose-headers");
    for name in
        ["upload-expires", "upload-concat", "upload-defer-length", "tus-extension", "tus-checksum-algorithm"]
    {
        assert!(exposed.iter().any(|exposed| exposed == name), "{name}");
    }
}

// Beyond the text of tus: digests that every HTTP client can send (RFC 9530)

#[test]
fn a_whole_that_is_not_what_was_announced_becomes_nothing() {
    let server = Server::start();
    let digest = |bytes: &[u8]| format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)));
    let create = |announced: &[u8]| {
        let request = server.tus("POST", "/uploads").with("Upload-Length", "6");
        let answer = request.with("Repr-Digest", &digest(announced)).send(b"");
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    };
    let right = create(b"abcdef");
    let answer = server.patch(&right, 0, b"abcdef");
    assert!(answer.status == 204 && answer.header("reelyard-asset").is_some(), "{answer:?}");
    let wrong = create(b"abcdef");
    let answer = server.patch(&wrong, 0, b"abcdeX");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.detail().contains("as a new upload"), "{answer:?}");
    assert_eq!(server.tus("HEAD", &wrong).send(b"").status, 410);
}

#[test]
fn a_chunk_with_a_content_digest_counts_only_if_it_fits() {
    let server = Server::start();
    let upload = server.create(6);
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(b"abc")));
    let send = |body: &[u8]| server.patch_request(&upload, 0).with("Content-Digest", &digest).send(body);
    assert_eq!(send(b"abX").status, 460);
    assert_eq!(server.offset(&upload), 0);
    assert_eq!(send(b"abc").number("upload-offset"), 3);
}
