//! A control plane in memory and a depot in a folder, with the faults that tests ask for.

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use reelyard_agent::{
    Agent, AgentConfig, ShutdownHandle, Slots, Watch,
    control::{ControlPlane, ControlUnavailable, Depot},
    shutdown,
    source::{RangeReader, SourceBytes, SourceCache},
};
use reelyard_model::{
    AssetId, Failure, Rational, TaskId, WorkerId,
    child::{EncoderChoice, Job, Limits},
    media_info::{Colour, FrameRate, Hdr, Orientation},
    plan::{Chunk, VideoEncoderSettings, VideoPlan},
    work::{Grant, Offer, Progress, Report, SourceLayout, TaskKind, Verdict},
};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use uuid::Uuid;

/// A whole test takes a second or two; a minute means that what it waits for will not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Heartbeats come every three seconds, so that a machine which stands still for a second or two loses no lease.
const LEASE_MS: u64 = 9_000;
/// For tests that wait for several heartbeats, or for the end of a lease.
pub(crate) const SHORT_LEASE_MS: u64 = 6_000;

#[derive(Default)]
pub(crate) struct Seen {
    waiting: VecDeque<Grant>,
    reports: Vec<(TaskId, Report)>,
    heartbeats: Vec<(TaskId, Progress)>,
    verdict: Option<Verdict>,
    away: bool,
    reports_to_refuse: u32,
    heartbeats_to_refuse: u32,
    keeps_to_fail: u32,
    panic_at_next_source: bool,
    /// Sources are handed out as readers of ranges.
    is_far_away: bool,
    /// After it was opened.
    forget_next_source: bool,
    released: Vec<TaskId>,
    called_off: Vec<(TaskId, Verdict)>,
}

impl Seen {
    pub(crate) fn was_released(&self, task: TaskId) -> Option<()> {
        self.released.contains(&task).then_some(())
    }
    pub(crate) fn reports_of(&self, task: TaskId) -> Option<Vec<Report>> {
        let of_task = self.reports.iter().filter(|(of, _)| *of == task).map(|(_, report)| report.clone());
        let reports: Vec<Report> = of_task.collect();
        (!reports.is_empty()).then_some(reports)
    }
    pub(crate) fn heartbeats_of(&self, task: TaskId) -> usize {
        self.heartbeats.iter().filter(|(of, _)| *of == task).count()
    }
    /// As heartbeats tell it: the test child reports its process id in the low half of its progress.
    pub(crate) fn child_of(&self, task: TaskId) -> Option<u32> {
        let progress = self.heartbeats.iter().rev().find(|(of, _)| *of == task)?.1;
        let id = (progress.done_us & 0xffff_ffff) as u32;
        (id != 0).then_some(id)
    }
}

struct Shared {
    seen: Mutex<Seen>,
    changed: Notify,
    ticket: Notify,
    folder: PathBuf,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let result = change(&mut self.seen());
        self.changed.notify_waiters();
        result
    }
    fn here(&self) -> Result<(), ControlUnavailable> {
        if self.seen().away { Err(ControlUnavailable("it is away".to_owned())) } else { Ok(()) }
    }
}

impl ControlPlane for Shared {
    async fn claim(&self, offers: &[Offer]) -> Result<Vec<Grant>, ControlUnavailable> {
        self.here()?;
        Ok(self.change(|seen| {
            let mut grants = Vec::new();
            for offer in offers {
                for _ in 0..offer.slots {
                    let fits = seen.waiting.iter().position(|grant| offer.kinds.contains(&grant.kind));
                    grants.extend(fits.and_then(|fits| seen.waiting.remove(fits)));
                }
            }
            grants
        }))
    }
    async fn heartbeat(
        &self,
        task: TaskId,
        _: u32,
        progress: Progress,
    ) -> Result<Verdict, ControlUnavailable> {
        self.here()?;
        self.change(|seen| {
            if seen.heartbeats_to_refuse > 0 {
                seen.heartbeats_to_refuse -= 1;
                return Err(ControlUnavailable("not now".to_owned()));
            }
            seen.heartbeats.push((task, progress));
            Ok(seen.verdict.unwrap_or(Verdict::Continue))
        })
    }
    async fn report(&self, task: TaskId, _: u32, report: Report) -> Result<Verdict, ControlUnavailable> {
        self.here()?;
        self.change(|seen| {
            if seen.reports_to_refuse > 0 {
                seen.reports_to_refuse -= 1;
                return Err(ControlUnavailable("not now".to_owned()));
            }
            seen.reports.push((task, report));
            Ok(Verdict::Continue)
        })
    }
    async fn release(&self, task: TaskId, _: u32) -> Result<(), ControlUnavailable> {
        self.here()?;
        self.change(|seen| seen.released.push(task));
        Ok(())
    }
    async fn called_off(&self, task: TaskId, _: u32) -> Verdict {
        loop {
            let changed = self.changed.notified();
            if let Some((_, verdict)) = self.seen().called_off.iter().find(|(of, _)| *of == task) {
                return *verdict;
            }
            changed.await;
        }
    }
    async fn wait_for_ticket(&self, _: &[Offer]) {
        self.ticket.notified().await;
    }
}

