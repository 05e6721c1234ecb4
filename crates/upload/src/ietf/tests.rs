//! What concerns several files of the dialect, and the table of what the draft demands.

use super::{Admitted, Answer, Append, Completion, Creation, Dialect, Limits, State, Version, completion};
use crate::testing::sent;

fn location(answer: &Answer) -> Option<&str> {
    answer.headers.iter().find(|(name, _)| *name == "location").map(|(_, value)| value.as_str())
}

#[test]
fn ietf_all_answers_to_a_creation_have_the_same_location() {
    for version in Version::ALL {
        let number = version.number().to_string();
        let dialect = Dialect::detect(&sent(&[("upload-draft-interop-version", &number)])).unwrap();
        let state = State { offset: 5, length: Some(5), is_complete: false };
        let limits = Limits::default();
        let interim = dialect.announced("/uploads/a", &limits).unwrap();
        assert!(interim.headers.contains(&("location", "/uploads/a".to_owned())));
        assert_eq!(location(&dialect.created("/uploads/a", &state, &limits)), Some("/uploads/a"));
        assert_eq!(location(&dialect.finished("/uploads/a", &state, [0; 32])), Some("/uploads/a"));
    }
}

/// Headers and the number of bytes in the body, as they were caught on the wire.
type Request = (&'static [(&'static str, &'static str)], u64);

/// Plays the first request as a creation and the others as appends, all of them received whole.
fn play(requests: &[Request]) -> State {
    let limits = Limits::default();
    let mut state = State { offset: 0, length: None, is_complete: false };
    for (index, (headers, body_bytes)) in requests.iter().enumerate() {
        let fields = sent(headers);
        let dialect = Dialect::detect(&fields).unwrap();
        let completes = if index == 0 {
            let creation = Creation::read(dialect, &fields, &limits).unwrap();
            state.length = creation.length;
            creation.completes
        } else {
            let append = Append::read(dialect, &fields, &limits).unwrap();
            let admitted = append.admit(dialect, &state, &limits).unwrap();
            let Admitted::Receive { declare } = admitted else { panic!("{admitted:?}") };
            state.length = state.length.or(declare);
            append.completes
        };
        state.offset += body_bytes;
        if let Completion::Whole { length } = completion(completes, state.offset, state.length).unwrap() {
            state.length = Some(length);
            state.is_complete = true;
        }
    }
    state
}

fn complete(byte_len: u64) -> State {
    State { offset: byte_len, length: Some(byte_len), is_complete: true }
}

const V5: (&str, &str) = ("upload-draft-interop-version", "5");
const V6: (&str, &str) = ("upload-draft-interop-version", "6");
const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
const NO_BODY: (&str, &str) = ("content-length", "0");
const PART: (&str, &str) = ("content-type", "application/partial-upload");
const MORE: (&str, &str) = ("upload-complete", "?0");
const LAST: (&str, &str) = ("upload-complete", "?1");

#[test]
fn what_tus_js_client_4_sends_in_chunks_completes() {
    let state = play(&[
        (&[V5, ("upload-length", "5000000"), ("upload-metadata", "filename YQ=="), MORE, NO_BODY], 0),
        (&[V5, ("upload-offset", "0"), MORE, ("content-length", "3000000")], 3_000_000),
        (&[V5, ("upload-offset", "3000000"), LAST, ("content-length", "2000000")], 2_000_000),
    ]);
    assert_eq!(state, complete(5_000_000));
}

#[test]
fn what_tus_js_client_5_sends_with_the_creation_completes() {
    let whole: [Request; 1] = [(&[V6, ("upload-length", "5000000"), PART, LAST, CHUNKED], 5_000_000)];
    assert_eq!(play(&whole), complete(5_000_000));
    let chunks: [Request; 2] = [
        (&[V6, ("upload-length", "5000000"), PART, MORE, CHUNKED], 4_000_000),
        (&[V6, ("upload-offset", "4000000"), PART, LAST, CHUNKED], 1_000_000),
    ];
    assert_eq!(play(&chunks), complete(5_000_000));
    let empty: [Request; 1] = [(&[V6, ("upload-length", "0"), PART, LAST, CHUNKED], 0)];
    assert_eq!(play(&empty), complete(0));
}

#[test]
fn what_tus_js_client_5_sends_of_a_web_stream_that_ends_at_a_chunk_completes() {
    for (version, part) in [(V5, None), (V6, Some(PART))] {
        let mut first = vec![version, ("upload-offset", "0"), MORE, CHUNKED];
        let mut last = vec![version, ("upload-offset", "100000"), ("upload-length", "100000"), NO_BODY];
        first.extend(part);
        last.extend(part);
        let state = play(&[
            (vec![version, ("upload-defer-length", "1"), MORE, NO_BODY].leak(), 0),
            (first.leak(), 100_000),
            (last.leak(), 0),
        ]);
        assert_eq!(state, complete(100_000));
    }
}

/// It takes that for done; the draft and this server do not.
#[test]
fn an_empty_file_that_tus_js_client_makes_without_data_stays_incomplete() {
    let state = play(&[(&[V6, ("upload-length", "0"), MORE, NO_BODY], 0)]);
    assert_eq!(state, State { is_complete: false, ..complete(0) });
}

/// The headers as developers report them (tus/rufh-implementations, pull request 10).
#[test]
fn what_ios_26_sends_completes_also_in_two_pieces() {
    const V8: (&str, &str) = ("upload-draft-interop-version", "8");
    let state = play(&[(
        &[V8, LAST, ("upload-length", "100"), ("content-length", "100"), ("content-type", "video/mp4")],
        100,
    )]);
    assert_eq!(state, complete(100));
    // Cut after 40 bytes, so the creation did not complete it.
    let dialect = Dialect::detect(&sent(&[V8])).unwrap();
    let cut = State { offset: 40, length: Some(100), is_complete: false };
    let rest = sent(&[V8, LAST, PART, ("upload-offset", "40"), ("content-length", "60")]);
    let append = Append::read(dialect, &rest, &Limits::default()).unwrap();
    let admitted = append.admit(dialect, &cut, &Limits::default());
    assert_eq!(admitted, Ok(Admitted::Receive { declare: None }));
    assert_eq!(completion(append.completes, 100, cut.length), Ok(Completion::Whole { length: 100 }));
}

#[test]
fn every_test_that_the_table_of_the_draft_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    for folder in
        ["tests/uploads", "crates/upload/src", "crates/upload/src/ietf", "src/http", "src/http/interim"]
    {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let table = std::fs::read_to_string(root.join("docs/conformance/ietf-resumable-upload.md")).unwrap();
    let mut names_checked = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let &[section, _, tests, ..] = &cells[..] else { continue };
        for name in tests.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
            assert!(code.contains(&format!("fn {name}(")), "{section}: {name} is no test");
            names_checked += 1;
        }
    }
    assert!(names_checked > 60, "{names_checked} names: is the table still read?");
}
