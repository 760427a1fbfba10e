//! `/sys/class/power_supply`: <https://docs.kernel.org/power/power_supply_class.html>.

use std::path::PathBuf;

use super::State;
use crate::Places;
use crate::sysfs::{Attribute, names, number, words};

pub(super) struct Cells {
    folder: PathBuf,
    cells: Vec<Cell>,
}

struct Cell {
    folder: PathBuf,
    status: Attribute,
    /// µW
    power: Option<Attribute>,
    /// µV
    voltage: Option<Attribute>,
    /// µA
    current: Option<Attribute>,
}

impl Cells {
    pub(super) fn find(places: &Places) -> Self {
        let mut this = Self { folder: places.sysfs.join("class/power_supply"), cells: Vec::new() };
        this.look_again();
        this
    }

    pub(super) fn look_again(&mut self) {
        let folders = names(&self.folder).into_iter().map(|name| self.folder.join(name));
        self.cells = folders.filter_map(Cell::open).collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.cells.iter().map(Cell::state).collect()
    }

    /// Whether a charger is plugged in: with a weak one a battery discharges all the same.
    pub(super) fn charger_is_in(&self) -> bool {
        names(&self.folder).into_iter().map(|name| self.folder.join(name)).any(|folder| {
            let says = |name: &str| words(folder.join(name));
            says("type").is_some_and(|it| it == "Mains" || it.starts_with("USB"))
                && says("scope").is_none_or(|scope| scope == "System")
                && says("online").is_some_and(|it| it != "0")
        })
    }

    /// How full all batteries are, 0 to 100, each counted the same.
    pub(super) fn percent(&self) -> Option<u8> {
        let full: Vec<u32> = self.cells.iter().filter_map(Cell::percent).collect();
        let mean = full.iter().sum::<u32>().checked_div(u32::try_from(full.len()).ok()?)?;
        u8::try_from(mean).ok()
    }
}

impl Cell {
    fn open(folder: PathBuf) -> Option<Self> {
        let says = |name: &str| words(folder.join(name));
        // The battery of a mouse has the scope `Device`.
        let feeds_us = says("type")? == "Battery" && says("scope").is_none_or(|scope| scope == "System");
        let figure = |name: &str| Attribute::open(folder.join(name));
        let status = figure("status").filter(|_| feeds_us)?;
        let (power, voltage, current) = (figure("power_now"), figure("voltage_now"), figure("current_now"));
        Some(Self { folder, status, power, voltage, current })
    }

    fn state(&self) -> State {
        let mut buffer = [0; 32];
        match self.status.text(&mut buffer) {
            Ok(Some("Discharging")) => State::Discharging(self.milliwatts()),
            Ok(_) => State::Other,
            Err(gone) => {
                tracing::debug!(battery = %self.folder.display(), ?gone, "a battery is gone");
                State::Other
            }
        }
    }

    fn percent(&self) -> Option<u32> {
        words(self.folder.join("capacity"))?.parse().ok().filter(|it| *it <= 100)
    }

    fn milliwatts(&self) -> Option<i64> {
        let read = |attribute: &Option<Attribute>| number(attribute.as_ref()).ok()?;
        // Some drivers give what flows out below zero.
        if let Some(microwatts) = read(&self.power) {
            return Some(microwatts.checked_abs()? / 1000);
        }
        let (microvolts, microamperes) = read(&self.voltage).zip(read(&self.current))?;
        let picowatts = i128::from(microvolts) * i128::from(microamperes);
        i64::try_from(picowatts.abs() / 1_000_000_000).ok()
    }
}
