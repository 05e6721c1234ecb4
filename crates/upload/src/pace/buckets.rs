//! A bucket for each key (a tenant, an address), in bounded memory.
//!
//! A bucket that is full again says the same as no bucket, so it may be forgotten at any time. When the map is at its
//! bound and nothing can be forgotten, everybody new shares one bucket: strangers may then be slowed down by each
//! other, but neither memory grows nor does anybody slip through.

use super::{Bucket, Rate, Refill};
use std::{collections::HashMap, hash::Hash};

/// How often a map at its bound looks through all of it for buckets to forget: once a second costs nothing, and once
/// a request would be what an attacker wants.
const FORGET_INTERVAL_MS: u64 = 1000;

#[derive(Debug)]
pub struct Buckets<Key> {
    /// With the rate that it had last: rates differ from key to key.
    buckets: HashMap<Key, (Bucket, Rate)>,
    most: usize,
    /// For everybody new while the map is at its bound.
    shared: Option<Bucket>,
    forgot_at_ms: Option<u64>,
}

impl<Key: Hash + Eq> Buckets<Key> {
    /// `most`: how many keys are told apart.
    pub fn new(most: usize) -> Self {
        Self { buckets: HashMap::new(), most, shared: None, forgot_at_ms: None }
    }

    /// Takes one token of this key's bucket. Gives how many whole ones are left.
    pub fn take(&mut self, key: Key, rate: Rate, now_ms: u64) -> Result<u32, Refill> {
        if let Some((bucket, last_rate)) = self.buckets.get_mut(&key) {
            *last_rate = rate;
            return bucket.take(rate, now_ms);
        }
        if self.buckets.len() >= self.most {
            self.forget_full(now_ms);
        }
        if self.buckets.len() >= self.most {
            return self.shared.get_or_insert_with(|| Bucket::full(rate, now_ms)).take(rate, now_ms);
        }
        let (bucket, _) = self.buckets.entry(key).or_insert((Bucket::full(rate, now_ms), rate));
        bucket.take(rate, now_ms)
    }

    fn forget_full(&mut self, now_ms: u64) {
        if self.forgot_at_ms.is_some_and(|last| now_ms.saturating_sub(last) < FORGET_INTERVAL_MS) {
            return;
        }
        self.forgot_at_ms = Some(now_ms);
        self.buckets.retain(|_, (bucket, rate)| !bucket.is_full(*rate, now_ms));
        if self.buckets.len() < self.most {
            self.shared = None;
        }
    }

    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Buckets;
    use crate::pace::Rate;

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let rate = Rate::new(1, 1);
        let mut buckets = Buckets::new(10);
        assert!(buckets.take("a", rate, 0).is_ok());
        assert!(buckets.take("a", rate, 0).is_err());
        assert!(buckets.take("b", rate, 0).is_ok());
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten_when_room_is_needed() {
        let rate = Rate::new(1, 1);
        let mut buckets = Buckets::new(3);
        for key in 0..3 {
            assert!(buckets.take(key, rate, 0).is_ok());
        }
        assert!(buckets.take(3, rate, 2_000).is_ok());
        assert_eq!(buckets.len(), 1);
    }

    #[test]
    fn beyond_the_bound_strangers_share_one_bucket_and_memory_does_not_grow() {
        let rate = Rate::new(1, 2);
        let mut buckets = Buckets::new(3);
        for key in 0..3 {
            assert!(buckets.take(key, rate, 0).is_ok());
        }
        let passed = (100..200).filter(|&key| buckets.take(key, rate, 1).is_ok()).count();
        assert_eq!(passed, 2, "the burst of the one bucket that they share");
        assert_eq!(buckets.len(), 3);
        assert!(buckets.take(0, rate, 1).is_ok(), "who was known before is not slowed down");
        assert!(buckets.take(100, rate, 10_000).is_ok());
        assert_eq!(buckets.len(), 1, "later there is room again");
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut buckets = Buckets::new(3);
        assert_eq!(buckets.take("a", Rate::new(10, 10), 0), Ok(9));
        assert_eq!(buckets.take("a", Rate::new(1, 1), 0), Ok(0));
        assert!(buckets.take("a", Rate::new(1, 1), 0).is_err());
    }
}
