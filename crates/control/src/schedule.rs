//! When this machine shares: the Schedule page, what would happen, how the GPU was given back, and why little was shared.

use idlewatt_protocol::{PauseCode, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::view::{Reason, State};

/// Everything that the Schedule page shows beside the settings themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Schedule {
    /// The share windows painted on a week, Monday first: for each day 48 half hours, `true` where sharing is allowed for
    /// all of it.
    pub week: Vec<Vec<bool>>,
    /// Whether the grid says all that `share.windows` says: no window begins or ends between two half hours.
    pub exact: bool,
    /// The rules in force as sentences, the most telling first.
    pub rules: Vec<String>,
    /// What happens now and next under the settings in force.
    pub outlook: Outlook,
    /// The host's time zone: `Europe/Berlin`.
    pub zone: String,
}

/// What the policy says of the time ahead, if whoever is here leaves now and nothing but time changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Outlook {
    /// Stretches of one state each, the one of now first, without gaps.
    pub stretches: Vec<Stretch>,
}

/// A stretch of time in which nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Stretch {
    /// Its beginning.
    pub from: UnixMillis,
    /// Its end; `None` where nothing that is known ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub until: Option<UnixMillis>,
    /// What the node would do.
    pub state: State,
    /// One sentence for people.
    pub sentence: String,
    /// Why it would not share.
    pub reasons: Vec<Reason>,
}

/// A program that runs here, to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Program {
    /// Its name, as `share.apps` would name it.
    pub name: String,
    /// Whether it has a window, uses a GPU, or is otherwise likely to be meant.
    pub likely: bool,
}

/// One time the GPU was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Yield {
    /// Why.
    pub cause: PauseCode,
    /// For people: "GPU back in 0.31 s: a game started."
    pub sentence: String,
    /// When the event was seen.
    pub seen: UnixMillis,
    /// Shared requests that were ended for it.
    pub requests: u32,
    /// From the event until every shared connection to a model server was closed, ms.
    pub closed_ms: u32,
    /// From the event until the VRAM was free, ms; `None` where it was not to be freed, or is not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub freed_ms: Option<u32>,
    /// Whether the freeing was checked and found true.
    pub verified: bool,
    /// What was done for it, in order.
    pub steps: Vec<YieldStep>,
}

/// One step of giving the GPU back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct YieldStep {
    /// After the event, ms.
    pub at_ms: u32,
    /// For people: "llama.cpp ended", "Ollama says the model is unloaded, but 6.2 GB are still held".
    pub text: String,
}

/// What became of one day's share windows. Shared, offline, slept, off and paused add up to the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DayHours {
    /// The local date: `2026-11-21`.
    pub day: String,
    /// How much of it was inside the share windows, ms; of a day that goes on, how much so far; of the first day, since the
    /// first start.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub window_ms: u64,
    /// Of that, shared, ms.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub shared_ms: u64,
    /// Of that, ready, with no network reached, ms.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub offline_ms: u64,
    /// Of that, slept by the machine, ms.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub slept_ms: u64,
    /// Of that, not running at all, ms.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub off_ms: u64,
    /// Of that, paused, by the reason that led, the longest first.
    pub paused: Vec<PausedFor>,
    /// For people, where little was shared: "Your PC slept 5 h 40 of your 9 h window."
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub sentence: Option<String>,
    /// Whether keeping the machine awake while sharing would have helped, and is off.
    pub keep_awake_would_help: bool,
}

/// How long one reason held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PausedFor {
    /// Which.
    pub code: PauseCode,
    /// How long, ms.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub ms: u64,
}

/// A model file on this machine that a llama-server of the node's own could load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ModelFile {
    /// Stable on this node; names the file without its path.
    pub id: String,
    /// Public model name with quantisation.
    pub model: String,
    /// Where it is, for the host's eyes only.
    pub path: String,
    /// Whose it is: `LM Studio`, `Hugging Face cache`, `Ollama`, `your folder`.
    pub source: String,
    /// All its parts, bytes.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub size: u64,
    /// The longest context it was made for, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub context: Option<u32>,
    /// How it would be loaded under the limits in force: "all 32 layers on the GPU, 2 × 8,192 tokens, 6.1 GB of VRAM".
    pub plan: String,
    /// Whether it can be loaded so.
    pub fits: bool,
    /// Whether it is the one that `managed.model` names.
    pub chosen: bool,
}
