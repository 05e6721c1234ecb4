//! Every packet of the file, looked at once: what is there, when, and where decoding can start.
//!
//! The truth about durations, frame rates and keyframes; containers lie about all three.

use crate::{
    context::{Context, internal},
    packets::{Next, Packets},
    picture_times::believable,
};
use reelyard_ffmpeg::{Input, Packet};
use reelyard_model::{Failure, FailureCode, media_info::Keyframe};

/// 12 hours at 120 pictures a second, and then some: bounds the memory for times at 64 MiB.
const MAX_PACKETS_PER_TRACK: usize = 8 << 20;

#[derive(Default)]
pub(crate) struct TrackScan {
    /// Presentation times of what is shown, in file order; decode times from the first one without a presentation
    /// time on (see [`Self::sorted_times`]).
    times: Vec<i64>,
    /// Decode times of the same packets, while all have one.
    decode_times: Vec<i64>,
    some_without_time: bool,
    /// Keyframes without a presentation time: nobody knows what is shown when, so nothing can be cut there.
    pub(crate) keyframes_without_time: bool,
    pub(crate) keyframes: Vec<Keyframe>,
    /// Where the last one stops being shown, as far as packets say.
    pub(crate) end: Option<i64>,
    pub(crate) packet_count: u64,
    pub(crate) byte_count: u64,
    pub(crate) encrypted: bool,
    last_time: Option<i64>,
}

pub(crate) struct Scan {
    pub(crate) tracks: Vec<TrackScan>,
    /// The file ends before its container says, or stops making sense.
    pub(crate) cut_short: bool,
}

/// Reads the whole file.
pub(crate) fn scan(context: &Context, input: &mut Input) -> Result<Scan, Failure> {
    let mut tracks: Vec<TrackScan> = (0..input.stream_count()).map(|_| TrackScan::default()).collect();
    let mut packet = Packet::new().map_err(internal)?;
    let total = input.byte_len() as i64;
    let mut cut_short = false;
    let mut packets = Packets::default();
    loop {
        match packets.next(input, &mut packet)? {
            Next::Packet => {}
            Next::Damage => {
                cut_short = true;
                continue;
            }
            Next::End => break,
        }
        let position = packet.byte_offset().unwrap_or(0) as i64;
        context.progress(position.min(total), total);
        cut_short |= packet.is_corrupt();
        // Streams may appear while reading (transport streams); what was not there at the start is left out.
        if let Some(track) = tracks.get_mut(packet.stream_index() as usize) {
            track.note(&packet)?;
        }
    }
    Ok(Scan { tracks, cut_short })
}

impl TrackScan {
    fn note(&mut self, packet: &Packet) -> Result<(), Failure> {
        if packet.data().is_empty() {
            return Ok(());
        }
        if self.times.len() >= MAX_PACKETS_PER_TRACK {
            return Err(Failure::new(
                FailureCode::TooLong,
                "more packets than any film of the longest length has",
            ));
        }
        self.packet_count += 1;
        self.byte_count += packet.data().len() as u64;
        self.encrypted |= packet.has_encryption_info();
        if packet.is_discard() {
            return Ok(());
        }
        let (shown, decoded) = (believable(packet.pts()), believable(packet.dts()));
        let duration = believable(Some(packet.duration())).unwrap_or(0);
        self.some_without_time |= shown.is_none();
        let next = || self.last_time.map_or(0, |last| last.saturating_add(duration.max(1)));
        let time = shown.or(decoded).unwrap_or_else(next);
        self.last_time = Some(time);
        self.times.push(time);
        self.decode_times.extend(decoded);
        let end = time.saturating_add(duration);
        self.end = Some(self.end.map_or(end, |known| known.max(end)));
        if packet.is_key() {
            self.keyframes_without_time |= shown.is_none();
            self.keyframes.push(Keyframe { pts: time, byte_offset: packet.byte_offset() });
        }
        Ok(())
    }

    /// Times in rising order, each once. Where packets lack presentation times (MPEG program streams, AVI), decode
    /// times have the same spacing and stand in for them, from the first presentation time on.
    pub(crate) fn sorted_times(&self) -> Vec<i64> {
        let mut times = if self.some_without_time && self.decode_times.len() == self.times.len() {
            let shift = self.times.iter().min().zip(self.decode_times.iter().min()).map_or(0, |(p, d)| p - d);
            self.decode_times.iter().map(|time| time.saturating_add(shift)).collect()
        } else {
            self.times.clone()
        };
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Pictures or blocks of sound that are shown or heard.
    pub(crate) fn shown_count(&self) -> u64 {
        self.times.len() as u64
    }

    pub(crate) fn start(&self) -> Option<i64> {
        self.times.iter().copied().min()
    }
}
