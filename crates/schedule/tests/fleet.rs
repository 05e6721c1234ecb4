//! Days of a simulated farm: who is served when, over many decisions. Caps and idle slots are checked by the simulator
//! after each of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod simulator;

use reelyard_model::{
    TenantId, Tier,
    work::TaskKind::{self, Audio, Encode, Probe, Publish},
};
use reelyard_schedule::{LANE_PART, OVERDUE_BULK_MS, OVERDUE_NORMAL_MS};
use simulator::{Chance, Farm, HOUR_MS, MINUTE_MS, SECOND_MS, Task, tenant};

fn encode(tenant: TenantId, tier: Tier, arrives_ms: i64, takes_ms: i64) -> Task {
    Task { tenant, tier, kind: Encode, arrives_ms, takes_ms }
}

/// Work of this tier for the whole day: more arrives than the farm can do.
fn flood(farm: &mut Farm, of: TenantId, tier: Tier, every_ms: i64, takes_ms: i64, until_ms: i64) {
    for arrives_ms in (0..until_ms).step_by(usize::try_from(every_ms).unwrap()) {
        farm.arrive(encode(of, tier, arrives_ms, takes_ms));
    }
}

#[test]
fn shares_of_slot_time_converge_to_the_weights() {
    for seed in 1..=5 {
        let mut chance = Chance(seed);
        let mut farm = Farm::new(&[(&[Encode], 21)]);
        let weights = [(tenant(1), 1), (tenant(2), 2), (tenant(3), 4)];
        for (of, weight) in weights {
            farm.tenant(of, weight, None);
            for _ in 0..9_000 {
                farm.arrive(encode(of, Tier::Normal, 0, chance.between_ms(20 * SECOND_MS, 90 * SECOND_MS)));
            }
        }
        farm.run_until(4 * HOUR_MS, |_| {});
        let time_of = |of: TenantId| -> f64 {
            farm.started
                .iter()
                .filter(|started| started.task.tenant == of)
                .map(|s| s.task.takes_ms as f64)
                .sum()
        };
        let all: f64 = weights.iter().map(|&(of, _)| time_of(of)).sum();
        for (of, weight) in weights {
            let (share, due) = (time_of(of) / all, f64::from(weight) / 7.0);
            assert!(
                (share / due - 1.0).abs() < 0.05,
                "seed {seed}: weight {weight} got {share:.3} of {due:.3}"
            );
        }
    }
}

#[test]
fn a_tenant_that_wants_less_leaves_its_share_to_the_others() {
    let mut farm = Farm::new(&[(&[Encode], 12)]);
    farm.tenant(tenant(3), 1, Some(1));
    for of in [tenant(1), tenant(2), tenant(3)] {
        flood(&mut farm, of, Tier::Normal, 5 * SECOND_MS, MINUTE_MS, HOUR_MS);
    }
    farm.run_until(HOUR_MS, |_| {});
    let runs = |number| farm.running_of(tenant(number)).total();
    assert_eq!((runs(3), runs(1) + runs(2)), (1, 11));
    assert!(runs(1).abs_diff(runs(2)) <= 1);
}

#[test]
fn ten_thousand_bulk_tasks_delay_anothers_normal_task_by_one_task_at_most() {
    for hours_later in [0, 1, 5, 9] {
        let mut farm = Farm::new(&[(&[Encode], 4)]);
        for _ in 0..10_000 {
            farm.arrive(encode(tenant(1), Tier::Bulk, 0, MINUTE_MS));
        }
        // After five hours the bulk tasks are overdue, and it is no different.
        let arrives_ms = hours_later * HOUR_MS + 17 * SECOND_MS;
        farm.arrive(encode(tenant(2), Tier::Normal, arrives_ms, MINUTE_MS));
        farm.run_until(10 * HOUR_MS, |_| {});
        let normal = farm.started.iter().find(|started| started.task.tenant == tenant(2)).unwrap();
        assert!(normal.waited_ms() <= MINUTE_MS, "after {hours_later} h it waited {} ms", normal.waited_ms());
    }
}

#[test]
fn ten_thousand_normal_tasks_of_one_tenant_do_not_delay_another_either() {
    let mut farm = Farm::new(&[(&[Encode], 4)]);
    for _ in 0..10_000 {
        farm.arrive(encode(tenant(1), Tier::Normal, 0, MINUTE_MS));
    }
    for number in 0..20 {
        farm.arrive(encode(tenant(2), Tier::Normal, HOUR_MS + number * 3 * MINUTE_MS, MINUTE_MS));
    }
    farm.run_until(3 * HOUR_MS, |_| {});
    let slowest =
        farm.started.iter().filter(|s| s.task.tenant == tenant(2)).map(simulator::Started::waited_ms);
    assert!(slowest.max().unwrap() <= MINUTE_MS);
}

#[test]
fn urgent_tasks_of_one_tenant_leave_half_of_the_slots_to_anothers_urgent_ones() {
    let mut farm = Farm::new(&[(&[Encode], 8)]);
    for _ in 0..1_000 {
        farm.arrive(encode(tenant(1), Tier::Urgent, 0, MINUTE_MS));
    }
    flood(&mut farm, tenant(2), Tier::Urgent, 5 * SECOND_MS, MINUTE_MS, 20 * MINUTE_MS);
    farm.run_until(20 * MINUTE_MS, |farm| {
        if farm.now_ms > 2 * MINUTE_MS {
            let runs = [1, 2].map(|number| farm.running_of(tenant(number)).total());
            assert!(runs[0].abs_diff(runs[1]) <= 1, "{runs:?} at {} ms", farm.now_ms);
        }
    });
}

