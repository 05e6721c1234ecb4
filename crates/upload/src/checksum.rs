//! Checksum of one chunk, as a client announces it and as the bytes turn out to be.
//!
//! Used by the engine while the chunk streams through. It guards against damage on the way, not against people, so
//! SHA-1 is fine here.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What clients may announce. The order is the order in which the server names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Case matters not: the protocol only gives lower-case examples.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    pub(crate) fn start(self) -> RunningChecksum {
        match self {
            Self::Sha1 => RunningChecksum::Sha1(Sha1::new()),
            Self::Sha256 => RunningChecksum::Sha256(Sha256::new()),
        }
    }
}

/// What the client says the chunk's digest is. The length fits the algorithm: [`Checksum::new`] saw to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Checksum {
    /// `None` when the digest is not as long as the algorithm's digests are.
    pub fn new(algorithm: Algorithm, digest: Vec<u8>) -> Option<Self> {
        (digest.len() == algorithm.digest_len()).then_some(Self { algorithm, digest })
    }

    /// The digest of these bytes: what a client announces.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut running = algorithm.start();
        running.update(bytes);
        Self { algorithm, digest: running.digest() }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

#[derive(Clone)]
pub(crate) enum RunningChecksum {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl RunningChecksum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn digest(self) -> Vec<u8> {
        match self {
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Sha256(hash) => hash.finalize().to_vec(),
        }
    }
}
