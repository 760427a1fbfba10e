//! What the node was doing when, and in which hours it was allowed to share.

use idlewatt_control::State;
use idlewatt_protocol::{PauseCode, UnixMillis};
use rusqlite::params;

use crate::column::Word;
use crate::{Reply, Store};

/// The newest stretches that are kept: years of them.
const KEPT: u32 = 100_000;

/// A stretch of time in which the node did one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRow {
    /// Its beginning.
    pub since: UnixMillis,
    /// The last moment of which it is known.
    pub until: UnixMillis,
    /// What the node did.
    pub state: State,
    /// Why it was paused, where it was.
    pub code: Option<PauseCode>,
}

/// The hours in which sharing was allowed, from a moment on, as settings write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoursRow {
    /// That moment.
    pub since: UnixMillis,
    /// The week.
    pub windows: String,
    /// What is different.
    pub exceptions: String,
}

impl Store {
    /// Another stretch begins. It is the newest from now on, also where the clock was set back.
    pub fn begin_span(&self, span: SpanRow) -> Reply<()> {
        self.note(move |connection| {
            connection
                .prepare_cached("INSERT INTO spans (since, until, state, code) VALUES (?, ?, ?, ?)")?
                .execute(params![span.since.0, span.until.0, Word(span.state), span.code.map(Word)])?;
            connection
                .prepare_cached("DELETE FROM spans WHERE id <= (SELECT max(id) FROM spans) - ?")?
                .execute([KEPT])
                .map(|_| ())
        })
    }

    /// The newest stretch is known to have gone on until this moment.
    pub fn extend_span(&self, until: UnixMillis) -> Reply<()> {
        self.note(move |connection| {
            connection
                .prepare_cached("UPDATE spans SET until = ? WHERE id = (SELECT max(id) FROM spans)")?
                .execute([until.0])
                .map(|_| ())
        })
    }

    /// Stretches that ended after this moment, in the order in which they were written.
    pub fn spans(&self, after: UnixMillis) -> Reply<Vec<SpanRow>> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT * FROM spans WHERE until > ? ORDER BY id")?;
            let rows = query.query_map([after.0], |row| {
                Ok(SpanRow {
                    since: UnixMillis(row.get("since")?),
                    until: UnixMillis(row.get("until")?),
                    state: row.get("state").map(|Word(state)| state)?,
                    code: row.get::<_, Option<Word<PauseCode>>>("code")?.map(|Word(code)| code),
                })
            })?;
            rows.collect()
        })
    }

    /// Sharing is allowed in these hours from now on.
    pub fn put_hours(&self, hours: HoursRow) -> Reply<()> {
        self.note(move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO hours (since, windows, exceptions) VALUES (?, ?, ?)")?
                .execute(params![hours.since.0, hours.windows, hours.exceptions])
                .map(|_| ())
        })
    }

    /// All hours in which sharing was ever allowed, by their beginnings.
    pub fn allowed_hours(&self) -> Reply<Vec<HoursRow>> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT * FROM hours ORDER BY since")?;
            let rows = query.query_map([], |row| {
                Ok(HoursRow {
                    since: UnixMillis(row.get("since")?),
                    windows: row.get("windows")?,
                    exceptions: row.get("exceptions")?,
                })
            })?;
            rows.collect()
        })
    }
}
