//! What holds for every decision, whatever comes in: also numbers that no sound database would give.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod simulator;

use proptest::{collection::vec, prelude::*};
use reelyard_model::{Tier, work::TaskKind};
use reelyard_schedule::{Pick, Queue, Running, Situation, Slots, TenantLoad, deal, picks};
use simulator::tenant;
use std::collections::BTreeMap;

const NOW_MS: i64 = 100_000_000;
/// More tenants than have a load: some have no entry.
const TENANTS: u128 = 6;

#[derive(Clone, Debug)]
struct Case {
    tenants: Vec<TenantLoad>,
    queues: Vec<Queue>,
    slots: Vec<Slots>,
}

impl Case {
    fn picks(&self) -> Vec<Pick> {
        picks(&Situation { tenants: &self.tenants, queues: &self.queues, slots: &self.slots, now_ms: NOW_MS })
    }

    fn load(&self, of: u128) -> TenantLoad {
        let unknown = TenantLoad { tenant: tenant(of), weight: 1, cap: None, running: Running::default() };
        self.tenants.iter().find(|load| load.tenant == tenant(of)).copied().unwrap_or(unknown)
    }

    /// Kinds of all the tasks that were picked.
    fn dealt(&self, picks: &[Pick]) -> Vec<TaskKind> {
        picks.iter().flat_map(|pick| std::iter::repeat_n(pick.kind, pick.count as usize)).collect()
    }
}

fn running() -> impl Strategy<Value = Running> {
    let few = || 0u32..6;
    let any = (few(), few(), few()).prop_map(|(urgent, normal, bulk)| Running { urgent, normal, bulk });
    let absurd = Just(Running { urgent: u32::MAX, normal: u32::MAX, bulk: 7 });
    prop_oneof![20 => any, 1 => absurd]
}

fn tenants() -> impl Strategy<Value = Vec<TenantLoad>> {
    vec((0u32..5, proptest::option::of(0u32..12), running()), 0..TENANTS as usize).prop_map(|loads| {
        (0..)
            .zip(loads)
            .map(|(number, (weight, cap, running))| TenantLoad {
                tenant: tenant(number),
                weight,
                cap,
                running,
            })
            .collect()
    })
}

fn queues() -> impl Strategy<Value = Vec<Queue>> {
    let ages = prop_oneof![Just(i64::MIN), Just(i64::MAX), 0..=NOW_MS];
    vec((0..TENANTS, 0..3usize, 0..5usize, 0u32..15, ages), 0..30).prop_map(|queues| {
        let unique: BTreeMap<_, _> = queues
            .into_iter()
            .map(|(of, tier, kind, waiting, oldest_ms)| ((of, tier, kind), (waiting, oldest_ms)))
            .collect();
        unique
            .into_iter()
            .map(|((of, tier, kind), (waiting, oldest_ms))| Queue {
                tenant: tenant(of),
                tier: Tier::ALL[tier],
                kind: TaskKind::ALL[kind],
                waiting,
                oldest_ms,
            })
            .collect()
    })
}

fn slots() -> impl Strategy<Value = Vec<Slots>> {
    let kinds = proptest::sample::subsequence(TaskKind::ALL.to_vec(), 0..=5);
    vec((kinds, 0u32..8), 0..5)
        .prop_map(|groups| groups.into_iter().map(|(kinds, free)| Slots { kinds, free }).collect())
}

fn cases() -> impl Strategy<Value = Case> {
    (tenants(), queues(), slots()).prop_map(|(tenants, queues, slots)| Case { tenants, queues, slots })
}

