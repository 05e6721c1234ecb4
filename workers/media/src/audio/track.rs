//! Samples in, `audio/init.mp4` and `audio/NNNNN.m4s` out: FFmpeg's own AAC encoder (LC) and the CMAF writer.
//!
//! The encoder puts one frame of priming (1024 samples) before the first sample. That frame is left out, so that decode
//! time is presentation time and the track starts at 0 for every reader: an edit list that skips it is applied by some
//! (Chromium) and ignored by others (FFmpeg's HLS and DASH demuxers, which then see sound start 21 ms early). The price is
//! what any seek pays: the first 1024 samples fade in without the overlap of the frame before (docs/decisions/0006).

use crate::context::{Context, internal};
use reelyard_cmaf::{
    AacConfig, AacTrack, BitRate, CmafError, Fragment, Sample, aac::SAMPLES_PER_FRAME, init_segment_aac,
    media_segment,
};
use reelyard_ffmpeg::{AudioEncoderOptions, Encoder, Frame, Packet, SampleFormat};
use reelyard_model::{
    Failure, FailureCode,
    output::{SegmentOutput, TrackFormat, TrackOutput},
    plan::AudioPlan,
};

const RENDITION: &str = "audio";
const BYTES_PER_SAMPLE: usize = size_of::<f32>();
/// Full scale is 1; a sample beyond this is not loud but garbage, and FFmpeg's encoder refuses it ("near Inf").
const LOUDEST_SAMPLE: f32 = 1e4;
/// Input buffer of an AAC-LC decoder: 6144 bits a channel (ISO/IEC 14496-3 section 4.5.3).
const DECODER_BUFFER_BYTES_PER_CHANNEL: u32 = 768;

pub(super) struct TrackWriter<'a> {
    context: &'a Context,
    plan: &'a AudioPlan,
    encoder: Encoder,
    packet: Packet,
    /// Frames of priming that the encoder has still to give, and that are left out.
    priming_frames: u32,
    /// Native f32 samples of each channel that do not fill a frame yet.
    pending: Vec<Vec<u8>>,
    samples_in: u64,
    heard_samples: u64,
    /// Encoded frames of the segment that is being filled.
    frames: Vec<Vec<u8>>,
    /// Frames of all segments before it.
    frames_written: u64,
    encoded_bytes: u64,
    largest_second_bytes: SecondsMeter,
    segments: Vec<SegmentOutput>,
}

impl<'a> TrackWriter<'a> {
    pub(super) fn open(context: &'a Context, plan: &'a AudioPlan) -> Result<Self, Failure> {
        let encoder = Encoder::audio(&AudioEncoderOptions {
            encoder: "aac".to_owned(),
            format: SampleFormat::F32_PLANAR,
            sample_rate: plan.sample_rate,
            channels: plan.channels,
            bit_rate: i64::try_from(plan.bit_rate).unwrap_or(i64::MAX),
        })
        .map_err(|error| Failure::new(FailureCode::EncoderUnavailable, format!("aac: {error}")))?;
        if encoder.frame_samples() != SAMPLES_PER_FRAME
            || !encoder.initial_padding().is_multiple_of(SAMPLES_PER_FRAME)
            || plan.segment_us <= 0
        {
            let detail =
                format!("frames of {} samples, segments of {} us", encoder.frame_samples(), plan.segment_us);
            return Err(Failure::new(FailureCode::Internal, detail));
        }
        Ok(Self {
            context,
            plan,
            priming_frames: encoder.initial_padding() / SAMPLES_PER_FRAME,
            encoder,
            packet: Packet::new().map_err(internal)?,
            pending: vec![Vec::new(); plan.channels as usize],
            samples_in: 0,
            heard_samples: 0,
            frames: Vec::new(),
            frames_written: 0,
            encoded_bytes: 0,
            largest_second_bytes: SecondsMeter::default(),
            segments: Vec::new(),
        })
    }

    /// Samples that are not silence of ours.
    pub(super) fn heard_samples(&self) -> u64 {
        self.heard_samples
    }

