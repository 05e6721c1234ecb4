//! The floor: what receiving bytes, hashing them and keeping them costs without any HTTP.
//!
//! The driver starts it with a folder and talks to it on loopback: eight bytes of length, so many bytes, and one byte
//! back once they are hashed and synced; as many of these as wanted on one connection. A connection is a file. One
//! thread reads into one buffer, hashes it and writes it, and nothing else. On any failure it ends with the reason.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

/// Measured on this code with 64 KiB to 4 MiB: the cheapest by a little.
const BUFFER_BYTES: usize = 1 << 20;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("the address to listen on comes first")?;
    let folder = arguments.next().context("the folder for the files comes second")?;
    let listener = TcpListener::bind(&address).with_context(|| format!("listening on {address}"))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for number in 0.. {
        let (socket, _) = listener.accept()?;
        receive_file(socket, &Path::new(&folder).join(number.to_string()), &mut buffer)?;
    }
    Ok(())
}

fn receive_file(mut socket: TcpStream, path: &Path, buffer: &mut [u8]) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut length = [0; 8];
    loop {
        match socket.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("reading a length"),
        }
        let mut missing = u64::from_le_bytes(length);
        while missing > 0 {
            let most = buffer.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
            let byte_len = socket.read(&mut buffer[..most])?;
            anyhow::ensure!(byte_len > 0, "the sender went away");
            hash.update(&buffer[..byte_len]);
            file.write_all(&buffer[..byte_len])?;
            missing -= byte_len as u64;
        }
        file.sync_data()?;
        // What the hash is now is part of the work, as it is in a server that keeps its state.
        let so_far = hash.clone().finalize();
        socket.write_all(&so_far[..1])?;
    }
}
