//! Sound to another rate, channel count and sample format with swresample.

use crate::{Error, Frame, Result, SampleFormat, error::check, sys};
use std::ptr::{self, NonNull};

/// One output form; configures itself from the first frame, and again when the input's form changes.
pub struct Resampler {
    context: Option<(NonNull<sys::SwrContext>, (u32, u32, SampleFormat))>,
    format: SampleFormat,
    sample_rate: u32,
    channels: u32,
}

// SAFETY: used by one thread at a time; swresample has no thread affinity.
unsafe impl Send for Resampler {}

impl Resampler {
    pub fn new(format: SampleFormat, sample_rate: u32, channels: u32) -> Self {
        Self { context: None, format, sample_rate, channels }
    }

    /// What comes out now for `input`; may be shorter or longer than it. Samples held back come with later calls.
    /// When the input's form changes, what was held back of the old form comes first, as a frame of its own.
    pub fn convert(&mut self, input: &Frame) -> Result<Vec<Frame>> {
        let form = (input.sample_rate(), input.channels(), input.sample_format());
        let mut output = Vec::new();
        if self.context.as_ref().is_some_and(|(_, old)| *old != form) {
            output.extend(self.drain()?);
        }
        if self.context.is_none() {
            self.configure(input, form)?;
        }
        output.extend(self.run(Some(input))?);
        Ok(output)
    }

    /// Samples of the output's rate that went in and have not come out.
    pub fn held_back(&self) -> u32 {
        let Some((context, _)) = self.context else { return 0 };
        // SAFETY: owned context.
        let samples = unsafe { sys::swr_get_delay(context.as_ptr(), i64::from(self.sample_rate)) };
        u32::try_from(samples).unwrap_or(0)
    }

    /// Makes so many samples more (or fewer, below zero) out of the next `distance` than would come by themselves: sound
    /// is stretched, without a seam, to follow a clock.
    pub fn stretch(&mut self, samples: i32, distance: u32) -> Result<()> {
        let Some((context, _)) = self.context else { return Ok(()) };
        let distance = distance.min(i32::MAX as u32) as i32;
        // SAFETY: owned, started context.
        let code = unsafe { sys::swr_set_compensation(context.as_ptr(), samples, distance) };
        check("stretch sound", code).map(drop)
    }

    /// What was held back.
    pub fn drain(&mut self) -> Result<Option<Frame>> {
        if self.context.is_none() {
            return Ok(None);
        }
        let rest = self.run(None)?;
        self.free();
        Ok(rest)
    }

    fn configure(&mut self, input: &Frame, form: (u32, u32, SampleFormat)) -> Result<()> {
        let raw = |format: SampleFormat| {
            format.checked_raw().ok_or_else(|| Error::custom("set up the resampler", "unknown sample format"))
        };
        let mut context = ptr::null_mut();
        // SAFETY: layouts live through the call, which copies them; FFmpeg checks the rest.
        let code = unsafe {
            let mut output_layout: sys::AVChannelLayout = std::mem::zeroed();
            sys::av_channel_layout_default(&mut output_layout, self.channels.clamp(1, 64) as i32);
            let mut input_layout: sys::AVChannelLayout = std::mem::zeroed();
            if (*input.as_ptr()).ch_layout.order == sys::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
                sys::av_channel_layout_default(&mut input_layout, form.1.clamp(1, 64) as i32);
            } else {
                sys::av_channel_layout_copy(&mut input_layout, &(*input.as_ptr()).ch_layout);
            }
            let code = sys::swr_alloc_set_opts2(
                &mut context,
                &mut output_layout,
                raw(self.format)?,
                self.sample_rate.min(i32::MAX as u32) as i32,
                &mut input_layout,
                raw(form.2)?,
                form.0.min(i32::MAX as u32) as i32,
                0,
                ptr::null_mut(),
            );
            sys::av_channel_layout_uninit(&mut input_layout);
            code
        };
        check("set up the resampler", code)?;
        let context =
            NonNull::new(context).ok_or_else(|| Error::new("set up the resampler", -libc::ENOMEM))?;
        self.context = Some((context, form));
        // SAFETY: owned context.
        check("start the resampler", unsafe { sys::swr_init(context.as_ptr()) }).map(drop)
    }

    fn run(&mut self, input: Option<&Frame>) -> Result<Option<Frame>> {
        let Some((context, _)) = self.context else { return Ok(None) };
        let input_samples = input.map_or(0, |frame| frame.samples().min(i32::MAX as u32) as i32);
        // SAFETY: owned, started context.
        let room = check("resample", unsafe { sys::swr_get_out_samples(context.as_ptr(), input_samples) })?;
        if room == 0 {
            return Ok(None);
        }
        let mut output = Frame::audio(room as u32, self.format, self.sample_rate, self.channels)?;
        // SAFETY: the output holds `room` samples in each plane; the input's planes hold what it says.
        let made = unsafe {
            sys::swr_convert(
                context.as_ptr(),
                (*output.as_mut_ptr()).extended_data,
                room,
                input.map_or(ptr::null_mut(), |frame| (*frame.as_ptr()).extended_data.cast()),
                input_samples,
            )
        };
        let made = check("resample", made)?;
        output.set_samples(made as u32);
        Ok((made > 0).then_some(output))
    }

    fn free(&mut self) {
        if let Some((context, _)) = self.context.take() {
            let mut context = context.as_ptr();
            // SAFETY: owned; freed once.
            unsafe { sys::swr_free(&mut context) };
        }
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        self.free();
    }
}
