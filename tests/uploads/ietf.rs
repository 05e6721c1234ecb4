//! Resumable Uploads for HTTP, a test for each demand of the draft that can fail between the dialect and the client.
//! `docs/conformance/ietf-resumable-upload.md` has the list. What needs a connection to break or to wait is in
//! `ietf_connections.rs`, digests in `ietf_digests.rs`, limits in `ietf_limits.rs`, other interop versions and other
//! dialects in `ietf_versions.rs`.

use super::{
    server::Server,
    wire::{Answer, Request, read_message},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::net::TcpStream;

pub(crate) const PROBLEM_TYPES: &str = "https://iana.org/assignments/http-problem-types#";

/// A request with the key and the newest interop version.
pub(crate) fn request(server: &Server, method: &str, path: &str) -> Request {
    unlabelled(server, method, path).with("Upload-Draft-Interop-Version", "8")
}

/// With the key alone.
pub(crate) fn unlabelled(server: &Server, method: &str, path: &str) -> Request {
    server.bare(method, path).with("Authorization", &format!("Bearer {}", server.key))
}

fn said(complete: bool) -> &'static str {
    if complete { "?1" } else { "?0" }
}

pub(crate) fn creation(server: &Server, complete: bool) -> Request {
    request(server, "POST", "/uploads").with("Upload-Complete", said(complete))
}

pub(crate) fn append(server: &Server, upload: &str, offset: usize, complete: bool) -> Request {
    request(server, "PATCH", upload)
        .with("Content-Type", "application/partial-upload")
        .with("Upload-Offset", &offset.to_string())
        .with("Upload-Complete", said(complete))
}

