//! Standard output of the commands. A reader that has seen enough (`| head`) is no failure, and `println!` would panic.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// False: nobody reads any more.
pub(super) fn put(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// The last that a command has to say.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    put(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Text from elsewhere must not move the cursor of a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
