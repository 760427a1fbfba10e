//! Stretches of sharing: from the moment the node begins to take work until a reason ends it.

use std::sync::atomic::Ordering;

use idlewatt_control::{Reason, Session};
use idlewatt_protocol::{Milliwatts, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};

use crate::column::Json;
use crate::{Reply, Store, totals};

/// The number of one stretch of sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl Store {
    /// Sharing begins. Its number is there at once, so that whatever follows counts for it.
    pub fn start_session(&self, started: UnixMillis) -> (SessionId, Reply<()>) {
        let id = SessionId(self.newest_session.fetch_add(1, Ordering::Relaxed) + 1);
        let kept = self.note(move |connection| {
            connection
                .execute("INSERT INTO sessions (id, started) VALUES (?, ?)", [id.0, started.0])
                .map(|_| ())
        });
        (id, kept)
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

/// The highest number given so far; 0 before the first.
pub(crate) fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM sessions", [], |row| row.get(0))
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
