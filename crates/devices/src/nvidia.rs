//! NVIDIA cards by NVML, which is loaded at run time: its absence is a normal state.
//!
//! Field 186 is the power of this instant; where a card does not know it, `power_usage` is an average over about a
//! second on Ampere and newer, and instantaneous before. A card that sleeps (Linux runtime power management) is not
//! woken to be looked at.

use std::fs;
use std::path::Path;
use std::time::Instant;

use idlewatt_core::device::{GpuReading, Power, Scope, Sensor};
use idlewatt_protocol::{Millijoules, Milliwatts};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::{DeviceArchitecture, SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_POWER_INSTANT;
use nvml_wrapper::{Device, Nvml};

use crate::{CardError, Finding, GpuProcess, Level, Places, Vendor, finding};

pub(crate) struct Nvidia {
    places: Places,
    driver: Driver,
    /// When to load the driver again, because it is absent or a card is lost: handles of a lost card stay lost.
    load_at: Option<Instant>,
}

enum Driver {
    Loaded { nvml: Box<Nvml>, cards: Vec<Card> },
    Absent(NvmlError),
}

/// What does not change while the driver is loaded.
struct Card {
    index: u32,
    id: String,
    name: String,
    /// The card's folder below `bus/pci/devices`.
    pci: Option<String>,
    default_limit: Option<Milliwatts>,
    /// Whether `power_usage` averages.
    averages: bool,
}

impl Nvidia {
    pub(crate) fn new(places: &Places) -> Self {
        let mut this = Self {
            places: places.clone(),
            driver: Driver::Absent(NvmlError::Uninitialized),
            load_at: Some(Instant::now()),
        };
        this.look_again();
        this
    }

    fn look_again(&mut self) {
        if self.load_at.is_some_and(|at| at <= Instant::now()) {
            self.load_at = None;
            // The old handle goes first: NVML counts its users, and only the last one's end forgets a lost card.
            self.driver = Driver::Absent(NvmlError::Uninitialized);
            self.driver = Driver::load(self.places.nvml.as_deref());
            if let Driver::Absent(problem) = &self.driver {
                tracing::debug!(%problem, "no NVML");
                self.retry_later();
            }
        }
    }

    fn retry_later(&mut self) {
        self.load_at.get_or_insert(Instant::now() + self.places.retry);
    }
}

impl Vendor for Nvidia {
    fn read(&mut self) -> Vec<Result<GpuReading, CardError>> {
        self.look_again();
        let Driver::Loaded { nvml, cards } = &self.driver else { return Vec::new() };
        let readings: Vec<_> = cards.iter().map(|card| card.read(nvml, &self.places.sysfs)).collect();
        if readings.iter().any(|reading| reading.as_ref().is_err_and(|error| error.lost)) {
            self.retry_later();
        }
        readings
    }

    fn sensors(&mut self) -> Vec<Sensor> {
        self.look_again();
        let Driver::Loaded { cards, .. } = &self.driver else { return Vec::new() };
        cards.iter().map(Card::sensor).collect()
    }

    fn processes(&mut self) -> Vec<GpuProcess> {
        self.look_again();
        let Driver::Loaded { nvml, cards } = &self.driver else { return Vec::new() };
        let awake = cards.iter().filter(|card| !card.sleeps(&self.places.sysfs));
        awake.flat_map(|card| card.processes(nvml).unwrap_or_default()).collect()
    }

    fn findings(&mut self) -> Vec<Finding> {
        let readings = self.read();
        let driver = match &self.driver {
            Driver::Absent(problem) => absent(problem),
            Driver::Loaded { cards, .. } if cards.is_empty() => {
                Finding::new(Level::Note, "the NVIDIA driver is loaded and names no GPU")
            }
            Driver::Loaded { nvml, .. } => {
                let version = nvml.sys_driver_version().unwrap_or_else(|_| "of unknown version".into());
                Finding::new(Level::Good, format!("NVIDIA driver {version}"))
            }
        };
        std::iter::once(driver).chain(readings.iter().map(finding::of_card)).collect()
    }
}

impl Driver {
    fn load(library: Option<&Path>) -> Self {
        let mut builder = Nvml::builder();
        if let Some(library) = library {
            builder.lib_path(library.as_os_str());
        }
        match builder.init().and_then(|nvml| Ok((Card::list(&nvml)?, nvml))) {
            Ok((cards, nvml)) => {
                tracing::info!(cards = cards.len(), "NVML loaded");
                Self::Loaded { nvml: Box::new(nvml), cards }
            }
            Err(problem) => Self::Absent(problem),
        }
    }
}

impl Card {
    fn list(nvml: &Nvml) -> Result<Vec<Self>, NvmlError> {
        Ok((0..nvml.device_count()?).map(|index| Self::new(nvml, index)).collect())
    }

    /// What a card is. One that does not even tell that is kept under its index, so that its error is seen.
    fn new(nvml: &Nvml, index: u32) -> Self {
        use DeviceArchitecture::{Kepler, Maxwell, Pascal, Turing, Volta};
        let device = nvml.device_by_index(index);
        let ask = |question: &dyn Fn(&Device<'_>) -> Result<String, NvmlError>| {
            device.as_ref().ok().and_then(|device| question(device).ok())
        };
        let device = device.as_ref().ok();
        let architecture = device.and_then(|device| device.architecture().ok());
        Self {
            index,
            id: ask(&|device| device.uuid()).unwrap_or_else(|| format!("nvidia-{index}")),
            name: ask(&|device| device.name()).unwrap_or_else(|| "NVIDIA GPU".into()),
            pci: ask(&|device| device.pci_info().map(|pci| pci.bus_id)).and_then(|id| sysfs_name(&id)),
            default_limit: device.and_then(|it| it.power_management_limit_default().ok()).map(milliwatts),
            averages: !matches!(architecture, Some(Kepler | Maxwell | Pascal | Volta | Turing)),
        }
    }

    fn sensor(&self) -> Sensor {
        Sensor {
            id: self.id.clone(),
            name: self.name.clone(),
            scope: Scope::Board,
            method: "NVML: power and energy counter".into(),
            leaves_out: None,
        }
    }

    fn read(&self, nvml: &Nvml, sysfs: &Path) -> Result<GpuReading, CardError> {
        let blank = GpuReading {
            default_limit: self.default_limit,
            ..GpuReading::silent(&self.id, &self.name, Instant::now())
        };
        if self.sleeps(sysfs) {
            return Ok(GpuReading { asleep: true, ..blank });
        }
        nvml.device_by_index(self.index)
            .and_then(|device| self.fill(&device, blank))
            .map_err(|error| self.error(&error))
    }

    fn fill(&self, device: &Device<'_>, blank: GpuReading) -> Result<GpuReading, NvmlError> {
        let memory = known(device.memory_info())?;
        Ok(GpuReading {
            power: self.power(device)?,
            // Read at the same moment as the power, so that the meter can hold one against the other.
            at: Instant::now(),
            energy: known(device.total_energy_consumption())?
                .and_then(|mj| i64::try_from(mj).ok())
                .map(Millijoules),
            temperature_c: known(device.temperature(TemperatureSensor::Gpu))?
                .and_then(|c| i32::try_from(c).ok()),
            vram_used: memory.as_ref().map(|memory| memory.used),
            vram_total: memory.as_ref().map(|memory| memory.total),
            utilisation: known(device.utilization_rates())?.map(|rates| rates.gpu),
            limit: known(device.enforced_power_limit())?.map(milliwatts),
            ..blank
        })
    }

    fn power(&self, device: &Device<'_>) -> Result<Option<Power>, NvmlError> {
        let fields = known(device.field_values_for(&[FieldId(NVML_FI_DEV_POWER_INSTANT)]))?;
        let instant = fields.into_iter().flatten().flatten().find_map(|field| match field.value {
            Ok(SampleValue::U32(mw)) => Some(milliwatts(mw)),
            _ => None,
        });
        if let Some(value) = instant {
            return Ok(Some(Power { value, averaged: false }));
        }
        let usage = known(device.power_usage())?.map(milliwatts);
        Ok(usage.map(|value| Power { value, averaged: self.averages }))
    }

    fn processes(&self, nvml: &Nvml) -> Result<Vec<GpuProcess>, NvmlError> {
        let device = nvml.device_by_index(self.index)?;
        let mut processes = Vec::new();
        let lists = [known(device.running_compute_processes())?, known(device.running_graphics_processes())?];
        for process in lists.into_iter().flatten().flatten() {
            let vram = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let process = GpuProcess { gpu: self.id.clone(), pid: process.pid, vram };
            // A process may both compute and draw; NVML names it twice with the same memory.
            if !processes.contains(&process) {
                processes.push(process);
            }
        }
        Ok(processes)
    }

    fn sleeps(&self, sysfs: &Path) -> bool {
        let Some(pci) = &self.pci else { return false };
        let status = sysfs.join("bus/pci/devices").join(pci).join("power/runtime_status");
        fs::read_to_string(status).is_ok_and(|status| status.trim() == "suspended")
    }

    fn error(&self, error: &NvmlError) -> CardError {
        CardError {
            id: self.id.clone(),
            name: self.name.clone(),
            lost: is_lost(error),
            problem: error.to_string(),
        }
    }
}

/// A reading that the card, the driver or our rights do not give is `None`; a lost card is an error.
fn known<T>(reading: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_lost(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

pub(crate) const fn is_lost(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::GpuLost
            | NvmlError::ResetRequired
            | NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::LibRmVersionMismatch
    )
}

pub(crate) fn milliwatts(value: u32) -> Milliwatts {
    Milliwatts(value.into())
}

/// NVML writes `00000000:01:00.0`, sysfs `0000:01:00.0`.
pub(crate) fn sysfs_name(bus_id: &str) -> Option<String> {
    let (domain, rest) = bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    Some(format!("{domain:04x}:{}", rest.to_lowercase()))
}

fn absent(problem: &NvmlError) -> Finding {
    match problem {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Finding::new(
            Level::Note,
            "no NVIDIA driver (NVML) is installed; energy is unknown without a sensor",
        )
        .act("Install the NVIDIA driver if there is an NVIDIA GPU; otherwise nothing."),
        NvmlError::DriverNotLoaded => {
            Finding::new(Level::Warning, "NVML is installed, but the NVIDIA driver is not loaded")
                .act("Load the driver (`modprobe nvidia`) or restart; it is found by itself.")
        }
        NvmlError::LibRmVersionMismatch => {
            Finding::new(Level::Problem, "the NVIDIA driver was updated under a running system")
                .act("Restart the machine.")
        }
        NvmlError::NoPermission => Finding::new(Level::Problem, "no permission to talk to the NVIDIA driver")
            .act("Give this user access to /dev/nvidia* (group video or render)."),
        NvmlError::GpuLost => Finding::new(Level::Problem, "a GPU fell off the bus")
            .act("Check its power and seat, then restart the machine; it is looked for again by itself."),
        other => Finding::new(Level::Problem, format!("NVML does not start: {other}"))
            .act("Check the driver with `nvidia-smi`."),
    }
}
