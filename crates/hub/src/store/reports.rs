//! Bench reports that nodes published: kept as they were signed, so that anyone can check them.

use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use idlewatt_protocol::bench::BenchReport;
use idlewatt_protocol::receipt::Envelope;
use idlewatt_protocol::{Digest, PublicKey, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};

use super::writer::{Writer, now};
use super::{Store, StoreError};

/// One node publishes at most so many: a table is filled by many hosts, not by one.
pub const MAX_REPORTS: u32 = 1000;

/// So many of the newest are shown: all of most hubs.
const SHOWN: u32 = 5000;

/// A report as it was kept.
#[derive(Clone, Debug)]
pub struct KeptReport {
    /// Of signer and payload: the same report is kept once.
    pub id: Digest,
    /// When it came.
    pub received: UnixMillis,
    /// Who signed it.
    pub signer: PublicKey,
    /// What it says.
    pub report: BenchReport,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is new.
    New,
    /// It was kept before.
    Known,
    /// Its node has [`MAX_REPORTS`] here already.
    TooMany,
}

impl Store {
    /// Keeps a report whose signature was checked and whose signer is a node of this hub.
    ///
    /// # Errors
    /// When it could not be kept.
    pub async fn keep_report(&self, envelope: Envelope) -> Result<(Digest, Keeping), StoreError> {
        let id = id_of(&envelope)?;
        let kept = self.run(move |writer| writer.keep_report(id, &envelope)).await?;
        Ok((id, kept))
    }

    /// The newest reports, newest first. From memory after the first time: anyone may ask, and the ledger has one writer.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn reports(&self) -> Result<Arc<[KeptReport]>, StoreError> {
        let shown = &self.0.state.reports;
        let (known, age) = shown.get();
        if let Some(known) = known {
            return Ok(known);
        }
        let rows = self.run(|writer| newest(&writer.db)).await?;
        // A report that this version cannot read is of a newer one, and stays where it is.
        let reports = move || rows.into_iter().filter_map(read).collect();
        let reports: Arc<[KeptReport]> =
            tokio::task::spawn_blocking(reports).await.map_err(|_| StoreError::Closed)?;
        shown.put(Arc::clone(&reports), age);
        Ok(reports)
    }

    /// A report's envelope.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn report(&self, id: Digest) -> Result<Option<Envelope>, StoreError> {
        let find = "SELECT envelope FROM bench_report WHERE id = ?1";
        let text: Option<String> = self
            .run(move |writer| Ok(writer.db.query_row(find, [id.0], |row| row.get(0)).optional()?))
            .await?;
        text.map(|text| serde_json::from_str(&text).map_err(|_| StoreError::Unreadable("a report")))
            .transpose()
    }
}

/// What is shown, until another report is kept.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<(Option<Arc<[KeptReport]>>, u64)>);

impl Shown {
    /// What is known, and how many reports came since the start.
    fn get(&self) -> (Option<Arc<[KeptReport]>>, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was read, unless a report came meanwhile.
    fn put(&self, reports: Arc<[KeptReport]>, age: u64) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.1 == age {
            shown.0 = Some(reports);
        }
    }

    fn forget(&self) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = (None, shown.1 + 1);
    }
}

impl Writer {
    fn keep_report(&mut self, id: Digest, envelope: &Envelope) -> Result<Keeping, StoreError> {
        let text = serde_json::to_string(envelope).map_err(|_| StoreError::Unreadable("a report"))?;
        let (node, tx) = (envelope.keyid, self.db.transaction()?);
        let known = tx
            .query_row("SELECT 1 FROM bench_report WHERE id = ?1", [id.0], |_| Ok(()))
            .optional()?
            .is_some();
        let count: u32 =
            tx.query_row("SELECT count(*) FROM bench_report WHERE node = ?1", [node.0], |row| row.get(0))?;
        if known {
            return Ok(Keeping::Known);
        }
        if count >= MAX_REPORTS {
            return Ok(Keeping::TooMany);
        }
        tx.execute(
            "INSERT INTO bench_report (id, node, received, envelope) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, node.0, now().0, text],
        )?;
        tx.commit()?;
        self.state.reports.forget();
        Ok(Keeping::New)
    }
}

fn id_of(envelope: &Envelope) -> Result<Digest, StoreError> {
    let payload = BASE64.decode(envelope.payload.as_bytes());
    let payload = payload.map_err(|_| StoreError::Unreadable("a report"))?;
    Ok(Digest::of_parts(&[&envelope.keyid.0, &payload]))
}

type Row = ([u8; 32], i64, String);

fn newest(db: &Connection) -> Result<Vec<Row>, StoreError> {
    let mut select =
        db.prepare_cached("SELECT id, received, envelope FROM bench_report ORDER BY seq DESC LIMIT ?1")?;
    let rows = select.query_map([SHOWN], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Its signature was checked before it was kept.
fn read((id, received, envelope): Row) -> Option<KeptReport> {
    let envelope: Envelope = serde_json::from_str(&envelope).ok()?;
    let report = serde_json::from_slice(&BASE64.decode(envelope.payload.as_bytes()).ok()?).ok()?;
    Some(KeptReport { id: Digest(id), received: UnixMillis(received), signer: envelope.keyid, report })
}
