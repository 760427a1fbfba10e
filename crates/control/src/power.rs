//! What the power page shows, and `idlewatt bench` keeps.

use idlewatt_protocol::bench::BenchReport;
use idlewatt_protocol::{Label, MicroCredits, Millijoules, Milliwatts};
use serde::{Deserialize, Serialize};

use crate::view::{Gpu, Money, Today};

/// Power and energy of this machine: now, today, this month.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Power {
    /// One sentence for people: what is drawn, and what holds it.
    pub sentence: String,
    /// The cards.
    pub gpus: Vec<GpuPower>,
    /// All of them together, and the machine around them.
    pub machine: MachinePower,
    /// Every power sensor found.
    pub sensors: Vec<Sensor>,
    /// Since local midnight.
    pub today: Today,
    /// This calendar month.
    pub month: Today,
    /// What each model used and earned this month.
    pub models: Vec<ModelEnergy>,
    /// What `idlewatt bench` measured here, newest first.
    pub benches: Vec<BenchReport>,
    /// Whether a token earns more than its energy costs right now; `None` without a value of a credit, a tariff and
    /// measured tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub profitable: Option<bool>,
}

/// One card and what holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct GpuPower {
    /// As in the status; its `cap_mw` is the lowest limit in force.
    pub gpu: Gpu,
    /// Powered down by the system, and not woken to be looked at.
    pub asleep: bool,
    /// Hottest spot, °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub hot_spot_c: Option<i32>,
    /// Fan, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub fan_percent: Option<u32>,
    /// The host's cap: chosen, or 80 % of what the card was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub user_cap_mw: Option<Milliwatts>,
    /// Lowest cap that can be set: the card's, or 1 W where the governor holds it.
    pub min_cap_mw: Milliwatts,
    /// Highest cap that means anything: the card's own greatest limit, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub max_cap_mw: Option<Milliwatts>,
    /// What the card was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub default_cap_mw: Option<Milliwatts>,
    /// The limit that binds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub binding: Option<Limit>,
    /// Who holds the cap.
    pub actuator: Actuator,
    /// For people: who holds the cap, why nothing better does, and how to get it.
    pub actuator_text: String,
    /// Learned power without a model, and with one loaded and no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub idle_mw: Option<Milliwatts>,
    /// With a model loaded and no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub loaded_mw: Option<Milliwatts>,
}

/// All cards together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct MachinePower {
    /// All cards, where each tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub gpus_mw: Option<Milliwatts>,
    /// The machine at the wall, where a plug tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub wall_mw: Option<Milliwatts>,
    /// `power.machine_cap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
    /// `power.daily_energy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub daily_limit_mj: Option<Millijoules>,
}

/// A limit with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Limit {
    /// Which.
    pub kind: LimitKind,
    /// What it leaves.
    pub cap_mw: Milliwatts,
    /// For people.
    pub text: String,
}

/// What can limit a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// `power.cap`
    UserCap,
    /// `power.machine_cap`
    MachineCap,
    /// `thermal.limit`
    Temperature,
    /// `thermal.hot_spot`
    HotSpot,
    /// `thermal.fan_limit`, in `thermal.quiet_hours`
    Fan,
    /// `power.daily_energy`
    DailyEnergy,
    /// The card's own limit.
    Card,
}

/// Who holds a cap, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Actuator {
    /// The card itself, told by its driver.
    Hardware,
    /// A model server of our own is stopped and continued.
    DutyCycle,
    /// Fewer and later requests.
    Admission,
    /// Nobody: nothing measures this card, or no request fits under the cap.
    Nobody,
}

/// A power sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Sensor {
    /// Stable on this machine.
    pub id: String,
    /// For people.
    pub name: String,
    /// What its figure covers.
    pub scope: SensorScope,
    /// How it measures, for people.
    pub method: String,
    /// How often its figure changes, as seen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub refresh_ms: Option<u32>,
    /// What it leaves out, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub leaves_out: Option<String>,
    /// Power now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub power_mw: Option<Milliwatts>,
}

/// What a power sensor's figure covers. Figures of different scopes are never added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum SensorScope {
    /// A whole card.
    Board,
    /// A chip.
    Package,
    /// One supply line.
    Rail,
    /// The machine behind its power supply.
    Machine,
    /// At the wall.
    Wall,
}

/// What a model used and earned on a card over a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ModelEnergy {
    /// Public model name, with quantisation.
    pub model: String,
    /// The card's id; `None` where it is not known, or on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub gpu: Option<String>,
    /// Requests.
    pub requests: u32,
    /// Prompt tokens.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub tokens_in: u64,
    /// Completion tokens.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub tokens_out: u64,
    /// What answering took, with its share of the idle power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub energy_mj: Option<Millijoules>,
    /// Energy a completion token, microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub uj_per_token: Option<i64>,
    /// Half width of its error, microjoules; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub error_uj: Option<i64>,
    /// How the energy is known.
    pub label: Label,
    /// Earned.
    pub earned_ucr: MicroCredits,
    /// Earned, in the host's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub gross: Option<Money>,
    /// What the energy cost, at the price that held when it was used; only of what had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cost: Option<Money>,
    /// Of the energy, what is not in `cost`: used while no price was set, or paid in another currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub unpriced_mj: Option<Millijoules>,
    /// Gross less cost, where both are known and no energy is without a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub net: Option<Money>,
}
