//! What is durable of one upload, and the decisions on what comes next.
//!
//! A [`Transfer`] is what the journal says. A request is shown to [`Transfer::begin_chunk`], which refuses it or gives
//! a [`Chunk`]; the caller shows the chunk every byte before writing it, may make a checkpoint on the way
//! ([`Chunk::checkpoint`]), and settles it when the body ends ([`Chunk::settle`]). A [`Checkpoint`] says "so many
//! bytes, with this hash state": the caller makes it durable first and tells the transfer afterwards
//! ([`Transfer::advance`]). A chunk that is dropped unsettled has changed nothing.
//!
//! The length may be unknown at first; [`Transfer::declare_length`] fixes it once. That all bytes are there is not
//! that the upload is complete: whether the one means the other is the dialect's to say.

use crate::{
    checksum::{Algorithm, Checksum, RunningChecksum},
    whole_hash::WholeHash,
};

/// Why a chunk is not taken. Nothing that was durable before is touched by a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the chunk starts at byte {claimed}, but {durable} bytes are stored; send on from byte {durable}"
    )]
    OffsetMismatch { claimed: u64, durable: u64 },
    #[error(
        "the chunk reaches past byte {length}, which was announced as the end of the upload; send at most {room} bytes from byte {offset}"
    )]
    BeyondLength { offset: u64, room: u64, length: u64 },
    #[error("the upload may have {limit} bytes at most; send at most {room} bytes from byte {offset}")]
    BeyondLimit { offset: u64, room: u64, limit: u64 },
    #[error("the length of the upload was announced as {known} bytes and cannot become {claimed}")]
    LengthChanged { known: u64, claimed: u64 },
    #[error("{durable} bytes are stored already, so the upload cannot have {claimed} bytes")]
    LengthBelowOffset { claimed: u64, durable: u64 },
    #[error(
        "the checksum that was announced for the end of the chunk did not come; none of its bytes was kept, send the chunk again from byte {durable}"
    )]
    ChecksumMissing { durable: u64 },
    #[error(
        "the {algorithm} checksum of the chunk does not fit its bytes; none of them was kept, send the chunk again from byte {durable}"
    )]
    ChecksumMismatch { algorithm: &'static str, durable: u64 },
}

/// A chunk as a client asks to send it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkRequest {
    pub offset: u64,
    /// Length of the body, where the client said it up front.
    pub body_len: Option<u64>,
    pub check: Check,
}

/// What the bytes of a chunk are compared with before they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    #[default]
    None,
    Announced(Checksum),
    /// The checksum comes behind the body, and its algorithm with it: [`BodyEnd::CompleteWith`].
    Trailing,
}

/// How the body of a chunk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The client sent all it wanted to send.
    Complete,
    /// And its checksum behind it.
    CompleteWith(Checksum),
    /// The connection broke, or another request took the upload over.
    Cut,
}

/// "The first `offset` bytes are received and hash to this."
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub offset: u64,
    pub hash: WholeHash,
}

/// What the end of a chunk means.
#[derive(Clone, Debug)]
pub enum Settled {
    /// Make this durable, then [`Transfer::advance`].
    Advance(Checkpoint),
    /// None of the bytes since the last checkpoint count: cut them off.
    Discard,
}

/// What is durable of one upload.
#[derive(Clone, Debug)]
pub struct Transfer {
    length: Option<u64>,
    /// The most bytes it may have, whatever its length turns out to be.
    limit: u64,
    durable: Checkpoint,
}

impl Transfer {
    /// `length` in bytes, `None` while its sender does not know it; `limit` is the most it may have.
    pub fn new(length: Option<u64>, limit: u64) -> Self {
        Self { length, limit, durable: Checkpoint { offset: 0, hash: WholeHash::new() } }
    }

    /// From a journal. `None` when the checkpoint lies beyond the length: such a journal is damaged.
    pub fn restore(length: Option<u64>, limit: u64, durable: Checkpoint) -> Option<Self> {
        length.is_none_or(|length| durable.offset <= length).then_some(Self { length, limit, durable })
    }

    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Number of bytes that are durable and counted.
    pub fn offset(&self) -> u64 {
        self.durable.offset
    }

    pub fn durable(&self) -> &Checkpoint {
        &self.durable
    }

    /// All bytes of the announced length are durable.
    pub fn is_whole(&self) -> bool {
        self.length == Some(self.durable.offset)
    }

