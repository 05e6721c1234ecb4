//! The box syntax of ISO/IEC 14496-12 section 4.2: a big-endian writer that fills box sizes in by itself.
//!
//! Used by `init` and `segment`. Boxes written here are small (their inputs are bounded by the callers), so a 32-bit
//! size always suffices; the one large box, `mdat`, is written by `segment` after it has checked its size.

pub(crate) type FourCc = [u8; 4];

#[derive(Default)]
pub(crate) struct BoxWriter {
    bytes: Vec<u8>,
}

impl BoxWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A box: size, type, and whatever `body` writes.
    pub(crate) fn boxed(&mut self, kind: FourCc, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u32(0);
        self.bytes(&kind);
        body(self);
        let byte_len = self.bytes.len() - start;
        debug_assert!(u32::try_from(byte_len).is_ok(), "only mdat grows large, and it is not written here");
        self.bytes[start..start + 4].copy_from_slice(&(byte_len as u32).to_be_bytes());
    }

    /// A full box: version and 24 bits of flags come first.
    pub(crate) fn full_box(&mut self, kind: FourCc, version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.boxed(kind, |w| {
            w.u32(u32::from(version) << 24 | (flags & 0x00FF_FFFF));
            body(w);
        });
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }
    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
    pub(crate) fn reserve(&mut self, more: usize) {
        self.bytes.reserve(more);
    }
    /// Overwrites four bytes written before: for offsets that are known only later.
    pub(crate) fn patch_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
