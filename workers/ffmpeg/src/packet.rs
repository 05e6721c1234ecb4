//! One compressed picture or block of sound.

use crate::{Error, Result, sys};
use std::ptr::NonNull;

pub struct Packet(NonNull<sys::AVPacket>);

// SAFETY: an AVPacket is plain data plus a reference-counted buffer whose counter is atomic.
unsafe impl Send for Packet {}

impl Packet {
    pub fn new() -> Result<Self> {
        // SAFETY: plain allocation; null is checked.
        NonNull::new(unsafe { sys::av_packet_alloc() })
            .map(Self)
            .ok_or_else(|| Error::new("allocate a packet", -libc::ENOMEM))
    }

    fn raw(&self) -> &sys::AVPacket {
        // SAFETY: owned and valid as long as self.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut sys::AVPacket {
        self.0.as_ptr()
    }
    pub(crate) fn as_ptr(&self) -> *const sys::AVPacket {
        self.0.as_ptr()
    }

    pub fn unref(&mut self) {
        // SAFETY: owned packet.
        unsafe { sys::av_packet_unref(self.0.as_ptr()) };
    }

    pub fn stream_index(&self) -> u32 {
        self.raw().stream_index.max(0) as u32
    }
    pub fn pts(&self) -> Option<i64> {
        (self.raw().pts != sys::AV_NOPTS_VALUE).then_some(self.raw().pts)
    }
    pub fn dts(&self) -> Option<i64> {
        (self.raw().dts != sys::AV_NOPTS_VALUE).then_some(self.raw().dts)
    }
    pub fn duration(&self) -> i64 {
        self.raw().duration.max(0)
    }
    pub fn is_key(&self) -> bool {
        self.raw().flags & sys::AV_PKT_FLAG_KEY != 0
    }
    /// The container says: decode it, but do not show it (edit lists).
    pub fn is_discard(&self) -> bool {
        self.raw().flags & sys::AV_PKT_FLAG_DISCARD != 0
    }
    pub fn is_corrupt(&self) -> bool {
        self.raw().flags & sys::AV_PKT_FLAG_CORRUPT != 0
    }
    pub fn byte_offset(&self) -> Option<u64> {
        u64::try_from(self.raw().pos).ok()
    }
    pub fn data(&self) -> &[u8] {
        let raw = self.raw();
        if raw.data.is_null() || raw.size <= 0 {
            return &[];
        }
        // SAFETY: data holds size bytes as long as the packet is referenced.
        unsafe { std::slice::from_raw_parts(raw.data, raw.size as usize) }
    }
    /// The packet carries decryption parameters: it is encrypted.
    pub fn has_encryption_info(&self) -> bool {
        // SAFETY: owned packet; a null size pointer is allowed.
        let side_data = unsafe {
            sys::av_packet_get_side_data(
                self.0.as_ptr(),
                sys::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INFO,
                std::ptr::null_mut(),
            )
        };
        !side_data.is_null()
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: owned; freed once.
        unsafe { sys::av_packet_free(&mut raw) };
    }
}
