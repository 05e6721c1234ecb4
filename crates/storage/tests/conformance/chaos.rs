//! Anything at any moment: chunks of any size, cut, dropped, with wrong checksums, a process that dies, an S3 that
//! fails. What was told to be durable is there afterwards, and the whole is what was sent.

use crate::bench::{Bench, MIB, at, collected, noise, sha256};
use bytes::Bytes;
use reelyard_storage::source_key;
use reelyard_upload::{Algorithm, BodyEnd, Check, Checksum, ChunkRequest};

crate::cases!(nothing_that_was_told_to_be_durable_is_ever_lost);

/// Whole uploads, each from another seed.
const UPLOADS: u64 = 12;

/// xorshift: enough to vary, and the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

async fn nothing_that_was_told_to_be_durable_is_ever_lost(mut bench: Bench) {
    for seed in 1..=UPLOADS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let byte_len = 1 + dice.below(4 * MIB);
        let bytes = noise(byte_len);
        let length = Some(byte_len as u64);
        make_trouble(&mut bench, seed);
        let upload = bench.new_upload(length).await;
        let mut told = 0;
        loop {
            let open = bench.store.open_upload(upload, bench.terms(length)).await.unwrap();
            let offset = open.transfer().offset() as usize;
            assert!(offset >= told, "seed {seed}: {told} bytes were told to be durable, {offset} are");
            if offset == byte_len {
                assert_eq!(open.transfer().sha256(), Some(sha256(&bytes)), "seed {seed}");
                break;
            }
            let chunk = &bytes[offset..byte_len.min(offset + 1 + dice.below(MIB))];
            let is_wrong = dice.below(8) == 0;
            let check = match dice.below(3) {
                _ if is_wrong => Check::Announced(Checksum::of(Algorithm::Sha256, b"something else")),
                0 => Check::Announced(Checksum::of(Algorithm::Sha256, chunk)),
                _ => Check::None,
            };
            let mut receiving = open.begin(&ChunkRequest { check, ..at(offset) }).unwrap();
            let pieces = chunk.chunks(1 + dice.below(200_000));
            let sent = dice.below(pieces.len() + 1);
            for piece in pieces.take(sent) {
                receiving.write(vec![Bytes::copy_from_slice(piece)]).await.unwrap();
            }
            told = receiving.durable_offset() as usize;
            match dice.below(5) {
                0 => drop(receiving),
                1 => {
                    drop(receiving);
                    bench.crash().await;
                }
                // Only bodies that are complete end so, but a checksum tells the others.
                2 => told = receiving.end(BodyEnd::Complete).await.0 as usize,
                _ => told = receiving.end(BodyEnd::Cut).await.0 as usize,
            }
        }
        bench.store.finish_upload(upload, byte_len as u64).await.unwrap();
        let key = source_key(upload);
        for assembled in [false, true] {
            let read = bench.store.read_source(&key, 0..byte_len as u64).await.unwrap();
            assert!(collected(read).await == bytes, "seed {seed}, {assembled}: other bytes than were sent");
            bench.store.assemble_source(&key).await.unwrap();
            bench.store.forget_upload(upload).await.unwrap();
        }
    }
}

/// Where there is a network.
fn make_trouble(_bench: &mut Bench, _seed: u64) {
    #[cfg(feature = "s3")]
    if let crate::bench::Keeper::S3(place) = &_bench.keeper {
        use reelyard_testkit::{Fault, Plan};
        place.proxy.set_plan(Plan {
            seed: _seed,
            per_thousand: vec![
                (40, Fault::SlowDown),
                (30, Fault::CutBefore),
                (50, Fault::LostReply),
                (30, Fault::HalfReply),
            ],
            methods: Vec::new(),
        });
    }
}
