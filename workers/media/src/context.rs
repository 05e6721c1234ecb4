//! What every job has at hand: limits, the way to the parent, the source, and the scratch directory.
//!
//! The scratch directory is the working directory; files are written whole, closed, and only then reported.

use crate::{messages::Messages, recognise};
use reelyard_ffmpeg::{ByteSource, Error, Input, Length};
use reelyard_model::{
    Failure, FailureCode,
    child::{Limits, Message},
    output::FileOutput,
};
use reelyard_sandbox::source::Source;
use sha2::{Digest, Sha256};
use std::{fs, io, path::Path, sync::Arc};

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) messages: Messages,
    pub(crate) source: Arc<Source>,
}

/// A reader's own hold on the one source.
struct Shared(Arc<Source>);

impl ByteSource for Shared {
    fn byte_len(&self) -> u64 {
        self.0.byte_len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

impl Context {
    /// Takes over what the parent left open, and refuses what is surely no film.
    pub(crate) fn open(limits: Limits, messages: &Messages) -> Result<Self, Failure> {
        let source = Source::inherited().map_err(|error| source_missing(&error))?;
        let context = Self { limits, messages: messages.clone(), source: Arc::new(source) };
        recognise::source(&context)?;
        Ok(context)
    }

    /// Opens the source. Its first bytes were looked at before (see `recognise`): what fails here is damaged.
    pub(crate) fn open_source(&self, length: Length) -> Result<Input, Failure> {
        Input::open(Box::new(Shared(Arc::clone(&self.source))), length).map_err(|error| {
            if error.is_out_of_memory() {
                return Failure::new(FailureCode::MemoryLimit, error.to_string());
            }
            if error.is_input_output() {
                return Failure::new(FailureCode::SourceMissing, error.to_string());
            }
            Failure::new(FailureCode::NotMedia, error.to_string())
        })
    }

    /// Threads for decoding and encoding together.
    pub(crate) fn threads(&self) -> u32 {
        self.limits.threads.clamp(1, 64)
    }

    pub(crate) fn progress(&self, done_us: i64, total_us: i64) {
        self.messages.progress(done_us, total_us);
    }

    /// For the creator: the result is good but something was left out.
    pub(crate) fn warn(&self, text: &str) {
        self.messages.warn(text);
    }

    /// Writes one output file below the scratch directory, `/` between folders, and reports it.
    pub(crate) fn write_file(&self, file: &str, bytes: &[u8]) -> Result<FileOutput, Failure> {
        let path = Path::new(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| storage_failure(file, &error))?;
        }
        fs::write(path, bytes).map_err(|error| storage_failure(file, &error))?;
        let byte_len = bytes.len() as u64;
        self.messages.send(&Message::File { file: file.to_owned(), byte_len });
        Ok(FileOutput { file: file.to_owned(), byte_len, sha256: hex::encode(Sha256::digest(bytes)) })
    }
}

pub(crate) fn source_missing(error: &io::Error) -> Failure {
    Failure::new(FailureCode::SourceMissing, format!("the source could not be read: {error}"))
}

/// An error of FFmpeg in a place where the input is not to blame.
pub(crate) fn internal(error: Error) -> Failure {
    let code = if error.is_out_of_memory() { FailureCode::MemoryLimit } else { FailureCode::Internal };
    Failure::new(code, error.to_string())
}

fn storage_failure(file: &str, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::FileTooLarge => FailureCode::OutputLimit,
        _ => FailureCode::StorageFailed,
    };
    Failure::new(code, format!("write {file}: {error}"))
}
