//! A file from its beginning to its end by tus: slower than in parts, but every byte that arrives counts.

use super::{BytesBar, Sent, Transfer, shown};
use crate::client::{
    ClientError,
    resume::Remembered,
    tus::{self, Standing},
};
use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use std::{
    io::Read as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const HASH_BUFFER_BYTES: usize = 1 << 20;

struct Sending<'a> {
    transfer: &'a Transfer<'a>,
    bar: Option<BytesBar>,
    best_offset: Option<u64>,
    failures: u32,
}

/// Sends all that the server does not have yet.
pub(super) async fn send(transfer: &Transfer<'_>) -> anyhow::Result<Sent> {
    // Beside the transfer: the file is read a second time, mostly from the page cache.
    let digest = tokio::task::spawn_blocking({
        let path = transfer.path.to_owned();
        move || sha256_of(&path)
    });
    let mut sending = Sending { transfer, bar: None, best_offset: None, failures: 0 };
    let (address, last) = sending.run().await?;
    transfer.check_file()?;
    if let Some(bar) = sending.bar {
        bar.end();
    }
    let sha256 = digest.await?.with_context(|| transfer.path.display().to_string())?;
    Ok(Sent { address, asset: last.asset, server_sha256: last.sha256, sha256 })
}

impl Sending<'_> {
    async fn run(&mut self) -> anyhow::Result<(String, Standing)> {
        let Transfer { memory, display, .. } = self.transfer;
        let mut begun_anew = false;
        loop {
            self.transfer.check_file()?;
            let error = match self.send_rest().await {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            let (reason, retry_after) = match error {
                ClientError::Unreachable { reason, retry_after, answered } => {
                    if answered {
                        self.transfer.backoff(super::Backoff::answered);
                    }
                    (reason, retry_after)
                }
                stalled @ ClientError::Stalled(_) => (stalled.to_string(), None),
                // The upload that was remembered is gone: begin anew. One just made is not, so this ends.
                ClientError::Refused { status: 404 | 410, .. }
                    if !begun_anew && memory.recall().is_some() =>
                {
                    begun_anew = true;
                    memory.forget();
                    display.say("the unfinished upload is not on the server any more; beginning anew");
                    continue;
                }
                // Somebody else moved it on, or an answer was lost: ask where it stands.
                ClientError::Refused { status: 409, detail } => (detail, None),
                other => return Err(other.into()),
            };
            self.failures += 1;
            self.transfer.wait(self.failures, reason, retry_after).await?;
        }
    }

    /// What arrived of a chunk that was cut counts too, so a bad line is not the same as no progress.
    fn note(&mut self, offset: u64) {
        if self.best_offset.is_none_or(|best| offset > best) {
            self.best_offset = Some(offset);
            self.failures = 0;
            self.transfer.backoff(super::Backoff::progress);
        }
    }

    /// One go: ask where it stands, then chunk after chunk.
    async fn send_rest(&mut self) -> Result<(String, Standing), ClientError> {
        let Transfer { server, display, path, .. } = self.transfer;
        let length = self.transfer.identity.byte_len;
        let (address, mut standing) = self.find_or_create().await?;
        self.note(standing.offset);
        while standing.offset < length {
            let sent = Arc::new(AtomicU64::new(standing.offset));
            let chunk = tus::send_chunk(server, &address, path, standing.offset, length, sent.clone());
            let bar = self.bar.get_or_insert_with(|| display.bytes("upload", standing.offset, length));
            standing = shown(chunk, || sent.load(Ordering::Relaxed), bar).await?;
            bar.set(standing.offset);
            self.note(standing.offset);
        }
        // The digest comes with HEAD; so does the asset, when the last answer was lost.
        let last = tus::standing(server, &address).await?;
        Ok((address, last))
    }

    async fn find_or_create(&self) -> Result<(String, Standing), ClientError> {
        let Transfer { server, memory, display, preset, title, tier, .. } = self.transfer;
        let length = self.transfer.identity.byte_len;
        if let Some(Remembered { upload: address, .. }) = memory.recall() {
            let standing = tus::standing(server, &address).await?;
            if standing.length.is_none_or(|told| told == length) && standing.offset <= length {
                return Ok((address, standing));
            }
            display.say("the unfinished upload has another length; beginning anew");
            memory.forget();
        }
        let file_name = self.transfer.file_name();
        let mut metadata: Vec<(&str, &[u8])> = vec![("filename", file_name.as_bytes())];
        metadata.extend(preset.map(|preset| ("preset", preset.as_bytes())));
        metadata.extend(title.map(|title| ("title", title.as_bytes())));
        metadata.extend(tier.map(|tier| ("tier", tier.as_bytes())));
        let address = tus::create(server, length, &metadata).await?;
        memory.remember(&Remembered { upload: address.clone(), part_bytes: None });
        let standing = tus::standing(server, &address).await?;
        Ok((address, standing))
    }
}

fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; HASH_BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            byte_len => hash.update(&buffer[..byte_len]),
        }
    }
}
