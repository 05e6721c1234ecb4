//! What is durable of one upload, and the decisions on what comes next.
//!
//! A [`Transfer`] is what the journal says. A request is shown to [`Transfer::begin_chunk`], which refuses it or gives
//! a [`Chunk`]; the caller shows the chunk every byte before writing it, may make a checkpoint on the way
//! ([`Chunk::checkpoint`]), and settles it when the body ends ([`Chunk::settle`]). A [`Checkpoint`] says "so many
//! bytes, with this hash state": the caller makes it durable first and tells the transfer afterwards
//! ([`Transfer::advance`]). A chunk that is dropped unsettled has changed nothing.

use crate::{
    checksum::{Checksum, RunningChecksum},
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
    pub checksum: Option<Checksum>,
}

/// How the body of a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The client sent all it wanted to send.
    Complete,
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
    length: u64,
    durable: Checkpoint,
}

impl Transfer {
    pub fn new(length: u64) -> Self {
        Self { length, durable: Checkpoint { offset: 0, hash: WholeHash::new() } }
    }

    /// From a journal. `None` when the checkpoint lies beyond the length: such a journal is damaged.
    pub fn restore(length: u64, durable: Checkpoint) -> Option<Self> {
        (durable.offset <= length).then_some(Self { length, durable })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Number of bytes that are durable and counted.
    pub fn offset(&self) -> u64 {
        self.durable.offset
    }

    pub fn durable(&self) -> &Checkpoint {
        &self.durable
    }

    pub fn is_whole(&self) -> bool {
        self.durable.offset == self.length
    }

    /// SHA-256 of the whole, once it is whole.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.is_whole().then(|| self.durable.hash.digest())
    }

    pub fn begin_chunk(&self, request: &ChunkRequest) -> Result<Chunk, Refusal> {
        let durable = self.durable.offset;
        if request.offset != durable {
            return Err(Refusal::OffsetMismatch { claimed: request.offset, durable });
        }
        let room = self.length - durable;
        if request.body_len.is_some_and(|body_len| body_len > room) {
            return Err(Refusal::BeyondLength { offset: durable, room, length: self.length });
        }
        let check = request
            .checksum
            .as_ref()
            .map(|announced| Check { running: announced.algorithm().start(), announced: announced.clone() });
        Ok(Chunk {
            start: durable,
            end: durable,
            length: self.length,
            hash: self.durable.hash.clone(),
            check,
        })
    }

    /// The checkpoint is on disk: from now on it counts. Offsets never go down.
    pub fn advance(&mut self, checkpoint: Checkpoint) {
        debug_assert!(self.durable.offset <= checkpoint.offset && checkpoint.offset <= self.length);
        if checkpoint.offset >= self.durable.offset {
            self.durable = checkpoint;
        }
    }
}

#[derive(Clone)]
struct Check {
    announced: Checksum,
    running: RunningChecksum,
}

/// A chunk on its way in.
pub struct Chunk {
    start: u64,
    end: u64,
    length: u64,
    hash: WholeHash,
    check: Option<Check>,
}

impl Chunk {
    /// Where the next byte belongs.
    pub fn position(&self) -> u64 {
        self.end
    }

