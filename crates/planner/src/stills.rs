//! Poster and seek-bar tiles.

use crate::{
    planning::{Pictures, Reasons},
    preset::StillsPreset,
};
use reelyard_model::plan::StillsPlan;

/// Closer together tiles would show the same picture twice at 25 pictures a second.
const SHORTEST_INTERVAL_US: i64 = 40_000;

pub(crate) fn stills(pictures: &Pictures<'_>, preset: &StillsPreset, reasons: &mut Reasons) -> StillsPlan {
    let Pictures { track, size: source, colour, timing } = pictures;
    let poster = source.fitted(preset.poster_lines);
    let tile = source.fitted(preset.tile_lines);
    let interval_us = interval(timing.duration_us, preset);
    let tiles = divided_up(timing.duration_us, interval_us);
    let tiles_in_words = if tiles == 1 { "1 tile".to_owned() } else { format!("{tiles} tiles") };
    // A sheet of a short film has no empty rows.
    let rows = divided_up(tiles, i64::from(preset.columns)).clamp(1, i64::from(preset.rows));
    let rows = u32::try_from(rows).unwrap_or(preset.rows);
    let columns = u32::try_from(tiles).unwrap_or(u32::MAX).clamp(1, preset.columns);
    let sheets = divided_up(tiles, i64::from(columns) * i64::from(rows));
    let text = format!(
        "poster {poster}; {tiles_in_words} of {tile}, one every {:.3} s, on {sheets} {} of {columns}x{rows}",
        interval_us as f64 / 1e6,
        if sheets == 1 { "sheet" } else { "sheets" },
    );
    reasons.add("stills", text);
    StillsPlan {
        source_track: track.index,
        source_time_base: track.time_base,
        origin_pts: track.start_pts,
        orientation: track.orientation,
        deinterlace: track.interlaced,
        colour: *colour,
        duration_us: timing.duration_us,
        poster_width: poster.width,
        poster_height: poster.height,
        interval_us,
        tile_width: tile.width,
        tile_height: tile.height,
        columns,
        rows,
        jpeg_quality: preset.jpeg_quality,
    }
}

/// The preset's, made smaller for a short film to get enough tiles and larger for a long one to stay within its sheets.
fn interval(duration_us: i64, preset: &StillsPreset) -> i64 {
    let most_tiles = i64::from(preset.columns) * i64::from(preset.rows) * i64::from(preset.max_sheets);
    let for_short = (duration_us / i64::from(preset.min_tiles)).max(SHORTEST_INTERVAL_US);
    let for_long = divided_up(duration_us, most_tiles);
    (i64::from(preset.interval_ms) * 1000).min(for_short).max(for_long)
}

fn divided_up(value: i64, by: i64) -> i64 {
    value.max(1).saturating_add(by.max(1) - 1) / by.max(1)
}
