//! Stretches of sharing: from the moment the node begins to take work until a reason ends it.

use idlewatt_control::{Reason, Session};
use idlewatt_protocol::{Milliwatts, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};

use crate::column::Json;
use crate::{Reply, Store, totals};

/// The number of one stretch of sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl Store {
    /// Sharing begins.
    pub fn start_session(&self, started: UnixMillis) -> Reply<SessionId> {
        self.note(move |connection| {
            connection.execute("INSERT INTO sessions (started) VALUES (?)", [started.0])?;
            Ok(SessionId(connection.last_insert_rowid()))
        })
    }

    /// Sharing ends. `peak` is the highest power over ten seconds, `cap` the cap then, both over all cards.
    pub fn end_session(
        &self,
        id: SessionId,
        ended: UnixMillis,
        reason: Reason,
        peak: Option<Milliwatts>,
        cap: Option<Milliwatts>,
    ) -> Reply<()> {
        self.note(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE sessions SET ended = ?2, reason = ?3, peak = ?4, cap = ?5 WHERE id = ?1",
                )?
                .execute(params![id.0, ended.0, Json(reason), peak.map(|it| it.0), cap.map(|it| it.0)])
                .map(|_| ())
        })
    }

    /// The newest session, also while it goes on; `None` before the first.
    pub fn last_session(&self) -> Reply<Option<Session>> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT * FROM sessions ORDER BY id DESC LIMIT 1")?;
            let found = query
                .query_row([], |row| {
                    let id: i64 = row.get("id")?;
                    let reason: Option<Json<Reason>> = row.get("reason")?;
                    Ok(Session {
                        started: UnixMillis(row.get("started")?),
                        ended: row.get::<_, Option<i64>>("ended")?.map(UnixMillis),
                        ended_by: reason.map(|Json(reason)| reason),
                        totals: totals::get(connection, "session", &id.to_string())?,
                        peak_10s_mw: row.get::<_, Option<i64>>("peak")?.map(Milliwatts),
                        cap_mw: row.get::<_, Option<i64>>("cap")?.map(Milliwatts),
                    })
                })
                .optional()?;
            Ok(found)
        })
    }
}

/// A killed process told no end: the last thing that is known of its session stands for it.
pub(crate) fn close_lost(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE sessions SET ended = max(
                started,
                coalesce((SELECT max(at) FROM samples), 0),
                coalesce((SELECT max(coalesce(ended, received)) FROM requests WHERE received >= sessions.started), 0))
             WHERE ended IS NULL",
            [],
        )
        .map(|_| ())
}
