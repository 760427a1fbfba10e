//! NVIDIA cards by NVML, which is loaded at run time: its absence is a normal state.
//!
//! Field 186 is the power of this instant; where a card does not know it, field 185 is an average over about a second, and so
//! is `power_usage` on Ampere and newer (before, it is instantaneous). A card that sleeps (Linux runtime power management)
//! is not woken to be looked at; while all of them sleep NVML is not even loaded, which would wake them.
//!
//! A card that fell off the bus, a driver that was loaded again and a card that was plugged in are all seen by loading NVML
//! anew: its handles stay what they were.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use idlewatt_core::device::{GpuReading, LimitRange, Power, Scope, Sensor};
use idlewatt_protocol::{Millijoules, Milliwatts};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::{DeviceArchitecture, SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT,
};
use nvml_wrapper::{Device, Nvml};

use crate::rest::Rest;
use crate::{CardError, Finding, GpuProcess, Level, Places, Vendor, finding};

pub(crate) struct Nvidia {
    places: Places,
    driver: Driver,
    /// When to look whether cards came or went, and whether a driver that is absent is there now.
    look_at: Instant,
    /// A card is lost, and its handle stays lost: the driver is loaded again at the next look.
    lost: bool,
    /// The folders of the driver's devices when it was loaded.
    devices: Vec<PathBuf>,
    /// Who knows what NVML does not on Windows.
    #[cfg(windows)]
    wddm: crate::wddm::Wddm,
}

enum Driver {
    Loaded {
        nvml: Box<Nvml>,
        cards: Vec<Card>,
    },
    Absent(NvmlError),
    /// It is there, and so are its cards, all of which sleep.
    Asleep,
}

/// What does not change while the driver is loaded.
struct Card {
    index: u32,
    id: String,
    name: String,
    /// The card's folder below `bus/pci/devices`.
    pci: Option<String>,
    default_limit: Option<Milliwatts>,
    limit_range: Option<LimitRange>,
    fans: u32,
    /// Whether `power_usage` averages.
    averages: bool,
    /// Whether its chip looks at its power only a part of the time.
    looks_away: bool,
    rest: Rest,
}

/// Over this much of the past it is told how busy a process was.
const BUSY: Duration = Duration::from_secs(2);

impl Nvidia {
    pub(crate) fn new(places: &Places) -> Self {
        let mut this = Self {
            places: places.clone(),
            driver: Driver::Absent(NvmlError::Uninitialized),
            look_at: Instant::now(),
            lost: false,
            devices: Vec::new(),
            #[cfg(windows)]
            wddm: crate::wddm::Wddm::new(),
        };
        this.look_again();
        this
    }

    fn look_again(&mut self) {
        let now = Instant::now();
        if self.look_at > now {
            return;
        }
        self.look_at = now + self.places.retry;
        let devices = devices(&self.places.sysfs);
        let loaded = matches!(self.driver, Driver::Loaded { .. });
        if loaded && !self.lost && devices == self.devices {
            return;
        }
        self.lost = false;
        if !loaded && !devices.is_empty() && devices.iter().all(|device| is_suspended(device)) {
            self.driver = Driver::Asleep;
            return;
        }
        // The old handle goes first: NVML counts its users, and only the last one's end forgets a lost card.
        self.driver = Driver::Absent(NvmlError::Uninitialized);
        self.driver = Driver::load(self.places.nvml.as_deref());
        self.devices = devices;
        if let Driver::Absent(problem) = &self.driver {
            tracing::debug!(%problem, "no NVML");
        }
    }
}

impl Vendor for Nvidia {
    fn read(&mut self) -> Vec<Result<GpuReading, CardError>> {
        self.look_again();
        let Driver::Loaded { nvml, cards } = &mut self.driver else { return Vec::new() };
        let readings: Vec<_> =
            cards.iter_mut().map(|card| card.read_or_rest(nvml, &self.places.sysfs)).collect();
        self.lost |= readings.iter().any(|reading| reading.as_ref().is_err_and(|error| error.lost));
        readings
    }

    fn sensors(&mut self) -> Vec<Sensor> {
        self.look_again();
        let Driver::Loaded { nvml, cards } = &self.driver else { return Vec::new() };
        cards.iter().map(|card| card.sensor(nvml, &self.places.sysfs)).collect()
    }

    fn processes(&mut self) -> Vec<GpuProcess> {
        self.look_again();
        let Driver::Loaded { nvml, cards } = &self.driver else { return Vec::new() };
        let awake = cards.iter().filter(|card| !card.sleeps(&self.places.sysfs));
        let processes = awake.flat_map(|card| card.processes(nvml).unwrap_or_default()).collect();
        #[cfg(windows)]
        let processes = with_uses(processes, cards, &self.wddm.uses());
        processes
    }