    pub(super) fn silence(&mut self, mut samples: u64) -> Result<(), Failure> {
        while samples > 0 {
            let block = samples.min(u64::from(SAMPLES_PER_FRAME)) as usize;
            for channel in &mut self.pending {
                channel.resize(channel.len() + block * BYTES_PER_SAMPLE, 0);
            }
            samples -= block as u64;
            self.encode_full_frames()?;
        }
        Ok(())
    }

    pub(super) fn samples(&mut self, frame: &Frame, skip: u32, take: u32) -> Result<(), Failure> {
        let range = skip as usize * BYTES_PER_SAMPLE..(skip + take) as usize * BYTES_PER_SAMPLE;
        for (index, channel) in self.pending.iter_mut().enumerate() {
            let plane = frame.plane(index).get(range.clone()).ok_or_else(|| {
                Failure::new(FailureCode::Internal, "the resampler returned fewer samples than it said")
            })?;
            channel.extend(plane.as_chunks::<BYTES_PER_SAMPLE>().0.iter().flat_map(|bytes| sane(*bytes)));
        }
        self.heard_samples += u64::from(take);
        self.encode_full_frames()
    }

    fn pending_samples(&self) -> u32 {
        self.pending.first().map_or(0, |channel| channel.len() / BYTES_PER_SAMPLE) as u32
    }

    fn encode_full_frames(&mut self) -> Result<(), Failure> {
        while self.pending_samples() >= SAMPLES_PER_FRAME {
            self.encode(SAMPLES_PER_FRAME)?;
        }
        Ok(())
    }

    /// One frame from the front of what is pending; only the last may be short.
    fn encode(&mut self, samples: u32) -> Result<(), Failure> {
        let mut frame =
            Frame::audio(samples, SampleFormat::F32_PLANAR, self.plan.sample_rate, self.plan.channels)
                .map_err(internal)?;
        let byte_len = samples as usize * BYTES_PER_SAMPLE;
        for (index, channel) in self.pending.iter_mut().enumerate() {
            let plane = frame.plane_mut(index).map_err(internal)?;
            let target = plane.get_mut(..byte_len).ok_or_else(|| {
                Failure::new(FailureCode::Internal, "a frame of sound without room for its samples")
            })?;
            target.copy_from_slice(&channel[..byte_len]);
            channel.drain(..byte_len);
        }
        frame.set_pts(self.samples_in as i64);
        self.samples_in += u64::from(samples);
        self.encoder.send(Some(&frame)).map_err(internal)?;
        self.receive_packets()
    }

    fn receive_packets(&mut self) -> Result<(), Failure> {
        while self.encoder.receive(&mut self.packet).map_err(internal)? {
            if self.priming_frames > 0 {
                self.priming_frames -= 1;
                continue;
            }
            let frames = self.frames_written + self.frames.len() as u64;
            if frames * u64::from(SAMPLES_PER_FRAME) >= self.samples_in {
                // Nothing but padding behind the last sample.
                continue;
            }
            // Only now that another frame follows: the last segment is written by `finish`.
            if self.segment_is_complete() {
                self.write_segment(None)?;
            }
            let data = self.packet.data().to_vec();
            self.encoded_bytes += data.len() as u64;
            self.largest_second_bytes.add(data.len(), self.plan.sample_rate);
            self.frames.push(data);
        }
        Ok(())
    }

    /// The frame that was added last ends at or after the next multiple of the segment duration.
    fn segment_is_complete(&self) -> bool {
        let us = |frames: u64| u128::from(frames * u64::from(SAMPLES_PER_FRAME)) * 1_000_000;
        let segment = u128::from(self.plan.segment_us.unsigned_abs()) * u128::from(self.plan.sample_rate);
        let start = us(self.frames_written);
        let end = us(self.frames_written + self.frames.len() as u64);
        // The boundary that belongs to this segment is the first one after its start.
        end >= (start / segment + 1) * segment
    }