impl Depot for Shared {
    async fn open_source(&self, grant: &Grant) -> io::Result<SourceBytes> {
        if self.change(|seen| std::mem::take(&mut seen.panic_at_next_source)) {
            panic!("asked for by the test");
        }
        let path = self.folder.join(&grant.source_key);
        if self.seen().is_far_away {
            let byte_len = std::fs::metadata(&path)?.len();
            if self.change(|seen| std::mem::take(&mut seen.forget_next_source)) {
                std::fs::remove_file(&path)?;
            }
            return Ok(SourceBytes::Ranges(Arc::new(FarFile { path, byte_len })));
        }
        File::open(path).map(SourceBytes::File)
    }
    async fn keep(&self, scratch_file: &Path, key: &str) -> io::Result<()> {
        let fails = self.change(|seen| {
            let fails = seen.keeps_to_fail > 0;
            seen.keeps_to_fail = seen.keeps_to_fail.saturating_sub(1);
            fails
        });
        if fails {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let kept = self.folder.join(key);
        std::fs::create_dir_all(kept.parent().unwrap())?;
        std::fs::rename(scratch_file, kept)
    }
}

/// A file that each range is opened for anew, as a store would be asked.
struct FarFile {
    path: PathBuf,
    byte_len: u64,
}

impl RangeReader for FarFile {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }
    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let path = self.path.clone();
        let reading = async move {
            let whole = std::fs::read(path)?;
            Ok(Bytes::copy_from_slice(&whole[range.start as usize..range.end as usize]))
        };
        stream::once(reading).boxed()
    }
}

pub(crate) struct World {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    lease_ms: u64,
}

