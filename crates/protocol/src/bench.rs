//! What `idlewatt bench` found: energy a token of one model on one machine, at one power limit or over several.
//!
//! A node signs a report and sends it to a hub that publishes such tables. It names cards and models, never the
//! machine, its person or its files.

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::units::{Label, Milliwatts, UnixMillis};

/// Payload type of a signed [`BenchReport`].
pub const BENCH_TYPE: &str = "application/vnd.idlewatt.bench.v1+json";

/// One run of the published workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchReport {
    /// Which workload, with its version: `idlewatt-1`.
    pub workload: String,
    /// Idlewatt's version.
    pub version: String,
    /// When it began.
    pub started: UnixMillis,
    /// The cards' product names; empty where it ran on no card.
    pub gpus: Vec<String>,
    /// The model server's kind and version: `llama.cpp b6000`.
    pub server: String,
    /// What answered.
    pub artefact: Artefact,
    /// How energy was measured, for people; empty where nothing measured it.
    pub method: String,
    /// One a power limit, lowest first.
    pub points: Vec<BenchPoint>,
}

/// The figures at one power limit. Means over the repeats; each error is the half width of their 95 % interval, with
/// the sensor's own error in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchPoint {
    /// The limit in force; `None` where the card does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
    /// How often the workload was run.
    pub repeats: u32,
    /// Reading the prompt.
    pub prefill: BenchPhase,
    /// Writing the answer.
    pub decode: BenchPhase,
    /// Mean power while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub mean_mw: Option<Milliwatts>,
    /// Highest reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub peak_mw: Option<Milliwatts>,
    /// Highest temperature, °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub temperature_c: Option<i32>,
    /// How the energy is known.
    pub label: Label,
}

/// One phase of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchPhase {
    /// Speed, tokens a second × 1,000.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub milli_tokens_per_s: i64,
    /// Energy a token, microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub uj_per_token: Option<i64>,
    /// Its error, microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub error_uj: Option<i64>,
}
