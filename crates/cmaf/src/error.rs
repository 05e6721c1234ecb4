//! Why something cannot be written as CMAF. Every case is a fault of the caller or of an encoder, never of a disk.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmafError {
    #[error(
        "the encoder's header holds no {0}: without it no player can start; is the global header flag set?"
    )]
    MissingParameterSet(&'static str),
    #[error("the encoder's header is malformed: {0}")]
    MalformedParameterSet(&'static str),
    #[error(
        "a picture carries another {0} than the initialization segment: `avc1` samples cannot change it; \
         the encoder must be opened again for a new rendition"
    )]
    ParameterSetChanged(&'static str),
    #[error("an encoded picture is malformed: {0}")]
    MalformedSample(&'static str),
    #[error("AAC configuration not supported: {0}")]
    UnsupportedAac(&'static str),
    #[error("a timescale of zero has no meaning")]
    ZeroTimescale,
    #[error("picture size {width}x{height} does not fit the 16 bits of a sample entry, or is zero")]
    PictureSize { width: u32, height: u32 },
    #[error("a segment needs at least one fragment")]
    NoFragments,
    #[error("fragment {fragment} has no samples")]
    EmptyFragment { fragment: usize },
    #[error("fragment {fragment}, sample {sample} is empty: its encoder returned no bytes")]
    EmptySample { fragment: usize, sample: usize },
    #[error("fragment {fragment} has {samples} samples; the limit is {limit}: start fragments more often")]
    TooManySamples { fragment: usize, samples: usize, limit: usize },
    #[error("fragment {fragment} is larger than 4 GiB: start fragments more often")]
    FragmentTooLarge { fragment: usize },
    #[error(
        "fragment {fragment} starts at {start}, but the one before it ends at {expected} (decode time, in ticks)"
    )]
    Discontinuous { fragment: usize, start: u64, expected: u64 },
    #[error("decode time runs beyond 64 bits in fragment {fragment}")]
    DecodeTimeOverflow { fragment: usize },
    #[error("picture {sample}: presentation times must differ and lie before the end ({reason})")]
    BadTimes { sample: usize, reason: &'static str },
    #[error("sample {sample}: a {what} of {ticks} ticks does not fit 32 bits")]
    TicksOverflow { sample: usize, what: &'static str, ticks: i64 },
}
