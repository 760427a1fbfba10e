//! Product names of cards, from the lists that the system's own packages bring: libdrm's for AMD's cards exactly, the PCI
//! list for all others. Without them a card is called by its numbers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sysfs::{PciDevice, words};

/// The lists below `/usr/share`.
pub(crate) struct Names {
    exact: PathBuf,
    pci: [PathBuf; 2],
}

impl Names {
    pub(crate) fn of(share: &Path) -> Self {
        Self {
            exact: share.join("libdrm/amdgpu.ids"),
            pci: [share.join("misc/pci.ids"), share.join("hwdata/pci.ids")],
        }
    }

    /// Reads the lists: only when a card is found.
    pub(crate) fn card(&self, device: &PciDevice) -> String {
        let told = words(device.folder.join("product_name"));
        told.or_else(|| self.listed(device)).unwrap_or_else(|| numbers(device))
    }

    fn listed(&self, device: &PciDevice) -> Option<String> {
        let (vendor, chip) = (device.identity("vendor")?, device.identity("device")?);
        let text =
            |path: &PathBuf| fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let exact = || exact(&text(&self.exact)?, chip, device.identity("revision")?);
        let pci = || self.pci.iter().find_map(text).and_then(|list| in_pci_list(&list, vendor, chip));
        exact().filter(|_| vendor == AMD).or_else(pci)
    }
}

const AMD: u16 = 0x1002;
const INTEL: u16 = 0x8086;

fn maker(vendor: u16) -> &'static str {
    match vendor {
        AMD => "AMD",
        INTEL => "Intel",
        _ => "GPU",
    }
}

fn numbers(device: &PciDevice) -> String {
    let [vendor, chip] = ["vendor", "device"].map(|name| device.identity(name).unwrap_or_default());
    format!("{} {vendor:04x}:{chip:04x}", maker(vendor))
}

/// A line `744C, C8, AMD Radeon RX 7900 XTX`.
fn exact(list: &str, chip: u16, revision: u16) -> Option<String> {
    let wanted = [format!("{chip:04X}"), format!("{revision:02X}")];
    list.lines().find_map(|line| {
        let mut fields = line.splitn(3, ',').map(str::trim);
        let same = wanted.iter().all(|it| fields.next().is_some_and(|field| field.eq_ignore_ascii_case(it)));
        fields.next().filter(|_| same).map(str::to_owned)
    })
}

/// A line `⇥56a5  DG2 [Arc A380]` after the line of the vendor; what stands in brackets is the product.
fn in_pci_list(list: &str, vendor: u16, chip: u16) -> Option<String> {
    let [vendor_line, chip_line] = [format!("{vendor:04x}  "), format!("\t{chip:04x}  ")];
    let mut chips = list.lines().skip_while(|line| !line.starts_with(&vendor_line)).skip(1);
    let name = chips
        .by_ref()
        .take_while(|line| line.starts_with(['\t', '#']) || line.is_empty())
        .find_map(|line| line.strip_prefix(&chip_line))?;
    let product =
        name.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(name, |(product, _)| product);
    Some(format!("{} {}", maker(vendor), product.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_told_by_chip_and_revision() {
        let list = "# List of AMDGPU IDs\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n";
        assert_eq!(exact(list, 0x744c, 0xcc).as_deref(), Some("AMD Radeon RX 7900 XT"));
        assert_eq!(exact(list, 0x744c, 0x01), None);
    }

    #[test]
    fn a_chip_is_looked_for_under_its_own_vendor() {
        let list = "1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t56a5  Not this one\n8086  Intel Corporation\n\
                    \t56a5  DG2 [Arc A380]\n\t\t1849 6004  Challenger\n\t7d40  Meteor Lake-M\n8087  Other\n\t9999  Else\n";
        assert_eq!(in_pci_list(list, INTEL, 0x56a5).as_deref(), Some("Intel Arc A380"));
        assert_eq!(in_pci_list(list, INTEL, 0x7d40).as_deref(), Some("Intel Meteor Lake-M"));
        assert_eq!(in_pci_list(list, INTEL, 0x9999), None);
    }
}