    /// SHA-256 of the whole, once it is whole.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.is_whole().then(|| self.durable.hash.digest())
    }

    /// The sender knows the length now. It can be told again, not changed.
    pub fn declare_length(&mut self, claimed: u64) -> Result<(), Refusal> {
        let durable = self.durable.offset;
        match self.length {
            Some(known) if known != claimed => return Err(Refusal::LengthChanged { known, claimed }),
            Some(_) => return Ok(()),
            None => {}
        }
        if claimed < durable {
            return Err(Refusal::LengthBelowOffset { claimed, durable });
        }
        if claimed > self.limit {
            let room = self.limit.saturating_sub(durable);
            return Err(Refusal::BeyondLimit { offset: durable, room, limit: self.limit });
        }
        self.length = Some(claimed);
        Ok(())
    }

    pub fn begin_chunk(&self, request: &ChunkRequest) -> Result<Chunk, Refusal> {
        let durable = self.durable.offset;
        if request.offset != durable {
            return Err(Refusal::OffsetMismatch { claimed: request.offset, durable });
        }
        let chunk = Chunk {
            start: durable,
            end: durable,
            length: self.length,
            limit: self.limit,
            hash: self.durable.hash.clone(),
            check: RunningCheck::start(&request.check),
        };
        match request.body_len {
            Some(body_len) if body_len > chunk.room() => Err(chunk.overrun()),
            _ => Ok(chunk),
        }
    }

    /// The checkpoint is on disk: from now on it counts. Offsets never go down.
    pub fn advance(&mut self, checkpoint: Checkpoint) {
        debug_assert!(self.durable.offset <= checkpoint.offset);
        debug_assert!(self.length.is_none_or(|length| checkpoint.offset <= length));
        if checkpoint.offset >= self.durable.offset {
            self.durable = checkpoint;
        }
    }
}

enum RunningCheck {
    None,
    Announced {
        announced: Checksum,
        running: Box<RunningChecksum>,
    },
    /// Which algorithm it will be is told at the end: all of them run.
    Trailing(Vec<(Algorithm, RunningChecksum)>),
}

impl RunningCheck {
    fn start(check: &Check) -> Self {
        match check {
            Check::None => Self::None,
            Check::Announced(announced) => Self::Announced {
                running: Box::new(announced.algorithm().start()),
                announced: announced.clone(),
            },
            Check::Trailing => Self::Trailing(
                Algorithm::ALL.into_iter().map(|algorithm| (algorithm, algorithm.start())).collect(),
            ),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Announced { running, .. } => running.update(bytes),
            Self::Trailing(all) => all.iter_mut().for_each(|(_, running)| running.update(bytes)),
        }
    }

    /// What was announced and what the bytes turned out to have; `None` when nothing was announced after all.
    fn finish(self, trailer: Option<Checksum>) -> Option<(Checksum, Vec<u8>)> {
        match (self, trailer) {
            (Self::Announced { announced, running }, _) => Some((announced, running.digest())),
            (Self::Trailing(all), Some(announced)) => {
                let found = all.into_iter().find(|(algorithm, _)| *algorithm == announced.algorithm());
                found.map(|(_, running)| (announced, running.digest()))
            }
            (Self::None | Self::Trailing(_), _) => None,
        }
    }
}

/// A chunk on its way in.
pub struct Chunk {
    start: u64,
    end: u64,
    length: Option<u64>,
    limit: u64,
    hash: WholeHash,
    check: RunningCheck,
}

impl Chunk {
    /// Where the next byte belongs.
    pub fn position(&self) -> u64 {
        self.end
    }

