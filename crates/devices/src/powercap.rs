//! Processors by the kernel's powercap: a counter a package, on Intel's and AMD's alike
//! (<https://docs.kernel.org/power/powercap/powercap.html>).
//!
//! Since 2020 only root may read it, because a process can learn from another's power what it computes with. A zone inside a
//! package (`core`, `uncore`) is part of it and left out; memory (`dram`) is not. `psys` is what the maker wired to it, mostly
//! the whole machine: it contains the packages and is never added to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use idlewatt_core::device::{Scope, Sensor, SensorReading};

use crate::counter::Counter;
use crate::sensors::PowerSource;
use crate::sysfs::{Attribute, is_forbidden, names, natural, words};
use crate::{Finding, Level, Places};

pub(crate) struct Powercap {
    folder: PathBuf,
    zones: BTreeMap<String, Zone>,
}

struct Zone {
    sensor: Sensor,
    energy: Attribute,
    counter: Counter,
}

impl Powercap {
    pub(crate) fn new(places: &Places) -> Self {
        let mut this = Self { folder: places.sysfs.join("class/powercap"), zones: BTreeMap::new() };
        this.look_again();
        this
    }

    /// A zone that stayed keeps its counter.
    fn look_again(&mut self) {
        let zones = self.zones();
        self.zones.retain(|name, _| zones.iter().any(|(zone, _)| zone == name));
        for (zone, domain) in zones {
            if !self.zones.contains_key(&zone)
                && let Some(opened) = self.open(&zone, &domain)
            {
                self.zones.insert(zone, opened);
            }
        }
    }

    /// Folder and domain of each zone that is no part of another one here. Some processors tell of a package twice, by
    /// register and by memory (`intel-rapl-mmio`): the first is enough.
    fn zones(&self) -> Vec<(String, String)> {
        let zones = names(&self.folder).into_iter().filter(|name| name.starts_with("intel-rapl:"));
        let named = zones.filter_map(|zone| {
            let domain = words(self.folder.join(&zone).join("name"))?;
            let wanted = domain.starts_with("package") || matches!(domain.as_str(), "dram" | "psys");
            wanted.then_some((zone, domain))
        });
        named.collect()
    }

    fn open(&self, zone: &str, domain: &str) -> Option<Zone> {
        let folder = self.folder.join(zone);
        let range = words(folder.join("max_energy_range_uj"))?.parse().ok().filter(|range| *range > 0)?;
        Some(Zone {
            sensor: sensor(zone, domain),
            energy: Attribute::open(folder.join("energy_uj"))?,
            counter: Counter::new(range),
        })
    }
}

impl PowerSource for Powercap {
    fn sensors(&mut self) -> Vec<Sensor> {
        self.look_again();
        self.zones.values().map(|zone| zone.sensor.clone()).collect()
    }

    fn read(&mut self) -> Vec<SensorReading> {
        let read = |zone: &mut Zone| {
            let at = Instant::now();
            let register = natural(Some(&zone.energy)).ok()??;
            let energy = Some(zone.counter.read(register, at));
            Some(SensorReading { sensor: zone.sensor.id.clone(), at, power: zone.counter.power(), energy })
        };
        self.zones.values_mut().filter_map(read).collect()
    }

    fn missing(&mut self) -> Vec<Finding> {
        let zones = self.zones();
        let forbidden = |(zone, _): &(String, String)| is_forbidden(self.folder.join(zone).join("energy_uj"));
        if zones.iter().any(forbidden) {
            let what = "The processor's energy counter (powercap) is for root only.";
            let files = self.folder.join("intel-rapl:*/energy_uj");
            let action = format!(
                "If no program of another user on this machine must be kept from it, let your group read it until the next start: \
                 `sudo chgrp $(id -gn) {0} && sudo chmod g+r {0}`.",
                files.display()
            );
            vec![Finding::new(Level::Note, what).act(action)]
        } else if zones.is_empty() {
            let what = "The processor tells no energy (powercap): it has no counter, this is a virtual machine, or the \
                        module intel_rapl_msr is not loaded.";
            vec![Finding::new(Level::Note, what)]
        } else {
            Vec::new()
        }
    }
}

fn sensor(zone: &str, domain: &str) -> Sensor {
    let number = domain.strip_prefix("package-");
    let (name, scope, leaves_out) = match domain {
        "dram" => ("Memory".to_owned(), Scope::Rail, "everything but the memory"),
        "psys" => {
            ("Platform (psys)".to_owned(), Scope::Machine, "what this machine's maker did not wire to it")
        }
        _ => (
            format!("Processor {}", number.unwrap_or_default()).trim_end().to_owned(),
            Scope::Package,
            "memory, voltage converters, fans and the board",
        ),
    };
    Sensor {
        id: format!("powercap:{zone}"),
        name,
        scope,
        method: "powercap: energy counter; power is its average between two changes".to_owned(),
        leaves_out: Some(leaves_out.to_owned()),
    }
}
