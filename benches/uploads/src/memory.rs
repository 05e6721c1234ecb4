//! What memory uploads take: the most that one of 1 GiB ever holds, and what each of a thousand stalled ones does.

use crate::{
    http::send_bytes,
    server::{Kind, Programs, Server},
    transfer::{SHAPES, one, warm_up},
};
use anyhow::{Context as _, Result};
use std::{path::Path, thread, time::Duration};

pub(crate) const STALLED: usize = 1000;
/// What a stalled upload announced, and what it sent of it.
const ANNOUNCED_BYTES: u64 = 8 << 20;
const SENT_BYTES: u64 = 64 << 10;
/// Memory counts as settled when it stayed within this for so many looks in a row.
const SETTLED_KIB: u64 = 64;
const SETTLED_LOOKS: usize = 4;
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const MAX_LOOKS: usize = 60;

pub(crate) struct Memory {
    pub(crate) kind: Kind,
    /// When it had just started and had nothing to do.
    pub(crate) idle_kib: u64,
    /// The most while it took 1 GiB in one request.
    pub(crate) peak_kib: u64,
    /// Growth for each stalled upload.
    pub(crate) stalled_kib: f64,
}

pub(crate) fn measure(kinds: &[Kind], programs: &Programs, folder: &Path) -> Result<Vec<Memory>> {
    // The floor takes one connection at a time.
    let kinds = kinds.iter().filter(|kind| **kind != Kind::Floor);
    kinds
        .map(|kind| of_one(*kind, programs, folder).with_context(|| format!("memory of {}", kind.name())))
        .collect()
}

fn of_one(kind: Kind, programs: &Programs, folder: &Path) -> Result<Memory> {
    let mut server = Server::start(kind, programs, &folder.join("memory"))?;
    let idle_kib = settled(&server);
    server.tree.forget_peak()?;
    one(&mut server, SHAPES[0])?;
    let peak_kib = server.tree.peak_kib();
    drop(server);

    let mut server = Server::start(kind, programs, &folder.join("stalled"))?;
    warm_up(&mut server)?;
    let before = settled(&server);
    let mut held = Vec::new();
    for _ in 0..STALLED {
        let mut upload = server.begin_upload(ANNOUNCED_BYTES)?;
        server.begin_bytes(&mut upload, 0, ANNOUNCED_BYTES)?;
        send_bytes(&mut upload.connection.socket, 0, SENT_BYTES)?;
        held.push(upload);
    }
    let grown = settled(&server).saturating_sub(before);
    let memory = Memory { kind, idle_kib, peak_kib, stalled_kib: grown as f64 / STALLED as f64 };
    eprintln!(
        "memory: {:12} idle {idle_kib} KiB, 1 GiB peak {peak_kib} KiB, stalled {:.1} KiB each",
        kind.name(),
        memory.stalled_kib
    );
    Ok(memory)
}

/// Resident memory in KiB, once it no longer changes.
fn settled(server: &Server) -> u64 {
    let mut last = server.tree.resident_kib();
    let mut quiet = 0;
    for _ in 0..MAX_LOOKS {
        thread::sleep(LOOK_INTERVAL);
        let now = server.tree.resident_kib();
        quiet = if now.abs_diff(last) <= SETTLED_KIB { quiet + 1 } else { 0 };
        last = now;
        if quiet == SETTLED_LOOKS {
            break;
        }
    }
    last
}