#[test]
fn what_the_lane_gave_a_tenant_counts_for_its_share_at_once() {
    let queue = |of, tier, oldest_ms| Queue {
        tenant: tenant(of),
        tier,
        kind: TaskKind::Encode,
        waiting: 5,
        oldest_ms,
    };
    let urgent = Tier::Urgent;
    let case = Case {
        tenants: Vec::new(),
        // The third has an overdue bulk task, and its urgent ones are older than those of the second.
        queues: vec![
            queue(1, urgent, 10),
            queue(2, urgent, 30),
            queue(3, urgent, 20),
            queue(3, Tier::Bulk, 0),
        ],
        slots: vec![Slots { kinds: vec![TaskKind::Encode], free: 3 }],
    };
    let picked: Vec<_> = case.picks().iter().map(|pick| (pick.tenant, pick.tier, pick.count)).collect();
    assert_eq!(picked, [(tenant(3), Tier::Bulk, 1), (tenant(1), urgent, 1), (tenant(2), urgent, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn picks_fit_the_queues_the_caps_and_the_slots(case in cases()) {
        let picks = case.picks();
        for (at, pick) in picks.iter().enumerate() {
            let same = |queue: &&Queue| (queue.tenant, queue.tier, queue.kind) == (pick.tenant, pick.tier, pick.kind);
            let queue = case.queues.iter().find(same).expect("a queue that was there");
            prop_assert!(pick.count > 0 && pick.count <= queue.waiting);
            let again = |other: &Pick| (other.tenant, other.tier, other.kind) == (pick.tenant, pick.tier, pick.kind);
            prop_assert!(!picks[at + 1..].iter().any(again), "one queue twice");
        }
        for of in 0..TENANTS {
            let load = case.load(of);
            let got: u32 = picks.iter().filter(|pick| pick.tenant == tenant(of)).map(|pick| pick.count).sum();
            let room = load.cap.map_or(u32::MAX, |cap| cap.saturating_sub(load.running.total()));
            prop_assert!(got <= room, "tenant {of} got {got} with room for {room}");
        }
        let kinds = case.dealt(&picks);
        let mut left = case.slots.clone();
        for (kind, slot) in kinds.iter().zip(deal(&kinds, &case.slots)) {
            let slot = &mut left[slot.expect("a slot for every picked task")];
            prop_assert!(slot.kinds.contains(kind));
            slot.free = slot.free.checked_sub(1).expect("no slot twice");
        }
    }

    #[test]
    fn no_slot_stays_free_that_a_waiting_task_could_have(case in cases()) {
        let picks = case.picks();
        let kinds = case.dealt(&picks);
        for queue in &case.queues {
            let of = (0..TENANTS).find(|&of| tenant(of) == queue.tenant).unwrap();
            let load = case.load(of);
            let of_tenant = picks.iter().filter(|pick| pick.tenant == queue.tenant);
            let got: u32 = of_tenant.clone().map(|pick| pick.count).sum();
            let taken: u32 = of_tenant
                .filter(|pick| (pick.tier, pick.kind) == (queue.tier, queue.kind))
                .map(|pick| pick.count)
                .sum();
            let may_run = load.cap.is_none_or(|cap| load.running.total().saturating_add(got) < cap);
            if taken < queue.waiting && may_run {
                // However the picked tasks are moved about, one more of this kind does not fit.
                let mut one_more = kinds.clone();
                one_more.push(queue.kind);
                prop_assert!(deal(&one_more, &case.slots).contains(&None), "room for one more of {queue:?}");
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(case in cases()) {
        let mut turned = case.clone();
        turned.tenants.reverse();
        turned.queues.reverse();
        turned.slots.reverse();
        prop_assert_eq!(case.picks(), turned.picks());
    }

    #[test]
    fn a_lower_tier_gets_nothing_while_a_higher_one_waits_unless_it_is_overdue(
        waiting in vec((0..TENANTS, 0..3usize, 1u32..9), 1..12),
        free in 1u32..20,
    ) {
        let queues: Vec<Queue> = waiting
            .iter()
            .map(|&(of, tier, waiting)| Queue {
                tenant: tenant(of), tier: Tier::ALL[tier], kind: TaskKind::Encode, waiting, oldest_ms: NOW_MS,
            })
            .collect();
        let case = Case { tenants: Vec::new(), queues, slots: vec![Slots { kinds: vec![TaskKind::Encode], free }] };
        let picks = case.picks();
        for &tier in Tier::ALL {
            let of_tier = |queue: &&Queue| queue.tier == tier;
            let waiting: u32 = case.queues.iter().filter(of_tier).map(|queue| queue.waiting).sum();
            let got: u32 = picks.iter().filter(|pick| pick.tier == tier).map(|pick| pick.count).sum();
            let lower = picks.iter().any(|pick| pick.tier.rank() > tier.rank());
            prop_assert!(got == waiting || !lower, "{tier}: {got} of {waiting}, and lower ones too");
        }
    }

    #[test]
    fn within_a_tier_nobody_gets_ahead_of_one_who_has_less_for_its_weight(
        loads in vec((1u32..5, 0u32..9, 0u32..40), 1..6),
        free in 1u32..60,
    ) {
        let tenants: Vec<TenantLoad> = (0..)
            .zip(&loads)
            .map(|(of, &(weight, normal, _))| TenantLoad {
                tenant: tenant(of), weight, cap: None, running: Running { normal, ..Running::default() },
            })
            .collect();
        let queues: Vec<Queue> = (0..)
            .zip(&loads)
            .map(|(of, &(.., waiting))| Queue {
                tenant: tenant(of), tier: Tier::Normal, kind: TaskKind::Encode, waiting, oldest_ms: NOW_MS,
            })
            .collect();
        let case = Case { tenants, queues, slots: vec![Slots { kinds: vec![TaskKind::Encode], free }] };
        let picks = case.picks();
        let got = |of: u128| picks.iter().filter(|pick| pick.tenant == tenant(of)).map(|pick| pick.count).sum::<u32>();
        for (one, &(its_weight, its_running, _)) in (0..).zip(&loads) {
            for (other, &(weight, running, waiting)) in (0..).zip(&loads) {
                if got(one) == 0 || got(other) == waiting {
                    continue;
                }
                // When it got its last one, it had no more for its weight than the other had then or has now.
                let before_last = u64::from(its_running + got(one) - 1) * u64::from(weight);
                let now = u64::from(running + got(other)) * u64::from(its_weight);
                prop_assert!(before_last <= now, "{one} got {}, {other} got {}", got(one), got(other));
            }
        }
    }
}
