//! Linux tells of devices in small files. They are opened once and read in place, which costs a microsecond or two; a folder
//! is listed only to find what came or went.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// `ENODEV`: what the file told of is gone.
const NO_DEVICE: i32 = 19;

/// The device is gone: unplugged, or its driver was unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// One file that holds one figure.
#[derive(Debug)]
pub(crate) struct Attribute(File);

impl Attribute {
    /// `None` where there is no such file, or it may not be read.
    pub(crate) fn open(path: impl AsRef<Path>) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// The whole number that it holds now. Anything else, and what the driver refuses to tell, is `None`.
    pub(crate) fn number(&self) -> Result<Option<i64>, Gone> {
        let mut buffer = [0; 32];
        Ok(self.text(&mut buffer)?.and_then(|text| text.parse().ok()))
    }

    /// As [`number`](Self::number), where nothing below zero can be meant.
    pub(crate) fn natural(&self) -> Result<Option<u64>, Gone> {
        Ok(self.number()?.and_then(|it| u64::try_from(it).ok()))
    }

    /// The word that it holds now.
    pub(crate) fn text<'a>(&self, buffer: &'a mut [u8; 32]) -> Result<Option<&'a str>, Gone> {
        match self.0.read_at(buffer, 0) {
            // What fills the buffer is no figure.
            Ok(length) if length < buffer.len() => {
                Ok(std::str::from_utf8(&buffer[..length]).ok().map(str::trim))
            }
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Err(Gone),
            Err(_) => Ok(None),
        }
    }
}

/// What an attribute that may be missing says.
pub(crate) fn number(attribute: Option<&Attribute>) -> Result<Option<i64>, Gone> {
    attribute.map_or(Ok(None), Attribute::number)
}

/// What an attribute that may be missing says, where nothing below zero can be meant.
pub(crate) fn natural(attribute: Option<&Attribute>) -> Result<Option<u64>, Gone> {
    attribute.map_or(Ok(None), Attribute::natural)
}

/// A short file's words, once.
pub(crate) fn words(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Names in a folder, sorted; none where there is no such folder.
pub(crate) fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether a file is there and may not be read by us.
pub(crate) fn is_forbidden(path: impl AsRef<Path>) -> bool {
    File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// A PCI device with a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PciDevice {
    /// `amdgpu`
    pub(crate) driver: &'static str,
    /// `0000:03:00.0`
    pub(crate) address: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

impl PciDevice {
    /// The folder with its sensors, where its driver has any.
    pub(crate) fn hwmon(&self) -> Option<PathBuf> {
        let folder = self.folder.join("hwmon");
        names(&folder).first().map(|name| folder.join(name))
    }

    /// A number of its identity, written as `0x744c`.
    pub(crate) fn identity(&self, name: &str) -> Option<u16> {
        let text = words(self.folder.join(name))?;
        u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }
}

/// The PCI devices that a driver holds.
pub(crate) fn pci_devices(sysfs: &Path, driver: &'static str) -> Vec<PciDevice> {
    let folder = sysfs.join("bus/pci/drivers").join(driver);
    let is_address = |name: &String| name.len() == 12 && name.matches(':').count() == 2 && name.contains('.');
    names(&folder)
        .into_iter()
        .filter(is_address)
        .map(|address| PciDevice { driver, folder: folder.join(&address), address })
        .collect()
}

/// The input of a hwmon folder with this label: `temp2_input` where `temp2_label` says `junction`.
pub(crate) fn labelled(hwmon: &Path, kind: &str, label: &str) -> Option<Attribute> {
    (1..=9)
        .find(|number| words(hwmon.join(format!("{kind}{number}_label"))).is_some_and(|it| it == label))
        .and_then(|number| Attribute::open(hwmon.join(format!("{kind}{number}_input"))))
}

/// Whether a device sleeps. Reading that never wakes it; reading nearly anything else of it does.
#[derive(Debug)]
pub(crate) struct Sleep(Option<Attribute>);

impl Sleep {
    pub(crate) fn of(device: &Path) -> Self {
        Self(Attribute::open(device.join("power/runtime_status")))
    }

    /// A device without power management is always awake.
    pub(crate) fn sleeps(&self) -> Result<bool, Gone> {
        let mut buffer = [0; 32];
        let status = self.0.as_ref().map_or(Ok(None), |it| it.text(&mut buffer))?;
        Ok(matches!(status, Some("suspended" | "suspending")))
    }
}

/// °C from the thousandths that hwmon tells; what no silicon survives is not believed.
pub(crate) fn celsius(milli: Option<i64>) -> Option<i32> {
    let celsius = i32::try_from(milli? / 1000).ok()?;
    (-40..=200).contains(&celsius).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(content: &str) -> Attribute {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("it"), content).unwrap();
        Attribute::open(folder.path().join("it")).unwrap()
    }

    #[test]
    fn what_is_no_whole_number_is_nothing() {
        let page = "<!doctype html><title>502 Bad Gateway</title>";
        for garbage in [
            "",
            "\n",
            "NaN\n",
            "-nan",
            "1e9",
            "68.5",
            "68000000 W",
            "0x10",
            page,
            "99999999999999999999",
            &"0".repeat(40),
        ] {
            assert_eq!(attribute(garbage).number(), Ok(None), "{garbage:?}");
        }
        assert_eq!(attribute("68000000\n").number(), Ok(Some(68_000_000)));
        assert_eq!(
            (attribute("-5000\n").number(), attribute("-5000\n").natural()),
            (Ok(Some(-5000)), Ok(None))
        );
    }

    #[test]
    fn a_temperature_that_no_silicon_survives_is_not_believed() {
        assert_eq!(
            [celsius(Some(61_000)), celsius(Some(-273_150)), celsius(Some(511_000))],
            [Some(61), None, None]
        );
    }
}
