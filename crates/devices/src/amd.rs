//! AMD cards by the kernel's `amdgpu`: <https://docs.kernel.org/gpu/amdgpu/thermal.html>.
//!
//! Power is the chip's with its memory as the card's own controller reckons it: the voltage converters, fans and the board's
//! other use are not in it (some 65 W of 320 on one card). On a processor with graphics it is the whole processor's.

use idlewatt_core::device::{GpuReading, LimitRange, Power, Scope, Sensor};
use idlewatt_protocol::Milliwatts;

use crate::pci::{Card, Cards};
use crate::sysfs::{Attribute, Gone, PciDevice, celsius, labelled, natural, number};

pub(crate) type Amd = Cards<Radeon>;

pub(crate) struct Radeon {
    integrated: bool,
    /// Of this moment.
    input: Option<Attribute>,
    /// Over some stretch that the firmware chose.
    average: Option<Attribute>,
    cap: Option<Attribute>,
    cap_min: Option<Attribute>,
    cap_max: Option<Attribute>,
    cap_default: Option<Attribute>,
    edge: Option<Attribute>,
    junction: Option<Attribute>,
    memory: Option<Attribute>,
    fan: Option<Attribute>,
    fan_max: Option<Attribute>,
    busy: Option<Attribute>,
    vram_used: Option<Attribute>,
    vram_total: Option<Attribute>,
}

impl Card for Radeon {
    const DRIVERS: &'static [&'static str] = &["amdgpu"];

    fn open(device: &PciDevice) -> Option<Self> {
        let hwmon = device.hwmon()?;
        let sensor = |name: &str| Attribute::open(hwmon.join(name));
        let figure = |name: &str| Attribute::open(device.folder.join(name));
        Some(Self {
            // The voltage of the northbridge, which only a processor has.
            integrated: hwmon.join("in1_input").exists(),
            input: sensor("power1_input"),
            average: sensor("power1_average"),
            cap: sensor("power1_cap"),
            cap_min: sensor("power1_cap_min"),
            cap_max: sensor("power1_cap_max"),
            cap_default: sensor("power1_cap_default"),
            edge: labelled(&hwmon, "temp", "edge").or_else(|| sensor("temp1_input")),
            junction: labelled(&hwmon, "temp", "junction"),
            memory: labelled(&hwmon, "temp", "mem"),
            fan: sensor("fan1_input"),
            fan_max: sensor("fan1_max"),
            busy: figure("gpu_busy_percent"),
            vram_used: figure("mem_info_vram_used"),
            vram_total: figure("mem_info_vram_total"),
        })
    }

    fn is_integrated(&self) -> bool {
        self.integrated
    }

    fn sensor(&self, id: &str, name: &str) -> Sensor {
        let method = if self.input.is_some() { "instantaneous power" } else { "average power" };
        let leaves_out = if self.integrated {
            "memory and board; it holds the processor's cores"
        } else {
            "voltage converters, fans and the board's own use"
        };
        Sensor {
            id: id.to_owned(),
            name: name.to_owned(),
            scope: Scope::Package,
            method: format!("amdgpu: {method}, no energy counter"),
            leaves_out: Some(leaves_out.to_owned()),
        }
    }

    fn read(&mut self, blank: GpuReading) -> Result<GpuReading, Gone> {
        let limit =
            |attribute: &Option<Attribute>| natural(attribute.as_ref()).map(|it| it.and_then(milliwatts));
        let (min, max) = (limit(&self.cap_min)?, limit(&self.cap_max)?);
        Ok(GpuReading {
            power: self.power()?,
            temperature_c: celsius(number(self.edge.as_ref())?),
            hot_spot_c: celsius(number(self.junction.as_ref())?).max(celsius(number(self.memory.as_ref())?)),
            fan_percent: fan(natural(self.fan.as_ref())?, natural(self.fan_max.as_ref())?),
            vram_used: natural(self.vram_used.as_ref())?,
            vram_total: natural(self.vram_total.as_ref())?.filter(|bytes| *bytes > 0),
            utilisation: natural(self.busy.as_ref())?.and_then(percent),
            limit: limit(&self.cap)?.filter(|limit| limit.0 > 0),
            default_limit: limit(&self.cap_default)?.filter(|limit| limit.0 > 0),
            limit_range: limit_range(min, max),
            ..blank
        })
    }
}

impl Radeon {
    /// The better figure. A card that is at work and says nothing of its instant may still know its average.
    fn power(&self) -> Result<Option<Power>, Gone> {
        let of = |attribute: Option<&Attribute>, averaged| {
            // A card that is awake draws something: zero is what a sensor says that does not work.
            let value = natural(attribute)?.and_then(milliwatts).filter(|value| value.0 > 0);
            Ok(value.map(|value| Power { value, averaged }))
        };
        match of(self.input.as_ref(), false)? {
            Some(power) => Ok(Some(power)),
            None => of(self.average.as_ref(), true),
        }
    }
}

/// Zero means "the default" to the driver, so it is no limit that can be chosen.
pub(crate) const LOWEST_LIMIT: Milliwatts = Milliwatts(1000);

fn limit_range(min: Option<Milliwatts>, max: Option<Milliwatts>) -> Option<LimitRange> {
    let min = min.unwrap_or(LOWEST_LIMIT).max(LOWEST_LIMIT);
    max.filter(|max| *max > min).map(|max| LimitRange { min, max })
}

/// From microwatts; what no card draws is not believed.
pub(crate) fn milliwatts(microwatts: u64) -> Option<Milliwatts> {
    /// More than any card's supply can give, µW.
    const MOST: u64 = 5_000_000_000;
    let value = i64::try_from(microwatts / 1000).ok()?;
    (microwatts <= MOST).then_some(Milliwatts(value))
}

fn percent(value: u64) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value <= 100)
}

/// Turns a minute as a part of the most turns.
fn fan(turns: Option<u64>, most: Option<u64>) -> Option<u32> {
    let most = most.filter(|most| *most > 0)?;
    percent((turns?.saturating_mul(100) / most).min(100))
}