    /// `media_end`: where the track ends, when it ends here; the last frame is shortened to it.
    fn write_segment(&mut self, media_end: Option<u64>) -> Result<(), Failure> {
        let frame_samples = u64::from(SAMPLES_PER_FRAME);
        let start = self.frames_written * frame_samples;
        let end = media_end.unwrap_or(u64::MAX);
        let samples: Vec<Sample<'_>> = self
            .frames
            .iter()
            .zip((start..end).step_by(SAMPLES_PER_FRAME as usize))
            .map(|(data, time)| Sample {
                data,
                duration: (end - time).min(frame_samples) as u32,
                composition_offset: 0,
                sync: true,
            })
            .collect();
        if samples.is_empty() {
            return Ok(());
        }
        let duration: u64 = samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let sequence_number = self.segments.len() as u32 + 1;
        let fragment = Fragment { decode_time: start, samples };
        let segment = media_segment(sequence_number, &[fragment]).map_err(not_written)?;
        let file = self
            .context
            .write_file(&format!("{RENDITION}/{:05}.m4s", self.segments.len()), &segment.bytes)?;
        self.segments.push(SegmentOutput {
            file,
            start_ticks: start,
            duration_ticks: duration,
            sync_points: Vec::new(),
        });
        self.frames_written += self.frames.len() as u64;
        self.frames.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<TrackOutput, Failure> {
        let last = self.pending_samples();
        if last > 0 {
            self.encode(last)?;
        }
        self.encoder.send(None).map_err(internal)?;
        self.receive_packets()?;
        self.write_segment(Some(self.samples_in))?;
        let config = AacConfig::from_extradata(self.encoder.extradata()).map_err(not_written)?;
        let init = init_segment_aac(&AacTrack {
            config: &config,
            language: self.plan.language.as_deref(),
            bit_rate: self.bit_rate(),
        })
        .map_err(not_written)?;
        let init = self.context.write_file(&format!("{RENDITION}/init.mp4"), &init)?;
        Ok(TrackOutput {
            rendition: RENDITION.to_owned(),
            format: TrackFormat::Audio { sample_rate: self.plan.sample_rate, channels: self.plan.channels },
            codecs: config.codec_string(),
            timescale: self.plan.sample_rate,
            init,
            segments: self.segments,
        })
    }

    fn bit_rate(&self) -> BitRate {
        let bits = u128::from(self.encoded_bytes) * 8 * u128::from(self.plan.sample_rate);
        let average = u32::try_from(bits / u128::from(self.samples_in.max(1))).unwrap_or(u32::MAX);
        BitRate {
            average,
            max: self.largest_second_bytes.largest_bits().max(average),
            buffer_bytes: DECODER_BUFFER_BYTES_PER_CHANNEL * self.plan.channels,
        }
    }
}

/// The largest number of bytes in any second, counted from the start.
#[derive(Default)]
struct SecondsMeter {
    samples: u64,
    bytes: u64,
    largest: u64,
}

impl SecondsMeter {
    fn add(&mut self, bytes: usize, sample_rate: u32) {
        self.bytes += bytes as u64;
        self.samples += u64::from(SAMPLES_PER_FRAME);
        self.largest = self.largest.max(self.bytes);
        if self.samples >= u64::from(sample_rate) {
            *self = Self { samples: 0, bytes: 0, largest: self.largest };
        }
    }

    fn largest_bits(&self) -> u32 {
        u32::try_from(self.largest * 8).unwrap_or(u32::MAX)
    }
}

/// Sound in floating point can hold what is no number; such a sample is silence.
fn sane(bytes: [u8; BYTES_PER_SAMPLE]) -> [u8; BYTES_PER_SAMPLE] {
    // Also false for NaN.
    if f32::from_ne_bytes(bytes).abs() <= LOUDEST_SAMPLE { bytes } else { [0; BYTES_PER_SAMPLE] }
}

fn not_written(error: CmafError) -> Failure {
    Failure::new(FailureCode::Internal, format!("{RENDITION}: {error}"))
}
