//! The engines, against the simplest model of them: a file is a list of bytes.
//!
//! The input is a script of requests, right and wrong, whole and cut. Whatever it says, the offset never goes down, what
//! counts is what the model has, and a whole has the digest of the bytes.

use reelyard_upload::{
    Algorithm, BodyEnd, Check, Checksum, ChunkRequest, Settled, Transfer,
    parts::{PartRequest, PartSet, PartSettled},
};
use sha2::{Digest, Sha256};

const LENGTH: usize = 200;

/// Reads the script byte by byte; an exhausted one gives zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }
}

pub(crate) fn bodies(bytes: &[u8]) {
    let mut script = Script(bytes);
    let file: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + 3) as u8).collect();
    if script.next().is_multiple_of(2) { in_order(&mut script, &file) } else { in_parts(&mut script, &file) }
}

fn in_order(script: &mut Script<'_>, file: &[u8]) {
    let deferred = script.next().is_multiple_of(2);
    let mut transfer = Transfer::new((!deferred).then_some(LENGTH as u64), 1000);
    while !script.0.is_empty() && !transfer.is_whole() {
        let durable = transfer.offset() as usize;
        let wrong_by = script.next() % 4;
        let offset = durable + if wrong_by == 3 { 1 } else { 0 };
        let end = LENGTH.min(durable + script.next());
        let body = &file[durable..end];
        let algorithm = Algorithm::ALL[script.next() % Algorithm::ALL.len()];
        let good = Checksum::of(algorithm, body);
        let bad = Checksum::of(algorithm, b"something else entirely");
        let mode = script.next() % 5;
        let check = match mode {
            1 => Check::Announced(good.clone()),
            2 => Check::Announced(bad.clone()),
            3 | 4 => Check::Trailing,
            _ => Check::None,
        };
        let request = ChunkRequest { offset: offset as u64, body_len: Some(body.len() as u64), check };
        let Ok(mut chunk) = transfer.begin_chunk(&request) else {
            assert_ne!(offset, durable, "a right request is refused");
            continue;
        };
        for piece in body.chunks(1 + script.next() % 50) {
            chunk.take(piece).expect("inside the length");
            if let Some(checkpoint) = chunk.checkpoint().filter(|_| script.next().is_multiple_of(3)) {
                assert_eq!(mode, 0, "unverified bytes never count");
                transfer.advance(checkpoint);
            }
        }
        let end_of_body = match (script.next() % 4, mode) {
            (0, _) => BodyEnd::Cut,
            (_, 3) => BodyEnd::CompleteWith(good),
            (_, 4) => BodyEnd::CompleteWith(bad),
            _ => BodyEnd::Complete,
        };
        if let Ok(Settled::Advance(checkpoint)) = chunk.settle(end_of_body.clone()) {
            assert!(mode == 0 || (end_of_body != BodyEnd::Cut && matches!(mode, 1 | 3)));
            transfer.advance(checkpoint);
        }
        assert!(transfer.offset() as usize >= durable, "offsets never go down");
        if deferred && transfer.offset() as usize == LENGTH {
            transfer.declare_length(LENGTH as u64).expect("the true length");
        }
    }
    if let Some(sha256) = transfer.sha256() {
        assert_eq!(sha256[..], Sha256::digest(file)[..]);
    }
}

fn in_parts(script: &mut Script<'_>, file: &[u8]) {
    let mut set = PartSet::new(LENGTH as u64);
    let mut model: Vec<Option<u32>> = vec![None; LENGTH];
    while !script.0.is_empty() {
        let number = 1 + (script.next() % 12) as u32;
        let start = script.next() % LENGTH;
        let end = start + 1 + script.next() % (LENGTH - start);
        let request = PartRequest { number, range: start as u64..end as u64, check: Check::None };
        let Ok(mut chunk) = set.begin(&request) else { continue };
        let whole = !script.next().is_multiple_of(4);
        let body = &file[start..if whole { end } else { start + (end - start) / 2 }];
        let taken = body.chunks(1 + script.next() % 50).try_for_each(|piece| chunk.take(piece));
        let complete = BodyEnd::Complete;
        match taken.and_then(|()| chunk.settle(if whole { &complete } else { &BodyEnd::Cut })) {
            Ok(PartSettled::Store(part)) => {
                assert!(whole);
                assert!(
                    model[start..end].iter().all(Option::is_none),
                    "nothing is stored over something else"
                );
                set.insert(part).expect("it was admitted");
                model[start..end].fill(Some(number));
            }
            _ => set.give_up(number),
        }
        let stored = model.iter().filter(|owner| owner.is_some()).count();
        assert_eq!(set.durable_bytes() as usize, stored);
        let contiguous = model.iter().take_while(|owner| owner.is_some()).count();
        assert_eq!(set.contiguous() as usize, contiguous);
        assert_eq!(set.is_whole(), stored == LENGTH);
    }
}
