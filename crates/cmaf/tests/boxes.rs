//! What is written, box by box: texts to compare with, and a reader that shares no code with the writer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use pretty_assertions::assert_eq;
use proptest::prelude::{Strategy, any, prop};
use reelyard_cmaf::{
    AacConfig, AacTrack, AvcTrack, BitRate, CmafError, Colour, Fragment, FragmentPlace, ParameterSets,
    Sample, init_segment_aac, init_segment_avc, media_segment,
};
use std::fmt::Write;

const SPS: &[u8] = &[0x67, 0x64, 0x00, 0x1F, 0xAC, 0xD9, 0x40, 0x50, 0x05, 0xBB, 0x01, 0x10];
const PPS: &[u8] = &[0x68, 0xEB, 0xE3, 0xCB, 0x22, 0xC0];

fn parameter_sets() -> ParameterSets {
    let header = [&[0, 0, 0, 1], SPS, &[0, 0, 0, 1], PPS].concat();
    ParameterSets::from_extradata(&header).unwrap()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The boxes of one level: type and body.
fn children(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let len = u32_at(bytes, 0) as usize;
        assert!((8..=bytes.len()).contains(&len), "a box of {len} bytes in {}", bytes.len());
        found.push((String::from_utf8(bytes[4..8].to_vec()).unwrap(), &bytes[8..len]));
        bytes = &bytes[len..];
    }
    found
}

/// How many bytes come before the boxes inside, for boxes that hold boxes.
fn header_of_container(kind: &str) -> Option<usize> {
    match kind {
        "moov" | "trak" | "edts" | "mdia" | "minf" | "dinf" | "stbl" | "mvex" | "moof" | "traf" => Some(0),
        "dref" | "stsd" => Some(8),
        "avc1" => Some(78),
        "mp4a" => Some(28),
        _ => None,
    }
}

/// One line a box: type, length, and the bytes, zero runs shortened.
fn dump(bytes: &[u8]) -> String {
    fn level(bytes: &[u8], depth: usize, text: &mut String) {
        for (kind, body) in children(bytes) {
            let header = header_of_container(&kind);
            let shown = &body[..header.unwrap_or(body.len())];
            let hex: String = shown.chunks(4).map(|group| format!(" {}", hex(group))).collect();
            let hex = shorten_zeros(&hex);
            writeln!(text, "{}{kind} {}{hex}", "  ".repeat(depth), body.len() + 8).unwrap();
            if let Some(header) = header {
                level(&body[header..], depth + 1, text);
            }
        }
    }
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
    fn shorten_zeros(text: &str) -> String {
        let mut short = text.to_owned();
        for count in (2..=16).rev() {
            short = short.replace(&" 00000000".repeat(count), &format!(" 0x{count}"));
        }
        short
    }
    let mut text = String::from("\n");
    level(bytes, 0, &mut text);
    text
}

#[test]
fn initialization_segment_of_pictures() {
    let sets = parameter_sets();
    let track = AvcTrack {
        timescale: 90_000,
        parameter_sets: &sets,
        width: 1280,
        height: 720,
        colour: Colour::BT709,
        presentation_delay: 6000,
        bit_rate: Some(BitRate { average: 2_000_000, max: 3_000_000, buffer_bytes: 750_000 }),
    };
    let golden = "
ftyp 24 69736f36 00000000 69736f36 636d6663
moov 725
  mvhd 108 0x3 00015f90 00000000 00010000 01000000 0x2 00010000 0x3 00010000 0x3 40000000 0x6 00000002
  trak 569
    tkhd 92 00000003 0x2 00000001 0x6 00010000 0x3 00010000 0x3 40000000 05000000 02d00000
    edts 44
      elst 36 01000000 00000001 0x3 00001770 00010000
    mdia 425
      mdhd 32 0x3 00015f90 00000000 55c40000
      hdlr 47 0x2 76696465 0x3 5265656c 79617264 20766964 656f00
      minf 338
        vmhd 20 00000001 0x2
        dinf 36
          dref 28 00000000 00000001
            url  12 00000001
        stbl 274
          stsd 198 00000000 00000001
            avc1 182 00000000 00000001 0x4 050002d0 00480000 00480000 00000000 00010000 0x7 00000018 ffff
              avcC 41 0164001f ffe1000c 6764001f acd94050 05bb0110 01000668 ebe3cb22 c0fdf8f8 00
              colr 19 6e636c78 00010001 000100
              pasp 16 00000001 00000001
              btrt 20 000b71b0 002dc6c0 001e8480
          stts 16 0x2
          stsc 16 0x2
          stsz 20 0x3
          stco 16 0x2
  mvex 40
    trex 32 00000000 00000001 00000001 0x2 01010000
";
    assert_eq!(dump(&init_segment_avc(&track).unwrap()), golden);
    for (width, height) in [(0, 720), (1280, 0), (65_536, 720)] {
        let track = AvcTrack { width, height, ..track.clone() };
        assert_eq!(init_segment_avc(&track), Err(CmafError::PictureSize { width, height }));
    }
    let track = AvcTrack { timescale: 0, ..track };
    assert_eq!(init_segment_avc(&track), Err(CmafError::ZeroTimescale));
}

