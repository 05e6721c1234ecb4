//! Pictures as they were filmed become pictures as they are shown: progressive, SDR, of the wanted size, upright.
//!
//! Used by encode and stills. Each step is taken only where it is needed; a picture that is right already passes
//! through untouched. The source's form may change from picture to picture; the result's never does. Steps, in this
//! order because each is cheapest there: deinterlace, map HDR to SDR, scale, turn.

use crate::context::internal;
use reelyard_ffmpeg::{FilterGraph, Frame, FrameColour, PixelFormat, ScaleColour, Scaler};
use reelyard_model::{
    Failure, FailureCode,
    media_info::{Colour, Hdr, Orientation},
};

const BT709: u8 = 1;
const UNSPECIFIED: u8 = 2;
const BT601_625: u8 = 5;
const BT601_525: u8 = 6;
const BT2020: u8 = 9;

/// What the result is labelled with, the same for all rungs, chunks and stills: never left to a player's guess, which
/// would differ between sizes. The planner has settled what the source left open.
pub(crate) fn output_colour(colour: &Colour) -> FrameColour {
    if colour.hdr != Hdr::None {
        return FrameColour { primaries: BT709, transfer: BT709, matrix: BT709, full_range: Some(false) };
    }
    let matrix = match colour.matrix {
        known @ (BT709 | BT601_625 | BT601_525 | BT2020) => known,
        4 | 7 => colour.matrix,
        // Constant luminance is not something a player undoes; the plain matrix is closest.
        10 => BT2020,
        _ => BT601_525,
    };
    let known_or_unspecified =
        |value: u8| if (1..=22).contains(&value) && value != 3 { value } else { UNSPECIFIED };
    FrameColour {
        primaries: known_or_unspecified(colour.primaries),
        transfer: known_or_unspecified(colour.transfer),
        matrix,
        full_range: Some(false),
    }
}

pub(crate) struct NormaliserOptions {
    /// Of the result, upright.
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) orientation: Orientation,
    pub(crate) deinterlace: bool,
    /// The source's.
    pub(crate) colour: Colour,
    pub(crate) scaler: String,
    pub(crate) time_base: (i32, i32),
    pub(crate) threads: u32,
}

pub(crate) struct Normaliser {
    options: NormaliserOptions,
    output_colour: FrameColour,
    deinterlace: Option<Stage>,
    tone_map: Option<Stage>,
    turn: Option<Stage>,
    scaler: Scaler,
    /// Size before turning.
    lying_width: u32,
    lying_height: u32,
}

/// A filter graph for one form of pictures, made anew when the form changes.
struct Stage {
    form: Form,
    graph: FilterGraph,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    width: u32,
    height: u32,
    format: PixelFormat,
    colour: FrameColour,
}

impl Form {
    fn of(frame: &Frame) -> Self {
        Self {
            width: frame.width(),
            height: frame.height(),
            format: frame.pixel_format(),
            colour: frame.colour(),
        }
    }
}

impl Normaliser {
    pub(crate) fn new(options: NormaliserOptions) -> Result<Self, Failure> {
        let turned = options.orientation.quarter_turns_clockwise % 2 == 1;
        let (lying_width, lying_height) =
            if turned { (options.height, options.width) } else { (options.width, options.height) };
        let scaler = Scaler::new(lying_width, lying_height, PixelFormat::YUV420P, &options.scaler)
            .map_err(internal)?;
        let output_colour = output_colour(&options.colour);
        Ok(Self {
            options,
            output_colour,
            deinterlace: None,
            tone_map: None,
            turn: None,
            scaler,
            lying_width,
            lying_height,
        })
    }

    /// What the results are labelled with.
    pub(crate) fn output_colour(&self) -> FrameColour {
        self.output_colour
    }

    /// One picture in; what is ready comes out, times kept.
    pub(crate) fn push(&mut self, frame: Frame) -> Result<Vec<Frame>, Failure> {
        if !self.options.deinterlace {
            return Ok(vec![self.finish(frame)?]);
        }
        let frames =
            through(&mut self.deinterlace, frame, self.options.time_base, self.options.threads, |_| {
                "bwdif=mode=send_frame:deint=interlaced".to_owned()
            })?;
        frames.into_iter().map(|frame| self.finish(frame)).collect()
    }

    /// What is still inside, at the end.
    pub(crate) fn drain(&mut self) -> Result<Vec<Frame>, Failure> {
        let Some(stage) = self.deinterlace.take() else { return Ok(Vec::new()) };
        drain(stage)?.into_iter().map(|frame| self.finish(frame)).collect()
    }

    /// The steps that give one picture for one picture.
    fn finish(&mut self, frame: Frame) -> Result<Frame, Failure> {
        let frame = self.map_to_sdr(frame)?;
        let frame = self.scale(frame)?;
        let mut frame = self.make_upright(frame)?;
        frame.set_colour(self.output_colour);
        Ok(frame)
    }

