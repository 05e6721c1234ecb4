//! Packets of a source, read through damage: one rule for every job, so that a probe and an encode see the same film.
//!
//! Damage inside the container is passed over as long as packets come in between. A descriptor that fails is no damage:
//! to end there would publish half a film.

use crate::context::internal;
use reelyard_ffmpeg::{Input, Packet};
use reelyard_model::{Failure, FailureCode};

/// A container that fails so often without a packet between will not recover.
const MAX_ERRORS_IN_A_ROW: u32 = 100;

pub(crate) enum Next {
    /// In the packet that was given.
    Packet,
    /// Something was not readable; more may come.
    Damage,
    End,
}

#[derive(Default)]
pub(crate) struct Packets {
    errors_in_a_row: u32,
}

impl Packets {
    pub(crate) fn next(&mut self, input: &mut Input, packet: &mut Packet) -> Result<Next, Failure> {
        match input.read(packet) {
            Ok(true) => {
                self.errors_in_a_row = 0;
                Ok(Next::Packet)
            }
            Ok(false) => Ok(Next::End),
            Err(error) if error.is_out_of_memory() => Err(internal(error)),
            Err(error) if error.is_input_output() => {
                Err(Failure::new(FailureCode::SourceMissing, error.to_string()))
            }
            Err(_) => {
                self.errors_in_a_row += 1;
                Ok(if self.errors_in_a_row > MAX_ERRORS_IN_A_ROW { Next::End } else { Next::Damage })
            }
        }
    }
}
