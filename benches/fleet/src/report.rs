//! The tables.

use crate::{Options, round::Measured};

pub(crate) fn print(options: &Options, rounds: &[Measured]) {
    println!(
        "{} workers with {} slots, tasks of {} ms, {} rounds of {} tasks of {} tenants, orders {}",
        options.workers,
        options.slots,
        options.work_ms,
        options.rounds,
        options.assets * options.chunks as usize,
        options.tenants,
        if options.without_orders { "off" } else { "on" },
    );
    println!("\n| figure | median | min | max |\n|---|---|---|---|");
    let row = |name: &str, of: &dyn Fn(&Measured) -> f64| {
        let values = sorted(rounds.iter().map(of).collect());
        println!(
            "| {name} | {} | {} | {} |",
            shown(at(&values, 0.5)),
            shown(at(&values, 0.0)),
            shown(at(&values, 1.0))
        );
    };
    row("tasks claimed and completed a second", &|one| one.tasks_per_s);
    row("RabbitMQ alone: tickets a second", &|one| one.raw_per_s);
    row("ratio", &|one| one.tasks_per_s / one.raw_per_s);
    row("claim p50 ms", &|one| at(&sorted(one.claims_ms.clone()), 0.5));
    row("claim p99 ms", &|one| at(&sorted(one.claims_ms.clone()), 0.99));
    row("claim max ms", &|one| at(&sorted(one.claims_ms.clone()), 1.0));
    row("report p50 ms", &|one| at(&sorted(one.reports_ms.clone()), 0.5));
    row("report p99 ms", &|one| at(&sorted(one.reports_ms.clone()), 0.99));
    row("tickets taken a second", &|one| one.tickets / one.seconds);
    row("tasks in a claim that brought some", &|one| one.granted / one.claims_ms.len().max(1) as f64);
    row("claims that brought nothing, a second", &|one| one.empty_claims / one.seconds);
    row("heartbeats a second", &|one| one.beats / one.seconds);
    row("streams of orders opened meanwhile", &|one| one.orders);
    row("CPU ms a task: server", &|one| one.cpu.serve * 1000.0 / one.completed);
    row("CPU ms a task: PostgreSQL", &|one| one.cpu.postgres * 1000.0 / one.completed);
    row("CPU ms a task: RabbitMQ", &|one| one.cpu.rabbit * 1000.0 / one.completed);
    row("CPU ms a task: simulated workers", &|one| one.cpu.bench * 1000.0 / one.completed);
    row("CPU ms a task: all of it", &|one| one.cpu.ours() * 1000.0 / one.completed);
    row("share of the processors that others had", &|one| {
        (one.cpu.machine_busy - one.cpu.ours()).max(0.0) / (one.seconds * one.processors)
    });
    row("share of the processors that were idle", &|one| {
        1.0 - one.cpu.machine_busy / (one.seconds * one.processors)
    });
    row("transactions a task", &|one| one.database.transactions / one.completed);
    row("transactions rolled back, a task", &|one| one.database.rolled_back / one.completed);
    row("syncs of PostgreSQL's log a second", &|one| one.database.log_syncs / one.seconds);
    row("KiB of PostgreSQL's log a task", &|one| one.database.log_bytes / 1024.0 / one.completed);
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which this share lies; of nothing, 0.
fn at(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn shown(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
