//! One decoded picture or block of sound: a counted reference to its planes.

use crate::{Error, PixelFormat, Result, SampleFormat, error::check, sys};
use ffmpeg_next::ffi::AVPictureType;
use std::ptr::{self, NonNull};

pub struct Frame(NonNull<sys::AVFrame>);

// SAFETY: an AVFrame is plain data plus reference-counted buffers whose counters are atomic. Planes are written only
// through `&mut` after `make_writable` or a fresh allocation.
unsafe impl Send for Frame {}
// SAFETY: shared access only reads.
unsafe impl Sync for Frame {}

/// Code points of ITU-T H.273 as the decoder reported them, and the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameColour {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    /// `None`: not said.
    pub full_range: Option<bool>,
}

impl FrameColour {
    /// FFmpeg's enums as numbers: those of colour follow H.273; the range is 1 for limited, 2 for full.
    pub(crate) fn from_numbers(primaries: i32, transfer: i32, matrix: i32, range: i32) -> Self {
        const UNSPECIFIED: u8 = 2;
        let code_point = |value: i32| u8::try_from(value).unwrap_or(UNSPECIFIED);
        Self {
            primaries: code_point(primaries),
            transfer: code_point(transfer),
            matrix: code_point(matrix),
            full_range: match range {
                1 => Some(false),
                2 => Some(true),
                _ => None,
            },
        }
    }
}

impl Frame {
    pub fn empty() -> Result<Self> {
        // SAFETY: plain allocation; null is checked.
        NonNull::new(unsafe { sys::av_frame_alloc() })
            .map(Self)
            .ok_or_else(|| Error::new("allocate a frame", -libc::ENOMEM))
    }

    pub fn video(width: u32, height: u32, format: PixelFormat) -> Result<Self> {
        let frame = Self::empty()?;
        let (Ok(width), Ok(height)) = (i32::try_from(width), i32::try_from(height)) else {
            return Err(Error::custom("allocate a picture", "too large"));
        };
        // SAFETY: owned frame; av_frame_get_buffer checks format and size itself.
        let code = unsafe {
            let raw = frame.0.as_ptr();
            (*raw).width = width;
            (*raw).height = height;
            (*raw).format = format.0;
            sys::av_frame_get_buffer(raw, 0)
        };
        check("allocate a picture", code)?;
        Ok(frame)
    }

    /// Silence is not written: fill the planes.
    pub fn audio(samples: u32, format: SampleFormat, sample_rate: u32, channels: u32) -> Result<Self> {
        let frame = Self::empty()?;
        // SAFETY: owned frame; av_frame_get_buffer checks format and counts itself.
        let code = unsafe {
            let raw = frame.0.as_ptr();
            (*raw).nb_samples = samples.min(i32::MAX as u32) as i32;
            (*raw).format = format.0;
            (*raw).sample_rate = sample_rate.min(i32::MAX as u32) as i32;
            sys::av_channel_layout_default(&mut (*raw).ch_layout, channels.min(64) as i32);
            sys::av_frame_get_buffer(raw, 0)
        };
        check("allocate a block of sound", code)?;
        Ok(frame)
    }

    /// Another reference to the same planes.
    pub fn reference(&self) -> Result<Self> {
        let other = Self::empty()?;
        // SAFETY: both frames are owned; the new one is empty.
        check("reference a frame", unsafe { sys::av_frame_ref(other.0.as_ptr(), self.0.as_ptr()) })?;
        Ok(other)
    }

    pub fn make_writable(&mut self) -> Result<()> {
        // SAFETY: owned frame.
        check("make a frame writable", unsafe { sys::av_frame_make_writable(self.0.as_ptr()) }).map(drop)
    }

