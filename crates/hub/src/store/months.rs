//! Months of accounts and days of keys: kept beside the postings that they sum up, and told as statements.

use std::collections::BTreeMap;

use idlewatt_hub_core::ledger::{AccountName, Month, Statement, Tallies, Tally};
use idlewatt_protocol::MicroCredits;
use idlewatt_protocol::units::MAX_SAFE_INTEGER;
use rusqlite::{Connection, Row, params};

use super::journal::{account_at, maybe_account_at};
use super::{Store, StoreError};

/// What a key did on one day.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Day {
    pub(super) requests: i64,
    pub(super) tokens: i64,
    pub(super) spent: MicroCredits,
}

/// By allowance and day.
pub(super) type Days = BTreeMap<(i64, i64), Day>;

impl Store {
    /// What one account, or each but `issuance`, gave and took in a month.
    ///
    /// # Errors
    /// When there is no such account, or the database cannot be read.
    pub async fn statements(
        &self,
        account: Option<AccountName>,
        month: Month,
    ) -> Result<Vec<Statement>, StoreError> {
        self.run(move |writer| {
            if let Some(account) = &account {
                writer.must_exist(account)?;
            }
            Ok(statements(&writer.db, account.as_ref(), month)?)
        })
        .await
    }
}

/// Adds sums to the months that are kept. Energy alone is the nodes' own word: it stops at the greatest number that JSON
/// carries, where a sum past 64 bits would be a fraction and refused, with everything that is written beside it.
pub(super) fn add(db: &Connection, tallies: &Tallies) -> rusqlite::Result<()> {
    let mut add = db.prepare_cached(&format!(
        "INSERT INTO account_month VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
             min(?9, {MAX_SAFE_INTEGER}), ?10, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET requests = requests + ?3, taken_in = taken_in + ?4, taken_out = taken_out + ?5,
             own_tokens = own_tokens + ?6, given_in = given_in + ?7, given_out = given_out + ?8,
             measured_mj = min(measured_mj + ?9, {MAX_SAFE_INTEGER}),
             measured_out = measured_out + ?10, paid = paid + ?11, earned = earned + ?12, granted = granted + ?13",
    ))?;
    for (account, month, tally) in tallies.iter() {
        add.raw_bind_parameter(1, account.as_str())?;
        add.raw_bind_parameter(2, month.to_string())?;
        for ((_, sum), column) in tally.sums().into_iter().zip(3..) {
            add.raw_bind_parameter(column, sum)?;
        }
        add.raw_execute()?;
    }
    Ok(())
}

/// Adds to the days that are kept.
pub(super) fn add_days(db: &Connection, days: &Days) -> rusqlite::Result<()> {
    let mut add = db.prepare_cached(
        "INSERT INTO allowance_day VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET requests = requests + ?3, tokens = tokens + ?4, spent = spent + ?5",
    )?;
    for ((allowance, day), it) in days {
        add.execute(params![allowance, day, it.requests, it.tokens, it.spent.0])?;
    }
    Ok(())
}

/// Every month that is kept.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<(AccountName, Month, Tally)>> {
    let mut select = db.prepare("SELECT * FROM account_month ORDER BY account, month")?;
    let rows = select.query_map([], |row| Ok((account_at(row, 0)?, month_at(row, 1)?, tally_at(row, 2)?)))?;
    rows.collect()
}

fn statements(
    db: &Connection,
    account: Option<&AccountName>,
    month: Month,
) -> rusqlite::Result<Vec<Statement>> {
    let issuance =
        db.query_row("SELECT balance FROM account WHERE name = 'issuance'", [], |row| row.get(0))?;
    let month_text = month.to_string();
    let mut before = db.prepare_cached(
        "SELECT coalesce(sum(earned + granted - paid), 0) FROM account_month WHERE account = ?1 AND month < ?2",
    )?;
    let mut within = db.prepare_cached("SELECT * FROM account_month WHERE account = ?1 AND month = ?2")?;
    let mut select = db.prepare_cached(
        "SELECT name, circle FROM account WHERE name = coalesce(?1, name) AND (?1 IS NOT NULL OR name != 'issuance') \
         ORDER BY name",
    )?;
    let mut rows = select.query([account.map(AccountName::as_str)])?;
    let mut statements = Vec::new();
    while let Some(row) = rows.next()? {
        let account = account_at(row, 0)?;
        let keys = params![account.as_str(), month_text];
        let opening_ucr = MicroCredits(before.query_row(keys, |row| row.get(0))?);
        let tally = within.query_map(keys, |row| tally_at(row, 2))?.next().transpose()?.unwrap_or_default();
        statements.push(Statement {
            group: maybe_account_at(row, 1)?,
            month,
            opening_ucr,
            tally,
            closing_ucr: opening_ucr.saturating_add(tally.net()),
            issuance_ucr: MicroCredits(issuance),
            account,
        });
    }
    Ok(statements)
}

fn month_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Month> {
    row.get_ref(column)?.as_str()?.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn tally_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Tally> {
    let mut sums = [0; 11];
    for (sum, column) in sums.iter_mut().zip(first..) {
        *sum = row.get(column)?;
    }
    Ok(Tally::of_sums(sums))
}
