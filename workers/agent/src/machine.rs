//! What this machine has, and how it is divided into slots.

use nvml_wrapper::{Nvml, enum_wrappers::device::EncoderType, error::NvmlError};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Cores given to one encode. x264 and the scalers of five rungs keep four busy; above that, a second chunk next to
/// it is worth more than more threads in the first.
const CORES_PER_ENCODE: usize = 4;
/// Memory to have for each encode: a 1080p ladder takes half of it, an 8K one twice.
const MEMORY_PER_ENCODE_BYTES: u64 = 1536 << 20;
/// The library that comes with the driver; the name without a number only exists with developer packages.
const NVML_LIBRARIES: &[&str] = &["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Cores, memory and graphics cards, as far as this process may use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cores: usize,
    pub memory_bytes: u64,
    pub gpus: Gpus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    Found {
        /// By NVML's index, at least one.
        cards: Vec<Gpu>,
        /// Those that do not answer (fallen off the bus), each with the reason. The others still work.
        silent: Vec<String>,
    },
    /// And why: no library, no driver, no card.
    None(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    pub uuid: String,
    /// `None` where it is the processor's memory, and with drivers before 510.
    pub memory: Option<GpuMemory>,
    pub driver: String,
    /// NVENC's free share for H.264 in percent; `None` on cards without an encoder.
    pub h264_encoder_percent_free: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// How many children run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Any kind of task. An encode uses several threads by itself.
    pub heavy: usize,
    /// Probes, sound and stills: so that a new upload is looked at while an encode takes its time.
    pub light: usize,
    /// Threads for each heavy slot.
    pub threads: u32,
}

impl Machine {
    /// Looks. Takes some milliseconds, more where a driver has to wake a card.
    pub fn look() -> Self {
        Self {
            // Honours affinity and the processor quota of a container.
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(),
            gpus: Gpus::look(NVML_LIBRARIES),
        }
    }
}

impl Slots {
    /// One encode for each four cores, as far as memory reaches, and never none; one light slot beside.
    pub fn for_machine(cores: usize, memory_bytes: u64) -> Self {
        let by_cores = cores / CORES_PER_ENCODE;
        let by_memory = usize::try_from(memory_bytes / MEMORY_PER_ENCODE_BYTES).unwrap_or(usize::MAX);
        let heavy = by_cores.min(by_memory).max(1);
        let threads = u32::try_from((cores / heavy).max(1)).unwrap_or(u32::MAX);
        Self { heavy, light: 1, threads }
    }
}

/// The machine's memory, or the container's limit where that is less; 0 when neither can be read.
fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of_meminfo(&text));
    let container = own_cgroup()
        .into_iter()
        .flat_map(|group| group.ancestors().map(Path::to_owned).collect::<Vec<_>>())
        .filter_map(|group| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse::<u64>().ok())
        .min();
    machine.into_iter().chain(container).min().unwrap_or(0)
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Version 2 of control groups only: `0::/path`.
fn own_cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

impl Gpus {
    /// Asks the driver through the first of these libraries that starts: names for the system's search, or paths.
    /// [`Machine::look`] says which; a test says its own. Every error is a reason in the answer.
    pub fn look<P: AsRef<OsStr>>(libraries: &[P]) -> Self {
        let mut first_reason = None;
        for library in libraries {
            match Nvml::builder().lib_path(library.as_ref()).init() {
                Ok(nvml) => return Self::list(&nvml),
                // The first library's reason is the one that tells: it is the one that is installed.
                Err(error) => {
                    first_reason.get_or_insert_with(|| why(library.as_ref(), &error));
                }
            }
        }
        Self::None(first_reason.unwrap_or_default())
    }

    fn list(nvml: &Nvml) -> Self {
        let count = match nvml.device_count() {
            Ok(0) => return Self::None("the driver lists no card".to_owned()),
            Ok(count) => count,
            Err(error) => {
                return Self::None(format!("the driver does not say how many cards there are: {error}"));
            }
        };
        let driver = nvml.sys_driver_version().unwrap_or_else(|_| "unknown".to_owned());
        let (mut cards, mut silent) = (Vec::new(), Vec::new());
        for index in 0..count {
            match card(nvml, index, &driver) {
                Ok(card) => cards.push(card),
                Err(error) => silent.push(format!("card {index} does not answer: {error}")),
            }
        }
        if cards.is_empty() { Self::None(silent.join("; ")) } else { Self::Found { cards, silent } }
    }
}

fn card(nvml: &Nvml, index: u32, driver: &str) -> Result<Gpu, NvmlError> {
    let device = nvml.device_by_index(index)?;
    Ok(Gpu {
        name: device.name()?,
        uuid: device.uuid()?,
        memory: device
            .memory_info()
            .ok()
            .map(|memory| GpuMemory { total_bytes: memory.total, free_bytes: memory.free }),
        driver: driver.to_owned(),
        h264_encoder_percent_free: device.encoder_capacity(EncoderType::H264).ok(),
    })
}

fn why(library: &OsStr, error: &NvmlError) -> String {
    let library = library.display();
    match error {
        // The loader has no numbers, only words.
        NvmlError::LibloadingError(error) if error.to_string().contains("No such file") => {
            format!("{library} is not installed: no NVIDIA driver")
        }
        NvmlError::LibloadingError(error) => format!("{library} cannot be loaded: {error}"),
        other => format!("NVML does not start: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Slots, total_of_meminfo};

    #[test]
    fn slots_follow_cores_and_memory() {
        let slots = |cores, gibibytes: u64| {
            let Slots { heavy, light, threads } = Slots::for_machine(cores, gibibytes << 30);
            (heavy, light, threads)
        };
        assert_eq!(slots(1, 1), (1, 1, 1));
        assert_eq!(slots(2, 8), (1, 1, 2));
        assert_eq!(slots(7, 32), (1, 1, 7));
        assert_eq!(slots(16, 128), (4, 1, 4));
        assert_eq!(slots(16, 4), (2, 1, 8));
        assert_eq!(slots(16, 0), (1, 1, 16));
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(total_of_meminfo("MemFree: 5 kB\nMemTotal:       24602196 kB\n"), Some(24_602_196 << 10));
        assert_eq!(total_of_meminfo("nothing"), None);
    }

    #[test]
    fn this_machine_has_something_to_work_with() {
        let machine = Machine::look();
        assert!(machine.cores > 0);
        assert!(machine.memory_bytes > 0);
    }
}
