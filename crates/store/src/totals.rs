//! Sums by day, by session, by network and day, and by month, card and model, bumped in the transaction of what they
//! add up. What energy cost is added up at the price that held when it was used.

use std::collections::BTreeMap;

use idlewatt_control::{EnergySplit, ModelEnergy, Money, Today};
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Label, MicroCredits, Millijoules, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::column::Word;
use crate::{Reply, SessionId, Store};

/// What some energy cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Billionths of the currency's main unit: a second of a few watts costs less than a millionth, and is added to the
    /// sum all the same. Negative where the price was.
    pub nanos: i64,
    /// ISO 4217: `EUR`.
    pub currency: String,
}

impl Cost {
    /// To the nearest millionth, as it is shown.
    pub(crate) fn money(self) -> Money {
        let half = 500 * self.nanos.signum();
        Money { micros: self.nanos.saturating_add(half) / 1000, currency: self.currency }
    }
}

/// Energy used for sharing over a stretch of time, all cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyInterval {
    /// The local date that it belongs to: `2026-11-21`.
    pub day: String,
    /// The session that it belongs to.
    pub session: Option<SessionId>,
    /// Where it went.
    pub split: EnergySplit,
    /// How it is known; `unknown` energy is not added.
    pub label: Label,
    /// What all of it cost, where it had a price.
    pub cost: Option<Cost>,
}

impl Store {
    /// Adds energy to its day and session.
    pub fn add_energy(&self, interval: EnergyInterval) -> Reply<()> {
        self.note(move |connection| {
            if interval.label == Label::Unknown {
                return Ok(());
            }
            let (label, cost) = (Some(interval.label), interval.cost);
            let change = Change { split: interval.split, label, cost, ..Change::NONE };
            bump(connection, "day", &interval.day, &change)?;
            match interval.session {
                Some(session) => bump(connection, "session", &session.0.to_string(), &change),
                None => Ok(()),
            }
        })
    }

    /// Totals of one local date (`2026-11-21`). What was earned in the host's currency is the caller's to fill in.
    pub fn day(&self, day: &str) -> Reply<Today> {
        let day = day.to_owned();
        self.read(move |connection| get(connection, "day", &day))
    }

    /// Totals of the `count` last dates that have any, up to and with `through`.
    pub fn days(&self, through: &str, count: u32) -> Reply<BTreeMap<String, Today>> {
        let through = through.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT * FROM totals WHERE scope = 'day' AND key <= ? ORDER BY key DESC LIMIT ?",
            )?;
            let rows = query.query_map(params![through, count], |row| {
                let day: String = row.get("key")?;
                let totals = today(connection, row, "day", (&day, &day))?;
                Ok((day, totals))
            })?;
            rows.collect()
        })
    }

    /// Totals of one month of local dates (`2026-11`).
    pub fn month(&self, month: &str) -> Reply<Today> {
        // Of two labels the weaker holds for the sum; it is the first in the alphabet.
        let keys = (format!("{month}-01"), format!("{month}-31"));
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(tokens_in), 0) AS tokens_in,
                            coalesce(sum(tokens_out), 0) AS tokens_out, coalesce(sum(earned), 0) AS earned,
                            coalesce(sum(answering), 0) AS answering, coalesce(sum(waiting), 0) AS waiting,
                            coalesce(sum(awake), 0) AS awake, min(label) AS label
                     FROM totals WHERE scope = 'day' AND key BETWEEN ? AND ?",
                )?
                .query_row([&keys.0, &keys.1], |row| today(connection, row, "day", (&keys.0, &keys.1)))
        })
    }

    /// What each model used and earned on each card in a month of local dates (`2026-11`), the most energy first. What
    /// was earned in the host's currency is the caller's to fill in.
    pub fn models(&self, month: &str) -> Reply<Vec<ModelEnergy>> {
        // Of all keys of a month, and of no other: the tab is followed by the line feed.
        let keys = (format!("{month}\t"), format!("{month}\n"));
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT * FROM totals WHERE scope = 'model' AND key >= ? AND key < ?
                 ORDER BY answering DESC, tokens_out DESC, key",
            )?;
            let rows = query.query_map([keys.0, keys.1], |row| model(connection, row))?;
            rows.collect()
        })
    }

    /// What came of one network's requests on one local date; no energy.
    pub fn network_day(&self, network: &str, day: &str) -> Reply<Today> {
        let key = network_key(network, day);
        self.read(move |connection| get(connection, "network", &key))
    }

    /// When the last request of each network came.
    pub fn last_requests(&self) -> Reply<BTreeMap<String, UnixMillis>> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, (SELECT max(received) FROM requests WHERE network = networks.id) AS last
                 FROM networks WHERE last IS NOT NULL",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, UnixMillis(row.get(1)?))))?;
            rows.collect()
        })
    }
}

