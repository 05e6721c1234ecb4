//! The signing keys: one that signs, and the one before it, which still verifies until the next rotation.
//!
//! `reelyard serve` keeps the file form in `signing-keys.json` (mode 0600). It makes the random bytes; this file
//! only orders them. A damaged file is refused as a whole: guessing at keys would lock viewers out without a word.

use crate::token::{self, TokenError, VerifiedToken};
use reelyard_model::PlaybackId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the file form.
pub const KEYRING_VERSION: u32 = 1;
/// As long as the output of SHA-256: RFC 2104 section 3 advises against less and gains nothing from more.
pub const SECRET_BYTES: usize = 32;
/// Digits of a kid's number; rotation once a second would take 30 years to fill it.
const MAX_KEY_NUMBER: u32 = 999_999_999;

/// One secret with its public name (`k1`, `k2`, ...), which travels in the token.
#[derive(Clone, PartialEq, Eq)]
struct SigningKey {
    number: u32,
    secret: [u8; SECRET_BYTES],
}

impl SigningKey {
    fn kid(&self) -> String {
        format!("k{}", self.number)
    }
}

/// The live keys. `Debug` shows their names only.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    current: SigningKey,
    previous: Option<SigningKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error(
        "the signing key file is not the JSON that this program writes ({reason}); restore it from a backup, or \
         delete it to have new keys made (every playback URL given out so far then stops working)"
    )]
    Unreadable { reason: String },
    #[error(
        "the signing key file has version {found}, this program knows version {KEYRING_VERSION}: it was written by \
         another release of reelyard; start that release, or restore the file from before"
    )]
    UnknownVersion { found: u32 },
}

impl Keyring {
    /// A first ring. `secret` must come from the operating system's random source.
    pub fn new(secret: [u8; SECRET_BYTES]) -> Self {
        Self { current: SigningKey { number: 1, secret }, previous: None }
    }

    /// The ring after a rotation: `secret` signs from now on, the key that signed until now verifies until the next
    /// rotation, the one before that is dead. Rotate no more often than the longest lifetime of a token.
    #[must_use]
    pub fn rotated(&self, secret: [u8; SECRET_BYTES]) -> Self {
        let number = if self.current.number >= MAX_KEY_NUMBER { 1 } else { self.current.number + 1 };
        Self { current: SigningKey { number, secret }, previous: Some(self.current.clone()) }
    }

    /// The name of the key that signs, e.g. for logs.
    pub fn current_kid(&self) -> String {
        self.current.kid()
    }

    /// A token that opens `/p/{token}/{playback_id}/` until `expires_at_unix_seconds`.
    pub fn sign(&self, playback_id: PlaybackId, expires_at_unix_seconds: u64) -> String {
        token::sign(&self.current.kid(), &self.current.secret, playback_id, expires_at_unix_seconds)
    }

    /// Whether `token` opens `playback_id` now. A forged token is `Forged` whatever time it claims, so `Expired`
    /// tells a caller that the viewer once had the right and may ask for a new URL.
    pub fn verify(
        &self,
        token: &str,
        playback_id: PlaybackId,
        now_unix_seconds: u64,
    ) -> Result<VerifiedToken, TokenError> {
        let parsed = token::parse(token)?;
        // A kid is public, so an early way out on it tells nothing.
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.kid() == parsed.kid)
            .ok_or(TokenError::UnknownKey)?;
        token::verify(&parsed, &key.secret, playback_id, now_unix_seconds)
    }

    /// Reads the file form.
    pub fn from_json(text: &str) -> Result<Self, KeyringError> {
        // serde_json's messages name a line and a column; they quote at most the offending scalar's type here,
        // because every field is a number or a string of its own type.
        let unreadable = |reason: &str| KeyringError::Unreadable { reason: reason.to_owned() };
        let versioned: VersionOnly =
            serde_json::from_str(text).map_err(|error| unreadable(&position_of(&error)))?;
        if versioned.version != KEYRING_VERSION {
            return Err(KeyringError::UnknownVersion { found: versioned.version });
        }
        let file: KeyringFile =
            serde_json::from_str(text).map_err(|error| unreadable(&position_of(&error)))?;
        let mut keys = file.keys.iter().map(|key| {
            let number = key
                .kid
                .strip_prefix('k')
                .and_then(|digits| digits.parse::<u32>().ok())
                .filter(|number| (1..=MAX_KEY_NUMBER).contains(number) && key.kid == format!("k{number}"))
                .ok_or_else(|| unreadable("a kid is not `k` and a number"))?;
            let mut secret = [0_u8; SECRET_BYTES];
            hex::decode_to_slice(&key.secret, &mut secret)
                .map_err(|_| unreadable("a secret is not 64 hexadecimal digits"))?;
            Ok(SigningKey { number, secret })
        });
        let current = keys.next().ok_or_else(|| unreadable("it holds no key"))??;
        let previous = keys.next().transpose()?;
        if keys.next().is_some() {
            return Err(unreadable("it holds more than two keys"));
        }
        if previous.as_ref().is_some_and(|previous| previous.number == current.number) {
            return Err(unreadable("two keys have the same kid"));
        }
        Ok(Self { current, previous })
    }

    /// Writes the file form. The caller keeps it at mode 0600.
    pub fn to_json(&self) -> String {
        let entry = |key: &SigningKey| KeyFile { kid: key.kid(), secret: hex::encode(key.secret) };
        let file = KeyringFile {
            version: KEYRING_VERSION,
            keys: std::iter::once(&self.current).chain(&self.previous).map(entry).collect(),
        };
        // Strings and a number: there is nothing in it that cannot be written as JSON.
        let mut text = serde_json::to_string_pretty(&file).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Where a JSON error lies, without serde's message: that may quote a piece of a secret.
fn position_of(error: &serde_json::Error) -> String {
    format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, secret not shown)", self.kid())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("current", &self.current).field("previous", &self.previous).finish()
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// `signing-keys.json`: the first key signs, the second one verifies only.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    version: u32,
    keys: Vec<KeyFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kid: String,
    secret: String,
}

