//! H.264 as CMAF stores it: parameter sets out of an encoder's header, `avcC`, samples with length prefixes, and the
//! `avc1.PPCCLL` string.
//!
//! Encoders speak Annex B (start codes); files store each NAL unit after its length (ISO/IEC 14496-15 section 5.3.2).
//! Parameter sets live only in the sample entry: `avc1` forbids them in samples, so they are taken out, and a stream
//! that changes them in the middle is refused rather than written wrongly.

use crate::CmafError;

const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_ACCESS_UNIT_DELIMITER: u8 = 9;
const NAL_END_OF_SEQUENCE: u8 = 10;
const NAL_END_OF_STREAM: u8 = 11;
const NAL_FILLER: u8 = 12;

/// `avcC` counts sequence parameter sets in 5 bits and picture parameter sets in 8.
const MAX_SPS: usize = 31;
const MAX_PPS: usize = 255;

/// The sequence and picture parameter sets of one encoder, without start codes or lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSets {
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl ParameterSets {
    /// From an encoder's extradata: Annex B or an `avcC` record, whichever it is.
    pub fn from_extradata(extradata: &[u8]) -> Result<Self, CmafError> {
        // An avcC record begins with its version, 1; Annex B begins with at least two zero bytes.
        let sets = if extradata.first() == Some(&1) {
            Self::from_avcc(extradata)?
        } else {
            let units = nal_units(extradata);
            let of_type = |wanted: u8| -> Vec<Vec<u8>> {
                units.iter().filter(|unit| nal_type(unit) == wanted).map(|unit| unit.to_vec()).collect()
            };
            Self { sps: of_type(NAL_SPS), pps: of_type(NAL_PPS) }
        };
        sets.validated()
    }

    fn from_avcc(record: &[u8]) -> Result<Self, CmafError> {
        let mut rest = record.get(5..).ok_or(CmafError::MalformedParameterSet("avcC is too short"))?;
        let mut group = |mask: u8| -> Result<Vec<Vec<u8>>, CmafError> {
            let cut_short = CmafError::MalformedParameterSet("avcC is cut short");
            let (&count, after) = rest.split_first().ok_or(cut_short.clone())?;
            rest = after;
            let mut units = Vec::new();
            for _ in 0..count & mask {
                let (len, after) = rest.split_first_chunk::<2>().ok_or(cut_short.clone())?;
                let len = usize::from(u16::from_be_bytes(*len));
                units.push(after.get(..len).ok_or(cut_short.clone())?.to_vec());
                rest = &after[len..];
            }
            Ok(units)
        };
        Ok(Self { sps: group(0x1F)?, pps: group(0xFF)? })
    }

    fn validated(self) -> Result<Self, CmafError> {
        if self.sps.is_empty() {
            return Err(CmafError::MissingParameterSet("sequence parameter set (SPS)"));
        }
        if self.pps.is_empty() {
            return Err(CmafError::MissingParameterSet("picture parameter set (PPS)"));
        }
        if self.sps.len() > MAX_SPS || self.pps.len() > MAX_PPS {
            return Err(CmafError::MalformedParameterSet("more parameter sets than avcC can count"));
        }
        if self.sps.iter().chain(&self.pps).any(|unit| u16::try_from(unit.len()).is_err()) {
            return Err(CmafError::MalformedParameterSet("a parameter set is longer than 65535 bytes"));
        }
        if self.sps.iter().any(|unit| nal_type(unit) != NAL_SPS || unit.len() < 5) {
            return Err(CmafError::MalformedParameterSet("a sequence parameter set is cut short"));
        }
        if self.pps.iter().any(|unit| nal_type(unit) != NAL_PPS) {
            return Err(CmafError::MalformedParameterSet("a picture parameter set is of another type"));
        }
        Ok(self)
    }

    /// RFC 6381 section 3.3: profile, constraint flags and level as six hexadecimal digits.
    pub fn codec_string(&self) -> String {
        let sps = &self.sps[0];
        format!("avc1.{:02x}{:02x}{:02x}", sps[1], sps[2], sps[3])
    }

    /// AVCDecoderConfigurationRecord, ISO/IEC 14496-15 section 5.3.3.1, with 4-byte lengths.
    pub fn avcc(&self) -> Result<Vec<u8>, CmafError> {
        let sps = &self.sps[0];
        let mut record = vec![1, sps[1], sps[2], sps[3], 0xFC | 3, 0xE0 | self.sps.len() as u8];
        push_units(&mut record, &self.sps);
        record.push(self.pps.len() as u8);
        push_units(&mut record, &self.pps);
        if let Some(format) = SampleFormat::of(sps)? {
            record.extend([
                0xFC | format.chroma_format,
                0xF8 | format.luma_depth_minus_8,
                0xF8 | format.chroma_depth_minus_8,
                0,
            ]);
        }
        Ok(record)
    }

    /// One access unit in Annex B becomes one sample, appended to `sample`. Parameter sets, delimiters and filler are
    /// left out; a parameter set that is not one of ours is an error.
    pub fn append_sample(&self, access_unit: &[u8], sample: &mut Vec<u8>) -> Result<(), CmafError> {
        let length_before = sample.len();
        for unit in nal_units(access_unit) {
            match nal_type(unit) {
                NAL_SPS if !self.sps.iter().any(|known| known == unit) => {
                    return Err(CmafError::ParameterSetChanged("sequence parameter set"));
                }
                NAL_PPS if !self.pps.iter().any(|known| known == unit) => {
                    return Err(CmafError::ParameterSetChanged("picture parameter set"));
                }
                NAL_SPS
                | NAL_PPS
                | NAL_ACCESS_UNIT_DELIMITER
                | NAL_END_OF_SEQUENCE
                | NAL_END_OF_STREAM
                | NAL_FILLER => {}
                _ => {
                    let len = u32::try_from(unit.len())
                        .map_err(|_| CmafError::MalformedSample("a NAL unit is larger than 4 GiB"))?;
                    sample.extend(len.to_be_bytes());
                    sample.extend_from_slice(unit);
                }
            }
        }
        if sample.len() == length_before {
            return Err(CmafError::MalformedSample("it holds no picture data, or is not Annex B"));
        }
        Ok(())
    }
}

