//! Packets in, frames out.

use crate::{
    CodecParameters, Error, Frame, Packet, PixelFormat, Result, error::check, options::Options, sys,
};
use std::ptr::{self, NonNull};

#[derive(Clone, Copy, Debug)]
pub struct DecoderOptions {
    pub threads: u32,
    /// Seconds per tick of the packets, as (numerator, denominator).
    pub time_base: (i32, i32),
    /// Pictures above this are refused by the decoder itself.
    pub max_pixels: u64,
}

pub struct Decoder {
    context: NonNull<sys::AVCodecContext>,
    /// The decoder has been told that no more packets come.
    drained: bool,
}

// SAFETY: used by one thread at a time; libavcodec has no thread affinity.
unsafe impl Send for Decoder {}

impl Decoder {
    pub fn open(parameters: &CodecParameters, options: DecoderOptions) -> Result<Self> {
        // SAFETY: valid parameters; the codec is a static table or null.
        let codec = unsafe { sys::avcodec_find_decoder((*parameters.as_ptr()).codec_id) };
        if codec.is_null() {
            return Err(Error::new("find a decoder", sys::AVERROR_DECODER_NOT_FOUND));
        }
        // SAFETY: plain allocation; null is checked.
        let context = NonNull::new(unsafe { sys::avcodec_alloc_context3(codec) })
            .ok_or_else(|| Error::new("allocate a decoder", -libc::ENOMEM))?;
        let decoder = Self { context, drained: false };
        let raw = context.as_ptr();
        // SAFETY: fresh, owned context; valid parameters.
        unsafe {
            check("set up the decoder", sys::avcodec_parameters_to_context(raw, parameters.as_ptr()))?;
            (*raw).pkt_timebase = sys::AVRational { num: options.time_base.0, den: options.time_base.1 };
            (*raw).thread_count = options.threads.clamp(1, 64) as i32;
            (*raw).max_pixels = i64::try_from(options.max_pixels).unwrap_or(i64::MAX);
        }
        let mut dictionary = Options::new();
        // SAFETY: owned context, matching codec.
        check("open the decoder", unsafe { sys::avcodec_open2(raw, codec, dictionary.as_mut_ptr()) })?;
        Ok(decoder)
    }

    /// Hand over a packet. Call [`Self::receive`] until it has nothing before the next one. An error means that this
    /// packet is damaged; the decoder goes on with the next.
    pub fn send(&mut self, packet: &Packet) -> Result<()> {
        // SAFETY: owned context and packet.
        check("decode", unsafe { sys::avcodec_send_packet(self.context.as_ptr(), packet.as_ptr()) }).map(drop)
    }

    /// No more packets: [`Self::receive`] gives what is left inside.
    pub fn drain(&mut self) -> Result<()> {
        if self.drained {
            return Ok(());
        }
        self.drained = true;
        // SAFETY: owned context; null means the end.
        check("drain the decoder", unsafe { sys::avcodec_send_packet(self.context.as_ptr(), ptr::null()) })
            .map(drop)
    }

    /// The next frame, or `false` when another packet is wanted (or all was drained).
    pub fn receive(&mut self, frame: &mut Frame) -> Result<bool> {
        // SAFETY: owned context and frame.
        match unsafe { sys::avcodec_receive_frame(self.context.as_ptr(), frame.as_mut_ptr()) } {
            sys::AVERROR_EOF => Ok(false),
            code if code == -libc::EAGAIN => Ok(false),
            code => check("decode", code).map(|_| true),
        }
    }

    /// After a seek.
    pub fn flush(&mut self) {
        self.drained = false;
        // SAFETY: owned, opened context.
        unsafe { sys::avcodec_flush_buffers(self.context.as_ptr()) };
    }

    /// Leave out pictures that no other refers to, where the coding marks them: about half the work with B pictures.
    pub fn skip_disposable_pictures(&mut self) {
        // SAFETY: owned context.
        unsafe { (*self.context.as_ptr()).skip_frame = sys::AVDiscard::AVDISCARD_NONREF };
    }

    pub fn pixel_format(&self) -> PixelFormat {
        // SAFETY: a C enum read as the integer that it is.
        PixelFormat(unsafe { ptr::addr_of!((*self.context.as_ptr()).pix_fmt).cast::<i32>().read() })
    }
    pub fn sample_rate(&self) -> u32 {
        // SAFETY: owned context.
        unsafe { self.context.as_ref() }.sample_rate.max(0) as u32
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let mut raw = self.context.as_ptr();
        // SAFETY: owned; freed once.
        unsafe { sys::avcodec_free_context(&mut raw) };
    }
}
