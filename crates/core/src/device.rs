//! What sensors say, as plain values. The reading of them is `idlewatt-devices`'.

use std::collections::BTreeMap;
use std::time::Instant;

use idlewatt_protocol::{Millijoules, Milliwatts};

/// One reading of one card. Whatever the card does not tell is `None`, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuReading {
    /// The driver's stable id: `GPU-…`, `amdgpu-0000:03:00.0`.
    pub id: String,
    /// Product name.
    pub name: String,
    /// When it was read.
    pub at: Instant,
    /// Powered down by the system: it is not woken to be looked at, so everything else is `None`.
    pub asleep: bool,
    /// Power, and whether it is an instantaneous value or an average over about a second.
    pub power: Option<Power>,
    /// A counter that only rises, until the driver is loaded again; the sensor has undone the wrap of a short register.
    pub energy: Option<Millijoules>,
    /// Core temperature, °C.
    pub temperature_c: Option<i32>,
    /// The hottest spot that the card tells of (junction, memory), °C.
    pub hot_spot_c: Option<i32>,
    /// The fastest fan, percent of its greatest speed.
    pub fan_percent: Option<u32>,
    /// VRAM in use, bytes.
    pub vram_used: Option<u64>,
    /// VRAM in all, bytes.
    pub vram_total: Option<u64>,
    /// Busy part of the last sample period, percent.
    pub utilisation: Option<u32>,
    /// The limit in force in the card itself.
    pub limit: Option<Milliwatts>,
    /// The limit the card was made with.
    pub default_limit: Option<Milliwatts>,
    /// The limits that the card takes.
    pub limit_range: Option<LimitRange>,
}

/// What programs that are neither ours nor a model server use of one card. Whatever nothing tells of is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLoad {
    /// The card's id, as in [`GpuReading::id`].
    pub card: String,
    /// Busy part of the last seconds, 0 to 100 %; a single short burst does not show.
    pub utilisation: Option<u8>,
    /// Memory that they hold, bytes.
    pub vram: Option<u64>,
}

/// How hot one card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temperature {
    /// The card's id, as in [`GpuReading::id`].
    pub card: String,
    /// Its core, °C.
    pub celsius: i32,
}

/// How hot cards may become, °C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThermalLimits {
    /// Every card of which nothing else is said.
    pub every: i32,
    /// Card by card, by the beginning of its id.
    pub cards: BTreeMap<String, i32>,
}

impl ThermalLimits {
    /// The same for every card, °C.
    #[must_use]
    pub const fn every(celsius: i32) -> Self {
        Self { every: celsius, cards: BTreeMap::new() }
    }

    /// One card's, °C.
    #[must_use]
    pub fn of(&self, card: &str) -> i32 {
        named(&self.cards, card).copied().unwrap_or(self.every)
    }
}

/// What is said of a card: of several beginnings of its id the longest counts, since `GPU-1` must not speak for `GPU-10`.
#[must_use]
pub fn named<'a, T>(cards: &'a BTreeMap<String, T>, card: &str) -> Option<&'a T> {
    let named = cards.iter().filter(|(id, _)| card.starts_with(id.as_str()));
    named.max_by_key(|(id, _)| id.len()).map(|(_, it)| it)
}

impl GpuReading {
    /// A card that tells nothing but what it is.
    #[must_use]
    pub fn silent(id: impl Into<String>, name: impl Into<String>, at: Instant) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            at,
            asleep: false,
            power: None,
            energy: None,
            temperature_c: None,
            hot_spot_c: None,
            fan_percent: None,
            vram_used: None,
            vram_total: None,
            utilisation: None,
            limit: None,
            default_limit: None,
            limit_range: None,
        }
    }
}

/// The limits that a card takes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRange {
    /// Lowest.
    pub min: Milliwatts,
    /// Highest.
    pub max: Milliwatts,
}

/// A power reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// How much.
    pub value: Milliwatts,
    /// Averaged by the card over about a second.
    pub averaged: bool,
}

/// What a power sensor is: a card's, and those of the machine around it. Does not change while it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Stable: `GPU-…`, `powercap:intel-rapl:0`, `battery:BAT0`, `plug:192.168.1.20`.
    pub id: String,
    /// For people.
    pub name: String,
    /// What its figure covers.
    pub scope: Scope,
    /// How it measures, for people: `NVML: instantaneous power, energy counter`.
    pub method: String,
    /// What its figure leaves out, for people: `voltage converters, fans and the board's own use`.
    pub leaves_out: Option<String>,
}

/// What a power sensor's figure covers. Figures of different scopes are never added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A whole card.
    Board,
    /// A chip: processor, or card without its board.
    Package,
    /// One supply line.
    Rail,
    /// The whole machine, behind its power supply.
    Machine,
    /// At the wall.
    Wall,
}

/// One reading of one power sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorReading {
    /// Which: [`Sensor::id`].
    pub sensor: String,
    /// When it was read.
    pub at: Instant,
    /// Power.
    pub power: Option<Power>,
    /// A counter that only rises; the sensor has undone the wrap of a short register.
    pub energy: Option<Millijoules>,
}