pub(crate) struct RunningAgent {
    handle: ShutdownHandle,
    run: JoinHandle<io::Result<()>>,
    pub(crate) sources: SourceCache,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_lease(LEASE_MS)
    }

    pub(crate) fn with_lease(lease_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared {
            seen: Mutex::default(),
            changed: Notify::new(),
            ticket: Notify::new(),
            folder: folder.path().join("depot"),
        };
        std::fs::create_dir_all(shared.folder.join("sources")).unwrap();
        Self { folder, shared: Arc::new(shared), lease_ms }
    }

    /// A task whose source tells the test child what to do.
    pub(crate) fn grant(&self, behaviour: &str) -> TaskId {
        let task = TaskId::from_uuid(Uuid::now_v7());
        let source_key = format!("sources/{task}");
        std::fs::write(self.shared.folder.join(&source_key), behaviour).unwrap();
        let grant = Grant {
            task,
            asset: AssetId::from_uuid(Uuid::now_v7()),
            kind: TaskKind::Encode,
            attempt: 1,
            job: encode(),
            limits: Limits::default(),
            source_key,
            source: SourceLayout { byte_len: 0, pieces: Vec::new() },
            output_prefix: format!("renditions/{task}/a1"),
            lease_ms: self.lease_ms,
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        };
        self.shared.change(|seen| seen.waiting.push_back(grant));
        self.shared.ticket.notify_one();
        task
    }

    pub(crate) fn start(&self) -> RunningAgent {
        self.start_with(|_| ())
    }

    pub(crate) fn start_with(&self, change: impl FnOnce(&mut AgentConfig)) -> RunningAgent {
        let mut config = AgentConfig {
            worker: WorkerId::from_uuid(Uuid::now_v7()),
            program: env!("CARGO_BIN_EXE_reelyard-agent-test-child").into(),
            scratch: self.folder.path().join("scratch"),
            slots: Slots { heavy: 1, light: 1, threads: 2 },
            memory_bytes: 1 << 30,
            watch: Watch::default(),
            drain: Duration::from_secs(30),
        };
        change(&mut config);
        let (handle, shutdown) = shutdown();
        let agent = Agent::new(config, Arc::clone(&self.shared), Arc::clone(&self.shared));
        let sources = agent.sources();
        RunningAgent { handle, run: tokio::spawn(agent.run(shutdown)), sources }
    }

    /// Waits for something to become so. Looked at after each change, and now and then for what changes elsewhere.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let looking = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(found) = look(&self.shared.seen()) {
                    return found;
                }
                let _ = timeout(Duration::from_millis(10), changed).await;
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// The process that works for ever on it, once the agent has kept its files so far.
    pub(crate) async fn child_at_work(&self, task: TaskId) -> u32 {
        let kept = self.kept(task, "240p/process_id");
        let process_id = |_: &Seen| std::fs::read_to_string(&kept).ok()?.parse().ok();
        self.until("the child at work", process_id).await
    }

    pub(crate) fn kept(&self, task: TaskId, file: &str) -> PathBuf {
        self.shared.folder.join(format!("renditions/{task}/a1/{file}"))
    }
    pub(crate) fn scratch_is_empty(&self) -> bool {
        std::fs::read_dir(self.folder.path().join("scratch")).unwrap().next().is_none()
    }
    pub(crate) fn forget_source(&self, task: TaskId) {
        std::fs::remove_file(self.shared.folder.join(format!("sources/{task}"))).unwrap();
    }
    pub(crate) fn answer_heartbeats(&self, verdict: Verdict) {
        self.shared.change(|seen| seen.verdict = Some(verdict));
    }
    pub(crate) fn call_off(&self, task: TaskId, verdict: Verdict) {
        self.shared.change(|seen| seen.called_off.push((task, verdict)));
    }
    pub(crate) fn go_away(&self) {
        self.shared.change(|seen| seen.away = true);
    }
    pub(crate) fn come_back(&self) {
        self.shared.change(|seen| seen.away = false);
    }
    pub(crate) fn refuse_reports(&self, count: u32) {
        self.shared.change(|seen| seen.reports_to_refuse = count);
    }
    pub(crate) fn refuse_heartbeats(&self, count: u32) {
        self.shared.change(|seen| seen.heartbeats_to_refuse = count);
    }
    pub(crate) fn fail_keeps(&self, count: u32) {
        self.shared.change(|seen| seen.keeps_to_fail = count);
    }
    pub(crate) fn put_sources_far_away(&self) {
        self.shared.change(|seen| seen.is_far_away = true);
    }
    pub(crate) fn forget_next_source_once_opened(&self) {
        self.shared.change(|seen| seen.forget_next_source = true);
    }
    pub(crate) fn panic_at_next_source(&self) {
        self.shared.change(|seen| seen.panic_at_next_source = true);
    }
}

impl RunningAgent {
    pub(crate) fn ask_to_drain(&self) {
        self.handle.drain();
    }
    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.run).await.expect("the agent ends").unwrap().unwrap();
    }
    pub(crate) async fn drain(self) {
        self.handle.drain();
        timeout(PATIENCE, self.run).await.expect("the agent ends").unwrap().unwrap();
    }
    pub(crate) async fn now(self) {
        self.handle.now();
        timeout(PATIENCE, self.run).await.expect("the agent ends").unwrap().unwrap();
    }
}

pub(crate) fn failure_of(report: &Report) -> &Failure {
    match report {
        Report::Failed { failure } => failure,
        Report::Completed { .. } => panic!("completed"),
    }
}

pub(crate) fn process_exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

/// Any encode will do: the test child does not look at it.
fn encode() -> Job {
    let one = Rational::ONE;
    Job::Encode {
        video: VideoPlan {
            source_track: 0,
            source_time_base: one,
            origin_pts: 0,
            timescale: 90_000,
            frame_rate: FrameRate::Constant { rate: one },
            orientation: Orientation::default(),
            deinterlace: false,
            colour: Colour {
                primaries: 1,
                transfer: 1,
                matrix: 1,
                full_range: false,
                hdr: Hdr::None,
                dolby_vision: false,
            },
            gop_ticks: 180_000,
            segment_ticks: 360_000,
            rungs: Vec::new(),
            encoder: VideoEncoderSettings {
                x264_preset: "veryfast".to_owned(),
                nvenc_preset: "p4".to_owned(),
                profile: "high".to_owned(),
                scaler: "bicubic".to_owned(),
            },
            chunks: Vec::new(),
        },
        chunk: Chunk::whole(0),
        encoder: EncoderChoice::X264,
    }
}
