//! One upload in parts, open: what all requests of this process that work on it share.
//!
//! [`Sessions`] gives every request for an upload the same [`Session`]. The session keeps parts apart that are received
//! at the same time, makes those that ended durable (bytes, then records, each synced once for all parts that wait),
//! and brings the SHA-256 of the whole forward. After a failed sync nobody can tell which bytes are on the disk
//! (fsync(2) reports an error once), so the session takes nothing more; the next request opens a new one.

use super::{
    directory::blocking,
    parts_journal::{PartsJournal, PartsRecord, RecordedParts},
};
use crate::{LocalStore, StoreError, source_key};
use reelyard_model::UploadId;
use reelyard_upload::{
    Checkpoint, Transfer, WholeHash,
    parts::{DurablePart, PartChunk, PartRefusal, PartRequest, PartSet},
};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{OnceCell, Semaphore};

/// Sessions that stay open though nobody uses them, so that a client that sends one part after the other does not have
/// the journal read for each. Two descriptors each.
const KEPT_SESSIONS: usize = 64;
/// One read while hashing: fits into the cache of a processor core.
const HASH_BUFFER_BYTES: usize = 256 << 10;
/// Hashed in one go, before others that wait for a thread have their turn.
const HASH_STEP_BYTES: u64 = 64 << 20;
/// The hash state is recorded when it is so far ahead of the last record: at most so much is hashed again after a
/// restart, a fraction of a second.
const HASH_RECORD_BYTES: u64 = 256 << 20;

/// The open sessions of a store.
#[derive(Debug)]
pub(super) struct Sessions {
    places: Mutex<Places>,
    /// Threads that hash at the same time, over all uploads: half of the processors, so that receiving has the others.
    hashers: Semaphore,
}

#[derive(Debug, Default)]
struct Places {
    by_upload: HashMap<UploadId, Place>,
    uses: u64,
}

#[derive(Debug)]
struct Place {
    session: Arc<OnceCell<Arc<Session>>>,
    last_use: u64,
}

impl Place {
    /// Looked at under the registry's lock, where alone new users come from.
    fn is_idle(&self) -> bool {
        let session = self.session.get();
        Arc::strong_count(&self.session) == 1 && session.is_none_or(|session| Arc::strong_count(session) == 1)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { places: Mutex::default(), hashers: Semaphore::new((processors / 2).max(1)) }
    }
}

impl Sessions {
    /// The session of this upload, opened when nobody has it open.
    pub(super) async fn open(
        &self,
        store: &LocalStore,
        upload: UploadId,
    ) -> Result<Arc<Session>, StoreError> {
        loop {
            let place = self.place(upload);
            let (data_path, journal_path) = store.upload_paths(upload);
            let source_path = store.root().join(source_key(upload));
            let opening = || blocking(move || Session::open(upload, data_path, source_path, &journal_path));
            let session = place.get_or_try_init(|| async { opening().await.map(Arc::new) }).await?.clone();
            if !session.is_over() {
                return Ok(session);
            }
            drop(place);
            if !self.remove_unused(upload, &session) {
                return Err(over(upload));
            }
        }
    }

    /// The upload ends, as a source or as nothing: who still works on it writes nothing more, and its file is let go.
    pub(super) fn close(&self, upload: UploadId) {
        let place = self.places().by_upload.remove(&upload);
        if let Some(session) = place.as_ref().and_then(|place| place.session.get()) {
            session.end();
        }
    }

    fn place(&self, upload: UploadId) -> Arc<OnceCell<Arc<Session>>> {
        let mut places = self.places();
        places.uses += 1;
        let last_use = places.uses;
        if places.by_upload.len() >= KEPT_SESSIONS && !places.by_upload.contains_key(&upload) {
            let idle = places.by_upload.iter().filter(|(_, place)| place.is_idle());
            if let Some(oldest) = idle.min_by_key(|(_, place)| place.last_use).map(|(upload, _)| *upload) {
                places.by_upload.remove(&oldest);
            }
        }
        let place =
            places.by_upload.entry(upload).or_insert_with(|| Place { session: Arc::default(), last_use });
        place.last_use = last_use;
        place.session.clone()
    }

