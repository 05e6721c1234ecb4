//! The pictures of one track, decoded, in the order in which they are shown.
//!
//! Used by encode, stills and probe. Damage inside the track is counted and passed over; only a source that cannot be
//! opened or read ends it. Every picture has a time; times never fall back.

use crate::{
    context::{Context, internal},
    packets::{Next, Packets},
    picture_times::PictureTimes,
};
use reelyard_ffmpeg::{Decoder, DecoderOptions, Frame, Input, Length, Packet};
use reelyard_model::{Failure, FailureCode};

/// How far before the wanted time to seek, one try after the other, in milliseconds: some containers (MPEG transport
/// streams) land between keyframes, and then an earlier one must be found. After the last, from the start.
const SEEK_BACK_MS: [i64; 4] = [0, 2_000, 10_000, 60_000];
/// Where it is known that there is a keyframe: such containers are searched by decode time and land just behind it, as
/// far as pictures are reordered. One try more finds it, and no film before it is read.
const SEEK_BACK_TO_KEYFRAME_MS: [i64; 5] = [0, 300, 2_000, 10_000, 60_000];
/// Packets looked at for a keyframe after a seek: 60 s of 120 pictures a second.
const MAX_PACKETS_TO_KEYFRAME: u32 = 7200;
/// Damaged packets in a row after which the rest is given up: a file of noise must not decode for hours.
const MAX_DAMAGE_IN_A_ROW: u32 = 5000;

/// Each decoding thread holds pictures of its own: beyond these it is memory that grows, not speed.
const MAX_DECODER_THREADS: u32 = 8;

/// Pictures are stored in the order of decoding. What is shown before a keyframe but needs it follows it at once; the
/// second picture that is shown after it shows that no more of them come. The second, because the two fields of a
/// keyframe may be stored one by one.
const PACKETS_BEHIND_END: u32 = 2;

/// The end of a chunk, which lies at a keyframe.
struct End {
    pts: i64,
    keyframe_seen: bool,
    packets_behind: u32,
}

impl End {
    /// Whether from this packet on nothing is needed for pictures before the end.
    fn is_passed_by(&mut self, packet: &Packet) -> bool {
        if packet.pts().is_none_or(|pts| pts < self.pts) {
            return false;
        }
        if packet.is_key() {
            self.keyframe_seen = true;
        } else if self.keyframe_seen {
            self.packets_behind += 1;
        }
        self.packets_behind >= PACKETS_BEHIND_END
    }
}

pub(crate) struct PictureReader {
    input: Input,
    decoder: Decoder,
    track: u32,
    packet: Packet,
    packets: Packets,
    /// The packet holds what a seek found and the decoder has not seen.
    packet_is_pending: bool,
    end_of_source: bool,
    /// Where the caller wants no more pictures, and what was seen of what lies behind.
    end: Option<End>,
    times: PictureTimes,
    damage_in_a_row: u32,
    /// Packets that did not decode, and pictures that were filled in by the decoder.
    pub(crate) damaged: u64,
    /// Seconds per tick, as (numerator, denominator).
    pub(crate) time_base: (i32, i32),
}

impl PictureReader {
    pub(crate) fn open(context: &Context, track: u32, length: Length) -> Result<Self, Failure> {
        let mut input = context.open_source(length)?;
        let stream = input
            .stream(track)
            .ok_or_else(|| Failure::new(FailureCode::Internal, format!("the source has no track {track}")))?;
        let time_base = stream.time_base();
        let parameters = stream.parameters().map_err(internal)?;
        let options = DecoderOptions {
            threads: context.threads().min(MAX_DECODER_THREADS),
            time_base,
            max_pixels: context.limits.max_picture_pixels,
        };
        let decoder = Decoder::open(&parameters, options).map_err(|error| {
            let code = if error.is_out_of_memory() {
                FailureCode::MemoryLimit
            } else {
                FailureCode::UnsupportedCodec
            };
            Failure::new(code, format!("track {track}, {}: {error}", parameters.codec_name()))
        })?;
        input.select(&[track]);
        Ok(Self {
            input,
            decoder,
            track,
            packet: Packet::new().map_err(internal)?,
            packets: Packets::default(),
            packet_is_pending: false,
            end_of_source: false,
            end: None,
            times: PictureTimes::default(),
            damage_in_a_row: 0,
            damaged: 0,
            time_base,
        })
    }

    /// Leave out pictures that no other needs: for previews, where a neighbour does as well.
    pub(crate) fn skip_disposable_pictures(&mut self) {
        self.decoder.skip_disposable_pictures();
    }

    /// When the keyframe is shown that the last seek found, if it found one and nothing was decoded since.
    pub(crate) fn found_keyframe(&self) -> Option<i64> {
        if self.packet_is_pending { self.packet.pts().or(self.packet.dts()) } else { None }
    }