/// A new upload without a byte; its path.
pub(crate) fn create(server: &Server, length: Option<usize>) -> String {
    let mut request = creation(server, false);
    if let Some(length) = length {
        request = request.with("Upload-Length", &length.to_string());
    }
    let answer = request.send(b"");
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// Begins to send, and waits for the 104 that tells the address. A creation that is over sooner may go without it.
pub(crate) fn announced(request: Request, body_len: usize) -> (TcpStream, Answer) {
    let mut connection = request.begin(Some(body_len));
    let announced = read_message(&mut connection, false).unwrap();
    assert_eq!(announced.status, 104, "{announced:?}");
    (connection, announced)
}

pub(crate) fn head(server: &Server, upload: &str) -> Answer {
    unlabelled(server, "HEAD", upload).send(b"")
}

/// What HEAD tells: offset, length, completeness.
pub(crate) fn state(server: &Server, upload: &str) -> (usize, Option<usize>, bool) {
    let answer = head(server, upload);
    assert_eq!(answer.status, 204, "{answer:?}");
    let length = answer.header("upload-length").map(|text| text.parse().unwrap());
    (answer.number("upload-offset"), length, completeness(&answer))
}

pub(crate) fn completeness(answer: &Answer) -> bool {
    match answer.header("upload-complete") {
        Some("?1") => true,
        Some("?0") => false,
        other => panic!("{other:?} in {answer:?}"),
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

/// The bytes of an asset as they are stored.
pub(crate) fn source(server: &Server, asset: &str) -> Vec<u8> {
    std::fs::read(server.data.join("sources").join(asset)).unwrap()
}

pub(crate) fn sources(server: &Server) -> usize {
    std::fs::read_dir(server.data.join("sources")).unwrap().count()
}

/// The answer is a problem of this registered type, and the upload is not complete.
pub(crate) fn assert_problem(answer: &Answer, status: u16, registered: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.problem()["type"], format!("{PROBLEM_TYPES}{registered}"));
    assert!(!completeness(answer), "{answer:?}");
}

// Creation

#[test]
fn ietf_a_whole_file_in_one_request_is_complete_and_has_its_asset() {
    let server = Server::start();
    for body in [b"abcdef".as_slice(), b""] {
        let answer = creation(&server, true).with("Content-Type", "video/mp4").send(body);
        assert_eq!((answer.status, completeness(&answer)), (201, true));
        assert_eq!(answer.number("upload-offset"), body.len());
        assert_eq!(answer.header("repr-digest"), Some(digest(body).as_str()));
        let asset = answer.header("reelyard-asset").expect("it exists before the answer");
        assert_eq!(source(&server, asset), body);
        let upload = answer.header("location").unwrap();
        assert_eq!(state(&server, upload), (body.len(), Some(body.len()), true));
        assert_eq!(head(&server, upload).header("reelyard-asset"), Some(asset));
    }
}

#[test]
fn ietf_a_whole_upload_in_three_requests() {
    let server = Server::start();
    let created = creation(&server, false).send(b"abc");
    assert_eq!((created.status, completeness(&created), created.number("upload-offset")), (201, false, 3));
    let upload = created.header("location").unwrap();
    let middle = append(&server, upload, 3, false).send(b"de");
    assert_eq!((middle.status, completeness(&middle), middle.number("upload-offset")), (204, false, 5));
    assert_eq!(middle.header("location"), None);
    assert_eq!(state(&server, upload), (5, None, false));
    let last = append(&server, upload, 5, true).send(b"f");
    assert_eq!((last.status, completeness(&last), last.number("upload-offset")), (201, true, 6));
    assert_eq!(last.header("location"), Some(upload));
    assert_eq!(last.header("repr-digest"), Some(digest(b"abcdef").as_str()));
    assert_eq!(source(&server, last.header("reelyard-asset").unwrap()), b"abcdef");
    assert_eq!(state(&server, upload), (6, Some(6), true));
}

#[test]
fn ietf_bodies_that_do_not_tell_their_length_end_where_they_end() {
    let server = Server::start();
    let created = creation(&server, false).send_chunked(&[b"ab", b"c"]);
    let upload = created.header("location").unwrap();
    assert_eq!((created.status, state(&server, upload)), (201, (3, None, false)));
    let last = append(&server, upload, 3, true).send_chunked(&[b"d", b"ef"]);
    assert_eq!((last.status, state(&server, upload)), (201, (6, Some(6), true)));
    assert_eq!(source(&server, last.header("reelyard-asset").unwrap()), b"abcdef");
}

#[test]
fn ietf_the_name_of_the_file_reaches_the_asset() {
    let server = Server::start();
    let answer = creation(&server, true)
        .with("Content-Disposition", "attachment; filename=\"../../holiday.mp4\"")
        .send(b"abc");
    let address = format!("/v1/assets/{}", answer.header("reelyard-asset").unwrap());
    let asset: serde_json::Value =
        serde_json::from_slice(&unlabelled(&server, "GET", &address).send(b"").body).unwrap();
    assert_eq!(asset["title"], "holiday");
}

#[test]
fn ietf_the_address_of_an_upload_is_an_id_and_nothing_else() {
    let server = Server::start();
    let answer = creation(&server, true)
        .with("Content-Disposition", "attachment; filename=\"secret.mp4\"")
        .send(b"abc");
    let location = answer.header("location").unwrap();
    let id: reelyard_model::UploadId = location.strip_prefix("/uploads/").unwrap().parse().unwrap();
    assert_eq!(location, format!("/uploads/{id}"));
}

// Offset retrieval

#[test]
fn ietf_head_tells_the_state() {
    let server = Server::start();
    let open = create(&server, None);
    append(&server, &open, 0, false).send(b"abc");
    assert_eq!(state(&server, &open), (3, None, false));
    let bounded = create(&server, Some(6));
    append(&server, &bounded, 0, false).send(b"abcd");
    assert_eq!(state(&server, &bounded), (4, Some(6), false));
    let answer = head(&server, &bounded);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("upload-limit").is_some());
    assert_eq!((answer.header("reelyard-asset"), answer.header("repr-digest")), (None, None));
    append(&server, &bounded, 4, true).send(b"ef");
    assert_eq!(state(&server, &bounded), (6, Some(6), true));
    assert_eq!(head(&server, &bounded).header("repr-digest"), Some(digest(b"abcdef").as_str()));
}

/// RFC 9110 section 8.6.
#[test]
fn ietf_an_answer_without_content_tells_no_content_length() {
    let server = Server::start();
    let upload = create(&server, None);
    let appended = append(&server, &upload, 0, false).send(b"abc");
    for answer in [head(&server, &upload), appended, unlabelled(&server, "DELETE", &upload).send(b"")] {
        assert_eq!((answer.status, answer.header("content-length")), (204, None), "{answer:?}");
    }
}

#[test]
fn ietf_get_tells_the_state_too_and_gives_the_bytes_of_a_complete_upload() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abcd");
    let get = || unlabelled(&server, "GET", &upload);
    let open = get().send(b"");
    assert_eq!((open.status, open.number("upload-offset"), completeness(&open)), (204, 4, false));
    assert_eq!((open.number("upload-length"), open.header("cache-control")), (6, Some("no-store")));
    append(&server, &upload, 4, true).send(b"ef");
    let whole = get().send(b"");
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"abcdef".as_slice()));
    for answer in [whole, get().with("Range", "bytes=2-3").send(b"")] {
        assert_eq!((answer.number("upload-offset"), completeness(&answer)), (6, true));
        assert_eq!((answer.number("upload-length"), answer.header("cache-control")), (6, Some("no-store")));
        assert!(answer.header("upload-limit").is_some());
    }
}

