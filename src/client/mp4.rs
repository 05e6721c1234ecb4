//! Where the index of an MP4 or QuickTime file is, when it is at the end (ISO/IEC 14496-12 section 4.2).
//!
//! Reads the headers of top-level boxes, 16 bytes each. A file that is something else, or damaged, is simply one without
//! such an index: nothing here fails an upload.

use std::{fs::File, os::unix::fs::FileExt as _};

/// Files have a handful of top-level boxes before the index; one in fragments has thousands, and its index in front.
const MAX_BOXES: usize = 64;
/// What a file of this family begins with.
const FIRST_BOXES: [&[u8; 4]; 8] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"];

/// The first byte of `moov`, if it comes after the media data.
pub(crate) fn index_at_end(file: &File, length: u64) -> Option<u64> {
    let (mut offset, mut after_media) = (0_u64, false);
    for count in 0..MAX_BOXES {
        let mut head = [0_u8; 8];
        if offset.checked_add(8)? > length {
            return None;
        }
        file.read_exact_at(&mut head, offset).ok()?;
        let [a, b, c, d, kind @ ..] = head;
        if count == 0 && !FIRST_BOXES.contains(&&kind) {
            return None;
        }
        match &kind {
            b"moov" => return after_media.then_some(offset),
            b"mdat" => after_media = true,
            _ => {}
        }
        let size = match u32::from_be_bytes([a, b, c, d]) {
            // The size follows as 64 bits.
            1 => {
                let mut large = [0_u8; 8];
                file.read_exact_at(&mut large, offset + 8).ok()?;
                u64::from_be_bytes(large)
            }
            size => u64::from(size),
        };
        // Zero: the box goes to the end of the file. Less than a header: damaged.
        if size < 8 {
            return None;
        }
        offset = offset.checked_add(size)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::index_at_end;
    use std::io::Write as _;

    fn found(pieces: &[&[u8]]) -> Option<u64> {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = pieces.concat();
        file.write_all(&bytes).unwrap();
        index_at_end(&file, bytes.len() as u64)
    }

    #[test]
    fn the_index_is_found_behind_the_media_data_and_only_there() {
        let ftyp = b"\0\0\0\x10ftypisom0000";
        let media = b"\0\0\0\x0cmdat1234";
        let large_media = b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x121!";
        let moov = b"\0\0\0\x09moov!";
        assert_eq!(found(&[ftyp, media, moov]), Some(28));
        assert_eq!(found(&[ftyp, large_media, moov]), Some(34));
        assert_eq!(found(&[ftyp, moov, media]), None, "in front");
        assert_eq!(found(&[ftyp, b"\0\0\0\0mdat", moov]), None, "media data to the end");
    }

    #[test]
    fn files_that_are_no_mp4_or_damaged_have_no_index() {
        let ftyp = b"\0\0\0\x10ftypisom0000";
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[b"\x1aE\xdf\xa3 matroska"]), None);
        assert_eq!(found(&[ftyp, b"\0\0\0\x04mdat"]), None, "a size below its own header");
        assert_eq!(found(&[ftyp, b"\0\0\0\x01mdat"]), None, "cut in a large size");
        assert_eq!(found(&[ftyp, b"\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff"]), None, "beyond all");
        let many = b"\0\0\0\x08free".repeat(10_000);
        assert_eq!(found(&[ftyp, b"\0\0\0\x08mdat", &many, b"\0\0\0\x08moov"]), None, "too many boxes");
    }
}
