//! The machine's battery. While it discharges it feeds everything, so its power is the machine's; on the mains it tells
//! nothing of what the machine draws.

use std::time::Instant;

use idlewatt_core::device::{Power, Scope, Sensor, SensorReading};
use idlewatt_core::machine::Supply;
use idlewatt_protocol::Milliwatts;

use crate::sensors::PowerSource;
use crate::{Finding, Places};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux::Cells;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
use other::Cells;

/// All batteries of the machine as one sensor: a machine with two empties one after the other.
pub(crate) struct Battery {
    cells: Cells,
}

/// One battery at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// mW, where it tells.
    Discharging(Option<i64>),
    /// Full, idle or charging.
    Other,
}

impl Battery {
    pub(crate) fn new(places: &Places) -> Self {
        Self { cells: Cells::find(places) }
    }
}

impl PowerSource for Battery {
    fn sensors(&mut self) -> Vec<Sensor> {
        self.cells.look_again();
        if self.cells.is_empty() {
            return Vec::new();
        }
        vec![Sensor {
            id: "battery".to_owned(),
            name: "Battery".to_owned(),
            scope: Scope::Machine,
            method: "the battery's own gauge, while it discharges".to_owned(),
            leaves_out: Some("everything while the machine is on the mains".to_owned()),
        }]
    }

    fn read(&mut self) -> Vec<SensorReading> {
        if self.cells.is_empty() {
            return Vec::new();
        }
        let power = machine_power(&self.cells.states());
        vec![SensorReading { sensor: "battery".to_owned(), at: Instant::now(), power, energy: None }]
    }

    fn missing(&mut self) -> Vec<Finding> {
        Vec::new()
    }
}

/// What feeds the machine now, as its batteries and chargers tell; `None`: it has no battery. May block for a tenth of a
/// second.
#[must_use]
pub fn supply(places: &Places) -> Option<Supply> {
    let cells = Cells::find(places);
    let discharging = cells.states().iter().any(|state| matches!(state, State::Discharging(_)));
    if cells.is_empty() {
        None
    } else if !discharging || cells.charger_is_in() {
        Some(Supply::Mains)
    } else {
        Some(Supply::Battery { percent: cells.percent() })
    }
}

/// What the machine draws, where batteries alone feed it.
fn machine_power(states: &[State]) -> Option<Power> {
    let drawn = states.iter().filter_map(|state| match state {
        State::Discharging(power) => Some(*power),
        State::Other => None,
    });
    let drawn: Option<Vec<i64>> = drawn.collect();
    // A gauge averages over seconds; no battery of a machine gives a kilowatt.
    let value = drawn.filter(|it| !it.is_empty()).map(|it| it.iter().sum())?;
    (1..1_000_000).contains(&value).then_some(Power { value: Milliwatts(value), averaged: true })
}

#[cfg(test)]
mod tests {
    use super::State::{Discharging, Other};
    use super::*;

    #[test]
    fn batteries_tell_of_the_machine_only_while_they_feed_it() {
        let power = |states: &[State]| machine_power(states).map(|power| power.value.0);
        assert_eq!(power(&[Other]), None);
        assert_eq!(power(&[]), None);
        assert_eq!(power(&[Discharging(Some(12_500)), Other]), Some(12_500));
        assert_eq!(power(&[Discharging(Some(12_500)), Discharging(None)]), None);
        assert_eq!(power(&[Discharging(Some(0))]), None);
        assert_eq!(power(&[Discharging(Some(-4))]), None);
    }
}
