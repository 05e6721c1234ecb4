//! Pictures as JPEG files: alone, or composed into sheets. The `image` crate encodes.

use super::layout::{Layout, sheet_name};
use crate::context::{Context, internal};
use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder};
use reelyard_ffmpeg::{Frame, PixelFormat, ScaleColour, Scaler};
use reelyard_model::{Failure, FailureCode, output::FileOutput};

const BYTES_PER_PIXEL: usize = 3;

/// Normalised pictures (4:2:0, video range) as RGB.
pub(super) struct ToRgb {
    scaler: Scaler,
    width: u32,
    height: u32,
}

impl ToRgb {
    pub(super) fn new(width: u32, height: u32) -> Result<Self, Failure> {
        let scaler = Scaler::new(width, height, PixelFormat::RGB24, "bicubic").map_err(internal)?;
        Ok(Self { scaler, width, height })
    }

    pub(super) fn convert(&mut self, picture: &Frame, matrix: u8) -> Result<RgbImage, Failure> {
        let colour = ScaleColour {
            input_matrix: matrix,
            input_full_range: false,
            output_matrix: matrix,
            output_full_range: true,
        };
        let rgb = self.scaler.scale(picture, colour).map_err(internal)?;
        let row_bytes = rgb.row_bytes(0);
        let used = self.width as usize * BYTES_PER_PIXEL;
        let mut pixels = Vec::with_capacity(used * self.height as usize);
        for row in rgb.plane(0).chunks(row_bytes.max(1)).take(self.height as usize) {
            pixels.extend_from_slice(row.get(..used).unwrap_or_default());
        }
        RgbImage::from_raw(self.width, self.height, pixels)
            .ok_or_else(|| Failure::new(FailureCode::Internal, "a picture came out smaller than it said"))
    }
}

pub(super) fn encode(picture: &RgbImage, quality: u8) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
        .write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|error| Failure::new(FailureCode::Internal, format!("JPEG: {error}")))?;
    Ok(bytes)
}

/// Tiles in rows, sheet after sheet; each is written as soon as it is full.
pub(super) struct Sheets<'a> {
    context: &'a Context,
    layout: &'a Layout,
    quality: u8,
    /// Tiles placed so far, over all sheets.
    placed: u32,
    sheet: Option<RgbImage>,
    written: Vec<FileOutput>,
}

impl<'a> Sheets<'a> {
    pub(super) fn new(context: &'a Context, layout: &'a Layout, quality: u8) -> Self {
        Self { context, layout, quality, placed: 0, sheet: None, written: Vec::new() }
    }

    pub(super) fn push(&mut self, tile: &RgbImage) -> Result<(), Failure> {
        let tile_of_sheet = self.placed % self.layout.tiles_per_sheet();
        let left = self.layout.tiles.saturating_sub(self.placed);
        let (x, y) = self.layout.place(tile_of_sheet);
        let sheet = self.sheet.get_or_insert_with(|| empty_sheet(self.layout, left));
        image::imageops::replace(sheet, tile, i64::from(x), i64::from(y));
        self.placed += 1;
        if self.placed.is_multiple_of(self.layout.tiles_per_sheet()) { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Failure> {
        if let Some(sheet) = self.sheet.take() {
            let name = sheet_name(self.written.len() as u32);
            self.written.push(self.context.write_file(&name, &encode(&sheet, self.quality)?)?);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<FileOutput>, Failure> {
        self.write()?;
        Ok(self.written)
    }
}

/// No larger than its tiles need: the last sheet of a film, the only one of a short one.
fn empty_sheet(layout: &Layout, tiles_left: u32) -> RgbImage {
    let tiles = tiles_left.clamp(1, layout.tiles_per_sheet());
    let columns = tiles.min(layout.columns);
    RgbImage::new(columns * layout.tile_width, tiles.div_ceil(layout.columns) * layout.tile_height)
}
