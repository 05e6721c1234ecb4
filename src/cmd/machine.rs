//! What a machine gives to the farm, for a worker in a server and for one of its own alike: how many slots, and what it
//! tells about itself.

use reelyard_agent::{Gpus, Machine, Slots};
use reelyard_model::worker_protocol::{GpuFacts, MachineFacts};

/// As many as fit, or as somebody said.
pub(super) fn slots(machine: &Machine, told: Option<u32>) -> Slots {
    let fitting = Slots::for_machine(machine.cores, machine.memory_bytes);
    let Some(heavy) = told.and_then(|slots| usize::try_from(slots).ok()) else {
        return fitting;
    };
    let threads = u32::try_from((machine.cores / heavy.max(1)).max(1)).unwrap_or(1);
    Slots { heavy, threads, ..fitting }
}

pub(super) fn facts(machine: &Machine, slots: Slots) -> MachineFacts {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let gpus = match &machine.gpus {
        Gpus::Found { cards, .. } => cards
            .iter()
            .map(|card| GpuFacts {
                name: card.name.clone(),
                memory_bytes: card.memory.map(|memory| memory.total_bytes),
            })
            .collect(),
        Gpus::None(_) => Vec::new(),
    };
    MachineFacts {
        cores: small(machine.cores),
        memory_bytes: machine.memory_bytes,
        gpus,
        heavy_slots: small(slots.heavy),
        light_slots: small(slots.light),
    }
}
