//! `ledger check` on a data folder, whether or not a hub runs on it.

use std::collections::BTreeSet;
use std::path::Path;

use idlewatt_hub_core::ledger::{AccountName, Breach, KeptBalance, ReceiptFigures, check};
use idlewatt_protocol::receipt::{Envelope, ReceiptFile};
use idlewatt_protocol::{Digest, MicroCredits, Nonce, RequestId};
use rusqlite::Connection;
use serde::Serialize;

use super::accounts::limit;
use super::journal::{SqliteJournal, account_at};
use super::schema::setting;
use super::{OpenError, schema};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    let (receipts, due) = receipts(&db, &mut words)?;
    let breaches = check(&mut SqliteJournal(&db), &kept, receipts.iter().cloned())?;
    words.extend(breaches.iter().map(Breach::to_string));
    words.extend(node_numbers(&db, due)?);
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

/// The figures of every receipt that is what it was signed as, and how many nodes they name in all; what is wrong with
/// the others goes into `words`.
fn receipts(db: &Connection, words: &mut Vec<String>) -> rusqlite::Result<(Vec<ReceiptFigures>, usize)> {
    let hub = setting(db, "hub_key")?;
    let mut select = db.prepare("SELECT id, account, envelope, salt FROM receipt ORDER BY seq")?;
    let mut rows = select.query([])?;
    let mut figures = Vec::new();
    let mut due = 0;
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
                figures.push(ReceiptFigures { id, account, cost: receipt.cost, fee: receipt.fee });
            }
        }
        previous = digest;
    }
    Ok((figures, due))
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
