//! Runs the real `reelyard-media` on one job, as the worker agent does, and makes test sources with FFmpeg's CLI.
//!
//! Shared by the tests of single jobs. Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use reelyard_model::{
    Failure,
    child::{Job, Limits, Message, PROTOCOL, Request},
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Everything the child said, the greeting included.
pub struct Said(pub Vec<Message>);

impl Said {
    pub fn warnings(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|message| match message {
                Message::Warning { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self.0.last() {
            Some(Message::Failed { failure }) => Some(failure),
            _ => None,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.0.last(), Some(Message::Done))
    }

    /// Every file that was reported, with its length, is there.
    pub fn files(&self, folder: &Path) -> Vec<String> {
        let mut files = Vec::new();
        for message in &self.0 {
            if let Message::File { file, byte_len } = message {
                assert_eq!(fs::metadata(folder.join(file)).unwrap().len(), *byte_len, "{file}");
                files.push(file.clone());
            }
        }
        files
    }
}

pub fn run(job: Job, source: &Path, folder: &Path) -> Said {
    let request = Request { protocol: PROTOCOL, job, limits: Limits::default() };
    // The shell opens descriptor 3, as the agent does; `exec` makes the child take its place.
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" 3<\"$1\"", env!("CARGO_BIN_EXE_reelyard-media")])
        .arg(source)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&request).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let messages: Vec<Message> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = Said(messages);
    assert!(
        said.is_done() || said.failure().is_some(),
        "the child died: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// `ffmpeg` with these arguments, in this folder; what it wrote to standard output.
pub fn ffmpeg(folder: &Path, arguments: &str) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("the tests of the media child need `ffmpeg` on the PATH");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ffmpeg {arguments}: {errors}");
    output.stdout
}

/// What FFmpeg warns of when it decodes a file: nothing, for ours.
pub fn complaints(folder: &Path, file: &str) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-nostdin", "-i", file, "-f", "null", "-"])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn probe(folder: &Path, file: &str, entries: &str) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", entries, "-of", "csv=p=0", file])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file of the shared corpus, or `None`, said aloud, in a clone without it.
pub fn corpus(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus").join(file);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}
