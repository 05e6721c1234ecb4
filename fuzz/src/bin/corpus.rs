//! A corpus as one text file, one input in hexadecimal on each line, and as the folder of files that libFuzzer wants.
//!
//! `corpus unpack FILE FOLDER` and `corpus pack FOLDER FILE`; called by `fuzz/run`.

use std::{env, fs, io, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack", file, folder] => unpack(file, folder),
        ["pack", folder, file] => pack(folder, file),
        _ => Err(io::Error::other("usage: corpus unpack FILE FOLDER | corpus pack FOLDER FILE")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn unpack(file: &str, folder: &str) -> io::Result<()> {
    let inputs = reelyard_fuzz::corpus(&fs::read_to_string(file)?);
    for (index, input) in inputs.iter().enumerate() {
        fs::write(format!("{folder}/{index:05}"), input)?;
    }
    Ok(())
}

fn pack(folder: &str, file: &str) -> io::Result<()> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let input = fs::read(entry?.path())?;
        lines.push(input.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    // Short ones first: what a reader of the file understands.
    lines.sort_by_key(|line| (line.len(), line.clone()));
    fs::write(file, lines.join("\n") + "\n")
}
