//! The IETF dialect with the digests of RFC 9530: of one body, and of the whole file.

use super::{
    ietf::{
        PROBLEM_TYPES, append, assert_problem, completeness, create, creation, digest, head, sources, state,
        unlabelled,
    },
    server::Server,
};

#[test]
fn ietf_a_body_counts_when_its_content_digest_fits_and_else_not_a_byte_of_it() {
    let server = Server::start();
    let upload = create(&server, None);
    let body = vec![7; 3 << 20];
    let wrong = append(&server, &upload, 0, false).with("Content-Digest", &digest(b"other")).send(&body);
    assert_problem(&wrong, 400, "digest-mismatching-values");
    assert_eq!(wrong.number("upload-offset"), 0);
    assert_eq!(state(&server, &upload), (0, None, false));
    let right = append(&server, &upload, 0, false).with("Content-Digest", &digest(&body)).send(&body);
    assert_eq!((right.status, right.number("upload-offset")), (204, body.len()));
    let at = body.len();
    let wrong = append(&server, &upload, at, true).with("Content-Digest", &digest(b"other")).send(b"end");
    assert_problem(&wrong, 400, "digest-mismatching-values");
    let told = Some(at + 3);
    assert_eq!(state(&server, &upload), (at, told, false), "the length was told all the same");
    let nonsense = append(&server, &upload, at, true).with("Content-Digest", "sha-256=:YWJj:").send(b"end");
    assert_problem(&nonsense, 400, "digest-invalid-values");
    assert_eq!(state(&server, &upload), (at, told, false));
}

#[test]
fn ietf_a_creation_whose_content_digest_does_not_fit_keeps_nothing() {
    let server = Server::start();
    let wrong = creation(&server, true).with("Content-Digest", &digest(b"other")).send(b"abcdef");
    assert_problem(&wrong, 400, "digest-mismatching-values");
    let upload = wrong.header("location").expect("the 104 before it may have been lost");
    assert_eq!(state(&server, upload), (0, Some(6), false));
    assert_eq!(append(&server, upload, 0, true).send(b"abcdef").status, 201);
    // Nobody knows of this one.
    let left = || std::fs::read_dir(server.data.join("uploads")).unwrap().count();
    let left_before = left();
    let unnamed = unlabelled(&server, "POST", "/uploads").with("Upload-Complete", "?1");
    assert_eq!(unnamed.with("Content-Digest", &digest(b"other")).send(b"abc").status, 400);
    assert_eq!(left(), left_before);
}

#[test]
fn ietf_of_a_file_without_its_repr_digest_nothing_is_made() {
    let server = Server::start();
    for parts in [[b"abcdef".as_slice(), b""], [b"abc", b"def"], [b"", b"abcdef"]] {
        let created = creation(&server, false).with("Repr-Digest", &digest(b"other")).send(parts[0]);
        let upload = created.header("location").unwrap();
        let failed = append(&server, upload, parts[0].len(), true).send(parts[1]);
        assert_eq!(failed.status, 400, "{failed:?}");
        assert!(completeness(&failed), "the client is not to go on: {failed:?}");
        let problem = failed.problem();
        assert_eq!(problem["type"], format!("{PROBLEM_TYPES}digest-mismatching-values"));
        assert_eq!(problem["mismatching-digests"][0]["header"], "Repr-Digest");
        assert_eq!(head(&server, upload).status, 410);
        assert_eq!(append(&server, upload, 6, true).send(b"").status, 410);
    }
    let whole = creation(&server, true).with("Repr-Digest", &digest(b"other")).send(b"abcdef");
    assert_eq!((whole.status, completeness(&whole), whole.header("location")), (400, true, None));
    assert_eq!(sources(&server), 0);
    let right = creation(&server, true).with("Repr-Digest", &digest(b"abcdef")).send(b"abcdef");
    assert_eq!((right.status, sources(&server)), (201, 1));
}

#[test]
fn ietf_the_digest_of_the_whole_is_told_whether_wanted_or_not() {
    let server = Server::start();
    for wanted in ["sha-256=10", "sha-512=10, sha-256=1", "sha-512=10", "nonsense"] {
        let answer = creation(&server, true).with("Want-Repr-Digest", wanted).send(b"abcdef");
        assert_eq!((answer.status, answer.header("repr-digest")), (201, Some(digest(b"abcdef").as_str())));
    }
}
