//! Where the media program is. Looked for at start, so that a broken installation is told at once and not by the first
//! task that fails.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The program's file name.
pub const MEDIA_PROGRAM: &str = "reelyard-media";

#[derive(Debug, thiserror::Error)]
#[error(
    "the program {MEDIA_PROGRAM} was found neither beside this program nor in PATH; without it no media can be read. \
     Install it next to `reelyard` (from the source: `cargo build --release -p {MEDIA_PROGRAM}`)"
)]
pub struct MediaProgramMissing;

/// Beside the running program first, so that the two always come from one build; then in `PATH`.
pub fn locate_media_program() -> Result<PathBuf, MediaProgramMissing> {
    let own = std::env::current_exe().ok();
    locate(own.as_deref(), std::env::var_os("PATH").as_deref()).ok_or(MediaProgramMissing)
}

fn locate(own: Option<&Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent);
    // Cargo puts test programs into `deps`, one below the programs they test.
    let above = beside.filter(|folder| folder.ends_with("deps")).and_then(Path::parent);
    let in_path = path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    beside
        .into_iter()
        .chain(above)
        .map(Path::to_owned)
        // An empty entry of PATH means the current directory, which is no place to take programs from.
        .chain(in_path.into_iter().filter(|folder| folder.is_absolute()))
        .map(|folder| folder.join(MEDIA_PROGRAM))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{MEDIA_PROGRAM, locate};
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn beside_first_then_in_path_and_only_what_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, mode| {
            let folder = folder.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            let program = folder.join(MEDIA_PROGRAM);
            fs::write(&program, "").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
            program
        };
        let beside = program("beside", 0o755);
        let in_path = program("path", 0o755);
        let not_executable = program("data", 0o644);
        let path =
            std::env::join_paths([not_executable.parent().unwrap(), in_path.parent().unwrap()]).unwrap();

        let own = beside.parent().unwrap().join("reelyard");
        assert_eq!(locate(Some(&own), Some(&path)), Some(beside.clone()));
        let test_program = beside.parent().unwrap().join("deps/test-0123");
        assert_eq!(locate(Some(&test_program), None), Some(beside));
        let elsewhere = folder.path().join("elsewhere/reelyard");
        assert_eq!(locate(Some(&elsewhere), Some(&path)), Some(in_path));
        assert_eq!(locate(Some(&elsewhere), None), None);
    }
}
