//! `Job::Stills`: the poster, and sprite sheets with their WebVTT index for previews on the seek bar.
//!
//! One walk through the source, a look at each tile's time; the poster is the best of the pictures that were seen
//! anyway. Pictures pass through the same normaliser as those that are encoded: upright, square pixels, SDR. A tile
//! without a picture of its own shows the one before it; only a source without any picture is a failure. What the
//! container claims about its length may be wrong: the walk ends where the pictures end.
//!
//! `layout` says when to look and where tiles go, `finder` gets pictures cheaply, `score` judges them, `jpeg` makes
//! files.

mod finder;
mod jpeg;
mod layout;
mod score;

use crate::{
    context::{Context, internal},
    normalise::{Normaliser, NormaliserOptions},
    pictures::PictureReader,
};
use finder::Finder;
use image::RgbImage;
use jpeg::{Sheets, ToRgb};
use layout::{Layout, Look};
use reelyard_ffmpeg::{Frame, Length};
use reelyard_model::{
    Failure, FailureCode,
    output::{FileOutput, StillsOutput},
    plan::StillsPlan,
};
use score::Score;

/// Tiles are much smaller than the source: every source pixel shall count, else they flicker.
const TILE_SCALER: &str = "area";
const POSTER_SCALER: &str = "bicubic";

pub(crate) fn run(context: &Context, plan: &StillsPlan) -> Result<StillsOutput, Failure> {
    let layout = Layout::of(plan).map_err(|reason| Failure::new(FailureCode::Internal, reason))?;
    let reader = PictureReader::open(context, plan.source_track, Length::NotWanted)?;
    let mut walk = Walk::new(context, plan, &layout, reader.time_base)?;
    let mut finder = Finder::new(context, reader);
    let looks = layout.looks();
    for look in &looks {
        if let Some(picture) = finder.near(&plan_span(plan, look))? {
            walk.see(picture, look)?;
        }
        if look.tile.is_some() {
            walk.place_tile()?;
        }
        finder.progress = (look.until_us, plan.duration_us.max(look.until_us));
        context.progress(finder.progress.0, finder.progress.1);
    }
    if walk.best.is_none()
        && let (Some(picture), Some(last)) = (finder.any()?, looks.last())
    {
        walk.see(picture, last)?;
        walk.fill_waiting_tiles()?;
    }
    walk.finish()
}

/// A look in ticks of the source.
fn plan_span(plan: &StillsPlan, look: &Look) -> finder::Span {
    let ticks = |us: i64| plan.origin_pts.saturating_add(layout::ticks(us, plan.source_time_base));
    finder::Span { from: ticks(look.from_us), middle: ticks(look.middle_us), until: ticks(look.until_us) }
}

struct Walk<'a> {
    context: &'a Context,
    plan: &'a StillsPlan,
    layout: &'a Layout,
    time_base: (i32, i32),
    normaliser: Normaliser,
    to_rgb: ToRgb,
    sheets: Sheets<'a>,
    /// The picture seen last, as a tile.
    current: Option<RgbImage>,
    /// Tiles at the start that still wait for a first picture.
    waiting: u32,
    best: Option<(Score, Frame)>,
}

impl<'a> Walk<'a> {
    fn new(
        context: &'a Context,
        plan: &'a StillsPlan,
        layout: &'a Layout,
        time_base: (i32, i32),
    ) -> Result<Self, Failure> {
        let normaliser =
            normaliser(context, plan, (plan.tile_width, plan.tile_height), TILE_SCALER, time_base)?;
        Ok(Self {
            context,
            plan,
            layout,
            time_base,
            normaliser,
            to_rgb: ToRgb::new(plan.tile_width, plan.tile_height)?,
            sheets: Sheets::new(context, layout, plan.jpeg_quality),
            current: None,
            waiting: 0,
            best: None,
        })
    }

    fn see(&mut self, picture: Frame, look: &Look) -> Result<(), Failure> {
        let is_damaged = picture.is_damaged();
        let whole = picture.reference().map_err(internal)?;
        let tile = normalise(&mut self.normaliser, picture)?;
        let score = Score::of(tile.plane(0), tile.row_bytes(0), self.plan.tile_width, self.plan.tile_height)
            .weighted(self.layout.is_near_an_end(look), is_damaged);
        if self.best.as_ref().is_none_or(|(best, _)| score > *best) {
            self.best = Some((score, whole));
        }
        self.current = Some(self.to_rgb.convert(&tile, self.normaliser.output_colour().matrix)?);
        Ok(())
    }

    /// The tile of the next interval: the picture seen last.
    fn place_tile(&mut self) -> Result<(), Failure> {
        self.waiting += 1;
        self.fill_waiting_tiles()
    }

    fn fill_waiting_tiles(&mut self) -> Result<(), Failure> {
        let Some(tile) = &self.current else { return Ok(()) };
        for _ in 0..std::mem::take(&mut self.waiting) {
            self.sheets.push(tile)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<StillsOutput, Failure> {
        let Some((_, best)) = self.best else {
            let detail = format!("no picture of track {} decodes", self.plan.source_track);
            return Err(Failure::new(FailureCode::NothingDecodes, detail));
        };
        let poster = write_poster(self.context, self.plan, self.time_base, best)?;
        let sprites = self.sheets.finish()?;
        let index = self.layout.web_vtt();
        let sprite_index = self.context.write_file("sprites.vtt", index.as_bytes())?;
        Ok(StillsOutput { poster, sprites, sprite_index })
    }
}

fn write_poster(
    context: &Context,
    plan: &StillsPlan,
    time_base: (i32, i32),
    picture: Frame,
) -> Result<FileOutput, Failure> {
    let (width, height) = (plan.poster_width, plan.poster_height);
    let mut normaliser = normaliser(context, plan, (width, height), POSTER_SCALER, time_base)?;
    let poster = normalise(&mut normaliser, picture)?;
    let poster = ToRgb::new(width, height)?.convert(&poster, normaliser.output_colour().matrix)?;
    context.write_file("poster.jpg", &jpeg::encode(&poster, plan.jpeg_quality)?)
}

fn normaliser(
    context: &Context,
    plan: &StillsPlan,
    (width, height): (u32, u32),
    scaler: &str,
    time_base: (i32, i32),
) -> Result<Normaliser, Failure> {
    Normaliser::new(NormaliserOptions {
        width,
        height,
        orientation: plan.orientation,
        deinterlace: plan.deinterlace,
        colour: plan.colour,
        scaler: scaler.to_owned(),
        time_base,
        threads: context.threads(),
    })
}

/// One picture alone: nothing comes after it, so what the normaliser holds back is asked for at once.
fn normalise(normaliser: &mut Normaliser, picture: Frame) -> Result<Frame, Failure> {
    let mut done = normaliser.push(picture)?;
    done.extend(normaliser.drain()?);
    done.pop()
        .ok_or_else(|| Failure::new(FailureCode::Internal, "the normaliser gave no picture for a picture"))
}
