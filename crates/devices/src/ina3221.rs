//! Supply lines of NVIDIA's Jetson modules, by the INA3221 monitors on them: voltage times current
//! (`Documentation/hwmon/ina3221.rst` in the kernel).
//!
//! `VDD_IN` feeds the whole module, and the other lines are parts of it.

use std::path::PathBuf;
use std::time::Instant;

use idlewatt_core::device::{Power, Scope, Sensor, SensorReading};
use idlewatt_protocol::Milliwatts;

use crate::sensors::PowerSource;
use crate::sysfs::{Attribute, Gone, names, natural, words};
use crate::{Finding, Places};

pub(crate) struct Ina3221 {
    folder: PathBuf,
    rails: Vec<Rail>,
}

struct Rail {
    sensor: Sensor,
    /// mV
    voltage: Attribute,
    /// mA
    current: Attribute,
}

impl Ina3221 {
    pub(crate) fn new(places: &Places) -> Self {
        let mut this = Self { folder: places.sysfs.join("class/hwmon"), rails: Vec::new() };
        this.look_again();
        this
    }

    fn look_again(&mut self) {
        let folders = names(&self.folder).into_iter().map(|name| self.folder.join(name));
        let monitors = folders.filter(|it| words(it.join("name")).is_some_and(|name| name == "ina3221"));
        self.rails = monitors
            .flat_map(|monitor| (1..=3).filter_map(move |channel| Rail::open(&monitor, channel)))
            .collect();
    }
}

impl Rail {
    /// A channel that is not connected has no label.
    fn open(monitor: &std::path::Path, channel: u8) -> Option<Self> {
        let label = words(monitor.join(format!("in{channel}_label")))?;
        let file = |kind: &str| Attribute::open(monitor.join(format!("{kind}{channel}_input")));
        Some(Self { sensor: sensor(&label), voltage: file("in")?, current: file("curr")? })
    }

    fn power(&self) -> Result<Option<Power>, Gone> {
        let Some((millivolts, milliamperes)) =
            natural(Some(&self.voltage))?.zip(natural(Some(&self.current))?)
        else {
            return Ok(None);
        };
        let milliwatts = millivolts.checked_mul(milliamperes).map(|microwatts| microwatts / 1000);
        // The monitor measures up to 26 V, the modules are made for up to 120 W.
        let value = milliwatts.filter(|it| *it < 1_000_000).and_then(|it| i64::try_from(it).ok());
        Ok(value.map(|value| Power { value: Milliwatts(value), averaged: false }))
    }
}

impl PowerSource for Ina3221 {
    fn sensors(&mut self) -> Vec<Sensor> {
        self.look_again();
        self.rails.iter().map(|rail| rail.sensor.clone()).collect()
    }

    fn read(&mut self) -> Vec<SensorReading> {
        let read = |rail: &Rail| {
            let power = rail.power().ok()?;
            Some(SensorReading { sensor: rail.sensor.id.clone(), at: Instant::now(), power, energy: None })
        };
        self.rails.iter().filter_map(read).collect()
    }

    fn missing(&mut self) -> Vec<Finding> {
        Vec::new()
    }
}

fn sensor(label: &str) -> Sensor {
    let whole = label == "VDD_IN";
    let leaves_out = if whole { "the carrier board and the power supply" } else { "every other supply line" };
    Sensor {
        id: format!("ina3221:{label}"),
        name: label.to_owned(),
        scope: if whole { Scope::Machine } else { Scope::Rail },
        method: "INA3221: voltage times current".to_owned(),
        leaves_out: Some(leaves_out.to_owned()),
    }
}
