//! What it costs to take bytes: processor time of the server and wall time of the client, server by server in turns.
//!
//! All servers run for the whole time, each warmed up once with an upload whose bytes are compared. The ratios are taken
//! round by round, between measurements that are seconds apart, because the machine may be a shared one.

use crate::{
    http::BLOCK,
    server::{Kind, Programs, Server},
};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, path::Path, time::Instant};

const WARM_UP_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) byte_len: u64,
    pub(crate) chunk_bytes: u64,
}

pub(crate) const SHAPES: [Shape; 2] = [
    Shape { name: "one PATCH of 1 GiB", byte_len: 1 << 30, chunk_bytes: 1 << 30 },
    Shape { name: "128 PATCHes of 8 MiB", byte_len: 1 << 30, chunk_bytes: 8 << 20 },
];

#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
}

/// The costs of one server at one shape, round by round.
pub(crate) struct Costs {
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) rounds: Vec<Cost>,
}

pub(crate) fn measure(
    kinds: &[Kind],
    programs: &Programs,
    folder: &Path,
    rounds: usize,
) -> Result<Vec<Costs>> {
    let mut servers = Vec::new();
    for kind in kinds {
        let mut server = Server::start(*kind, programs, &folder.join(format!("transfer-{}", servers.len())))?;
        warm_up(&mut server).with_context(|| format!("warming up {}", kind.name()))?;
        servers.push(server);
    }
    let mut all: Vec<Costs> = SHAPES
        .iter()
        .flat_map(|shape| kinds.iter().map(|kind| Costs { kind: *kind, shape: *shape, rounds: Vec::new() }))
        .collect();
    for round in 0..rounds {
        for (at, costs) in all.iter_mut().enumerate() {
            let server = &mut servers[at % kinds.len()];
            let cost = one(server, costs.shape)
                .with_context(|| format!("{}, {}", costs.kind.name(), costs.shape.name))?;
            eprintln!(
                "round {}: {:22} {:12} {:.2} s of processor, {:.2} s",
                round + 1,
                costs.shape.name,
                costs.kind.name(),
                cost.cpu_seconds,
                cost.wall_seconds
            );
            costs.rounds.push(cost);
        }
    }
    Ok(all)
}

pub(crate) fn one(server: &mut Server, shape: Shape) -> Result<Cost> {
    touch_memory(shape.byte_len + shape.byte_len / 4);
    let mut upload = server.begin_upload(shape.byte_len)?;
    let (cpu, begun) = (server.tree.cpu_seconds(), Instant::now());
    let mut offset = 0;
    while offset < shape.byte_len {
        server.send_bytes(&mut upload, offset, shape.chunk_bytes)?;
        offset += shape.chunk_bytes;
    }
    let wall_seconds = begun.elapsed().as_secs_f64();
    let cost = Cost { cpu_seconds: server.tree.cpu_seconds() - cpu, wall_seconds };
    drop(upload);
    server.remove_finished();
    Ok(cost)
}

/// In a virtual machine a page of memory costs several times as much when the machine below has to give it first, and
/// that is counted as whoever touches it first. So memory for the whole file is touched and freed before each
/// measurement: without that the same program differs by a factor of three from round to round.
fn touch_memory(byte_len: u64) {
    let mut memory = vec![0_u8; usize::try_from(byte_len).unwrap_or(usize::MAX)];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

/// And proof that the server keeps what it is sent, else its figures would mean nothing.
pub(crate) fn warm_up(server: &mut Server) -> Result<()> {
    let mut upload = server.begin_upload(WARM_UP_BYTES)?;
    server.send_bytes(&mut upload, 0, WARM_UP_BYTES)?;
    let path = server.largest_file().context("it keeps no file")?;
    let (mut hash, mut expected) = (Sha256::new(), Sha256::new());
    io::copy(&mut File::open(&path)?, &mut HashWriter(&mut hash))?;
    (0..WARM_UP_BYTES / BLOCK.len() as u64).for_each(|_| expected.update(&*BLOCK));
    ensure!(hash.finalize() == expected.finalize(), "{} holds other bytes than were sent", path.display());
    drop(upload);
    server.remove_finished();
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
