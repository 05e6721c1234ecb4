//! Which tier is next: urgent before normal before bulk, but none of them waits for ever. Pure.

use reelyard_model::Tier;

/// A tier that has something is passed over at most so many times in a row (by rank). Under a flood of urgent tickets
/// normal ones get about one turn in five, and bulk ones one in nine.
const PASSED_OVER_AT_MOST: [u32; 3] = [0, 4, 8];

#[derive(Debug, Default)]
pub(crate) struct Turns {
    passed_over: [u32; 3],
}

impl Turns {
    /// Among the tiers that are `ready` (by rank); `None`: none is.
    pub(crate) fn next(&mut self, ready: [bool; 3]) -> Option<Tier> {
        let waited_enough = (1..ready.len())
            .rev()
            .find(|rank| ready[*rank] && self.passed_over[*rank] >= PASSED_OVER_AT_MOST[*rank]);
        let chosen = waited_enough.or_else(|| ready.iter().position(|ready| *ready))?;
        for (rank, count) in self.passed_over.iter_mut().enumerate() {
            *count = if rank != chosen && ready[rank] { *count + 1 } else { 0 };
        }
        Tier::ALL.get(chosen).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(ready: [bool; 3], count: usize) -> String {
        let mut turns = Turns::default();
        (0..count).map(|_| turns.next(ready).map_or("-", |tier| &tier.as_str()[..1])).collect()
    }

    #[test]
    fn urgent_comes_first_and_every_tier_gets_its_turn() {
        assert_eq!(turns([true; 3], 20), "uuuunuuubnuuuunuubun");
        assert_eq!(turns([false, true, true], 10), "nnnnnnnnbn");
        assert_eq!(turns([true, false, true], 10), "uuuuuuuubu");
    }

    #[test]
    fn alone_a_tier_is_served_at_once() {
        assert_eq!(turns([false, false, true], 3), "bbb");
        assert_eq!(turns([false, true, false], 3), "nnn");
        assert_eq!(turns([false; 3], 1), "-");
    }
}
