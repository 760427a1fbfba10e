//! Wall plugs while the node runs: how often they are asked, and how long what they said is believed.
//!
//! A plug that does not answer makes the power at the wall unknown; it stops nothing. What all plugs draw together counts
//! as the machine's, so a sum with one of them missing is none.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use idlewatt_control::{CheckLevel, Sensor, SensorScope};
use idlewatt_core::device::{self, SensorReading};
use idlewatt_protocol::Milliwatts;
use idlewatt_signals::{LIMIT, Plug, PlugAddress};

use crate::node::{Node, lock};

/// While sharing.
const SHARING: Duration = Duration::from_secs(2);
/// Otherwise: observing must not cost.
const PAUSED: Duration = Duration::from_secs(30);

/// What is known of the plugs.
#[derive(Default)]
pub(crate) struct Plugs(Mutex<Vec<Known>>);

/// One plug.
struct Known {
    sensor: device::Sensor,
    last: Option<Last>,
    /// The shortest time in which its figure was seen to change.
    refresh: Option<Duration>,
    /// Why it told nothing when it was asked last.
    trouble: Option<String>,
}

/// What it told last.
struct Last {
    reading: SensorReading,
    /// Since when its figure has been this one.
    since: Instant,
    believed_until: Instant,
}

impl Plugs {
    /// What the machine draws at the wall, where every plug tells.
    pub(crate) fn wall(&self) -> Option<Milliwatts> {
        let plugs = lock(&self.0);
        plugs.iter().map(Known::power).sum::<Option<Milliwatts>>().filter(|_| !plugs.is_empty())
    }

    /// The plugs as screens show them.
    pub(crate) fn sensors(&self) -> Vec<Sensor> {
        let view = |it: &Known| Sensor {
            id: it.sensor.id.clone(),
            name: it.sensor.name.clone(),
            scope: SensorScope::Wall,
            method: it.sensor.method.clone(),
            refresh_ms: it.refresh.and_then(|refresh| u32::try_from(refresh.as_millis()).ok()),
            leaves_out: it.sensor.leaves_out.clone(),
            power_mw: it.power(),
        };
        lock(&self.0).iter().map(view).collect()
    }

    /// For `doctor`.
    pub(crate) fn findings(&self) -> Vec<(CheckLevel, String)> {
        lock(&self.0).iter().map(Known::finding).collect()
    }

    fn put(&self, plugs: &[Plug]) {
        let known =
            |it: &Plug| Known { sensor: it.sensor().clone(), last: None, refresh: None, trouble: None };
        *lock(&self.0) = plugs.iter().map(known).collect();
    }

    fn note(&self, told: Vec<Result<SensorReading, String>>, believed: Duration) {
        for (known, told) in lock(&self.0).iter_mut().zip(told) {
            known.note(told, believed);
        }
    }
}

impl Known {
    fn power(&self) -> Option<Milliwatts> {
        let last = self.last.as_ref().filter(|last| Instant::now() < last.believed_until)?;
        last.reading.power.map(|it| it.value)
    }

    fn note(&mut self, told: Result<SensorReading, String>, believed: Duration) {
        match told {
            Ok(reading) => {
                if self.trouble.take().is_some() {
                    tracing::info!(plug = %self.sensor.id, "a plug answers again");
                }
                let since = match self.last.take() {
                    Some(last) if last.reading.power == reading.power => last.since,
                    Some(last) => {
                        let took = reading.at.saturating_duration_since(last.since);
                        self.refresh = Some(self.refresh.map_or(took, |refresh| refresh.min(took)));
                        reading.at
                    }
                    None => reading.at,
                };
                self.last = Some(Last { since, believed_until: reading.at + believed, reading });
            }
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(plug = %self.sensor.id, %trouble, "a plug tells no power");
                }
                self.trouble = Some(trouble);
            }
        }
    }

    fn finding(&self) -> (CheckLevel, String) {
        let name = &self.sensor.name;
        match (&self.trouble, self.power()) {
            (Some(trouble), _) => {
                (CheckLevel::Warning, format!("Power at the wall is unknown. Wall plug {name}: {trouble}."))
            }
            (None, Some(power)) => {
                let method = &self.sensor.method;
                (
                    CheckLevel::Good,
                    format!("Wall plug {name}: {:.1} W at the wall. {method}.", power.to_main_unit()),
                )
            }
            (None, None) if self.last.is_some() => (
                CheckLevel::Note,
                format!("Wall plug {name} counts energy and tells no power: power at the wall is unknown."),
            ),
            (None, None) => (CheckLevel::Note, format!("Wall plug {name} was not asked yet.")),
        }
    }
}

