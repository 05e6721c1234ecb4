//! Why something did not work, in a form that decides what happens next.
//!
//! A failure has a class (what the scheduler does), a code (stable, for programs and tests), a sentence for the
//! creator and a detail for the operator. The last two are different fields on purpose: public text never holds
//! paths, addresses or library names.

use serde::{Deserialize, Serialize};

/// What the scheduler does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The file itself: trying again gives the same answer, so the task goes to the dead letters at once.
    BadInput,
    /// This machine is too small or too busy for it now: try again, elsewhere if there is an elsewhere.
    Capacity,
    /// Disk, network, a killed process: try again with back-off.
    Infrastructure,
    /// Our own fault: try again a few times, then keep the evidence.
    Internal,
}

macro_rules! failure_codes {
    ($($variant:ident, $class:ident, $creator:literal;)*) => {
        /// Stable names of all failures: `snake_case` in JSON and SQL.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureCode { $($variant,)* }

        impl FailureCode {
            pub const ALL: &'static [FailureCode] = &[$(FailureCode::$variant,)*];

            pub const fn class(self) -> FailureClass {
                match self { $(FailureCode::$variant => FailureClass::$class,)* }
            }

            /// What happened and what to do, for the person who uploaded the file.
            pub const fn for_creator(self) -> &'static str {
                match self { $(FailureCode::$variant => $creator,)* }
            }
        }
    };
}

failure_codes! {
    EmptyFile, BadInput, "The file is empty. Please export it again and upload the new file.";
    NotMedia, BadInput, "This file is not a video or a sound recording that we can recognise. Please upload the original video file.";
    PlaylistNotMedia, BadInput, "This file is a playlist or a list of links, not the video itself. Please upload the video file that it points to.";
    StillImage, BadInput, "This file is a picture, not a video. Please upload a video.";
    NoPlayableTracks, BadInput, "The file holds neither pictures nor sound that can be played. Please upload the original video file.";
    UnsupportedCodec, BadInput, "The video inside this file uses a format that we cannot read. Please export it as H.264, HEVC, VP9 or AV1.";
    Encrypted, BadInput, "The file is protected (encrypted), so it cannot be processed. Please upload a copy without protection.";
    DimensionsTooLarge, BadInput, "The picture is larger than the largest size that is accepted. Please export it at a smaller size.";
    TooLong, BadInput, "The video is longer than the longest that is accepted. Please cut it into shorter parts.";
    NothingDecodes, BadInput, "The file is damaged: not a single picture or sound in it can be read. Please export or record it again.";
    MediaDataMissing, BadInput, "The file is cut short: its description is there, but the video itself is missing. Please upload the whole file.";
    SourceMissing, Infrastructure, "The uploaded file could not be read from storage. The work will be tried again.";
    DecoderCrashed, BadInput, "The file makes the decoder fail, most likely because it is damaged. Please export it again.";
    ChildKilled, Infrastructure, "The processing was interrupted. It will be tried again.";
    ChildHung, Capacity, "The processing made no progress and was stopped. It will be tried again.";
    TimeLimit, Capacity, "The processing took longer than is allowed and was stopped.";
    MemoryLimit, Capacity, "The processing needed more memory than is allowed and was stopped.";
    OutputLimit, Capacity, "The processing made more data than is allowed and was stopped.";
    EncoderUnavailable, Capacity, "No encoder could be opened for this video now. It will be tried again.";
    StorageFailed, Infrastructure, "A result could not be stored. It will be tried again.";
    LeaseLost, Infrastructure, "The machine that did the work went away. It will be tried again.";
    Cancelled, BadInput, "The processing was cancelled.";
    Internal, Internal, "Something went wrong on our side. It will be tried again, and the operators were told.";
}

impl FailureCode {
    /// As [`FailureCode::for_creator`], once nothing is tried again by itself: without the promise of another try.
    pub fn for_creator_at_last(self) -> String {
        let kept: Vec<&str> = self
            .for_creator()
            .split_inclusive(". ")
            .map(str::trim_end)
            .filter(|sentence| !sentence.contains("be tried again"))
            .collect();
        let promised_more = kept.join(" ").len() < self.for_creator().len();
        let advice = if promised_more {
            " Several tries did not help; please ask whoever runs this server."
        } else {
            ""
        };
        format!("{}{advice}", kept.join(" "))
    }
}

/// One failure of one attempt, as stored with the task and shown in the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code:?}: {detail}")]
pub struct Failure {
    pub code: FailureCode,
    /// For the operator: what exactly, with numbers. Never shown to creators.
    pub detail: String,
    /// The end of the child's standard error, when a child ran (bounded by the supervisor).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr_tail: String,
}

impl Failure {
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), stderr_tail: String::new() }
    }
    pub fn class(&self) -> FailureClass {
        self.code.class()
    }
}

#[cfg(test)]
mod tests {
    use super::FailureCode;

    #[test]
    fn at_last_nothing_promises_another_try() {
        assert_eq!(
            FailureCode::ChildHung.for_creator_at_last(),
            "The processing made no progress and was stopped. Several tries did not help; please ask whoever runs this server."
        );
        assert_eq!(FailureCode::EmptyFile.for_creator_at_last(), FailureCode::EmptyFile.for_creator());
    }

    #[test]
    fn every_code_has_a_sentence_that_ends_and_a_stable_name() {
        for code in FailureCode::ALL {
            assert!(code.for_creator().ends_with('.'), "{code:?}");
            let at_last = code.for_creator_at_last();
            assert!(at_last.ends_with('.') && !at_last.contains("be tried again"), "{code:?}: {at_last}");
            let name = serde_json::to_string(code).unwrap();
            assert_eq!(&serde_json::from_str::<FailureCode>(&name).unwrap(), code);
        }
    }
}
