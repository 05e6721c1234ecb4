//! A file in parts, several at a time: the index of an MP4 first when it is at the end, then from the beginning.
//!
//! A part is read once, hashed, sent with its digest, and sent again until the server stores just these bytes. An
//! interruption costs the parts that were under way.

use super::{
    DISPLAY_INTERVAL, Doing, Failed, Sent, Transfer, shown,
    whole::{WholeDigest, WholeError},
};
use crate::client::{
    ClientError,
    line::{Lane, Lanes, SentBytes},
    mp4,
    parts::{self, Opening, Part, StoredPart},
    resume::Remembered,
};
use anyhow::Context as _;
use bytes::BytesMut;
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// Parts that break off in a row, before the first one is through, until another protocol is tried: one for each that
/// is under way when a server stops, and some.
const CUTS_BEFORE_TUS: u32 = 6;
/// When all that is under way was sent so often and nothing got through, sending is no progress any more.
const TIMES_IN_VAIN: u64 = 4;

/// An upload that was found or begun.
struct Goal {
    id: String,
    part_bytes: u64,
    /// By number.
    stored: BTreeMap<u32, StoredPart>,
    /// Only the answer was lost, or nobody waited for it.
    is_complete: bool,
}

struct Sending<'a> {
    transfer: &'a Transfer<'a>,
    goal: Goal,
    file: Arc<File>,
    parts: Vec<Range<u64>>,
    whole: WholeDigest,
    /// Bytes of each part that are sent or stored.
    sent: Vec<Arc<SentBytes>>,
    /// Bytes that left, of all parts, since it was looked at.
    left: Arc<AtomicU64>,
    lanes: Lanes,
    /// Memory of parts that are stored, for those to come: each is some MiB, which cost time when they are new.
    spare: Mutex<Vec<BytesMut>>,
    cuts: AtomicU32,
    /// Some part was sent whole, now or earlier.
    got_through: AtomicBool,
}

/// Sends all that the server does not have yet, and completes.
pub(super) async fn send(transfer: &Transfer<'_>, remembered: Option<Remembered>) -> Result<Sent, Failed> {
    let path = transfer.path;
    transfer.check_file()?;
    let file = Arc::new(File::open(path).with_context(|| path.display().to_string())?);
    let goal = find_or_begin(transfer, remembered).await?;
    let length = transfer.identity.byte_len;
    let parts = lay_out(length, goal.part_bytes);
    let stored = |index: usize| match number_of(index).and_then(|number| goal.stored.get(&number)) {
        Some(part) => Some(Some(part.sha256.clone())),
        None => goal.is_complete.then_some(None),
    };
    let whole = WholeDigest::start(file.clone(), parts.clone(), stored);
    let left = Arc::default();
    let sent = parts.iter().enumerate().map(|(index, range)| {
        let bytes = stored(index).map_or(0, |_| range.end - range.start);
        Arc::new(SentBytes::new(bytes, Arc::clone(&left)))
    });
    let sent = sent.collect();
    let under_way = goal.part_bytes.saturating_mul(transfer.parallel as u64);
    transfer.backoff(|backoff| backoff.allow_unanswered(under_way.saturating_mul(TIMES_IN_VAIN)));
    let got_through = AtomicBool::new(!goal.stored.is_empty());
    let (lanes, spare) = (Lanes::new(transfer.parallel), Mutex::default());
    let cuts = AtomicU32::new(0);
    Sending { transfer, goal, file, parts, whole, sent, left, lanes, spare, cuts, got_through }.run().await
}

