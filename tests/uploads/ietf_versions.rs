//! The interop versions of the IETF draft that clients were published with, and uploads that meet several dialects.

use super::{
    ietf::{
        announced, append, completeness, create, creation, digest, head, source, sources, state, unlabelled,
    },
    server::Server,
    wire::{Request, read_answer},
};
use std::io::Write as _;

fn in_version(server: &Server, version: u32, method: &str, path: &str) -> Request {
    unlabelled(server, method, path).with("Upload-Draft-Interop-Version", &version.to_string())
}

/// Revision 01: iOS 17 and macOS 14.
#[test]
fn ietf_version_3_uploads_and_goes_on_in_its_own_words() {
    let server = Server::start();
    let creation = in_version(&server, 3, "POST", "/uploads").with("Upload-Incomplete", "?1");
    let (mut connection, announced) = announced(creation, 3);
    assert_eq!(announced.header("upload-draft-interop-version"), Some("3"));
    connection.write_all(b"abc").unwrap();
    let created = read_answer(&mut connection, false).unwrap();
    assert_eq!((created.status, created.header("upload-incomplete")), (201, Some("?1")));
    let upload = created.header("location").unwrap();
    assert_eq!(announced.header("location"), Some(upload));
    let patch = || in_version(&server, 3, "PATCH", upload);
    let middle = patch().with("Upload-Offset", "3").with("Upload-Incomplete", "?1").send(b"de");
    assert_eq!((middle.status, middle.header("upload-incomplete")), (201, Some("?1")));
    let seen = in_version(&server, 3, "HEAD", upload).send(b"");
    assert_eq!((seen.status, seen.number("upload-offset")), (204, 5));
    assert_eq!((seen.header("upload-incomplete"), seen.header("upload-complete")), (Some("?1"), None));
    let wrong = patch().with("Upload-Offset", "4").with("Upload-Incomplete", "?0").send(b"ef");
    assert_eq!((wrong.status, wrong.number("upload-offset")), (409, 5));
    assert_eq!(wrong.header("upload-incomplete"), Some("?1"));
    let last = patch().with("Upload-Offset", "5").with("Upload-Incomplete", "?0").send(b"f");
    assert_eq!((last.status, last.header("upload-incomplete")), (201, Some("?0")));
    assert_eq!(source(&server, last.header("reelyard-asset").unwrap()), b"abcdef");
    assert_eq!(in_version(&server, 3, "HEAD", upload).send(b"").header("upload-incomplete"), Some("?0"));
}

/// Revision 03: tus-js-client's `ietf-draft-03`.
#[test]
fn ietf_version_5_takes_an_append_that_is_silent_about_the_end_for_the_last() {
    let server = Server::start();
    let created = in_version(&server, 5, "POST", "/uploads").with("Upload-Complete", "?0").send(b"");
    let upload = created.header("location").unwrap();
    let patch = || in_version(&server, 5, "PATCH", upload);
    let middle = patch().with("Upload-Offset", "0").with("Upload-Complete", "?0").send(b"abc");
    assert_eq!((middle.status, completeness(&middle), middle.header("upload-limit")), (201, false, None));
    let last = patch().with("Upload-Offset", "3").send(b"def");
    assert_eq!((last.status, completeness(&last)), (201, true));
    assert_eq!(source(&server, last.header("reelyard-asset").unwrap()), b"abcdef");
}

/// Revisions 04 and 05: tus-js-client's `ietf-draft-05`.
#[test]
fn ietf_version_6_keeps_its_own_rules() {
    let server = Server::start();
    let created = in_version(&server, 6, "POST", "/uploads").with("Upload-Complete", "?0").send(b"abc");
    assert!(created.header("upload-limit").unwrap().contains("expires="), "{created:?}");
    let upload = created.header("location").unwrap();
    let patch = |offset: &str, complete: &str| {
        in_version(&server, 6, "PATCH", upload)
            .with("Upload-Offset", offset)
            .with("Upload-Complete", complete)
    };
    assert_eq!(patch("3", "?0").send(b"de").status, 415, "the type is needed from here on");
    let middle = patch("3", "?0").with("Content-Type", "application/partial-upload").send(b"de");
    assert_eq!((middle.status, middle.number("upload-offset")), (201, 5));
    for method in ["HEAD", "DELETE"] {
        let refused = in_version(&server, 6, method, upload).with("Upload-Offset", "5").send(b"");
        assert_eq!(refused.status, 400, "{method}");
    }
    let last = patch("5", "?1").with("Content-Type", "application/partial-upload").send(b"f");
    assert_eq!((last.status, completeness(&last)), (201, true));
    let again = patch("6", "?1").with("Content-Type", "application/partial-upload").send(b"");
    assert_eq!(again.status, 400, "this version repeats nothing");
    assert!(again.problem()["type"].as_str().unwrap().ends_with("#completed-upload"));
}

