//! What the command line remembers of an unfinished upload, so that the same command goes on where it stopped.
//!
//! One small JSON file for each pair of server and file below `$XDG_STATE_HOME/reelyard/uploads/`. It is a memory aid:
//! when it is lost, damaged or of another version, the upload begins anew.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

const VERSION: u32 = 1;
/// State files are a few hundred bytes.
const MAX_STATE_BYTES: u64 = 64 << 10;

/// Which bytes are meant: another file under the same name is another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    pub(crate) path: PathBuf,
    pub(crate) byte_len: u64,
    modified_ns: i128,
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of(path: &Path, facts: &fs::Metadata) -> Self {
        Self {
            path: path.to_owned(),
            byte_len: facts.len(),
            modified_ns: i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec()),
            device: facts.dev(),
            inode: facts.ino(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    server: String,
    file: FileIdentity,
    #[serde(flatten)]
    upload: Remembered,
}

/// An unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Its address.
    pub(crate) upload: String,
    /// In parts of this size; `None`: by tus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part_bytes: Option<u64>,
}

/// The place of one pair of server and file; `None` when there is no directory for state.
pub(crate) struct Memory {
    path: Option<PathBuf>,
    server: String,
    file: FileIdentity,
}

impl Memory {
    /// `options`: what else makes an upload another one, such as its preset.
    pub(crate) fn of(server: &str, file: FileIdentity, options: &str) -> Self {
        let identity = serde_json::to_vec(&(VERSION, server, &file, options)).unwrap_or_default();
        let name = format!("{}.json", hex::encode(&Sha256::digest(&identity)[..16]));
        let path = state_directory().map(|directory| directory.join(name));
        Self { path, server: server.to_owned(), file }
    }

    pub(crate) fn recall(&self) -> Option<Remembered> {
        let path = self.path.as_ref()?;
        if fs::metadata(path).ok()?.len() > MAX_STATE_BYTES {
            return None;
        }
        let state: State = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same = state.version == VERSION && state.server == self.server && state.file == self.file;
        same.then_some(state.upload)
    }

    /// Failing costs no more than the memory.
    pub(crate) fn remember(&self, upload: &Remembered) {
        let Some(path) = &self.path else { return };
        let state = State {
            version: VERSION,
            server: self.server.clone(),
            file: self.file.clone(),
            upload: upload.clone(),
        };
        if let Err(error) = write(path, &state) {
            eprintln!(
                "note: {} cannot be written ({error}), so an interrupted upload will begin anew",
                path.display()
            );
        }
    }

    pub(crate) fn forget(&self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn write(path: &Path, state: &State) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let spare = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&spare)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    fs::rename(&spare, path)
}

/// XDG Base Directory Specification: a relative path in the variable is invalid and ignored.
fn state_directory() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|directory| directory.join("reelyard/uploads"))
}

#[cfg(test)]
mod tests {
    use super::{FileIdentity, Memory, Remembered};

    #[test]
    fn a_changed_file_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.mp4");
        std::fs::write(&file, "1").unwrap();
        let identity = FileIdentity::of(&file, &std::fs::metadata(&file).unwrap());
        let at = |identity: &FileIdentity| Memory {
            path: Some(directory.path().join("state/x.json")),
            server: "http://a/".into(),
            file: identity.clone(),
        };
        assert_eq!(at(&identity).recall(), None);
        let upload = Remembered { upload: "http://a/uploads/1".into(), part_bytes: Some(5) };
        at(&identity).remember(&upload);
        assert_eq!(at(&identity).recall(), Some(upload));
        std::fs::write(&file, "22").unwrap();
        let changed = FileIdentity::of(&file, &std::fs::metadata(&file).unwrap());
        assert_eq!(at(&changed).recall(), None);
        at(&identity).forget();
        assert_eq!(at(&identity).recall(), None);
    }

    #[test]
    fn what_a_version_without_parts_remembered_is_an_upload_by_tus() {
        let remembered: Remembered = serde_json::from_str(r#"{"upload": "http://a/uploads/1"}"#).unwrap();
        assert_eq!(remembered.part_bytes, None);
    }
}