// Append

#[test]
fn ietf_a_wrong_offset_is_409_and_changes_nothing() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abc");
    for provided in [0, 2, 4, 7] {
        for request in [
            append(&server, &upload, provided, false),
            append(&server, &upload, provided, true),
            // Wrong about the rest too: the offset is told first.
            append(&server, &upload, provided, false).with("Upload-Length", "1"),
        ] {
            let answer = request.send(b"x");
            assert_problem(&answer, 409, "mismatching-upload-offset");
            assert_eq!(answer.number("upload-offset"), 3);
            let problem = answer.problem();
            assert_eq!(
                (&problem["expected-offset"], &problem["provided-offset"]),
                (&3.into(), &provided.into())
            );
        }
    }
    assert_eq!(state(&server, &upload), (3, Some(6), false));
}

#[test]
fn ietf_an_append_without_its_fields_or_of_another_type_is_refused() {
    let server = Server::start();
    let upload = create(&server, None);
    let patch = || request(&server, "PATCH", &upload);
    let typed = || patch().with("Content-Type", "application/partial-upload");
    for (request, status) in [
        (typed().with("Upload-Offset", "0"), 400),
        (typed().with("Upload-Complete", "?1"), 400),
        (typed().with("Upload-Offset", "zero").with("Upload-Complete", "?1"), 400),
        (typed().with("Upload-Offset", "0").with("Upload-Complete", "1"), 400),
        (patch().with("Upload-Offset", "0").with("Upload-Complete", "?1"), 415),
        (
            patch()
                .with("Content-Type", "video/mp4")
                .with("Upload-Offset", "0")
                .with("Upload-Complete", "?1"),
            415,
        ),
    ] {
        let answer = request.send(b"abc");
        assert_eq!((answer.status, completeness(&answer)), (status, false), "{answer:?}");
        answer.problem();
    }
    assert_eq!(state(&server, &upload), (0, None, false));
}

#[test]
fn ietf_lengths_that_contradict_each_other_are_refused_and_change_nothing() {
    let server = Server::start();
    let inconsistent = |answer: Answer| assert_problem(&answer, 400, "inconsistent-upload-length");
    inconsistent(creation(&server, true).with("Upload-Length", "4").send(b"abc"));
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abc");
    inconsistent(append(&server, &upload, 3, true).send(b"de"));
    inconsistent(append(&server, &upload, 3, true).send(b""));
    inconsistent(append(&server, &upload, 3, true).send(b"defg"));
    inconsistent(append(&server, &upload, 3, false).send(b"defg"));
    inconsistent(append(&server, &upload, 3, false).with("Upload-Length", "7").send(b"d"));
    inconsistent(append(&server, &upload, 3, true).with("Upload-Length", "6").send(b"d"));
    assert_eq!(state(&server, &upload), (3, Some(6), false));
    let open = create(&server, None);
    append(&server, &open, 0, false).send(b"abc");
    inconsistent(append(&server, &open, 3, false).with("Upload-Length", "2").send(b""));
    assert_eq!(state(&server, &open), (3, None, false));
    assert_eq!(sources(&server), 0);
}

