//! The times the GPU was given back.

use idlewatt_control::Yield;
use rusqlite::params;

use crate::column::Json;
use crate::{Reply, Store};

/// The newest that are kept.
const KEPT: u32 = 1000;

impl Store {
    /// Keeps a yield; the same one, by the moment at which it was seen, as it is now.
    pub fn put_yield(&self, given_back: Yield) -> Reply<()> {
        let seen = given_back.seen.0;
        self.note(move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO yields (seen, yield) VALUES (?, ?)")?
                .execute(params![seen, Json(given_back)])?;
            connection
                .prepare_cached(
                    "DELETE FROM yields WHERE seen <= (SELECT seen FROM yields ORDER BY seen DESC LIMIT 1 OFFSET ?)",
                )?
                .execute([KEPT])
                .map(|_| ())
        })
    }

    /// The last yields, newest first, at most `limit`.
    pub fn yields(&self, limit: u32) -> Reply<Vec<Yield>> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("SELECT yield FROM yields ORDER BY seen DESC LIMIT ?")?;
            let rows = query.query_map([limit], |row| row.get(0).map(|Json(it)| it))?;
            rows.collect()
        })
    }
}
