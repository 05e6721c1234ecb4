//! Which blocks are at hand, and which go first when there is no room: bookkeeping only, no bytes are moved here.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

/// What is cached, and the unit of fetching. Small, because with every jump of a demuxer some of a block is fetched that
/// nobody reads.
pub(super) const BLOCK_BYTES: u64 = 16 << 10;

/// The source by its key and length, and the number of the block in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockId {
    pub(super) source: Arc<str>,
    pub(super) number: u64,
}

/// The bytes of these blocks in a source of this length; the last block is short.
pub(super) fn bytes_of(blocks: &Range<u64>, byte_len: u64) -> Range<u64> {
    let at = |number: u64| number.saturating_mul(BLOCK_BYTES).min(byte_len);
    at(blocks.start)..at(blocks.end)
}

/// A bounded map that forgets what was not looked at for longest.
pub(super) struct Recent<V> {
    most: usize,
    clock: u64,
    entries: HashMap<BlockId, (u64, V)>,
    by_age: BTreeMap<u64, BlockId>,
}

impl<V> Recent<V> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() }
    }

    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.entries.contains_key(id)
    }

    /// Looking at it makes it young again.
    pub(super) fn get(&mut self, id: &BlockId) -> Option<&V> {
        let (looked_at, value) = self.entries.get_mut(id)?;
        self.clock += 1;
        self.by_age.remove(looked_at);
        self.by_age.insert(self.clock, id.clone());
        *looked_at = self.clock;
        Some(value)
    }

    /// What had to make room for it, if anything. With no room at all it is the new one itself.
    pub(super) fn insert(&mut self, id: BlockId, value: V) -> Option<V> {
        let replaced = self.remove(&id);
        self.clock += 1;
        self.by_age.insert(self.clock, id.clone());
        self.entries.insert(id, (self.clock, value));
        if self.entries.len() > self.most { self.remove_oldest() } else { replaced }
    }

    pub(super) fn remove(&mut self, id: &BlockId) -> Option<V> {
        let (looked_at, value) = self.entries.remove(id)?;
        self.by_age.remove(&looked_at);
        Some(value)
    }

    pub(super) fn remove_oldest(&mut self) -> Option<V> {
        let (_, id) = self.by_age.pop_first()?;
        self.entries.remove(&id).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, BlockId, Recent, bytes_of};

    fn id(number: u64) -> BlockId {
        BlockId { source: "sources/one".into(), number }
    }

    #[test]
    fn what_was_not_looked_at_for_longest_makes_room() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.insert(id(1), 'a'), None);
        assert_eq!(recent.insert(id(2), 'b'), None);
        assert_eq!(recent.get(&id(1)), Some(&'a'));
        assert_eq!(recent.insert(id(3), 'c'), Some('b'));
        assert!(recent.contains(&id(1)) && recent.contains(&id(3)) && !recent.contains(&id(2)));
        assert_eq!(recent.insert(id(3), 'd'), Some('c'), "the same block again takes no room");
        assert_eq!(recent.remove_oldest(), Some('a'));
        assert_eq!(recent.remove(&id(3)), Some('d'));
        assert_eq!(recent.remove_oldest(), None);
    }

    #[test]
    fn blocks_of_two_sources_are_not_confused() {
        let mut recent = Recent::new(2);
        recent.insert(id(1), 'a');
        assert!(!recent.contains(&BlockId { source: "sources/two".into(), number: 1 }));
    }

    #[test]
    fn without_room_nothing_stays() {
        let mut recent = Recent::new(0);
        assert_eq!(recent.insert(id(1), 'a'), Some('a'));
        assert!(!recent.contains(&id(1)));
    }

    #[test]
    fn the_last_block_ends_with_the_source() {
        assert_eq!(bytes_of(&(1..3), 2 * BLOCK_BYTES + 5), BLOCK_BYTES..2 * BLOCK_BYTES + 5);
        assert_eq!(bytes_of(&(0..1), 0), 0..0);
    }
}
