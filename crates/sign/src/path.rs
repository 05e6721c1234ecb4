//! The one gate for file names that came in a URL.
//!
//! An allow-list, not a list of tricks: a publication holds only names that we made, so a path is one or more
//! segments of `A-Z a-z 0-9 . _ -` that do not begin with a dot. Everything else is refused: `..`, percent
//! encoding in any depth, backslashes, NUL, drive letters, Unicode look-alikes. The typed reasons are for logs and
//! tests; a viewer gets 404 (or 403) for all of them.

/// Longest path looked at; our own are below 64.
pub const MAX_PATH_BYTES: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is empty")]
    Empty,
    #[error("the path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    #[error("the path is absolute")]
    Absolute,
    #[error("the path has an empty segment")]
    EmptySegment,
    #[error("the path has a segment that begins with a dot")]
    Dots,
    #[error("the path holds a percent sign: it was encoded more than once")]
    Encoded,
    #[error("the path holds a character that no file of ours has")]
    ForbiddenCharacter,
}

/// The same path, when it can only name something below the folder it is joined to. Give it the path after one
/// percent-decoding, as the HTTP router hands it out.
pub fn safe_relative_path(path: &str) -> Result<&str, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err(PathError::EmptySegment);
        }
        if segment.starts_with('.') {
            return Err(PathError::Dots);
        }
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {}
                b'%' => return Err(PathError::Encoded),
                _ => return Err(PathError::ForbiddenCharacter),
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::{PathError, safe_relative_path};
    use proptest::prelude::{any, prop_assert, proptest};
    use std::path::{Component, Path};

    #[test]
    fn our_own_names_pass() {
        for path in
            ["master.m3u8", "1080p/00001.m4s", "audio/init.mp4", "sprite-000.jpg", "1080p-iframes.m3u8"]
        {
            assert_eq!(safe_relative_path(path), Ok(path));
        }
    }

    #[test]
    fn tricks_are_refused_by_name() {
        let table = [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("//etc/passwd", PathError::Absolute),
            ("..", PathError::Dots),
            ("../master.m3u8", PathError::Dots),
            ("a/../../b", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("...", PathError::Dots),
            (".journal", PathError::Dots),
            ("a//b", PathError::EmptySegment),
            ("a/", PathError::EmptySegment),
            ("%2e%2e/a", PathError::Encoded),
            ("a%2fb", PathError::Encoded),
            ("a%00", PathError::Encoded),
            ("a\0b", PathError::ForbiddenCharacter),
            ("..\\a", PathError::Dots),
            ("a\\..\\b", PathError::ForbiddenCharacter),
            ("c:/windows", PathError::ForbiddenCharacter),
            ("a b", PathError::ForbiddenCharacter),
            ("a\nb", PathError::ForbiddenCharacter),
            ("a?b", PathError::ForbiddenCharacter),
            ("\u{ff0e}\u{ff0e}/a", PathError::ForbiddenCharacter),
            ("a\u{2215}b", PathError::ForbiddenCharacter),
        ];
        for (path, expected) in table {
            assert_eq!(safe_relative_path(path), Err(expected), "{path:?}");
        }
        assert_eq!(safe_relative_path(&"a".repeat(256)), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_its_folder(path in any::<String>(), likely in "[a./%\\\\]{0,12}") {
            for path in [path, likely] {
                if let Ok(path) = safe_relative_path(&path) {
                    prop_assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }
    }
}