    fn map_to_sdr(&mut self, mut frame: Frame) -> Result<Frame, Failure> {
        if self.options.colour.hdr == Hdr::None {
            return Ok(frame);
        }
        let colour = self.options.colour;
        frame.set_colour(FrameColour {
            primaries: if colour.primaries == UNSPECIFIED { BT2020 } else { colour.primaries },
            transfer: if colour.hdr == Hdr::Pq { 16 } else { 18 },
            matrix: if matches!(colour.matrix, 0 | UNSPECIFIED) { BT2020 } else { colour.matrix },
            full_range: Some(frame.colour().full_range.unwrap_or(colour.full_range)),
        });
        let (width, height) = (self.lying_width, self.lying_height);
        let frames =
            through(&mut self.tone_map, frame, self.options.time_base, self.options.threads, |_| {
                tone_map_description(width, height)
            })?;
        single(frames, "tone mapping")
    }

    fn scale(&mut self, frame: Frame) -> Result<Frame, Failure> {
        let said = frame.colour();
        let full_range =
            said.full_range.unwrap_or(self.options.colour.full_range && self.options.colour.hdr == Hdr::None)
                || frame.pixel_format().is_full_range_by_name();
        let is_right = frame.width() == self.lying_width
            && frame.height() == self.lying_height
            && frame.pixel_format() == PixelFormat::YUV420P
            && !full_range;
        if is_right {
            return Ok(frame);
        }
        let matrix = self.output_colour.matrix;
        let colour = ScaleColour {
            input_matrix: matrix,
            input_full_range: full_range,
            output_matrix: matrix,
            output_full_range: false,
        };
        self.scaler.scale(&frame, colour).map_err(internal)
    }

    fn make_upright(&mut self, frame: Frame) -> Result<Frame, Failure> {
        let Some(description) = turn_description(self.options.orientation) else { return Ok(frame) };
        let frames = through(&mut self.turn, frame, self.options.time_base, self.options.threads, |_| {
            description.to_owned()
        })?;
        single(frames, "turning")
    }
}

/// Linear light at 100 cd/m2 for reference white, hable's curve, BT.709. Scaling comes first: floating point is dear.
fn tone_map_description(width: u32, height: u32) -> String {
    format!(
        "zscale=w={width}:h={height}:f=bicubic:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,\
         tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
    )
}

/// Mirror first, then turn clockwise, as `Orientation` defines it. `vflip` at the head of a chain moves nothing but has rows
/// counted upwards, which our own readers of planes do not follow; hence the copy.
fn turn_description(orientation: Orientation) -> Option<&'static str> {
    match (orientation.mirrored, orientation.quarter_turns_clockwise % 4) {
        (false, 0) => None,
        (false, 1) => Some("transpose=clock"),
        (false, 2) => Some("hflip,vflip"),
        (false, _) => Some("transpose=cclock"),
        (true, 0) => Some("hflip"),
        (true, 1) => Some("hflip,transpose=clock"),
        (true, 2) => Some("vflip,copy"),
        (true, _) => Some("hflip,transpose=cclock"),
    }
}

fn through(
    stage: &mut Option<Stage>,
    frame: Frame,
    time_base: (i32, i32),
    threads: u32,
    description: impl Fn(&Frame) -> String,
) -> Result<Vec<Frame>, Failure> {
    let form = Form::of(&frame);
    let mut frames = Vec::new();
    if let Some(old) = stage.take_if(|stage| stage.form != form) {
        frames.extend(drain(old)?);
    }
    let stage = match stage {
        Some(stage) => stage,
        None => {
            let graph =
                FilterGraph::video(&frame, time_base, &description(&frame), threads).map_err(internal)?;
            stage.insert(Stage { form, graph })
        }
    };
    stage.graph.send(Some(frame)).map_err(internal)?;
    while let Some(frame) = stage.graph.receive().map_err(internal)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn drain(mut stage: Stage) -> Result<Vec<Frame>, Failure> {
    stage.graph.send(None).map_err(internal)?;
    let mut frames = Vec::new();
    while let Some(frame) = stage.graph.receive().map_err(internal)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn single(frames: Vec<Frame>, step: &str) -> Result<Frame, Failure> {
    frames
        .into_iter()
        .next_back()
        .ok_or_else(|| Failure::new(FailureCode::Internal, format!("{step} gave no picture for a picture")))
}

#[cfg(test)]
mod tests {
    use super::{output_colour, turn_description};
    use reelyard_model::media_info::{Colour, Hdr, Orientation};

    #[test]
    fn the_label_says_what_the_numbers_are() {
        let settled = Colour {
            primaries: 2,
            transfer: 2,
            matrix: 1,
            full_range: true,
            hdr: Hdr::None,
            dolby_vision: false,
        };
        let label = output_colour(&settled);
        assert_eq!((label.matrix, label.full_range), (1, Some(false)));
        let hlg = Colour { transfer: 18, matrix: 9, hdr: Hdr::Hlg, ..settled };
        assert_eq!((output_colour(&hlg).transfer, output_colour(&hlg).matrix), (1, 1));
    }

    #[test]
    fn upright_pictures_are_left_alone() {
        assert_eq!(turn_description(Orientation::default()), None);
        let upside_down_mirror = Orientation { mirrored: true, quarter_turns_clockwise: 2 };
        assert_eq!(turn_description(upside_down_mirror), Some("vflip,copy"));
    }
}
