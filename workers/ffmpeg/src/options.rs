//! An AVDictionary for the length of one call.

use crate::{Error, Result, sys};
use std::{
    ffi::{CStr, CString},
    ptr,
};

pub(crate) struct Options(*mut sys::AVDictionary);

impl Options {
    pub(crate) fn new() -> Self {
        Self(ptr::null_mut())
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let text = |s: &str| CString::new(s).map_err(|_| Error::custom("set an option", "holds a NUL byte"));
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: both strings live through the call, which copies them.
        let code = unsafe { sys::av_dict_set(&mut self.0, key.as_ptr(), value.as_ptr(), 0) };
        crate::error::check("set an option", code).map(drop)
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut *mut sys::AVDictionary {
        &mut self.0
    }

    /// Keys that the called function did not take: a misspelt option is our bug, not something to pass over.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut entry: *mut sys::AVDictionaryEntry = ptr::null_mut();
        loop {
            // SAFETY: the dictionary is ours; the entry is null or came from the call before.
            entry = unsafe { sys::av_dict_get(self.0, c"".as_ptr(), entry, sys::AV_DICT_IGNORE_SUFFIX) };
            if entry.is_null() {
                return keys;
            }
            // SAFETY: a live entry has a NUL-terminated key.
            keys.push(unsafe { CStr::from_ptr((*entry).key) }.to_string_lossy().into_owned());
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: frees the dictionary we own; null is allowed.
        unsafe { sys::av_dict_free(&mut self.0) };
    }
}
