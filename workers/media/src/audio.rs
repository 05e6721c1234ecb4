//! `Job::Audio`: the whole sound track, decoded, placed on the asset's timeline, and encoded once as AAC.
//!
//! Output sample 0 is heard at output time zero: sound before it is cut to the sample, a late start and gaps become
//! silence, and the end is where the plan says. What cannot be decoded is left out with a warning; a track of which
//! nothing decodes is a failure. Reads the source once, in file order, and stops early when the plan's end is reached.
//!
//! `timeline` decides what goes where, `track` encodes and writes files.

mod timeline;
mod track;

use crate::{
    context::{Context, internal},
    packets::{Next, Packets},
};
use reelyard_ffmpeg::{
    Decoder, DecoderOptions, Error, Frame, Input, Length, MediaKind, Packet, Resampler, SampleFormat,
};
use reelyard_model::{Failure, FailureCode, Rational, output::TrackOutput, plan::AudioPlan};
use timeline::{Clock, Jump, Timeline};
use track::TrackWriter;

/// A decoder gives a handful of frames for a packet; this stops one that fails without end.
const MAX_ERRORS_PER_PACKET: u32 = 16;
/// Silence written between two reports of progress: some tens of seconds, a fraction of a second of work.
const SILENCE_BLOCK_SAMPLES: u64 = 1 << 20;
/// Frames that lie beyond the plan's end, in a row, after which nothing more is expected before it.
const MAX_FRAMES_BEYOND_END: u32 = 200;

pub(crate) fn run(context: &Context, plan: &AudioPlan) -> Result<Vec<TrackOutput>, Failure> {
    let length = if plan.duration_us.is_some() { Length::NotWanted } else { Length::Wanted };
    let mut input = context.open_source(length)?;
    let (decoder, time_base) = open_decoder(&input, plan)?;
    input.select(&[plan.source_track]);
    let total_us = plan.duration_us.or(input.declared_duration_us()).unwrap_or(0);
    let mut job = AudioJob {
        context,
        plan,
        total_us,
        decoder,
        clock: Clock::new(time_base, plan.origin_us, plan.sample_rate),
        timeline: Timeline::new(plan.sample_rate, plan.duration_us),
        resampler: Resampler::new(SampleFormat::F32_PLANAR, plan.sample_rate, plan.channels),
        cannot_mix: None,
        run: None,
        writer: TrackWriter::open(context, plan)?,
        decoded_frames: 0,
        damaged: 0,
        frames_beyond_end: 0,
    };
    job.decode_all(&mut input)?;
    job.finish().map(|track| vec![track])
}

fn open_decoder(input: &Input, plan: &AudioPlan) -> Result<(Decoder, Rational), Failure> {
    let index = plan.source_track;
    let changed = || {
        Failure::new(FailureCode::Internal, format!("the plan names sound track {index}, the file has none"))
    };
    let stream = input.stream(index).ok_or_else(changed)?;
    let parameters = stream.parameters().map_err(internal)?;
    if parameters.kind() != MediaKind::Audio {
        return Err(changed());
    }
    let time_base = stream.time_base();
    let options = DecoderOptions { threads: 1, time_base, max_pixels: 0 };
    let decoder = Decoder::open(&parameters, options).map_err(|error| {
        let code = if error.is_out_of_memory() {
            FailureCode::MemoryLimit
        } else if error.is_decoder_missing() {
            FailureCode::UnsupportedCodec
        } else {
            FailureCode::NothingDecodes
        };
        Failure::new(code, format!("sound track {index} ({}): {error}", parameters.codec_name()))
    })?;
    let time_base = Rational::new(i64::from(time_base.0), i64::from(time_base.1)).ok_or_else(|| {
        Failure::new(FailureCode::NothingDecodes, format!("sound track {index} has a clock of zero ticks"))
    })?;
    Ok((decoder, time_base))
}

struct AudioJob<'a> {
    context: &'a Context,
    plan: &'a AudioPlan,
    /// For the progress display only.
    total_us: i64,
    decoder: Decoder,
    clock: Clock,
    timeline: Timeline,
    resampler: Resampler,
    /// A number of channels that swresample has no matrix for.
    cannot_mix: Option<u32>,
    run: Option<Run>,
    writer: TrackWriter<'a>,
    decoded_frames: u64,
    /// Packets and frames that could not be used.
    damaged: u64,
    frames_beyond_end: u32,
}

/// Frames that follow each other closely enough to be resampled as one signal.
struct Run {
    /// Output position of the next sample that comes out.
    next_out: i64,
    rate_in: u32,
}

