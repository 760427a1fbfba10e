//! `ledger check` on a data folder, whether or not a hub runs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use idlewatt_hub_core::ledger::{
    AccountName, Breach, Journal, KeptBalance, Month, ReceiptFigures, Tallies, check,
};
use idlewatt_protocol::receipt::{Envelope, ReceiptFile};
use idlewatt_protocol::{Digest, MicroCredits, Nonce, RequestId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::accounts::limit;
use super::journal::{SqliteJournal, account_at};
use super::schema::setting;
use super::{OpenError, audit, months, schema, settle};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Accounts.
    pub accounts: usize,
    /// Postings.
    pub postings: u64,
    /// Receipts.
    pub receipts: u64,
    /// Every breach, in words.
    pub breaches: Vec<String>,
}

/// Rebuilds every balance from the transfers and checks every invariant, every receipt's signatures and their chain, all
/// in one consistent view.
///
/// # Errors
/// When the folder holds no hub, or its database cannot be read.
pub fn check_folder(folder: &Path) -> Result<Checked, OpenError> {
    let mut db = schema::open_to_read(folder)?;
    look(&mut db).map_err(|error| OpenError::sqlite(folder, &error))
}

fn look(db: &mut Connection) -> rusqlite::Result<Checked> {
    let db = db.transaction()?;
    let kept = kept_balances(&db)?;
    let mut words = Vec::new();
    let (receipts, due, answered) = receipts(&db, &mut words)?;
    let breaches = check(&mut SqliteJournal(&db), &kept, receipts.iter().cloned())?;
    words.extend(breaches.iter().map(Breach::to_string));
    words.extend(node_numbers(&db, due)?);
    if schema::is_current(&db)? {
        words.extend(months_hold(&db, &answered)?);
        words.extend(circles_hold(&db)?);
        words.extend(audit::check(&db)?);
    }
    let postings: i64 = db.query_row("SELECT count(*) FROM posting", [], |row| row.get(0))?;
    Ok(Checked {
        ok: words.is_empty(),
        accounts: kept.len(),
        postings: postings.unsigned_abs(),
        receipts: receipts.len() as u64,
        breaches: words,
    })
}

fn kept_balances(db: &Connection) -> rusqlite::Result<Vec<KeptBalance>> {
    let mut select = db.prepare("SELECT name, overdraft, balance FROM account ORDER BY name")?;
    let rows = select.query_map([], |row| {
        Ok(KeptBalance {
            account: account_at(row, 0)?,
            limit: limit(row.get(1)?),
            balance: MicroCredits(row.get(2)?),
        })
    })?;
    rows.collect()
}

/// Requests and tokens by consumer and month, as receipts have them.
type Answered = BTreeMap<(AccountName, Month), (i64, i64)>;

/// The figures of every receipt that is what it was signed as, how many nodes they name in all, and what they add up to;
/// what is wrong with the others goes into `words`.
fn receipts(
    db: &Connection,
    words: &mut Vec<String>,
) -> rusqlite::Result<(Vec<ReceiptFigures>, usize, Answered)> {
    let hub = setting(db, "hub_key")?;
    let mut select = db.prepare("SELECT id, account, envelope, salt FROM receipt ORDER BY seq")?;
    let mut rows = select.query([])?;
    let mut figures = Vec::new();
    let mut due = 0;
    let mut answered = Answered::new();
    let mut previous: Option<Digest> = None;
    while let Some(row) = rows.next()? {
        let id = RequestId(row.get(0)?);
        let account: AccountName = account_at(row, 1)?;
        let Ok(envelope) = serde_json::from_str::<Envelope>(row.get_ref(2)?.as_str()?) else {
            words.push(format!("the receipt of {id} cannot be read"));
            previous = None;
            continue;
        };
        let digest = envelope.payload_digest();
        let file = ReceiptFile { receipt: envelope, salt: Some(Nonce(row.get(3)?)) };
        match file.verify() {
            Err(error) => words.push(format!("the receipt of {id} does not hold: {error}")),
            Ok(verified) => {
                let receipt = verified.receipt;
                if receipt.id != id {
                    words.push(format!("the receipt kept for {id} is of {}", receipt.id));
                }
                if Some(receipt.hub.to_string()) != hub {
                    words.push(format!("the receipt of {id} is signed by another hub"));
                }
                if receipt.previous != previous {
                    words.push(format!(
                        "the receipt of {id} does not follow the one before it: one was taken out or put in"
                    ));
                }
                due += receipt.segments.iter().map(|segment| segment.node).collect::<BTreeSet<_>>().len();
                let sums = answered.entry((account.clone(), Month::of(receipt.issued))).or_default();
                *sums = (sums.0 + 1, sums.1 + i64::from(settle::tokens(&receipt)));
                figures.push(ReceiptFigures { id, account, cost: receipt.cost, fee: receipt.fee });
            }
        }
        previous = digest;
    }
    Ok((figures, due, answered))
}