#[cfg(test)]
mod tests {
    use super::{Keyring, KeyringError, SECRET_BYTES};

    const FILE_OF_VERSION_1: &str = r#"{
  "version": 1,
  "keys": [
    {
      "kid": "k2",
      "secret": "0202020202020202020202020202020202020202020202020202020202020202"
    },
    {
      "kid": "k1",
      "secret": "0101010101010101010101010101010101010101010101010101010101010101"
    }
  ]
}
"#;

    #[test]
    fn the_file_form_goes_both_ways() {
        let ring = Keyring::new([1; SECRET_BYTES]).rotated([2; SECRET_BYTES]);
        assert_eq!(ring.to_json(), FILE_OF_VERSION_1);
        assert_eq!(Keyring::from_json(FILE_OF_VERSION_1).unwrap(), ring);
    }

    #[test]
    fn debug_shows_no_secret() {
        let ring = Keyring::new([0xAB; SECRET_BYTES]).rotated([0xCD; SECRET_BYTES]);
        let shown = format!("{ring:?} {ring:#?}").to_lowercase();
        assert!(!shown.contains("abab") && !shown.contains("cdcd"), "{shown}");
        assert!(!shown.contains("171") && !shown.contains("205"), "{shown}");
    }

    #[test]
    fn damaged_files_are_refused_without_quoting_a_secret() {
        let secret = "ee".repeat(32);
        let cases = [
            String::new(),
            "[]".to_owned(),
            r#"{"version":1,"keys":[]}"#.to_owned(),
            format!(r#"{{"version":1,"keys":[{{"kid":"k1","secret":"{secret}ee"}}]}}"#),
            format!(r#"{{"version":1,"keys":[{{"kid":"k01","secret":"{secret}"}}]}}"#),
            format!(r#"{{"version":1,"keys":[{{"kid":"","secret":"{secret}"}}]}}"#),
            format!(r#"{{"version":1,"keys":["{secret}"]}}"#),
            format!(r#"{{"version":1,"keys":"{secret}"}}"#),
            format!(r#"{{"version":1,"keys":[{{"kid":"k1","secret":"{secret}","more":1}}]}}"#),
            format!(
                r#"{{"version":1,"keys":[{{"kid":"k1","secret":"{secret}"}},{{"kid":"k1","secret":"{secret}"}}]}}"#
            ),
        ];
        for case in cases {
            let error = Keyring::from_json(&case).unwrap_err().to_string();
            assert!(!error.contains("eeee"), "{error}");
        }
        let newer = r#"{"version":2,"anything":true}"#;
        assert!(matches!(Keyring::from_json(newer), Err(KeyringError::UnknownVersion { found: 2 })));
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics_or_reads_as_another_ring(text: String, at in 0..FILE_OF_VERSION_1.len(), with in "[0-9a-z\"{},]") {
            let _ = Keyring::from_json(&text);
            let mut damaged = FILE_OF_VERSION_1.to_owned();
            damaged.replace_range(at..=at, &with);
            let ring = Keyring::new([1; SECRET_BYTES]).rotated([2; SECRET_BYTES]);
            // One character of damage is refused, or is another digit of a secret or kid (which no check can tell).
            if let Ok(read) = Keyring::from_json(&damaged) {
                proptest::prop_assert!(read == ring || with.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }
}
