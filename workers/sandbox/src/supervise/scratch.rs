//! Looking at what a child wrote. The scratch directory is the child's to fill, so nothing in it is taken for what it
//! claims to be: links are never followed, and only a plain file of the announced length is a result.

use super::is_safe_file_name;
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Folders deep; a child makes one level.
const DEEPEST: usize = 8;
/// Entries looked at in one count. A child with more files than this is over any quota anyway.
const MOST_ENTRIES: usize = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum ScratchFileError {
    #[error("the child announced the file name {0:?}, which is not allowed")]
    Name(String),
    #[error("the child announced {0}, which is not a plain file in a plain folder")]
    NotPlain(String),
    #[error("the child announced {file} with {announced} bytes, and it has {found}")]
    Length { file: String, announced: u64, found: u64 },
    #[error("the child announced {file}, which cannot be read: {error}")]
    Unreadable { file: String, error: io::Error },
}

/// The path of a file that the child announced as finished, once it has been found to be what was said.
pub fn finished_file(scratch: &Path, file: &str, byte_len: u64) -> Result<PathBuf, ScratchFileError> {
    if !is_safe_file_name(file) {
        return Err(ScratchFileError::Name(file.chars().take(80).collect()));
    }
    let unreadable = |error| ScratchFileError::Unreadable { file: file.to_owned(), error };
    let mut path = scratch.to_owned();
    let mut parts = file.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        let found = path.symlink_metadata().map_err(unreadable)?;
        let as_expected = if parts.peek().is_some() { found.is_dir() } else { found.is_file() };
        // A second name of the same file would let the child change it after it was kept.
        if !as_expected || (found.is_file() && found.nlink() != 1) {
            return Err(ScratchFileError::NotPlain(file.to_owned()));
        }
        if found.is_file() && found.len() != byte_len {
            let file = file.to_owned();
            return Err(ScratchFileError::Length { file, announced: byte_len, found: found.len() });
        }
    }
    Ok(path)
}

/// What lies in a directory, in bytes of disk: a sparse file counts for what it takes. Entries that vanish while
/// they are counted (kept files leave) count nothing.
pub fn bytes_on_disk(directory: &Path) -> u64 {
    /// `st_blocks` counts in units of 512 bytes on Linux, whatever the file system's block size.
    const BLOCK_BYTES: u64 = 512;
    let mut bytes: u64 = 0;
    let mut entries_left = MOST_ENTRIES;
    let mut folders = vec![(directory.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
            entries_left = entries_left.saturating_sub(1);
            if entries_left == 0 {
                return u64::MAX;
            }
            if found.is_dir() && depth < DEEPEST {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{ScratchFileError, bytes_on_disk, finished_file};
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_a_plain_file_of_the_announced_length_is_a_result() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |file: &str| scratch.path().join(file);
        fs::create_dir(at("1080p")).unwrap();
        fs::write(at("1080p/init.mp4"), b"12345").unwrap();
        fs::write(at("secret"), b"12345").unwrap();
        symlink(at("secret"), at("1080p/linked.mp4")).unwrap();
        symlink(scratch.path(), at("folder")).unwrap();
        fs::write(at("first"), b"12345").unwrap();
        fs::hard_link(at("first"), at("second")).unwrap();

        assert_eq!(finished_file(scratch.path(), "1080p/init.mp4", 5).unwrap(), at("1080p/init.mp4"));
        let refused = |file: &str, byte_len| finished_file(scratch.path(), file, byte_len).unwrap_err();
        assert!(matches!(refused("1080p/init.mp4", 6), ScratchFileError::Length { found: 5, .. }));
        assert!(matches!(refused("1080p/linked.mp4", 5), ScratchFileError::NotPlain(_)));
        assert!(matches!(refused("folder/secret", 5), ScratchFileError::NotPlain(_)));
        assert!(matches!(refused("second", 5), ScratchFileError::NotPlain(_)));
        assert!(matches!(refused("1080p", 5), ScratchFileError::NotPlain(_)));
        assert!(matches!(refused("../secret", 5), ScratchFileError::Name(_)));
        assert!(matches!(refused("missing", 5), ScratchFileError::Unreadable { .. }));
    }

    #[test]
    fn disk_use_counts_files_in_folders_and_follows_no_link() {
        let scratch = tempfile::tempdir().unwrap();
        let big = tempfile::tempdir().unwrap();
        fs::write(big.path().join("big"), vec![1; 8 << 20]).unwrap();
        fs::create_dir(scratch.path().join("1080p")).unwrap();
        fs::write(scratch.path().join("1080p/00000.m4s"), vec![1; 1 << 20]).unwrap();
        symlink(big.path(), scratch.path().join("elsewhere")).unwrap();
        let bytes = bytes_on_disk(scratch.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }
}