#[test]
fn initialization_segment_of_sound() {
    let config = AacConfig::low_complexity(48_000, 2).unwrap();
    let track = AacTrack {
        config: &config,
        language: Some("pt-BR"),
        bit_rate: BitRate { average: 128_000, max: 128_000, buffer_bytes: 768 },
    };
    let golden = "
ftyp 24 69736f36 00000000 69736f36 636d6663
moov 608
  mvhd 108 0x3 0000bb80 00000000 00010000 01000000 0x2 00010000 0x3 00010000 0x3 40000000 0x6 00000002
  trak 452
    tkhd 92 00000003 0x2 00000001 0x5 01000000 00010000 0x3 00010000 0x3 40000000 0x2
    mdia 352
      mdhd 32 0x3 0000bb80 00000000 55c40000
      hdlr 47 0x2 736f756e 0x3 5265656c 79617264 20736f75 6e6400
      elng 18 00000000 70742d42 5200
      minf 247
        smhd 16 0x2
        dinf 36
          dref 28 00000000 00000001
            url  12 00000001
        stbl 187
          stsd 111 00000000 00000001
            mp4a 95 00000000 00000001 0x2 00020010 00000000 bb800000
              esds 39 00000000 03190000 00041140 15000000 0001f400 0001f400 05021190 060102
              btrt 20 00000300 0001f400 0001f400
          stts 16 0x2
          stsc 16 0x2
          stsz 20 0x3
          stco 16 0x2
  mvex 40
    trex 32 00000000 00000001 00000001 0x2 02000000
";
    assert_eq!(dump(&init_segment_aac(&track).unwrap()), golden);
}

#[test]
fn languages() {
    let config = AacConfig::low_complexity(48_000, 2).unwrap();
    let language = |language: Option<&str>| {
        let bit_rate = BitRate { average: 0, max: 0, buffer_bytes: 0 };
        let track = AacTrack { config: &config, language, bit_rate };
        let text = dump(&init_segment_aac(&track).unwrap());
        let line = |kind: &str| text.lines().find(|line| line.contains(kind)).map(str::to_owned);
        (line("mdhd").unwrap().trim().rsplit(' ').next().unwrap()[..4].to_owned(), line("elng").is_some())
    };
    let (english, undetermined) = ("15c7".to_owned(), "55c4".to_owned());
    assert_eq!(language(Some("eng")), (english, false));
    assert_eq!(language(None), (undetermined.clone(), false));
    assert_eq!(language(Some("en")), (undetermined.clone(), true));
    for strange in ["", "e", "English, I think", "\u{0}\u{0}\u{0}", "-en", "zażółć"] {
        assert_eq!(language(Some(strange)), (undetermined.clone(), false), "{strange:?}");
    }
}

fn sample(data: &[u8], duration: u32, composition_offset: i32, sync: bool) -> Sample<'_> {
    Sample { data, duration, composition_offset, sync }
}

#[test]
fn a_segment_of_two_fragments() {
    let fragments = [
        Fragment {
            decode_time: 1 << 33,
            samples: vec![
                sample(b"idr!", 3600, 7200, true),
                sample(b"p", 3600, 10_800, false),
                sample(b"bb", 3600, 0, false),
            ],
        },
        Fragment {
            decode_time: (1 << 33) + 10_800,
            samples: vec![sample(b"idr?", 3600, -1, true), sample(b"p", 5400, 0, false)],
        },
    ];
    let segment = media_segment(7, &fragments).unwrap();
    let golden = "
styp 24 6d736468 00000000 6d736468 636d6673
moof 124
  mfhd 16 00000000 00000007
  traf 100
    tfhd 24 00020028 00000001 00000e10 01010000
    tfdt 20 01000000 00000002 00000000
    trun 48 01000a05 00000003 00000084 02000000 00000004 00001c20 00000001 00002a30 00000002 00000000
mdat 15 69647221 706262
moof 120
  mfhd 16 00000000 00000008
  traf 96
    tfhd 20 00020020 00000001 01010000
    tfdt 20 01000000 00000002 00002a30
    trun 48 01000b05 00000002 00000080 02000000 00000e10 00000004 ffffffff 00001518 00000001 00000000
mdat 13 6964723f 70
";
    assert_eq!(dump(&segment.bytes), golden);
    let places = [FragmentPlace { offset: 24, byte_len: 139 }, FragmentPlace { offset: 163, byte_len: 133 }];
    assert_eq!(segment.fragments, places);
    assert_eq!(&segment.bytes[163 + 4..163 + 8], b"moof");
}

