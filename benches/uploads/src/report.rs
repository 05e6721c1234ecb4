//! The tables for `benches/README.md`.

use crate::{
    hand_over::{HandOvers, quantile},
    memory::{CROWDS, Memory},
    server::Kind,
    transfer::{Costs, SHAPES},
};

/// Of the issue that this is measured for.
const MAX_RATIO: f64 = 1.10;
const MAX_PEAK_KIB: u64 = 48 << 10;
const MAX_STALLED_KIB: f64 = 64.0;
const MAX_HAND_OVER_MS: f64 = 100.0;

pub(crate) fn transfers(all: &[Costs]) {
    for shape in SHAPES {
        let of = |kind: Kind| all.iter().find(|costs| costs.kind == kind && costs.shape.name == shape.name);
        println!(
            "\n| {} | CPU s | wall s | CPU / floor: median (min to max) | wall / floor | target |",
            shape.name
        );
        println!("|---|---|---|---|---|---|");
        for kind in Kind::ALL {
            let Some(costs) = of(kind) else { continue };
            let cpu: Vec<f64> = costs.rounds.iter().map(|cost| cost.cpu_seconds).collect();
            let wall: Vec<f64> = costs.rounds.iter().map(|cost| cost.wall_seconds).collect();
            let (mut cpu_ratio, mut wall_ratio, mut target) = ("-".to_owned(), "-".to_owned(), "");
            if let Some(floor) = of(Kind::Floor).filter(|_| kind != Kind::Floor) {
                let ratios = |of: fn(&crate::transfer::Cost) -> f64| -> Vec<f64> {
                    costs.rounds.iter().zip(&floor.rounds).map(|(ours, floor)| of(ours) / of(floor)).collect()
                };
                let (cpu, wall) = (ratios(|cost| cost.cpu_seconds), ratios(|cost| cost.wall_seconds));
                (cpu_ratio, wall_ratio) = (spread(&cpu), spread(&wall));
                if kind == Kind::Reelyard {
                    target = told(
                        median(&cpu) <= MAX_RATIO && median(&wall) <= MAX_RATIO,
                        "at most 1.10 each: met",
                        "at most 1.10 each: missed",
                    );
                }
            }
            println!(
                "| {} | {:.2} | {:.2} | {cpu_ratio} | {wall_ratio} | {target} |",
                kind.name(),
                median(&cpu),
                median(&wall)
            );
        }
    }
}

pub(crate) fn memory(all: &[Memory]) {
    let crowds: Vec<&str> = CROWDS.iter().map(|crowd| crowd.name).collect();
    println!("\n| memory | idle | peak while 1 GiB comes in one request | {} | target |", crowds.join(" | "));
    println!("|---|---|---|{}---|", "---|".repeat(CROWDS.len()));
    for memory in all {
        let met = |met| told(met, "met", "missed");
        let target = match memory.kind {
            Kind::Reelyard => format!(
                "48 MiB: {}; 64 KiB: {}",
                met(memory.peak_kib <= MAX_PEAK_KIB),
                met(memory.stalled_kib.iter().all(|kib| *kib <= MAX_STALLED_KIB))
            ),
            _ => String::new(),
        };
        let stalled: Vec<String> = memory.stalled_kib.iter().map(|kib| format!("{kib:.1} KiB")).collect();
        println!(
            "| {} | {:.1} MiB | {:.1} MiB | {} | {target} |",
            memory.kind.name(),
            memory.idle_kib as f64 / 1024.0,
            memory.peak_kib as f64 / 1024.0,
            stalled.join(" | ")
        );
    }
}

pub(crate) fn hand_overs(all: &[HandOvers]) {
    println!(
        "\n| hand-over of a stalled upload | times | HEAD p50 | HEAD p99 | next PATCH p50 | p99 | HEAD too low | refused | target |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for one in all {
        let (head, patch) = (quantile(&one.head_ms, 0.99), quantile(&one.patch_ms, 0.99));
        let target = match one.kind {
            Kind::Reelyard => told(
                head <= MAX_HAND_OVER_MS && patch <= MAX_HAND_OVER_MS && one.refused == 0,
                "p99 100 ms: met",
                "p99 100 ms: missed",
            ),
            _ => "",
        };
        println!(
            "| {} | {} | {:.1} ms | {head:.1} ms | {:.1} ms | {patch:.1} ms | {} | {} | {target} |",
            one.kind.name(),
            one.head_ms.len(),
            quantile(&one.head_ms, 0.5),
            quantile(&one.patch_ms, 0.5),
            one.lost,
            one.refused
        );
    }
}

fn told(yes: bool, met: &'static str, missed: &'static str) -> &'static str {
    if yes { met } else { missed }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn spread(values: &[f64]) -> String {
    format!("{:.3} ({:.3} to {:.3})", median(values), quantile(values, 0.0), quantile(values, 1.0))
}
