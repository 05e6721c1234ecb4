//! Part of the channels of a block of sound: for arrangements of channels that swresample cannot mix.

use crate::{Error, Frame, Result, sys};

impl Frame {
    /// The first channels alone, as a frame of its own with the usual arrangement of so many. Time is kept.
    pub fn first_channels(&self, wanted: u32) -> Result<Frame> {
        let failed = |why: &str| Error::custom("take the first channels", why);
        let format = self.sample_format().checked_raw().ok_or_else(|| failed("unknown sample format"))?;
        let channels = self.channels();
        if wanted == 0 || wanted > channels {
            return Err(failed("it has fewer"));
        }
        // SAFETY: both read static tables by a valid format.
        let (sample_bytes, planar) = unsafe {
            (sys::av_get_bytes_per_sample(format).max(0) as usize, sys::av_sample_fmt_is_planar(format) != 0)
        };
        let mut part = Frame::audio(self.samples(), self.sample_format(), self.sample_rate(), wanted)?;
        let samples = self.samples() as usize;
        let too_short = || failed("its planes are shorter than it says");
        if planar {
            for index in 0..wanted as usize {
                let bytes = samples * sample_bytes;
                let source = self.plane(index).get(..bytes).ok_or_else(too_short)?;
                part.plane_mut(index)?.get_mut(..bytes).ok_or_else(too_short)?.copy_from_slice(source);
            }
        } else {
            let (block, kept) = (channels as usize * sample_bytes, wanted as usize * sample_bytes);
            let source = self.plane(0).get(..samples * block).ok_or_else(too_short)?;
            let target = part.plane_mut(0)?.get_mut(..samples * kept).ok_or_else(too_short)?;
            for (target, source) in
                target.chunks_exact_mut(kept.max(1)).zip(source.chunks_exact(block.max(1)))
            {
                target.copy_from_slice(&source[..kept]);
            }
        }
        if let Some(pts) = self.pts() {
            part.set_pts(pts);
        }
        Ok(part)
    }
}
