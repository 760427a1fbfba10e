//! Intel cards by the kernel's `i915` and `xe`. They count energy and tell no power: it is the average between two changes
//! of the counter.
//!
//! Sources: the kernel's `Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon`. Graphics inside a processor have no
//! sensors there, and are not listed.

use idlewatt_core::device::{GpuReading, LimitRange, Scope, Sensor};
use idlewatt_protocol::Milliwatts;

use crate::amd::{LOWEST_LIMIT, milliwatts};
use crate::counter::Counter;
use crate::pci::{Card, Cards};
use crate::sysfs::{Attribute, Gone, PciDevice, celsius, labelled, natural, number};

pub(crate) type Intel = Cards<Arc>;

/// Registers of 32 bits reach the file unaltered on 32-bit systems and with older drivers; newer ones sum them up.
const RANGE: u64 = 1 << 32;

pub(crate) struct Arc {
    scope: Scope,
    energy: Option<Attribute>,
    counter: Counter,
    limit: Option<Attribute>,
    rated: Option<Attribute>,
    core: Option<Attribute>,
    memory: Option<Attribute>,
}

impl Card for Arc {
    const DRIVERS: &'static [&'static str] = &["i915", "xe"];

    fn open(device: &PciDevice) -> Option<Self> {
        let hwmon = device.hwmon()?;
        let sensor = |name: &str| Attribute::open(hwmon.join(name));
        let counts = |label: &str| labelled(&hwmon, "energy", label);
        // `xe` has the card under 1 and the chip under 2, each only where the card knows it. Its first versions, and `i915`,
        // know only the chip, and write no label.
        let (scope, energy, channels) = match (counts("card"), counts("pkg")) {
            (Some(card), _) => (Scope::Board, Some(card), [1, 2]),
            (None, Some(chip)) => (Scope::Package, Some(chip), [2, 1]),
            (None, None) => {
                let chip = sensor("energy1_input").or_else(|| sensor("energy2_input"));
                (Scope::Package, chip, [1, 2])
            }
        };
        let either = |name: &str| channels.iter().find_map(|it| sensor(&format!("power{it}_{name}")));
        Some(Self {
            scope,
            energy,
            counter: Counter::new(RANGE),
            limit: either("max"),
            rated: either("rated_max"),
            core: labelled(&hwmon, "temp", "pkg").or_else(|| sensor("temp1_input")),
            memory: labelled(&hwmon, "temp", "vram"),
        })
    }

    fn is_integrated(&self) -> bool {
        false
    }

    fn sensor(&self, id: &str, name: &str) -> Sensor {
        let board = self.scope == Scope::Board;
        Sensor {
            id: id.to_owned(),
            name: name.to_owned(),
            scope: self.scope,
            method: "energy counter; power is its average between two changes".to_owned(),
            leaves_out: (!board)
                .then(|| "memory, voltage converters, fans and the board's own use".to_owned()),
        }
    }

    fn read(&mut self, blank: GpuReading) -> Result<GpuReading, Gone> {
        let energy = natural(self.energy.as_ref())?.map(|register| self.counter.read(register, blank.at));
        // What the card was made for is also the highest limit that it takes.
        let rated = watts(self.rated.as_ref())?;
        let core = celsius(number(self.core.as_ref())?);
        Ok(GpuReading {
            power: energy.and_then(|_| self.counter.power()),
            energy,
            temperature_c: core,
            hot_spot_c: core.max(celsius(number(self.memory.as_ref())?)),
            // Nothing means: switched off.
            limit: watts(self.limit.as_ref())?,
            default_limit: rated,
            limit_range: rated
                .filter(|max| *max > LOWEST_LIMIT)
                .map(|max| LimitRange { min: LOWEST_LIMIT, max }),
            ..blank
        })
    }
}

fn watts(attribute: Option<&Attribute>) -> Result<Option<Milliwatts>, Gone> {
    Ok(natural(attribute)?.and_then(milliwatts).filter(|limit| limit.0 > 0))
}
