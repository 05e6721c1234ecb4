//! A container opened from bytes that the caller holds: its streams and its packets.
//!
//! Never opens anything else: the demuxers that follow addresses (playlists, manifests, lists of pictures) are not
//! on the allow-list, the protocol list is empty, and the callback by which a demuxer would open a second file
//! refuses. Each of the three alone has been got round in FFmpeg's history.

use crate::{
    CodecParameters, Error, Packet, Result,
    error::check,
    options::Options,
    source::{ByteSource, SourceIo},
    sys,
};
use std::{
    ffi::{CStr, c_char, c_int},
    ptr::{self, NonNull},
};

/// Containers that hold media themselves. Kept out on purpose: hls, dash, concat, image2 and all its relatives, sdp, rtsp,
/// subtitles, and the many rarities whose demuxers nobody has attacked yet.
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,wav,w64,mp3,aac,flac,\
    aiff,caf,gif,apng,asf,mxf,amr,amrnb,amrwb,ac3,eac3,dts,h264,hevc,m4v,ivf,obu,av1,dv,nut,wv,tta,ape,au,rm,vob,mpegtsraw,\
    webp_pipe,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,y4m,yuv4mpegpipe,h263,h261,vc1,swf,wtv,gxf,f4v,voc";
/// Streams beyond this are an attack: the richest real files hold some dozens.
const MAX_STREAMS: &str = "128";
/// How much may be read, and decoded, to learn what the streams are.
const PROBE_BYTES: &str = "16000000";
const ANALYZE_US: &str = "10000000";

/// Whether the length in time is wanted where the container does not state it: MPEG streams have to be read at their end
/// for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Wanted,
    NotWanted,
}

pub struct Input {
    // Closed by hand in Drop, before the I/O goes.
    context: NonNull<sys::AVFormatContext>,
    io: SourceIo,
}

// SAFETY: used by one thread at a time (no method takes &self and changes state).
unsafe impl Send for Input {}

impl Input {
    /// Opens what the bytes hold and reads enough of it to know the streams. Their parameters are claims.
    pub fn open(bytes: Box<dyn ByteSource>, length: Length) -> Result<Self> {
        let io = SourceIo::open(bytes)?;
        // SAFETY: plain allocation; null is checked.
        let mut context = unsafe { sys::avformat_alloc_context() };
        if context.is_null() {
            return Err(Error::new("allocate the container", -libc::ENOMEM));
        }
        let mut options = Options::new();
        options.set("format_whitelist", DEMUXERS)?;
        options.set("protocol_whitelist", "")?;
        options.set("max_streams", MAX_STREAMS)?;
        options.set("probesize", PROBE_BYTES)?;
        options.set("analyzeduration", ANALYZE_US)?;
        // SAFETY: fresh context; the I/O outlives it (Drop closes the container first). On failure FFmpeg frees the
        // context itself and leaves custom I/O alone.
        let code = unsafe {
            (*context).pb = io.context();
            (*context).io_open = Some(refuse_to_open);
            (*context).skip_estimate_duration_from_pts = c_int::from(length == Length::NotWanted);
            sys::avformat_open_input(&mut context, c"".as_ptr(), ptr::null(), options.as_mut_ptr())
        };
        check("recognise the container", blame(io.has_failed(), code))?;
        let Some(context) = NonNull::new(context) else {
            return Err(Error::custom("recognise the container", "no container"));
        };
        let input = Self { context, io };
        // SAFETY: owned container. An error here is no end: some streams may still be known.
        let _ = unsafe { sys::avformat_find_stream_info(input.context.as_ptr(), ptr::null_mut()) };
        check("look at the streams", blame(input.io.has_failed(), 0))?;
        Ok(input)
    }

    fn raw(&self) -> &sys::AVFormatContext {
        // SAFETY: owned and valid as long as self.
        unsafe { self.context.as_ref() }
    }

    pub fn byte_len(&self) -> u64 {
        self.io.byte_len()
    }

    /// FFmpeg's demuxer name, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
    pub fn container(&self) -> String {
        // SAFETY: an opened container has a demuxer with a static name.
        unsafe { CStr::from_ptr((*self.raw().iformat).name) }.to_string_lossy().into_owned()
    }

    pub fn declared_duration_us(&self) -> Option<i64> {
        (self.raw().duration != sys::AV_NOPTS_VALUE && self.raw().duration > 0).then_some(self.raw().duration)
    }

