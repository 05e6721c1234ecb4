//! Bytes that wait for their object: kept as the pieces they came in, sent from there without another copy.

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

/// A piece below this is copied to its neighbours: what a piece takes beside its bytes would count otherwise.
const SMALL_PIECE_BYTES: usize = 4 << 10;
/// Small ones are gathered into blocks of this size.
const BLOCK_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Pieces {
    whole: Vec<Bytes>,
    /// Small pieces behind all of `whole`.
    block: BytesMut,
    byte_len: u64,
    crc32c: u32,
}

impl Pieces {
    pub(crate) fn byte_len(&self) -> u64 {
        self.byte_len
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        self.byte_len += piece.len() as u64;
        if piece.len() >= SMALL_PIECE_BYTES {
            self.close_block();
            self.whole.push(piece);
            return;
        }
        if self.block.len() + piece.len() > BLOCK_BYTES {
            self.close_block();
        }
        self.block.extend_from_slice(&piece);
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            self.whole.push(mem::take(&mut self.block).freeze());
        }
    }

    /// What can be sent, any number of times.
    pub(crate) fn finish(mut self) -> Sendable {
        self.close_block();
        Sendable { pieces: self.whole, byte_len: self.byte_len, crc32c: self.crc32c }
    }
}

/// Bytes of one object. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sendable {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) byte_len: u64,
    pub(crate) crc32c: u32,
}

impl Sendable {
    pub(crate) fn empty() -> Self {
        Pieces::default().finish()
    }

    /// These behind those of `self`. The checksum of both comes from the checksums of each, without another look.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        self.crc32c = crc32c::crc32c_combine(self.crc32c, other.crc32c, other.byte_len as usize);
        self.byte_len += other.byte_len;
        self.pieces.extend(other.pieces);
        self
    }

    pub(crate) fn body(&self) -> PiecesBody {
        PiecesBody { rest: self.pieces.clone().into(), byte_len: self.byte_len }
    }
}

impl From<Bytes> for Sendable {
    fn from(bytes: Bytes) -> Self {
        let mut pieces = Pieces::default();
        pieces.push(bytes);
        pieces.finish()
    }
}

/// The body of a request.
pub(crate) struct PiecesBody {
    rest: VecDeque<Bytes>,
    byte_len: u64,
}

impl Body for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.rest.pop_front();
        self.byte_len -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.byte_len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Pieces, SMALL_PIECE_BYTES, Sendable};
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};

    fn of(pieces: &[Vec<u8>]) -> Sendable {
        let mut gathered = Pieces::default();
        pieces.iter().for_each(|piece| gathered.push(Bytes::copy_from_slice(piece)));
        gathered.finish()
    }

    #[test]
    fn small_pieces_become_few() {
        let sendable = of(&vec![vec![1]; 10_000]);
        assert_eq!((sendable.pieces.len(), sendable.byte_len), (1, 10_000));
    }

    proptest! {
        #[test]
        fn order_length_and_checksum_are_those_of_the_bytes(
            first in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2 * SMALL_PIECE_BYTES), 0..8),
            second in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2 * SMALL_PIECE_BYTES), 0..8),
        ) {
            let bytes = [first.concat(), second.concat()].concat();
            let both = of(&first).followed_by(of(&second));
            assert_eq!(both.pieces.concat(), bytes);
            assert_eq!(both.byte_len, bytes.len() as u64);
            assert_eq!(both.crc32c, crc32c::crc32c(&bytes));
        }
    }
}
