//! One rung: takes pictures from a larger one, scales, hands them down, encodes, packages. One thread each.

use super::{
    encoder,
    package::{Packager, encoding},
};
use crate::context::{Context, internal};
use reelyard_ffmpeg::{Encoder, Frame, FrameColour, Packet, PixelFormat, ScaleColour, Scaler};
use reelyard_model::{
    Failure, FailureCode,
    output::TrackOutput,
    plan::{Chunk, Rung, VideoPlan},
    rational::rescale_ticks,
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
    mpsc::{Receiver, SyncSender},
};

/// What flows down the ladder. Ticks count from the start of the chunk.
pub(crate) enum Item {
    Picture(Picture),
    /// Nothing comes after this.
    End {
        ticks: i64,
    },
}

pub(crate) struct Picture {
    pub(crate) frame: Frame,
    pub(crate) ticks: i64,
    pub(crate) keyframe: bool,
}

/// How far each rung has come, for the display and for the parent's no-progress watchdog.
pub(crate) struct Progress {
    pub(crate) context: Context,
    pub(crate) done: Vec<AtomicI64>,
    pub(crate) timescale: u32,
    pub(crate) total_us: i64,
}

impl Progress {
    fn report(&self, position: usize, ticks: i64) {
        self.done[position].fetch_max(ticks, Ordering::Relaxed);
        self.tick();
    }

    /// Also a sign of life while nothing comes out yet.
    pub(crate) fn tick(&self) {
        let slowest = self.done.iter().map(|done| done.load(Ordering::Relaxed)).min().unwrap_or(0);
        let ticks_to_us = reelyard_model::Rational { numerator: 1, denominator: i64::from(self.timescale) };
        self.context.progress(rescale_ticks(slowest, ticks_to_us, 1_000_000), self.total_us);
    }
}

pub(crate) struct RungJob<'a> {
    pub(crate) context: &'a Context,
    pub(crate) plan: &'a VideoPlan,
    pub(crate) chunk: Chunk,
    pub(crate) chunk_start_ticks: i64,
    pub(crate) rung: &'a Rung,
    pub(crate) position: usize,
    pub(crate) encoder_name: &'static str,
    pub(crate) threads: u32,
    pub(crate) colour: FrameColour,
    pub(crate) progress: Arc<Progress>,
}

impl RungJob<'_> {
    /// Ends when the rung above says so; gives up when it vanishes without a word (it has failed and says why).
    pub(crate) fn run(
        self,
        above: Receiver<Item>,
        below: Vec<SyncSender<Item>>,
    ) -> Result<TrackOutput, Failure> {
        let mut encoder = encoder::open(self.encoder_name, self.plan, self.rung, self.colour, self.threads)?;
        let mut packager = Packager::start(
            self.context,
            self.plan,
            self.chunk,
            self.chunk_start_ticks,
            self.rung,
            &encoder,
            self.colour,
        )?;
        let mut scaler =
            Scaler::new(self.rung.width, self.rung.height, PixelFormat::YUV420P, &self.plan.encoder.scaler)
                .map_err(internal)?;
        let mut packet = Packet::new().map_err(internal)?;
        while let Ok(item) = above.recv() {
            match item {
                Item::Picture(picture) => {
                    let mut picture = self.fit(picture, &mut scaler)?;
                    self.hand_down(&picture, &below)?;
                    picture.frame.set_pts(picture.ticks);
                    picture.frame.request_keyframe(picture.keyframe);
                    encoder.send(Some(&picture.frame)).map_err(|error| encoding(self.rung, error))?;
                    self.collect(&mut encoder, &mut packet, &mut packager)?;
                }
                Item::End { ticks } => {
                    for below in below {
                        // Gone only when it has failed; its own error is the one that counts.
                        let _ = below.send(Item::End { ticks });
                    }
                    encoder.send(None).map_err(|error| encoding(self.rung, error))?;
                    self.collect(&mut encoder, &mut packet, &mut packager)?;
                    return packager.finish(ticks);
                }
            }
        }
        Err(cut_off())
    }

    fn fit(&self, picture: Picture, scaler: &mut Scaler) -> Result<Picture, Failure> {
        if (picture.frame.width(), picture.frame.height()) == (self.rung.width, self.rung.height) {
            return Ok(picture);
        }
        let matrix = self.colour.matrix;
        let colour = ScaleColour {
            input_matrix: matrix,
            input_full_range: false,
            output_matrix: matrix,
            output_full_range: false,
        };
        let frame = scaler.scale(&picture.frame, colour).map_err(internal)?;
        Ok(Picture { frame, ..picture })
    }

    fn hand_down(&self, picture: &Picture, below: &[SyncSender<Item>]) -> Result<(), Failure> {
        for below in below {
            let frame = picture.frame.reference().map_err(internal)?;
            let copy = Picture { frame, ticks: picture.ticks, keyframe: picture.keyframe };
            below.send(Item::Picture(copy)).map_err(|_| cut_off())?;
        }
        Ok(())
    }

    fn collect(
        &self,
        encoder: &mut Encoder,
        packet: &mut Packet,
        packager: &mut Packager,
    ) -> Result<(), Failure> {
        while encoder.receive(packet).map_err(|error| encoding(self.rung, error))? {
            packager.push(packet)?;
            self.progress.report(self.position, packet.pts().unwrap_or(0));
        }
        Ok(())
    }
}

/// The thread at the other end of a channel is gone. Never the reason itself: that thread reports its own.
pub(crate) fn cut_off() -> Failure {
    Failure::new(FailureCode::Internal, CUT_OFF)
}

pub(crate) fn is_cut_off(failure: &Failure) -> bool {
    failure.detail == CUT_OFF
}

const CUT_OFF: &str = "another part of the encode stopped";
