//! Frames in, packets out.

use crate::{
    Error, Frame, FrameColour, Packet, PixelFormat, Result, SampleFormat, error::check, options::Options, sys,
};
use std::{
    ffi::CString,
    ptr::{self, NonNull},
};

#[derive(Clone, Debug)]
pub struct VideoEncoderOptions {
    /// `libx264`, `h264_nvenc`.
    pub encoder: String,
    pub width: u32,
    pub height: u32,
    pub format: PixelFormat,
    /// Seconds per tick of the frames' pts.
    pub time_base: (i32, i32),
    /// Pictures per second, for rate control and level.
    pub frame_rate: (i32, i32),
    pub threads: u32,
    /// Signalled in the bit stream.
    pub colour: FrameColour,
    /// Longest distance between keyframes, in pictures.
    pub gop_pictures: i32,
    pub max_bit_rate: i64,
    pub buffer_bits: i32,
    /// The encoder's own options, e.g. `preset`.
    pub options: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct AudioEncoderOptions {
    /// `aac`.
    pub encoder: String,
    pub format: SampleFormat,
    pub sample_rate: u32,
    pub channels: u32,
    pub bit_rate: i64,
}

pub struct Encoder {
    context: NonNull<sys::AVCodecContext>,
}

// SAFETY: used by one thread at a time; libavcodec has no thread affinity.
unsafe impl Send for Encoder {}

impl Encoder {
    pub fn video(options: &VideoEncoderOptions) -> Result<Self> {
        let (encoder, codec) = Self::allocate(&options.encoder)?;
        let format = options
            .format
            .checked_raw()
            .ok_or_else(|| Error::custom("open the encoder", "unknown pixel format"))?;
        let size = |value: u32| {
            i32::try_from(value).map_err(|_| Error::custom("open the encoder", "picture too large"))
        };
        let raw = encoder.context.as_ptr();
        // SAFETY: fresh, owned context. The colour fields are C enums, written as integers.
        unsafe {
            (*raw).width = size(options.width)?;
            (*raw).height = size(options.height)?;
            (*raw).pix_fmt = format;
            (*raw).time_base = sys::AVRational { num: options.time_base.0, den: options.time_base.1 };
            (*raw).framerate = sys::AVRational { num: options.frame_rate.0, den: options.frame_rate.1 };
            (*raw).sample_aspect_ratio = sys::AVRational { num: 1, den: 1 };
            (*raw).thread_count = options.threads.clamp(1, 64) as i32;
            (*raw).gop_size = options.gop_pictures;
            (*raw).rc_max_rate = options.max_bit_rate;
            (*raw).rc_buffer_size = options.buffer_bits;
            (*raw).flags |= (sys::AV_CODEC_FLAG_GLOBAL_HEADER | sys::AV_CODEC_FLAG_CLOSED_GOP) as i32;
            ptr::addr_of_mut!((*raw).color_primaries)
                .cast::<i32>()
                .write(i32::from(options.colour.primaries));
            ptr::addr_of_mut!((*raw).color_trc).cast::<i32>().write(i32::from(options.colour.transfer));
            ptr::addr_of_mut!((*raw).colorspace).cast::<i32>().write(i32::from(options.colour.matrix));
            let range = if options.colour.full_range == Some(true) { 2 } else { 1 };
            ptr::addr_of_mut!((*raw).color_range).cast::<i32>().write(range);
        }
        encoder.open(codec, &options.options)
    }

    /// Sets one option as opening would, with FFmpeg's own check of name, words and range.
    fn set_option(&mut self, key: &str, value: &str) -> Result<()> {
        let doing = "set an encoder's option";
        let text = |s: &str| CString::new(s).map_err(|_| Error::custom(doing, "holds a NUL byte"));
        let (name, words) = (text(key)?, text(value)?);
        // SAFETY: an owned context is an object with options, the encoder's own among them; both strings live
        // through the call, which copies them.
        let code = unsafe {
            sys::av_opt_set(
                self.context.as_ptr().cast(),
                name.as_ptr(),
                words.as_ptr(),
                sys::AV_OPT_SEARCH_CHILDREN,
            )
        };
        check(doing, code)
            .map(drop)
            .map_err(|error| Error { words: format!("{key}={value}: {}", error.words), ..error })
    }

    pub fn audio(options: &AudioEncoderOptions) -> Result<Self> {
        let (encoder, codec) = Self::allocate(&options.encoder)?;
        let format = options
            .format
            .checked_raw()
            .ok_or_else(|| Error::custom("open the encoder", "unknown sample format"))?;
        let raw = encoder.context.as_ptr();
        // SAFETY: fresh, owned context.
        unsafe {
            (*raw).sample_fmt = format;
            (*raw).sample_rate = options.sample_rate.min(i32::MAX as u32) as i32;
            (*raw).bit_rate = options.bit_rate;
            (*raw).time_base =
                sys::AVRational { num: 1, den: options.sample_rate.clamp(1, i32::MAX as u32) as i32 };
            (*raw).flags |= sys::AV_CODEC_FLAG_GLOBAL_HEADER as i32 | sys::AV_CODEC_FLAG_BITEXACT as i32;
            sys::av_channel_layout_default(&mut (*raw).ch_layout, options.channels.clamp(1, 64) as i32);
        }
        encoder.open(codec, &[])
    }

