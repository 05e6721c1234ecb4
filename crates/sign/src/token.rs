//! The token itself: `v1.{kid}.{expiry}.{mac}`.
//!
//! `expiry` is in seconds since 1970 (UTC), decimal without leading zeros. `mac` is HMAC-SHA256 (RFC 2104) in
//! unpadded URL-safe base64 (RFC 4648 section 5) over the canonical string, one item a line:
//! `reelyard-playback`, version, kid, `/{playback_id}/`, expiry. Each token has exactly one spelling: anything else
//! is `Malformed`, so that no cache sees two names for one right.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use reelyard_model::PlaybackId;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Longest text looked at: `v1.` + 10 + 1 + 20 + 1 + 43 fits well.
pub const MAX_TOKEN_BYTES: usize = 96;
const TOKEN_VERSION: &str = "v1";
const MAC_BYTES: usize = 32;
/// `k` and up to nine digits.
const MAX_KID_BYTES: usize = 10;

/// Why a token does not open what was asked for. The texts are for logs and hold no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Genuine, but its time is over: 410 Gone, ask for a new URL.
    #[error("the playback token expired {expired_for_seconds} s ago; ask for a new playback URL")]
    Expired { expired_for_seconds: u64 },
    /// Not made by this server for this playback id: 403.
    #[error("the playback token was not made by this server for this video")]
    Forged,
    /// Its key is not live any more (or never was): 403.
    #[error(
        "the playback token names a signing key that is not in use (any more); ask for a new playback URL"
    )]
    UnknownKey,
    /// Not a token at all: 403.
    #[error("this is not a playback token")]
    Malformed,
}

/// What a good token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    pub expires_at_unix_seconds: u64,
    /// For `Cache-Control: max-age`: above zero.
    pub seconds_left: u64,
}

pub(crate) struct ParsedToken<'text> {
    pub(crate) kid: &'text str,
    expires_at_unix_seconds: u64,
    mac: [u8; MAC_BYTES],
}

pub(crate) fn sign(
    kid: &str,
    secret: &[u8; 32],
    playback_id: PlaybackId,
    expires_at_unix_seconds: u64,
) -> String {
    let mac = compute_mac(kid, secret, playback_id, expires_at_unix_seconds);
    format!("{TOKEN_VERSION}.{kid}.{expires_at_unix_seconds}.{}", URL_SAFE_NO_PAD.encode(mac))
}

/// Takes a token apart, without looking at any key.
pub(crate) fn parse(text: &str) -> Result<ParsedToken<'_>, TokenError> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let mut fields = text.split('.');
    let (Some(TOKEN_VERSION), Some(kid), Some(expiry), Some(mac_text), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(TokenError::Malformed);
    };
    if kid.is_empty() || kid.len() > MAX_KID_BYTES || !kid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TokenError::Malformed);
    }
    // `parse` alone would take `+7` and `007` as well.
    if !expiry.bytes().all(|byte| byte.is_ascii_digit()) || (expiry.starts_with('0') && expiry.len() > 1) {
        return Err(TokenError::Malformed);
    }
    let expires_at_unix_seconds = expiry.parse().map_err(|_| TokenError::Malformed)?;
    // The engine refuses padding and left-over bits, so each MAC has one spelling.
    let mac = URL_SAFE_NO_PAD
        .decode(mac_text)
        .ok()
        .and_then(|bytes| <[u8; MAC_BYTES]>::try_from(bytes).ok())
        .ok_or(TokenError::Malformed)?;
    Ok(ParsedToken { kid, expires_at_unix_seconds, mac })
}

pub(crate) fn verify(
    token: &ParsedToken<'_>,
    secret: &[u8; 32],
    playback_id: PlaybackId,
    now_unix_seconds: u64,
) -> Result<VerifiedToken, TokenError> {
    let expected = compute_mac(token.kid, secret, playback_id, token.expires_at_unix_seconds);
    // Constant time: an early way out would tell a forger how many bytes are right.
    if !bool::from(expected.ct_eq(&token.mac)) {
        return Err(TokenError::Forged);
    }
    match token.expires_at_unix_seconds.checked_sub(now_unix_seconds) {
        None | Some(0) => Err(TokenError::Expired {
            expired_for_seconds: now_unix_seconds.saturating_sub(token.expires_at_unix_seconds),
        }),
        Some(seconds_left) => {
            Ok(VerifiedToken { expires_at_unix_seconds: token.expires_at_unix_seconds, seconds_left })
        }
    }
}

