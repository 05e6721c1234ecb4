//! How much to fetch at once: little after a jump, more the longer a child reads on, and never more than a fixed part of
//! what it has read; so what is fetched in vain is a fixed part of that too. Where the plan says in which bytes a chunk
//! lies, these are fetched in large pieces, up to its end. Pure.

use super::blocks::BLOCK_BYTES;
use reelyard_model::child::Job;
use std::ops::Range;

/// Fetched for the first read after a jump (32 KiB): an index entry, a small keyframe, a look at the last bytes.
const FIRST_BLOCKS: u64 = (32 << 10) / BLOCK_BYTES;
/// The same where each jump is to a keyframe of which all is read (128 KiB): one request for most of them.
const FIRST_BLOCKS_OF_STILL: u64 = (128 << 10) / BLOCK_BYTES;
/// The same where it is known that there is more to come (1 MiB).
const FIRST_BLOCKS_OF_WHOLE: u64 = (1 << 20) / BLOCK_BYTES;
/// Behind the end of a chunk lies a keyframe that its last pictures may need (64 KiB at a time).
const BLOCKS_BEHIND_END: u64 = (64 << 10) / BLOCK_BYTES;
/// Fetched at once is at most this part of what was read in a row; about half of it is fetched in vain at the end of a
/// chunk, which together with the index and the first second of the film has to stay below a tenth.
const PART_OF_RUN: u64 = 32;
/// Sound that lies between pictures is read with them to the end of the file: more at once, for fewer requests.
const PART_OF_RUN_OF_SOUND: u64 = 4;
/// 4 MiB: beyond it the time to the first byte of a request no longer counts.
const MOST_BLOCKS: u64 = (4 << 20) / BLOCK_BYTES;
/// A forward jump this short (256 KiB) is still the same reading: other tracks were passed over.
const SHORT_JUMP_BLOCKS: u64 = (256 << 10) / BLOCK_BYTES;
/// Places at which a demuxer reads in turn, when tracks lie in the file one after the other.
const MOST_RUNS: usize = 4;

/// What kind of reader a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Habit {
    /// From the first byte to the last.
    Whole,
    /// Here and there; and these bytes, most likely all of them.
    Chunk(Range<u64>),
    /// Here and there, and stretches of it.
    Parts,
    /// From the beginning on, perhaps with jumps.
    Sound,
    /// A little at many places.
    Stills,
}

impl Habit {
    pub fn of(job: &Job) -> Self {
        match job {
            Job::Probe => Self::Whole,
            Job::Encode { chunk, .. } => match (chunk.start_byte, chunk.end_byte) {
                (Some(start), Some(end)) if start < end => Self::Chunk(start..end),
                // The last one, or the only one: up to the end of the source, where fetching ends anyway.
                (Some(start), None) if chunk.end_pts.is_none() => Self::Chunk(start..u64::MAX),
                (None, None) if chunk.end_pts.is_none() && chunk.index == 0 => Self::Chunk(0..u64::MAX),
                _ => Self::Parts,
            },
            Job::Audio { .. } => Self::Sound,
            Job::Stills { .. } => Self::Stills,
            Job::Capabilities => Self::Parts,
        }
    }

    /// Blocks to fetch for a read of this block, after so many in a row, and whether to fetch the next ones before
    /// somebody waits for them.
    fn window(&self, block: u64, blocks_in_a_row: u64) -> (u64, bool) {
        let part = |part: u64, first: u64| (blocks_in_a_row / part).clamp(first, MOST_BLOCKS);
        match self {
            Self::Whole => (part(1, FIRST_BLOCKS_OF_WHOLE), true),
            Self::Chunk(bytes) => {
                let blocks = bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES);
                if blocks.contains(&block) {
                    (part(1, FIRST_BLOCKS_OF_WHOLE), true)
                } else if block >= blocks.end {
                    (BLOCKS_BEHIND_END, false)
                } else {
                    (part(PART_OF_RUN, FIRST_BLOCKS), false)
                }
            }
            Self::Parts => (part(PART_OF_RUN, FIRST_BLOCKS), false),
            Self::Sound => (part(PART_OF_RUN_OF_SOUND, FIRST_BLOCKS), true),
            Self::Stills => (part(PART_OF_RUN, FIRST_BLOCKS_OF_STILL), false),
        }
    }

    /// Where to stop fetching ahead.
    fn expected_end(&self) -> u64 {
        match self {
            Self::Chunk(bytes) => bytes.end.div_ceil(BLOCK_BYTES),
            _ => u64::MAX,
        }
    }
}

/// Reading at one place, forward.
#[derive(Clone, Copy, Debug)]
struct Run {
    id: u64,
    /// The block after the one read last.
    next: u64,
    /// How many were read in a row.
    blocks: u64,
    last_read: u64,
}