/// The months of accounts are what their postings and receipts add up to, and no key spent more than its account.
fn months_hold(db: &Connection, answered: &Answered) -> rusqlite::Result<Vec<String>> {
    let mut posted = Tallies::default();
    SqliteJournal(db).replay(&mut |posting| posted.post(&posting))?;
    for (account, month) in answered.keys() {
        posted.of(account, *month);
    }
    let mut kept = Tallies::default();
    let mut given: BTreeMap<Month, i64> = BTreeMap::new();
    for (account, month, tally) in months::all(db)? {
        *kept.of(&account, month) = tally;
        posted.of(&account, month);
        let balance = tally.given_in + tally.given_out - tally.taken_in - tally.taken_out;
        *given.entry(month).or_default() += balance;
    }
    let mut words = Vec::new();
    for (account, month, rebuilt) in posted.iter() {
        let kept = *kept.of(account, month);
        let (requests, tokens) = answered.get(&(account.clone(), month)).copied().unwrap_or_default();
        let pairs = [
            ("paid", kept.paid_ucr.0, rebuilt.paid_ucr.0),
            ("earned", kept.earned_ucr.0, rebuilt.earned_ucr.0),
            ("was granted", kept.granted_ucr.0, rebuilt.granted_ucr.0),
            ("asked, in requests,", kept.requests, requests),
            ("was answered, in tokens,", kept.taken_in + kept.taken_out + kept.own_tokens, tokens),
        ];
        for (what, kept, rebuilt) in pairs.into_iter().filter(|(_, kept, rebuilt)| kept != rebuilt) {
            words
                .push(format!("what {account} {what} in {month} is kept as {kept} and adds up to {rebuilt}"));
        }
        if kept.measured_out > kept.given_out {
            words.push(format!("{account} has more tokens measured than given in {month}"));
        }
    }
    for (month, balance) in given.into_iter().filter(|(_, balance)| *balance != 0) {
        words.push(format!("the tokens given and taken in {month} differ by {balance}"));
    }
    let mut select = db.prepare(
        "SELECT account, day, sum(spent) FROM allowance_day
         JOIN (SELECT DISTINCT allowance, account FROM api_key) USING (allowance) GROUP BY account, day
         HAVING sum(spent) > (SELECT coalesce(sum(amount), 0) FROM posting JOIN transfer ON posting = seq
             WHERE purpose = 'request' AND debit = account AND at / 86400000 = day)",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let account = account_at(row, 0)?;
        words.push(format!(
            "the keys of {account} spent more on day {} than the account",
            row.get::<_, i64>(1)?
        ));
    }
    Ok(words)
}

/// Who is in no group owes nobody.
fn circles_hold(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare("SELECT name FROM account WHERE circle IS NULL AND overdraft > 0")?;
    let names = select.query_map([], |row| account_at(row, 0))?;
    names.map(|name| Ok(format!("{} may owe and is in no group", name?))).collect()
}

/// Every receipt's nodes are told of it, under numbers up to the node's last. `due` are the nodes of all receipts.
fn node_numbers(db: &Connection, due: usize) -> rusqlite::Result<Vec<String>> {
    let mut words = Vec::new();
    let late: i64 = db.query_row(
        "SELECT count(*) FROM node_posting JOIN node ON node = key WHERE seq > posted_seq",
        [],
        |row| row.get(0),
    )?;
    if late > 0 {
        words.push(format!("{late} postings to nodes have numbers past their node's last"));
    }
    let told: i64 = db.query_row("SELECT count(*) FROM node_posting", [], |row| row.get(0))?;
    if usize::try_from(told) != Ok(due) {
        words.push(format!(
            "the nodes of all receipts are to be told of {due} postings and are told of {told}"
        ));
    }
    Ok(words)
}
