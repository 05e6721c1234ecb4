//! A disk without room: said so, nothing acknowledged is lost, and the upload goes on when there is room again.

use super::server::Server;
use sha2::{Digest, Sha256};

const DISK_BYTES: usize = 24 << 20;

#[test]
fn a_full_disk_is_507_and_the_upload_goes_on_when_there_is_room() {
    let Some(server) = Server::start_on_small_disk(DISK_BYTES) else {
        eprintln!("SKIPPED: this user may not mount a small disk (unshare -rm)");
        return;
    };
    let bytes: Vec<u8> = (0..14_usize << 20).map(|n| (n * 13 + n / 257) as u8).collect();
    // Both would fit when they are announced.
    let in_the_way = server.create(20 << 20);
    let upload = server.create(bytes.len());
    assert_eq!(server.patch(&in_the_way, 0, &bytes[..10 << 20]).status, 204);
    assert_eq!(server.patch(&upload, 0, &bytes[..2 << 20]).status, 204);
    // The answer may be lost when the connection is closed under the rest of the body; the offset tells as well.
    let refused = server.patch_request(&upload, 2 << 20).try_send(&bytes[2 << 20..]);
    if let Some(refused) = refused {
        assert_eq!(refused.status, 507, "{refused:?}");
        assert!(refused.detail().contains("is safe"), "{}", refused.detail());
    }
    let offset = server.offset(&upload);
    assert!((2 << 20..bytes.len()).contains(&offset), "{offset}");
    assert_eq!(server.tus("DELETE", &in_the_way).send(b"").status, 204);
    assert_eq!(server.patch(&upload, offset, &bytes[offset..]).status, 204);
    let whole = server.bare("GET", &upload).send(b"");
    assert_eq!(Sha256::digest(&whole.body), Sha256::digest(&bytes));
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_sent() {
    let Some(server) = Server::start_on_small_disk(DISK_BYTES) else {
        eprintln!("SKIPPED: this user may not mount a small disk (unshare -rm)");
        return;
    };
    let length = (DISK_BYTES + 1).to_string();
    let refused = server.tus("POST", "/uploads").with("Upload-Length", &length).send(b"");
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(refused.detail().contains(&length), "{}", refused.detail());
}
