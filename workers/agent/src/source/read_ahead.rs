//! How much to fetch at once: little after a jump, more the longer a child reads on, and never more than a fixed part of
//! what it has read. So what is fetched in vain behind the end of a chunk stays a fixed part of the chunk. Pure.

use super::blocks::BLOCK_BYTES;
use reelyard_model::child::Job;

/// Fetched for the first read after a jump (32 KiB): an index entry, a small keyframe, a look at the last bytes.
const FIRST_BLOCKS: u64 = (32 << 10) / BLOCK_BYTES;
/// Fetched at once is at most this part of what was read in a row; about half of it is fetched in vain at the end of a
/// chunk, which together with the index and the first second of the film has to stay below a tenth.
const PART_OF_RUN: u64 = 32;
/// 4 MiB: beyond it the time to the first byte of a request no longer counts.
const MOST_BLOCKS: u64 = (4 << 20) / BLOCK_BYTES;
/// A job that reads to the end fetches nothing in vain by fetching much: 1 MiB from the first byte on.
const FIRST_BLOCKS_OF_WHOLE: u64 = (1 << 20) / BLOCK_BYTES;
/// A forward jump this short (256 KiB) is still the same reading: other tracks were passed over.
const SHORT_JUMP_BLOCKS: u64 = (256 << 10) / BLOCK_BYTES;
/// Places at which a demuxer reads in turn, when tracks lie in the file one after the other.
const MOST_RUNS: usize = 4;

/// What kind of reader a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// From the first byte to the last.
    Whole,
    /// Here and there, and stretches of it.
    Parts,
}

impl Habit {
    pub fn of(job: &Job) -> Self {
        match job {
            Job::Probe => Self::Whole,
            Job::Capabilities | Job::Encode { .. } | Job::Audio { .. } | Job::Stills { .. } => Self::Parts,
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
        let (window, early) = match self.habit {
            Habit::Whole => (run.blocks.clamp(FIRST_BLOCKS_OF_WHOLE, MOST_BLOCKS), true),
            Habit::Parts => ((run.blocks / PART_OF_RUN).clamp(FIRST_BLOCKS, MOST_BLOCKS), false),
        };
        Advice { run: run.id, given_up, window, early }
    }
}

#[cfg(test)]
mod tests {
    use super::{Habit, MOST_BLOCKS, ReadAhead};

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
