//! What the numbers of an unlabelled picture mean.
//!
//! Decided here, once, by the size of the source: encode, poster and seek-bar tiles work at different sizes, and a guess
//! made by each would give a film one green and its thumbnails another. Also says aloud what is not converted.

use crate::{geometry::upright_size, planning::Reasons};
use reelyard_model::media_info::{Colour, Hdr, VideoTrack};

/// Code points of ITU-T H.273, table 4.
const BT709: u8 = 1;
const FCC: u8 = 4;
const BT601_625: u8 = 5;
const BT601_525: u8 = 6;
const SMPTE_240M: u8 = 7;
const BT2020: u8 = 9;
const BT2020_CONSTANT_LUMINANCE: u8 = 10;
const KNOWN: [u8; 7] = [BT709, FCC, BT601_625, BT601_525, SMPTE_240M, BT2020, BT2020_CONSTANT_LUMINANCE];
/// PAL has 576 lines, and no way to write its pixels makes it wider than 1050; high definition begins at 1280 columns, also
/// where a film in 2.4:1 leaves it fewer lines than PAL has.
const MOST_STANDARD_LINES: u32 = 576;
const FEWEST_HIGH_COLUMNS: u32 = 1280;

/// The source's colour with nothing left open that a decoder must know.
pub(crate) fn settled_colour(track: &VideoTrack, reasons: &mut Reasons) -> Colour {
    let colour = track.colour;
    if colour.dolby_vision {
        let text = "Dolby Vision: its own metadata is not applied, what remains without it is used (right for profiles 7 and 8, \
                    wrong in hue for profile 5)";
        reasons.add("colour", text);
    }
    // HDR is converted with a matrix of its own.
    if KNOWN.contains(&colour.matrix) || colour.hdr != Hdr::None {
        return colour;
    }
    let size = upright_size(track);
    let is_high_definition =
        size.long_side() >= FEWEST_HIGH_COLUMNS || size.short_side() > MOST_STANDARD_LINES;
    let (matrix, name) = if is_high_definition { (BT709, "BT.709") } else { (BT601_525, "BT.601") };
    reasons.add("colour", format!("the file names no matrix: {name} is used, by its size of {size}"));
    Colour { matrix, ..colour }
}
