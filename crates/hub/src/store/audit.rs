//! What operators did: each act is written down before it is done.
//!
//! Entries are numbered, and each one's digest covers the one before: one that was changed, or taken out from between
//! others, is found ([`check`]). The digest has no key, so who can write the file can cut off the newest entries, or write
//! all of them anew, unseen. It is a record for honest operators, not proof against a dishonest one.

use idlewatt_protocol::{Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::writer::{Writer, now};
use super::{Store, StoreError};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Its number, from 1.
    pub seq: i64,
    /// When.
    pub at: UnixMillis,
    /// Who, and which way.
    pub actor: String,
    /// The command; or `refused`, the number of the entry that was not done, and why.
    pub act: Value,
}

impl Store {
    /// Writes an act down. Gives the number of the entry.
    ///
    /// # Errors
    /// When it could not be kept: then it must not be done.
    pub async fn audit(&self, actor: String, act: Value) -> Result<i64, StoreError> {
        self.run(move |writer| Ok(writer.audit(&actor, &act)?)).await
    }

    /// The newest entries, the oldest of them first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn audited(&self, most: u32) -> Result<Vec<Audited>, StoreError> {
        self.run(move |writer| newest(&writer.db, most)).await
    }
}

impl Writer {
    fn audit(&mut self, actor: &str, act: &Value) -> rusqlite::Result<i64> {
        let (at, act) = (now(), act.to_string());
        let before: Option<[u8; 32]> = self
            .db
            .query_row("SELECT chain FROM audit ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()?;
        let chain = link(before.unwrap_or_default(), at, actor, &act);
        self.db.execute(
            "INSERT INTO audit (at, actor, act, chain) VALUES (?1, ?2, ?3, ?4)",
            params![at.0, actor, act, chain.0],
        )?;
        Ok(self.db.last_insert_rowid())
    }
}

fn link(before: [u8; 32], at: UnixMillis, actor: &str, act: &str) -> Digest {
    let length = u64::try_from(actor.len()).unwrap_or(u64::MAX).to_be_bytes();
    Digest::of_parts(&[&before, &at.0.to_be_bytes(), &length, actor.as_bytes(), act.as_bytes()])
}

fn newest(db: &Connection, most: u32) -> Result<Vec<Audited>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT seq, at, actor, act FROM (SELECT * FROM audit ORDER BY seq DESC LIMIT ?1) ORDER BY seq",
    )?;
    let mut rows = select.query([most])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let act: String = row.get(3)?;
        entries.push(Audited {
            seq: row.get(0)?,
            at: UnixMillis(row.get(1)?),
            actor: row.get(2)?,
            act: serde_json::from_str(&act).map_err(|_| StoreError::Unreadable("an audit entry"))?,
        });
    }
    Ok(entries)
}

/// What is wrong with the chain, and how many entries it has.
pub(super) fn check(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare("SELECT seq, at, actor, act, chain FROM audit ORDER BY seq")?;
    let mut rows = select.query([])?;
    let (mut words, mut before, mut last) = (Vec::new(), [0; 32], 0i64);
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let chain: [u8; 32] = row.get(4)?;
        let (actor, act) = (row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?);
        if seq != last + 1 || link(before, UnixMillis(row.get(1)?), actor, act).0 != chain {
            words.push(format!("entry {seq} of the audit log was changed, or one before it was taken out"));
        }
        (before, last) = (chain, seq);
    }
    Ok(words)
}
