//! Which request meets which fault: decided by a seed and the number of the request, so that a run can be repeated.

use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server has no time: 503 with `SlowDown`; nothing reaches it.
    SlowDown,
    /// The request arrives late.
    Delay(Duration),
    /// The connection breaks before anything reaches the server.
    CutBefore,
    /// The server does what it was asked, and the answer is lost.
    LostReply,
    /// The connection breaks in the middle of the answer.
    HalfReply,
    /// A byte of the body changes on its way to the server.
    Corrupt,
    /// Nothing reaches the server and no answer comes, until the client gives up.
    Hang,
}

/// Faults, each for so many of a thousand requests.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    pub per_thousand: Vec<(u16, Fault)>,
    /// Only requests of these methods; all when empty.
    pub methods: Vec<&'static str>,
}

impl Plan {
    /// No faults.
    pub fn calm() -> Self {
        Self::default()
    }

    /// This for every request.
    pub fn always(fault: Fault) -> Self {
        Self { per_thousand: vec![(1_000, fault)], ..Self::default() }
    }

    pub fn fault(&self, method: &str, number: u64) -> Option<Fault> {
        if !self.methods.is_empty() && !self.methods.contains(&method) {
            return None;
        }
        let mut draw = scrambled(self.seed ^ scrambled(number)) % 1_000;
        for (share, fault) in &self.per_thousand {
            if draw < u64::from(*share) {
                return Some(*fault);
            }
            draw -= u64::from(*share);
        }
        None
    }
}

/// The finishing step of splitmix64: neighbours get numbers that have nothing to do with each other.
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Fault, Plan};

    #[test]
    fn a_plan_repeats_itself_and_keeps_to_its_shares() {
        let plan = Plan {
            seed: 7,
            per_thousand: vec![(100, Fault::SlowDown), (50, Fault::LostReply)],
            methods: vec!["PUT"],
        };
        let faults: Vec<_> = (0..10_000).map(|number| plan.fault("PUT", number)).collect();
        assert_eq!(faults, (0..10_000).map(|number| plan.fault("PUT", number)).collect::<Vec<_>>());
        let count = |wanted| faults.iter().filter(|fault| **fault == Some(wanted)).count();
        assert!((800..1_200).contains(&count(Fault::SlowDown)));
        assert!((400..600).contains(&count(Fault::LostReply)));
        assert!((0..100).all(|number| plan.fault("GET", number).is_none()));
    }
}