    /// The keyframe that the last seek found, decoded alone: `next` would read on until the decoder lets it go. Only a
    /// seek may follow.
    pub(crate) fn keyframe_alone(&mut self) -> Result<Option<Frame>, Failure> {
        self.feed()?;
        self.end_of_source = true;
        if self.decoder.drain().is_err() {
            self.note_damage();
        }
        self.next()
    }

    pub(crate) fn declared_duration_us(&self) -> Option<i64> {
        self.input.declared_duration_us()
    }

    /// To the last keyframe at or before `pts`; pictures before `pts` come too and are the caller's to drop.
    pub(crate) fn seek(&mut self, pts: i64) -> Result<(), Failure> {
        self.seek_by(pts, &SEEK_BACK_MS)
    }

    /// As [`Self::seek`], where a keyframe is known to be.
    pub(crate) fn seek_to_keyframe(&mut self, pts: i64) -> Result<(), Failure> {
        self.seek_by(pts, &SEEK_BACK_TO_KEYFRAME_MS)
    }

    fn seek_by(&mut self, pts: i64, back_ms: &[i64]) -> Result<(), Failure> {
        let ticks_per_second = (i64::from(self.time_base.1) / i64::from(self.time_base.0.max(1))).max(1);
        for back_ms in back_ms {
            let target = pts.saturating_sub(back_ms.saturating_mul(ticks_per_second) / 1000);
            if self.input.seek(self.track, target).is_err() {
                continue;
            }
            self.after_seek();
            if self.find_keyframe(pts)? {
                return Ok(());
            }
        }
        let start = self.input.stream(self.track).and_then(|stream| stream.declared_start()).unwrap_or(0);
        self.input
            .seek_to_start()
            .or_else(|_| self.input.seek(self.track, start.min(0)))
            .map_err(|error| Failure::new(FailureCode::Internal, error.to_string()))?;
        self.after_seek();
        Ok(())
    }

    /// Pictures from here on, a keyframe's time, are not wanted: no more is read than the ones before need. Some may
    /// come all the same.
    pub(crate) fn end_at(&mut self, pts: Option<i64>) {
        self.end = pts.map(|pts| End { pts, keyframe_seen: false, packets_behind: 0 });
    }

    fn after_seek(&mut self) {
        self.decoder.flush();
        self.packet_is_pending = false;
        self.end_of_source = false;
        self.times = PictureTimes::default();
        self.damage_in_a_row = 0;
    }

    /// Reads up to the first keyframe and says whether it is early enough.
    fn find_keyframe(&mut self, pts: i64) -> Result<bool, Failure> {
        for _ in 0..MAX_PACKETS_TO_KEYFRAME {
            if !self.read_packet()? {
                return Ok(false);
            }
            if self.packet.is_key() {
                self.packet_is_pending = true;
                return Ok(self.packet.pts().or(self.packet.dts()).is_some_and(|found| found <= pts));
            }
        }
        Ok(false)
    }

    /// The next packet of the track.
    fn read_packet(&mut self) -> Result<bool, Failure> {
        loop {
            match self.packets.next(&mut self.input, &mut self.packet)? {
                Next::Packet if self.packet.stream_index() == self.track => return Ok(true),
                Next::Packet => {}
                Next::Damage => self.damaged += 1,
                Next::End => return Ok(false),
            }
        }
    }

    /// The next picture, its `pts` in ticks of the track. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let mut frame = Frame::empty().map_err(internal)?;
        loop {
            match self.decoder.receive(&mut frame) {
                Ok(true) => {
                    self.damage_in_a_row = 0;
                    if frame.is_damaged() {
                        self.damaged += 1;
                    }
                    let pts = self.times.next(frame.best_effort_pts(), frame.duration());
                    frame.set_pts(pts);
                    return Ok(Some(frame));
                }
                Ok(false) if self.end_of_source => return Ok(None),
                Ok(false) => {}
                Err(error) if error.is_out_of_memory() => return Err(internal(error)),
                Err(_) => {
                    self.note_damage();
                    if self.end_of_source && self.damage_in_a_row >= MAX_DAMAGE_IN_A_ROW {
                        return Ok(None);
                    }
                    continue;
                }
            }
            self.feed()?;
        }
    }

    fn feed(&mut self) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.packet_is_pending);
        let has_packet = self.damage_in_a_row < MAX_DAMAGE_IN_A_ROW
            && (pending || self.read_packet()?)
            && !self.is_past_end();
        if !has_packet {
            self.end_of_source = true;
            if self.decoder.drain().is_err() {
                self.note_damage();
            }
            return Ok(());
        }
        match self.decoder.send(&self.packet) {
            Ok(()) => Ok(()),
            Err(error) if error.is_out_of_memory() => Err(internal(error)),
            Err(_) => {
                self.note_damage();
                Ok(())
            }
        }
    }

    fn is_past_end(&mut self) -> bool {
        self.end.as_mut().is_some_and(|end| end.is_passed_by(&self.packet))
    }

    fn note_damage(&mut self) {
        self.damaged += 1;
        self.damage_in_a_row += 1;
    }
}
