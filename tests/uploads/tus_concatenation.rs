//! tus 1.0.0, concatenation (also of unfinished partial uploads) on the wire: a test for each demand of the text, and
//! what becomes of pieces that are missing, foreign, or in the middle of being joined when the server is killed.

use super::{
    server::Server,
    tus::expire,
    wire::{Answer, Request, wait_until},
};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn post_partial(server: &Server) -> Request {
    server.tus("POST", "/uploads").with("Upload-Concat", "partial")
}

/// A partial upload that has all its bytes.
fn partial(server: &Server, bytes: &[u8]) -> String {
    let request = post_partial(server).with("Upload-Length", &bytes.len().to_string());
    made(request.with("Content-Type", "application/offset+octet-stream").send(bytes))
}

/// A partial upload of this length without any byte yet.
fn empty_partial(server: &Server, length: usize) -> String {
    made(post_partial(server).with("Upload-Length", &length.to_string()).send(b""))
}

fn post_final(server: &Server, partials: &[&str]) -> Request {
    server.tus("POST", "/uploads").with("Upload-Concat", &format!("final;{}", partials.join(" ")))
}

fn made(answer: Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

fn head(server: &Server, upload: &str) -> Answer {
    let answer = server.tus("HEAD", upload).send(b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn assert_content(server: &Server, upload: &str, bytes: &[u8]) {
    let told = head(server, upload);
    assert_eq!((told.number("upload-offset"), told.number("upload-length")), (bytes.len(), bytes.len()));
    let answer = server.tus("GET", upload).send(b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(Sha256::digest(&answer.body), Sha256::digest(bytes));
}

fn assets(server: &Server) -> usize {
    let key = format!("Bearer {}", server.key);
    let answer = server.bare("GET", "/v1/assets").with("Authorization", &key).send(b"");
    let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    page["items"].as_array().unwrap().len()
}

#[test]
fn tus_partial_uploads_are_joined_in_the_order_of_the_list() {
    let server = Server::start();
    let (abc, nothing, de) = (partial(&server, b"abc"), partial(&server, b""), partial(&server, b"de"));
    let answer = post_final(&server, &[&de, &nothing, &abc]).send(b"");
    assert_eq!((answer.status, answer.number("upload-offset")), (201, 5));
    assert!(answer.header("reelyard-asset").is_some(), "{answer:?}");
    assert_content(&server, answer.header("location").unwrap(), b"deabc");
    assert_eq!(data_files(&server), Vec::<PathBuf>::new(), "no byte is kept twice");
}

#[test]
fn tus_partial_uploads_are_named_by_any_form_of_their_address_and_more_than_once() {
    let server = Server::start();
    let (a, b) = (partial(&server, b"a"), partial(&server, b"b"));
    let absolute = format!("https://video.example/behind/a/proxy{b}/");
    let joined = made(post_final(&server, &[&a, &absolute, &a, &b]).send(b""));
    assert_content(&server, &joined, b"abab");
}

#[test]
fn tus_partial_uploads_become_no_assets() {
    let mut server = Server::start();
    let piece = partial(&server, b"abc");
    let told = head(&server, &piece);
    assert_eq!((told.number("upload-offset"), told.number("upload-length")), (3, 3));
    assert_eq!(told.header("reelyard-asset"), None);
    assert_eq!(server.tus("GET", &piece).send(b"").status, 409);
    server.kill();
    server.restart();
    assert_eq!(head(&server, &piece).header("reelyard-asset"), None, "nor when the server starts again");
    assert_eq!(assets(&server), 0);
    let joined = made(post_final(&server, &[&piece]).send(b""));
    assert_content(&server, &joined, b"abc");
    assert_eq!(assets(&server), 1);
}

#[test]
fn tus_a_final_upload_with_a_length_is_400() {
    let server = Server::start();
    let piece = partial(&server, b"abc");
    for (name, value) in [("Upload-Length", "3"), ("Upload-Defer-Length", "1")] {
        let answer = post_final(&server, &[&piece]).with(name, value).send(b"");
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.detail().contains("Upload-Length"), "{answer:?}");
    }
    assert_eq!(assets(&server), 0);
    let body = post_final(&server, &[&piece]).with("Content-Type", "application/offset+octet-stream");
    assert_eq!(body.send(b"abc").status, 403, "it takes no bytes either");
    assert_content(&server, &made(post_final(&server, &[&piece]).send(b"")), b"abc");
}

#[test]
fn tus_a_final_upload_has_its_own_metadata_only() {
    let server = Server::start();
    let piece = |byte: &[u8], metadata: &str| {
        let request = post_partial(&server).with("Upload-Length", "1").with("Upload-Metadata", metadata);
        let piece = made(request.send(b""));
        assert_eq!(server.patch(&piece, 0, byte).status, 204);
        piece
    };
    let (a, b) = (piece(b"a", "title UGllY2U=,secret eA=="), piece(b"b", "filename Yi5tcDQ="));
    assert_eq!(head(&server, &a).header("upload-metadata"), Some("title UGllY2U=,secret eA=="));
    let none = head(&server, &made(post_final(&server, &[&a]).send(b"")));
    assert_eq!(none.header("upload-metadata"), None);
    let own = post_final(&server, &[&b]).with("Upload-Metadata", "title V2hvbGU=").send(b"");
    let told = head(&server, own.header("location").unwrap());
    assert_eq!(told.header("upload-metadata"), Some("title V2hvbGU="));
    let asset = format!("/v1/assets/{}", told.header("reelyard-asset").unwrap());
    let asset = server.bare("GET", &asset).with("Authorization", &format!("Bearer {}", server.key)).send(b"");
    let asset: serde_json::Value = serde_json::from_slice(&asset.body).unwrap();
    assert_eq!(asset["title"], "Whole");
}

#[test]
fn tus_a_final_upload_takes_no_patch_and_nothing_changes() {
    let server = Server::start();
    let (whole, begun) = (partial(&server, b"abc"), empty_partial(&server, 3));
    assert_eq!(server.patch(&begun, 0, b"d").status, 204);
    let joined = made(post_final(&server, &[&whole]).send(b""));
    let other = partial(&server, b"xyz");
    let waiting = made(post_final(&server, &[&other, &begun]).send(b""));
    for upload in [&joined, &waiting] {
        let plain = server.tus("PATCH", upload);
        for answer in [
            server.patch(upload, 0, b"x"),
            server.patch(upload, 3, b""),
            server.patch(upload, 3, b"x"),
            server.patch_request(upload, 0).with("Upload-Length", "7").send(b""),
            plain.clone().with("Upload-Offset", "0").send(b"x"),
            plain.send(b""),
        ] {
            assert_eq!(answer.status, 403, "{answer:?}");
            assert!(answer.detail().contains("partial"), "{answer:?}");
        }
    }
    assert_content(&server, &joined, b"abc");
    assert_eq!((server.offset(&begun), server.offset(&other)), (1, 3));
    assert_eq!(server.patch(&begun, 1, b"ef").status, 204);
    assert_content(&server, &waiting, b"xyzdef");
}

#[test]
fn tus_a_final_upload_may_come_before_its_partial_uploads_are_complete() {
    let mut server = Server::start();
    let first = empty_partial(&server, 3);
    let second = made(post_partial(&server).with("Upload-Defer-Length", "1").send(b""));
    let answer = post_final(&server, &[&first, &second]).send(b"");
    assert_eq!((answer.status, answer.header("upload-offset")), (201, None), "nothing is joined");
    let joined = answer.header("location").unwrap();
    let told = head(&server, joined);
    assert_eq!((told.header("upload-offset"), told.header("upload-length")), (None, None));
    assert_eq!(server.patch(&second, 0, b"de").status, 204);
    assert_eq!(server.patch(&first, 0, b"abc").status, 204);
    let request = server.patch_request(&second, 2).with("Upload-Length", "4");
    assert_eq!(request.send(b"").status, 204);
    // Both lengths are known, so theirs is; that needs no byte more.
    let told = head(&server, joined);
    assert_eq!((told.header("upload-offset"), told.number("upload-length")), (None, 7));
    assert_eq!(told.header("upload-defer-length"), None);
    assert_eq!(server.tus("GET", joined).send(b"").status, 409);
    server.kill();
    server.restart();
    assert_eq!(head(&server, joined).number("upload-length"), 7);
    assert_eq!(server.patch(&second, 2, b"fg").status, 204);
    assert_content(&server, joined, b"abcdefg");
    assert_eq!(assets(&server), 1);
}

/// The last word may be the length alone, when all bytes came before it.
#[test]
fn tus_a_partial_upload_that_is_completed_by_its_length_completes_the_final_one() {
    let server = Server::start();
    let piece = made(post_partial(&server).with("Upload-Defer-Length", "1").send(b""));
    let joined = made(post_final(&server, &[&piece]).send(b""));
    for (offset, byte) in [(0, b"a"), (1, b"b"), (2, b"c")] {
        assert_eq!(server.patch(&piece, offset, byte).status, 204);
    }
    let last = server.patch_request(&piece, 3).with("Upload-Length", "3").send(b"");
    assert_eq!((last.status, last.number("upload-offset")), (204, 3), "{last:?}");
    assert_content(&server, &joined, b"abc");
}

#[test]
fn tus_head_of_partial_and_final_uploads_gives_the_concatenation_back() {
    let server = Server::start();
    let begun = empty_partial(&server, 4);
    server.patch(&begun, 0, b"ab");
    let told = head(&server, &begun);
    assert_eq!((told.header("upload-concat"), told.number("upload-offset")), (Some("partial"), 2));
    let absolute = format!("{}{begun}", server.url());
    let list = format!("final;{begun} {absolute}");
    let joined = made(post_final(&server, &[&begun, &absolute]).send(b""));
    assert_eq!(head(&server, &joined).header("upload-concat"), Some(list.as_str()));
    server.patch(&begun, 2, b"cd");
    assert_eq!(head(&server, &joined).header("upload-concat"), Some(list.as_str()), "also when it is joined");
    assert_content(&server, &joined, b"abcdabcd");
    assert_eq!(head(&server, &server.create(3)).header("upload-concat"), None);
}

#[test]
fn tus_a_list_of_partial_uploads_that_names_others_is_400() {
    let mut server = Server::start();
    let (good, whole, given_up) = (partial(&server, b"a"), server.create(1), partial(&server, b"b"));
    let expired = partial(&server, b"c");
    server.patch(&whole, 0, b"x");
    let waiting = made(post_final(&server, &[&empty_partial(&server, 1)]).send(b""));
    assert_eq!(server.tus("DELETE", &given_up).send(b"").status, 204);
    server.stop();
    expire(&server, &expired);
    server.restart();
    wait_until("it expires", || server.tus("HEAD", &expired).send(b"").status == 410);
    for other in [
        whole.as_str(),
        &server.create(1),
        &given_up,
        &expired,
        &waiting,
        "/uploads/01a1f796-f79c-7406-9094-d9e8634960f4",
        "/uploads/nonsense",
        "nonsense",
        ",",
    ] {
        let answer = post_final(&server, &[&good, other]).send(b"");
        assert_eq!(answer.status, 400, "{other}");
        assert!(answer.detail().contains(other.rsplit('/').next().unwrap()), "{answer:?}");
    }
    for header in ["final", "final;", "final; ", "partial;", "whole", &format!("final;{good}  {good}")] {
        let answer = server.tus("POST", "/uploads").with("Upload-Concat", header).send(b"");
        assert_eq!(answer.status, 400, "{header:?}");
    }
    assert_content(&server, &made(post_final(&server, &[&good]).send(b"")), b"a");
}

#[test]
fn tus_partial_uploads_of_another_owner_are_as_unknown_as_none() {
    let server = Server::start();
    let command = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_reelyard"))
            .args(arguments)
            .arg("--data-dir")
            .arg(&server.data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    command(&["tenants", "add", "other"]);
    let key = command(&["keys", "add", "--label", "other", "--scopes", "uploads:write", "--tenant", "other"]);
    let other = |method: &str, path: &str| {
        let request = server.bare(method, path).with("Authorization", &format!("Bearer {key}"));
        request.with("Tus-Resumable", "1.0.0")
    };
    let ours = partial(&server, b"ours");
    let theirs = other("POST", "/uploads").with("Upload-Concat", "partial").with("Upload-Length", "0");
    let theirs = made(theirs.send(b""));
    let mixed = format!("final;{ours} {theirs}");
    for request in [server.tus("POST", "/uploads"), other("POST", "/uploads")] {
        assert_eq!(request.with("Upload-Concat", &mixed).send(b"").status, 400);
    }
    assert_eq!(other("HEAD", &ours).send(b"").status, 404);
    let joined = made(post_final(&server, &[&ours]).send(b""));
    assert_content(&server, &joined, b"ours");
    // Neither do they get at it by asking for the same again.
    let again = other("POST", "/uploads").with("Upload-Concat", &format!("final;{ours}")).send(b"");
    assert_eq!(again.status, 400, "{again:?}");
    for path in [&ours, &joined] {
        assert_eq!(other("HEAD", path).send(b"").status, 404);
        assert_eq!(other("DELETE", path).send(b"").status, 404);
    }
}

#[test]
fn tus_a_final_upload_is_as_long_as_the_server_takes_at_most() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let (long, short) = (partial(&server, &[1; 999]), partial(&server, b"a"));
    assert_eq!(post_final(&server, &[&long, &short, &short]).send(b"").status, 413);
    let open = made(post_partial(&server).with("Upload-Defer-Length", "1").send(b""));
    let waiting = made(post_final(&server, &[&long, &open]).send(b""));
    assert_eq!(server.patch_request(&open, 0).with("Upload-Length", "2").send(b"bc").status, 204);
    let told = server.tus("HEAD", &waiting).send(b"");
    assert_eq!((told.status, told.header("upload-offset")), (413, None), "it can never be joined");
    assert_content(
        &server,
        &made(post_final(&server, &[&long, &short]).send(b"")),
        &[vec![1; 999], b"a".to_vec()].concat(),
    );
}

#[test]
fn tus_complete_partial_and_final_uploads_can_be_terminated() {
    let server = Server::start();
    let complete = server.create(3);
    server.patch(&complete, 0, b"abc");
    let (begun, whole) = (empty_partial(&server, 3), partial(&server, b"abc"));
    let joined = made(post_final(&server, &[&partial(&server, b"abc")]).send(b""));
    let waiting = made(post_final(&server, &[&begun, &whole]).send(b""));
    for upload in [&complete, &joined, &waiting, &begun, &whole] {
        assert_eq!(server.tus("DELETE", upload).send(b"").status, 204, "{upload}");
        assert_eq!(server.tus("HEAD", upload).send(b"").status, 410);
        assert_eq!(server.tus("DELETE", upload).send(b"").status, 410);
    }
    assert_eq!(data_files(&server), Vec::<PathBuf>::new(), "their bytes are freed");
    assert_eq!(assets(&server), 2, "what became an asset stays one");
}

#[test]
fn tus_a_final_upload_whose_partial_upload_is_gone_is_gone_too_and_says_so() {
    let server = Server::start();
    let (kept, given_up) = (partial(&server, b"a"), empty_partial(&server, 1));
    let waiting = made(post_final(&server, &[&kept, &given_up]).send(b""));
    server.tus("DELETE", &given_up).send(b"");
    assert_eq!(server.tus("HEAD", &waiting).send(b"").status, 410);
    let told = server.tus("POST", &waiting).with("X-HTTP-Method-Override", "HEAD").send(b"");
    assert!(told.detail().contains("partial"), "{told:?}");
    assert_content(&server, &made(post_final(&server, &[&kept]).send(b"")), b"a");
}

#[test]
fn tus_a_partial_upload_does_not_expire_while_a_final_upload_waits_for_it() {
    let mut server = Server::start();
    let (waited_for, other) = (empty_partial(&server, 1), empty_partial(&server, 1));
    let waiting = made(post_final(&server, &[&waited_for]).send(b""));
    server.stop();
    [&waited_for, &other].iter().for_each(|upload| expire(&server, upload));
    server.restart();
    wait_until("the other one expires", || server.tus("HEAD", &other).send(b"").status == 410);
    assert_eq!(server.patch(&waited_for, 0, b"a").status, 204);
    assert_content(&server, &waiting, b"a");
}

/// The text allows to use partial uploads again; they go when no final upload waits for them any more.
#[test]
fn tus_a_partial_upload_may_be_joined_into_several_final_uploads() {
    let server = Server::start();
    let (shared, late) = (partial(&server, b"ab"), empty_partial(&server, 1));
    let waiting = made(post_final(&server, &[&shared, &late]).send(b""));
    assert_content(&server, &made(post_final(&server, &[&shared]).send(b"")), b"ab");
    assert_eq!(server.offset(&shared), 2, "somebody waits for it");
    assert_eq!(server.patch(&late, 0, b"c").status, 204);
    assert_content(&server, &waiting, b"abc");
    wait_until("the pieces are gone", || data_files(&server).is_empty());
}

/// Joining takes long, so its answer gets lost; the pieces may be gone by then.
#[test]
fn tus_a_final_upload_whose_answer_was_lost_can_be_asked_for_again() {
    let server = Server::start();
    let (abc, de) = (partial(&server, b"abc"), partial(&server, b"de"));
    let request = post_final(&server, &[&abc, &de]).with("Upload-Metadata", "title V2hvbGU=");
    let connection = request.clone().begin(Some(0));
    wait_until("it is joined and its pieces are gone", || {
        assets(&server) == 1 && data_files(&server).is_empty()
    });
    drop(connection);
    for (piece, length) in [(&abc, 3), (&de, 2)] {
        let told = head(&server, piece);
        assert_eq!((told.number("upload-offset"), told.number("upload-length")), (length, length));
        assert_eq!((told.header("upload-concat"), told.header("upload-expires")), (Some("partial"), None));
        assert_eq!(server.patch(piece, length, b"").status, 410, "there is nothing to go on with");
    }
    let again = request.clone().send(b"");
    assert_eq!((again.status, again.number("upload-offset")), (201, 5));
    assert!(again.header("reelyard-asset").is_some(), "{again:?}");
    let joined = made(request.send(b""));
    assert_eq!(again.header("location"), Some(joined.as_str()));
    assert_content(&server, &joined, b"abcde");
    assert_eq!(
        post_final(&server, &[&abc, &de]).send(b"").status,
        400,
        "another one, of pieces that are gone"
    );
    assert_eq!(assets(&server), 1);
    server.tus("DELETE", &joined).send(b"");
    assert_eq!(server.tus("HEAD", &abc).send(b"").status, 410);
}

#[test]
fn tus_a_final_upload_that_waits_is_made_once_however_often_it_is_asked_for() {
    let server = Server::start();
    let begun = empty_partial(&server, 3);
    let joined = made(post_final(&server, &[&begun]).send(b""));
    assert_eq!(made(post_final(&server, &[&begun]).send(b"")), joined);
    let other = post_final(&server, &[&begun]).with("Upload-Metadata", "title V2hvbGU=");
    assert_ne!(made(other.send(b"")), joined, "of other metadata, so another one");
    server.patch(&begun, 0, b"abc");
    assert_content(&server, &joined, b"abc");
    wait_until("both are made", || assets(&server) == 2);
}

#[test]
fn tus_a_concatenation_that_a_kill_interrupts_is_taken_up() {
    const PIECE_BYTES: usize = 32 << 20;
    /// Each piece stands in the list so often: the joining takes as many times as long as the sending, and a test that
    /// stands still for a moment still comes in the middle of it.
    const TIMES: usize = 4;
    const WHOLE_BYTES: usize = 2 * TIMES * PIECE_BYTES;
    /// Behind a checkpoint at least, so that there is something to go on from.
    const KILL_AFTER_BYTES: u64 = 64 << 20;
    let pieces = [vec![3; PIECE_BYTES], (0..PIECE_BYTES).map(|n| (n / 251) as u8).collect()];
    let mut server = Server::start();
    let partials: Vec<String> = pieces.iter().map(|bytes| partial(&server, bytes)).collect();
    let partials: Vec<&str> = partials.iter().map(String::as_str).collect();
    let connection = post_final(&server, &partials.repeat(TIMES)).begin(Some(0));
    let mut joined: Option<PathBuf> = None;
    wait_until("it is joined in part", || {
        joined = joined.take().or_else(|| {
            let is_partial = |file: &PathBuf| partials.iter().any(|partial| partial.ends_with(name(file)));
            data_files(&server).into_iter().find(|file| !is_partial(file))
        });
        joined
            .as_ref()
            .is_some_and(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > KILL_AFTER_BYTES))
    });
    server.kill();
    drop(connection);
    let joined = joined.unwrap();
    let left = std::fs::metadata(&joined).expect("it was not finished yet").len();
    assert!(left < WHOLE_BYTES as u64, "all of it was joined already");
    server.restart();
    let upload = format!("/uploads/{}", name(&joined));
    assert_content(&server, &upload, &pieces.concat().repeat(TIMES));
    assert_eq!(assets(&server), 1);
    wait_until("the pieces are freed", || data_files(&server).is_empty());
}

/// Of uploads that are not finished: there the bytes are, with the journals beside them.
fn data_files(server: &Server) -> Vec<PathBuf> {
    let files = std::fs::read_dir(server.data.join("uploads")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_none()).collect()
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}
