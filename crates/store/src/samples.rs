//! Readings of the cards over time, thinner the older they are.

use std::time::Duration;

use idlewatt_control::Sample;
use idlewatt_protocol::{Milliwatts, UnixMillis};
use rusqlite::{Connection, Row, params};

use crate::{Reply, Store, settings};

/// Most points that one question is answered with.
pub const MAX_POINTS: u32 = 600;

/// Readings older than this are kept as one mean a minute.
const FINE: Duration = Duration::from_secs(24 * 60 * 60);
/// Readings older than this are dropped.
const KEPT: Duration = Duration::from_secs(92 * 24 * 60 * 60);
/// Milliseconds in the mean of an old reading.
const COARSE_MS: i64 = 60_000;
/// Until which moment readings are thinned already.
const THINNED: &str = "store.samples_thinned";

impl Store {
    /// Keeps readings of one moment or several.
    pub fn add_samples(&self, samples: Vec<Sample>) -> Reply<()> {
        self.note(move |connection| insert(connection, samples))
    }

    /// Readings from `since` to `until`, oldest first, thinned to at most [`MAX_POINTS`] over all cards: mean power, the
    /// lowest cap, the highest temperature of each stretch.
    pub fn samples(&self, since: UnixMillis, until: UnixMillis) -> Reply<Vec<Sample>> {
        self.read(move |connection| thinned(connection, since.0, until.0))
    }

    /// Thins what is older than a day to one mean a minute and drops what is older than 92 days. To be called once a
    /// day or so.
    pub fn thin_samples(&self, now: UnixMillis) -> Reply<()> {
        self.note(move |connection| {
            let before = |age: Duration| now.0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            connection.execute("DELETE FROM samples WHERE at < ?", [before(KEPT)])?;
            // Whole minutes only, each once: what was thinned before is left alone.
            let fine = before(FINE) / COARSE_MS * COARSE_MS;
            let done =
                settings::get(connection, THINNED)?.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN);
            let old = means(connection, done, fine - 1, COARSE_MS)?;
            connection.execute("DELETE FROM samples WHERE at >= ? AND at < ?", [done, fine])?;
            insert(connection, old)?;
            settings::set(connection, THINNED, &fine.to_string())
        })
    }
}

fn insert(connection: &Connection, samples: Vec<Sample>) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?)")?;
    for sample in samples {
        insert.execute(params![
            sample.at.0,
            sample.gpu,
            sample.power_mw.map(|it| it.0),
            sample.cap_mw.map(|it| it.0),
            sample.temperature_c,
            sample.running,
        ])?;
    }
    Ok(())
}

pub(crate) fn thinned(connection: &Connection, since: i64, until: i64) -> rusqlite::Result<Vec<Sample>> {
    let (rows, cards): (i64, i64) = connection
        .prepare_cached("SELECT count(*), count(DISTINCT gpu) FROM samples WHERE at BETWEEN ? AND ?")?
        .query_row([since, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if rows <= i64::from(MAX_POINTS) {
        return means(connection, since, until, 1);
    }
    // `since` may be 1970: stretch the buckets over what there is.
    let first: i64 = connection
        .prepare_cached("SELECT min(at) FROM samples WHERE at BETWEEN ? AND ?")?
        .query_row([since, until], |row| row.get(0))?;
    // One bucket less than fit, because the first and the last may both be cut.
    let buckets = (i64::from(MAX_POINTS) / cards.max(1) - 1).max(1);
    means(connection, since, until, (until - first) / buckets + 1)
}

/// One reading per card and stretch of `width` milliseconds, at the stretch's first reading.
fn means(connection: &Connection, since: i64, until: i64, width: i64) -> rusqlite::Result<Vec<Sample>> {
    let mut query = connection.prepare_cached(
        "SELECT min(at) AS at, gpu, CAST(round(avg(power)) AS INTEGER) AS power, min(cap) AS cap,
                max(temperature) AS temperature, max(running) AS running
         FROM samples WHERE at BETWEEN ?1 AND ?2 GROUP BY at / ?3, gpu ORDER BY at, gpu",
    )?;
    query.query_map([since, until, width], sample)?.collect()
}

fn sample(row: &Row<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample {
        at: UnixMillis(row.get("at")?),
        gpu: row.get("gpu")?,
        power_mw: row.get::<_, Option<i64>>("power")?.map(Milliwatts),
        cap_mw: row.get::<_, Option<i64>>("cap")?.map(Milliwatts),
        temperature_c: row.get("temperature")?,
        running: row.get("running")?,
    })
}
