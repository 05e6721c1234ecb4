//! Proof that a track decodes, and what its first pictures or sounds really are.

use crate::{
    context::{Context, internal},
    packets::{Next, Packets},
    pictures::PictureReader,
};
use reelyard_ffmpeg::{Decoder, DecoderOptions, Frame, FrameColour, Length, Packet, PixelFormat};
use reelyard_model::{Failure, FailureCode};

/// Enough to tell interlaced from progressive and to get past a first damaged GOP's head.
const PICTURES: u32 = 25;
/// Large pictures are slow to decode: fewer of them.
const LARGE_PICTURE_PIXELS: u64 = 4_000_000;
const LARGE_PICTURES: u32 = 6;
/// Blocks of sound to decode, and packets to try for them.
const SOUND_BLOCKS: u32 = 10;
const SOUND_PACKETS: u32 = 400;

pub(crate) struct Pictures {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixel_format: PixelFormat,
    pub(crate) colour: FrameColour,
    pub(crate) sample_aspect_ratio: (i32, i32),
    /// When the first one is shown, as the decoder says.
    pub(crate) first_pts: i64,
    pub(crate) count: u32,
    pub(crate) interlaced: u32,
    /// Pictures that need no other: many more than there should be keyframes only in intra codings.
    pub(crate) intra: u32,
    pub(crate) damaged: u64,
    /// How many pictures the track holds, where all of it was decoded here.
    pub(crate) exact_count: Option<u32>,
}

pub(crate) struct Sound {
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
}

/// `Ok(None)`: not one picture decodes. A failure names a coding that cannot be read at all, or a limit.
pub(crate) fn pictures(context: &Context, track: u32) -> Result<Option<Pictures>, Failure> {
    let mut reader = PictureReader::open(context, track, Length::NotWanted)?;
    let mut seen: Option<Pictures> = None;
    let mut wanted = PICTURES;
    while let Some(frame) = reader.next()? {
        context.progress(0, 0);
        let pictures = match &mut seen {
            Some(pictures) => pictures,
            None => {
                check_size(context, frame.width(), frame.height())?;
                if u64::from(frame.width()) * u64::from(frame.height()) > LARGE_PICTURE_PIXELS {
                    wanted = LARGE_PICTURES;
                }
                seen.insert(first_picture(&frame))
            }
        };
        pictures.count += 1;
        pictures.interlaced += u32::from(frame.is_interlaced());
        pictures.intra += u32::from(frame.is_intra());
        pictures.damaged = reader.damaged;
        if pictures.count >= wanted {
            return Ok(seen);
        }
    }
    if let Some(pictures) = &mut seen {
        pictures.exact_count = Some(pictures.count);
    }
    Ok(seen)
}

fn first_picture(frame: &Frame) -> Pictures {
    Pictures {
        width: frame.width(),
        height: frame.height(),
        pixel_format: frame.pixel_format(),
        colour: frame.colour(),
        sample_aspect_ratio: frame.sample_aspect_ratio(),
        first_pts: frame.pts().unwrap_or(0),
        count: 0,
        interlaced: 0,
        intra: 0,
        damaged: 0,
        exact_count: None,
    }
}

/// Limits of the request, on claims first and on what was decoded again.
pub(crate) fn check_size(context: &Context, width: u32, height: u32) -> Result<(), Failure> {
    let limits = &context.limits;
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.max_picture_side || pixels > limits.max_picture_pixels {
        let detail = format!(
            "{width}x{height}; at most {} a side and {} pixels",
            limits.max_picture_side, limits.max_picture_pixels
        );
        return Err(Failure::new(FailureCode::DimensionsTooLarge, detail));
    }
    Ok(())
}

/// `Ok(None)`: no sound decodes.
pub(crate) fn sound(context: &Context, track: u32) -> Result<Option<Sound>, Failure> {
    let mut input = context.open_source(Length::NotWanted)?;
    let Some(stream) = input.stream(track) else { return Ok(None) };
    let parameters = stream.parameters().map_err(internal)?;
    let options = DecoderOptions { threads: 1, time_base: stream.time_base(), max_pixels: 0 };
    let mut decoder = match Decoder::open(&parameters, options) {
        Ok(decoder) => decoder,
        Err(error) if error.is_out_of_memory() => return Err(internal(error)),
        Err(error) => {
            return Err(Failure::new(
                FailureCode::UnsupportedCodec,
                format!("track {track}, {}: {error}", parameters.codec_name()),
            ));
        }
    };
    input.select(&[track]);
    let (mut packet, mut frame) = (Packet::new().map_err(internal)?, Frame::empty().map_err(internal)?);
    let mut heard: Option<Sound> = None;
    let mut blocks = 0;
    let mut packets = Packets::default();
    for _ in 0..SOUND_PACKETS {
        context.progress(0, 0);
        let more = match packets.next(&mut input, &mut packet)? {
            Next::Packet if packet.stream_index() == track => true,
            Next::Packet | Next::Damage => continue,
            Next::End => false,
        };
        // A damaged packet is passed over: the question is whether any sound decodes at all.
        let _ = if more { decoder.send(&packet) } else { decoder.drain() };
        while let Ok(true) = decoder.receive(&mut frame) {
            let usable = frame.samples() > 0 && frame.sample_rate() > 0 && frame.channels() > 0;
            if usable {
                blocks += 1;
                heard = Some(Sound { sample_rate: frame.sample_rate(), channels: frame.channels() });
            }
            frame.unref();
        }
        if !more || blocks >= SOUND_BLOCKS {
            break;
        }
    }
    Ok(heard)
}