async fn find_or_begin(transfer: &Transfer<'_>, remembered: Option<Remembered>) -> Result<Goal, Failed> {
    let (server, length) = (transfer.server, transfer.identity.byte_len);
    if let Some(Remembered { upload, part_bytes: Some(part_bytes) }) = remembered {
        let id = upload.rsplit('/').next().unwrap_or_default().to_owned();
        let standing = transfer.persist(Doing::Other, || parts::standing(server, &id)).await?;
        let layout = lay_out(length, part_bytes);
        let fits = |part: &StoredPart| {
            let index = (part.number as usize).checked_sub(1);
            index.and_then(|index| layout.get(index)) == Some(&part.range)
        };
        if standing.length != length || !standing.parts.iter().all(fits) {
            return Err(Failed::Anew("the unfinished upload has other parts than this file".into()));
        }
        let stored = standing.parts.into_iter().map(|part| (part.number, part));
        return Ok(Goal { id, part_bytes, stored: stored.collect(), is_complete: standing.is_complete });
    }
    let file_name = transfer.file_name();
    let Transfer { preset, title, tier, .. } = *transfer;
    let opening = Opening { length, file_name: &file_name, preset, title, tier };
    let begun = transfer.persist(Doing::Other, || parts::begin(server, &opening)).await?;
    let address = address_of(transfer, &begun.id)?;
    transfer.memory.remember(&Remembered { upload: address, part_bytes: Some(begun.part_bytes) });
    Ok(Goal { id: begun.id, part_bytes: begun.part_bytes, stored: BTreeMap::new(), is_complete: false })
}

fn address_of(transfer: &Transfer<'_>, id: &str) -> Result<String, Failed> {
    let address = transfer.server.address(&format!("uploads/{id}"));
    Ok(address.map_err(anyhow::Error::from)?.to_string())
}

