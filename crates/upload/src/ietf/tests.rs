//! What concerns several files of the dialect, and the table of what the draft demands.

use super::{Answer, Dialect, Limits, State, Version, testing::sent};

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

/// Rows that say "to be written" are about tests of the server that may be missing yet.
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
        let may_miss = cells.get(3).is_some_and(|cell| cell.contains("to be written"));
        for name in tests.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
            let is_there = code.contains(&format!("fn {name}("));
            assert!(is_there || may_miss && name.starts_with("ietf_"), "{section}: {name} is no test");
            names_checked += 1;
        }
    }
    assert!(names_checked > 60, "{names_checked} names: is the table still read?");
}
