//! What a container says about one stream's coding. Claims, not measurements.

use crate::{Error, FrameColour, PixelFormat, Result, error::check, sys};
use std::{
    ffi::{CStr, c_char},
    ptr::{self, NonNull},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    Video,
    Audio,
    Subtitle,
    Data,
    Attachment,
    Unknown,
}

pub struct CodecParameters(NonNull<sys::AVCodecParameters>);

// SAFETY: plain data, owned.
unsafe impl Send for CodecParameters {}

impl CodecParameters {
    /// # Safety
    /// `source` points to valid parameters.
    pub(crate) unsafe fn copy_of(source: *const sys::AVCodecParameters) -> Result<Self> {
        // SAFETY: plain allocation; null is checked.
        let copy = NonNull::new(unsafe { sys::avcodec_parameters_alloc() })
            .map(Self)
            .ok_or_else(|| Error::new("allocate codec parameters", -libc::ENOMEM))?;
        // SAFETY: both valid.
        check("copy codec parameters", unsafe { sys::avcodec_parameters_copy(copy.0.as_ptr(), source) })?;
        Ok(copy)
    }

    fn raw(&self) -> &sys::AVCodecParameters {
        // SAFETY: owned and valid as long as self.
        unsafe { self.0.as_ref() }
    }
    pub(crate) fn as_ptr(&self) -> *const sys::AVCodecParameters {
        self.0.as_ptr()
    }

    pub fn kind(&self) -> MediaKind {
        // SAFETY: a C enum read as the integer that it is.
        match unsafe { ptr::addr_of!((*self.0.as_ptr()).codec_type).cast::<i32>().read() } {
            0 => MediaKind::Video,
            1 => MediaKind::Audio,
            2 => MediaKind::Data,
            3 => MediaKind::Subtitle,
            4 => MediaKind::Attachment,
            _ => MediaKind::Unknown,
        }
    }

    /// FFmpeg's name, e.g. `h264`; `none` when the container names a coding that FFmpeg does not know.
    pub fn codec_name(&self) -> String {
        // SAFETY: the id was set by libavformat of this version; the name is static.
        unsafe { CStr::from_ptr(sys::avcodec_get_name(self.raw().codec_id)) }.to_string_lossy().into_owned()
    }

    /// The four characters by which the container names the coding, printable ones only.
    pub fn tag(&self) -> String {
        self.raw()
            .codec_tag
            .to_le_bytes()
            .iter()
            .filter(|b| b.is_ascii_graphic())
            .map(|b| char::from(*b))
            .collect()
    }

    pub fn profile_name(&self) -> Option<String> {
        // SAFETY: static table lookups.
        let name = unsafe { sys::avcodec_profile_name(self.raw().codec_id, self.raw().profile) };
        // SAFETY: checked for null; static.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    pub fn width(&self) -> u32 {
        self.raw().width.max(0) as u32
    }
    pub fn height(&self) -> u32 {
        self.raw().height.max(0) as u32
    }
    pub fn pixel_format(&self) -> PixelFormat {
        PixelFormat(self.raw().format)
    }
    pub fn sample_aspect_ratio(&self) -> (i32, i32) {
        (self.raw().sample_aspect_ratio.num, self.raw().sample_aspect_ratio.den)
    }
    pub fn sample_rate(&self) -> u32 {
        self.raw().sample_rate.max(0) as u32
    }
    pub fn channels(&self) -> u32 {
        self.raw().ch_layout.nb_channels.max(0) as u32
    }
    pub fn channel_layout(&self) -> String {
        let mut buffer = [0 as c_char; 128];
        // SAFETY: writes at most the length given, ended with NUL when positive.
        let code = unsafe {
            sys::av_channel_layout_describe(&self.raw().ch_layout, buffer.as_mut_ptr(), buffer.len())
        };
        if code <= 0 {
            return String::new();
        }
        buffer[buffer.len() - 1] = 0;
        // SAFETY: NUL-terminated by the line above at the latest.
        unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned()
    }
    pub fn bit_rate(&self) -> Option<u64> {
        u64::try_from(self.raw().bit_rate).ok().filter(|rate| *rate > 0)
    }
    pub fn is_interlaced(&self) -> bool {
        // SAFETY: a C enum read as the integer that it is. 0 unknown, 1 progressive, 2 to 5 interlaced.
        let order = unsafe { ptr::addr_of!((*self.0.as_ptr()).field_order).cast::<i32>().read() };
        order >= 2
    }
    /// Sound: samples in each packet, where the coding fixes it.
    pub fn frame_samples(&self) -> Option<u32> {
        u32::try_from(self.raw().frame_size).ok().filter(|samples| *samples > 0)
    }
    pub fn extradata(&self) -> &[u8] {
        let raw = self.raw();
        if raw.extradata.is_null() || raw.extradata_size <= 0 {
            return &[];
        }
        // SAFETY: extradata holds extradata_size bytes.
        unsafe { std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize) }
    }
    pub fn colour(&self) -> FrameColour {
        let raw = self.0.as_ptr();
        // SAFETY: C enums of 32 bits read as integers: files may hold values that the Rust enums do not list.
        let (primaries, transfer, matrix, range) = unsafe {
            (
                ptr::addr_of!((*raw).color_primaries).cast::<i32>().read(),
                ptr::addr_of!((*raw).color_trc).cast::<i32>().read(),
                ptr::addr_of!((*raw).color_space).cast::<i32>().read(),
                ptr::addr_of!((*raw).color_range).cast::<i32>().read(),
            )
        };
        FrameColour::from_numbers(primaries, transfer, matrix, range)
    }
}

impl Drop for CodecParameters {
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: owned; freed once.
        unsafe { sys::avcodec_parameters_free(&mut raw) };
    }
}
