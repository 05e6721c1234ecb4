//! The data directory at start: made, locked, and given its keys. Files with secrets have mode 0600 from their first
//! byte on; files are written whole or not at all.

use crate::config::{ADMIN_KEY_FILE, LOCK_FILE, SERVER_URL_FILE, SIGNING_KEYS_FILE, UPLOAD_KEYS_FILE};
use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reelyard_agent::locate_media_program;
use reelyard_catalog::Catalog;
use reelyard_model::TenantId;
use reelyard_sign::{Keyring, SECRET_BYTES, upload_token::UploadKeys};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use uuid::Uuid;

/// Random bytes in an admin key.
const ADMIN_KEY_BYTES: usize = 32;
/// Marks our keys for people and for secret scanners.
const ADMIN_KEY_PREFIX: &str = "reelyard_";
/// Commands look whether somebody holds the lock by taking it for a moment: that must not keep a server from starting.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The directory, for as long as this lives ours alone.
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    _lock: fs::File,
}

pub(super) fn open(path: PathBuf) -> anyhow::Result<DataDir> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("cannot make the data directory {}", path.display()))?;
    let path = path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?;
    let lock_path = path.join(LOCK_FILE);
    let mut lock = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .with_context(|| format!("cannot write in the data directory {}", path.display()))?;
    let mut locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    for _ in 1..LOCK_TRIES {
        if matches!(locked, Err(Errno::WOULDBLOCK)) {
            thread::sleep(LOCK_PAUSE);
            locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        }
    }
    if matches!(locked, Err(Errno::WOULDBLOCK)) {
        let mut holder = String::new();
        let _ = lock.read_to_string(&mut holder);
        anyhow::bail!(
            "the data directory {} is in use by another reelyard serve (process {}); stop that one, or choose another \
             directory with --data-dir",
            path.display(),
            if holder.trim().is_empty() { "unknown" } else { holder.trim() }
        );
    }
    locked.with_context(|| {
        format!(
            "{} cannot be locked; the data directory has to be on a local file system",
            lock_path.display()
        )
    })?;
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    let directory = DataDir { path, _lock: lock };
    // Of a server that was killed.
    directory.retract();
    Ok(directory)
}

impl DataDir {
    /// Writes down where the server is reached, for the commands on this machine. Counts while the lock is held.
    pub(super) fn announce(&self, url: &str) -> anyhow::Result<()> {
        write_whole(&self.path.join(SERVER_URL_FILE), format!("{url}\n").as_bytes(), 0o600)
    }

    /// Without it nobody is misled: an address counts only beside a lock that is held.
    pub(super) fn retract(&self) {
        let _ = fs::remove_file(self.path.join(SERVER_URL_FILE));
    }
}

