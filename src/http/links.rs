//! Addresses that are given out: signed playback links and pages, and the times in them.
//!
//! Called by the resources that show an asset, and by the watch page. Makes tokens, never checks them.

use crate::app::App;
use http::{HeaderMap, header};
use jiff::Timestamp;
use reelyard_model::PlaybackId;
use serde::Serialize;
use utoipa::ToSchema;

/// How long a link works unless somebody asks for another time: a day at least, so that a page left open over lunch
/// or overnight goes on playing.
pub(super) const DEFAULT_TTL_SECONDS: u64 = 24 * 3600;
/// Longest that may be asked for. Rotating the signing keys twice within it cuts links short.
pub(super) const MAX_TTL_SECONDS: u64 = 30 * 24 * 3600;
/// Shortest: below a minute a clock that is off decides.
pub(super) const MIN_TTL_SECONDS: u64 = 60;
/// Default links end at multiples of this, so that asking twice gives the same address and caches stay warm.
const EXPIRY_STEP_SECONDS: u64 = 3600;

/// Signed addresses of one video; every one of them stops working at `expires_at`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PlaybackLinks {
    /// HLS, for hls.js, Safari and most players.
    #[schema(
        example = "http://127.0.0.1:8080/p/v1.k1.1800000000.qB9X/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01/master.m3u8"
    )]
    pub(super) hls: String,
    /// DASH over the same segments.
    pub(super) dash: String,
    /// A JPEG of the first good picture; null for sound alone.
    pub(super) poster: Option<String>,
    /// WebVTT index of the preview pictures; null for sound alone.
    pub(super) sprites: Option<String>,
    /// RFC 3339.
    #[schema(example = "2026-11-21T06:00:00Z")]
    pub(super) expires_at: String,
}

pub(super) fn now_unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

pub(super) fn default_expiry() -> u64 {
    (now_unix_seconds() + DEFAULT_TTL_SECONDS).next_multiple_of(EXPIRY_STEP_SECONDS)
}

/// `http://host:port`, without a trailing slash: what was configured, else what the request was addressed to. A
/// made-up `Host` reaches nobody but the one who sent it.
pub(super) fn base_url(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
    });
    host.map_or_else(String::new, |host| format!("http://{host}"))
}

/// Links to a video that plays. `has_pictures`: sound alone has neither poster nor preview pictures.
pub(super) fn playback_links(
    app: &App,
    base_url: &str,
    id: PlaybackId,
    expiry: u64,
    has_pictures: bool,
) -> PlaybackLinks {
    let folder = format!("{base_url}/p/{}/{id}", app.keyring.sign(id, expiry));
    let picture = |file: &str| has_pictures.then(|| format!("{folder}/{file}"));
    PlaybackLinks {
        hls: format!("{folder}/master.m3u8"),
        dash: format!("{folder}/manifest.mpd"),
        poster: picture("poster.jpg"),
        sprites: picture("sprites.vtt"),
        expires_at: rfc3339(i64::try_from(expiry).unwrap_or(i64::MAX).saturating_mul(1000)),
    }
}

/// The watch page; a server without keys needs no token in it.
pub(super) fn watch_url(app: &App, base_url: &str, id: PlaybackId, expiry: u64) -> String {
    if app.insecure_open {
        return format!("{base_url}/watch/{id}");
    }
    format!("{base_url}/watch/{id}?token={}", app.keyring.sign(id, expiry))
}

/// A duration as people say it.
pub(super) fn roughly(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, roughly};

    #[test]
    fn times_as_people_and_programs_write_them() {
        assert_eq!(rfc3339(1_800_000_000_123), "2027-01-15T08:00:00.123Z");
        assert_eq!(roughly(1), "1 second");
        assert_eq!(roughly(130), "2 minutes");
        assert_eq!(roughly(90_000), "25 hours");
        assert_eq!(roughly(400_000), "4 days");
    }
}
