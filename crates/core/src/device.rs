//! What sensors say, as plain values. The reading of them is `idlewatt-devices`'.

use std::time::Instant;

use idlewatt_protocol::{Millijoules, Milliwatts};

/// One reading of one card. Whatever the card does not tell is `None`, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuReading {
    /// The driver's stable id: `GPU-…`.
    pub id: String,
    /// Product name.
    pub name: String,
    /// When it was read.
    pub at: Instant,
    /// Power, and whether it is an instantaneous value or an average over about a second.
    pub power: Option<Power>,
    /// A counter that only rises, until the driver is loaded again.
    pub energy: Option<Millijoules>,
    /// Core temperature, °C.
    pub temperature_c: Option<i32>,
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
}

/// A power reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// How much.
    pub value: Milliwatts,
    /// Averaged by the card over about a second.
    pub averaged: bool,
}