/// What to do for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// The stretch of forward reading that it belongs to.
    pub(super) run: u64,
    /// A stretch that is given up for this one: nobody reads there any more.
    pub(super) given_up: Option<u64>,
    /// Blocks worth fetching from here on.
    pub(super) window: u64,
    /// Whether to fetch the next window before somebody waits for it.
    pub(super) early: bool,
}

pub(super) struct ReadAhead {
    habit: Habit,
    clock: u64,
    runs: Vec<Run>,
}

impl ReadAhead {
    pub(super) fn new(habit: Habit) -> Self {
        Self { habit, clock: 0, runs: Vec::new() }
    }

    /// The blocks from here on that are expected to be read, at most so many.
    pub(super) fn expected_from(&self, block: u64, window: u64) -> Range<u64> {
        block..block.saturating_add(window).min(self.habit.expected_end().max(block))
    }

    pub(super) fn read(&mut self, block: u64) -> Advice {
        self.clock += 1;
        let clock = self.clock;
        let goes_on = |run: &&mut Run| {
            (run.next.saturating_sub(1)..=run.next.saturating_add(SHORT_JUMP_BLOCKS)).contains(&block)
        };
        if let Some(run) = self.runs.iter_mut().find(goes_on) {
            run.blocks += u64::from(block >= run.next);
            run.next = block + 1;
            run.last_read = clock;
            let run = *run;
            return self.advice(run, None);
        }
        let given_up = if self.runs.len() == MOST_RUNS {
            let oldest = (0..MOST_RUNS).min_by_key(|place| self.runs[*place].last_read).unwrap_or(0);
            Some(self.runs.swap_remove(oldest).id)
        } else {
            None
        };
        let run = Run { id: clock, next: block + 1, blocks: 1, last_read: clock };
        self.runs.push(run);
        self.advice(run, given_up)
    }

    fn advice(&self, run: Run, given_up: Option<u64>) -> Advice {
        let (window, early) = self.habit.window(run.next - 1, run.blocks);
        Advice { run: run.id, given_up, window, early }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Habit, MOST_BLOCKS, ReadAhead};

    /// Blocks fetched when these are read one after the other, each window where the one before ends.
    fn fetched(ahead: &mut ReadAhead, blocks: std::ops::Range<u64>) -> u64 {
        let (start, mut end) = (blocks.start, blocks.start);
        for block in blocks {
            let advice = ahead.read(block);
            if block >= end {
                end = block + advice.window;
            }
        }
        end - start
    }

    #[test]
    fn what_is_fetched_in_vain_is_a_small_part_of_what_was_read() {
        for length in [1, 2, 10, 33, 100, 1000, 10_000] {
            let fetched = fetched(&mut ReadAhead::new(Habit::Parts), 500..500 + length);
            let in_vain = fetched - length;
            assert!(in_vain <= 1 + length / 32, "{in_vain} blocks beyond {length}");
        }
    }

    #[test]
    fn long_readings_are_fetched_in_long_pieces() {
        let mut ahead = ReadAhead::new(Habit::Parts);
        fetched(&mut ahead, 0..10_000);
        assert_eq!(ahead.read(10_000).window, MOST_BLOCKS);
        assert_eq!(ahead.read(0).window, 2, "after a jump it begins anew");
        assert_eq!(ahead.read(10_001).window, MOST_BLOCKS, "and back again it goes on");
    }

    #[test]
    fn a_job_that_reads_everything_begins_with_much() {
        assert_eq!(ReadAhead::new(Habit::Whole).read(0).window, 64);
    }

    #[test]
    fn a_chunk_is_fetched_in_large_pieces_and_not_beyond_its_end() {
        let mut ahead = ReadAhead::new(Habit::Chunk(1000 * BLOCK_BYTES + 7..1300 * BLOCK_BYTES - 7));
        assert_eq!(ahead.read(0).window, 2, "the index is elsewhere");
        let advice = ahead.read(1000);
        assert_eq!((advice.window, advice.early), (64, true));
        assert_eq!(ahead.expected_from(1290, 100), 1290..1300, "the next piece ends there too");
        assert!(ahead.expected_from(1300, 100).is_empty());
        assert_eq!(ahead.read(1300).window, 4, "a keyframe lies behind it");
    }

    #[test]
    fn tracks_that_lie_apart_are_read_side_by_side() {
        let mut ahead = ReadAhead::new(Habit::Parts);
        let (mut one, mut other) = (0, 0);
        for step in 0..200 {
            one = ahead.read(step).window;
            other = ahead.read(10_000 + step).window;
        }
        assert_eq!((one, other), (6, 6));
    }

    #[test]
    fn the_place_that_was_left_longest_ago_is_given_up() {
        let mut ahead = ReadAhead::new(Habit::Parts);
        let first = ahead.read(0).run;
        for place in 1..4 {
            assert_eq!(ahead.read(place * 1000).given_up, None);
        }
        assert_eq!(ahead.read(50_000).given_up, Some(first));
    }
}