    fn findings(&mut self) -> Vec<Finding> {
        let readings = self.read();
        let driver = match &self.driver {
            Driver::Absent(problem) => absent(problem),
            Driver::Asleep => {
                Finding::new(Level::Note, "every NVIDIA card sleeps, and is not woken to be looked at")
            }
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
        let name = ask(&|device| device.name()).unwrap_or_else(|| "NVIDIA GPU".into());
        Self {
            index,
            looks_away: looks_away(&name),
            id: ask(&|device| device.uuid()).unwrap_or_else(|| format!("nvidia-{index}")),
            name,
            pci: ask(&|device| device.pci_info().map(|pci| pci.bus_id)).and_then(|id| sysfs_name(&id)),
            default_limit: device.and_then(|it| it.power_management_limit_default().ok()).map(milliwatts),
            limit_range: device
                .and_then(|it| it.power_management_limit_constraints().ok())
                .map(|it| LimitRange { min: milliwatts(it.min_limit), max: milliwatts(it.max_limit) })
                .filter(|range| range.min < range.max),
            fans: device.and_then(|it| it.num_fans().ok()).unwrap_or_default(),
            rest: Rest::default(),
            averages: !matches!(architecture, Some(Kepler | Maxwell | Pascal | Volta | Turing)),
        }
    }

    fn sensor(&self, nvml: &Nvml, sysfs: &Path) -> Sensor {
        let last = self.rest.last().cloned();
        let reading = last.or_else(|| self.read(nvml, sysfs).ok()).filter(|reading| !reading.asleep);
        let told = |reading: GpuReading| {
            let power = reading.power.map(|power| match power.averaged {
                true => "power averaged over about a second",
                false => "instantaneous power",
            });
            let told: Vec<_> = power.into_iter().chain(reading.energy.map(|_| "energy counter")).collect();
            format!("NVML: {}", if told.is_empty() { "no power".to_owned() } else { told.join(", ") })
        };
        Sensor {
            id: self.id.clone(),
            name: self.name.clone(),
            scope: Scope::Board,
            method: reading.map_or_else(|| "NVML; the card sleeps or is lost".to_owned(), told),
            leaves_out: self.looks_away.then(|| {
                "three quarters of the time: this chip looks at its power a quarter of the time only (arXiv 2312.02741)".into()
            }),
        }
    }

    fn read_or_rest(&mut self, nvml: &Nvml, sysfs: &Path) -> Result<GpuReading, CardError> {
        let device = self.device(sysfs);
        let instead = device.and_then(|device| self.rest.instead(&device, Instant::now()));
        if let Some(last) = instead.filter(|_| !self.sleeps(sysfs)) {
            return Ok(last);
        }
        let reading = self.read(nvml, sysfs)?;
        self.rest.looked(&reading);
        Ok(reading)
    }

    fn read(&self, nvml: &Nvml, sysfs: &Path) -> Result<GpuReading, CardError> {
        let blank = GpuReading {
            default_limit: self.default_limit,
            limit_range: self.limit_range,
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
        let (memory, temperature) = (device.memory_info(), device.temperature(TemperatureSensor::Gpu));
        // After its driver was loaded again a handle may know nothing any more, and NVML has no better word for it.
        if matches!((&memory, &temperature), (Err(NvmlError::Unknown), Err(NvmlError::Unknown))) {
            return Err(NvmlError::GpuLost);
        }
        let memory = known(memory)?;
        let [instant, average, memory_temperature] = fields(device)?;
        Ok(GpuReading {
            power: self.power(device, instant, average)?,
            // Read at the same moment as the power, so that the meter can hold one against the other.
            at: Instant::now(),
            energy: known(device.total_energy_consumption())?
                .and_then(|mj| i64::try_from(mj).ok())
                .map(Millijoules),
            temperature_c: known(temperature)?.and_then(|c| i32::try_from(c).ok()),
            // The only hot spot that NVML tells, and of cards with stacked memory only; the others say zero.
            hot_spot_c: memory_temperature.filter(|c| *c > 0).and_then(|c| i32::try_from(c).ok()),
            fan_percent: self.fastest_fan(device)?,
            vram_used: memory.as_ref().map(|memory| memory.used),
            vram_total: memory.as_ref().map(|memory| memory.total),
            utilisation: known(device.utilization_rates())?.map(|rates| rates.gpu),
            limit: known(device.enforced_power_limit())?.map(milliwatts),
            ..blank
        })
    }

    fn power(
        &self,
        device: &Device<'_>,
        instant: Option<u32>,
        average: Option<u32>,
    ) -> Result<Option<Power>, NvmlError> {
        // A card that is awake draws something: zero is what a sensor says that does not work.
        let of = |value: Option<u32>, averaged| {
            let value = value.filter(|value| *value > 0)?;
            Some(Power { value: milliwatts(value), averaged })
        };
        let told = of(instant, false).or_else(|| of(average.filter(|_| self.averages), true));
        match told {
            Some(power) => Ok(Some(power)),
            None => Ok(of(known(device.power_usage())?, self.averages)),
        }
    }

    fn fastest_fan(&self, device: &Device<'_>) -> Result<Option<u32>, NvmlError> {
        let fans = (0..self.fans).map(|fan| known(device.fan_speed(fan)));
        fans.collect::<Result<Vec<_>, _>>().map(|speeds| speeds.into_iter().flatten().max())
    }

    fn processes(&self, nvml: &Nvml) -> Result<Vec<GpuProcess>, NvmlError> {
        let device = nvml.device_by_index(self.index)?;
        let mut processes = Vec::new();
        let busy = busy(&device);
        let lists = [known(device.running_compute_processes())?, known(device.running_graphics_processes())?];
        for process in lists.into_iter().flatten().flatten() {
            let vram = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let utilisation = busy.as_ref().map(|busy| busy.get(&process.pid).copied().unwrap_or(0));
            let process = GpuProcess { gpu: self.id.clone(), pid: process.pid, vram, utilisation };
            // A process may both compute and draw; NVML names it twice with the same memory.
            if !processes.contains(&process) {
                processes.push(process);
            }
        }
        Ok(processes)
    }

    fn sleeps(&self, sysfs: &Path) -> bool {
        self.device(sysfs).is_some_and(|device| is_suspended(&device))
    }

    fn device(&self, sysfs: &Path) -> Option<PathBuf> {
        self.pci.as_ref().map(|pci| sysfs.join("bus/pci/devices").join(pci))
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

/// How busy each process kept the card in the last seconds, %; `None` where the driver does not tell.
fn busy(device: &Device<'_>) -> Option<BTreeMap<u32, u8>> {
    let since = SystemTime::now().checked_sub(BUSY)?.duration_since(UNIX_EPOCH).ok()?;
    let samples = match device.process_utilization_stats(u64::try_from(since.as_micros()).ok()) {
        Ok(samples) => samples,
        // NVML's word for none at all.
        Err(NvmlError::NotFound) => Vec::new(),
        Err(_) => return None,
    };
    let mut sums: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for sample in samples {
        let (sum, count) = sums.entry(sample.pid).or_default();
        *sum = sum.saturating_add(sample.sm_util.min(100));
        *count += 1;
    }
    let mean = |(pid, (sum, count)): (u32, (u32, u32))| Some((pid, u8::try_from(sum / count.max(1)).ok()?));
    Some(sums.into_iter().filter_map(mean).collect())
}

/// Adds what Windows tells of each process.
#[cfg(windows)]
fn with_uses(mut processes: Vec<GpuProcess>, cards: &[Card], told: &[crate::wddm::Use]) -> Vec<GpuProcess> {
    for card in cards {
        let slot = card.pci.as_deref().and_then(crate::wddm::Slot::parse);
        let holds = |it: &&crate::wddm::Use| it.vram > Some(0) || it.load > Some(0);
        for its in told.iter().filter(|it| Some(it.card) == slot).filter(holds) {
            let known = processes.iter().position(|it| it.gpu == card.id && it.pid == its.pid);
            let known = known.map(|index| processes.remove(index));
            processes.push(GpuProcess {
                gpu: card.id.clone(),
                pid: its.pid,
                vram: its.vram,
                utilisation: its.load.or_else(|| known?.utilisation),
            });
        }
    }
    processes
}

/// What has power sensors that look a quarter of the time only: arXiv 2312.02741, measured on A100 and H100; the others
/// carry the same chips.
const LOOK_AWAY: [&str; 8] = ["A100", "A800", "A30", "H100", "H200", "H800", "H20", "GH200"];

/// By whole words: an RTX A3000 carries another chip than an A30.
fn looks_away(name: &str) -> bool {
    name.split([' ', '-']).any(|word| LOOK_AWAY.contains(&word))
}

/// Power of this instant, its average, mW, and the memory's temperature, °C: one question to the driver.
fn fields(device: &Device<'_>) -> Result<[Option<u32>; 3], NvmlError> {
    const WANTED: [u32; 3] = [NVML_FI_DEV_POWER_INSTANT, NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_MEMORY_TEMP];
    let told = known(device.field_values_for(&WANTED.map(FieldId)))?.unwrap_or_default();
    let mut values = told.into_iter().map(|field| match field.ok()?.value {
        Ok(SampleValue::U32(value)) => Some(value),
        _ => None,
    });
    Ok(WANTED.map(|_| values.next().flatten()))
}

/// Folders of the devices that the kernel's driver holds; none on other systems.
pub(crate) fn devices(sysfs: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sysfs.join("bus/pci/drivers/nvidia")).into_iter().flatten().flatten();
    let mut devices: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.join("vendor").exists()).collect();
    devices.sort();
    devices
}

/// Reading this wakes nobody.
pub(crate) fn is_suspended(device: &Path) -> bool {
    let status = fs::read_to_string(device.join("power/runtime_status"));
    status.is_ok_and(|status| matches!(status.trim(), "suspended" | "suspending"))
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
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            Finding::new(Level::Note, "no NVIDIA driver (NVML) is installed")
                .act("Install the NVIDIA driver if there is an NVIDIA GPU; otherwise nothing.")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_chips_that_look_away_are_said_to() {
        for name in ["NVIDIA A100-SXM4-80GB", "NVIDIA A30", "NVIDIA H100 PCIe", "NVIDIA GH200 480GB"] {
            assert!(looks_away(name), "{name}");
        }
        for name in ["NVIDIA RTX A3000 Laptop GPU", "NVIDIA GeForce RTX 3090", "NVIDIA L40S"] {
            assert!(!looks_away(name), "{name}");
        }
    }
}