    fn raw(&self) -> &sys::AVFrame {
        // SAFETY: owned and valid as long as self.
        unsafe { self.0.as_ref() }
    }
    pub(crate) fn as_ptr(&self) -> *const sys::AVFrame {
        self.0.as_ptr()
    }
    pub(crate) fn as_mut_ptr(&mut self) -> *mut sys::AVFrame {
        self.0.as_ptr()
    }
    pub fn unref(&mut self) {
        // SAFETY: owned frame.
        unsafe { sys::av_frame_unref(self.0.as_ptr()) };
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
    pub fn sample_format(&self) -> SampleFormat {
        SampleFormat(self.raw().format)
    }
    pub fn samples(&self) -> u32 {
        self.raw().nb_samples.max(0) as u32
    }
    pub fn set_samples(&mut self, samples: u32) {
        // SAFETY: owned frame. Never above what was allocated.
        unsafe { (*self.0.as_ptr()).nb_samples = samples.min(self.samples()) as i32 };
    }
    pub fn sample_rate(&self) -> u32 {
        self.raw().sample_rate.max(0) as u32
    }
    pub fn channels(&self) -> u32 {
        self.raw().ch_layout.nb_channels.max(0) as u32
    }

    /// The decoder's best guess of when to show this, in ticks of the stream.
    pub fn best_effort_pts(&self) -> Option<i64> {
        let pts = self.raw().best_effort_timestamp;
        (pts != sys::AV_NOPTS_VALUE).then_some(pts).or(self.pts())
    }
    pub fn pts(&self) -> Option<i64> {
        (self.raw().pts != sys::AV_NOPTS_VALUE).then_some(self.raw().pts)
    }
    pub fn set_pts(&mut self, pts: i64) {
        // SAFETY: owned frame.
        unsafe { (*self.0.as_ptr()).pts = pts };
    }
    /// Ticks of the stream; 0 when not known.
    pub fn duration(&self) -> i64 {
        self.raw().pkt_duration.max(0)
    }
    pub fn is_interlaced(&self) -> bool {
        self.raw().interlaced_frame != 0
    }
    /// Decoded from this picture alone, as the decoder saw it (not as the container says).
    pub fn is_intra(&self) -> bool {
        // SAFETY: a C enum read as the integer that it is.
        let kind = unsafe { ptr::addr_of!((*self.0.as_ptr()).pict_type).cast::<u32>().read() };
        self.raw().key_frame != 0 || kind == AVPictureType::AV_PICTURE_TYPE_I as u32
    }
    /// The decoder filled in what it could not read.
    pub fn is_damaged(&self) -> bool {
        self.raw().flags & sys::AV_FRAME_FLAG_CORRUPT != 0 || self.raw().decode_error_flags != 0
    }

    /// Ask the encoder for a keyframe here, or leave the choice to it.
    pub fn request_keyframe(&mut self, keyframe: bool) {
        // SAFETY: owned frame.
        unsafe {
            (*self.0.as_ptr()).pict_type =
                if keyframe { AVPictureType::AV_PICTURE_TYPE_I } else { AVPictureType::AV_PICTURE_TYPE_NONE };
            (*self.0.as_ptr()).key_frame = i32::from(keyframe);
        }
    }

    /// `(numerator, denominator)`; 0/1 when not known.
    pub fn sample_aspect_ratio(&self) -> (i32, i32) {
        (self.raw().sample_aspect_ratio.num, self.raw().sample_aspect_ratio.den)
    }

    pub fn colour(&self) -> FrameColour {
        let raw = self.0.as_ptr();
        // SAFETY: the fields are C enums of 32 bits; read as integers because a file may hold a value that the Rust
        // enum does not list.
        let (primaries, transfer, matrix, range) = unsafe {
            (
                ptr::addr_of!((*raw).color_primaries).cast::<i32>().read(),
                ptr::addr_of!((*raw).color_trc).cast::<i32>().read(),
                ptr::addr_of!((*raw).colorspace).cast::<i32>().read(),
                ptr::addr_of!((*raw).color_range).cast::<i32>().read(),
            )
        };
        FrameColour::from_numbers(primaries, transfer, matrix, range)
    }

    /// Overwrites what the decoder reported, e.g. where the container knows better.
    pub fn set_colour(&mut self, colour: FrameColour) {
        let raw = self.0.as_ptr();
        let range = match colour.full_range {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        // SAFETY: owned frame; the fields are C enums of 32 bits, written as integers.
        unsafe {
            ptr::addr_of_mut!((*raw).color_primaries).cast::<i32>().write(i32::from(colour.primaries));
            ptr::addr_of_mut!((*raw).color_trc).cast::<i32>().write(i32::from(colour.transfer));
            ptr::addr_of_mut!((*raw).colorspace).cast::<i32>().write(i32::from(colour.matrix));
            ptr::addr_of_mut!((*raw).color_range).cast::<i32>().write(range);
        }
    }

    /// Bytes from one row of a plane to the next.
    pub fn row_bytes(&self, plane: usize) -> usize {
        self.raw().linesize.get(plane).map_or(0, |bytes| (*bytes).max(0) as usize)
    }

    /// A plane's rows, `row_bytes` apart (the last row may be shorter than that). Empty when there is none.
    pub fn plane(&self, plane: usize) -> &[u8] {
        match self.plane_extent(plane) {
            // SAFETY: the extent lies within the referenced buffer.
            Some((data, bytes)) => unsafe { std::slice::from_raw_parts(data, bytes) },
            None => &[],
        }
    }

    /// Fails when the planes are shared and cannot be copied.
    pub fn plane_mut(&mut self, plane: usize) -> Result<&mut [u8]> {
        self.make_writable()?;
        Ok(match self.plane_extent(plane) {
            // SAFETY: as above; writable means that no other reference sees the buffer.
            Some((data, bytes)) => unsafe { std::slice::from_raw_parts_mut(data, bytes) },
            None => &mut [],
        })
    }

    /// Start and length of a plane: to the end of the buffer that it lies in, or one plane of samples.
    fn plane_extent(&self, plane: usize) -> Option<(*mut u8, usize)> {
        let raw = self.raw();
        if raw.extended_data.is_null() || (raw.width > 0 && plane >= 4) {
            return None;
        }
        if raw.width == 0 && plane >= self.channels().max(1) as usize {
            return None;
        }
        // SAFETY: extended_data holds one pointer for each plane; the bounds were checked above.
        let data = unsafe { *raw.extended_data.add(plane) };
        if data.is_null() {
            return None;
        }
        // SAFETY: owned frame; returns the buffer that holds the plane, or null.
        let buffer = unsafe { sys::av_frame_get_plane_buffer(self.0.as_ptr(), plane as i32).as_ref()? };
        let used = (data as usize).checked_sub(buffer.data as usize)?;
        Some((data, buffer.size.checked_sub(used)?))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: owned; freed once.
        unsafe { sys::av_frame_free(&mut raw) };
    }
}
