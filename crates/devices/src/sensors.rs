//! Every power sensor of this machine: its cards', and those of the machine around them. One file a source, behind
//! [`PowerSource`].
//!
//! ```no_run
//! # use std::time::Duration;
//! # use idlewatt_devices::{Places, Sensors, refresh};
//! let mut sensors = Sensors::new(&Places::default());
//! for sensor in sensors.list() {
//!     println!("{}: {:?}, {}", sensor.name, sensor.scope, sensor.method);
//! }
//! for finding in sensors.missing() {
//!     println!("not seen: {} {}", finding.what, finding.action.unwrap_or_default());
//! }
//! for reading in sensors.read() {
//!     println!("{} {:?} {:?}", reading.sensor, reading.power, reading.energy);
//! }
//! let periods = refresh(Duration::from_secs(2), || sensors.read());
//! ```

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, Sensor, SensorReading};

use crate::{Finding, Gpus, Places, battery};
#[cfg(target_os = "linux")]
use crate::{ina3221, powercap};

/// Sensors that are no card's: a processor's counter, a battery, a module's supply. Calls block for milliseconds.
pub(crate) trait PowerSource: Send {
    /// The sensors that can be read now.
    fn sensors(&mut self) -> Vec<Sensor>;

    /// Reads each of them once. One that tells nothing this time is left out, or has neither power nor energy.
    fn read(&mut self) -> Vec<SensorReading>;

    /// What is here and cannot be read, with the step to take; and what is known to be unseen on this system.
    fn missing(&mut self) -> Vec<Finding>;
}

/// Every power sensor of this machine. Not for an async thread: calls block for milliseconds.
///
/// Sensors come and go (a card sleeps, an adapter is pulled): [`list`](Self::list) and [`read`](Self::read) tell of those
/// that are here now, by the same stable [`Sensor::id`]; of cards it is [`GpuReading::id`]. Figures of different
/// [`scope`](Sensor::scope)s contain one another and are never added.
pub struct Sensors {
    gpus: Gpus,
    sources: Vec<Box<dyn PowerSource>>,
}

impl Sensors {
    /// Looks for drivers and sensors. None is no error.
    #[must_use]
    pub fn new(places: &Places) -> Self {
        let sources: Vec<Box<dyn PowerSource>> = vec![
            #[cfg(target_os = "linux")]
            Box::new(powercap::Powercap::new(places)),
            Box::new(battery::Battery::new(places)),
            #[cfg(target_os = "linux")]
            Box::new(ina3221::Ina3221::new(places)),
        ];
        Self { gpus: Gpus::new(places), sources }
    }

    /// The cards, with everything else that they tell.
    pub fn gpus(&mut self) -> &mut Gpus {
        &mut self.gpus
    }

    /// Each sensor that can be read: scope, method and what it leaves out.
    pub fn list(&mut self) -> Vec<Sensor> {
        let mut sensors = self.gpus.sensors();
        sensors.extend(self.sources.iter_mut().flat_map(|source| source.sensors()));
        sensors
    }

    /// Reads each sensor once, cards included. A card that sleeps is not woken: it has neither power nor energy.
    pub fn read(&mut self) -> Vec<SensorReading> {
        let mut readings: Vec<_> = self.gpus.read().iter().flatten().map(of_card).collect();
        readings.extend(self.read_machine());
        readings
    }

    /// Reads the sensors that are no card's, for those who read the cards themselves.
    pub fn read_machine(&mut self) -> Vec<SensorReading> {
        self.sources.iter_mut().flat_map(|source| source.read()).collect()
    }

    /// What this machine has and does not let be read, with the step to take, and what cannot be seen here.
    pub fn missing(&mut self) -> Vec<Finding> {
        self.sources.iter_mut().flat_map(|source| source.missing()).collect()
    }
}

/// A card's reading as a sensor's.
#[must_use]
pub fn of_card(reading: &GpuReading) -> SensorReading {
    SensorReading { sensor: reading.id.clone(), at: reading.at, power: reading.power, energy: reading.energy }
}

/// Between two looks at the sensors, while their refresh is measured. No shorter period can be told.
const LOOK: Duration = Duration::from_millis(2);

/// How many changes tell a period.
const CHANGES: usize = 4;

/// How often each sensor's figure changes, by reading it over and over for a bounded moment (two seconds tell of
/// all that refresh at least twice a second). The median of the times between changes; a sensor whose figure does not
/// change often enough meanwhile is left out. `read` takes what lock it needs for one reading only.
pub fn refresh(moment: Duration, mut read: impl FnMut() -> Vec<SensorReading>) -> BTreeMap<String, Duration> {
    let started = Instant::now();
    let mut seen: BTreeMap<String, Watched> = BTreeMap::new();
    while started.elapsed() < moment {
        for reading in read() {
            seen.entry(reading.sensor.clone()).or_default().note(reading);
        }
        thread::sleep(LOOK);
    }
    seen.into_iter().filter_map(|(sensor, watched)| Some((sensor, watched.period()?))).collect()
}

/// One sensor's changes.
#[derive(Default)]
struct Watched {
    last: Option<SensorReading>,
    changed: Vec<Instant>,
}

impl Watched {
    fn note(&mut self, reading: SensorReading) {
        // A counter changes at every refresh; power may well stay the same, so it counts only where there is no counter.
        let same = |last: &SensorReading| match (last.energy, reading.energy) {
            (Some(before), Some(now)) => before == now,
            _ => last.power == reading.power,
        };
        if self.last.as_ref().is_some_and(|last| !same(last)) {
            self.changed.push(reading.at);
        }
        self.last = Some(reading);
    }

    fn period(&self) -> Option<Duration> {
        let mut periods: Vec<Duration> =
            self.changed.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).collect();
        periods.sort_unstable();
        (self.changed.len() >= CHANGES).then(|| periods[periods.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use idlewatt_core::device::Power;
    use idlewatt_protocol::{Millijoules, Milliwatts};

    use super::*;

    /// Looks every 2 ms for a second at a sensor whose figures change with these periods, ms.
    fn period(power: i64, energy: Option<i64>) -> Option<Duration> {
        let start = Instant::now();
        let mut watched = Watched::default();
        for (look, at) in (0..500_i64).zip(0..).map(|(look, at)| (look * 2, start + LOOK * at)) {
            watched.note(SensorReading {
                sensor: "a".into(),
                at,
                power: Some(Power { value: Milliwatts(look / power), averaged: false }),
                energy: energy.map(|energy| Millijoules(look / energy)),
            });
        }
        watched.period()
    }

    #[test]
    fn the_period_is_that_of_the_counter_where_there_is_one() {
        assert_eq!(period(2, Some(20)), Some(Duration::from_millis(20)));
    }

    #[test]
    fn a_sensor_without_a_counter_is_watched_by_its_power() {
        assert_eq!(period(100, None), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_figure_that_hardly_changes_tells_no_period() {
        assert_eq!(period(400, None), None);
    }
}
