//! The server of this machine: where it listens and what its key is, from the data directory that it runs on.
//!
//! `serve` holds a lock on its data directory and writes its address there. Both count together: an address without the
//! lock was left by a server that is gone, and somebody else may listen there now. So the key goes to the server that
//! holds the lock and to nobody else.

use crate::config::{ADMIN_KEY_FILE, LOCK_FILE, SERVER_URL_FILE};
use anyhow::Context as _;
use reqwest::Url;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
};

/// Keys and addresses are one short line.
const MAX_LINE_BYTES: u64 = 1024;

/// The address of the server that runs on this data directory now. `None` also where this user may not look.
pub(crate) fn running_server(data_dir: &Path) -> Option<Url> {
    let lock = File::open(data_dir.join(LOCK_FILE)).ok()?;
    // Let go again at once when `lock` is dropped; a server that starts at this very moment tries more than once.
    if !matches!(flock(&lock, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK)) {
        return None;
    }
    Url::parse(&line_of(&data_dir.join(SERVER_URL_FILE)).ok()?).ok()
}

/// Whether `address` leads to the server at `local`: the same address, or `localhost` and its port.
pub(crate) fn is_same_server(address: &Url, local: &Url) -> bool {
    let host = |url: &Url| url.host_str().unwrap_or_default().to_ascii_lowercase();
    let same_host = host(address) == host(local) || (host(address) == "localhost" && is_loopback(local));
    address.scheme() == local.scheme()
        && same_host
        && address.port_or_known_default() == local.port_or_known_default()
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `None` when there is no key file: the server runs without keys.
pub(crate) fn admin_key(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let path = data_dir.join(ADMIN_KEY_FILE);
    match line_of(&path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading the key in {}", path.display())),
    }
}

fn line_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_LINE_BYTES).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{admin_key, is_loopback, is_same_server, running_server};
    use reqwest::Url;
    use rustix::fs::{FlockOperation, flock};
    use std::fs::{self, File};

    #[test]
    fn an_address_counts_while_its_server_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(running_server(place), None);
        fs::write(place.join("server.url"), "http://127.0.0.1:8081\n").unwrap();
        let lock = File::create(place.join("lock")).unwrap();
        assert_eq!(running_server(place), None, "nobody holds the lock");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(running_server(place).unwrap().as_str(), "http://127.0.0.1:8081/");
        assert_eq!(admin_key(place).unwrap(), None);
        fs::write(place.join("admin.key"), "secret\n").unwrap();
        assert_eq!(admin_key(place).unwrap().as_deref(), Some("secret"));
    }

    #[test]
    fn the_same_server_by_its_names() {
        let url = |text: &str| Url::parse(text).unwrap();
        let local = url("http://127.0.0.1:8080");
        for yes in ["http://127.0.0.1:8080", "http://localhost:8080/", "http://LOCALHOST:8080"] {
            assert!(is_same_server(&url(yes), &local), "{yes}");
        }
        for no in [
            "http://127.0.0.1:8081",
            "http://[::1]:8080",
            "https://127.0.0.1:8080",
            "http://video.example:8080",
            "http://localhost.example:8080",
        ] {
            assert!(!is_same_server(&url(no), &local), "{no}");
        }
        let public = url("http://192.168.1.5");
        assert!(is_same_server(&url("http://192.168.1.5:80"), &public));
        assert!(!is_same_server(&url("http://localhost"), &public));
    }

    #[test]
    fn loopback_is_this_machine() {
        for yes in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8080"] {
            assert!(is_loopback(&Url::parse(yes).unwrap()), "{yes}");
        }
        for no in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com"] {
            assert!(!is_loopback(&Url::parse(no).unwrap()), "{no}");
        }
    }
}
