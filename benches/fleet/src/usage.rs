//! What the kernel and PostgreSQL say that they did.

use anyhow::{Context as _, Result};
use sqlx::{PgPool, Row as _};
use std::{collections::HashMap, fs};

/// Processor seconds so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) serve: f64,
    pub(crate) postgres: f64,
    pub(crate) rabbit: f64,
    pub(crate) bench: f64,
    /// Of the whole machine: everything that is not idle, and all there is.
    pub(crate) machine_busy: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pids {
    pub(crate) serve: u32,
    pub(crate) postgres: u32,
    pub(crate) rabbit: u32,
}

/// The kernel's unit in /proc (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

struct Process {
    parent: u32,
    /// Of itself, and of children that ended.
    ticks: f64,
}

impl Cpu {
    pub(crate) fn now(pids: Pids) -> Self {
        let processes: HashMap<u32, Process> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
            .filter_map(|(pid, path)| Some((pid, process(&fs::read_to_string(path.join("stat")).ok()?)?)))
            .collect();
        let of = |root: u32| {
            let below = processes.iter().filter(|(pid, _)| is_below(&processes, **pid, root));
            below.map(|(_, process)| process.ticks).sum::<f64>() / TICKS_PER_SECOND
        };
        let bench = processes.get(&std::process::id()).map_or(0.0, |own| own.ticks) / TICKS_PER_SECOND;
        Self {
            serve: of(pids.serve),
            postgres: of(pids.postgres),
            rabbit: of(pids.rabbit),
            bench,
            machine_busy: machine_busy().unwrap_or_default(),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            serve: self.serve - before.serve,
            postgres: self.postgres - before.postgres,
            rabbit: self.rabbit - before.rabbit,
            bench: self.bench - before.bench,
            machine_busy: self.machine_busy - before.machine_busy,
        }
    }

    pub(crate) fn ours(self) -> f64 {
        self.serve + self.postgres + self.rabbit + self.bench
    }
}

fn is_below(processes: &HashMap<u32, Process>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    while at != root {
        match processes.get(&at) {
            Some(process) if process.parent != at => at = process.parent,
            _ => return false,
        }
    }
    true
}

/// proc(5), `/proc/pid/stat`: the fields behind the name, which is in brackets and may hold anything.
fn process(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Process { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// proc(5), `/proc/stat`: user, nice, system, then idle and waiting, then interrupts.
fn machine_busy() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    Some((ticks.get(..3)?.iter().sum::<f64>() + ticks.get(5..8)?.iter().sum::<f64>()) / TICKS_PER_SECOND)
}

/// PostgreSQL's own counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Database {
    pub(crate) transactions: f64,
    pub(crate) rolled_back: f64,
    pub(crate) log_bytes: f64,
    pub(crate) log_syncs: f64,
}

impl Database {
    pub(crate) async fn now(pool: &PgPool) -> Result<Self> {
        let row = sqlx::query(
            "SELECT xact_commit::float8 AS transactions, xact_rollback::float8 AS rolled_back,
                    wal_bytes::float8 AS log_bytes, wal_sync::float8 AS log_syncs
             FROM pg_stat_database, pg_stat_wal WHERE datname = current_database()",
        )
        .fetch_one(pool)
        .await?;
        Ok(Self {
            transactions: row.try_get("transactions")?,
            rolled_back: row.try_get("rolled_back")?,
            log_bytes: row.try_get("log_bytes")?,
            log_syncs: row.try_get("log_syncs")?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            rolled_back: self.rolled_back - before.rolled_back,
            log_bytes: self.log_bytes - before.log_bytes,
            log_syncs: self.log_syncs - before.log_syncs,
        }
    }
}

/// The statements that took longest in all since they were last forgotten.
pub(crate) async fn longest_statements(pool: &PgPool) -> Result<Vec<String>> {
    let rows = sqlx::query(
        "SELECT calls, total_exec_time AS total_ms, mean_exec_time AS mean_ms, rows,
                LEFT(REGEXP_REPLACE(query, '\\s+', ' ', 'g'), 150) AS query
         FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 30",
    )
    .fetch_all(pool)
    .await
    .context("pg_stat_statements")?;
    rows.iter()
        .map(|row| {
            let (calls, rows): (i64, i64) = (row.try_get("calls")?, row.try_get("rows")?);
            let (total_ms, mean_ms): (f64, f64) = (row.try_get("total_ms")?, row.try_get("mean_ms")?);
            let query: String = row.try_get("query")?;
            Ok(format!("{calls:>8} calls {total_ms:>9.0} ms {mean_ms:>8.3} ms each {rows:>8} rows  {query}"))
        })
        .collect()
}