#[test]
fn ietf_a_client_that_names_no_version_is_served_in_the_newest() {
    let server = Server::start();
    let created = unlabelled(&server, "POST", "/uploads").with("Upload-Complete", "?0").send(b"abc");
    assert_eq!((created.status, completeness(&created)), (201, false));
    let upload = created.header("location").unwrap();
    let last = unlabelled(&server, "PATCH", upload)
        .with("Content-Type", "application/partial-upload")
        .with("Upload-Offset", "3")
        .with("Upload-Complete", "?1")
        .send(b"def");
    assert_eq!((last.status, completeness(&last)), (201, true));
    assert_eq!(unlabelled(&server, "DELETE", upload).send(b"").status, 204);
    assert_eq!(head(&server, upload).status, 410);
    let asset = last.header("reelyard-asset").unwrap();
    assert_eq!(source(&server, asset), b"abcdef", "the asset outlives its upload");
}

#[test]
fn ietf_uploads_are_known_by_their_making_where_a_request_names_no_dialect() {
    let server = Server::start();
    let ours = create(&server, Some(3));
    assert_eq!(head(&server, &ours).status, 204);
    let theirs = server.create(3);
    assert_eq!(head(&server, &theirs).status, 412, "tus wants its version in every request");
    assert_eq!(server.offset(&theirs), 0);
}

/// What is declared is not settled by another dialect's look, and a wish to go on in tus gets its answer.
#[test]
fn ietf_an_upload_seen_through_tus_stays_what_it_is() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abcdef");
    let seen = server.tus("HEAD", &upload).send(b"");
    assert_eq!((seen.status, seen.number("upload-offset"), seen.number("upload-length")), (200, 6, 6));
    assert_eq!((state(&server, &upload), sources(&server)), ((6, Some(6), false), 0));
    let last = append(&server, &upload, 6, true).send(b"");
    let asset = last.header("reelyard-asset").unwrap();
    assert_eq!(server.tus("HEAD", &upload).send(b"").header("reelyard-asset"), Some(asset));
}

#[test]
fn ietf_an_upload_begun_in_tus_can_be_ended_here() {
    let server = Server::start();
    let upload = server.create(6);
    server.patch(&upload, 0, b"abc");
    let last = append(&server, &upload, 3, true).send(b"def");
    assert_eq!((last.status, completeness(&last)), (201, true));
    assert_eq!(last.header("repr-digest"), Some(digest(b"abcdef").as_str()));
    let seen = server.tus("HEAD", &upload).send(b"");
    assert_eq!(seen.header("reelyard-asset"), last.header("reelyard-asset"));
}

#[test]
fn ietf_one_that_names_tus_is_served_in_tus_whatever_else_it_says() {
    let server = Server::start();
    let answer = creation(&server, true).with("Tus-Resumable", "1.0.0").with("Upload-Length", "3").send(b"");
    assert_eq!((answer.status, answer.header("upload-complete"), answer.interim.len()), (201, None, 0));
    assert_eq!(server.offset(answer.header("location").unwrap()), 0);
}

/// What completes an upload is the dialect of the request that brings its last byte.
#[test]
fn ietf_an_upload_begun_here_can_be_ended_in_tus() {
    let server = Server::start();
    let upload = create(&server, Some(6));
    append(&server, &upload, 0, false).send(b"abc");
    let last = server.patch(&upload, 3, b"def");
    assert_eq!((last.status, last.number("upload-offset")), (204, 6));
    assert_eq!(source(&server, last.header("reelyard-asset").unwrap()), b"abcdef");
    assert_eq!(state(&server, &upload), (6, Some(6), true));
}
