//! What a child said over the course of a job, and what it amounts to. Pure: the agent feeds messages in and asks for
//! the result at the end.
//!
//! The child is not trusted to be consistent either: a result counts only when it is of the kind that was asked for
//! and every file in it was announced with the same length, and so was kept.

use reelyard_model::{
    Failure, FailureCode, MediaInfo,
    child::{Capabilities, Message},
    output::{FileOutput, StillsOutput, TrackOutput},
    work::{Progress, TaskKind, TaskResult},
};
use std::collections::BTreeMap;

/// Most files of one job: a two-hour chunk of ten rungs in two-second segments is 36 000.
const MOST_FILES: usize = 50_000;

#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) progress: Progress,
    pub(crate) ffmpeg: String,
    pub(crate) sandbox: Vec<String>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) info: Option<Box<MediaInfo>>,
    pub(crate) warnings: Vec<String>,
    encoded: Option<(String, Vec<TrackOutput>)>,
    stills: Option<StillsOutput>,
    files: BTreeMap<String, u64>,
}

/// A file to be carried away now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewFile {
    pub(crate) file: String,
    pub(crate) byte_len: u64,
}

impl Gathered {
    /// Takes one message in. A file that is new comes back out.
    pub(crate) fn hear(&mut self, message: Message) -> Result<Option<NewFile>, Failure> {
        match message {
            Message::Hello { ffmpeg, sandbox, .. } => {
                self.ffmpeg = ffmpeg;
                self.sandbox = sandbox;
            }
            Message::Progress { done_us, total_us } => self.progress = Progress { done_us, total_us },
            Message::Warning { text } => self.warnings.push(text),
            Message::Capabilities { capabilities } => self.capabilities = Some(capabilities),
            Message::Probed { info } => self.info = Some(info),
            Message::Encoded { encoder, tracks } => self.encoded = Some((encoder, tracks)),
            Message::Stills { stills } => self.stills = Some(stills),
            Message::File { file, byte_len } => {
                if self.files.len() >= MOST_FILES {
                    let detail = format!("the child announced more than {MOST_FILES} files");
                    return Err(Failure::new(FailureCode::OutputLimit, detail));
                }
                if self.files.insert(file.clone(), byte_len).is_some() {
                    return Err(inconsistent(format!("the child announced {file} twice")));
                }
                return Ok(Some(NewFile { file, byte_len }));
            }
            // The supervisor keeps these two to itself.
            Message::Done | Message::Failed { .. } => {}
        }
        Ok(None)
    }

    /// What a child whose last word was `Done` has to show for a task of this kind.
    pub(crate) fn result(self, kind: TaskKind) -> Result<TaskResult, Failure> {
        let Self { info, warnings, encoded, stills, files, .. } = self;
        let nothing =
            || inconsistent(format!("the child was done without a result of the kind {}", kind.as_str()));
        let result = match kind {
            TaskKind::Probe => {
                let mut info = info.ok_or_else(nothing)?;
                for warning in warnings {
                    if !info.warnings.contains(&warning) {
                        info.warnings.push(warning);
                    }
                }
                TaskResult::Probed { info }
            }
            TaskKind::Encode | TaskKind::Audio => {
                let (encoder, tracks) = encoded.ok_or_else(nothing)?;
                for track in &tracks {
                    kept(&files, &track.init)?;
                    track.segments.iter().try_for_each(|segment| kept(&files, &segment.file))?;
                }
                TaskResult::Encoded { encoder, tracks, warnings }
            }
            TaskKind::Stills => {
                let stills = stills.ok_or_else(nothing)?;
                kept(&files, &stills.poster)?;
                kept(&files, &stills.sprite_index)?;
                stills.sprites.iter().try_for_each(|sprite| kept(&files, sprite))?;
                TaskResult::Stills { stills }
            }
            TaskKind::Publish => {
                return Err(inconsistent("publishing is no work for a child".to_owned()));
            }
        };
        Ok(result)
    }
}

fn kept(files: &BTreeMap<String, u64>, output: &FileOutput) -> Result<(), Failure> {
    match files.get(&output.file) {
        Some(byte_len) if *byte_len == output.byte_len => Ok(()),
        Some(byte_len) => Err(inconsistent(format!(
            "the result names {} with {} bytes, it was announced with {byte_len}",
            output.file, output.byte_len
        ))),
        None => Err(inconsistent(format!("the result names {}, which was never announced", output.file))),
    }
}

fn inconsistent(detail: String) -> Failure {
    Failure::new(FailureCode::Internal, detail)
}

#[cfg(test)]
mod tests {
    use super::{Gathered, NewFile};
    use reelyard_model::{
        FailureCode,
        child::Message,
        output::{FileOutput, TrackFormat, TrackOutput},
        work::{TaskKind, TaskResult},
    };

    fn announced(file: &str, byte_len: u64) -> Message {
        Message::File { file: file.to_owned(), byte_len }
    }

    fn encoded(file: &str, byte_len: u64) -> Message {
        let init = FileOutput { file: file.to_owned(), byte_len, sha256: String::new() };
        let track = TrackOutput {
            rendition: "audio".to_owned(),
            format: TrackFormat::Audio { sample_rate: 48_000, channels: 2 },
            codecs: "mp4a.40.2".to_owned(),
            timescale: 48_000,
            init,
            segments: Vec::new(),
        };
        Message::Encoded { encoder: "aac".to_owned(), tracks: vec![track] }
    }

    fn gathered(messages: Vec<Message>) -> Gathered {
        let mut gathered = Gathered::default();
        for message in messages {
            gathered.hear(message).unwrap();
        }
        gathered
    }

    #[test]
    fn a_result_counts_when_its_files_were_announced() {
        let good = gathered(vec![announced("audio/init.mp4", 7), encoded("audio/init.mp4", 7)]);
        assert!(matches!(good.result(TaskKind::Audio), Ok(TaskResult::Encoded { .. })));
        for bad in [
            vec![encoded("audio/init.mp4", 7)],
            vec![announced("audio/init.mp4", 6), encoded("audio/init.mp4", 7)],
            vec![announced("audio/init.mp4", 7)],
        ] {
            assert_eq!(gathered(bad).result(TaskKind::Audio).unwrap_err().code, FailureCode::Internal);
        }
        let other_kind = gathered(vec![announced("audio/init.mp4", 7), encoded("audio/init.mp4", 7)]);
        assert_eq!(other_kind.result(TaskKind::Probe).unwrap_err().code, FailureCode::Internal);
    }

    #[test]
    fn a_file_is_carried_away_once() {
        let mut gathered = Gathered::default();
        let first = gathered.hear(announced("poster.jpg", 3)).unwrap();
        assert_eq!(first, Some(NewFile { file: "poster.jpg".to_owned(), byte_len: 3 }));
        assert!(gathered.hear(announced("poster.jpg", 3)).is_err());
    }
}