impl Node {
    /// Asks the plugs that the settings name, often while sharing. Without plugs it waits for settings that name some.
    /// Ends when the node stops.
    pub(crate) async fn keep_plugs(self: Arc<Self>) {
        let mut config = self.config.subscribe();
        loop {
            let named = config.borrow_and_update().settings().plugs.clone();
            let mut plugs = open(&named);
            self.plugs.put(&plugs);
            let renamed = config.wait_for(|now| now.settings().plugs != named);
            tokio::select! {
                () = self.stop.cancelled() => return,
                // The sender lives as long as the node.
                _ = renamed => {}
                () = self.ask_on(&mut plugs), if !plugs.is_empty() => {}
            }
        }
    }

    async fn ask_on(&self, plugs: &mut [Plug]) {
        let mut standing = self.standing.subscribe();
        loop {
            let pace = if standing.borrow_and_update().accepts() { SHARING } else { PAUSED };
            let told = join_all(plugs.iter_mut().map(Plug::read)).await;
            let told = told.into_iter().map(|it| it.map_err(|error| error.to_string())).collect();
            // One answer may be lost.
            self.plugs.note(told, 2 * (pace + LIMIT));
            if let Some(wall) = self.plugs.wall() {
                // The cards and the wall in the same moment.
                self.cards.read_for_meter().await;
                self.cards.calibrate(wall);
            }
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                _ = standing.wait_for(|it| it.accepts() != (pace == SHARING)) => {}
            }
        }
    }
}

/// All or none: a sum of some would pass for the machine's.
fn open(addresses: &[PlugAddress]) -> Vec<Plug> {
    let plugs: Result<Vec<Plug>, _> = addresses.iter().map(Plug::new).collect();
    plugs.inspect_err(|error| tracing::error!(%error, "plugs cannot be asked")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use idlewatt_core::device::{Power, Scope};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn plugs(count: usize) -> Plugs {
        let sensor = |number| device::Sensor {
            id: format!("plug:{number}"),
            name: format!("shelly://plug-{number}"),
            scope: Scope::Wall,
            method: "Shelly: power and energy counter".to_owned(),
            leaves_out: None,
        };
        let known = |number| Known { sensor: sensor(number), last: None, refresh: None, trouble: None };
        Plugs(Mutex::new((0..count).map(known).collect()))
    }

    fn told(watts: i64) -> Result<SensorReading, String> {
        let power = Some(Power { value: Milliwatts(watts * 1000), averaged: true });
        Ok(SensorReading { sensor: String::new(), at: Instant::now(), power, energy: None })
    }

    fn trouble() -> Result<SensorReading, String> {
        Err("it did not answer within 3 s".to_owned())
    }

    #[test]
    fn the_wall_is_the_sum_of_all_plugs_and_unknown_where_one_is_silent() {
        assert_eq!(plugs(0).wall(), None);
        let plugs = plugs(2);
        assert_eq!(plugs.wall(), None);
        plugs.note(vec![told(200), trouble()], LONG);
        assert_eq!(plugs.wall(), None);
        plugs.note(vec![told(210), told(30)], LONG);
        assert_eq!(plugs.wall(), Some(Milliwatts(240_000)));
    }

    #[test]
    fn what_a_plug_said_is_believed_over_one_lost_answer_and_no_longer() {
        let plugs = plugs(1);
        plugs.note(vec![told(200)], LONG);
        plugs.note(vec![trouble()], LONG);
        assert_eq!(plugs.wall(), Some(Milliwatts(200_000)));
        plugs.note(vec![told(200)], Duration::ZERO);
        assert_eq!(plugs.wall(), None);
        assert_eq!(plugs.sensors()[0].power_mw, None);
    }

    #[test]
    fn doctor_says_what_a_plug_tells_or_why_it_does_not() {
        let plugs = plugs(1);
        let mut lines = Vec::new();
        let counter = Ok(SensorReading { power: None, ..told(0).unwrap() });
        for next in [None, Some(told(312)), Some(trouble()), Some(counter)] {
            if let Some(next) = next {
                plugs.note(vec![next], LONG);
            }
            lines.extend(plugs.findings().into_iter().map(|(level, text)| format!("{level:?}: {text}")));
        }
        assert_eq!(
            lines,
            [
                "Note: Wall plug shelly://plug-0 was not asked yet.",
                "Good: Wall plug shelly://plug-0: 312.0 W at the wall. Shelly: power and energy counter.",
                "Warning: Power at the wall is unknown. Wall plug shelly://plug-0: it did not answer within 3 s.",
                "Note: Wall plug shelly://plug-0 counts energy and tells no power: power at the wall is unknown.",
            ]
        );
    }
}