    pub fn stream_count(&self) -> u32 {
        self.raw().nb_streams
    }

    pub fn stream(&self, index: u32) -> Option<Stream<'_>> {
        if index >= self.raw().nb_streams {
            return None;
        }
        // SAFETY: below nb_streams; streams live as long as the container.
        unsafe { (*self.raw().streams.add(index as usize)).as_ref() }.map(|raw| Stream { raw })
    }

    pub fn streams(&self) -> impl Iterator<Item = Stream<'_>> {
        (0..self.stream_count()).filter_map(|index| self.stream(index))
    }

    /// Read packets of these streams only: the others are skipped, not returned.
    pub fn select(&mut self, wanted: &[u32]) {
        for index in 0..self.stream_count() {
            let discard = if wanted.contains(&index) {
                sys::AVDiscard::AVDISCARD_DEFAULT
            } else {
                sys::AVDiscard::AVDISCARD_ALL
            };
            // SAFETY: below nb_streams.
            unsafe { (**self.raw().streams.add(index as usize)).discard = discard };
        }
    }

    /// The next packet, in the order of the file. `false` at the end. Once the bytes could not be read, an error
    /// ([`Error::is_input_output`]), even where the demuxer takes it for the end.
    pub fn read(&mut self, packet: &mut Packet) -> Result<bool> {
        packet.unref();
        // SAFETY: owned container and packet.
        let code = unsafe { sys::av_read_frame(self.context.as_ptr(), packet.as_mut_ptr()) };
        match if code < 0 { blame(self.io.has_failed(), code) } else { code } {
            sys::AVERROR_EOF => Ok(false),
            code => check("read a packet", code).map(|_| true),
        }
    }

    /// To a keyframe at or before `pts` ticks of the stream, as well as the container knows: look at what comes.
    pub fn seek(&mut self, stream: u32, pts: i64) -> Result<()> {
        let index = c_int::try_from(stream).unwrap_or(c_int::MAX);
        // SAFETY: owned container; FFmpeg checks the stream index.
        let code =
            unsafe { sys::av_seek_frame(self.context.as_ptr(), index, pts, sys::AVSEEK_FLAG_BACKWARD) };
        check("seek", code).map(drop)
    }

    /// To the first byte, for containers that cannot seek by time.
    pub fn seek_to_start(&mut self) -> Result<()> {
        // SAFETY: owned container.
        let code = unsafe { sys::av_seek_frame(self.context.as_ptr(), -1, 0, sys::AVSEEK_FLAG_BYTE) };
        check("seek to the start", code).map(drop)
    }
}

/// FFmpeg's answer, with "input/output error" kept for what it says: many demuxers answer so to a file that ends early.
fn blame(has_failed: bool, code: c_int) -> c_int {
    match code {
        code if code == -libc::ENOMEM => code,
        _ if has_failed => -libc::EIO,
        code if code == -libc::EIO => sys::AVERROR_INVALIDDATA,
        code => code,
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let mut context = self.context.as_ptr();
        // SAFETY: owned; custom I/O is left to its owner, which is dropped after this.
        unsafe { sys::avformat_close_input(&mut context) };
    }
}

unsafe extern "C" fn refuse_to_open(
    _context: *mut sys::AVFormatContext,
    _io: *mut *mut sys::AVIOContext,
    _url: *const c_char,
    _flags: c_int,
    _options: *mut *mut sys::AVDictionary,
) -> c_int {
    -libc::EACCES
}

/// One stream of an open container.
pub struct Stream<'a> {
    raw: &'a sys::AVStream,
}