/// The playback signing keys; made at the first start.
pub(super) fn signing_keys(directory: &Path) -> anyhow::Result<Keyring> {
    let path = directory.join(SIGNING_KEYS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            warn_if_open(&path);
            Keyring::from_json(&text).with_context(|| path.display().to_string())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut secret = [0; SECRET_BYTES];
            getrandom::fill(&mut secret).context("the operating system gives no random numbers")?;
            let keyring = Keyring::new(secret);
            write_whole(&path, keyring.to_json().as_bytes(), 0o600)?;
            Ok(keyring)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The keys of upload tokens; made at the first start. An operator may add some for single tenants.
pub(super) fn upload_keys(directory: &Path) -> anyhow::Result<UploadKeys> {
    let path = directory.join(UPLOAD_KEYS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            warn_if_open(&path);
            UploadKeys::from_json(&text).with_context(|| path.display().to_string())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut secret = [0; SECRET_BYTES];
            getrandom::fill(&mut secret).context("the operating system gives no random numbers")?;
            let keys = UploadKeys::new(secret);
            write_whole(&path, keys.to_json().as_bytes(), 0o600)?;
            Ok(keys)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes the admin key's file at the first start, and has the catalogue know the key that the file holds: replacing the
/// file and starting again changes the key. Gives the key when it is new, to be shown once.
pub(super) async fn admin_key(directory: &Path, catalog: &Catalog) -> anyhow::Result<Option<String>> {
    let path = directory.join(ADMIN_KEY_FILE);
    let (key, is_new) = match fs::read_to_string(&path) {
        Ok(text) => {
            warn_if_open(&path);
            (text.trim().to_owned(), false)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut bytes = [0; ADMIN_KEY_BYTES];
            getrandom::fill(&mut bytes).context("the operating system gives no random numbers")?;
            let key = format!("{ADMIN_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            write_whole(&path, format!("{key}\n").as_bytes(), 0o600)?;
            (key, true)
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    anyhow::ensure!(
        key.len() >= ADMIN_KEY_BYTES,
        "{} holds no usable key; delete it to have a new one made",
        path.display()
    );
    let digest = hex::encode(Sha256::digest(key.as_bytes()));
    let now_ms = jiff::Timestamp::now().as_millisecond();
    catalog.install_admin_key(Uuid::now_v7(), TenantId::DEFAULT, &digest, now_ms).await?;
    Ok(is_new.then_some(key))
}

/// The media child: as told, else beside this program, else in PATH.
pub(super) fn media_program(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = told {
        let found = path.canonicalize().with_context(|| format!("no media program at {}", path.display()))?;
        anyhow::ensure!(found.is_file(), "{} is not a program", path.display());
        return Ok(found);
    }
    locate_media_program().context("say where it is with --media-program")
}

/// Somebody wrote the file anew by hand, or mounted it. Not refused: whose machine it is may know better.
fn warn_if_open(path: &Path) {
    let mode = fs::metadata(path).map(|facts| facts.permissions().mode()).unwrap_or_default();
    if is_open(mode) {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others on this machine can read this secret; chmod 600 it");
    }
}

fn is_open(mode: u32) -> bool {
    mode & 0o077 != 0
}

/// Writes a file whole: a new file beside it, synced, then renamed.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new_name = path.file_name().unwrap_or_default().to_owned();
    new_name.push(format!(".{}.new", std::process::id()));
    let new_path = directory.join(new_name);
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new_path)
        .with_context(|| format!("cannot write {}", new_path.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new_path, path).with_context(|| format!("cannot write {}", path.display()))?;
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{admin_key, open, signing_keys, upload_keys};
    use reelyard_catalog::Catalog;
    use sha2::{Digest, Sha256};
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn two_servers_do_not_share_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let first = open(place.path().join("data")).unwrap();
        let Err(error) = open(place.path().join("data")) else { panic!("the second got in") };
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(open(place.path().join("data")).is_ok());
    }

    #[tokio::test]
    async fn keys_are_made_once_kept_private_and_replaced_by_the_file() {
        let place = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&place.path().join("catalog.sqlite")).await.unwrap();
        let known = async |key: &str| {
            catalog.live_api_key(&hex::encode(Sha256::digest(key.as_bytes()))).await.unwrap().is_some()
        };
        let first = admin_key(place.path(), &catalog).await.unwrap().unwrap();
        assert!(known(&first).await);
        assert_eq!(admin_key(place.path(), &catalog).await.unwrap(), None);
        fs::remove_file(place.path().join("admin.key")).unwrap();
        let second = admin_key(place.path(), &catalog).await.unwrap().unwrap();
        assert!(known(&second).await && !known(&first).await);

        let keyring = signing_keys(place.path()).unwrap();
        assert!(signing_keys(place.path()).unwrap() == keyring);
        let keys = upload_keys(place.path()).unwrap();
        assert!(upload_keys(place.path()).unwrap() == keys);
        for secret in ["admin.key", "signing-keys.json", "upload-keys.json"] {
            let mode = fs::metadata(place.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }
}
