//! How long one decision takes: `cargo run --release -p reelyard-schedule --example decide`.

use reelyard_model::{TenantId, Tier, work::TaskKind};
use reelyard_schedule::{Queue, Running, Situation, Slots, TenantLoad, picks};
use std::time::Instant;
use uuid::Uuid;

const TENANTS: u128 = 10_000;
const SLOTS: u32 = 200;
const ROUNDS: usize = 200;

fn main() {
    let scattered = |number: u128| {
        TenantId::from_uuid(Uuid::from_u128(
            (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835),
        ))
    };
    let tenants: Vec<TenantLoad> = (0u32..)
        .zip(0..TENANTS)
        .map(|(index, number)| TenantLoad {
            tenant: scattered(number),
            weight: 1 + index % 4,
            cap: (index % 3 == 0).then_some(8),
            running: Running { urgent: index % 2, normal: index % 5, bulk: index % 3 },
        })
        .collect();
    for (what, kinds) in [("one queue each", 1), ("five queues each", 5)] {
        let queues: Vec<Queue> = (0i64..)
            .zip(&tenants)
            .flat_map(|(index, load)| {
                TaskKind::ALL.into_iter().rev().take(kinds).map(move |kind| Queue {
                    tenant: load.tenant,
                    tier: Tier::ALL[usize::try_from(index % 3).unwrap_or(0)],
                    kind: if kinds == 1 { TaskKind::Encode } else { kind },
                    waiting: 1_000,
                    oldest_ms: index * 977 % 1_000_000,
                })
            })
            .collect();
        let slots = [
            Slots { kinds: vec![TaskKind::Encode, TaskKind::Audio, TaskKind::Probe], free: SLOTS / 2 },
            Slots { kinds: vec![TaskKind::Encode], free: SLOTS / 2 },
        ];
        let situation = Situation { tenants: &tenants, queues: &queues, slots: &slots, now_ms: 20_000_000 };
        let mut micros: Vec<u128> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                let picked: u32 = std::hint::black_box(picks(std::hint::black_box(&situation)))
                    .iter()
                    .map(|pick| pick.count)
                    .sum();
                assert_eq!(picked, SLOTS, "no slot stays free");
                start.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        println!(
            "{TENANTS} tenants, {what}, {SLOTS} slots: median {} us, slowest of {ROUNDS} {} us",
            micros[ROUNDS / 2],
            micros[ROUNDS - 1]
        );
    }
}