#[test]
fn ietf_a_body_that_ends_before_the_length_does_not_complete_and_is_kept() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    let answer = append(&server, &upload, 0, true).send_chunked(&[b"ab", b"c"]);
    assert_problem(&answer, 400, "inconsistent-upload-length");
    assert_eq!(state(&server, &upload), (3, Some(6), false));
    assert_eq!(append(&server, &upload, 3, true).send(b"def").status, 201);
}

#[test]
fn ietf_an_overrun_ends_the_upload() {
    let server = Server::start();
    for (first, rest) in [(b"".as_slice(), b"abcdefg".as_slice()), (b"abc", b"defg"), (b"abcdef", b"g")] {
        for complete in [false, true] {
            let upload = create(&server, Some(6));
            append(&server, &upload, 0, false).send(first);
            let answer = append(&server, &upload, first.len(), complete).send_chunked(&[rest]);
            assert_problem(&answer, 400, "inconsistent-upload-length");
            assert!(answer.number("upload-offset") <= 6);
            assert_eq!(head(&server, &upload).status, 410, "{first:?} {complete}");
            assert_eq!(append(&server, &upload, first.len(), true).send(b"").status, 410);
        }
    }
    assert_eq!(sources(&server), 0, "no asset was made");
    assert_eq!(std::fs::read_dir(server.data.join("uploads")).unwrap().count(), 0, "its bytes are freed");
}

#[test]
fn ietf_nothing_is_appended_to_a_complete_upload() {
    let server = Server::start();
    let created = creation(&server, true).send(b"abcdef");
    let upload = created.header("location").unwrap();
    assert_problem(&append(&server, upload, 6, false).send(b""), 400, "completed-upload");
    assert_problem(&append(&server, upload, 6, true).send(b"g"), 400, "inconsistent-upload-length");
    assert_problem(
        &append(&server, upload, 6, true).send_chunked(&[b"g"]),
        400,
        "inconsistent-upload-length",
    );
    assert_problem(&append(&server, upload, 3, true).send(b"def"), 409, "mismatching-upload-offset");
    assert_eq!(state(&server, upload), (6, Some(6), true));
    assert_eq!(source(&server, created.header("reelyard-asset").unwrap()), b"abcdef");
}

// Completion

#[test]
fn ietf_offset_at_length_is_not_completion() {
    let mut server = Server::start();
    let upload = create(&server, Some(6));
    let all = append(&server, &upload, 0, false).send(b"abcdef");
    assert_eq!((all.status, completeness(&all), all.header("reelyard-asset")), (204, false, None));
    // Neither looking at it, in this dialect or in tus, nor what the server does at its start, takes it for complete.
    server.kill();
    server.restart();
    for _ in 0..2 {
        assert_eq!(state(&server, &upload), (6, Some(6), false));
        let seen = server.tus("HEAD", &upload).send(b"");
        assert_eq!((seen.status, seen.header("reelyard-asset")), (200, None));
    }
    server.stop();
    server.restart();
    assert_eq!(state(&server, &upload), (6, Some(6), false));
    assert_eq!(append(&server, &upload, 6, false).send(b"").status, 204, "nothing more, and not the end");
    assert_eq!((state(&server, &upload), sources(&server)), ((6, Some(6), false), 0));
    let declared = append(&server, &upload, 6, true).send(b"");
    assert_eq!((declared.status, completeness(&declared)), (201, true));
    assert_eq!(source(&server, declared.header("reelyard-asset").unwrap()), b"abcdef");
}