    fn allocate(name: &str) -> Result<(Self, *const sys::AVCodec)> {
        let name = CString::new(name).map_err(|_| Error::custom("find the encoder", "bad name"))?;
        // SAFETY: NUL-terminated; the codec is a static table or null.
        let codec = unsafe { sys::avcodec_find_encoder_by_name(name.as_ptr()) };
        if codec.is_null() {
            return Err(Error::new("find the encoder", sys::AVERROR_ENCODER_NOT_FOUND));
        }
        // SAFETY: plain allocation; null is checked.
        NonNull::new(unsafe { sys::avcodec_alloc_context3(codec) })
            .map(|context| (Self { context }, codec))
            .ok_or_else(|| Error::new("allocate an encoder", -libc::ENOMEM))
    }

    fn open(self, codec: *const sys::AVCodec, options: &[(String, String)]) -> Result<Self> {
        let mut dictionary = Options::new();
        for (key, value) in options {
            dictionary.set(key, value)?;
        }
        // SAFETY: owned context, matching codec.
        let code = unsafe { sys::avcodec_open2(self.context.as_ptr(), codec, dictionary.as_mut_ptr()) };
        check("open the encoder", code)?;
        match dictionary.left_over() {
            unknown if unknown.is_empty() => Ok(self),
            unknown => {
                Err(Error::custom("open the encoder", format!("it does not know {}", unknown.join(", "))))
            }
        }
    }

    /// `None`: no more frames; [`Self::receive`] gives what is left inside.
    pub fn send(&mut self, frame: Option<&Frame>) -> Result<()> {
        let frame = frame.map_or(ptr::null(), Frame::as_ptr);
        // SAFETY: owned context; a valid frame or null for the end.
        check("encode", unsafe { sys::avcodec_send_frame(self.context.as_ptr(), frame) }).map(drop)
    }

    /// The next packet, or `false` when another frame is wanted (or all was drained).
    pub fn receive(&mut self, packet: &mut Packet) -> Result<bool> {
        // SAFETY: owned context and packet.
        match unsafe { sys::avcodec_receive_packet(self.context.as_ptr(), packet.as_mut_ptr()) } {
            sys::AVERROR_EOF => Ok(false),
            code if code == -libc::EAGAIN => Ok(false),
            code => check("encode", code).map(|_| true),
        }
    }

    /// Parameter sets (H.264, Annex B) or AudioSpecificConfig.
    pub fn extradata(&self) -> &[u8] {
        // SAFETY: owned context; extradata holds extradata_size bytes.
        unsafe {
            let raw = self.context.as_ref();
            if raw.extradata.is_null() || raw.extradata_size <= 0 {
                return &[];
            }
            std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize)
        }
    }

    /// By how many pictures the encoder reorders: 2 with B pictures that are references, 1 without, 0 without B
    /// pictures; FFmpeg says 2 of NVENC with any B pictures. Valid once opened.
    pub fn reordered_pictures(&self) -> u32 {
        // SAFETY: owned context.
        unsafe { self.context.as_ref() }.has_b_frames.max(0) as u32
    }

    /// Samples that each frame of sound must hold.
    pub fn frame_samples(&self) -> u32 {
        // SAFETY: owned context.
        unsafe { self.context.as_ref() }.frame_size.max(0) as u32
    }

    /// Samples of silence that the encoder puts before the first sample.
    pub fn initial_padding(&self) -> u32 {
        // SAFETY: owned context.
        unsafe { self.context.as_ref() }.initial_padding.max(0) as u32
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let mut raw = self.context.as_ptr();
        // SAFETY: owned; freed once.
        unsafe { sys::avcodec_free_context(&mut raw) };
    }
}

/// Whether the linked FFmpeg's encoder knows an option and takes this value, without opening it: so that what is said
/// to a GPU's encoder is held against FFmpeg on machines without a GPU. Numbers, booleans and named constants are
/// checked; what an encoder reads from a text only when it opens (x264's presets) is not.
pub fn check_encoder_option(encoder: &str, key: &str, value: &str) -> Result<()> {
    let (mut encoder, _) = Encoder::allocate(encoder)?;
    encoder.set_option(key, value)
}

/// Whether the linked FFmpeg was built with this encoder. Says nothing about whether it opens.
pub fn has_encoder(name: &str) -> bool {
    Encoder::allocate(name).is_ok()
}

/// Really opens a video encoder and gives it one small picture: a name in a list, or a driver that is there, proves
/// nothing (an H200 decodes but has no encoder).
pub fn check_encoder_opens(name: &str) -> Result<()> {
    // NVENC refuses pictures below 145 x 49.
    let (width, height) = (256, 144);
    let mut encoder = Encoder::video(&VideoEncoderOptions {
        encoder: name.to_owned(),
        width,
        height,
        format: PixelFormat::YUV420P,
        time_base: (1, 25),
        frame_rate: (25, 1),
        threads: 1,
        colour: FrameColour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) },
        gop_pictures: 25,
        max_bit_rate: 0,
        buffer_bits: 0,
        options: Vec::new(),
    })?;
    let mut frame = Frame::video(width, height, PixelFormat::YUV420P)?;
    for plane in 0..3 {
        frame.plane_mut(plane)?.fill(128);
    }
    frame.set_pts(0);
    encoder.send(Some(&frame))?;
    encoder.send(None)?;
    if encoder.receive(&mut Packet::new()?)? {
        Ok(())
    } else {
        Err(Error::custom("encode one picture", "nothing came out"))
    }
}
