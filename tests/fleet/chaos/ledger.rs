//! What clients were told, one line for each fact, synced before the client goes on: the only promise the checker knows.

use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

pub(super) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

/// An upload that was acknowledged as finished.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) upload: String,
    pub(super) asset: String,
    pub(super) sha256: String,
    pub(super) byte_len: u64,
}

impl Ledger {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path).expect("the ledger opens");
        Self { path: path.to_owned(), file: Mutex::new(file) }
    }

    fn write(&self, fact: &Value) {
        let mut file = self.file.lock().expect("nobody panicked with it");
        file.write_all(format!("{fact}\n").as_bytes()).expect("the ledger takes a line");
        file.sync_data().expect("the ledger is synced");
    }

    pub(super) fn offset(&self, upload: &str, offset: u64) {
        self.write(&json!({ "fact": "offset", "upload": upload, "offset": offset }));
    }

    pub(super) fn part(&self, upload: &str, number: usize, etag: &str) {
        self.write(&json!({ "fact": "part", "upload": upload, "number": number, "etag": etag }));
    }

    pub(super) fn finished(&self, upload: &str, asset: &str, sha256: &str, byte_len: usize) {
        self.write(&json!({
            "fact": "finished", "upload": upload, "asset": asset, "sha256": sha256, "byte_len": byte_len,
        }));
    }

    pub(super) fn cancelled(&self, asset: &str) {
        self.write(&json!({ "fact": "cancelled", "asset": asset }));
    }

    pub(super) fn deleted(&self, asset: &str) {
        self.write(&json!({ "fact": "deleted", "asset": asset }));
    }

    /// For the reader of a report: what broke the fleet, among what it had promised.
    pub(super) fn fault(&self, text: &str) {
        self.write(&json!({ "fault": text }));
    }

    /// Read back from the file.
    pub(super) fn facts(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).expect("the ledger is readable");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of the ledger is JSON")).collect()
    }
}

impl Finished {
    pub(super) fn all(facts: &[Value]) -> Vec<Self> {
        let text = |fact: &Value, name: &str| fact[name].as_str().expect("a text").to_owned();
        facts
            .iter()
            .filter(|fact| fact["fact"] == "finished")
            .map(|fact| Self {
                upload: text(fact, "upload"),
                asset: text(fact, "asset"),
                sha256: text(fact, "sha256"),
                byte_len: fact["byte_len"].as_u64().expect("a length"),
            })
            .collect()
    }
}

pub(super) fn assets_with(facts: &[Value], kind: &str) -> std::collections::BTreeSet<String> {
    let of_kind = facts.iter().filter(|fact| fact["fact"] == kind);
    of_kind.filter_map(|fact| fact["asset"].as_str().map(str::to_owned)).collect()
}
