//! Brings one file to a server, through whatever failures pass, and says what the server made of it.
//!
//! Called by `cmd/upload`. Files go in parts, several at a time; over a line that no part gets through whole, and for an
//! upload that an older version began, by tus, which keeps every byte that arrives. What is unfinished is remembered, so
//! another process goes on; what the file holds is compared with what the server says it has.

mod by_parts;
mod by_proof;
mod by_tus;
mod whole;

use super::{
    ClientError, NO_SERVER_ADVICE, Server,
    backoff::{Backoff, Next},
    display::{BytesBar, Display},
    resume::{FileIdentity, Memory},
};
use anyhow::Context as _;
use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often the bar looks at the count.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(200);
/// The same request changed on the way so often is no accident any more.
const MAX_DAMAGED: u32 = 5;

/// When the digests differ at the end.
pub(crate) const OTHER_BYTES_ADVICE: &str = "what the server has is not what the file holds now: the file was changed while it was sent, or bytes were damaged on the way; upload it again";

pub(crate) struct Transfer<'a> {
    pub(crate) server: &'a Server,
    pub(crate) memory: &'a Memory,
    pub(crate) display: &'a Display,
    pub(crate) path: &'a Path,
    pub(crate) identity: FileIdentity,
    pub(crate) preset: Option<&'a str>,
    pub(crate) title: Option<&'a str>,
    /// How urgent it is.
    pub(crate) tier: Option<&'a str>,
    /// Parts under way at the same time.
    pub(crate) parallel: usize,
    /// Hash the file first, and send nothing if the server has it.
    pub(crate) ask_first: bool,
    trouble: Mutex<Backoff>,
}

#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) address: String,
    pub(crate) asset: Option<String>,
    /// As the server computed it, lower-case hexadecimal.
    pub(crate) server_sha256: Option<String>,
    /// As this machine computed it from the file.
    pub(crate) sha256: String,
}

/// Why a transfer stopped.
enum Failed {
    Ended(anyhow::Error),
    /// What the server has is gone, or of another file: begin anew, once.
    Anew(String),
    /// No part gets through whole.
    LineTooBad {
        upload: String,
    },
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Ended(error)
    }
}

/// What a request does, for what its refusal means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Part,
    Completing,
    Other,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        server: &'a Server,
        memory: &'a Memory,
        display: &'a Display,
        file: (&'a Path, FileIdentity),
    ) -> Self {
        let (path, identity) = file;
        Self {
            server,
            memory,
            display,
            path,
            identity,
            preset: None,
            title: None,
            tier: None,
            parallel: 1,
            ask_first: false,
            trouble: Mutex::default(),
        }
    }

    pub(crate) async fn run(&self) -> anyhow::Result<Sent> {
        let mut begun_anew = false;
        if self.ask_first
            && self.memory.recall().is_none()
            && let Some(sent) = by_proof::show(self).await?
        {
            return Ok(sent);
        }
        loop {
            let remembered = self.memory.recall();
            let began_by_tus = remembered.as_ref().is_some_and(|upload| upload.part_bytes.is_none());
            if began_by_tus {
                return by_tus::send(self).await;
            }
            match by_parts::send(self, remembered).await {
                Ok(sent) => return Ok(sent),
                Err(Failed::Ended(error)) => return Err(error),
                Err(Failed::Anew(reason)) => {
                    self.check_file()?;
                    anyhow::ensure!(!begun_anew, "{reason}");
                    begun_anew = true;
                    self.memory.forget();
                    self.display.say(&format!("{reason}; beginning anew"));
                }
                Err(Failed::LineTooBad { upload }) => {
                    self.memory.forget();
                    self.display
                        .warn("the connection breaks before a part is through; sending piece by piece");
                    // It would expire by itself.
                    let _ = super::parts::give_up(self.server, &upload).await;
                    return by_tus::send(self).await;
                }
            }
        }
    }

    /// Does it until it works or cannot work.
    async fn persist<T, Asked: Future<Output = Result<T, ClientError>>>(
        &self,
        doing: Doing,
        mut ask: impl FnMut() -> Asked,
    ) -> Result<T, Failed> {
        let (mut failures, mut damaged) = (0, 0);
        loop {
            let error = match ask().await {
                Ok(answer) => {
                    self.backoff(Backoff::progress);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let (reason, retry_after) = match error {
                ClientError::Unreachable { reason, retry_after, answered } => {
                    if answered {
                        self.backoff(Backoff::answered);
                    }
                    (reason, retry_after)
                }
                stalled @ ClientError::Stalled(_) => (stalled.to_string(), None),
                // What came is not what was sent.
                ClientError::Refused { status: 400 | 460, detail }
                    if doing == Doing::Part && damaged < MAX_DAMAGED =>
                {
                    damaged += 1;
                    (detail, None)
                }
                ClientError::Refused { status: 404 | 410, .. } => {
                    return Err(Failed::Anew("the unfinished upload is not on the server any more".into()));
                }
                ClientError::Refused { status: 409, detail } if doing != Doing::Other => {
                    return Err(Failed::Anew(format!("the server has other bytes of this file ({detail})")));
                }
                // What it has can never become this file.
                ClientError::Refused { status: 422, detail } if doing == Doing::Completing => {
                    self.memory.forget();
                    let error = anyhow::anyhow!("{OTHER_BYTES_ADVICE} ({detail})");
                    return Err(Failed::Ended(error));
                }
                other => return Err(Failed::Ended(other.into())),
            };
            failures += 1;
            self.wait(failures, reason, retry_after).await?;
        }
    }

    /// The pause after so many failures in a row, or the end.
    async fn wait(&self, failures: u32, reason: String, retry_after: Option<Duration>) -> anyhow::Result<()> {
        let chance = crate::app::random_u32();
        match self.backoff(|backoff| backoff.next_of(failures, Instant::now(), retry_after, chance)) {
            Next::Wait { pause, notice } => {
                if let Some(notice) = notice {
                    self.display.warn(&format!("{reason}; {notice}"));
                }
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Next::GiveUp { after } if !self.backoff(|backoff| backoff.has_answered()) => {
                anyhow::bail!("{reason}; given up after {after}. {NO_SERVER_ADVICE}")
            }
            Next::GiveUp { after } => anyhow::bail!(
                "{reason}; given up after {after} without progress, the same command goes on from here"
            ),
        }
    }

    fn backoff<T>(&self, use_it: impl FnOnce(&mut Backoff) -> T) -> T {
        use_it(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Half of one file and half of another would make neither.
    fn check_file(&self) -> anyhow::Result<()> {
        let facts = fs::metadata(self.path).with_context(|| self.path.display().to_string())?;
        anyhow::ensure!(
            FileIdentity::of(self.path, &facts) == self.identity,
            "{} was changed while it was being sent; run the command again to send it as it is now",
            self.path.display()
        );
        Ok(())
    }

    fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Keeps the bar moving while something is under way.
async fn shown<T>(work: impl Future<Output = T>, position: impl Fn() -> u64, bar: &mut BytesBar) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(DISPLAY_INTERVAL) => bar.set(position()),
        }
    }
}
