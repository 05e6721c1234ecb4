//! The dialect and its engine by example, and what holds for any requests in any order.

use super::{
    Completion, DurablePart, ListedPart, Listing, MIN_PART_BYTES, Opening, PartRefusal, PartRequest, PartSet,
    PartSettled, PartSizes, PartUpload, PartsError, upload_id,
};
use crate::{
    Algorithm, BodyEnd, Check, Checksum, WholeHash,
    testing::{Sent, sent, sent_owned},
};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use std::ops::Range;

const UPLOAD: &str = "0192f0c8-0000-7000-8000-000000000001";
const MIB: u64 = 1 << 20;

fn request(number: u32, range: Range<u64>) -> PartRequest {
    PartRequest { number, range, check: Check::None }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = WholeHash::new();
    hash.update(bytes);
    hash.digest()
}

fn send(set: &mut PartSet, request: &PartRequest, body: &[u8]) -> Result<PartSettled, PartRefusal> {
    let mut chunk = set.begin(request)?;
    let taken = body.chunks(3).try_for_each(|piece| chunk.take(piece));
    let is_repeat = chunk.is_repeat();
    let settled = taken.and_then(|()| chunk.settle(&BodyEnd::Complete));
    match &settled {
        Ok(PartSettled::Store(part)) => set.insert(part.clone()).unwrap(),
        _ if !is_repeat => set.give_up(request.number),
        _ => {}
    }
    settled
}

/// Ten bytes: part 1 is "abcd", part 3 is "ij".
fn begun() -> PartSet {
    let mut set = PartSet::new(10);
    send(&mut set, &request(3, 8..10), b"ij").unwrap();
    send(&mut set, &request(1, 0..4), b"abcd").unwrap();
    set
}

#[test]
fn parts_count_in_any_order_and_what_is_missing_is_told() {
    let mut set = begun();
    assert_eq!((set.contiguous(), set.durable_bytes(), set.is_whole()), (4, 6, false));
    assert_eq!(set.missing().first(), Some(&(4..8)));
    send(&mut set, &request(2, 4..8), b"efgh").unwrap();
    assert_eq!((set.contiguous(), set.durable_bytes(), set.is_whole()), (10, 10, true));
    assert!(set.missing().is_empty());
}

#[test]
fn a_part_sent_again_is_compared_and_not_stored() {
    let mut set = begun();
    let same = send(&mut set, &request(1, 0..4), b"abcd").unwrap();
    assert!(matches!(same, PartSettled::AlreadyThere(part) if part.sha256 == sha256(b"abcd")));
    let other = send(&mut set, &request(1, 0..4), b"abcX");
    assert_eq!(other, Err(PartRefusal::OtherBytes { number: 1 }));
    let announced = Check::Announced(Checksum::of(Algorithm::Sha256, b"abcX"));
    let refused = set.begin(&PartRequest { check: announced, ..request(1, 0..4) }).err();
    assert_eq!(refused, Some(PartRefusal::OtherBytes { number: 1 }), "told before its body is sent");
}

#[test]
fn places_that_are_taken_or_outside_are_refused_with_what_is_there() {
    let mut set = begun();
    let mut refused = |number, range| set.begin(&request(number, range)).unwrap_err();
    assert_eq!(refused(1, 0..5), PartRefusal::OtherRange { number: 1, stored: 0..4 });
    assert_eq!(refused(2, 3..8), PartRefusal::Overlaps { number: 2, other: 1, taken: 0..4 });
    assert_eq!(refused(2, 4..9), PartRefusal::Overlaps { number: 2, other: 3, taken: 8..10 });
    assert_eq!(refused(2, 0..10), PartRefusal::Overlaps { number: 2, other: 3, taken: 8..10 });
    assert_eq!(refused(2, 4..11), PartRefusal::OutsideLength { number: 2, range: 4..11, length: 10 });
    assert_eq!(refused(2, 4..4), PartRefusal::OutsideLength { number: 2, range: 4..4, length: 10 });
}