/// What is added to a sum; negative where a network settled less than the node had counted.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) requests: i64,
    pub(crate) tokens_in: i64,
    pub(crate) tokens_out: i64,
    pub(crate) metered: i64,
    pub(crate) earned: i64,
    pub(crate) split: EnergySplit,
    pub(crate) label: Option<Label>,
    /// Of the energy; `None` where it is not known how far off it may be.
    pub(crate) error: Option<Millijoules>,
    pub(crate) cost: Option<Cost>,
}

impl Change {
    pub(crate) const NONE: Self = Self {
        requests: 0,
        tokens_in: 0,
        tokens_out: 0,
        metered: 0,
        earned: 0,
        split: EnergySplit { answering: Millijoules(0), waiting: Millijoules(0), awake: Millijoules(0) },
        label: None,
        error: Some(Millijoules(0)),
        cost: None,
    };

    /// What a request took in all, and what that cost; `None` where it is not known what it took.
    pub(crate) fn answered(energy: &Energy, cost: Option<Cost>) -> Option<Self> {
        let split = EnergySplit { answering: energy.total_mj?, ..EnergySplit::default() };
        Some(Self { split, label: Some(energy.label), error: energy.error_mj, cost, ..Self::NONE })
    }
}

/// The sums that a request belongs to.
pub(crate) struct Sums {
    pub(crate) network: String,
    pub(crate) day: String,
    pub(crate) session: Option<i64>,
    /// The model and the card, where this node knows the request.
    pub(crate) model: Option<(String, Option<String>)>,
}

impl Sums {
    /// Adds to all of them.
    pub(crate) fn bump(&self, connection: &Connection, change: &Change) -> rusqlite::Result<()> {
        bump(connection, "day", &self.day, change)?;
        bump(connection, "network", &network_key(&self.network, &self.day), change)?;
        if let Some(session) = self.session {
            bump(connection, "session", &session.to_string(), change)?;
        }
        self.bump_model(connection, change)
    }

    /// Adds to the model's alone.
    pub(crate) fn bump_model(&self, connection: &Connection, change: &Change) -> rusqlite::Result<()> {
        let Some((model, gpu)) = &self.model else { return Ok(()) };
        let month = self.day.get(..7).unwrap_or(&self.day);
        let key = format!("{month}\t{}\t{model}", gpu.as_deref().unwrap_or(NO_CARD));
        bump(connection, "model", &key, change)
    }
}

/// In place of a card that is not known.
const NO_CARD: &str = "-";

fn network_key(network: &str, day: &str) -> String {
    format!("{network} {day}")
}

fn bump(connection: &Connection, scope: &str, key: &str, change: &Change) -> rusqlite::Result<()> {
    // Of two labels the weaker holds for the sum.
    connection
        .prepare_cached(
            "INSERT INTO totals (scope, key, requests, tokens_in, tokens_out, earned, answering, waiting, awake, label,
                metered, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (scope, key) DO UPDATE SET
                requests = requests + ?3, tokens_in = tokens_in + ?4, tokens_out = tokens_out + ?5,
                earned = earned + ?6, answering = answering + ?7, waiting = waiting + ?8, awake = awake + ?9,
                label = CASE WHEN label = 'estimated' THEN label ELSE coalesce(?10, label) END,
                metered = metered + ?11, error = error + ?12",
        )?
        .execute(params![
            scope,
            key,
            change.requests,
            change.tokens_in,
            change.tokens_out,
            change.earned,
            change.split.answering.0,
            change.split.waiting.0,
            change.split.awake.0,
            change.label.map(Word),
            change.metered,
            change.error.map(|it| it.0),
        ])?;
    let Some(cost) = &change.cost else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO costs (scope, key, currency, energy, cost) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (scope, key, currency) DO UPDATE SET energy = energy + ?4, cost = cost + ?5",
        )?
        .execute(params![scope, key, cost.currency, all(&change.split).0, cost.nanos])
        .map(|_| ())
}

