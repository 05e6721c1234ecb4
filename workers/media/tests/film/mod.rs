//! Probe, plan and encode a source with the real child, and look at what came out with FFmpeg's own tools.
#![allow(dead_code, unreachable_pub)]

use super::child::{self, Said};
use reelyard_model::{
    MediaInfo, Plan,
    child::{EncoderChoice, Job, Limits, Message},
    output::TrackOutput,
    plan::{Chunk, VideoPlan},
};
use reelyard_planner::{Policy, Presets};
use std::{fs, path::Path, process::Command};

pub fn info(source: &Path, folder: &Path) -> MediaInfo {
    let said = child::run(Job::Probe, source, folder);
    let found = said.0.iter().find_map(|message| match message {
        Message::Probed { info } => Some((**info).clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no media info: {:?}", said.failure()))
}

pub fn plan(info: &MediaInfo, preset: &str) -> Plan {
    let presets = Presets::built_in().unwrap();
    let policy = Policy::from_limits(&Limits::default());
    reelyard_planner::plan(info, presets.get(preset).unwrap(), &policy).unwrap()
}

/// Chunks that begin at these keyframes (by number).
pub fn cut(info: &MediaInfo, video: &mut VideoPlan, keyframes: &[usize]) {
    let track = &info.video[0];
    let starts: Vec<i64> = std::iter::once(video.origin_pts)
        .chain(keyframes.iter().map(|number| track.keyframes[*number].pts))
        .collect();
    video.chunks = (0..starts.len())
        .map(|index| Chunk {
            index: index as u32,
            end_pts: starts.get(index + 1).copied(),
            ..Chunk::whole(starts[index])
        })
        .collect();
}

pub struct Encoded {
    pub tracks: Vec<TrackOutput>,
    pub said: Said,
}

pub fn encode(source: &Path, folder: &Path, video: &VideoPlan, chunk: Chunk) -> Encoded {
    let job = Job::Encode { video: video.clone(), chunk, encoder: EncoderChoice::X264 };
    let said = child::run(job, source, folder);
    let tracks = said.0.iter().find_map(|message| match message {
        Message::Encoded { tracks, .. } => Some(tracks.clone()),
        _ => None,
    });
    let tracks = tracks.unwrap_or_else(|| panic!("not encoded: {:?}", said.failure()));
    Encoded { tracks, said }
}

/// All chunks, each in a folder of its own; for each rung one file `{rung}.mp4` of its parts, as a player appends them.
pub fn encode_and_join(source: &Path, folder: &Path, video: &VideoPlan) -> Vec<Encoded> {
    let chunks: Vec<Encoded> = video
        .chunks
        .iter()
        .map(|chunk| {
            let chunk_folder = folder.join(format!("chunk{}", chunk.index));
            fs::create_dir_all(&chunk_folder).unwrap();
            encode(source, &chunk_folder, video, *chunk)
        })
        .collect();
    for (position, rung) in video.rungs.iter().enumerate() {
        let init =
            |index: usize| fs::read(folder.join(format!("chunk{index}/{}/init.mp4", rung.name))).unwrap();
        let mut joined = init(0);
        for (index, chunk) in chunks.iter().enumerate() {
            assert_eq!(
                init(index),
                init(0),
                "{}: every chunk has the same initialization segment",
                rung.name
            );
            for segment in &chunk.tracks[position].segments {
                let path = folder.join(format!("chunk{index}/{}", segment.file.file));
                joined.extend(fs::read(path).unwrap());
            }
        }
        fs::write(folder.join(format!("{}.mp4", rung.name)), joined).unwrap();
    }
    chunks
}

/// Presentation times in ticks, sorted.
pub fn times(folder: &Path, file: &str) -> Vec<i64> {
    let text = child::probe(folder, file, "packet=pts");
    let mut times: Vec<i64> =
        text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect();
    times.sort_unstable();
    times
}

/// The mean luma of each decoded picture, as coded.
pub fn brightness(folder: &Path, file: &str) -> Vec<u8> {
    let arguments =
        format!("-i {file} -fps_mode passthrough -vf scale=2:2:flags=area -pix_fmt yuv420p -f rawvideo -");
    // Four samples of luma, one of each chroma.
    child::ffmpeg(folder, &arguments).chunks_exact(6).map(|picture| picture[0]).collect()
}

/// The first picture as grey numbers of this size.
pub fn first_picture(folder: &Path, file: &str, width: usize, height: usize) -> Vec<u8> {
    let arguments =
        format!("-i {file} -frames:v 1 -vf scale={width}:{height}:flags=area,format=gray -f rawvideo -");
    child::ffmpeg(folder, &arguments)
}

/// As [`child::complaints`], for pictures at uneven times: FFmpeg's null output counts in ticks of the average rate
/// unless told otherwise, and complains of two pictures on one tick for any such source.
pub fn complaints_at_uneven_times(folder: &Path, file: &str) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-nostdin", "-i", file, "-enc_time_base", "1:90000", "-f", "null", "-"])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `ffprobe` has nothing to say against the file.
pub fn ffprobe_complaints(folder: &Path, file: &str) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "warning", "-show_streams", "-show_packets", file])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}