    /// A session that is over makes room for a new one when its last user, the caller, is about to go. Before that,
    /// somebody may still be writing bytes that will not count, to places that a new session would give to others.
    fn remove_unused(&self, upload: UploadId, session: &Arc<Session>) -> bool {
        let mut places = self.places();
        let held = places.by_upload.get(&upload).and_then(|place| place.session.get());
        let is_held = held.is_some_and(|held| Arc::ptr_eq(held, session));
        if is_held && Arc::strong_count(session) == 2 {
            places.by_upload.remove(&upload);
        }
        !is_held || Arc::strong_count(session) == 1
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing in here can panic half-way, so a poisoned map is a good map.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Session {
    upload: UploadId,
    /// `None` once the upload has become a source that is gone.
    data: Option<Arc<File>>,
    pub(super) data_path: PathBuf,
    set: Mutex<PartSet>,
    /// Ended and written, durable or not.
    arrived: Mutex<Arrived>,
    /// Ended, and waiting to be made durable.
    waiting: Mutex<Vec<Waiting>>,
    journal: Mutex<PartsJournal>,
    /// Nothing more is written: a sync failed, or the upload has ended.
    over: AtomicBool,
    hashing: Arc<tokio::sync::Mutex<Hashing>>,
}

#[derive(Debug)]
struct Waiting {
    part: DurablePart,
    outcome: Outcome,
}

/// Set when the part is durable or was given up.
type Outcome = Arc<OnceLock<Result<(), io::ErrorKind>>>;

/// The hash may run ahead of the syncs, over parts whose bytes are written and verified: by the time they are durable,
/// they are hashed. If one of them does not become durable, the session is over, and what it hashed with it.
#[derive(Debug, Default)]
struct Arrived {
    /// First byte to end, of those behind the first gap.
    behind_gap: BTreeMap<u64, u64>,
    contiguous: u64,
}

impl Arrived {
    fn insert(&mut self, range: &Range<u64>) {
        self.behind_gap.insert(range.start, range.end);
        while let Some(end) = self.behind_gap.remove(&self.contiguous) {
            self.contiguous = end;
        }
    }
}

#[derive(Clone, Debug)]
struct Hashing {
    ahead: Checkpoint,
    /// The last one over durable bytes only.
    durable: Checkpoint,
    /// Between the two, in order: as many as there are parts on their way to the disk, at most.
    unproven: VecDeque<Checkpoint>,
    recorded_offset: u64,
}

/// The bytes of a part belong to whoever holds this.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) session: Arc<Session>,
    number: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.session.set().give_up(self.number);
    }
}

impl Session {
    fn open(
        upload: UploadId,
        data_path: PathBuf,
        source_path: PathBuf,
        journal_path: &std::path::Path,
    ) -> Result<Self, StoreError> {
        let (journal, RecordedParts { length, parts, hashed }) = PartsJournal::open(journal_path, upload)?;
        let damaged = |problem| StoreError::Damaged { what: data_path.display().to_string(), problem };
        let set = PartSet::restore(length, parts).map_err(|refused| damaged(refused.to_string()))?;
        let reading = |e| StoreError::io("reading", &data_path, e);
        let data = match File::options().read(true).write(true).open(&data_path) {
            // Renamed away already, which happens to whole uploads only.
            Err(e) if e.kind() == io::ErrorKind::NotFound && set.is_whole() => File::open(source_path).ok(),
            opened => Some(opened.map_err(reading)?),
        };
        let file_len = data.as_ref().map(|file| file.metadata().map(|facts| facts.len())).transpose();
        let end = set.parts().map(|part| part.range.end).max().unwrap_or_default();
        if let Some(file_len) = file_len.map_err(reading)?.filter(|file_len| *file_len < end) {
            return Err(damaged(format!("byte {end} was acknowledged and {file_len} are there")));
        }
        let hashed = hashed.filter(|hashed| hashed.offset <= set.contiguous());
        let durable = hashed.unwrap_or(Checkpoint { offset: 0, hash: WholeHash::new() });
        let recorded_offset = durable.offset;
        let mut arrived = Arrived::default();
        set.parts().for_each(|part| arrived.insert(&part.range));
        let hashing = Hashing { ahead: durable.clone(), durable, unproven: VecDeque::new(), recorded_offset };
        Ok(Self {
            upload,
            data: data.map(Arc::new),
            data_path,
            set: Mutex::new(set),
            arrived: Mutex::new(arrived),
            waiting: Mutex::default(),
            journal: Mutex::new(journal),
            over: AtomicBool::new(false),
            hashing: Arc::new(tokio::sync::Mutex::new(hashing)),
        })
    }

