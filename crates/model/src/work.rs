//! The words between a worker and the control plane: offer, grant, verdict, result.
//!
//! They cross a process boundary in a fleet (HTTP) and a function call on one machine, in the same form. Every
//! message of a worker names the task *and* its attempt; the control plane refuses it when the attempt is no longer
//! the current one (fencing, see Kleppmann, "How to do distributed locking", 2016).

use crate::{
    AssetId, Failure, MediaInfo, TaskId, WorkerId,
    child::{Job, Limits},
    output::{StillsOutput, TrackOutput},
};
use serde::{Deserialize, Serialize};

/// The kinds of leased work. `Publish` is done by the control plane itself, under the same leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Probe,
    Encode,
    Audio,
    Stills,
    Publish,
}

impl TaskKind {
    pub const ALL: [Self; 5] = [Self::Probe, Self::Encode, Self::Audio, Self::Stills, Self::Publish];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Encode => "encode",
            Self::Audio => "audio",
            Self::Stills => "stills",
            Self::Publish => "publish",
        }
    }
}

impl std::str::FromStr for TaskKind {
    type Err = crate::state::UnknownName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| crate::state::UnknownName::new("TaskKind", text))
    }
}

/// What a worker can take right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub worker: WorkerId,
    pub kinds: Vec<TaskKind>,
    /// Those of `kinds` that are looked for before the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefers: Vec<TaskKind>,
    /// So many tasks on these terms, each with all of what follows.
    #[serde(default = "one_slot")]
    pub slots: u32,
    pub cpu_millicores: u32,
    pub memory_bytes: u64,
}

const fn one_slot() -> u32 {
    1
}

/// A task handed to a worker under a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    pub task: TaskId,
    pub asset: AssetId,
    pub kind: TaskKind,
    /// The fencing token: rises with every lease of this task.
    pub attempt: u32,
    pub job: Job,
    pub limits: Limits,
    /// Storage key of the source.
    pub source_key: String,
    /// Which objects hold it, for a worker that reads them from the store itself; without `pieces` where there are so many
    /// of them that it is to ask for them.
    pub source: SourceLayout,
    /// Where outputs go: files of the job are kept under `{output_prefix}/{file}`. Holds the attempt.
    pub output_prefix: String,
    /// The lease ends so long after the last heartbeat; send one at a third of it.
    pub lease_ms: u64,
    /// W3C trace context of the upload this began with.
    pub traceparent: String,
}

/// Which objects of the store hold a source right now: what a worker needs that reads ranges and has no database.
/// An assembly replaces the pieces by one object; whoever meets a piece that is gone asks for the layout again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLayout {
    pub byte_len: u64,
    /// In order and without a gap; none when the source is empty.
    pub pieces: Vec<SourcePiece>,
}

/// The object `key` is the bytes from `start` to before `end` of the source, all of them and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePiece {
    pub start: u64,
    pub end: u64,
    pub key: String,
}

impl SourceLayout {
    /// The piece that holds this byte; `None` behind the end.
    pub fn piece_at(&self, byte: u64) -> Option<&SourcePiece> {
        let index = self.pieces.partition_point(|piece| piece.end <= byte);
        self.pieces.get(index).filter(|piece| piece.start <= byte)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done_us: i64,
    pub total_us: i64,
}

/// What a heartbeat is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Continue,
    /// Somebody cancelled: stop the child, report nothing more.
    Cancelled,
    /// The lease is another's now: stop the child, write nothing more.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TaskResult {
    Probed { info: Box<MediaInfo> },
    Encoded { encoder: String, tracks: Vec<TrackOutput>, warnings: Vec<String> },
    Stills { stills: StillsOutput },
    Published,
}

/// How an attempt ended, as the worker saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Report {
    Completed { result: TaskResult },
    Failed { failure: Failure },
}
