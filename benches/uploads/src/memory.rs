//! What memory uploads take: the most that one of 1 GiB ever holds, and what each of a thousand stalled ones does.

use crate::{
    http::send_bytes,
    server::{Kind, Programs, Server},
    transfer::{SHAPES, one, warm_up},
};
use anyhow::{Context as _, Result};
use std::{path::Path, thread, time::Duration};

/// A crowd of uploads that stop in the middle of a request.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) name: &'static str,
    count: usize,
    sent_bytes: u64,
}

/// The second ones had run at full speed for a while: buffers that grow with speed have grown by then.
pub(crate) const CROWDS: [Crowd; 2] = [
    Crowd { name: "each of 1000 stalled after 64 KiB", count: 1000, sent_bytes: 64 << 10 },
    Crowd { name: "each of 250 stalled after 4 MiB", count: 250, sent_bytes: 4 << 20 },
];
/// What each of them announced.
const ANNOUNCED_BYTES: u64 = 8 << 20;
/// Memory counts as settled when it stayed within this for so many looks in a row: longer than servers keep threads
/// that have nothing to do (10 s is usual).
const SETTLED_KIB: u64 = 64;
const SETTLED_LOOKS: usize = 12;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const MAX_LOOKS: usize = 45;

pub(crate) struct Memory {
    pub(crate) kind: Kind,
    /// When it had just started and had nothing to do.
    pub(crate) idle_kib: u64,
    /// The most while it took 1 GiB in one request.
    pub(crate) peak_kib: u64,
    /// Growth for each stalled upload, crowd by crowd.
    pub(crate) stalled_kib: Vec<f64>,
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

    let stalled_kib =
        CROWDS.iter().map(|crowd| stalled(kind, programs, folder, *crowd)).collect::<Result<_>>()?;
    let memory = Memory { kind, idle_kib, peak_kib, stalled_kib };
    eprintln!(
        "memory: {:12} idle {idle_kib} KiB, 1 GiB peak {peak_kib} KiB, stalled {:.1?} KiB each",
        kind.name(),
        memory.stalled_kib
    );
    Ok(memory)
}

/// Growth for each upload of a crowd, in KiB, on a server of its own.
fn stalled(kind: Kind, programs: &Programs, folder: &Path, crowd: Crowd) -> Result<f64> {
    let mut server = Server::start(kind, programs, &folder.join("stalled"))?;
    warm_up(&mut server)?;
    let before = settled(&server);
    let mut held = Vec::new();
    for _ in 0..crowd.count {
        let mut upload = server.begin_upload(ANNOUNCED_BYTES)?;
        server.begin_bytes(&mut upload, 0, ANNOUNCED_BYTES)?;
        send_bytes(&mut upload.connection.socket, 0, crowd.sent_bytes)?;
        held.push(upload);
    }
    let grown = settled(&server).saturating_sub(before);
    Ok(grown as f64 / crowd.count as f64)
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