impl Stream<'_> {
    pub fn index(&self) -> u32 {
        self.raw.index.max(0) as u32
    }
    pub fn parameters(&self) -> Result<CodecParameters> {
        // SAFETY: a stream always has parameters.
        unsafe { CodecParameters::copy_of(self.raw.codecpar) }
    }
    /// Seconds per tick as (numerator, denominator).
    pub fn time_base(&self) -> (i32, i32) {
        (self.raw.time_base.num, self.raw.time_base.den)
    }
    pub fn declared_start(&self) -> Option<i64> {
        (self.raw.start_time != sys::AV_NOPTS_VALUE).then_some(self.raw.start_time)
    }
    pub fn average_frame_rate(&self) -> (i32, i32) {
        (self.raw.avg_frame_rate.num, self.raw.avg_frame_rate.den)
    }
    /// The stream's own, or else its coding's.
    pub fn sample_aspect_ratio(&self) -> (i32, i32) {
        (self.raw.sample_aspect_ratio.num, self.raw.sample_aspect_ratio.den)
    }
    /// A cover, not a film.
    pub fn is_attached_picture(&self) -> bool {
        self.raw.disposition & (sys::AV_DISPOSITION_ATTACHED_PIC | sys::AV_DISPOSITION_TIMED_THUMBNAILS) != 0
    }
    pub fn is_default(&self) -> bool {
        self.raw.disposition & sys::AV_DISPOSITION_DEFAULT != 0
    }
    pub fn metadata(&self, key: &str) -> Option<String> {
        metadata(self.raw.metadata, key)
    }
    /// The 3x3 matrix of ISO/IEC 14496-12 section 8.3.2, row by row.
    pub fn display_matrix(&self) -> Option<[i32; 9]> {
        let bytes = self.side_data(sys::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX)?;
        let mut matrix = [0; 9];
        if bytes.len() < 36 {
            return None;
        }
        for (value, bytes) in matrix.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Some(matrix)
    }
    pub fn has_dolby_vision(&self) -> bool {
        self.side_data(sys::AVPacketSideDataType::AV_PKT_DATA_DOVI_CONF).is_some()
    }
    /// The container carries decryption parameters for this stream.
    pub fn is_encrypted(&self) -> bool {
        self.side_data(sys::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INIT_INFO).is_some()
            || self.side_data(sys::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INFO).is_some()
    }

    fn side_data(&self, kind: sys::AVPacketSideDataType) -> Option<&[u8]> {
        let mut bytes = 0;
        // SAFETY: live stream; the returned buffer lives as long as the stream.
        let data = unsafe { sys::av_stream_get_side_data(self.raw, kind, &mut bytes) };
        if data.is_null() {
            return None;
        }
        // SAFETY: data holds `bytes` bytes.
        Some(unsafe { std::slice::from_raw_parts(data, bytes) })
    }
}

fn metadata(dictionary: *const sys::AVDictionary, key: &str) -> Option<String> {
    let key = std::ffi::CString::new(key).ok()?;
    // SAFETY: a dictionary of libavformat or null, both allowed; the entry lives as long as it.
    let entry = unsafe { sys::av_dict_get(dictionary, key.as_ptr(), ptr::null(), 0).as_ref()? };
    // SAFETY: a live entry has a NUL-terminated value.
    Some(unsafe { CStr::from_ptr(entry.value) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Input, Length, blame};
    use crate::{ByteSource, Packet, sys};
    use std::{fs::File, io, os::unix::fs::FileExt};

    struct OnDisk(File);

    impl ByteSource for OnDisk {
        fn byte_len(&self) -> u64 {
            self.0.metadata().unwrap().len()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }
    }

    fn fixture() -> Box<OnDisk> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bbb-720p-20s.mp4");
        Box::new(OnDisk(File::open(path).unwrap()))
    }

    /// Every read of it fails, as those of a dying disk do.
    fn unreadable() -> Box<OnDisk> {
        Box::new(OnDisk(File::options().write(true).open("/dev/null").unwrap()))
    }

    #[test]
    fn a_disk_that_fails_is_not_the_end_of_the_film() {
        let mut input = Input::open(fixture(), Length::Wanted).unwrap();
        let mut packet = Packet::new().unwrap();
        assert!(input.read(&mut packet).unwrap());
        input.io.read_from_now_on(unreadable());
        let error = loop {
            match input.read(&mut packet) {
                Ok(true) => {}
                Ok(false) => panic!("half a film was taken for a whole one"),
                Err(error) => break error,
            }
        };
        assert!(error.is_input_output(), "{error}");
    }

    #[test]
    fn a_source_that_cannot_be_read_is_not_a_damaged_file() {
        let error = Input::open(unreadable(), Length::Wanted).err().unwrap();
        assert!(error.is_input_output(), "{error}");
    }

    #[test]
    fn a_demuxer_that_runs_out_of_bytes_blames_the_file() {
        for (has_failed, code, expected) in [
            (false, -libc::EIO, sys::AVERROR_INVALIDDATA),
            (true, -libc::EIO, -libc::EIO),
            (true, sys::AVERROR_EOF, -libc::EIO),
            (false, sys::AVERROR_EOF, sys::AVERROR_EOF),
            (true, -libc::ENOMEM, -libc::ENOMEM),
            (false, 0, 0),
        ] {
            assert_eq!(blame(has_failed, code), expected);
        }
    }
}
