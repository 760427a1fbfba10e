//! Reports of `idlewatt bench`, as they were measured.

use idlewatt_protocol::bench::BenchReport;
use rusqlite::params;

use crate::column::Json;
use crate::{Reply, Store};

impl Store {
    /// Keeps a report. The same one again is kept twice: each is a measurement.
    pub fn add_bench(&self, report: &BenchReport) -> Reply<()> {
        let (at, report) = (report.started.0, Json(report.clone()));
        self.keep(move |connection| {
            connection
                .prepare_cached("INSERT INTO bench (at, report) VALUES (?, ?)")?
                .execute(params![at, report])
                .map(|_| ())
        })
    }

    /// The last reports, newest first, at most `limit`.
    pub fn benches(&self, limit: u32) -> Reply<Vec<BenchReport>> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("SELECT report FROM bench ORDER BY at DESC, id DESC LIMIT ?")?;
            let rows = query.query_map([limit], |row| row.get(0).map(|Json(report)| report))?;
            rows.collect()
        })
    }
}
