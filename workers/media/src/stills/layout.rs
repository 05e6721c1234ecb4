//! When to look, and where each tile goes: pure arithmetic, and the WebVTT that says it to players.

use reelyard_model::{Rational, plan::StillsPlan};
use std::fmt::Write;

/// A tile every two seconds for twelve hours fits; more would make an index that no player loads.
const MAX_TILES: i64 = 30_000;
/// JPEG counts 16 bits of pixels each way.
const MAX_SHEET_SIDE: u32 = 65_535;
/// A sheet is held in memory as RGB: this is 192 MiB.
const MAX_SHEET_PIXELS: u64 = 64 << 20;
/// Looks at least, so that a short film's poster has something to choose from.
const MIN_LOOKS: u32 = 5;
/// Titles and credits: first and last parts in per cent, from which a poster is taken only when nothing else will do.
const HEAD_PERCENT: i64 = 3;
const TAIL_PERCENT: i64 = 90;

/// One look at the source, in microseconds of output time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The tile whose interval this is; `None`: for the poster only.
    pub(super) tile: Option<u32>,
    pub(super) from_us: i64,
    pub(super) middle_us: i64,
    pub(super) until_us: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Layout {
    duration_us: i64,
    interval_us: i64,
    pub(super) tiles: u32,
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) tile_width: u32,
    pub(super) tile_height: u32,
}

impl Layout {
    /// `Err`: why the plan cannot be carried out.
    pub(super) fn of(plan: &StillsPlan) -> Result<Self, String> {
        let sides = [
            plan.tile_width,
            plan.tile_height,
            plan.columns,
            plan.rows,
            plan.poster_width,
            plan.poster_height,
        ];
        if sides.contains(&0) || plan.interval_us <= 0 {
            return Err("the stills plan has a size or an interval of zero".to_owned());
        }
        let (width, height) =
            (plan.columns.saturating_mul(plan.tile_width), plan.rows.saturating_mul(plan.tile_height));
        let too_large =
            [width, height, plan.poster_width, plan.poster_height].iter().any(|side| *side > MAX_SHEET_SIDE);
        if too_large || u64::from(width) * u64::from(height) > MAX_SHEET_PIXELS {
            return Err(format!("a sprite sheet of {width}x{height} is larger than can be made"));
        }
        let duration_us = plan.duration_us.max(1);
        let tiles = (duration_us - 1) / plan.interval_us + 1;
        if tiles > MAX_TILES {
            return Err(format!("{tiles} tiles; the limit is {MAX_TILES}: take a longer interval"));
        }
        Ok(Self {
            duration_us,
            interval_us: plan.interval_us,
            tiles: tiles as u32,
            columns: plan.columns,
            rows: plan.rows,
            tile_width: plan.tile_width,
            tile_height: plan.tile_height,
        })
    }

    fn interval(&self, tile: u32) -> (i64, i64) {
        let from = i64::from(tile) * self.interval_us;
        (from, from.saturating_add(self.interval_us).min(self.duration_us))
    }

    /// By rising time.
    pub(super) fn looks(&self) -> Vec<Look> {
        let look = |tile, from_us: i64, until_us: i64| Look {
            tile,
            from_us,
            middle_us: from_us + (until_us - from_us) / 2,
            until_us,
        };
        // A tile's interval is cut into parts when there are few tiles; its first part is the tile's own look.
        let parts = i64::from(MIN_LOOKS.div_ceil(self.tiles));
        let mut looks = Vec::new();
        for tile in 0..self.tiles {
            let (from, until) = self.interval(tile);
            let at =
                |part: i64| from + (i128::from(until - from) * i128::from(part) / i128::from(parts)) as i64;
            looks.extend(
                (0..parts).map(|part| look((part == parts / 2).then_some(tile), at(part), at(part + 1))),
            );
        }
        looks
    }

    pub(super) fn is_near_an_end(&self, look: &Look) -> bool {
        let percent = i128::from(look.middle_us) * 100 / i128::from(self.duration_us);
        !(i128::from(HEAD_PERCENT)..i128::from(TAIL_PERCENT)).contains(&percent)
    }