#[test]
fn a_keyframe_stands_alone_without_a_gap_behind_it() {
    let gop = Fragment {
        decode_time: 100,
        samples: vec![sample(b"idr", 10, 20, true), sample(b"p", 15, 5, false), sample(b"b", 10, 0, false)],
    };
    let (keyframe, rest) = gop.first_sample_apart();
    let rest = rest.unwrap();
    assert_eq!((keyframe.decode_time, keyframe.samples.len()), (100, 1));
    assert_eq!((rest.decode_time, rest.samples.len()), (110, 2));
    let segment = media_segment(1, &[keyframe.clone(), rest]).unwrap();
    let place = segment.fragments[0];
    assert!(segment.bytes[..(place.offset + place.byte_len) as usize].ends_with(b"mdatidr"));
    assert!(keyframe.first_sample_apart().1.is_none(), "nothing is left of a single picture");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let fragment =
        |decode_time, samples: &[Sample<'static>]| Fragment { decode_time, samples: samples.to_vec() };
    let one = [sample(b"x", 10, 0, true)];
    let cases: [(Vec<Fragment<'_>>, CmafError); 5] = [
        (vec![], CmafError::NoFragments),
        (vec![fragment(0, &[])], CmafError::EmptyFragment { fragment: 0 }),
        (
            vec![fragment(0, &one), fragment(11, &one)],
            CmafError::Discontinuous { fragment: 1, start: 11, expected: 10 },
        ),
        (vec![fragment(0, &[sample(b"", 10, 0, true)])], CmafError::EmptySample { fragment: 0, sample: 0 }),
        (vec![fragment(u64::MAX - 5, &one)], CmafError::DecodeTimeOverflow { fragment: 0 }),
    ];
    for (fragments, error) in cases {
        assert_eq!(media_segment(1, &fragments), Err(error));
    }
    // More than 4 GiB in one fragment, without the memory: the same 16 MiB again and again.
    let block = vec![1; 16 << 20];
    let samples = vec![sample(&block, 1, 0, true); 256];
    let too_large = [Fragment { decode_time: 0, samples }];
    assert_eq!(media_segment(1, &too_large), Err(CmafError::FragmentTooLarge { fragment: 0 }));
    let many = [Fragment { decode_time: 0, samples: vec![one[0]; (1 << 20) + 1] }];
    assert!(matches!(media_segment(1, &many), Err(CmafError::TooManySamples { samples: 1_048_577, .. })));
}

#[derive(Clone, Debug, PartialEq)]
struct ReadSample {
    data: Vec<u8>,
    duration: u32,
    composition_offset: i32,
    sync: bool,
}

/// A reader of `moof` by the specification, for the fields that may occur.
fn read_fragments(segment: &[u8]) -> Vec<(u32, u64, Vec<ReadSample>)> {
    let top = children(segment);
    assert_eq!(top[0].0, "styp");
    let mut offset = 8 + top[0].1.len();
    let mut fragments = Vec::new();
    for pair in top[1..].chunks(2) {
        assert_eq!((pair[0].0.as_str(), pair[1].0.as_str()), ("moof", "mdat"));
        let moof = children(pair[0].1);
        let sequence_number = u32_at(moof[0].1, 4);
        let traf = children(moof[1].1);
        let (tfhd, tfdt, trun) = (traf[0].1, traf[1].1, traf[2].1);
        assert_eq!(u32_at(tfhd, 4), 1);
        let tfhd_flags = u32_at(tfhd, 0);
        assert_eq!(tfhd_flags & !0x28, 0x02_0000);
        let mut at = 8;
        let default_duration = (tfhd_flags & 0x08 != 0).then(|| {
            at += 4;
            u32_at(tfhd, at - 4)
        });
        let default_flags = u32_at(tfhd, at);
        let decode_time = u64::from_be_bytes(tfdt[4..12].try_into().unwrap());
        let trun_flags = u32_at(trun, 0) & 0xFF_FFFF;
        assert_eq!(trun[0], 1);
        let mut data_at = offset + u32_at(trun, 8) as usize;
        let mut at = 12;
        let mut next = |present: bool| {
            present.then(|| {
                at += 4;
                u32_at(trun, at - 4)
            })
        };
        let first_flags = next(trun_flags & 0x004 != 0);
        let mut samples = Vec::new();
        for index in 0..u32_at(trun, 4) {
            let duration = next(trun_flags & 0x100 != 0).or(default_duration).unwrap();
            let size = next(trun_flags & 0x200 != 0).unwrap() as usize;
            let flags =
                next(trun_flags & 0x400 != 0).or(first_flags.filter(|_| index == 0)).unwrap_or(default_flags);
            let composition_offset = next(trun_flags & 0x800 != 0).unwrap_or(0) as i32;
            // sample_is_non_sync_sample is bit 16; sample_depends_on is 2 for none and 1 for some.
            let sync = flags & 0x1_0000 == 0;
            assert_eq!(flags >> 24 & 3, if sync { 2 } else { 1 });
            samples.push(ReadSample {
                data: segment[data_at..data_at + size].to_vec(),
                duration,
                composition_offset,
                sync,
            });
            data_at += size;
        }
        assert_eq!(at, trun.len());
        offset += 16 + pair[0].1.len() + pair[1].1.len();
        assert_eq!(data_at, offset, "the samples end where the mdat ends");
        fragments.push((sequence_number, decode_time, samples));
    }
    fragments
}

fn any_sample() -> impl Strategy<Value = ReadSample> {
    // Few different durations and offsets, so that runs where all are equal come up often.
    let duration = prop::sample::select(vec![0, 1, 1024, 3003, u32::MAX]);
    let offset = prop::sample::select(vec![0, 0, 0, 3003, -3003, i32::MIN, i32::MAX]);
    (prop::collection::vec(any::<u8>(), 1..40), duration, offset, any::<bool>()).prop_map(
        |(data, duration, composition_offset, sync)| ReadSample { data, duration, composition_offset, sync },
    )
}

proptest::proptest! {
    #[test]
    fn an_independent_reader_reads_back_what_was_written(
        start in 0_u64..1 << 60,
        sequence in 1_u32..1000,
        runs in prop::collection::vec(prop::collection::vec(any_sample(), 1..12), 1..5),
    ) {
        let mut decode_time = start;
        let mut fragments = Vec::new();
        let mut expected = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            let samples: Vec<_> =
                run.iter().map(|s| sample(&s.data, s.duration, s.composition_offset, s.sync)).collect();
            fragments.push(Fragment { decode_time, samples });
            expected.push((sequence + index as u32, decode_time, run.clone()));
            decode_time += run.iter().map(|s| u64::from(s.duration)).sum::<u64>();
        }
        let segment = media_segment(sequence, &fragments).unwrap();
        assert_eq!(read_fragments(&segment.bytes), expected);
        for (place, run) in segment.fragments.iter().zip(&runs) {
            let alone = &segment.bytes[place.offset as usize..][..place.byte_len as usize];
            assert_eq!(children(alone).len(), 2);
            assert!(alone.ends_with(&run.last().unwrap().data));
        }
    }

    #[test]
    fn no_bytes_make_the_readers_of_headers_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(sets) = ParameterSets::from_extradata(&bytes) {
            let _ = sets.avcc();
            let _ = sets.codec_string();
        }
        let _ = AacConfig::from_extradata(&bytes);
        let _ = parameter_sets().append_sample(&bytes, &mut Vec::new());
    }

    #[test]
    fn times_add_up_for_every_order(
        gaps in prop::collection::vec(1_i64..9000, 1..60),
        order in any::<prop::sample::Index>(),
        delay in 0_u32..12_000,
    ) {
        let mut shown: Vec<i64> = gaps.iter().scan(0, |time, gap| { *time += gap; Some(*time) }).collect();
        let end = shown.pop().unwrap() + 1;
        if shown.is_empty() { return Ok(()); }
        let start = shown[0];
        // Any rotation of all but the first stands for an encoder's order.
        let rotation = order.index(shown.len());
        if rotation > 0 { shown[1..].rotate_left(rotation - 1); }
        let times = reelyard_cmaf::sample_times(&shown, end, delay).unwrap();
        let mut decode_time = start;
        for (time, &presentation_time) in times.iter().zip(&shown) {
            assert!(time.duration > 0);
            assert_eq!(decode_time + i64::from(time.composition_offset) - i64::from(delay), presentation_time);
            decode_time += i64::from(time.duration);
        }
        assert_eq!(decode_time, end);
    }
}