impl AudioJob<'_> {
    fn decode_all(&mut self, input: &mut Input) -> Result<(), Failure> {
        let mut packet = Packet::new().map_err(internal)?;
        let mut frame = Frame::empty().map_err(internal)?;
        let mut packets = Packets::default();
        while !self.is_past_end() {
            match packets.next(input, &mut packet)? {
                Next::Packet => {}
                Next::Damage => {
                    self.damaged += 1;
                    continue;
                }
                Next::End => break,
            }
            if packet.stream_index() != self.plan.source_track {
                continue;
            }
            if self.decoder.send(&packet).is_err() {
                self.damaged += 1;
            }
            self.receive_frames(&mut frame)?;
            self.report_progress();
        }
        if self.decoder.drain().is_ok() {
            self.receive_frames(&mut frame)?;
        }
        self.end_run()
    }

    fn is_past_end(&self) -> bool {
        self.timeline.is_full() || self.frames_beyond_end > MAX_FRAMES_BEYOND_END
    }

    fn report_progress(&self) {
        let done_us = self.timeline.position_us();
        self.context.progress(done_us, self.total_us.max(done_us));
    }

    fn receive_frames(&mut self, frame: &mut Frame) -> Result<(), Failure> {
        let mut errors = 0;
        loop {
            match self.decoder.receive(frame) {
                Ok(true) => self.take(frame)?,
                Ok(false) => return Ok(()),
                Err(error) if error.is_out_of_memory() => return Err(internal(error)),
                Err(_) => {
                    self.damaged += 1;
                    errors += 1;
                    if errors > MAX_ERRORS_PER_PACKET {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One decoded frame: into the run that goes on, or into a new one when its time does not fit.
    fn take(&mut self, frame: &Frame) -> Result<(), Failure> {
        if frame.samples() == 0 || frame.sample_rate() == 0 || frame.channels() == 0 {
            self.damaged += 1;
            return Ok(());
        }
        self.decoded_frames += 1;
        self.damaged += u64::from(frame.is_damaged());
        let expected = self.expected();
        let start = match self.clock.position(frame.best_effort_pts()) {
            Some(position) => self.believe(position, expected),
            None => expected.unwrap_or(0),
        };
        if self.timeline.is_beyond_end(start) {
            self.frames_beyond_end += 1;
            return Ok(());
        }
        self.frames_beyond_end = 0;
        let rate_in = frame.sample_rate();
        let continues =
            self.run.as_ref().is_some_and(|run| run.rate_in == rate_in) && Some(start) == expected;
        if !continues {
            self.end_run()?;
            self.run = Some(Run { next_out: start, rate_in });
        }
        match self.convert(frame) {
            Ok(converted) => converted.iter().try_for_each(|frame| self.place(frame)),
            Err(error) if error.is_out_of_memory() => Err(internal(error)),
            Err(error) => {
                // Its time passes all the same: what follows is placed by its own time.
                eprintln!("a frame of sound was left out: {error}");
                self.damaged += 1;
                self.decoded_frames -= 1;
                self.run = None;
                Ok(())
            }
        }
    }

    /// Where the next sample that goes in will come out, while a run goes on.
    fn expected(&self) -> Option<i64> {
        let run = self.run.as_ref()?;
        Some(run.next_out.saturating_add(i64::from(self.resampler.held_back())))
    }

    /// Where a frame belongs whose timestamp says `position`: there, or where the run goes on. The first frame of all is
    /// placed exactly, unless it would mean hours of silence.
    fn believe(&mut self, position: i64, expected: Option<i64>) -> i64 {
        let reference = expected.unwrap_or(0);
        match (self.timeline.judge(position, expected), expected) {
            (Jump::None, None) | (Jump::Drift, None) | (Jump::Real, _) => position,
            (Jump::None, Some(expected)) => expected,
            (Jump::Drift, Some(expected)) => {
                let samples =
                    position.saturating_sub(expected).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                let distance = self.plan.sample_rate.saturating_mul(timeline::CORRECTION_S);
                if let Err(error) = self.resampler.stretch(samples as i32, distance) {
                    // Left alone, the drift grows until the next frame is placed by its timestamp.
                    eprintln!("{error}");
                }
                expected
            }
            (Jump::Unbelievable, _) => {
                self.context.warn("The sound track's clock jumps; the sound was joined there.");
                self.clock.shift(reference.saturating_sub(position));
                reference
            }
        }
    }

    /// To the output's form. An arrangement of channels that cannot be mixed is cut down to its first two: left and
    /// right in every convention.
    fn convert(&mut self, frame: &Frame) -> Result<Vec<Frame>, Error> {
        let channels = frame.channels();
        if self.cannot_mix != Some(channels) {
            match self.resampler.convert(frame) {
                Err(error) if channels > 2 && !error.is_out_of_memory() => {
                    eprintln!("{channels} channels cannot be mixed: {error}");
                    self.context.warn(
                        "The arrangement of the sound's channels is not known; the first two were used.",
                    );
                    self.cannot_mix = Some(channels);
                }
                result => return result,
            }
        }
        self.resampler.convert(&frame.first_channels(channels.min(2))?)
    }

    /// What the resampler still holds belongs to the run that ends.
    fn end_run(&mut self) -> Result<(), Failure> {
        if self.run.is_some()
            && let Some(rest) = self.resampler.drain().map_err(internal)?
        {
            self.place(&rest)?;
        }
        self.run = None;
        Ok(())
    }

    fn place(&mut self, converted: &Frame) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let samples = converted.samples();
        let placement = self.timeline.place(run.next_out, samples);
        run.next_out = run.next_out.saturating_add(i64::from(samples));
        self.silence(placement.silence)?;
        self.writer.samples(converted, placement.skip, placement.take)
    }

    /// Hours of silence take more than a second to encode: the parent hears of it.
    fn silence(&mut self, mut samples: u64) -> Result<(), Failure> {
        while samples > 0 {
            let block = samples.min(SILENCE_BLOCK_SAMPLES);
            self.writer.silence(block)?;
            samples -= block;
            self.report_progress();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<TrackOutput, Failure> {
        if self.decoded_frames == 0 {
            let detail =
                format!("no sound of track {} decodes ({} errors)", self.plan.source_track, self.damaged);
            return Err(Failure::new(FailureCode::NothingDecodes, detail));
        }
        if self.damaged > 0 {
            self.context.warn("Parts of the sound are damaged and were left out.");
        }
        if self.writer.heard_samples() == 0 {
            if self.plan.duration_us.is_none() {
                let detail =
                    format!("track {}: all sound lies before output time zero", self.plan.source_track);
                return Err(Failure::new(FailureCode::NothingDecodes, detail));
            }
            self.context.warn("The sound lies outside the time of the pictures: the result is silent.");
        }
        self.silence(self.timeline.rest())?;
        self.writer.finish()
    }
}
