//! API keys that nodes make for the accounts that they earn for: one at a time for each node that may spend.

use std::sync::Arc;

use idlewatt_hub_core::allowance::{Meter, day_of};
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::node_key::NodeKey;
use idlewatt_protocol::{Digest, MicroCredits, PublicKey};
use rusqlite::{Connection, OptionalExtension, params};

use super::consumer::Allowed;
use super::keys::{UNLIMITED, insert, limits_at, new_allowance};
use super::writer::{Writer, now};
use super::{Store, StoreError};

/// A node needs another key when it lost the one it had: more than this is a node that does not work.
const MAX_KEYS: u32 = 100;

/// Why a node's key is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKeptKey {
    /// The node never joined.
    UnknownNode,
    /// Its invite did not let it spend, or the operator took that back.
    MayNotSpend,
    /// This key was revoked, or is somebody else's.
    Spent,
    /// It has made too many.
    TooMany,
}

impl Store {
    /// Does what `node` says of a key that it made, whose signature was checked: keeps it in place of the node's last one,
    /// or revokes it. Saying the same again changes nothing. Gives the account that the key spends from.
    ///
    /// # Errors
    /// When nothing could be kept.
    pub async fn keep_node_key(
        &self,
        node: PublicKey,
        key: NodeKey,
    ) -> Result<Result<AccountName, NotKeptKey>, StoreError> {
        self.run(move |writer| writer.keep_node_key(node, &key)).await
    }
}

impl Writer {
    fn keep_node_key(
        &mut self,
        node: PublicKey,
        key: &NodeKey,
    ) -> Result<Result<AccountName, NotKeptKey>, StoreError> {
        let Some(account) = self.state.nodes().get(&node).map(|it| it.account.clone()) else {
            return Ok(Err(NotKeptKey::UnknownNode));
        };
        let tx = self.db.transaction()?;
        let known: Option<(Option<[u8; 32]>, bool)> = tx
            .query_row("SELECT node, revoked IS NULL FROM api_key WHERE hash = ?1", [key.hash.0], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let mut allowance = 0;
        let revoked = match (known, key.holds) {
            (Some((Some(whose), true)), true) if whose == node.0 => return Ok(Ok(account)),
            (Some(_), true) => return Ok(Err(NotKeptKey::Spent)),
            (None, true) => {
                let spends: bool =
                    tx.query_row("SELECT spends FROM node WHERE key = ?1", [node.0], |row| row.get(0))?;
                if !spends {
                    return Ok(Err(NotKeptKey::MayNotSpend));
                }
                let made: u32 =
                    tx.query_row("SELECT count(*) FROM api_key WHERE node = ?1", [node.0], |row| row.get(0))?;
                if made >= MAX_KEYS {
                    return Ok(Err(NotKeptKey::TooMany));
                }
                let revoked = revoke_all(&tx, &node)?;
                // Its beginning is what an operator revokes it by, and what the node says it is.
                let is_taken: bool = tx.query_row(
                    "SELECT count(*) > 0 FROM api_key WHERE display = ?1 AND revoked IS NULL",
                    [&key.shown],
                    |row| row.get(0),
                )?;
                if is_taken {
                    return Ok(Err(NotKeptKey::Spent));
                }
                allowance = allowance_of(&tx, &node)?;
                insert(&tx, key.hash, &account, &key.shown, Some(node), allowance)?;
                revoked
            }
            (_, false) => revoke(&tx, &node, Some(key.hash))?,
        };
        tx.commit()?;
        // What the node's last key used of its limits stays used.
        let before =
            revoked.iter().find_map(|hash| self.state.allowed_of(hash)).filter(|it| it.id == allowance);
        self.state.forget_keys(&revoked);
        if key.holds {
            let allowed = match before {
                Some(allowed) => allowed,
                None => allowed(&self.db, allowance)?,
            };
            self.state.admit_key(key.hash, &account, allowed);
        }
        Ok(Ok(account))
    }
}

/// What the node's last key might do for the same account, or else a new key.
fn allowance_of(db: &Connection, node: &PublicKey) -> rusqlite::Result<i64> {
    let last = db
        .prepare_cached(
            "SELECT allowance FROM api_key JOIN node ON node.key = api_key.node \
             WHERE node = ?1 AND api_key.account = node.account ORDER BY created DESC LIMIT 1",
        )?
        .query_row([node.0], |row| row.get(0))
        .optional()?;
    match last {
        Some(last) => Ok(last),
        None => new_allowance(db, UNLIMITED),
    }
}

/// What an allowance is, as it is kept.
fn allowed(db: &Connection, id: i64) -> rusqlite::Result<Arc<Allowed>> {
    let day = day_of(now());
    let mut select = db.prepare_cached(
        "SELECT limits, coalesce(spent, 0) FROM allowance \
         LEFT JOIN allowance_day ON allowance = id AND day = ?2 WHERE id = ?1",
    )?;
    select.query_row([id, day], |row| {
        Ok(Allowed::new(id, limits_at(row, 0)?, Meter::going_on(day, MicroCredits(row.get(1)?))))
    })
}

/// Revokes every key of a node; gives their hashes.
pub(super) fn revoke_all(db: &Connection, node: &PublicKey) -> rusqlite::Result<Vec<Digest>> {
    revoke(db, node, None)
}

fn revoke(db: &Connection, node: &PublicKey, which: Option<Digest>) -> rusqlite::Result<Vec<Digest>> {
    let mut revoke = db.prepare_cached(
        "UPDATE api_key SET revoked = ?2 WHERE node = ?1 AND revoked IS NULL AND hash = coalesce(?3, hash) RETURNING hash",
    )?;
    revoke.query_map(params![node.0, now().0, which.map(|it| it.0)], |row| Ok(Digest(row.get(0)?)))?.collect()
}
