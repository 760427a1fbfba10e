//! The ledger's journal on SQLite. Durable when the transaction around it is committed.

use idlewatt_hub_core::ledger::{AccountName, Credit, Journal, Posting, PostingId, Purpose};
use idlewatt_protocol::{MicroCredits, UnixMillis};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

/// The journal in one database, within the caller's transaction.
pub(super) struct SqliteJournal<'a>(pub(super) &'a Connection);

impl Journal for SqliteJournal<'_> {
    type Error = rusqlite::Error;

    fn append(&mut self, batch: &[Posting]) -> Result<(), Self::Error> {
        let mut head = self.0.prepare_cached(
            "INSERT INTO posting (id, at, purpose, debit, reserved) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut line = self
            .0
            .prepare_cached("INSERT INTO transfer (posting, line, credit, amount) VALUES (?1, ?2, ?3, ?4)")?;
        let mut balance =
            self.0.prepare_cached("UPDATE account SET balance = balance + ?2 WHERE name = ?1")?;
        for Posting { id, at, purpose, from, reserved, credits } in batch {
            let purpose = match purpose {
                Purpose::Request => "request",
                Purpose::Grant => "grant",
            };
            head.execute(params![id.0, at.0, purpose, from.as_str(), reserved.0])?;
            let seq = self.0.last_insert_rowid();
            for (Credit { to, amount }, number) in credits.iter().zip(0i64..) {
                line.execute(params![seq, number, to.as_str(), amount.0])?;
                balance.execute(params![from.as_str(), -amount.0])?;
                balance.execute(params![to.as_str(), amount.0])?;
            }
        }
        Ok(())
    }

    fn replay(&mut self, each: &mut dyn FnMut(Posting)) -> Result<(), Self::Error> {
        let mut select = self.0.prepare(
            "SELECT seq, id, at, purpose, debit, reserved, credit, amount \
             FROM posting LEFT JOIN transfer ON posting = seq ORDER BY seq, line",
        )?;
        let mut rows = select.query([])?;
        let mut current: Option<(i64, Posting)> = None;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if current.as_ref().is_none_or(|(now, _)| *now != seq)
                && let Some((_, whole)) = current.replace((seq, head_of(row)?))
            {
                each(whole);
            }
            if let (Some((_, posting)), Some(amount)) = (&mut current, row.get::<_, Option<i64>>(7)?) {
                posting.credits.push(Credit { to: account_at(row, 6)?, amount: MicroCredits(amount) });
            }
        }
        if let Some((_, whole)) = current {
            each(whole);
        }
        Ok(())
    }
}

fn head_of(row: &Row<'_>) -> rusqlite::Result<Posting> {
    let purpose = match row.get_ref(3)?.as_str()? {
        "request" => Purpose::Request,
        _ => Purpose::Grant,
    };
    Ok(Posting {
        id: PostingId(row.get(1)?),
        at: UnixMillis(row.get(2)?),
        purpose,
        from: account_at(row, 4)?,
        reserved: MicroCredits(row.get(5)?),
        credits: Vec::new(),
    })
}

/// Reads an account's name.
pub(super) fn account_at(row: &Row<'_>, column: usize) -> rusqlite::Result<AccountName> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Reads an account's name where there is one.
pub(super) fn maybe_account_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<AccountName>> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(_) => account_at(row, column).map(Some),
        None => Ok(None),
    }
}