fn push_units(record: &mut Vec<u8>, units: &[Vec<u8>]) {
    for unit in units {
        // `validated` has checked that it fits.
        record.extend((unit.len() as u16).to_be_bytes());
        record.extend_from_slice(unit);
    }
}

fn nal_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |header| header & 0x1F)
}

/// The NAL units of an Annex B byte stream (ITU-T H.264 annex B), without start codes and trailing zeros.
pub fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut position = 0;
    while let Some(found) = find_start_code(stream, position) {
        starts.push(found);
        position = found + 3;
    }
    let mut units = Vec::with_capacity(starts.len());
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(stream.len());
        let unit = &stream[start + 3..end];
        // Zeros between a unit and the next start code belong to neither; a unit itself never ends in a zero byte.
        let len = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if len > 0 {
            units.push(&unit[..len]);
        }
    }
    units
}

/// The position of the next `00 00 01`.
fn find_start_code(stream: &[u8], from: usize) -> Option<usize> {
    let mut position = from;
    while position + 2 < stream.len() {
        match stream[position + 2] {
            // Looking at the third byte first lets most of a picture be passed over three bytes at a time.
            1 if stream[position] == 0 && stream[position + 1] == 0 => return Some(position),
            0 => position += 1,
            _ => position += 3,
        }
    }
    None
}

/// What `avcC` repeats from the SPS of the High profiles.
struct SampleFormat {
    chroma_format: u8,
    luma_depth_minus_8: u8,
    chroma_depth_minus_8: u8,
}

impl SampleFormat {
    /// `None` for the profiles whose `avcC` ends before these fields (ISO/IEC 14496-15 section 5.3.3.1.2).
    fn of(sps: &[u8]) -> Result<Option<Self>, CmafError> {
        const PROFILES_WITH_FORMAT: [u8; 4] = [100, 110, 122, 144];
        const CAVLC_444_AND_HIGH_444: [u8; 2] = [44, 244];
        if !PROFILES_WITH_FORMAT.contains(&sps[1]) && !CAVLC_444_AND_HIGH_444.contains(&sps[1]) {
            return Ok(None);
        }
        let payload = without_emulation_prevention(&sps[4..]);
        let mut bits = BitReader { bytes: &payload, position: 0 };
        let malformed = CmafError::MalformedParameterSet("a sequence parameter set is cut short");
        let mut next = || bits.exp_golomb().ok_or(malformed.clone());
        let _sequence_parameter_set_id = next()?;
        let chroma_format = next()?;
        if chroma_format == 3 {
            // separate_colour_plane_flag is one bit and not needed here.
            bits.bit();
        }
        let mut next = || bits.exp_golomb().ok_or(malformed.clone());
        let luma = next()?;
        let chroma = next()?;
        if chroma_format > 3 || luma > 6 || chroma > 6 {
            return Err(CmafError::MalformedParameterSet("chroma format or bit depth out of range"));
        }
        Ok(Some(Self {
            chroma_format: chroma_format as u8,
            luma_depth_minus_8: luma as u8,
            chroma_depth_minus_8: chroma as u8,
        }))
    }
}