fn compute_mac(
    kid: &str,
    secret: &[u8; 32],
    playback_id: PlaybackId,
    expires_at_unix_seconds: u64,
) -> [u8; MAC_BYTES] {
    // HMAC takes keys of any length: RFC 2104 pads short ones and hashes long ones.
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC refused a key of 32 bytes"),
    };
    let canonical =
        format!("reelyard-playback\n{TOKEN_VERSION}\n{kid}\n/{playback_id}/\n{expires_at_unix_seconds}\n");
    mac.update(canonical.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::{TokenError, VerifiedToken};
    use crate::Keyring;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use reelyard_model::PlaybackId;
    use uuid::Uuid;

    const HOUR: u64 = 3600;
    const NOW: u64 = 1_800_000_000;

    fn film() -> PlaybackId {
        PlaybackId::from_uuid(Uuid::from_u128(7))
    }

    #[test]
    fn a_token_is_a_stable_text() {
        // Made once with Python's hmac module; a change here breaks every URL that was given out.
        assert_eq!(
            Keyring::new([1; 32]).sign(film(), NOW),
            "v1.k1.1800000000.qB9XPTdfpo5BE0iz-v0fdnz62-4veB8HrTA7aH2O1Aw"
        );
    }

    #[test]
    fn opens_its_own_video_until_its_time_is_over() {
        let ring = Keyring::new([1; 32]);
        let token = ring.sign(film(), NOW + HOUR);
        assert_eq!(
            ring.verify(&token, film(), NOW),
            Ok(VerifiedToken { expires_at_unix_seconds: NOW + HOUR, seconds_left: HOUR })
        );
        assert_eq!(ring.verify(&token, film(), NOW + HOUR - 1).unwrap().seconds_left, 1);
        assert_eq!(
            ring.verify(&token, film(), NOW + HOUR),
            Err(TokenError::Expired { expired_for_seconds: 0 })
        );
        assert_eq!(
            ring.verify(&token, film(), NOW + HOUR + 9),
            Err(TokenError::Expired { expired_for_seconds: 9 })
        );
        let another = PlaybackId::from_uuid(Uuid::from_u128(8));
        assert_eq!(ring.verify(&token, another, NOW), Err(TokenError::Forged));
    }

    #[test]
    fn a_key_verifies_for_one_rotation_after_it_signed() {
        let first = Keyring::new([1; 32]);
        let token = first.sign(film(), NOW + HOUR);
        let second = first.rotated([2; 32]);
        assert!(second.verify(&token, film(), NOW).is_ok());
        assert!(second.sign(film(), NOW).starts_with("v1.k2."));
        let third = second.rotated([3; 32]);
        assert_eq!(third.verify(&token, film(), NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn an_expired_forgery_is_a_forgery() {
        let token = Keyring::new([9; 32]).sign(film(), NOW - HOUR);
        assert_eq!(Keyring::new([1; 32]).verify(&token, film(), NOW), Err(TokenError::Forged));
    }

    #[test]
    fn other_spellings_of_a_good_token_are_malformed() {
        let ring = Keyring::new([1; 32]);
        let token = ring.sign(film(), NOW + HOUR);
        let expiry = (NOW + HOUR).to_string();
        for other in [
            String::new(),
            ".".repeat(3),
            format!("{token}="),
            format!("{token}."),
            format!(" {token}"),
            token.replace("v1.", "v2."),
            token.replace("v1.", "V1."),
            token.replace(&expiry, &format!("0{expiry}")),
            token.replace(&expiry, &format!("+{expiry}")),
            token.replace(&expiry, "99999999999999999999999"),
            token.replace(&expiry, ""),
            token.replace(".k1.", ".."),
            token.replace(".k1.", ".k\u{661}."),
            "v1.k1.1.".to_owned() + &"A".repeat(4096),
        ] {
            assert_eq!(ring.verify(&other, film(), NOW), Err(TokenError::Malformed), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(secret: [u8; 32], id: u128, left in 1_u64..1 << 40, at: usize, bit in 0_u8..8) {
            let ring = Keyring::new(secret);
            let id = PlaybackId::from_uuid(Uuid::from_u128(id));
            let token = ring.sign(id, NOW + left);
            prop_assert!(ring.verify(&token, id, NOW).is_ok());
            let mut bytes = token.into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(flipped) = String::from_utf8(bytes) {
                let refusal = ring.verify(&flipped, id, NOW).unwrap_err();
                let called_expired = matches!(refusal, TokenError::Expired { .. });
                prop_assert!(!called_expired);
            }
        }

        #[test]
        fn no_text_whatever_is_a_token(text in any::<String>(), dots in "(v1)?\\.[a-z0-9]{0,12}\\.[0-9+-]{0,22}\\.[A-Za-z0-9_=-]{0,60}") {
            let ring = Keyring::new([1; 32]);
            prop_assert!(ring.verify(&text, film(), NOW).is_err());
            prop_assert!(ring.verify(&dots, film(), NOW).is_err());
        }

        #[test]
        fn rings_survive_their_file(first: [u8; 32], second: [u8; 32]) {
            let ring = Keyring::new(first).rotated(second);
            prop_assert_eq!(&Keyring::from_json(&ring.to_json()).unwrap(), &ring);
        }
    }
}
