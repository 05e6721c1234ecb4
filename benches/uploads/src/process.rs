//! What a server costs, as the kernel counts it: processor time and memory of a process and all its children.
//!
//! Reads `/proc`; a process that ends meanwhile counts as nothing. Linux only.

use anyhow::{Context as _, Result};
use std::fs;

/// The kernel reports processor time to programs in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process and what it started.
#[derive(Clone, Copy)]
pub(crate) struct Tree(pub(crate) u32);

struct Stat {
    parent: u32,
    /// Own ones and those of children that have ended and were waited for.
    ticks: u64,
}

impl Tree {
    pub(crate) fn cpu_seconds(self) -> f64 {
        let ticks: u64 = self.members().into_iter().filter_map(stat).map(|stat| stat.ticks).sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    /// Resident memory now, in KiB.
    pub(crate) fn resident_kib(self) -> u64 {
        self.sum("VmRSS:")
    }

    /// Forgets the highest resident memory so far.
    pub(crate) fn forget_peak(self) -> Result<()> {
        for process in self.members() {
            let path = format!("/proc/{process}/clear_refs");
            fs::write(&path, "5").with_context(|| format!("writing {path}"))?;
        }
        Ok(())
    }

    /// The highest resident memory since then, in KiB. Of several processes the sum, which they may not have had at the
    /// same time.
    pub(crate) fn peak_kib(self) -> u64 {
        self.sum("VmHWM:")
    }

    fn sum(self, field: &str) -> u64 {
        let of_one = |process| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.members().into_iter().filter_map(of_one).sum()
    }

    fn members(self) -> Vec<u32> {
        let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|process| Some((process, stat(process)?.parent)))
            .collect();
        let mut members = vec![self.0];
        let mut next = 0;
        while let Some(parent) = members.get(next).copied() {
            members.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
            next += 1;
        }
        members
    }
}

fn stat(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows is the third field (proc(5)).
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}
