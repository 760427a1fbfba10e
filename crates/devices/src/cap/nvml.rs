//! NVIDIA's limits, by NVML. Setting needs root, laptops' cards answer `NotSupported`.
//!
//! Without persistence mode the driver forgets a limit when the last process that uses the card ends, so the library stays
//! loaded as long as a limit is held. With none held it is let go of, and while every card sleeps it is not loaded at all:
//! that would wake them.

use std::path::{Path, PathBuf};

use idlewatt_protocol::Milliwatts;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::setter::Limits;
use super::{CapError, CardLimit};
use crate::Places;
use crate::nvidia::{devices, is_lost, is_suspended, milliwatts, sysfs_name};

pub(super) struct Nvidia {
    library: Option<PathBuf>,
    sysfs: PathBuf,
    loaded: Option<Nvml>,
}

impl Nvidia {
    pub(super) fn new(places: &Places) -> Self {
        Self { library: places.nvml.clone(), sysfs: places.sysfs.clone(), loaded: None }
    }

    fn load(&mut self) -> Result<&Nvml, NvmlError> {
        if self.loaded.is_none() {
            let mut builder = Nvml::builder();
            if let Some(library) = &self.library {
                builder.lib_path(library.as_os_str());
            }
            self.loaded = Some(builder.init()?);
        }
        self.loaded.as_ref().ok_or(NvmlError::Uninitialized)
    }

    /// Asks once more of a driver loaded anew when the answer is that it is gone: handles of a lost card stay lost.
    fn ask<T>(&mut self, question: impl Fn(&Nvml) -> Result<T, NvmlError>) -> Result<T, NvmlError> {
        let first = self.load().and_then(&question);
        match first {
            Err(error) if is_lost(&error) => {
                self.loaded = None;
                let second = self.load().and_then(question);
                if second.as_ref().is_err_and(is_lost) {
                    // The driver forgets a lost card when its last user lets go of it.
                    self.loaded = None;
                }
                second
            }
            answer => answer,
        }
    }
}

impl Limits for Nvidia {
    fn cards(&mut self) -> Vec<CardLimit> {
        let sysfs = self.sysfs.clone();
        let held = devices(&sysfs);
        if self.loaded.is_none() && !held.is_empty() && held.iter().all(|device| is_suspended(device)) {
            return Vec::new();
        }
        let all = self.ask(|nvml| {
            let devices = (0..nvml.device_count()?).map(|index| card(&nvml.device_by_index(index)?, &sysfs));
            devices.collect()
        });
        // A card that is lost for good does not hide the others.
        all.or_else(|_| {
            let nvml = self.load()?;
            let devices = (0..nvml.device_count()?).map(|index| card(&nvml.device_by_index(index)?, &sysfs));
            Ok::<_, NvmlError>(devices.filter_map(Result::ok).collect())
        })
        .unwrap_or_default()
    }

    fn write(&mut self, card: &str, limit: Milliwatts) -> Result<(), CapError> {
        let limit =
            u32::try_from(limit.0).map_err(|error| CapError::Driver { problem: error.to_string() })?;
        self.ask(|nvml| nvml.device_by_uuid(card)?.set_power_management_limit(limit))
            .map_err(|error| refusal(&error))
    }

    fn rest(&mut self) {
        self.loaded = None;
    }
}

fn card(device: &Device<'_>, sysfs: &Path) -> Result<CardLimit, NvmlError> {
    let name = device.name().unwrap_or_else(|_| "NVIDIA GPU".into());
    let mut card = CardLimit::silent(&device.uuid()?, &name);
    let pci = device.pci_info().ok().and_then(|pci| sysfs_name(&pci.bus_id));
    if pci.is_some_and(|pci| is_suspended(&sysfs.join("bus/pci/devices").join(pci))) {
        card.asleep = true;
        return Ok(card);
    }
    card.limit_mw = device.power_management_limit().ok().map(milliwatts);
    card.default_mw = device.power_management_limit_default().ok().map(milliwatts);
    if let (Ok(range), Some(_)) = (device.power_management_limit_constraints(), card.limit_mw) {
        card.min_mw = Some(milliwatts(range.min_limit));
        card.max_mw = Some(milliwatts(range.max_limit));
    }
    Ok(card)
}

fn refusal(error: &NvmlError) -> CapError {
    match error {
        NvmlError::NoPermission => CapError::NoPermission,
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) => CapError::NotSupported,
        error if is_lost(error) => CapError::Lost { problem: error.to_string() },
        error => CapError::Driver { problem: error.to_string() },
    }
}
