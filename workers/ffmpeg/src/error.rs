//! What FFmpeg answered when something did not work.

use crate::sys;
use std::ffi::{CStr, c_char};

pub type Result<T> = std::result::Result<T, Error>;

/// FFmpeg's error number and words, with what we were doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {words} ({code})")]
pub struct Error {
    pub doing: &'static str,
    pub code: i32,
    pub words: String,
}

impl Error {
    pub(crate) fn new(doing: &'static str, code: i32) -> Self {
        Self { doing, code, words: words_for(code) }
    }

    pub(crate) fn custom(doing: &'static str, words: impl Into<String>) -> Self {
        Self { doing, code: 0, words: words.into() }
    }

    pub fn is_invalid_data(&self) -> bool {
        self.code == sys::AVERROR_INVALIDDATA
    }
    pub fn is_decoder_missing(&self) -> bool {
        self.code == sys::AVERROR_DECODER_NOT_FOUND
    }
    pub fn is_out_of_memory(&self) -> bool {
        self.code == -libc::ENOMEM
    }
    /// The descriptor could not be read: not the file's fault.
    pub fn is_input_output(&self) -> bool {
        self.code == -libc::EIO
    }
}

/// Zero or a count, or the error.
pub(crate) fn check(doing: &'static str, code: i32) -> Result<i32> {
    if code < 0 { Err(Error::new(doing, code)) } else { Ok(code) }
}

fn words_for(code: i32) -> String {
    let mut buffer = [0 as c_char; 128];
    // SAFETY: the buffer is writable for the length given; av_strerror always ends it with NUL.
    unsafe {
        sys::av_strerror(code, buffer.as_mut_ptr(), buffer.len());
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned()
    }
}
