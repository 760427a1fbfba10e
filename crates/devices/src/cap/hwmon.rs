//! AMD's and Intel's limits, as their Linux drivers show them below `class/hwmon`.
//!
//! - `amdgpu`: `power1_cap`, µW, between `power1_cap_min` and `power1_cap_max`; the driver drops parts of a watt and takes
//!   zero for "the default", so zero is never written.
//! - `xe`, `i915`: `power1_max`, µW (`power2_max` where a chip and not its card has the limit); zero is no limit, and
//!   `power1_rated_max` is what the card was made for and the highest that it takes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use idlewatt_protocol::Milliwatts;

use super::setter::Limits;
use super::{CapError, CardLimit};

/// Drivers that tell no lowest limit tell zero, which would mean another thing.
const LOWEST: Milliwatts = Milliwatts(1000);

pub(super) struct Hwmon {
    root: PathBuf,
}

/// One card's files.
struct Files {
    id: String,
    name: String,
    device: PathBuf,
    limit: PathBuf,
    vendor: Vendor,
}

enum Vendor {
    Amd,
    Intel,
}

impl Hwmon {
    pub(super) fn new(sysfs: &Path) -> Self {
        Self { root: sysfs.join("class/hwmon") }
    }

    /// Looked for each time: cards come and go, and their folders' numbers with them.
    fn files(&self) -> impl Iterator<Item = Files> {
        let folders = fs::read_dir(&self.root).into_iter().flatten().flatten();
        folders.filter_map(|folder| Files::of(&folder.path()))
    }
}

impl Limits for Hwmon {
    fn cards(&mut self) -> Vec<CardLimit> {
        let mut cards: Vec<_> = self.files().map(|files| files.card()).collect();
        cards.sort_by(|a, b| a.id.cmp(&b.id));
        cards
    }

    fn write(&mut self, card: &str, limit: Milliwatts) -> Result<(), CapError> {
        let files = self.files().find(|files| files.id == card);
        let files = files.ok_or_else(|| CapError::UnknownCard { gpu: card.to_owned() })?;
        let microwatts = match files.vendor {
            // The driver would round by itself; what is written is then what is read.
            Vendor::Amd => limit.0 / 1000 * 1_000_000,
            Vendor::Intel => limit.0 * 1000,
        };
        fs::write(&files.limit, microwatts.to_string()).map_err(|error| refusal(&error))
    }
}

impl Files {
    fn of(folder: &Path) -> Option<Self> {
        let driver = text(&folder.join("name"))?;
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let (vendor, limit) = match driver.as_str() {
            "amdgpu" => (Vendor::Amd, file("power1_cap")?),
            "xe" | "i915" => (Vendor::Intel, file("power1_max").or_else(|| file("power2_max"))?),
            _ => return None,
        };
        let device = folder.join("device");
        let pci = fs::canonicalize(&device).ok()?;
        let pci = pci.file_name()?.to_str()?;
        let name = text(&device.join("product_name")).filter(|name| !name.is_empty());
        let maker = if matches!(vendor, Vendor::Amd) { "AMD" } else { "Intel" };
        Some(Self {
            id: format!("{driver}-{pci}"),
            name: name.unwrap_or_else(|| format!("{maker} GPU")),
            device,
            limit,
            vendor,
        })
    }

    fn card(&self) -> CardLimit {
        let mut card = CardLimit {
            id: self.id.clone(),
            name: self.name.clone(),
            limit_mw: None,
            default_mw: None,
            min_mw: None,
            max_mw: None,
            asleep: is_suspended(&self.device),
        };
        if card.asleep {
            return card;
        }
        card.limit_mw = self.milliwatts("").filter(|it| *it != Milliwatts::ZERO);
        let range = match self.vendor {
            Vendor::Amd => {
                card.default_mw = self.milliwatts("_default");
                self.milliwatts("_max").map(|max| (self.milliwatts("_min").unwrap_or(LOWEST), max))
            }
            Vendor::Intel => {
                card.default_mw = self.milliwatts("rated");
                card.default_mw.map(|max| (LOWEST, max))
            }
        };
        if let Some((min, max)) = range.filter(|(_, max)| *max > LOWEST) {
            card.min_mw = Some(min.max(LOWEST));
            card.max_mw = Some(max);
        }
        card
    }

    /// The file beside the limit's: `power1_cap` and `_min` make `power1_cap_min`, `power1_max` and `rated` make
    /// `power1_rated_max`.
    fn milliwatts(&self, which: &str) -> Option<Milliwatts> {
        let name = self.limit.file_name()?.to_str()?;
        let name = match which {
            "rated" => name.replace("_max", "_rated_max"),
            suffix => format!("{name}{suffix}"),
        };
        let microwatts: i64 = text(&self.limit.with_file_name(name))?.parse().ok()?;
        Some(Milliwatts(microwatts / 1000)).filter(|it| *it >= Milliwatts::ZERO)
    }
}

/// Whether the system powered a device down. Asking it anything else could wake it.
pub(super) fn is_suspended(device: &Path) -> bool {
    text(&device.join("power/runtime_status")).is_some_and(|it| it == "suspended")
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn refusal(error: &io::Error) -> CapError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => CapError::NoPermission,
        io::ErrorKind::Unsupported => CapError::NotSupported,
        io::ErrorKind::NotFound => CapError::Lost { problem: error.to_string() },
        _ => CapError::Driver { problem: error.to_string() },
    }
}
