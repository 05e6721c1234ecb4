//! Pixel and sample formats by number.
//!
//! The numbers come out of files; they are kept as integers and turned into FFmpeg's enums only when FFmpeg itself
//! knows a name for them, because a Rust enum must never hold a value that it does not list.

use crate::sys;
use std::ffi::CStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelFormat(pub(crate) i32);

impl PixelFormat {
    pub const YUV420P: Self = Self(sys::AVPixelFormat::AV_PIX_FMT_YUV420P as i32);
    pub const RGB24: Self = Self(sys::AVPixelFormat::AV_PIX_FMT_RGB24 as i32);

    pub fn name(self) -> Option<&'static str> {
        // SAFETY: the descriptor and its name are static tables of libavutil.
        let descriptor = unsafe { self.descriptor()?.as_ref()? };
        // SAFETY: as above.
        unsafe { CStr::from_ptr(descriptor.name) }.to_str().ok()
    }

    /// Bits of the deepest component.
    pub fn bit_depth(self) -> Option<u8> {
        // SAFETY: static table of libavutil.
        let descriptor = unsafe { self.descriptor()?.as_ref()? };
        (0..usize::from(descriptor.nb_components).min(4))
            .map(|i| descriptor.comp[i].depth.clamp(0, 64) as u8)
            .max()
    }

    /// `yuvj420p` and friends: old names that mean full range.
    pub fn is_full_range_by_name(self) -> bool {
        self.name().is_some_and(|name| name.starts_with("yuvj"))
    }

    fn descriptor(self) -> Option<*const sys::AVPixFmtDescriptor> {
        let known = 0..sys::AVPixelFormat::AV_PIX_FMT_NB as i32;
        if !known.contains(&self.0) {
            return None;
        }
        // SAFETY: in the enum's range, hence one of its values (the enum has no gaps).
        let descriptor = unsafe { sys::av_pix_fmt_desc_get(self.raw()) };
        (!descriptor.is_null()).then_some(descriptor)
    }

    /// FFmpeg's enum.
    ///
    /// # Safety
    /// The number must be one of this FFmpeg's pixel formats or -1.
    pub(crate) unsafe fn raw(self) -> sys::AVPixelFormat {
        // SAFETY: promised by the caller; the enum is `repr(i32)`.
        unsafe { std::mem::transmute::<i32, sys::AVPixelFormat>(self.0) }
    }

    /// FFmpeg's enum, or `None` for a number that it does not know.
    pub(crate) fn checked_raw(self) -> Option<sys::AVPixelFormat> {
        self.descriptor()?;
        // SAFETY: the number has a descriptor, hence is one of the enum's values.
        Some(unsafe { self.raw() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleFormat(pub(crate) i32);

impl SampleFormat {
    /// 32-bit float, one plane a channel: what FFmpeg's AAC encoder takes.
    pub const F32_PLANAR: Self = Self(sys::AVSampleFormat::AV_SAMPLE_FMT_FLTP as i32);

    pub(crate) fn checked_raw(self) -> Option<sys::AVSampleFormat> {
        let known = -1..sys::AVSampleFormat::AV_SAMPLE_FMT_NB as i32;
        // SAFETY: in the enum's range, which has no gaps; the enum is `repr(i32)`.
        known.contains(&self.0).then(|| unsafe { std::mem::transmute::<i32, sys::AVSampleFormat>(self.0) })
    }
}
