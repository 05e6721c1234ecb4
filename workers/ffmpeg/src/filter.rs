//! A chain of libavfilter's filters for pictures, described in its own language by our own code only.

use crate::{Error, Frame, Result, error::check, sys};
use std::{
    ffi::{CStr, CString},
    ptr::{self, NonNull},
};

pub struct FilterGraph {
    graph: NonNull<sys::AVFilterGraph>,
    source: *mut sys::AVFilterContext,
    sink: *mut sys::AVFilterContext,
    /// Seconds per tick of what goes in, and so of what comes out: some filters count in finer ticks inside.
    time_base: (i32, i32),
}

// SAFETY: used by one thread at a time; libavfilter has no thread affinity.
unsafe impl Send for FilterGraph {}

impl FilterGraph {
    /// A chain for pictures of exactly the form of `like`; a picture of another form needs another graph.
    pub fn video(like: &Frame, time_base: (i32, i32), description: &str, threads: u32) -> Result<Self> {
        let aspect = match like.sample_aspect_ratio() {
            (numerator, denominator) if numerator > 0 && denominator > 0 => (numerator, denominator),
            _ => (1, 1),
        };
        let arguments = format!(
            "video_size={}x{}:pix_fmt={}:time_base={}/{}:pixel_aspect={}/{}",
            like.width(),
            like.height(),
            like.pixel_format().0,
            time_base.0,
            time_base.1,
            aspect.0,
            aspect.1
        );
        Self::build(&arguments, time_base, description, threads)
    }

    fn build(arguments: &str, time_base: (i32, i32), description: &str, threads: u32) -> Result<Self> {
        let text =
            |s: &str| CString::new(s).map_err(|_| Error::custom("set up the filters", "holds a NUL byte"));
        // SAFETY: plain allocation; null is checked.
        let graph = NonNull::new(unsafe { sys::avfilter_graph_alloc() })
            .ok_or_else(|| Error::new("allocate the filters", -libc::ENOMEM))?;
        let mut this = Self { graph, source: ptr::null_mut(), sink: ptr::null_mut(), time_base };
        let (arguments, description) = (text(arguments)?, text(description)?);
        // SAFETY: owned graph; all strings live through the calls; the in/out lists are freed on every path.
        unsafe {
            (*graph.as_ptr()).nb_threads = threads.clamp(1, 64) as i32;
            let create =
                |target: *mut *mut sys::AVFilterContext, filter: &CStr, name: &CStr, arguments: *const _| {
                    let filter = sys::avfilter_get_by_name(filter.as_ptr());
                    sys::avfilter_graph_create_filter(
                        target,
                        filter,
                        name.as_ptr(),
                        arguments,
                        ptr::null_mut(),
                        graph.as_ptr(),
                    )
                };
            check("set up the filters", create(&mut this.source, c"buffer", c"in", arguments.as_ptr()))?;
            check("set up the filters", create(&mut this.sink, c"buffersink", c"out", ptr::null()))?;
            let mut outputs = sys::avfilter_inout_alloc();
            let mut inputs = sys::avfilter_inout_alloc();
            let code = if outputs.is_null() || inputs.is_null() {
                -libc::ENOMEM
            } else {
                (*outputs).name = sys::av_strdup(c"in".as_ptr());
                (*outputs).filter_ctx = this.source;
                (*inputs).name = sys::av_strdup(c"out".as_ptr());
                (*inputs).filter_ctx = this.sink;
                sys::avfilter_graph_parse_ptr(
                    graph.as_ptr(),
                    description.as_ptr(),
                    &mut inputs,
                    &mut outputs,
                    ptr::null_mut(),
                )
            };
            sys::avfilter_inout_free(&mut inputs);
            sys::avfilter_inout_free(&mut outputs);
            check("set up the filters", code)?;
            check("set up the filters", sys::avfilter_graph_config(graph.as_ptr(), ptr::null_mut()))?;
        }
        Ok(this)
    }

    /// `None`: no more frames; [`Self::receive`] gives what is left inside.
    pub fn send(&mut self, frame: Option<Frame>) -> Result<()> {
        let code = match frame {
            // SAFETY: owned filter and frame; the filter takes the frame's reference.
            Some(mut frame) => unsafe {
                sys::av_buffersrc_add_frame_flags(self.source, frame.as_mut_ptr(), 0)
            },
            // SAFETY: owned filter; null means the end.
            None => unsafe { sys::av_buffersrc_add_frame_flags(self.source, ptr::null_mut(), 0) },
        };
        check("filter", code).map(drop)
    }

    /// The next frame, or `None` when another one is wanted (or all was drained).
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        let mut frame = Frame::empty()?;
        // SAFETY: owned filter and frame.
        match unsafe { sys::av_buffersink_get_frame(self.sink, frame.as_mut_ptr()) } {
            sys::AVERROR_EOF => Ok(None),
            code if code == -libc::EAGAIN => Ok(None),
            code => {
                check("filter", code)?;
                self.restore_ticks(&mut frame);
                Ok(Some(frame))
            }
        }
    }

    fn restore_ticks(&self, frame: &mut Frame) {
        let Some(pts) = frame.pts() else { return };
        // SAFETY: owned, configured filter; plain arithmetic.
        let pts = unsafe {
            let inside = sys::av_buffersink_get_time_base(self.sink);
            let outside = sys::AVRational { num: self.time_base.0, den: self.time_base.1 };
            sys::av_rescale_q(pts, inside, outside)
        };
        frame.set_pts(pts);
    }
}

impl Drop for FilterGraph {
    fn drop(&mut self) {
        let mut raw = self.graph.as_ptr();
        // SAFETY: owned; frees the filters too.
        unsafe { sys::avfilter_graph_free(&mut raw) };
    }
}
