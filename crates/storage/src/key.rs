//! Storage keys: relative paths below the data directory, or below the prefix in a bucket, that cannot lead out of it,
//! nor to its secrets. Pure; both keepers ask here before they touch anything.

use crate::StoreError;

/// What keys of objects may begin with. Keys of the API and the catalogue, which lie beside these, have no key.
pub(crate) const OBJECTS: &[&str] = &["sources", "renditions", "publications"];
/// What may be read by whoever knows the layout of a source: its pieces in S3 are objects of the upload.
#[cfg(feature = "s3")]
pub(crate) const READABLE: &[&str] = &["sources", "renditions", "publications", "uploads"];
/// Four UUIDs and a file name fit twice.
const MAX_KEY_BYTES: usize = 512;

/// `a/b/c` of letters, digits, dots, dashes and underscores; no part begins with a dot, so there is neither a way up
/// nor a hidden file.
pub(crate) fn checked<'key>(key: &'key str, top_levels: &[&str]) -> Result<&'key str, StoreError> {
    if is_key(key, top_levels) {
        Ok(key)
    } else {
        Err(StoreError::InvalidKey { key: key.chars().take(MAX_KEY_BYTES).collect() })
    }
}

fn is_key(key: &str, top_levels: &[&str]) -> bool {
    let mut parts = key.split('/');
    key.len() <= MAX_KEY_BYTES
        && parts.next().is_some_and(|first| top_levels.contains(&first))
        && key.contains('/')
        && parts.all(is_part)
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::{OBJECTS, is_key};
    use proptest::prelude::proptest;

    #[test]
    fn keys_stay_inside() {
        for yes in ["sources/0192", "renditions/a/b/a1/1080p/00001.m4s", "publications/x/a1/master.m3u8"] {
            assert!(is_key(yes, OBJECTS), "{yes}");
        }
        for no in [
            "",
            "sources",
            "sources/",
            "/sources/a",
            "sources//a",
            "sources/../admin.key",
            "sources/.hidden",
            "admin.key",
            "catalog.sqlite/x",
            "uploads/x",
            "sources/a\\b",
            "sources/a\0",
            "sources/a b",
            "sources/%2e%2e/x",
        ] {
            assert!(!is_key(no, OBJECTS), "{no:?}");
        }
    }

    proptest! {
        #[test]
        fn no_key_holds_a_way_up(key in "(sources|renditions)(/|\\.|[a-z]|\\PC){0,30}") {
            if is_key(&key, OBJECTS) {
                let path = std::path::Path::new(&key);
                assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