pub(crate) fn get(connection: &Connection, scope: &str, key: &str) -> rusqlite::Result<Today> {
    connection
        .prepare_cached("SELECT * FROM totals WHERE scope = ? AND key = ?")?
        .query_row([scope, key], |row| today(connection, row, scope, (key, key)))
        .optional()
        .map(Option::unwrap_or_default)
}

fn all(split: &EnergySplit) -> Millijoules {
    split.answering + split.waiting + split.awake
}

/// The totals of a row, with what the energy cost under the keys from the first to the last.
fn today(connection: &Connection, row: &Row<'_>, scope: &str, keys: (&str, &str)) -> rusqlite::Result<Today> {
    let split = EnergySplit {
        answering: Millijoules(row.get("answering")?),
        waiting: Millijoules(row.get("waiting")?),
        awake: Millijoules(row.get("awake")?),
    };
    let label: Option<Word<Label>> = row.get("label")?;
    let energy = label.is_some().then(|| all(&split));
    let (cost, priced) = cost(connection, scope, keys)?.unzip();
    let unpriced = energy.map(|energy| energy - priced.unwrap_or_default());
    Ok(Today {
        requests: row.get("requests")?,
        tokens_in: unsigned(row, "tokens_in")?,
        tokens_out: unsigned(row, "tokens_out")?,
        earned_ucr: MicroCredits(row.get("earned")?),
        energy_mj: energy,
        energy_split: split,
        energy_label: label.map_or(Label::Unknown, |Word(label)| label),
        cost: cost.map(Cost::money),
        unpriced_mj: unpriced.filter(|unpriced| unpriced.0 != 0),
        gross: None,
        net: None,
    })
}

/// What energy cost under these keys, and how much energy that was; in the currency that most of it was paid in.
fn cost(
    connection: &Connection,
    scope: &str,
    (first, last): (&str, &str),
) -> rusqlite::Result<Option<(Cost, Millijoules)>> {
    connection
        .prepare_cached(
            "SELECT currency, sum(energy) AS energy, sum(cost) AS cost FROM costs
             WHERE scope = ? AND key BETWEEN ? AND ? GROUP BY currency ORDER BY energy DESC, currency LIMIT 1",
        )?
        .query_row([scope, first, last], |row| {
            let cost = Cost { nanos: row.get("cost")?, currency: row.get("currency")? };
            Ok((cost, Millijoules(row.get("energy")?)))
        })
        .optional()
}

fn model(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<ModelEnergy> {
    let key: String = row.get("key")?;
    let totals = today(connection, row, "model", (&key, &key))?;
    let mut parts = key.splitn(3, '\t').skip(1);
    let gpu = parts.next().filter(|gpu| *gpu != NO_CARD).map(str::to_owned);
    let metered: i64 = row.get("metered")?;
    let error: Option<i64> = row.get("error")?;
    let a_token = |mj: i64| (metered > 0).then(|| mj.saturating_mul(1000) / metered);
    Ok(ModelEnergy {
        model: parts.next().unwrap_or_default().to_owned(),
        gpu,
        requests: totals.requests,
        tokens_in: totals.tokens_in,
        tokens_out: totals.tokens_out,
        energy_mj: totals.energy_mj,
        uj_per_token: totals.energy_mj.and_then(|it| a_token(it.0)),
        error_uj: error.filter(|_| totals.energy_mj.is_some()).and_then(a_token),
        label: totals.energy_label,
        earned_ucr: totals.earned_ucr,
        cost: totals.cost,
        unpriced_mj: totals.unpriced_mj,
        gross: None,
        net: None,
    })
}

pub(crate) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}
