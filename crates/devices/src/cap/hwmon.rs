//! AMD's and Intel's limits, as their Linux drivers show them in a card's folder.
//!
//! - `amdgpu`: `power1_cap`, µW, between `power1_cap_min` and `power1_cap_max`; the driver drops parts of a watt, and takes
//!   zero for its default, so zero is never set (<https://docs.kernel.org/gpu/amdgpu/thermal.html>).
//! - `xe`, `i915`: `power1_max`, µW (`power2_max` where the driver limits the chip and not the card); zero is no limit, and
//!   `power1_rated_max`, where the driver tells it, is what the card was made for and the highest that it takes
//!   (the kernel's `Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon`).

use std::fs;
use std::io;
use std::path::PathBuf;

use idlewatt_protocol::Milliwatts;

use super::setter::Limits;
use super::{CapError, CardLimit};
use crate::Places;
use crate::amd::{Radeon, milliwatts};
use crate::intel::Arc;
use crate::names::Names;
use crate::pci::Card;
use crate::sysfs::{self, PciDevice, Sleep};

/// Drivers that tell no lowest limit tell zero, which would mean another thing.
const LOWEST: Milliwatts = Milliwatts(1000);

pub(super) struct Hwmon {
    places: Places,
}

/// One card's files. Looked for each time: cards come and go, and their folders' numbers with them.
struct Files {
    device: PciDevice,
    id: String,
    limit: PathBuf,
    vendor: Vendor,
}

#[derive(Clone, Copy)]
enum Vendor {
    Amd,
    Intel,
}

impl Hwmon {
    pub(super) fn new(places: &Places) -> Self {
        Self { places: places.clone() }
    }

    fn files(&self) -> impl Iterator<Item = Files> {
        let amd = self.of_vendor::<Radeon>(Vendor::Amd, &["power1_cap"]);
        amd.chain(self.of_vendor::<Arc>(Vendor::Intel, &["power1_max", "power2_max"]))
    }

    fn of_vendor<C: Card>(
        &self,
        vendor: Vendor,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = Files> {
        let devices = C::DRIVERS.iter().flat_map(|driver| sysfs::pci_devices(&self.places.sysfs, driver));
        devices.filter_map(move |device| {
            let hwmon = device.hwmon()?;
            let limit = names.iter().map(|name| hwmon.join(name)).find(|path| path.exists())?;
            Some(Files { id: format!("{}-{}", device.driver, device.address), device, limit, vendor })
        })
    }
}

impl Limits for Hwmon {
    fn cards(&mut self) -> Vec<CardLimit> {
        let names = Names::of(&self.places.share);
        self.files().map(|files| files.card(&names)).collect()
    }

    fn write(&mut self, card: &str, limit: Milliwatts) -> Result<(), CapError> {
        let files = self.files().find(|files| files.id == card);
        let files = files.ok_or_else(|| CapError::UnknownCard { gpu: card.to_owned() })?;
        let microwatts = limit.0.saturating_mul(1000).to_string();
        fs::write(&files.limit, microwatts).map_err(|error| refusal(&error))
    }
}

impl Files {
    fn card(&self, names: &Names) -> CardLimit {
        let mut card = CardLimit::silent(&self.id, &names.card(&self.device));
        card.asleep = !matches!(Sleep::of(&self.device.folder).sleeps(), Ok(false));
        if card.asleep {
            return card;
        }
        card.limit_mw = self.figure("power1_cap", "power1_max");
        card.default_mw = self.figure("power1_cap_default", "power1_rated_max");
        card.max_mw = self.figure("power1_cap_max", "power1_rated_max");
        card.min_mw = Some(self.figure("power1_cap_min", "power1_min").map_or(LOWEST, |it| it.max(LOWEST)));
        card
    }

    /// One of the figures beside the limit, which are named for the same channel; zero is none.
    fn figure(&self, amd: &str, intel: &str) -> Option<Milliwatts> {
        let channel = self.limit.file_name()?.to_str()?.split_once('_')?.0;
        let name = match self.vendor {
            Vendor::Amd => amd,
            Vendor::Intel => intel,
        };
        let name = name.replacen("power1", channel, 1);
        let microwatts = sysfs::words(self.limit.with_file_name(name))?.parse().ok()?;
        milliwatts(microwatts).filter(|figure| figure.0 > 0)
    }
}

fn refusal(error: &io::Error) -> CapError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => CapError::NoPermission,
        io::ErrorKind::Unsupported => CapError::NotSupported,
        io::ErrorKind::NotFound => CapError::Lost { problem: error.to_string() },
        _ => CapError::Driver { problem: error.to_string() },
    }
}
