//! How long a second client waits for an upload whose first client has gone silent in the middle of a request: asking
//! for the offset (HEAD), and then sending the next bytes (PATCH), each on a connection of its own.

use crate::{
    http::send_bytes,
    server::{Kind, Programs, Server, Upload},
};
use anyhow::{Context as _, Result};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const ANNOUNCED_BYTES: u64 = 8 << 20;
const SENT_BYTES: u64 = 64 << 10;
const NEXT_BYTES: u64 = 64 << 10;
/// A server that takes seconds for each would take the day; it is measured for so long.
const TIME_FOR_ONE_SERVER: Duration = Duration::from_secs(90);

pub(crate) struct HandOvers {
    pub(crate) kind: Kind,
    pub(crate) head_ms: Vec<f64>,
    pub(crate) patch_ms: Vec<f64>,
    /// How many times HEAD told of fewer bytes than had been sent a moment before, or the new PATCH was refused.
    pub(crate) lost: usize,
    pub(crate) refused: usize,
}

pub(crate) fn measure(
    kinds: &[Kind],
    programs: &Programs,
    folder: &Path,
    times: usize,
) -> Result<Vec<HandOvers>> {
    let kinds = kinds.iter().filter(|kind| kind.resumes());
    kinds
        .map(|kind| {
            let mut server = Server::start(*kind, programs, &folder.join("hand-over"))?;
            of_one(&mut server, times).with_context(|| format!("hand-over of {}", kind.name()))
        })
        .collect()
}

fn of_one(server: &mut Server, times: usize) -> Result<HandOvers> {
    let mut all = HandOvers { kind: server.kind, head_ms: vec![], patch_ms: vec![], lost: 0, refused: 0 };
    let begun = Instant::now();
    while all.head_ms.len() < times && begun.elapsed() < TIME_FOR_ONE_SERVER {
        let mut stalled = server.begin_upload(ANNOUNCED_BYTES)?;
        server.begin_bytes(&mut stalled, 0, ANNOUNCED_BYTES)?;
        send_bytes(&mut stalled.connection.socket, 0, SENT_BYTES)?;
        // So long that the server is waiting in the middle of the body.
        std::thread::sleep(Duration::from_millis(100));

        let head = Instant::now();
        let offset = server.offset(&stalled.path);
        all.head_ms.push(milliseconds(head));
        let Ok(offset) = offset else {
            all.refused += 1;
            continue;
        };
        all.lost += usize::from(offset < SENT_BYTES);
        let connection = crate::http::Connection::open(server.address)?;
        let mut next = Upload { connection, path: stalled.path.clone() };
        let patch = Instant::now();
        // Refused or never answered: the time until that counts as well.
        let taken = server.send_bytes(&mut next, offset, NEXT_BYTES);
        all.patch_ms.push(milliseconds(patch));
        all.refused += usize::from(taken.is_err());
    }
    eprintln!(
        "hand-over: {:12} {} times, HEAD p50 {:.1} ms, p99 {:.1} ms; PATCH p99 {:.1} ms; {} lost bytes, {} refused",
        all.kind.name(),
        all.head_ms.len(),
        quantile(&all.head_ms, 0.50),
        quantile(&all.head_ms, 0.99),
        quantile(&all.patch_ms, 0.99),
        all.lost,
        all.refused
    );
    Ok(all)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// The smallest value that `share` of all are not above.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
