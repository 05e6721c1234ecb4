//! SHA-256 of the whole upload, computed as it streams, in a form that survives a restart.
//!
//! The stored form is what `sha2` 0.11 makes of its state; the crate promises that any 0.11 release reads what
//! another wrote. [`STATE_KIND`] names that form in the journal: a reader that finds another kind hashes the durable
//! bytes again instead of trusting it.

use sha2::{
    Digest, Sha256,
    digest::{
        common::hazmat::{SerializableState, SerializedState},
        typenum::Unsigned,
    },
};

/// Name of the stored form: sha2 0.11's serialised SHA-256.
pub const STATE_KIND: u8 = 1;
/// Length of the stored form in bytes.
pub const STATE_LEN: usize = <Sha256 as SerializableState>::SerializedStateSize::USIZE;

#[derive(Clone, Default)]
pub struct WholeHash(Sha256);

impl WholeHash {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn digest(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    pub fn save(&self) -> [u8; STATE_LEN] {
        let mut state = [0; STATE_LEN];
        state.copy_from_slice(&self.0.serialize());
        state
    }

    /// `None` when the bytes are not a stored state.
    pub fn restore(state: &[u8]) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(state).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }
}

impl std::fmt::Debug for WholeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WholeHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::{STATE_LEN, WholeHash};

    #[test]
    fn a_restored_state_goes_on_as_if_nothing_had_happened() {
        for split in [0, 1, 63, 64, 65, 1000] {
            let bytes = vec![7_u8; 1000];
            let mut first = WholeHash::new();
            first.update(&bytes[..split]);
            let mut second = WholeHash::restore(&first.save()).unwrap();
            second.update(&bytes[split..]);
            first.update(&bytes[split..]);
            assert_eq!(second.digest(), first.digest(), "split at {split}");
        }
    }

    /// A journal written by yesterday's program must be read by today's: the stored form is pinned here.
    #[test]
    fn the_stored_form_of_abc_is_the_one_of_the_first_release() {
        let mut hash = WholeHash::new();
        hash.update(b"abc");
        assert_eq!(STATE_LEN, 104);
        let golden = include_str!("../tests/golden/sha256-state-abc.hex");
        assert_eq!(hex::encode(hash.save()), golden.trim());
        assert_eq!(
            hex::encode(WholeHash::restore(&hex::decode(golden.trim()).unwrap()).unwrap().digest()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn garbage_is_not_a_state() {
        assert!(WholeHash::restore(&[]).is_none());
        assert!(WholeHash::restore(&[0xff; STATE_LEN]).is_none());
    }
}
