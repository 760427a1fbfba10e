//! What is shown: the engine's state as plain values. The shapes of `status --json` and `requests --json`.

use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{
    Artefact, Capabilities, Label, MicroCredits, Millijoules, Milliwatts, PauseCode, Price, RequestId, Scope,
    UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Everything that `idlewatt status --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Status {
    /// The engine's version.
    pub version: String,
    /// The interface's version, [`crate::CONTROL_VERSION`].
    pub control: u32,
    /// Whether it shares.
    pub state: State,
    /// One sentence for people: what is happening and why.
    pub sentence: String,
    /// Since when the state holds.
    pub since: UnixMillis,
    /// Every reason that holds, the first to end first.
    pub reasons: Vec<Reason>,
    /// Until when the host's "share now" puts idleness and hours aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub share_now_until: Option<UnixMillis>,
    /// Whether a person can sit at this machine, and whether one does.
    pub presence: Presence,
    /// The cards.
    pub gpus: Vec<Gpu>,
    /// The services.
    pub services: Vec<Service>,
    /// The networks.
    pub networks: Vec<Network>,
    /// Since local midnight.
    pub today: Today,
    /// Whether the machine is kept from sleeping; `None` where the host does not want that (`share.keep_awake`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub awake: Option<Awake>,
    /// Requests being answered now.
    pub running: u32,
    /// The last time the GPU was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub last_yield: Option<LastYield>,
    /// Things that want a person: a locked keyring, a hub that refuses.
    pub attention: Vec<Notice>,
}

/// Whether the node shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Takes requests.
    Sharing,
    /// Gives the GPU back right now.
    Yielding,
    /// Does not, for the reasons given.
    Paused,
    /// Wants to, and reaches no network.
    Offline,
}

/// One pause reason with its sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Reason {
    /// Which.
    pub code: PauseCode,
    /// For people.
    pub text: String,
    /// Since when.
    pub since: UnixMillis,
    /// Until when, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub until: Option<UnixMillis>,
}

/// Whether somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// No graphical session: nobody can be disturbed.
    Headless,
    /// Somebody used the machine a moment ago.
    Here,
    /// Nobody has for the time the host set.
    Away,
    /// There is a session, and no way to see input.
    Blind,
}

/// Something that wants a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Notice {
    /// What happened.
    pub what: String,
    /// What it means.
    pub why: String,
    /// What to do.
    #[serde(rename = "do")]
    pub action: String,
}

/// A card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Gpu {
    /// The driver's stable id: `GPU-…`.
    pub id: String,
    /// Product name.
    pub name: String,
    /// Power now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub power_mw: Option<Milliwatts>,
    /// The cap that holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
    /// VRAM in use, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub vram_used: Option<u64>,
    /// VRAM in all, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub vram_total: Option<u64>,
    /// Core temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub temperature_c: Option<i32>,
    /// How the power is known.
    pub label: Label,
}

/// One model offered by one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one service")]
pub struct Service {
    /// Stable on this node.
    pub id: String,
    /// Public model name, with quantisation where known.
    pub model: String,
    /// The server's kind and address, for the host's eyes only: `llama.cpp · 127.0.0.1:8080`.
    pub server: String,
    /// Whether the host shares it.
    pub shared: bool,
    /// Whether it answers now.
    pub reachable: bool,
    /// Whether it was probed and may be offered.
    pub ready: bool,
    /// Whether the model is loaded.
    pub warm: bool,
    /// Whether it may be unloaded to give memory back although sharing did not load it: the host said so.
    #[serde(default)]
    pub may_unload: bool,
    /// Whom the host answers with it; strangers only where `share.strangers` is set.
    #[serde(default)]
    pub scope: Scope,
    /// Whether it is loaded again for whoever asks for it once it was unloaded. Where not, only sharing or the host brings
    /// it back, and the host's other programs are refused until then.
    #[serde(default = "yes")]
    pub loads_on_request: bool,
    /// What it serves.
    pub artefact: Artefact,
    /// Requests at once.
    pub slots: u32,
    /// Of these, in use by shared requests.
    pub busy: u32,
    /// Tokens.
    pub context: u32,
    /// What the host asks.
    pub price: Price,
    /// What it was seen to do.
    pub capabilities: Capabilities,
    /// Decode speed in the probe, tokens a second × 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub milli_tokens_per_s: Option<u32>,
    /// Why it is not ready, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub problem: Option<String>,
}

/// As most servers do; what an engine said that did not tell yet.
fn yes() -> bool {
    true
}

/// A network joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Network {
    /// Stable on this node.
    pub id: String,
    /// `hub`.
    pub kind: String,
    /// What it calls itself.
    pub name: String,
    /// Its address.
    pub url: String,
    /// The account this node earns for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub account: Option<String>,
    /// Connection.
    pub state: NetworkState,
    /// Why it is not connected, or why no work comes, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub reason: Option<String>,
    /// Since when the state holds.
    pub since: UnixMillis,
    /// When the last request came from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub last_request: Option<UnixMillis>,
    /// Requests served today.
    pub requests_today: u32,
    /// Earned today.
    pub earned_today_ucr: MicroCredits,
    /// Statements that the network has not settled yet.
    pub unsettled: u32,
}

/// How a network's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// Under way.
    Connecting,
    /// In, and it is told the truth about this node's capacity.
    Connected,
    /// Lost; trying again by itself.
    Waiting,
    /// Refused for good: a person must act.
    Refused,
}

/// Totals of one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Today {
    /// Requests answered or begun.
    pub requests: u32,
    /// Prompt tokens.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub tokens_in: u64,
    /// Completion tokens.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub tokens_out: u64,
    /// Earned.
    pub earned_ucr: MicroCredits,
    /// All energy used for sharing; `None` when nothing measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub energy_mj: Option<Millijoules>,
    /// Its parts; they add up to it.
    pub energy_split: EnergySplit,
    /// How it is known.
    pub energy_label: Label,
    /// What the energy cost, at the price that held when it was used; only of what had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cost: Option<Money>,
    /// Of the energy, what is not in `cost`: used while no price was set, or paid in another currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub unpriced_mj: Option<Millijoules>,
    /// What was earned in the host's currency, where a credit has a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub gross: Option<Money>,
    /// Gross less cost, where both are known and no energy is without a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub net: Option<Money>,
}

/// Where shared energy went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct EnergySplit {
    /// Answering requests.
    pub answering: Millijoules,
    /// Waiting with a model loaded for sharing.
    pub waiting: Millijoules,
    /// Keeping the machine awake for sharing.
    pub awake: Millijoules,
}

/// An amount in a currency, in millionths of its main unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Money {
    /// Millionths of the main unit.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub micros: i64,
    /// ISO 4217: `EUR`.
    pub currency: String,
}

/// Whether a machine that is to be kept from sleeping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Awake {
    /// It does not sleep by itself now.
    Held,
    /// It may: it does not share, runs on battery, or its lid is closed.
    Released,
    /// The system refuses to keep it awake.
    Refused,
}

/// The last time the GPU was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LastYield {
    /// Why.
    pub cause: PauseCode,
    /// When the event was seen.
    pub seen: UnixMillis,
    /// From then until every shared connection to the model server was closed.
    pub closed_ms: u32,
    /// From then until the VRAM was free, where it was to be freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub freed_ms: Option<u32>,
    /// Whether that was checked and found true.
    pub verified: bool,
}

/// One request, as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RequestRow {
    /// Its id, and its receipt's.
    pub id: RequestId,
    /// Which network it came from.
    pub network: String,
    /// Model as offered.
    pub model: String,
    /// What answered.
    pub artefact: Artefact,
    /// When it came.
    pub started: UnixMillis,
    /// Time to the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub ttft_ms: Option<u32>,
    /// Whole time so far.
    pub duration_ms: u32,
    /// Prompt tokens.
    pub tokens_in: u32,
    /// Completion tokens.
    pub tokens_out: u32,
    /// How it ended.
    pub outcome: RowOutcome,
    /// Whether it was the host's own account that asked.
    pub own: bool,
    /// Earned; `None` until the network has settled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub earned_ucr: Option<MicroCredits>,
    /// Joules.
    pub energy: Energy,
    /// What its energy cost, at the price that held while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cost: Option<Money>,
    /// Earned, in the host's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub gross: Option<Money>,
    /// Gross less cost, where both are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub net: Option<Money>,
    /// Segments of the answer that this node produced.
    pub segments: u32,
    /// Digest of the receipt, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub receipt: Option<String>,
}

/// How a request ended on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum RowOutcome {
    /// Still being answered.
    Running,
    /// In full.
    Complete,
    /// The consumer went away.
    Cancelled,
    /// The host took the GPU back.
    Yielded,
    /// The model server or the connection failed.
    Failed,
    /// The node stopped in the middle of it.
    Lost,
}

/// One request with what happened when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RequestDetail {
    /// As listed.
    pub row: RequestRow,
    /// In order.
    pub timeline: Vec<Moment>,
    /// Readings while it ran.
    pub samples: Vec<Sample>,
}

/// Something that happened to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Moment {
    /// When.
    pub at: UnixMillis,
    /// What.
    pub kind: MomentKind,
}

/// Kinds of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum MomentKind {
    /// The network sent it.
    Received,
    /// It went to the model server.
    Started,
    /// The first piece came.
    FirstToken,
    /// The last piece came, or it broke off.
    Ended,
    /// The statement was signed and kept.
    Signed,
    /// The network settled it.
    Posted,
}

/// One reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Sample {
    /// When.
    pub at: UnixMillis,
    /// Which card.
    pub gpu: String,
    /// Power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub power_mw: Option<Milliwatts>,
    /// The cap then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
    /// Temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub temperature_c: Option<i32>,
    /// Shared requests running then.
    pub running: u32,
}

/// One stretch of sharing: what happened while the host was away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Session {
    /// When sharing began.
    pub started: UnixMillis,
    /// When it ended; `None` while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub ended: Option<UnixMillis>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub ended_by: Option<Reason>,
    /// Totals of the session.
    pub totals: Today,
    /// Highest power over ten seconds, all cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub peak_10s_mw: Option<Milliwatts>,
    /// Cap in force at its end, all cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ConfigEntry {
    /// Dotted key.
    pub key: String,
    /// The value in force, as text.
    pub value: String,
    /// What it is without the host's choice.
    pub default: String,
    /// What it does, with unit and range.
    pub about: String,
    /// Whether only the command line may set it.
    pub local_only: bool,
}

/// What `doctor` finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Doctor {
    /// The engine's version.
    pub version: String,
    /// One line each.
    pub checks: Vec<Check>,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Check {
    /// Which room: `gpu`, `power`, `presence`, `servers`, `networks`, `keys`, `store`.
    pub area: String,
    /// How it stands.
    pub level: CheckLevel,
    /// What was found.
    pub what: String,
    /// What to do, where there is something to do.
    #[serde(rename = "do", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub action: Option<String>,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    /// As it should be.
    Good,
    /// Normal, and worth knowing.
    Note,
    /// Something does less than it could.
    Warning,
    /// Something does not work.
    Problem,
}
