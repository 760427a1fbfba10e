//! The file by which a test steers the cards. Replace it by renaming, never write into it. Every field has a default;
//! an unknown one is an error, told on stderr, and the old state stays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    /// Driver version.
    pub(crate) driver: String,
    /// What `nvmlInit_v2` fails with.
    pub(crate) init_error: Option<Fault>,
    /// How often the driver was loaded. Each time every card forgets its limit and its energy, and whoever used the
    /// library must start it anew.
    pub(crate) driver_loads: u64,
    /// Whether limits are set by those only who have `IDLEWATT_SIMNVML_RIGHT` in their environment.
    pub(crate) needs_right: bool,
    /// As the driver of a Windows desktop: it tells no process's memory.
    pub(crate) wddm: bool,
    pub(crate) cards: Vec<CardControl>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CardControl {
    pub(crate) uuid: String,
    pub(crate) name: String,
    /// As NVML writes it: `00000000:01:00.0`.
    pub(crate) pci: String,
    /// NVML's number: 6 Turing, 7 Ampere, 8 Ada, 9 Hopper.
    pub(crate) architecture: u32,
    /// Where power goes, W; held at the limit.
    pub(crate) load_w: f64,
    /// The limit that the host's own tools set: when this changes, they set it again.
    pub(crate) limit_w: u32,
    pub(crate) default_limit_w: u32,
    /// Lowest and highest limit that the card takes.
    pub(crate) limit_range_w: [u32; 2],
    /// Time constant of the power behind the load.
    pub(crate) tau_ms: f64,
    /// How often the sensors look.
    pub(crate) refresh_ms: u64,
    /// How old what they see is.
    pub(crate) lag_ms: u64,
    /// Half width of the noise of the instantaneous power.
    pub(crate) noise_mw: f64,
    /// Of the noise.
    pub(crate) seed: u64,
    /// What the energy counter makes of a true joule.
    pub(crate) counter_gain: f64,
    pub(crate) ambient_c: f64,
    /// Heating in the long run, °C/W.
    pub(crate) c_per_w: f64,
    /// Time constant of the heating, s.
    pub(crate) heat_s: f64,
    pub(crate) vram_total: u64,
    pub(crate) vram_used: u64,
    /// Percent; by default what the load says of the limit.
    pub(crate) utilisation: Option<u32>,
    pub(crate) processes: Vec<Process>,
    /// Fallen off the bus.
    pub(crate) lost: bool,
    /// By what is asked: `power`, `power_instant`, `energy`, `temperature`, `memory`, `utilisation`, `limit`,
    /// `own_limit`, `set_limit`, `limit_range`, `default_limit`, `fan`, `memory_temperature`, `processes`, `name`, `uuid`,
    /// `pci`, `architecture`, `handle`, `fields`.
    pub(crate) faults: BTreeMap<String, Fault>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Bytes; absent as on Windows, where the driver does not tell.
    pub(crate) vram: Option<u64>,
    /// How busy it keeps the card, percent; absent for every process as of a driver that does not tell.
    #[serde(default)]
    pub(crate) utilisation: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    NotSupported,
    NoPermission,
    DriverNotLoaded,
    GpuLost,
    LibRmVersionMismatch,
    Unknown,
}

impl Fault {
    /// NVML's number for it.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::NotSupported => 3,
            Self::NoPermission => 4,
            Self::DriverNotLoaded => 9,
            Self::GpuLost => 15,
            Self::LibRmVersionMismatch => 18,
            Self::Unknown => 999,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            driver: "570.86.15".into(),
            init_error: None,
            driver_loads: 0,
            needs_right: true,
            wddm: false,
            cards: vec![CardControl::default()],
        }
    }
}

impl Default for CardControl {
    fn default() -> Self {
        Self {
            uuid: "GPU-51515151-0000-0000-0000-000000000000".into(),
            name: "NVIDIA GeForce RTX 4090 (simulated)".into(),
            pci: "00000000:01:00.0".into(),
            architecture: 8,
            load_w: 30.0,
            limit_w: 450,
            default_limit_w: 450,
            limit_range_w: [100, 600],
            tau_ms: 40.0,
            refresh_ms: 50,
            lag_ms: 0,
            noise_mw: 0.0,
            seed: 1,
            counter_gain: 1.0,
            ambient_c: 25.0,
            c_per_w: 0.11,
            heat_s: 30.0,
            vram_total: 24 << 30,
            vram_used: 1 << 30,
            utilisation: None,
            processes: Vec::new(),
            lost: false,
            faults: BTreeMap::new(),
        }
    }
}

/// Where the control file is: named by the environment, else beside this library.
pub(crate) fn path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("IDLEWATT_SIMNVML") {
        return Some(path.into());
    }
    library().and_then(|library| Some(library.parent()?.join("simnvml.json")))
}

#[cfg(not(unix))]
const fn library() -> Option<PathBuf> {
    None
}

#[cfg(unix)]
fn library() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here = path as fn() -> Option<PathBuf>;
    // SAFETY: `info` is written by a call that says so, and the name it points to lives as long as the library.
    let name = unsafe {
        if libc::dladdr(here as *const libc::c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        let info = info.assume_init();
        if info.dli_fname.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(info.dli_fname)
    };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}