    /// The next bytes, in order. On refusal none of them is taken.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.len() as u64 > self.room() {
            return Err(self.overrun());
        }
        self.hash.update(bytes);
        self.check.update(bytes);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// What may be made durable before the chunk ends. `None` while its checksum is not verified, and at the very end
    /// of the upload: whether the client wanted to send more than it announced is known only when the body ends.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let may_count = matches!(self.check, RunningCheck::None) && self.length != Some(self.end);
        may_count.then(|| Checkpoint { offset: self.end, hash: self.hash.clone() })
    }

    /// The body ended. A verified or unchecked chunk counts; one that was cut before its checksum could be verified
    /// does not, and one whose checksum is wrong or did not come is refused.
    pub fn settle(self, end: BodyEnd) -> Result<Settled, Refusal> {
        let checkpoint = Checkpoint { offset: self.end, hash: self.hash };
        let trailer = match (&self.check, end) {
            (RunningCheck::None, _) => return Ok(Settled::Advance(checkpoint)),
            (_, BodyEnd::Cut) => return Ok(Settled::Discard),
            (_, BodyEnd::Complete) => None,
            (_, BodyEnd::CompleteWith(checksum)) => Some(checksum),
        };
        match self.check.finish(trailer) {
            Some((announced, found)) if announced.digest() == found => Ok(Settled::Advance(checkpoint)),
            Some((announced, _)) => {
                let algorithm = announced.algorithm().as_str();
                Err(Refusal::ChecksumMismatch { algorithm, durable: self.start })
            }
            None => Err(Refusal::ChecksumMissing { durable: self.start }),
        }
    }

    fn room(&self) -> u64 {
        self.length.unwrap_or(self.limit).saturating_sub(self.end)
    }

    fn overrun(&self) -> Refusal {
        let (offset, end) = (self.start, self.length.unwrap_or(self.limit));
        let room = end.saturating_sub(offset);
        match self.length {
            Some(length) => Refusal::BeyondLength { offset, room, length },
            None => Refusal::BeyondLimit { offset, room, limit: self.limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BodyEnd, Check, ChunkRequest, Refusal, Settled, Transfer};
    use crate::{Algorithm, Checksum, WholeHash};
    use proptest::prelude::{any, prop, proptest};

    const LIMIT: u64 = 1 << 20;

    fn request(offset: u64) -> ChunkRequest {
        ChunkRequest { offset, ..ChunkRequest::default() }
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        let mut hash = WholeHash::new();
        hash.update(bytes);
        hash.digest()
    }

    #[test]
    fn a_wrong_offset_is_answered_with_the_right_one() {
        let refusal = Transfer::new(Some(10), LIMIT).begin_chunk(&request(4)).err();
        assert_eq!(refusal, Some(Refusal::OffsetMismatch { claimed: 4, durable: 0 }));
    }

    #[test]
    fn a_body_beyond_the_length_is_refused_up_front_when_its_length_is_told() {
        let transfer = Transfer::new(Some(10), LIMIT);
        let too_long = ChunkRequest { body_len: Some(11), ..request(0) };
        assert_eq!(
            transfer.begin_chunk(&too_long).err(),
            Some(Refusal::BeyondLength { offset: 0, room: 10, length: 10 })
        );
    }

    #[test]
    fn a_body_beyond_the_length_is_refused_where_it_overruns_and_is_not_whole_before() {
        let mut chunk = Transfer::new(Some(4), LIMIT).begin_chunk(&request(0)).unwrap();
        chunk.take(b"abcd").unwrap();
        assert!(chunk.checkpoint().is_none(), "the end is not known to be the end yet");
        assert!(chunk.take(b"e").is_err());
    }

    #[test]
    fn a_checked_chunk_counts_when_its_checksum_fits() {
        for algorithm in Algorithm::ALL {
            let mut transfer = Transfer::new(Some(3), LIMIT);
            let check = Check::Announced(Checksum::of(algorithm, b"abc"));
            let mut chunk = transfer.begin_chunk(&ChunkRequest { check, ..request(0) }).unwrap();
            chunk.take(b"abc").unwrap();
            let Ok(Settled::Advance(checkpoint)) = chunk.settle(BodyEnd::Complete) else { panic!("refused") };
            transfer.advance(checkpoint);
            assert_eq!(transfer.sha256(), Some(sha256(b"abc")));
        }
    }

    #[test]
    fn a_checked_chunk_with_other_bytes_counts_for_nothing() {
        let transfer = Transfer::new(Some(6), LIMIT);
        let check = Check::Announced(Checksum::of(Algorithm::Sha1, b"abc"));
        let mut chunk = transfer.begin_chunk(&ChunkRequest { check, ..request(0) }).unwrap();
        chunk.take(b"abd").unwrap();
        assert!(chunk.checkpoint().is_none(), "unverified bytes are never durable");
        assert_eq!(
            chunk.settle(BodyEnd::Complete).err(),
            Some(Refusal::ChecksumMismatch { algorithm: "sha1", durable: 0 })
        );
    }

    #[test]
    fn a_checked_chunk_that_is_cut_counts_for_nothing() {
        let check = Check::Announced(Checksum::of(Algorithm::Sha1, b"abc"));
        let mut chunk =
            Transfer::new(Some(6), LIMIT).begin_chunk(&ChunkRequest { check, ..request(0) }).unwrap();
        chunk.take(b"ab").unwrap();
        assert!(matches!(chunk.settle(BodyEnd::Cut), Ok(Settled::Discard)));
    }

    #[test]
    fn a_checksum_behind_the_body_is_compared_whatever_its_algorithm() {
        let trailing = ChunkRequest { check: Check::Trailing, ..request(0) };
        for algorithm in Algorithm::ALL {
            let begin = || {
                let mut chunk = Transfer::new(Some(6), LIMIT).begin_chunk(&trailing).unwrap();
                chunk.take(b"abc").unwrap();
                assert!(chunk.checkpoint().is_none(), "unverified bytes are never durable");
                chunk
            };
            let right = BodyEnd::CompleteWith(Checksum::of(algorithm, b"abc"));
            assert!(matches!(begin().settle(right), Ok(Settled::Advance(_))));
            let wrong = BodyEnd::CompleteWith(Checksum::of(algorithm, b"abd"));
            assert!(matches!(begin().settle(wrong), Err(Refusal::ChecksumMismatch { durable: 0, .. })));
            let none = begin().settle(BodyEnd::Complete).err();
            assert_eq!(none, Some(Refusal::ChecksumMissing { durable: 0 }));
        }
    }

    #[test]
    fn a_length_that_was_unknown_is_told_once() {
        let mut transfer = Transfer::new(None, 10);
        let mut chunk = transfer.begin_chunk(&request(0)).unwrap();
        chunk.take(b"abcd").unwrap();
        let Ok(Settled::Advance(checkpoint)) = chunk.settle(BodyEnd::Complete) else { panic!("refused") };
        transfer.advance(checkpoint);
        assert!(!transfer.is_whole());
        assert_eq!(transfer.declare_length(3), Err(Refusal::LengthBelowOffset { claimed: 3, durable: 4 }));
        assert_eq!(transfer.declare_length(11), Err(Refusal::BeyondLimit { offset: 4, room: 6, limit: 10 }));
        assert_eq!(transfer.declare_length(4), Ok(()));
        assert_eq!(transfer.declare_length(4), Ok(()), "again is fine");
        assert_eq!(transfer.declare_length(5), Err(Refusal::LengthChanged { known: 4, claimed: 5 }));
        assert_eq!(transfer.sha256(), Some(sha256(b"abcd")));
    }

    #[test]
    fn an_upload_of_unknown_length_ends_at_the_limit() {
        let transfer = Transfer::new(None, 4);
        let too_long = ChunkRequest { body_len: Some(5), ..request(0) };
        let refusal = Some(Refusal::BeyondLimit { offset: 0, room: 4, limit: 4 });
        assert_eq!(transfer.begin_chunk(&too_long).err(), refusal);
        let mut chunk = transfer.begin_chunk(&request(0)).unwrap();
        chunk.take(b"abcd").unwrap();
        assert_eq!(chunk.take(b"e").err(), refusal);
    }

    #[test]
    fn an_empty_upload_is_whole_from_the_start() {
        assert_eq!(Transfer::new(Some(0), LIMIT).sha256(), Some(sha256(b"")));
    }

    proptest! {
        /// However the bytes are cut into chunks, and wherever a chunk breaks off, the offset never goes down and the
        /// digest of the whole is the digest of the bytes.
        #[test]
        fn any_way_to_cut_it_gives_the_same_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec((1_usize..300, any::<bool>(), any::<bool>()), 1..50),
        ) {
            let mut transfer = Transfer::new(Some(bytes.len() as u64), LIMIT);
            let mut steps = cuts.iter().cycle();
            while !transfer.is_whole() {
                let (step, cut, checked) = *steps.next().unwrap();
                let cut = cut && !checked;
                let start = transfer.offset() as usize;
                let part = &bytes[start..bytes.len().min(start + step)];
                let check = if checked { Check::Announced(Checksum::of(Algorithm::Sha256, part)) } else { Check::None };
                let asked = ChunkRequest { offset: start as u64, body_len: Some(part.len() as u64), check };
                let mut chunk = transfer.begin_chunk(&asked).unwrap();
                for piece in part.chunks(7) {
                    chunk.take(piece).unwrap();
                }
                let end = if cut { BodyEnd::Cut } else { BodyEnd::Complete };
                if let Ok(Settled::Advance(checkpoint)) = chunk.settle(end) {
                    assert!(checkpoint.offset >= transfer.offset());
                    transfer.advance(checkpoint);
                }
            }
            assert_eq!(transfer.sha256(), Some(sha256(&bytes)));
        }
    }
}
