//! HLS and DASH text over one set of CMAF segments.
//!
//! Publish calls [`assign`] with what the tasks of an asset made; it merges the chunks of each rendition, says which
//! file becomes which path of the publication, and returns a [`Presentation`]. [`text_files`] writes every playlist
//! of it. The crate opens no file: all it knows about the media is in `model::output`. Outputs that do not fit
//! together are refused with a typed error before a byte of a playlist is written.
//!
//! HLS is RFC 8216 (with AVERAGE-BANDWIDTH, FRAME-RATE and the rest as in draft-pantos-hls-rfc8216bis), DASH is
//! ISO/IEC 23009-1 with the isoff-live profile and the tiled thumbnails of DASH-IF IOP 4.3 section 6.2.6.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod assign;
mod bit_rate;
mod dash;
mod hls;
mod language;
mod presentation;
mod time;

pub use assign::{AssignError, Assignment, MAX_SEAM_US, Placement, assign};
pub use dash::mpd;
pub use hls::{i_frame_playlist, media_playlist, multivariant_playlist};
pub use presentation::{Facts, Presentation, Rendition, Segment, Thumbnails};

/// The HLS entry point of a publication.
pub const HLS_ENTRY: &str = "master.m3u8";
/// The DASH entry point of a publication.
pub const DASH_ENTRY: &str = "manifest.mpd";

/// A playlist, by its path in the publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    pub path: String,
    pub media_type: &'static str,
    pub text: String,
}

/// Every playlist of the publication: the multivariant playlist, each rendition's media playlist and I-frame
/// playlist, and the MPD.
pub fn text_files(presentation: &Presentation) -> Vec<TextFile> {
    let hls = |path: String, text: String| TextFile { path, media_type: hls::MEDIA_TYPE, text };
    let mut files = vec![hls(HLS_ENTRY.to_owned(), multivariant_playlist(presentation))];
    for rendition in presentation.renditions() {
        files.push(hls(rendition.playlist_path(), media_playlist(presentation, rendition)));
        if rendition.has_sync_points() {
            files.push(hls(rendition.i_frame_playlist_path(), i_frame_playlist(rendition)));
        }
    }
    files.push(TextFile {
        path: DASH_ENTRY.to_owned(),
        media_type: dash::MEDIA_TYPE,
        text: mpd(presentation),
    });
    files
}
