//! Sums by day, by session and by network and day, bumped in the transaction of what they add up.

use std::collections::BTreeMap;

use idlewatt_control::{EnergySplit, Today};
use idlewatt_protocol::{Label, MicroCredits, Millijoules, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::column::Word;
use crate::{Reply, SessionId, Store};

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
}

impl Store {
    /// Adds energy to its day and session.
    pub fn add_energy(&self, interval: EnergyInterval) -> Reply<()> {
        self.note(move |connection| {
            if interval.label == Label::Unknown {
                return Ok(());
            }
            let change = Change { split: interval.split, label: Some(interval.label), ..Change::default() };
            bump(connection, "day", &interval.day, &change)?;
            match interval.session {
                Some(session) => bump(connection, "session", &session.0.to_string(), &change),
                None => Ok(()),
            }
        })
    }

    /// Totals of one local date (`2026-11-21`). Money in the host's currency is the tariff's to fill in.
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
            let rows = query.query_map(params![through, count], |row| Ok((row.get("key")?, today(row)?)))?;
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
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) requests: i64,
    pub(crate) tokens_in: i64,
    pub(crate) tokens_out: i64,
    pub(crate) earned: i64,
    pub(crate) split: EnergySplit,
    pub(crate) label: Option<Label>,
}

/// Adds to every sum that a request belongs to.
pub(crate) fn bump_request(
    connection: &Connection,
    network: &str,
    day: &str,
    session: Option<i64>,
    change: &Change,
) -> rusqlite::Result<()> {
    bump(connection, "day", day, change)?;
    bump(connection, "network", &network_key(network, day), change)?;
    session.map_or(Ok(()), |session| bump(connection, "session", &session.to_string(), change))
}

fn network_key(network: &str, day: &str) -> String {
    format!("{network} {day}")
}

fn bump(connection: &Connection, scope: &str, key: &str, change: &Change) -> rusqlite::Result<()> {
    // Of two labels the weaker holds for the sum.
    connection
        .prepare_cached(
            "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (scope, key) DO UPDATE SET
                requests = requests + ?3, tokens_in = tokens_in + ?4, tokens_out = tokens_out + ?5,
                earned = earned + ?6, answering = answering + ?7, waiting = waiting + ?8, awake = awake + ?9,
                label = CASE WHEN label = 'estimated' THEN label ELSE coalesce(?10, label) END",
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
        ])
        .map(|_| ())
}

pub(crate) fn get(connection: &Connection, scope: &str, key: &str) -> rusqlite::Result<Today> {
    connection
        .prepare_cached("SELECT * FROM totals WHERE scope = ? AND key = ?")?
        .query_row([scope, key], today)
        .optional()
        .map(Option::unwrap_or_default)
}

fn today(row: &Row<'_>) -> rusqlite::Result<Today> {
    let split = EnergySplit {
        answering: Millijoules(row.get("answering")?),
        waiting: Millijoules(row.get("waiting")?),
        awake: Millijoules(row.get("awake")?),
    };
    let label: Option<Word<Label>> = row.get("label")?;
    Ok(Today {
        requests: row.get("requests")?,
        tokens_in: unsigned(row, "tokens_in")?,
        tokens_out: unsigned(row, "tokens_out")?,
        earned_ucr: MicroCredits(row.get("earned")?),
        energy_mj: label.is_some().then_some(split.answering + split.waiting + split.awake),
        energy_split: split,
        energy_label: label.map_or(Label::Unknown, |Word(label)| label),
        cost: None,
        gross: None,
        net: None,
    })
}

pub(crate) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}
