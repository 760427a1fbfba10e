//! What house and grid say. Today that is wall plugs: what this machine draws at the wall, asked of the plug that it hangs
//! on.
//!
//! A plug is somebody else's small computer: it may be slow, restart, speak HTML or be replaced by another one. Whatever
//! is no reading of a plausible power is a [`PlugError`] that says so to a person, never a number. Nothing here switches
//! anything, and nothing is asked but what [`Plug::read`] asks. When to ask, and what to do without an answer, is for the
//! engine to say.

mod address;
mod counter;
mod home_assistant;
mod http;
mod shelly;
mod tasmota;

use std::time::Instant;

use async_trait::async_trait;
use idlewatt_core::device::{Power, Scope, Sensor, SensorReading};
use idlewatt_protocol::{Millijoules, Milliwatts};

pub use address::{PlugAddress, PlugAddressError};
pub use http::LIMIT;

use address::Kind;
use counter::Counter;
use http::Http;

/// More than any house draws, W.
const IMPLAUSIBLE_W: f64 = 100_000.0;

/// What a kind of plug must know: how to ask once.
#[async_trait]
trait Meter: Send {
    async fn ask(&mut self, http: &Http) -> Result<Told, PlugError>;
}

/// What a plug told, in the units that plugs speak.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    watts: Option<f64>,
    /// Since the plug began to count, Wh.
    watt_hours: Option<f64>,
}

/// A wall plug that is asked over the local network.
pub struct Plug {
    sensor: Sensor,
    meter: Box<dyn Meter>,
    http: Http,
    counter: Counter,
}

impl Plug {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When this process cannot make connections.
    pub fn new(address: &PlugAddress) -> Result<Self, PlugError> {
        let root = address.root.clone();
        let (meter, method): (Box<dyn Meter>, &str) = match &address.kind {
            Kind::Shelly { channel } => {
                (Box::new(shelly::Shelly::new(root, *channel)), "Shelly: power and energy counter")
            }
            Kind::Tasmota { channel } => {
                (Box::new(tasmota::Tasmota::new(root, *channel)), "Tasmota: power and energy counter")
            }
            Kind::HomeAssistant { entity, token } => {
                let meter = home_assistant::HomeAssistant::new(&root, entity, token.clone());
                (Box::new(meter), "Home Assistant: what its sensor reported last")
            }
        };
        let sensor = Sensor {
            id: format!("plug:{}", address.place()),
            name: address.to_string(),
            scope: Scope::Wall,
            method: method.to_owned(),
            leaves_out: None,
        };
        Ok(Self { sensor, meter, http: Http::new()?, counter: Counter::default() })
    }

    /// What it is.
    #[must_use]
    pub fn sensor(&self) -> &Sensor {
        &self.sensor
    }

    /// Asks once. Takes [`LIMIT`] at most for each of the plug's pages, of which there are two at the first time.
    ///
    /// # Errors
    /// When there is no plausible reading; the next one may be fine. Power and energy are then not known: neither zero,
    /// nor what they were before.
    pub async fn read(&mut self) -> Result<SensorReading, PlugError> {
        let told = self.meter.ask(&self.http).await?;
        let at = Instant::now();
        let power = told.watts.map(milliwatts).transpose()?;
        let energy = told.watt_hours.map(millijoules).transpose()?;
        if power.is_none() && energy.is_none() {
            return Err(PlugError::Nothing("neither power nor energy".to_owned()));
        }
        Ok(SensorReading {
            sensor: self.sensor.id.clone(),
            at,
            // Plugs show means over about a second.
            power: power.map(|value| Power { value, averaged: true }),
            energy: energy.map(|energy| self.counter.take(energy, at)),
        })
    }
}

fn milliwatts(watts: f64) -> Result<Milliwatts, PlugError> {
    if !(0.0..=IMPLAUSIBLE_W).contains(&watts) {
        let hint = if watts < 0.0 { " (a clamp that is the other way round shows such)" } else { "" };
        return Err(PlugError::Implausible(format!("a power of {watts:?} W{hint}")));
    }
    Ok(Milliwatts(whole(watts * 1e3)))
}

fn millijoules(watt_hours: f64) -> Result<Millijoules, PlugError> {
    // A thousand GWh: no counter of a plug gets there.
    if !(0.0..=1e12).contains(&watt_hours) {
        return Err(PlugError::Implausible(format!("an energy of {watt_hours:?} Wh")));
    }
    Ok(Millijoules(whole(watt_hours * 3.6e6)))
}

#[expect(clippy::cast_possible_truncation, reason = "both callers have checked the range")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

/// Why there is no reading, for people: goes on after the plug's name and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// No connection, or one that broke.
    #[error("it cannot be reached ({0})")]
    Unreachable(String),
    /// No whole answer within [`LIMIT`].
    #[error("it did not answer within {} s", LIMIT.as_secs())]
    Slow,
    /// It wants to know who asks.
    #[error("it asks for a password, and Idlewatt knows none for it")]
    Password,
    /// Home Assistant knows no such token, or its file cannot be read.
    #[error("{0}")]
    Token(String),
    /// It answered with an HTTP status that is no answer.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// It sends elsewhere; nobody follows.
    #[error("it sends to another address, and Idlewatt does not follow")]
    Redirect,
    /// Far more than any reading.
    #[error("it answered with more than {} KiB, which is no reading", http::MOST / 1024)]
    TooLong,
    /// A page for people.
    #[error("it answered with a web page where a reading should be: is this the plug's address?")]
    WebPage,
    /// Something else.
    #[error("it answered with something that is no JSON: is this the plug's address?")]
    NotJson,
    /// It answered, without what was asked for.
    #[error("it tells {0}")]
    Nothing(String),
    /// It told what cannot be.
    #[error("it tells what cannot be: {0}")]
    Implausible(String),
    /// What it told is from long ago.
    #[error("Home Assistant has heard nothing from it for {minutes} minutes")]
    Stale {
        /// Since then.
        minutes: i64,
    },
}
