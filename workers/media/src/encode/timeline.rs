//! Where pictures lie on the output's clock, and where closed GOPs begin. Pure.
//!
//! All ticks here count from the start of the chunk, in `1 / timescale` seconds.

use reelyard_model::{
    plan::{Chunk, VideoPlan},
    rational::rescale_ticks,
};

/// A picture this little before a GOP boundary opens the GOP: containers that count in milliseconds round.
const BOUNDARY_TOLERANCE_DIVISOR: u32 = 1000;
/// A gap longer than this is a jump of a broken clock, not a picture that was held: it is not filled.
const MAX_FILLED_GAP_SECONDS: i64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ticks: i64,
    pub(crate) keyframe: bool,
}

pub(crate) struct Timeline {
    plan: Clock,
    /// Of the chunk on the asset's timeline.
    pub(crate) start_ticks: i64,
    /// Of the chunk's end; `None` in the last chunk.
    pub(crate) end_ticks: Option<i64>,
    last: Option<i64>,
    current_gop: i64,
}

#[derive(Clone, Copy)]
struct Clock {
    time_base: reelyard_model::Rational,
    origin_pts: i64,
    timescale: u32,
    gop_ticks: i64,
}

impl Timeline {
    pub(crate) fn new(plan: &VideoPlan, chunk: Chunk) -> Self {
        let clock = Clock {
            time_base: plan.source_time_base,
            origin_pts: plan.origin_pts,
            timescale: plan.timescale.max(1),
            gop_ticks: i64::from(plan.gop_ticks.max(1)),
        };
        let start_ticks = clock.asset_ticks(chunk.start_pts).max(0);
        let end_ticks = chunk.end_pts.map(|end| clock.asset_ticks(end) - start_ticks);
        Self { plan: clock, start_ticks, end_ticks, last: None, current_gop: -1 }
    }

    /// Ticks from the start of the chunk.
    pub(crate) fn ticks_of(&self, pts: i64) -> i64 {
        self.plan.asset_ticks(pts) - self.start_ticks
    }

    /// Where the picture goes. `None`: on the same tick as the one before it, or at or behind the end. The first
    /// picture of a chunk is shown from the chunk's start, so that there is never a hole.
    pub(crate) fn place(&mut self, pts: i64) -> Option<Place> {
        let ticks = match self.last {
            None => 0,
            Some(last) => Some(self.ticks_of(pts)).filter(|ticks| *ticks > last)?,
        };
        if self.end_ticks.is_some_and(|end| ticks >= end) {
            return None;
        }
        Some(self.put(ticks))
    }

    /// GOP boundaries between the last picture and `until` at which the last picture must be repeated: a picture held
    /// for longer than a GOP would make a segment that no player can join.
    pub(crate) fn repeats_before(&mut self, until: i64) -> Vec<Place> {
        let Some(last) = self.last else { return Vec::new() };
        let gap = until.saturating_sub(last);
        if gap <= self.plan.gop_ticks || gap > MAX_FILLED_GAP_SECONDS * i64::from(self.plan.timescale) {
            return Vec::new();
        }
        let first = last / self.plan.gop_ticks + 1;
        let boundaries = (first..).map(|gop| gop * self.plan.gop_ticks).take_while(|ticks| *ticks < until);
        boundaries.collect::<Vec<_>>().into_iter().map(|ticks| self.put(ticks)).collect()
    }

    /// Where the output ends, given where the last picture of the source does.
    pub(crate) fn end(&self, last_picture_end_pts: i64) -> i64 {
        let measured = self.ticks_of(last_picture_end_pts);
        self.end_ticks.unwrap_or(measured).max(self.last.map_or(1, |last| last + 1))
    }

    fn put(&mut self, ticks: i64) -> Place {
        let tolerance =
            i64::from(self.plan.timescale / BOUNDARY_TOLERANCE_DIVISOR).min(self.plan.gop_ticks / 8);
        let gop = (ticks + tolerance) / self.plan.gop_ticks;
        let keyframe = gop > self.current_gop;
        self.current_gop = gop.max(self.current_gop);
        self.last = Some(ticks);
        Place { ticks, keyframe }
    }
}

impl Clock {
    fn asset_ticks(self, pts: i64) -> i64 {
        rescale_ticks(pts.saturating_sub(self.origin_pts), self.time_base, self.timescale)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Place, Timeline};
    use reelyard_model::{
        Rational,
        media_info::{Colour, FrameRate, Hdr, Orientation},
        plan::{Chunk, VideoEncoderSettings, VideoPlan},
    };

    pub(crate) fn plan(time_base: (i64, i64), origin_pts: i64) -> VideoPlan {
        VideoPlan {
            source_track: 0,
            source_time_base: Rational::new(time_base.0, time_base.1).unwrap(),
            origin_pts,
            timescale: 90_000,
            frame_rate: FrameRate::Constant { rate: Rational::new(25, 1).unwrap() },
            orientation: Orientation::default(),
            deinterlace: false,
            colour: Colour {
                primaries: 1,
                transfer: 1,
                matrix: 1,
                full_range: false,
                hdr: Hdr::None,
                dolby_vision: false,
            },
            gop_ticks: 180_000,
            segment_ticks: 360_000,
            rungs: Vec::new(),
            encoder: VideoEncoderSettings {
                x264_preset: String::new(),
                nvenc_preset: String::new(),
                profile: String::new(),
                scaler: String::new(),
            },
            chunks: Vec::new(),
        }
    }

    #[test]
    fn gops_begin_at_the_first_picture_of_each_multiple() {
        let chunk = Chunk { index: 1, end_pts: Some(1101), ..Chunk::whole(1000) };
        let mut timeline = Timeline::new(&plan((1, 25), 10), chunk);
        assert_eq!(timeline.start_ticks, 990 * 3600);
        let keyframes: Vec<i64> =
            (1000..1101).filter(|pts| timeline.place(*pts).is_some_and(|place| place.keyframe)).collect();
        assert_eq!(keyframes, [1000, 1050, 1100]);
        assert_eq!(timeline.end(1101), 101 * 3600);
        assert_eq!(timeline.place(1101), None, "belongs to the next chunk");
    }

    #[test]
    fn milliseconds_that_round_down_still_open_the_gop() {
        let mut timeline = Timeline::new(&plan((1, 1000), 0), Chunk::whole(0));
        timeline.place(0);
        assert_eq!(timeline.place(1999), Some(Place { ticks: 179_910, keyframe: true }));
        assert_eq!(timeline.place(2033).map(|place| place.keyframe), Some(false));
    }

    #[test]
    fn a_hole_at_the_start_is_closed_and_a_long_hold_is_repeated() {
        let mut timeline = Timeline::new(&plan((1, 25), 0), Chunk { end_pts: Some(300), ..Chunk::whole(0) });
        assert_eq!(timeline.place(7), Some(Place { ticks: 0, keyframe: true }));
        let repeats = timeline.repeats_before(timeline.ticks_of(120));
        assert_eq!(repeats.iter().map(|place| place.ticks).collect::<Vec<_>>(), [180_000, 360_000]);
        assert!(repeats.iter().all(|place| place.keyframe));
        assert_eq!(timeline.place(120), Some(Place { ticks: 120 * 3600, keyframe: false }));
    }
}