#[test]
fn nothing_starves_below_urgent_work_that_never_ends() {
    let mut farm = Farm::new(&[(&[Encode], 8)]);
    let day_ms = 24 * HOUR_MS;
    // Twice what the farm can do, of two tenants.
    for number in [1, 2] {
        flood(&mut farm, tenant(number), Tier::Urgent, 7_500, MINUTE_MS, day_ms);
    }
    let mut chance = Chance(4);
    for number in 0..200 {
        let tier = if number % 2 == 0 { Tier::Normal } else { Tier::Bulk };
        // One of the tenants with urgent work is among them.
        let of = tenant(2 + u128::from(chance.below(5)));
        farm.arrive(encode(of, tier, chance.between_ms(0, 8 * HOUR_MS), MINUTE_MS));
    }
    farm.run_until(day_ms, |farm| {
        let overdue = farm.running(Tier::Normal) + farm.running(Tier::Bulk);
        assert!(overdue * LANE_PART <= 8 + LANE_PART, "{overdue} of 8 slots for overdue tasks");
    });
    let lower: Vec<_> = farm.started.iter().filter(|started| started.task.tier != Tier::Urgent).collect();
    assert_eq!(lower.len(), 200, "every task was served");
    for started in lower {
        let overdue_ms = if started.task.tier == Tier::Normal { OVERDUE_NORMAL_MS } else { OVERDUE_BULK_MS };
        // The lane has room for them all soon; each waits for those before it.
        assert!(started.waited_ms() <= overdue_ms + HOUR_MS, "{started:?}");
    }
}

#[test]
fn a_tenants_own_bulk_work_moves_under_its_own_normal_work() {
    let mut farm = Farm::new(&[(&[Encode], 4)]);
    flood(&mut farm, tenant(1), Tier::Normal, 10 * SECOND_MS, MINUTE_MS, 12 * HOUR_MS);
    for _ in 0..50 {
        // By then the normal tasks have all slots.
        farm.arrive(encode(tenant(1), Tier::Bulk, MINUTE_MS, MINUTE_MS));
    }
    farm.run_until(12 * HOUR_MS, |_| {});
    let bulk: Vec<_> = farm.started.iter().filter(|started| started.task.tier == Tier::Bulk).collect();
    assert_eq!(bulk.len(), 50);
    assert!(bulk[0].waited_ms() >= OVERDUE_BULK_MS, "not before they are overdue");
    assert!(bulk[49].waited_ms() <= OVERDUE_BULK_MS + 2 * HOUR_MS);
}

#[test]
fn on_one_slot_the_overdue_go_first_and_the_rest_follows() {
    let mut farm = Farm::new(&[(&[Encode], 1)]);
    flood(&mut farm, tenant(1), Tier::Urgent, 30 * SECOND_MS, MINUTE_MS, 4 * HOUR_MS);
    farm.arrive(encode(tenant(2), Tier::Normal, 0, MINUTE_MS));
    farm.run_until(4 * HOUR_MS, |_| {});
    let normal = farm.started.iter().find(|started| started.task.tier == Tier::Normal).unwrap();
    assert!((OVERDUE_NORMAL_MS..=OVERDUE_NORMAL_MS + MINUTE_MS).contains(&normal.waited_ms()), "{normal:?}");
}

#[test]
fn probes_and_publishing_go_before_their_tenants_other_work_for_a_day() {
    const ALL: &[TaskKind] = &[Probe, Encode, Audio, Publish];
    let mut farm = Farm::new(&[(ALL, 2)]);
    for _ in 0..3_000 {
        farm.arrive(encode(tenant(1), Tier::Normal, 0, 2 * MINUTE_MS));
    }
    for hour in 1..40 {
        for kind in [Probe, Publish] {
            let arrives_ms = hour * HOUR_MS + SECOND_MS;
            farm.arrive(Task {
                tenant: tenant(1),
                tier: Tier::Normal,
                kind,
                arrives_ms,
                takes_ms: SECOND_MS,
            });
        }
    }
    farm.run_until(40 * HOUR_MS, |_| {});
    let of_kind = |kind| farm.started.iter().filter(move |started| started.task.kind == kind);
    // Those of the second day wait until the work that is older than a day is done.
    let probes: Vec<_> = of_kind(Probe).filter(|started| started.task.arrives_ms < 24 * HOUR_MS).collect();
    assert_eq!(probes.len(), 23);
    assert!(probes.iter().all(|started| started.waited_ms() <= 2 * MINUTE_MS), "{probes:?}");
    assert_eq!(of_kind(Publish).count(), 39);
    assert!(of_kind(Publish).all(|started| started.waited_ms() <= 2 * MINUTE_MS));
}

#[test]
fn random_days_on_mixed_workers_keep_every_cap_leave_no_slot_idle_and_end() {
    for seed in 1..=20 {
        let mut chance = Chance(seed);
        let mut farm =
            Farm::new(&[(&TaskKind::ALL, 2), (&[Encode], 3), (&[Probe, Audio], 1), (&[Publish], 1)]);
        for number in 0..6 {
            let cap = (chance.below(2) == 0).then(|| u32::try_from(1 + chance.below(4)).unwrap());
            farm.tenant(tenant(number), u32::try_from(chance.below(5)).unwrap(), cap);
        }
        for _ in 0..800 {
            farm.arrive(Task {
                tenant: tenant(u128::from(chance.below(8))),
                tier: Tier::ALL[usize::try_from(chance.below(3)).unwrap()],
                kind: TaskKind::ALL[usize::try_from(chance.below(5)).unwrap()],
                arrives_ms: chance.between_ms(0, HOUR_MS),
                takes_ms: chance.between_ms(SECOND_MS, 2 * MINUTE_MS),
            });
        }
        farm.run_until(100 * HOUR_MS, |_| {});
        assert_eq!((farm.waiting(), farm.started.len()), (0, 800), "seed {seed}");
    }
}