    /// The next bytes, in order. On refusal none of them is taken.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let room = self.length - self.end;
        let byte_len = bytes.len() as u64;
        if byte_len > room {
            return Err(Refusal::BeyondLength {
                offset: self.start,
                room: self.length - self.start,
                length: self.length,
            });
        }
        self.hash.update(bytes);
        if let Some(check) = &mut self.check {
            check.running.update(bytes);
        }
        self.end += byte_len;
        Ok(())
    }

    /// What may be made durable before the chunk ends. `None` while its checksum is not verified, and at the very end
    /// of the upload: whether the client wanted to send more than it announced is known only when the body ends.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let may_count = self.check.is_none() && self.end < self.length;
        may_count.then(|| Checkpoint { offset: self.end, hash: self.hash.clone() })
    }

    /// The body ended. A verified or unchecked chunk counts; one that was cut before its checksum could be verified
    /// does not, and one whose checksum is wrong is refused.
    pub fn settle(self, end: BodyEnd) -> Result<Settled, Refusal> {
        let checkpoint = Checkpoint { offset: self.end, hash: self.hash };
        match (self.check, end) {
            (None, _) => Ok(Settled::Advance(checkpoint)),
            (Some(_), BodyEnd::Cut) => Ok(Settled::Discard),
            (Some(check), BodyEnd::Complete) => {
                if check.running.digest() == check.announced.digest() {
                    Ok(Settled::Advance(checkpoint))
                } else {
                    let algorithm = check.announced.algorithm().as_str();
                    Err(Refusal::ChecksumMismatch { algorithm, durable: self.start })
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BodyEnd, ChunkRequest, Refusal, Settled, Transfer};
    use crate::{Algorithm, Checksum, WholeHash};
    use proptest::prelude::{any, prop, proptest};

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
        let refusal = Transfer::new(10).begin_chunk(&request(4)).err();
        assert_eq!(refusal, Some(Refusal::OffsetMismatch { claimed: 4, durable: 0 }));
    }

    #[test]
    fn a_body_beyond_the_length_is_refused_up_front_when_its_length_is_told() {
        let transfer = Transfer::new(10);
        let too_long = ChunkRequest { body_len: Some(11), ..request(0) };
        assert_eq!(
            transfer.begin_chunk(&too_long).err(),
            Some(Refusal::BeyondLength { offset: 0, room: 10, length: 10 })
        );
    }

    #[test]
    fn a_body_beyond_the_length_is_refused_where_it_overruns_and_is_not_whole_before() {
        let mut chunk = Transfer::new(4).begin_chunk(&request(0)).unwrap();
        chunk.take(b"abcd").unwrap();
        assert!(chunk.checkpoint().is_none(), "the end is not known to be the end yet");
        assert!(chunk.take(b"e").is_err());
    }

    #[test]
    fn a_checked_chunk_counts_when_its_checksum_fits() {
        for algorithm in Algorithm::ALL {
            let mut transfer = Transfer::new(3);
            let checksum = Some(Checksum::of(algorithm, b"abc"));
            let mut chunk = transfer.begin_chunk(&ChunkRequest { checksum, ..request(0) }).unwrap();
            chunk.take(b"abc").unwrap();
            let Ok(Settled::Advance(checkpoint)) = chunk.settle(BodyEnd::Complete) else { panic!("refused") };
            transfer.advance(checkpoint);
            assert_eq!(transfer.sha256(), Some(sha256(b"abc")));
        }
    }

    #[test]
    fn a_checked_chunk_with_other_bytes_counts_for_nothing() {
        let transfer = Transfer::new(6);
        let checksum = Some(Checksum::of(Algorithm::Sha1, b"abc"));
        let mut chunk = transfer.begin_chunk(&ChunkRequest { checksum, ..request(0) }).unwrap();
        chunk.take(b"abd").unwrap();
        assert!(chunk.checkpoint().is_none(), "unverified bytes are never durable");
        assert_eq!(
            chunk.settle(BodyEnd::Complete).err(),
            Some(Refusal::ChecksumMismatch { algorithm: "sha1", durable: 0 })
        );
    }

    #[test]
    fn a_checked_chunk_that_is_cut_counts_for_nothing() {
        let checksum = Some(Checksum::of(Algorithm::Sha1, b"abc"));
        let mut chunk = Transfer::new(6).begin_chunk(&ChunkRequest { checksum, ..request(0) }).unwrap();
        chunk.take(b"ab").unwrap();
        assert!(matches!(chunk.settle(BodyEnd::Cut), Ok(Settled::Discard)));
    }

    #[test]
    fn an_empty_upload_is_whole_from_the_start() {
        assert_eq!(Transfer::new(0).sha256(), Some(sha256(b"")));
    }

    proptest! {
        /// However the bytes are cut into chunks, and wherever a chunk breaks off, the offset never goes down and the
        /// digest of the whole is the digest of the bytes.
        #[test]
        fn any_way_to_cut_it_gives_the_same_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec((1_usize..300, any::<bool>(), any::<bool>()), 1..50),
        ) {
            let mut transfer = Transfer::new(bytes.len() as u64);
            let mut steps = cuts.iter().cycle();
            while !transfer.is_whole() {
                let (step, cut, checked) = *steps.next().unwrap();
                let cut = cut && !checked;
                let start = transfer.offset() as usize;
                let part = &bytes[start..bytes.len().min(start + step)];
                let checksum = checked.then(|| Checksum::of(Algorithm::Sha256, part));
                let asked = ChunkRequest { offset: start as u64, body_len: Some(part.len() as u64), checksum };
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
