//! What this machine's GPUs say of themselves (power, energy, heat, memory; one file a vendor, behind [`Vendor`]) and what
//! the power sensors around them say ([`Sensors`]).
//!
//! It knows no network and no policy. A machine without a GPU, or without a driver, is a normal machine. Sensors lie,
//! stop and vanish: what a sensor does not tell, or tells beyond belief, is `None`, never zero and never a panic.

#[cfg(target_os = "linux")]
mod amd;
#[cfg(target_os = "macos")]
mod apple;
mod battery;
pub mod cap;
#[cfg(target_os = "linux")]
mod counter;
#[cfg(target_os = "linux")]
mod fdinfo;
mod finding;
#[cfg(target_os = "linux")]
mod ina3221;
#[cfg(target_os = "linux")]
mod intel;
mod machine;
#[cfg(target_os = "linux")]
mod names;
mod nvidia;
#[cfg(target_os = "linux")]
mod pci;
#[cfg(target_os = "linux")]
mod powercap;
mod process;
mod rest;
mod sensors;
#[cfg(target_os = "linux")]
mod sysfs;
#[cfg(any(windows, test))]
mod wddm;

use std::path::PathBuf;
use std::time::Duration;

use idlewatt_core::device::{GpuReading, Sensor};

pub use battery::supply;
pub use machine::Machine;
pub use process::{
    ProcessRun, connections_of_others, is_here, may_serve, program, runs_serving, serving, started_by,
};
pub use sensors::{Sensors, of_card, refresh};

/// Where to look. The defaults are the system's own places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `devices.nvml`: NVML's library; `None` is the driver's own name for it.
    pub nvml: Option<PathBuf>,
    /// `devices.sysfs`: where Linux tells of devices.
    pub sysfs: PathBuf,
    /// Where Linux tells of processes.
    pub proc: PathBuf,
    /// Where packages put lists of product names.
    pub share: PathBuf,
    /// How long until a driver that is absent, or a card that was lost, is looked for again.
    pub retry: Duration,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            nvml: None,
            sysfs: PathBuf::from("/sys"),
            proc: PathBuf::from("/proc"),
            share: PathBuf::from("/usr/share"),
            retry: Duration::from_secs(10),
        }
    }
}

/// One vendor's cards. Calls block for milliseconds: not for an async thread.
pub trait Vendor: Send {
    /// Reads every card once. A card that fails does not hide the others, and is looked for again the next time.
    fn read(&mut self) -> Vec<Result<GpuReading, CardError>>;

    /// The power sensor of each card that was there at the last reading.
    fn sensors(&mut self) -> Vec<Sensor>;

    /// VRAM by process, where the driver tells.
    fn processes(&mut self) -> Vec<GpuProcess>;

    /// What is found here, and what is missing, for `doctor`.
    fn findings(&mut self) -> Vec<Finding>;
}

/// Every card of this machine.
pub struct Gpus {
    vendors: Vec<Box<dyn Vendor>>,
}

impl Gpus {
    /// Looks for drivers. None is no error.
    #[must_use]
    pub fn new(places: &Places) -> Self {
        let vendors: Vec<Box<dyn Vendor>> = vec![
            Box::new(nvidia::Nvidia::new(places)),
            #[cfg(target_os = "linux")]
            Box::new(amd::Amd::new(places)),
            #[cfg(target_os = "linux")]
            Box::new(intel::Intel::new(places)),
            #[cfg(target_os = "macos")]
            Box::new(apple::Apple::new()),
        ];
        Self { vendors }
    }

    /// Reads every card once.
    pub fn read(&mut self) -> Vec<Result<GpuReading, CardError>> {
        self.vendors.iter_mut().flat_map(|vendor| vendor.read()).collect()
    }

    /// The power sensor of each card.
    pub fn sensors(&mut self) -> Vec<Sensor> {
        self.vendors.iter_mut().flat_map(|vendor| vendor.sensors()).collect()
    }

    /// VRAM by process, where a driver tells.
    pub fn processes(&mut self) -> Vec<GpuProcess> {
        self.vendors.iter_mut().flat_map(|vendor| vendor.processes()).collect()
    }

    /// What is found here, and what is missing, for `doctor`.
    pub fn findings(&mut self) -> Vec<Finding> {
        self.vendors.iter_mut().flat_map(|vendor| vendor.findings()).collect()
    }
}

/// A card that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} ({id}): {problem}")]
pub struct CardError {
    /// The driver's stable id: `GPU-…`.
    pub id: String,
    /// Product name.
    pub name: String,
    /// Whether the card is gone: fallen off the bus, or its driver was unloaded.
    pub lost: bool,
    /// The driver's words.
    pub problem: String,
}

/// One process's share of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    /// The card's id.
    pub gpu: String,
    /// Process id.
    pub pid: u32,
    /// VRAM that it holds, bytes; `None` where the driver does not tell (Windows).
    pub vram: Option<u64>,
    /// Busy part of the last seconds that is its own, 0 to 100 %; `None` where the driver does not tell it by process.
    pub utilisation: Option<u8>,
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do, where there is something to do.
    pub action: Option<String>,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>) -> Self {
        Self { level, what: what.into(), action: None }
    }

    fn act(self, action: impl Into<String>) -> Self {
        Self { action: Some(action.into()), ..self }
    }
}

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Normal, and worth knowing.
    Note,
    /// Something does less than it could.
    Warning,
    /// Something does not work.
    Problem,
}