#[test]
fn parts_under_way_keep_others_off_their_bytes_until_they_are_given_up() {
    let mut set = begun();
    set.begin(&request(2, 4..8)).unwrap();
    assert_eq!(
        set.begin(&request(5, 6..7)).unwrap_err(),
        PartRefusal::OverlapsUnderWay { number: 5, other: 2, taken: 4..8 }
    );
    assert_eq!(set.begin(&request(2, 4..8)).unwrap_err(), PartRefusal::UnderWay { number: 2 });
    set.give_up(2);
    assert!(set.begin(&request(5, 6..7)).is_ok());
}

#[test]
fn a_body_must_have_exactly_the_bytes_of_its_range_and_one_that_is_cut_counts_not() {
    let mut set = begun();
    let short = send(&mut set, &request(2, 4..8), b"efg");
    assert_eq!(short, Err(PartRefusal::BodyTooShort { number: 2, range: 4..8, received: 3 }));
    let long = send(&mut set, &request(2, 4..8), b"efghi");
    assert_eq!(long, Err(PartRefusal::BodyTooLong { number: 2, range: 4..8 }));
    let mut chunk = set.begin(&request(2, 4..8)).unwrap();
    chunk.take(b"efgh").unwrap();
    assert_eq!(chunk.settle(&BodyEnd::Cut), Ok(PartSettled::Discard));
    assert_eq!(set.contiguous(), 4);
}

#[test]
fn an_announced_checksum_of_any_algorithm_is_compared() {
    for algorithm in Algorithm::ALL {
        let mut set = begun();
        let check = Check::Announced(Checksum::of(algorithm, b"efgh"));
        let announced = PartRequest { check, ..request(2, 4..8) };
        let wrong = send(&mut set, &announced, b"efgX");
        let expected = PartRefusal::ChecksumMismatch { number: 2, algorithm: algorithm.as_str() };
        assert_eq!(wrong, Err(expected));
        assert!(send(&mut set, &announced, b"efgh").is_ok());
    }
}

#[test]
fn the_list_at_the_end_names_all_parts_once_and_as_they_are() {
    let mut set = begun();
    let listed = |set: &PartSet| -> Vec<ListedPart> {
        set.parts().map(|part| ListedPart { number: part.number, sha256: part.sha256 }).collect()
    };
    assert!(matches!(set.check_complete(&listed(&set)), Err(PartRefusal::NotWhole { .. })));
    send(&mut set, &request(2, 4..8), b"efgh").unwrap();
    let list = listed(&set);
    assert_eq!(set.check_complete(&list), Ok(()));
    let reversed: Vec<ListedPart> = list.iter().rev().cloned().collect();
    assert_eq!(set.check_complete(&reversed), Ok(()), "the order does not matter");
    assert_eq!(set.check_complete(&list[..2]), Err(PartRefusal::StoredNotListed { number: 3 }));
    let twice = [list.clone(), list[..1].to_vec()].concat();
    assert_eq!(set.check_complete(&twice), Err(PartRefusal::ListedTwice { number: 1 }));
    let mut other = list.clone();
    other[0].sha256[0] ^= 1;
    assert!(matches!(set.check_complete(&other), Err(PartRefusal::ListedOtherBytes { number: 1, .. })));
    let mut unknown = list.clone();
    unknown[0].number = 9;
    assert_eq!(set.check_complete(&unknown), Err(PartRefusal::ListedNotStored { number: 9 }));
}

#[test]
fn an_upload_without_bytes_is_whole_from_the_beginning() {
    assert!(PartSet::new(0).is_whole());
    assert_eq!(PartSet::new(0).check_complete(&[]), Ok(()));
}

