//! A descriptor as FFmpeg's input: positioned reads, no seeking of the descriptor itself, never an address or a path.

use crate::{Error, Result, sys};
use std::{
    ffi::{c_int, c_void},
    fs::File,
    os::{fd::FromRawFd, unix::fs::FileExt},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

/// One read of the demuxer. 64 KiB: large enough to be cheap, small enough that jumping about costs little.
const BUFFER_BYTES: usize = 64 << 10;

struct Reader {
    file: File,
    position: u64,
    byte_len: u64,
    /// The descriptor could not be read, once.
    has_failed: bool,
}

/// Owns the AVIOContext, its buffer and the reader behind it.
pub(crate) struct SourceIo {
    context: NonNull<sys::AVIOContext>,
    reader: NonNull<Reader>,
}

// SAFETY: the reader is reached only through the context, which has one user at a time.
unsafe impl Send for SourceIo {}

impl SourceIo {
    pub(crate) fn open(descriptor: i32) -> Result<Self> {
        let file = duplicate(descriptor)?;
        let failed = |error: std::io::Error| Error::custom("look at the source", error.to_string());
        let byte_len = file.metadata().map_err(failed)?.len();
        // SAFETY: plain allocation, checked below.
        let buffer = unsafe { sys::av_malloc(BUFFER_BYTES) }.cast::<u8>();
        if buffer.is_null() {
            return Err(Error::new("allocate the read buffer", -libc::ENOMEM));
        }
        let reader =
            NonNull::from(Box::leak(Box::new(Reader { file, position: 0, byte_len, has_failed: false })));
        // SAFETY: buffer and reader live until Drop; the callbacks take exactly this opaque pointer.
        let context = unsafe {
            sys::avio_alloc_context(
                buffer,
                BUFFER_BYTES as c_int,
                0,
                reader.as_ptr().cast(),
                Some(read_callback),
                None,
                Some(seek_callback),
            )
        };
        match NonNull::new(context) {
            Some(context) => Ok(Self { context, reader }),
            None => {
                // SAFETY: both were made above and nobody else holds them.
                unsafe {
                    sys::av_free(buffer.cast());
                    drop(Box::from_raw(reader.as_ptr()));
                }
                Err(Error::new("allocate the input", -libc::ENOMEM))
            }
        }
    }

    pub(crate) fn context(&self) -> *mut sys::AVIOContext {
        self.context.as_ptr()
    }

    pub(crate) fn byte_len(&self) -> u64 {
        // SAFETY: the reader lives until Drop.
        unsafe { self.reader.as_ref() }.byte_len
    }

    /// Some read failed: what FFmpeg says from then on, an orderly end included, is about the descriptor, not the file.
    pub(crate) fn has_failed(&self) -> bool {
        // SAFETY: the reader lives until Drop.
        unsafe { self.reader.as_ref() }.has_failed
    }

    #[cfg(test)]
    pub(crate) fn read_from_now_on(&mut self, file: File) {
        // SAFETY: the reader lives until Drop; nobody reads meanwhile.
        unsafe { self.reader.as_mut() }.file = file;
    }
}

impl Drop for SourceIo {
    fn drop(&mut self) {
        let mut context = self.context.as_ptr();
        // SAFETY: FFmpeg may have replaced the buffer, so the context's own pointer is freed; the reader was leaked
        // in `open` and is taken back once.
        unsafe {
            sys::av_freep((&raw mut (*context).buffer).cast());
            sys::avio_context_free(&mut context);
            drop(Box::from_raw(self.reader.as_ptr()));
        }
    }
}

/// Our own descriptor on the same file: positioned reads do not disturb others.
fn duplicate(descriptor: i32) -> Result<File> {
    // SAFETY: fcntl on any integer is allowed; it answers -1 for one that is not open.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 10) };
    if copy < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error { doing: "open the source", code: -libc::EIO, words: error.to_string() });
    }
    // SAFETY: freshly made, owned by nobody else.
    Ok(unsafe { File::from_raw_fd(copy) })
}

unsafe extern "C" fn read_callback(opaque: *mut c_void, buffer: *mut u8, wanted: c_int) -> c_int {
    let read = || {
        // SAFETY: FFmpeg hands back the pointer given at allocation, from one thread at a time.
        let reader = unsafe { &mut *opaque.cast::<Reader>() };
        let Ok(wanted) = usize::try_from(wanted) else { return -libc::EINVAL };
        // SAFETY: FFmpeg's buffer holds `wanted` writable bytes.
        let target = unsafe { std::slice::from_raw_parts_mut(buffer, wanted) };
        loop {
            match reader.file.read_at(target, reader.position) {
                Ok(0) => return sys::AVERROR_EOF,
                Ok(count) => {
                    reader.position += count as u64;
                    return count as c_int;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    reader.has_failed = true;
                    return -libc::EIO;
                }
            }
        }
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(-libc::EIO)
}

unsafe extern "C" fn seek_callback(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as in read_callback.
    let reader = unsafe { &mut *opaque.cast::<Reader>() };
    if whence & sys::AVSEEK_SIZE != 0 {
        return i64::try_from(reader.byte_len).unwrap_or(i64::MAX);
    }
    let base = match whence & !sys::AVSEEK_FORCE {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => reader.position,
        libc::SEEK_END => reader.byte_len,
        _ => return i64::from(-libc::EINVAL),
    };
    let target =
        i64::try_from(base).ok().and_then(|base| base.checked_add(offset)).filter(|target| *target >= 0);
    match target {
        Some(target) => {
            reader.position = target as u64;
            target
        }
        None => i64::from(-libc::EINVAL),
    }
}
