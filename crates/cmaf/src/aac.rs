//! AAC-LC as CMAF stores it: the AudioSpecificConfig, the `esds` descriptors and the RFC 6381 string.

use crate::{CmafError, boxes::BoxWriter};

/// Samples in one AAC-LC frame, and also the priming that a plain AAC-LC encoder puts before the first real sample.
pub const SAMPLES_PER_FRAME: u32 = 1024;

/// ISO/IEC 14496-3 table 1.18, by index.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// In place of an index: the rate follows in 24 bits.
const EXPLICIT_RATE: u32 = 15;
const AAC_LC: u32 = 2;
/// A longer AudioSpecificConfig than this would need a second length byte in its descriptor; LC needs 2 to 5.
const MAX_CONFIG_BYTES: usize = 64;

/// An AudioSpecificConfig, ISO/IEC 14496-3 section 1.6.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AacConfig {
    bytes: Vec<u8>,
    pub sample_rate: u32,
    pub channels: u32,
}

impl AacConfig {
    /// From an encoder's extradata, kept byte for byte.
    pub fn from_extradata(extradata: &[u8]) -> Result<Self, CmafError> {
        if extradata.len() > MAX_CONFIG_BYTES {
            return Err(CmafError::UnsupportedAac("the configuration is longer than 64 bytes"));
        }
        let mut bits = Bits { bytes: extradata, position: 0 };
        let cut_short = CmafError::UnsupportedAac("the configuration is cut short");
        let object_type = bits.take(5).ok_or(cut_short.clone())?;
        if object_type != AAC_LC {
            return Err(CmafError::UnsupportedAac("only the LC object type (2) is written here"));
        }
        let sample_rate = match bits.take(4).ok_or(cut_short.clone())? {
            EXPLICIT_RATE => bits.take(24).ok_or(cut_short.clone())?,
            index => *SAMPLE_RATES
                .get(index as usize)
                .ok_or(CmafError::UnsupportedAac("a reserved sample rate index"))?,
        };
        let channels = match bits.take(4).ok_or(cut_short)? {
            channels @ 1..=6 => channels,
            7 => 8,
            _ => {
                return Err(CmafError::UnsupportedAac(
                    "channels described by a program element, or reserved",
                ));
            }
        };
        Ok(Self { bytes: extradata.to_vec(), sample_rate, channels })
    }

    /// The plain LC configuration of a rate and 1 or 2 channels.
    pub fn low_complexity(sample_rate: u32, channels: u32) -> Result<Self, CmafError> {
        let index = SAMPLE_RATES
            .iter()
            .position(|&rate| rate == sample_rate)
            .ok_or(CmafError::UnsupportedAac("a sample rate without an index"))?;
        if !(1..=2).contains(&channels) {
            return Err(CmafError::UnsupportedAac("only mono and stereo are written here"));
        }
        let config = (AAC_LC as u16) << 11 | (index as u16) << 7 | (channels as u16) << 3;
        Ok(Self { bytes: config.to_be_bytes().to_vec(), sample_rate, channels })
    }

    /// RFC 6381 section 3.4: MPEG-4 audio (40) of object type 2.
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{AAC_LC}")
    }

    /// The ES_Descriptor inside `esds`, ISO/IEC 14496-1 section 7.2.6 and 14496-14 section 5.6.
    pub(crate) fn write_es_descriptor(&self, w: &mut BoxWriter, average_bit_rate: u32, max_bit_rate: u32) {
        const ES_DESCRIPTOR: u8 = 3;
        const DECODER_CONFIG: u8 = 4;
        const DECODER_SPECIFIC_INFO: u8 = 5;
        const SL_CONFIG: u8 = 6;
        let config_len = self.bytes.len() as u8;
        let decoder_config_len = 13 + 2 + config_len;
        let es_len = 3 + 2 + decoder_config_len + 3;
        w.bytes(&[ES_DESCRIPTOR, es_len]);
        w.u16(0); // ES_ID: 0 in files, 14496-14 section 3.1.2
        w.u8(0);
        w.bytes(&[DECODER_CONFIG, decoder_config_len]);
        w.u8(0x40); // objectTypeIndication: ISO/IEC 14496-3 audio
        w.u8(0x15); // streamType 5 (audio), upStream 0, reserved 1
        w.bytes(&[0, 0, 0]); // bufferSizeDB: not stated
        w.u32(max_bit_rate);
        w.u32(average_bit_rate);
        w.bytes(&[DECODER_SPECIFIC_INFO, config_len]);
        w.bytes(&self.bytes);
        w.bytes(&[SL_CONFIG, 1, 2]); // predefined 2: reserved for use in MP4 files
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::AacConfig;
    use crate::CmafError;

    #[test]
    fn configurations_are_read_and_written() {
        let stereo = AacConfig::low_complexity(48_000, 2).unwrap();
        assert_eq!(stereo.bytes, [0x11, 0x90]);
        assert_eq!(stereo.codec_string(), "mp4a.40.2");
        // FFmpeg appends a backward-compatible "no SBR" extension; it is kept.
        let from_ffmpeg = AacConfig::from_extradata(&[0x12, 0x08, 0x56, 0xE5, 0x00]).unwrap();
        assert_eq!((from_ffmpeg.sample_rate, from_ffmpeg.channels), (44_100, 1));
        assert_eq!(from_ffmpeg.bytes.len(), 5);
    }

    #[test]
    fn what_is_not_plain_lc_is_refused() {
        for extradata in [&[][..], &[0x11], &[0x2B, 0x92, 0x08, 0x00], &[0x11, 0x80], &[0; 65]] {
            assert!(matches!(AacConfig::from_extradata(extradata), Err(CmafError::UnsupportedAac(_))));
        }
        assert!(AacConfig::low_complexity(47_999, 2).is_err());
        assert!(AacConfig::low_complexity(48_000, 6).is_err());
    }
}