#[test]
fn a_journal_that_contradicts_itself_is_refused() {
    let part = |number, range| DurablePart { number, range, sha256: [0; 32] };
    assert!(PartSet::restore(10, [part(1, 0..4), part(2, 4..10)]).is_ok());
    assert!(PartSet::restore(10, [part(1, 0..4), part(1, 0..4)]).is_ok(), "said twice");
    assert!(PartSet::restore(10, [part(1, 0..4), part(2, 3..10)]).is_err());
    assert!(PartSet::restore(10, [part(1, 0..11)]).is_err());
}

#[test]
fn refusals_say_what_to_send_instead() {
    let gaps = vec![0..1, 5..7, 8..9, 11..20, 30..40];
    for (refusal, says) in [
        (PartRefusal::NotWhole { missing: gaps }, "bytes 0-0, bytes 5-6, bytes 8-8 and 2 more ranges"),
        (PartRefusal::OutsideLength { number: 2, range: 5..20, length: 10 }, "ends at byte 9 at most"),
        (PartRefusal::BodyTooShort { number: 2, range: 5..20, received: 3 }, "3 bytes, its range has 15"),
        (PartRefusal::OtherRange { number: 2, stored: 5..20 }, "stored already as bytes 5-19"),
    ] {
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
}

#[test]
fn every_length_fits_into_parts_of_the_size_that_is_recommended() {
    assert_eq!(PartSizes::of(1).recommended, 16 * MIB);
    assert_eq!(PartSizes::of(100_000 * 16 * MIB).recommended, 160 * MIB);
    for length in [0, 1, 160_000 * MIB, 160_000 * MIB + 1, 512 << 30, PartSizes::max_length()] {
        let sizes = PartSizes::of(length);
        assert!(length.div_ceil(sizes.recommended) <= u64::from(sizes.count), "{length}");
        assert!((sizes.min..=sizes.max).contains(&sizes.recommended));
    }
}

#[test]
fn an_upload_is_begun_with_headers_or_with_json() {
    let headers = sent(&[("upload-length", "10"), ("upload-metadata", "filename YS5tcDQ=,draft")]);
    let opening = Opening::read(&headers, b"", 100).unwrap();
    assert_eq!((opening.length, opening.metadata.text("filename")), (10, Some("a.mp4")));
    let body =
        br#"{"length": 10, "filename": "a.mp4", "content_type": "video/mp4", "title": "A", "preset": "web"}"#;
    let opening = Opening::read(&sent(&[]), body, 100).unwrap();
    let text = |key| opening.metadata.text(key);
    assert_eq!((opening.length, text("filename"), text("filetype")), (10, Some("a.mp4"), Some("video/mp4")));
    assert_eq!((text("title"), text("preset")), (Some("A"), Some("web")));
    let both = Opening::read(&headers, br#"{"title": "A"}"#, 100).unwrap();
    assert_eq!((both.metadata.text("title"), both.metadata.text("filename")), (Some("A"), Some("a.mp4")));
    let digest = hex::encode(sha256(b"abc"));
    let told = format!("{{\"length\": 3, \"sha256\": \"{digest}\"}}");
    let expected = Opening::read(&sent(&[]), told.as_bytes(), 100).unwrap().expected;
    assert_eq!(expected, Some(sha256(b"abc")));
}

#[test]
fn a_beginning_that_cannot_be_read_is_told_why() {
    let read = |headers: &[(&'static str, &str)], body: &[u8]| {
        let error = Opening::read(&sent(headers), body, 100).unwrap_err();
        (error.status(), error.to_string())
    };
    for (headers, body, status, says) in [
        (&[] as &[(&'static str, &str)], b"" as &[u8], 400, "Upload-Length with the whole size"),
        (&[], b"{}", 400, "Upload-Length with the whole size"),
        (&[("upload-length", "ten")], b"", 400, "ten is not a number"),
        (
            &[("upload-length", "5")],
            b"{\"length\": 6}",
            400,
            "Upload-Length says 5 bytes and the body says 6",
        ),
        (&[("upload-length", "101")], b"", 413, "at most 100 bytes"),
        (&[], b"{\"length\": 5", 400, "cannot be read as JSON"),
        (&[], b"{\"file_name\": 5}", 400, "the members are length, filename"),
        (&[], b"{\"length\": -5}", 400, "cannot be read as JSON"),
        (&[], b"{\"length\": 5, \"sha256\": \"abc\"}", 400, "not 64 hexadecimal digits"),
        (&[("upload-length", "5"), ("upload-metadata", "a !")], b"", 400, "value of a is not base64"),
    ] {
        let (found, text) = read(headers, body);
        assert!(found == status && text.contains(says), "{found} {text}");
    }
}

fn put(changes: &[(&'static str, Option<&str>)]) -> Sent {
    let length = (16 * MIB).to_string();
    let mut headers = vec![
        ("x-upload-id", UPLOAD.to_owned()),
        ("x-part-number", "2".to_owned()),
        ("x-content-range", format!("bytes {}-{}/{}", 16 * MIB, 32 * MIB - 1, 100 * MIB)),
        ("content-length", length),
    ];
    for (name, value) in changes {
        headers.retain(|(key, _)| key != name);
        headers.extend(value.map(|value| (*name, value.to_owned())));
    }
    sent_owned(headers)
}

#[test]
fn a_part_is_read_from_its_headers() {
    let digest = Checksum::of(Algorithm::Md5, b"x");
    let md5 = "nQ5HVAcL72B/xAscUtejnA==";
    let upload = PartUpload::read(&put(&[])).unwrap();
    assert_eq!((upload.upload.to_string().as_str(), upload.number()), (UPLOAD, 2));
    let part = upload.within(100 * MIB).unwrap();
    assert_eq!(part, request(2, 16 * MIB..32 * MIB));
    let checked = PartUpload::read(&put(&[("content-md5", Some(md5))])).unwrap().within(100 * MIB).unwrap();
    assert!(
        matches!(checked.check, Check::Announced(announced) if announced.algorithm() == digest.algorithm())
    );
    let chunked = PartUpload::read(&put(&[("content-length", None)]));
    assert!(chunked.is_ok(), "a body whose length is not told is measured while it comes");
}

#[test]
fn a_part_that_cannot_be_is_told_why() {
    for (name, value, status, says) in [
        ("x-upload-id", None, 400, "X-Upload-ID that POST /uploads/parts answered"),
        ("x-upload-id", Some("../../etc"), 400, "is not an upload"),
        ("x-part-number", None, 400, "the number of the part"),
        ("x-part-number", Some("0"), 400, "0 is not one"),
        ("x-part-number", Some("10001"), 400, "10001 is not one"),
        ("x-part-number", Some("+1"), 400, "+1 is not a number"),
        ("x-content-range", None, 400, "such as X-Content-Range: bytes 0-99/1000"),
        ("x-content-range", Some("bytes 0-99/*"), 400, "* is not a number"),
        ("x-content-range", Some("bytes */100"), 400, "is no range"),
        ("x-content-range", Some("items 0-99/100"), 400, "is no range"),
        ("x-content-range", Some("bytes 9-8/100"), 400, "it ends at 8, before 9"),
        ("x-content-range", Some("bytes 0-9223372036854775808/9"), 400, "too large a number"),
        ("content-length", Some("5"), 400, "Content-Length says 5 bytes and X-Content-Range 16777216"),
        ("content-digest", Some("sha-256=:YWJj:"), 400, "3 bytes where 32 are due"),
        ("content-md5", Some("YWJj"), 400, "3 bytes where 16 are due"),
    ] {
        let error = PartUpload::read(&put(&[(name, value)])).unwrap_err();
        assert!(error.status() == status && error.to_string().contains(says), "{name}: {error}");
    }
}

#[test]
fn a_part_that_does_not_fit_the_upload_is_told_why() {
    let within = |range: &str, length| {
        let headers = put(&[("x-content-range", Some(range)), ("content-length", None)]);
        PartUpload::read(&headers).unwrap().within(length)
    };
    let other_total = within("bytes 0-9/10", 11).unwrap_err();
    assert_eq!(other_total, PartsError::TotalDiffers { claimed: 10, length: 11 });
    assert_eq!(other_total.status(), 409);
    assert_eq!(within("bytes 0-9/20", 20).unwrap_err(), PartsError::PartTooSmall { number: 2, byte_len: 10 });
    assert!(within("bytes 10-19/20", 20).is_ok(), "the part that ends the upload may be small");
    let total = 20 << 30;
    let huge = format!("bytes 0-{}/{total}", 5_u64 << 30);
    assert_eq!(within(&huge, total).unwrap_err().status(), 413);
    let smallest = format!("bytes 0-{}/{total}", MIN_PART_BYTES - 1);
    assert!(within(&smallest, total).is_ok());
}

#[test]
fn the_list_that_get_answers_can_be_sent_to_complete() {
    let set = begun();
    let listing = serde_json::to_value(Listing::from(&set)).unwrap();
    assert_eq!(listing["missing"], serde_json::json!([{"first_byte": 4, "last_byte": 7}]));
    assert_eq!(listing["parts"][1]["first_byte"], 8);
    let body = serde_json::to_vec(&listing["parts"]).unwrap();
    let completion = Completion::read(&sent(&[("x-upload-id", UPLOAD)]), &body).unwrap();
    let expected: Vec<ListedPart> =
        set.parts().map(|part| ListedPart { number: part.number, sha256: part.sha256 }).collect();
    assert_eq!(completion.list, expected);
}

#[test]
fn a_completion_is_a_list_or_a_list_with_a_digest() {
    let id = sent(&[("x-upload-id", UPLOAD)]);
    let digest = hex::encode(sha256(b"abc"));
    let bare = format!("[{{\"part_number\": 1, \"etag\": \"{digest}\"}}]");
    let quoted = format!("[{{\"part_number\": 1, \"etag\": \"\\\"{digest}\\\"\"}}]");
    let listed = vec![ListedPart { number: 1, sha256: sha256(b"abc") }];
    for list in [&bare, &quoted] {
        assert_eq!(Completion::read(&id, list.as_bytes()).unwrap().list, listed);
    }
    let full = format!("{{\"parts\": {bare}, \"sha256\": \"{digest}\"}}");
    let completion = Completion::read(&id, full.as_bytes()).unwrap();
    let expected = Some(sha256(b"abc"));
    assert_eq!((&completion.list, &completion.expected), (&listed, &expected));
    let repr = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
    let by_header = sent(&[("x-upload-id", UPLOAD), ("repr-digest", repr)]);
    assert_eq!(Completion::read(&by_header, bare.as_bytes()).unwrap().expected, expected);
    let contradiction = full.replacen(&format!("\"sha256\": \"{}", &digest[..1]), "\"sha256\": \"0", 1);
    assert_eq!(Completion::read(&by_header, contradiction.as_bytes()), Err(PartsError::WholeDigestTwice));
    for body in ["", "5", "[5]", "[{\"part_number\": 1}]", "[{\"part_number\": 1, \"etag\": \"x\"}]"] {
        assert_eq!(Completion::read(&id, body.as_bytes()).unwrap_err().status(), 400, "{body}");
    }
}

/// What clients may do to an upload of 40 bytes; they mean part n to be bytes 4n-4..4n, and err at times.
#[derive(Clone, Debug)]
enum Step {
    Send { number: u32, range: Range<u64>, wrong_bytes: bool },
    Begin { number: u32, range: Range<u64> },
    GiveUp { number: u32 },
}

const LENGTH: u64 = 40;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let regular = (1_u32..=10).prop_map(|number| {
        let start = u64::from(number - 1) * 4;
        (number, start..start + 4)
    });
    let odd =
        (1_u32..=12, 0..LENGTH + 3, 0_u64..9).prop_map(|(number, start, len)| (number, start..start + len));
    let place = prop_oneof![4 => regular, 1 => odd];
    let step = (place, 0..12_u8).prop_map(|((number, range), what)| match what {
        0 => Step::Begin { number, range },
        1 => Step::GiveUp { number },
        2 => Step::Send { number, range, wrong_bytes: true },
        _ => Step::Send { number, range, wrong_bytes: false },
    });
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn in_any_order_the_upload_becomes_the_file_or_is_not_whole(steps in steps()) {
        let file: Vec<u8> = (0..LENGTH as u8).collect();
        let mut set = PartSet::new(LENGTH);
        let mut disk = vec![None; LENGTH as usize];
        for step in steps {
            match step {
                Step::Begin { number, range } => drop(set.begin(&request(number, range))),
                Step::GiveUp { number } => set.give_up(number),
                Step::Send { number, range, wrong_bytes } => {
                    let mut body: Vec<u8> = range.clone().map(|at| at as u8).collect();
                    if wrong_bytes {
                        body.iter_mut().for_each(|byte| *byte ^= 0x80);
                    }
                    if let Ok(PartSettled::Store(_)) = send(&mut set, &request(number, range.clone()), &body) {
                        for (at, byte) in range.zip(body) {
                            assert_eq!(disk[at as usize].replace(byte), None, "byte {at} is written once");
                        }
                    }
                }
            }
        }
        let stored: Vec<bool> = disk.iter().map(Option::is_some).collect();
        let missing: Vec<u64> = set.missing().into_iter().flatten().collect();
        let unstored: Vec<u64> = (0..LENGTH).filter(|at| !stored[*at as usize]).collect();
        assert_eq!(missing, unstored);
        assert_eq!(set.contiguous(), unstored.first().copied().unwrap_or(LENGTH));
        assert_eq!(set.is_whole(), unstored.is_empty());
        let list: Vec<ListedPart> =
            set.parts().map(|part| ListedPart { number: part.number, sha256: part.sha256 }).collect();
        assert_eq!(set.check_complete(&list).is_ok(), unstored.is_empty());
        // What the list says is the file, if every part was made of the file.
        let of_file = |part: &DurablePart| {
            part.sha256 == sha256(&file[part.range.start as usize..part.range.end as usize])
        };
        if set.is_whole() && set.parts().all(of_file) {
            assert_eq!(disk.into_iter().flatten().collect::<Vec<u8>>(), file);
        }
        let restored = PartSet::restore(LENGTH, set.parts().cloned()).unwrap();
        assert_eq!(restored.missing(), set.missing());
    }

    #[test]
    fn no_headers_and_no_bodies_make_it_panic(
        texts in prop::collection::vec("\\PC{0,60}|bytes [0-9]{0,20}-[0-9]{0,20}/[0-9]{0,20}|[0-9]{0,25}", 6),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\{\"(length|parts|sha256)\": ?[\\[\\]{}0-9a-z\":,-]{0,40}".prop_map(String::into_bytes),
            "\\[\\{\"part_number\": [0-9]{1,12}, \"etag\": \"\\PC{0,70}\"\\}\\]".prop_map(String::into_bytes),
        ],
        good_id in prop_oneof![Just(true), Just(false)],
        length in any::<u64>(),
    ) {
        let names = ["x-part-number", "x-content-range", "content-length", "repr-digest", "upload-length"];
        let mut headers: Vec<(&'static str, String)> = names.into_iter().zip(texts.iter().cloned()).collect();
        headers.push(("x-upload-id", if good_id { UPLOAD.to_owned() } else { texts[5].clone() }));
        let fields = sent_owned(headers);
        let _ = (upload_id(&fields), Opening::read(&fields, &body, length), Completion::read(&fields, &body));
        if let Ok(part) = PartUpload::read(&fields).and_then(|upload| upload.within(length)) {
            let _ = PartSet::new(length).begin(&part);
        }
        let _ = PartSizes::of(length);
    }
}