/// ITU-T H.264 section 7.4.1: `00 00 03` stands for `00 00`.
fn without_emulation_prevention(payload: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(payload.len());
    let mut zeros = 0;
    for &byte in payload {
        if byte == 3 && zeros >= 2 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    plain
}

struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitReader<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(u32::from(bit))
    }

    /// ue(v), ITU-T H.264 section 9.1; values beyond 16 bits do not occur in the fields read here.
    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 16 {
                return None;
            }
        }
        let mut value = 1;
        for _ in 0..zeros {
            value = value << 1 | self.bit()?;
        }
        Some(value - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{ParameterSets, nal_units};
    use crate::CmafError;

    // x264, High profile, level 4.0, 4:2:0, 8 bit.
    const SPS: &[u8] = &[0x67, 0x64, 0x00, 0x28, 0xAC, 0xD9, 0x40, 0x78, 0x02, 0x27, 0xE5];
    const PPS: &[u8] = &[0x68, 0xEB, 0xE3, 0xCB];

    fn annex_b(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
    }

    #[test]
    fn annex_b_and_avcc_give_the_same_sets() {
        let from_annex_b = ParameterSets::from_extradata(&annex_b(&[SPS, PPS, &[6, 5, 1, 0x80]])).unwrap();
        let record = from_annex_b.avcc().unwrap();
        assert_eq!(record[..8], [1, 0x64, 0, 0x28, 0xFF, 0xE1, 0, 11]);
        assert_eq!(record[record.len() - 4..], [0xFD, 0xF8, 0xF8, 0]);
        assert_eq!(ParameterSets::from_extradata(&record).unwrap(), from_annex_b);
        assert_eq!(from_annex_b.codec_string(), "avc1.640028");
    }

    #[test]
    fn units_are_found_behind_short_and_long_start_codes() {
        let stream = [0, 0, 1, 9, 16, 0, 0, 0, 1, 0x65, 0, 0, 3, 1, 0, 0, 1, 0x41, 0x9A];
        assert_eq!(nal_units(&stream), [&[9, 16][..], &[0x65, 0, 0, 3, 1], &[0x41, 0x9A]]);
        assert!(nal_units(&[0, 0]).is_empty());
        assert!(nal_units(&[0, 0, 1]).is_empty());
    }

    #[test]
    fn samples_hold_pictures_only() {
        let sets = ParameterSets::from_extradata(&annex_b(&[SPS, PPS])).unwrap();
        let mut sample = Vec::new();
        sets.append_sample(&annex_b(&[&[9, 0xF0], SPS, PPS, &[0x65, 1, 2]]), &mut sample).unwrap();
        assert_eq!(sample, [0, 0, 0, 3, 0x65, 1, 2]);
        let other_pps = annex_b(&[&[0x68, 1, 2], &[0x65, 1, 2]]);
        assert_eq!(
            sets.append_sample(&other_pps, &mut sample),
            Err(CmafError::ParameterSetChanged("picture parameter set"))
        );
        assert!(matches!(sets.append_sample(&[1, 2, 3], &mut sample), Err(CmafError::MalformedSample(_))));
    }

    #[test]
    fn a_header_without_its_sets_is_refused() {
        for (header, complaint) in [
            (annex_b(&[PPS]), CmafError::MissingParameterSet("sequence parameter set (SPS)")),
            (annex_b(&[SPS]), CmafError::MissingParameterSet("picture parameter set (PPS)")),
            (vec![], CmafError::MissingParameterSet("sequence parameter set (SPS)")),
            (vec![1, 100, 0, 40], CmafError::MalformedParameterSet("avcC is too short")),
            (
                vec![1, 100, 0, 40, 255, 0xE1, 0, 9, 0x67],
                CmafError::MalformedParameterSet("avcC is cut short"),
            ),
            (
                annex_b(&[&[0x67, 100], PPS]),
                CmafError::MalformedParameterSet("a sequence parameter set is cut short"),
            ),
        ] {
            assert_eq!(ParameterSets::from_extradata(&header), Err(complaint));
        }
    }
}
