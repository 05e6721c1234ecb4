//! Checksum of one chunk, as a client announces it and as the bytes turn out to be.
//!
//! Used by the engine while the chunk streams through, and by every dialect for reading what was announced; which of
//! the algorithms a dialect offers is the dialect's matter. It guards against damage on the way, not against people,
//! so MD5, SHA-1 and the CRCs are fine here. Never fails: bytes go in, a digest comes out.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// What clients may announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
    Md5,
    /// The CRC of zip and gzip (ISO 3309). Its digest is four bytes, the most significant first.
    Crc32,
    /// Castagnoli's CRC (RFC 3720 section 12.1). Its digest is four bytes, the most significant first.
    Crc32c,
}

impl Algorithm {
    pub const ALL: [Self; 6] = [Self::Sha1, Self::Sha256, Self::Sha512, Self::Md5, Self::Crc32, Self::Crc32c];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
        }
    }

    /// In bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Md5 => 16,
            Self::Crc32 | Self::Crc32c => 4,
        }
    }

    /// Case matters not: tus wants lower case only and RFC 9530 has its own names, but no two names differ by case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    pub(crate) fn start(self) -> RunningChecksum {
        match self {
            Self::Sha1 => RunningChecksum::Sha1(Sha1::new()),
            Self::Sha256 => RunningChecksum::Sha256(Sha256::new()),
            Self::Sha512 => RunningChecksum::Sha512(Sha512::new()),
            Self::Md5 => RunningChecksum::Md5(Md5::new()),
            Self::Crc32 => RunningChecksum::Crc32(crc32fast::Hasher::new()),
            Self::Crc32c => RunningChecksum::Crc32c(0),
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
    Sha512(Sha512),
    Md5(Md5),
    Crc32(crc32fast::Hasher),
    Crc32c(u32),
}

impl RunningChecksum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
            Self::Md5(hash) => hash.update(bytes),
            Self::Crc32(hash) => hash.update(bytes),
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
        }
    }

    pub(crate) fn digest(self) -> Vec<u8> {
        match self {
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Sha256(hash) => hash.finalize().to_vec(),
            Self::Sha512(hash) => hash.finalize().to_vec(),
            Self::Md5(hash) => hash.finalize().to_vec(),
            Self::Crc32(hash) => hash.finalize().to_be_bytes().to_vec(),
            Self::Crc32c(crc) => crc.to_be_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Checksum};
    use proptest::prelude::{any, prop, proptest};

    /// The check values of the algorithms' own texts, over "abc" (RFC 1321, FIPS 180-4) and "123456789" (the CRC
    /// catalogue's check input).
    #[test]
    fn digests_are_the_published_ones() {
        for (algorithm, bytes, digest) in [
            (Algorithm::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Algorithm::Sha512,
                "abc",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (Algorithm::Md5, "abc", "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Crc32, "123456789", "cbf43926"),
            (Algorithm::Crc32c, "123456789", "e3069283"),
        ] {
            let checksum = Checksum::of(algorithm, bytes.as_bytes());
            assert_eq!(hex::encode(checksum.digest()), digest, "{}", algorithm.as_str());
            assert_eq!(checksum.digest().len(), algorithm.digest_len());
        }
    }

    #[test]
    fn every_algorithm_is_found_by_its_name_and_takes_digests_of_its_length_only() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.as_str()), Some(algorithm));
            assert_eq!(Algorithm::from_name(&algorithm.as_str().to_uppercase()), Some(algorithm));
            let right = vec![0; algorithm.digest_len()];
            assert!(Checksum::new(algorithm, right).is_some());
            assert!(Checksum::new(algorithm, vec![0; algorithm.digest_len() + 1]).is_none());
            assert!(Checksum::new(algorithm, Vec::new()).is_none());
        }
        assert_eq!(Algorithm::from_name("sha-1"), None);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1_usize..200) {
            for algorithm in Algorithm::ALL {
                let mut running = algorithm.start();
                bytes.chunks(cut).for_each(|piece| running.update(piece));
                assert_eq!(running.digest(), Checksum::of(algorithm, &bytes).digest());
            }
        }
    }
}
