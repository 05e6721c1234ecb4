//! The limits of the IETF dialect: told before they are tried, kept when they are.

use super::{
    ietf::{announced, append, completeness, create, creation, head, state},
    server::Server,
    wire::read_answer,
};
use std::io::Write as _;

#[test]
fn ietf_options_tells_the_limits_at_the_collection() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    for path in ["/uploads", "/uploads/"] {
        let answer = server.bare("OPTIONS", path).send(b"");
        assert_eq!((answer.status, answer.header("upload-limit")), (204, Some("max-size=1000")));
    }
}

#[test]
fn ietf_every_answer_that_has_to_tell_the_limits_does() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let (mut connection, announced) = announced(creation(&server, false), 3);
    connection.write_all(b"abc").unwrap();
    let created = read_answer(&mut connection, false).unwrap();
    let upload = created.header("location").unwrap();
    let appended = append(&server, upload, 3, false).send(b"def");
    for answer in [&announced, &created, &appended, &head(&server, upload)] {
        let limits = answer.header("upload-limit").unwrap_or_else(|| panic!("{answer:?}"));
        let age = limits.strip_prefix("max-size=1000, max-age=").unwrap_or_else(|| panic!("{limits}"));
        assert!(
            (600_000..=604_800).contains(&age.parse::<u64>().unwrap()),
            "a week, less a moment: {limits}"
        );
    }
}

#[test]
fn ietf_an_upload_beyond_the_largest_size_is_413_and_the_limits_are_told() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let announced = creation(&server, false).with("Upload-Length", "1001").send(b"");
    let whole = creation(&server, true).send(&[0; 1001]);
    let upload = create(&server, None);
    let declared = append(&server, &upload, 0, false).with("Upload-Length", "1001").send(b"x");
    let grown = append(&server, &upload, 0, false).send(&[0; 1001]);
    let streamed = append(&server, &upload, 0, false).send_chunked(&[&[0; 600], &[0; 600]]);
    for answer in [announced, whole, declared, grown, streamed] {
        assert_eq!((answer.status, completeness(&answer)), (413, false), "{answer:?}");
        assert!(answer.header("upload-limit").unwrap().contains("max-size=1000"), "{answer:?}");
    }
    let (offset, ..) = state(&server, &upload);
    assert!(offset <= 1000);
    assert_eq!(append(&server, &upload, offset, true).send(b"").status, 201, "it goes on within the limit");
}
