//! Looks at the first bytes of the source and refuses what is surely no film, with a reason of its own.
//!
//! The allow-list of demuxers would refuse most of it too, but could not say why. Pure but for one read.

use crate::context::{Context, source_missing};
use reelyard_model::{Failure, FailureCode};

/// A playlist or manifest names itself well within this.
const HEAD_BYTES: usize = 4096;
/// ISO base media brands of pictures, not films (ISO/IEC 23008-12 section 10, AVIF 1.0 section 8).
const PICTURE_BRANDS: [&[u8; 4]; 7] = [b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"MA1B"];

pub(crate) fn source(context: &Context) -> Result<(), Failure> {
    let mut head = vec![0; HEAD_BYTES];
    let count = read_head(context, &mut head)?;
    head.truncate(count);
    match verdict(&head) {
        Some((code, what)) => Err(Failure::new(code, what)),
        None => Ok(()),
    }
}

fn read_head(context: &Context, head: &mut [u8]) -> Result<usize, Failure> {
    let mut filled = 0;
    while filled < head.len() {
        match context.source.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(source_missing(&error)),
        }
    }
    Ok(filled)
}

fn verdict(head: &[u8]) -> Option<(FailureCode, &'static str)> {
    if head.is_empty() {
        return Some((FailureCode::EmptyFile, "zero bytes"));
    }
    if head.get(4..8) == Some(b"ftyp") && is_picture_brand(head) {
        return Some((FailureCode::StillImage, "an HEIF or AVIF picture by its brand"));
    }
    let text = without_byte_order_mark(head).trim_ascii_start();
    if text.starts_with(b"#EXTM3U") {
        return Some((FailureCode::PlaylistNotMedia, "an HLS playlist"));
    }
    if text.starts_with(b"ffconcat") {
        return Some((FailureCode::PlaylistNotMedia, "an FFmpeg concat list"));
    }
    if text.starts_with(b"<") && contains(text, b"<MPD") {
        return Some((FailureCode::PlaylistNotMedia, "a DASH manifest"));
    }
    if contains(head, b"#EXTM3U") {
        return Some((FailureCode::PlaylistNotMedia, "an HLS playlist inside another container"));
    }
    if is_text(head) {
        return Some((FailureCode::NotMedia, "plain text"));
    }
    None
}

fn is_picture_brand(head: &[u8]) -> bool {
    // The major brand decides: films list picture brands among the compatible ones (motion photos).
    head.get(8..12).is_some_and(|major| PICTURE_BRANDS.iter().any(|brand| major == *brand))
}

fn without_byte_order_mark(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// No container begins with thousands of printable characters; Y4M's header is the exception.
fn is_text(head: &[u8]) -> bool {
    !head.starts_with(b"YUV4MPEG2")
        && head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80)
        && std::str::from_utf8(&head[..head.len().saturating_sub(3)]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use reelyard_model::FailureCode;

    #[test]
    fn each_kind_has_its_own_reason() {
        let code = |head: &[u8]| verdict(head).map(|(code, _)| code);
        assert_eq!(code(b""), Some(FailureCode::EmptyFile));
        assert_eq!(code(b"\xEF\xBB\xBF\n#EXTM3U\n"), Some(FailureCode::PlaylistNotMedia));
        assert_eq!(code(b"<?xml version=\"1.0\"?><MPD "), Some(FailureCode::PlaylistNotMedia));
        assert_eq!(code(b"ffconcat version 1.0"), Some(FailureCode::PlaylistNotMedia));
        assert_eq!(code(b"RIFF\0\0\0\0AVI LIST #EXTM3U"), Some(FailureCode::PlaylistNotMedia));
        assert_eq!(code(b"\0\0\0\x18ftypheic\0\0\0\0"), Some(FailureCode::StillImage));
        assert_eq!(code(b"Dear diary, today I filmed nothing.\n"), Some(FailureCode::NotMedia));
        assert_eq!(code(b"\0\0\0\x18ftypisom\0\0\0\0"), None);
        assert_eq!(code(b"\x1A\x45\xDF\xA3"), None);
    }
}