impl Sending<'_> {
    async fn run(self) -> Result<Sent, Failed> {
        let length = self.transfer.identity.byte_len;
        let order = self.sending_order();
        let mut bar = self.transfer.display.bytes("upload", self.position(), length);
        let sending = futures::stream::iter(order)
            .map(|index| self.send_part(index))
            .buffer_unordered(self.transfer.parallel)
            .try_collect::<Vec<(u32, String)>>();
        let new = shown(sending, || self.position(), &mut bar).await?;
        self.transfer.check_file()?;
        bar.set(length);
        bar.end();
        self.complete(new).await
    }

    /// Indices of the parts that are missing: those that hold the index of an MP4 first.
    fn sending_order(&self) -> Vec<usize> {
        let index_start = mp4::index_at_end(&self.file, self.transfer.identity.byte_len);
        let is_stored = |index: usize| {
            self.goal.is_complete
                || number_of(index).is_some_and(|number| self.goal.stored.contains_key(&number))
        };
        let missing = (0..self.parts.len()).filter(|index| !is_stored(*index));
        let holds_index = |index: &usize| index_start.is_some_and(|start| self.parts[*index].end > start);
        let (mut order, rest): (Vec<usize>, Vec<usize>) = missing.partition(holds_index);
        order.extend(rest);
        order
    }

    fn position(&self) -> u64 {
        self.sent.iter().map(|sent| sent.get()).sum()
    }

    /// Number and ETag of the part once it is durable.
    async fn send_part(&self, index: usize) -> Result<(u32, String), Failed> {
        let part = self.read(index).await?;
        self.whole.offer(index, &part.bytes, &part.sha256);
        let (total, sent, id) = (self.transfer.identity.byte_len, &self.sent[index], &self.goal.id);
        let stored = self.transfer.persist(Doing::Part, || async {
            let lane = self.lanes.enter().await;
            let answer = parts::put(self.transfer.server, id, &part, total, sent).await;
            self.watch_line(&answer, sent, &lane);
            answer
        });
        let stored = tokio::select! {
            stored = stored => stored?,
            () = self.line_is_too_bad() => return Err(Failed::LineTooBad { upload: id.clone() }),
        };
        if stored != hex::encode(part.sha256) {
            let error = ClientError::Nonsense(format!(
                "the server says that it stored other bytes of part {} than were sent",
                part.number
            ));
            return Err(Failed::Ended(error.into()));
        }
        sent.set(part.range.end - part.range.start);
        // Not while the hash of the whole still needs it.
        if let Ok(bytes) = part.bytes.try_into_mut() {
            self.spare().push(bytes);
        }
        Ok((part.number, stored))
    }

    /// Counts parts that broke off in the middle, and what left of all parts.
    fn watch_line(&self, answer: &Result<String, ClientError>, sent: &SentBytes, lane: &Lane<'_>) {
        let left = self.left.swap(0, Ordering::Relaxed);
        self.transfer.backoff(|backoff| backoff.sent(left));
        let error = match answer {
            Ok(_) => {
                self.got_through.store(true, Ordering::Relaxed);
                return lane.got_through();
            }
            Err(error) => error,
        };
        let is_stall = matches!(error, ClientError::Stalled(_));
        if is_stall {
            lane.stalled();
        }
        // What was under way of it does not count any more.
        let was_under_way = sent.set(0) > 0;
        if was_under_way && (is_stall || matches!(error, ClientError::Unreachable { answered: false, .. })) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<BytesMut>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when no part was ever through and too many broke.
    async fn line_is_too_bad(&self) {
        while self.got_through.load(Ordering::Relaxed) || self.cuts.load(Ordering::Relaxed) < CUTS_BEFORE_TUS
        {
            tokio::time::sleep(DISPLAY_INTERVAL).await;
        }
    }

    async fn read(&self, index: usize) -> Result<Part, Failed> {
        let (file, range) = (self.file.clone(), self.parts[index].clone());
        let number = number_of(index).context("more parts than there can be")?;
        let mut bytes = self.spare().pop().unwrap_or_default();
        let reading = tokio::task::spawn_blocking(move || {
            bytes.resize(usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
            file.read_exact_at(&mut bytes, range.start)?;
            let sha256 = Sha256::digest(&bytes).into();
            Ok::<_, std::io::Error>(Part { number, range, bytes: bytes.freeze(), sha256 })
        });
        let read = reading.await.context("reading the file")?;
        // A file that became shorter was changed; only then does it matter what the error says.
        self.transfer.check_file()?;
        Ok(read.with_context(|| self.transfer.path.display().to_string())?)
    }

    async fn complete(self, new: Vec<(u32, String)>) -> Result<Sent, Failed> {
        let Self { transfer, goal, whole, .. } = self;
        let whole = match whole.finish().await {
            Ok(whole) => whole,
            Err(error @ WholeError::OtherBytes { .. }) => {
                // It can never become this file.
                let _ = parts::give_up(transfer.server, &goal.id).await;
                return Err(Failed::Anew(error.to_string()));
            }
            Err(error) => return Err(Failed::Ended(error.into())),
        };
        let stored = goal.stored.into_values().map(|part| (part.number, part.sha256));
        let list: BTreeMap<u32, String> = stored.chain(new).collect();
        let made = transfer.persist(Doing::Completing, || {
            parts::complete(transfer.server, &goal.id, list.clone().into_iter(), &whole)
        });
        let made = made.await?;
        Ok(Sent {
            address: address_of(transfer, &goal.id)?,
            asset: Some(made.asset),
            server_sha256: made.sha256,
            sha256: hex::encode(whole),
        })
    }
}

/// From 1.
fn number_of(index: usize) -> Option<u32> {
    u32::try_from(index + 1).ok()
}

/// Part n is the n-th piece of this size; only the last may be shorter.
fn lay_out(length: u64, part_bytes: u64) -> Vec<Range<u64>> {
    let step = usize::try_from(part_bytes.max(1)).unwrap_or(usize::MAX);
    (0..length).step_by(step).map(|start| start..length.min(start.saturating_add(part_bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::lay_out;

    #[test]
    fn parts_cover_the_file_and_only_the_last_is_shorter() {
        assert_eq!(lay_out(25, 10), [0..10, 10..20, 20..25]);
        assert_eq!(lay_out(20, 10), [0..10, 10..20]);
        assert_eq!(lay_out(0, 10), []);
    }
}
