//! Every transfer, for whoever keeps books elsewhere.

use std::io::Write;
use std::path::Path;

use idlewatt_hub_core::ledger::{AccountName, Journal, Month, Posting, Purpose};
use serde_json::json;

use super::journal::SqliteJournal;
use super::{OpenError, schema};

/// Which transfers, and how.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those from or to this account; all without one.
    pub account: Option<AccountName>,
    /// Those of this month, UTC; all without one.
    pub month: Option<Month>,
    /// One JSON object a line rather than CSV.
    pub json: bool,
}

/// Writes the transfers of a data folder, oldest first, whether or not a hub runs on it. Names need no quotes; times are
/// milliseconds since 1970, amounts micro-credits.
///
/// # Errors
/// When the folder holds no hub, cannot be read, or `to` takes no more.
pub fn export(folder: &Path, wanted: &Wanted, to: &mut impl Write) -> Result<(), ExportError> {
    let mut db = schema::open_to_read(folder)?;
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(folder, &error);
    // One view of it, whatever is posted meanwhile.
    let tx = db.transaction().map_err(sqlite)?;
    let mut written =
        if wanted.json { Ok(()) } else { writeln!(to, "at,posting,purpose,from,to,amount_ucr") };
    SqliteJournal(&tx)
        .replay(&mut |posting| {
            if written.is_ok() {
                written = write(&posting, wanted, to);
            }
        })
        .map_err(sqlite)?;
    written.and_then(|()| to.flush())?;
    Ok(())
}

fn write(posting: &Posting, wanted: &Wanted, to: &mut impl Write) -> std::io::Result<()> {
    let Posting { id, at, purpose, from, credits, .. } = posting;
    if wanted.month.is_some_and(|month| month != Month::of(*at)) {
        return Ok(());
    }
    let purpose = match purpose {
        Purpose::Request => "request",
        Purpose::Grant => "grant",
    };
    let is_wanted = |to: &AccountName| wanted.account.as_ref().is_none_or(|it| it == from || it == to);
    for credit in credits.iter().filter(|credit| is_wanted(&credit.to)) {
        if wanted.json {
            let line = json!({
                "at": at, "posting": id.to_string(), "purpose": purpose, "from": from, "to": credit.to,
                "amount_ucr": credit.amount,
            });
            writeln!(to, "{line}")?;
        } else {
            writeln!(to, "{},{id},{purpose},{from},{},{}", at.0, credit.to, credit.amount.0)?;
        }
    }
    Ok(())
}

/// Why nothing, or not all, was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The data folder cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was to take it took no more.
    #[error("not all of it was written: {0}")]
    Write(#[from] std::io::Error),
}
