//! Somebody else's bytes as FFmpeg's input: positioned reads, never an address or a path.

use crate::{Error, Result, sys};
use std::{
    ffi::{c_int, c_void},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

/// One read of the demuxer. 64 KiB: large enough to be cheap, small enough that jumping about costs little.
const BUFFER_BYTES: usize = 64 << 10;

/// Where an input gets its bytes: a file, or somebody who reads one.
pub trait ByteSource: Send {
    fn byte_len(&self) -> u64;
    /// Some bytes from `offset` on, as many as come easily; zero is the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

struct Reader {
    bytes: Box<dyn ByteSource>,
    position: u64,
    byte_len: u64,
    /// The bytes could not be read, once.
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
    pub(crate) fn open(bytes: Box<dyn ByteSource>) -> Result<Self> {
        let byte_len = bytes.byte_len();
        // SAFETY: plain allocation, checked below.
        let buffer = unsafe { sys::av_malloc(BUFFER_BYTES) }.cast::<u8>();
        if buffer.is_null() {
            return Err(Error::new("allocate the read buffer", -libc::ENOMEM));
        }
        let reader =
            NonNull::from(Box::leak(Box::new(Reader { bytes, position: 0, byte_len, has_failed: false })));
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

    /// Some read failed: what FFmpeg says from then on, an orderly end included, is about the reading, not the file.
    pub(crate) fn has_failed(&self) -> bool {
        // SAFETY: the reader lives until Drop.
        unsafe { self.reader.as_ref() }.has_failed
    }

    #[cfg(test)]
    pub(crate) fn read_from_now_on(&mut self, bytes: Box<dyn ByteSource>) {
        // SAFETY: the reader lives until Drop; nobody reads meanwhile.
        unsafe { self.reader.as_mut() }.bytes = bytes;
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

unsafe extern "C" fn read_callback(opaque: *mut c_void, buffer: *mut u8, wanted: c_int) -> c_int {
    let read = || {
        // SAFETY: FFmpeg hands back the pointer given at allocation, from one thread at a time.
        let reader = unsafe { &mut *opaque.cast::<Reader>() };
        let Ok(wanted) = usize::try_from(wanted) else { return -libc::EINVAL };
        // SAFETY: FFmpeg's buffer holds `wanted` writable bytes.
        let target = unsafe { std::slice::from_raw_parts_mut(buffer, wanted) };
        loop {
            match reader.bytes.read_at(target, reader.position) {
                Ok(0) => return sys::AVERROR_EOF,
                Ok(count) => {
                    reader.position += count as u64;
                    return count as c_int;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !reader.has_failed {
                        eprintln!("the source could not be read at byte {}: {error}", reader.position);
                    }
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
