//! FFmpeg's log on standard error: warnings and worse, repeats folded, at most so much of it.

use crate::sys;
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    io::Write,
    sync::Mutex,
};

/// A hostile file can make FFmpeg talk without end; the first lines tell the story.
const MAX_LINES: u64 = 200;
/// Longest line: FFmpeg quotes names and values out of the file.
const MAX_LINE_BYTES: usize = 1024;

struct LogState {
    last: String,
    last_error: String,
    repeats: u64,
    lines: u64,
}

static STATE: Mutex<LogState> =
    Mutex::new(LogState { last: String::new(), last_error: String::new(), repeats: 0, lines: 0 });

/// Call once, before anything else of this crate.
pub fn capture_log_to_stderr() {
    // SAFETY: the callback is thread-safe and lives as long as the program.
    unsafe {
        sys::av_log_set_level(sys::AV_LOG_WARNING);
        sys::av_log_set_callback(Some(callback));
    }
}

/// The last line of level error or worse, once: what was behind an error number.
pub fn take_last_error_line() -> Option<String> {
    let line = STATE.lock().map(|mut state| std::mem::take(&mut state.last_error)).ok()?;
    (!line.is_empty()).then_some(line)
}

unsafe extern "C" fn callback(
    context: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) {
    if level > sys::AV_LOG_WARNING {
        return;
    }
    let mut buffer = [0 as c_char; MAX_LINE_BYTES];
    let mut print_prefix = 1;
    // SAFETY: FFmpeg's own context, format and arguments, handed on unchanged; the buffer is ended with NUL.
    let text = unsafe {
        sys::av_log_format_line2(
            context,
            level,
            format,
            arguments,
            buffer.as_mut_ptr(),
            buffer.len() as c_int,
            &mut print_prefix,
        );
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy()
    };
    write_line(&without_addresses(text.trim_end()), level <= sys::AV_LOG_ERROR);
}

fn write_line(line: &str, is_error: bool) {
    let Ok(mut state) = STATE.lock() else { return };
    if line.is_empty() {
        return;
    }
    if is_error {
        line.clone_into(&mut state.last_error);
    }
    if state.last == line {
        state.repeats += 1;
        return;
    }
    let mut output = std::io::stderr().lock();
    if state.repeats > 0 && state.lines < MAX_LINES {
        let _ = writeln!(output, "  (the same {} more times)", state.repeats);
    }
    state.repeats = 0;
    state.lines += 1;
    if state.lines < MAX_LINES {
        let _ = writeln!(output, "{line}");
    } else if state.lines == MAX_LINES {
        let _ = writeln!(output, "(FFmpeg said more than {MAX_LINES} lines; the rest is left out)");
    }
    line.clone_into(&mut state.last);
}

/// `[h264 @ 0x55d0c8a1b2c0] text` without the address, which differs from run to run and defeats folding.
fn without_addresses(line: &str) -> String {
    match line.split_once(" @ 0x") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{before}{rest}")
        }
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_addresses;

    #[test]
    fn addresses_go() {
        assert_eq!(without_addresses("[h264 @ 0x55d0c8a1b2c0] no frame!"), "[h264] no frame!");
    }
}
