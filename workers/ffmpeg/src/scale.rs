//! Pictures to another size and pixel format with swscale.

use crate::{Error, Frame, PixelFormat, Result, error::check, sys};
use std::ptr::{self, NonNull};

/// How to read the input's numbers and write the output's. The matrix is H.273's: 1 BT.709, 5 and 6 BT.601, 9 BT.2020.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleColour {
    pub input_matrix: u8,
    pub input_full_range: bool,
    pub output_matrix: u8,
    pub output_full_range: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct InputForm {
    width: u32,
    height: u32,
    format: PixelFormat,
}

/// One output form; the input's form may change from picture to picture.
pub struct Scaler {
    context: Option<(NonNull<sys::SwsContext>, InputForm, ScaleColour)>,
    width: u32,
    height: u32,
    format: PixelFormat,
    flags: i32,
}

// SAFETY: used by one thread at a time; swscale has no thread affinity.
unsafe impl Send for Scaler {}

impl Scaler {
    /// `algorithm`: `bicubic`, `bilinear`, `lanczos`, `area`.
    pub fn new(width: u32, height: u32, format: PixelFormat, algorithm: &str) -> Result<Self> {
        let flags = match algorithm {
            "bicubic" => sys::SWS_BICUBIC,
            "bilinear" => sys::SWS_BILINEAR,
            "lanczos" => sys::SWS_LANCZOS,
            "area" => sys::SWS_AREA,
            other => return Err(Error::custom("set up the scaler", format!("no algorithm named {other}"))),
        };
        Ok(Self { context: None, width, height, format, flags })
    }

    /// Writes a scaled copy; pts and the like are carried over, side data is not.
    pub fn scale(&mut self, input: &Frame, colour: ScaleColour) -> Result<Frame> {
        let context = self.context_for(input, colour)?;
        let mut output = Frame::video(self.width, self.height, self.format)?;
        if let Some(pts) = input.pts() {
            output.set_pts(pts);
        }
        let (source, target) = (input.as_ptr(), output.as_mut_ptr());
        // SAFETY: the context was made for exactly this input form; the output was allocated for its own.
        let rows = unsafe {
            sys::sws_scale(
                context.as_ptr(),
                (*source).data.as_ptr().cast::<*const u8>(),
                (*source).linesize.as_ptr(),
                0,
                (*source).height,
                (*target).data.as_ptr(),
                (*target).linesize.as_ptr(),
            )
        };
        check("scale a picture", rows)?;
        Ok(output)
    }

    fn context_for(&mut self, input: &Frame, colour: ScaleColour) -> Result<NonNull<sys::SwsContext>> {
        let form = InputForm { width: input.width(), height: input.height(), format: input.pixel_format() };
        if let Some((context, _, _)) = self.context.as_ref().filter(|(_, f, c)| *f == form && *c == colour) {
            return Ok(*context);
        }
        self.free();
        let raw = |format: PixelFormat| {
            format.checked_raw().ok_or_else(|| Error::custom("set up the scaler", "unknown pixel format"))
        };
        let size =
            |value: u32| i32::try_from(value).map_err(|_| Error::custom("set up the scaler", "too large"));
        // SAFETY: checked formats; FFmpeg checks sizes; null is checked.
        let context = NonNull::new(unsafe {
            sys::sws_getContext(
                size(form.width)?,
                size(form.height)?,
                raw(form.format)?,
                size(self.width)?,
                size(self.height)?,
                raw(self.format)?,
                self.flags as _,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        })
        .ok_or_else(|| Error::custom("set up the scaler", "this conversion is not supported"))?;
        self.context = Some((context, form, colour));
        // SAFETY: owned context; the coefficient tables are static. -1 only says that the conversion needs no matrix.
        unsafe {
            sys::sws_setColorspaceDetails(
                context.as_ptr(),
                sys::sws_getCoefficients(coefficients_of(colour.input_matrix)),
                i32::from(colour.input_full_range || form.format.is_full_range_by_name()),
                sys::sws_getCoefficients(coefficients_of(colour.output_matrix)),
                i32::from(colour.output_full_range),
                0,
                1 << 16,
                1 << 16,
            );
        }
        Ok(context)
    }

    fn free(&mut self) {
        if let Some((context, _, _)) = self.context.take() {
            // SAFETY: owned; freed once.
            unsafe { sys::sws_freeContext(context.as_ptr()) };
        }
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        self.free();
    }
}

/// swscale's number of a matrix; its numbers follow H.273 for those it knows.
fn coefficients_of(matrix: u8) -> i32 {
    match matrix {
        1 | 4 | 5 | 6 | 7 | 9 => i32::from(matrix),
        10 => 9,
        _ => 5,
    }
}