#[test]
fn ietf_a_lost_last_answer_can_be_asked_for_again() {
    let mut server = Server::start();
    for (first, last) in [(b"abc".as_slice(), b"def".as_slice()), (b"ABCDEF", b""), (b"", b"123456")] {
        let upload = create(&server, None);
        append(&server, &upload, 0, false).send(first);
        let finished = append(&server, &upload, first.len(), true).send(last);
        server.kill();
        server.restart();
        for _ in 0..2 {
            let again = append(&server, &upload, 6, true).send(b"");
            assert_eq!((again.status, completeness(&again)), (201, true));
            for name in ["location", "reelyard-asset", "repr-digest", "upload-offset"] {
                assert!(finished.header(name).is_some(), "{name}");
                assert_eq!(again.header(name), finished.header(name));
            }
        }
    }
    assert_eq!(sources(&server), 3);
}

#[test]
fn ietf_an_upload_whose_asset_cannot_be_made_yet_is_not_complete() {
    let server = Server::start();
    let upload = create(&server, None);
    let (sources, away) = (server.data.join("sources"), server.data.join("sources.away"));
    std::fs::rename(&sources, &away).unwrap();
    std::fs::write(&sources, "in the way").unwrap();
    let answer = append(&server, &upload, 0, true).send(b"abcdef");
    assert_eq!((answer.status, completeness(&answer)), (503, false));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(state(&server, &upload), (6, Some(6), false));
    std::fs::remove_file(&sources).unwrap();
    std::fs::rename(&away, &sources).unwrap();
    let again = append(&server, &upload, 6, true).send(b"");
    assert_eq!((again.status, completeness(&again)), (201, true));
    assert_eq!(source(&server, again.header("reelyard-asset").unwrap()), b"abcdef");
}

// The end, and other people

#[test]
fn ietf_a_cancelled_upload_is_gone_and_its_bytes_too() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abc");
    assert_eq!(request(&server, "DELETE", &upload).send(b"").status, 204);
    assert_eq!(head(&server, &upload).status, 410);
    assert_eq!(append(&server, &upload, 3, true).send(b"def").status, 410);
    assert_eq!(unlabelled(&server, "DELETE", &upload).send(b"").status, 410);
    assert_eq!(std::fs::read_dir(server.data.join("uploads")).unwrap().count(), 0);
    let unknown = "/uploads/01a1f796-f79c-7406-9094-d9e8634960f4";
    for method in ["HEAD", "DELETE"] {
        assert_eq!(request(&server, method, unknown).send(b"").status, 404);
    }
    let answer = append(&server, unknown, 0, true).send(b"abc");
    assert_eq!((answer.status, completeness(&answer)), (404, false));
}

#[test]
fn ietf_an_upload_of_another_tenant_is_as_unknown_as_one_that_never_was() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abc");
    reelyard(&server, &["tenants", "add", "others"]);
    let key =
        reelyard(&server, &["keys", "add", "--label", "theirs", "--scopes", "admin", "--tenant", "others"]);
    let theirs = |method: &str| {
        let request = server.bare(method, &upload).with("Authorization", &format!("Bearer {key}"));
        request.with("Upload-Draft-Interop-Version", "8")
    };
    for method in ["HEAD", "DELETE", "GET"] {
        assert_eq!(theirs(method).send(b"").status, 404, "{method}");
    }
    let appended = theirs("PATCH")
        .with("Content-Type", "application/partial-upload")
        .with("Upload-Offset", "3")
        .with("Upload-Complete", "?1")
        .send(b"def");
    assert_eq!((appended.status, appended.header("upload-offset")), (404, None));
    assert_eq!(state(&server, &upload), (3, Some(6), false));
}

/// A command of the program on the server's data; what it printed.
fn reelyard(server: &Server, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reelyard"));
    let output = command.args(arguments).arg("--data-dir").arg(&server.data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