    pub(super) fn tiles_per_sheet(&self) -> u32 {
        self.columns.saturating_mul(self.rows)
    }

    /// Of a tile in its sheet, in pixels.
    pub(super) fn place(&self, tile_of_sheet: u32) -> (u32, u32) {
        (tile_of_sheet % self.columns * self.tile_width, tile_of_sheet / self.columns * self.tile_height)
    }

    /// W3C WebVTT, one cue for each tile; the fragment is that of Media Fragments URI 1.0 section 4.2.2.
    pub(super) fn web_vtt(&self) -> String {
        let mut text = String::from("WEBVTT\n");
        for tile in 0..self.tiles {
            let (from, until) = self.interval(tile);
            let (x, y) = self.place(tile % self.tiles_per_sheet());
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\n{} --> {}\n{}#xywh={x},{y},{},{}\n",
                clock(from),
                clock(until),
                sheet_name(tile / self.tiles_per_sheet()),
                self.tile_width,
                self.tile_height
            );
        }
        text
    }
}

pub(super) fn sheet_name(sheet: u32) -> String {
    format!("sprite-{sheet:03}.jpg")
}

/// Microseconds as ticks, to the nearest.
pub(super) fn ticks(us: i64, time_base: Rational) -> i64 {
    const US: i128 = 1_000_000;
    let unit = (i128::from(time_base.numerator) * US).max(1);
    let ticks = (i128::from(us) * i128::from(time_base.denominator) + unit / 2).div_euclid(unit);
    ticks.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn clock(us: i64) -> String {
    let ms = us / 1000;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::{Layout, ticks};
    use reelyard_model::Rational;

    fn layout(duration_us: i64, interval_us: i64) -> Layout {
        let tiles = ((duration_us - 1) / interval_us + 1) as u32;
        Layout { duration_us, interval_us, tiles, columns: 2, rows: 2, tile_width: 160, tile_height: 90 }
    }

    #[test]
    fn the_index_covers_the_whole_time_and_names_sheets() {
        assert_eq!(
            layout(3_601_500_000, 800_000_000).web_vtt(),
            "WEBVTT\n\
             \n00:00:00.000 --> 00:13:20.000\nsprite-000.jpg#xywh=0,0,160,90\n\
             \n00:13:20.000 --> 00:26:40.000\nsprite-000.jpg#xywh=160,0,160,90\n\
             \n00:26:40.000 --> 00:40:00.000\nsprite-000.jpg#xywh=0,90,160,90\n\
             \n00:40:00.000 --> 00:53:20.000\nsprite-000.jpg#xywh=160,90,160,90\n\
             \n00:53:20.000 --> 01:00:01.500\nsprite-001.jpg#xywh=0,0,160,90\n"
        );
    }

    #[test]
    fn short_films_are_looked_at_often_and_every_tile_once() {
        for (duration_us, interval_us) in
            [(1, 5_000_000), (4_000_000, 5_000_000), (12_000_000, 5_000_000), (60_000_000, 1_000_000)]
        {
            let layout = layout(duration_us, interval_us);
            let looks = layout.looks();
            assert!(looks.len() >= 5);
            let tiles: Vec<u32> = looks.iter().filter_map(|look| look.tile).collect();
            assert_eq!(tiles, (0..layout.tiles).collect::<Vec<_>>());
            assert!(looks.windows(2).all(|pair| pair[0].until_us == pair[1].from_us));
            assert!(
                looks.iter().all(|look| look.from_us <= look.middle_us && look.middle_us <= look.until_us)
            );
            assert_eq!(looks.last().map(|look| look.until_us), Some(duration_us));
        }
    }

    #[test]
    fn times_become_ticks() {
        let time_base = Rational::new(1, 12_288).unwrap();
        assert_eq!(ticks(30_000_000, time_base), 368_640);
        assert_eq!(ticks(-1_000_000, time_base), -12_288);
    }
}
