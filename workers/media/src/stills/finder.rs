//! A picture for each of a rising row of times, as cheaply as the source allows.
//!
//! A keyframe that lies in the wanted span, decoded alone, is the cheapest. Where keyframes are rare, pictures are
//! decoded forward from the last one, until a budget is spent; then the keyframe before the span must do. Reads and
//! seeks through `PictureReader`, which passes over damage.

use crate::{context::Context, pictures::PictureReader};
use reelyard_ffmpeg::Frame;
use reelyard_model::Failure;

/// What may be decoded beyond single keyframes, in pixels: about 1000 pictures of 1080p, two to five seconds of one core.
const FORWARD_PIXELS: u64 = 2_100_000_000;
/// Seeks in a row that found no keyframe, after which the source is taken for one that cannot seek.
const MAX_USELESS_SEEKS: u32 = 3;

/// In ticks of the source. The picture shown at `middle` is wanted; any from `from` up to `until` will do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) middle: i64,
    pub(super) until: i64,
}

impl Span {
    /// A keyframe this early is good enough: half a span is not seen on a preview.
    fn early(&self) -> i64 {
        self.from.saturating_sub(self.until.saturating_sub(self.from) / 2)
    }
}

pub(super) struct Finder<'a> {
    context: &'a Context,
    /// Done and total, in microseconds, repeated while decoding: a far keyframe takes more than a second.
    pub(super) progress: (i64, i64),
    reader: PictureReader,
    /// Where forward decoding stands, while it goes on.
    forward_at: Option<i64>,
    /// Decoded, but shown only after the span that was asked for.
    ahead: Option<Frame>,
    /// Time of the picture that was returned last.
    returned: Option<i64>,
    pixels_left: u64,
    useless_seeks: u32,
    /// No picture comes after the one returned last.
    ended: bool,
}

impl<'a> Finder<'a> {
    pub(super) fn new(context: &'a Context, mut reader: PictureReader) -> Self {
        reader.skip_disposable_pictures();
        Self {
            context,
            progress: (0, 0),
            reader,
            forward_at: None,
            ahead: None,
            returned: None,
            pixels_left: FORWARD_PIXELS,
            useless_seeks: 0,
            ended: false,
        }
    }

    /// `None`: the picture returned last is still the one, or there is none.
    pub(super) fn near(&mut self, span: &Span) -> Result<Option<Frame>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let found = if self.forward_at.is_some() && self.pixels_left > 0 {
            self.forward(span)?
        } else if self.useless_seeks >= MAX_USELESS_SEEKS {
            None
        } else {
            self.seek(span)?
        };
        if let Some(frame) = &found {
            self.returned = frame.pts();
        }
        Ok(found)
    }

    /// The first picture that decodes, wherever it is: when the times of the source, or of the plan, were wrong.
    pub(super) fn any(&mut self) -> Result<Option<Frame>, Failure> {
        self.reader.seek(i64::MIN)?;
        self.reader.next()
    }

    fn seek(&mut self, span: &Span) -> Result<Option<Frame>, Failure> {
        self.forward_at = None;
        self.ahead = None;
        if self.reader.seek(span.middle).is_err() {
            self.useless_seeks += 1;
            return Ok(None);
        }
        let Some(keyframe) = self.reader.found_keyframe() else {
            // From the start: there is no keyframe before the span, or none that the container knows.
            self.useless_seeks += 1;
            return self.forward(span);
        };
        self.useless_seeks = 0;
        let is_near = keyframe >= span.early();
        if !is_near && self.pixels_left > 0 {
            return self.forward(span);
        }
        if self.returned.is_some_and(|returned| keyframe <= returned) {
            return Ok(None);
        }
        let alone = self.reader.keyframe_alone()?;
        if alone.is_some() || self.pixels_left == 0 {
            return Ok(alone);
        }
        // Some codings give a picture only when they have seen the next.
        self.reader.seek(span.middle)?;
        self.forward(span)
    }

    fn forward(&mut self, span: &Span) -> Result<Option<Frame>, Failure> {
        let mut before = None;
        loop {
            let next = match self.ahead.take() {
                Some(frame) => Some(frame),
                None => self.decode()?,
            };
            let Some(frame) = next else {
                self.ended = true;
                self.forward_at = None;
                return Ok(before);
            };
            let pts = frame.pts().unwrap_or(span.from);
            if pts >= span.until && (before.is_some() || self.returned.is_some()) {
                // Shown after the span: what came before it is what a viewer sees there.
                self.ahead = Some(frame);
                return Ok(before);
            }
            self.forward_at = Some(pts);
            if pts >= span.from || self.pixels_left == 0 {
                return Ok(Some(frame));
            }
            before = Some(frame);
        }
    }

    fn decode(&mut self) -> Result<Option<Frame>, Failure> {
        let frame = self.reader.next()?;
        self.context.progress(self.progress.0, self.progress.1);
        if let Some(frame) = &frame {
            let pixels = u64::from(frame.width()) * u64::from(frame.height());
            self.pixels_left = self.pixels_left.saturating_sub(pixels);
        }
        Ok(frame)
    }
}