    pub(super) fn part_set(&self) -> PartSet {
        self.set().clone()
    }

    pub(super) fn length(&self) -> u64 {
        self.set().length()
    }

    /// `None` for the claim: the part is there already and wants no room.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: &PartRequest,
    ) -> Result<(PartChunk, Option<Claim>), PartRefusal> {
        let chunk = self.set().begin(request)?;
        let is_new = !chunk.is_repeat();
        let claim = is_new.then(|| Claim { session: self.clone(), number: request.number });
        Ok((chunk, claim))
    }

    pub(super) fn data(&self) -> Result<&Arc<File>, StoreError> {
        self.data.as_ref().ok_or_else(|| StoreError::NotFound { what: self.data_path.display().to_string() })
    }

    /// Told before the bytes of a part travel. It is no promise: others write, too.
    pub(super) fn check_room(&self, byte_len: u64) -> Result<(), StoreError> {
        let disk =
            fstatvfs(&**self.data()?).map_err(|e| StoreError::io("looking at", &self.data_path, e.into()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < byte_len {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::io("making room in", &self.data_path, full));
        }
        Ok(())
    }

    /// Bytes of a part that will not count: on a full disk their room is wanted now.
    pub(super) fn give_back_room(&self, range: &Range<u64>) {
        let Some(data) = &self.data else { return };
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&**data, hole, range.start, range.end - range.start) {
            tracing::debug!(upload = %self.upload, %error, "bytes that do not count stay on the disk for now");
        }
    }

    /// The bytes that are written so far go to the disk.
    pub(super) fn sync_data(&self) -> Result<(), StoreError> {
        self.data()?.sync_data().map_err(|e| {
            self.end();
            StoreError::io("syncing", &self.data_path, e)
        })
    }

    /// A part that ended becomes durable. Parts that end at the same time share the syncs: whoever gets the journal
    /// first takes care of all that wait.
    pub(super) fn commit(&self, part: DurablePart) -> Result<(), StoreError> {
        let outcome = Outcome::default();
        self.waiting().push(Waiting { part, outcome: outcome.clone() });
        let mut journal = self.journal();
        if outcome.get().is_none() {
            let group = std::mem::take(&mut *self.waiting());
            let shared = self.commit_group(&mut journal, &group);
            if let Err(error) = &shared {
                self.end();
                tracing::error!(upload = %self.upload, %error, "parts could not be made durable");
            }
            for waiting in group {
                let _ = waiting.outcome.set(shared.as_ref().copied().map_err(|error| error.kind()));
            }
        }
        match outcome.get() {
            Some(Ok(())) => Ok(()),
            Some(Err(kind)) => Err(StoreError::io("storing a part in", &self.data_path, (*kind).into())),
            None => Err(over(self.upload)),
        }
    }

    fn commit_group(&self, journal: &mut PartsJournal, group: &[Waiting]) -> Result<(), io::Error> {
        if self.is_over() {
            return Err(over(self.upload).into());
        }
        self.data()?.sync_data()?;
        let records: Vec<PartsRecord> =
            group.iter().map(|waiting| PartsRecord::Part(waiting.part.clone())).collect();
        journal.append(&records, true)?;
        let mut set = self.set();
        group.iter().try_for_each(|waiting| set.insert(waiting.part.clone())).map_err(io::Error::other)
    }

    /// All bytes of a part are written; it will be durable when [`Self::commit`] returns.
    pub(super) fn part_arrived(self: &Arc<Self>, range: &Range<u64>, sessions: &Arc<Sessions>) {
        self.arrived().insert(range);
        let (session, sessions) = (self.clone(), sessions.clone());
        tokio::spawn(async move {
            if let Err(error) = session.hash_ahead(&sessions).await {
                tracing::warn!(upload = %session.upload, %error, "an upload is not hashed ahead");
            }
        });
    }

    async fn hash_ahead(self: &Arc<Self>, sessions: &Sessions) -> Result<(), StoreError> {
        // Whoever is at it already looks once more when he has let go.
        while let Ok(mut hashing) = self.hashing.clone().try_lock_owned() {
            self.hash_arrived(sessions, &mut hashing).await?;
            let reached = hashing.ahead.offset;
            drop(hashing);
            if self.is_over() || self.arrived().contiguous == reached {
                break;
            }
        }
        Ok(())
    }

    /// The SHA-256 of what is durable from the front.
    pub(super) async fn hash(
        self: &Arc<Self>,
        sessions: &Sessions,
        limit: u64,
    ) -> Result<Transfer, StoreError> {
        let mut hashing = self.hashing.clone().lock_owned().await;
        self.hash_arrived(sessions, &mut hashing).await?;
        self.count_durable(&mut hashing)?;
        let length = self.length();
        Transfer::restore(Some(length), limit, hashing.durable.clone()).ok_or_else(|| StoreError::Damaged {
            what: self.data_path.display().to_string(),
            problem: format!("it was hashed beyond its {length} bytes"),
        })
    }

    /// A caller that stops waiting loses one step of the work.
    async fn hash_arrived(
        self: &Arc<Self>,
        sessions: &Sessions,
        hashing: &mut Hashing,
    ) -> Result<(), StoreError> {
        loop {
            let arrived = self.arrived().contiguous;
            if hashing.ahead.offset == arrived {
                return Ok(());
            }
            let turn = sessions.hashers.acquire().await.map_err(|e| StoreError::Io {
                doing: "waiting for a turn".to_owned(),
                source: io::Error::other(e),
            })?;
            let (session, before) = (self.clone(), hashing.clone());
            *hashing = blocking(move || session.hash_step(before, arrived)).await?;
            drop(turn);
        }
    }

    fn hash_step(&self, mut hashing: Hashing, arrived: u64) -> Result<Hashing, StoreError> {
        let data = self.data()?;
        let ahead = &mut hashing.ahead;
        let end = arrived.min(ahead.offset + HASH_STEP_BYTES);
        let mut buffer = vec![0; HASH_BUFFER_BYTES];
        while ahead.offset < end {
            let piece = &mut buffer[..(HASH_BUFFER_BYTES as u64).min(end - ahead.offset) as usize];
            data.read_exact_at(piece, ahead.offset)
                .map_err(|e| StoreError::io("reading", &self.data_path, e))?;
            ahead.hash.update(piece);
            ahead.offset += piece.len() as u64;
        }
        hashing.unproven.push_back(hashing.ahead.clone());
        self.count_durable(&mut hashing)?;
        Ok(hashing)
    }

    /// What is hashed counts when its bytes are durable: a record of anything else could outlive them.
    fn count_durable(&self, hashing: &mut Hashing) -> Result<(), StoreError> {
        let (contiguous, length) = {
            let set = self.set();
            (set.contiguous(), set.length())
        };
        while let Some(proven) = hashing.unproven.pop_front_if(|checkpoint| checkpoint.offset <= contiguous) {
            hashing.durable = proven;
        }
        let news = hashing.durable.offset - hashing.recorded_offset;
        if news >= HASH_RECORD_BYTES || (news > 0 && hashing.durable.offset == length) {
            let mut journal = self.journal();
            if !self.is_over() {
                // Not synced: the next part's record is, and a lost one costs a little time.
                journal.append(&[PartsRecord::Hashed(hashing.durable.clone())], false)?;
                hashing.recorded_offset = hashing.durable.offset;
            }
        }
        Ok(())
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) -> MutexGuard<'_, PartSet> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, PartsJournal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

fn over(upload: UploadId) -> StoreError {
    StoreError::Unavailable {
        doing: format!("writing to the upload {upload}"),
        reason: "it has ended, or a write to it failed".to_owned(),
    }
}
