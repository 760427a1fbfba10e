//! API keys that nodes make for the accounts that they earn for: one at a time for each node that may spend.

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::node_key::NodeKey;
use idlewatt_protocol::{Digest, PublicKey};
use rusqlite::{Connection, OptionalExtension, params};

use super::writer::{State, Writer, now};
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
                tx.execute(
                    "INSERT INTO api_key (hash, account, display, created, node) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![key.hash.0, account.as_str(), key.shown, now().0, node.0],
                )?;
                revoked
            }
            (_, false) => revoke(&tx, &node, Some(key.hash))?,
        };
        tx.commit()?;
        self.state.forget_keys(&revoked);
        if key.holds {
            let consumer = self.state.consumer(account.clone());
            self.state.keys_mut().insert(key.hash, consumer);
        }
        Ok(Ok(account))
    }
}

impl State {
    /// These keys open nothing any more.
    pub(super) fn forget_keys(&self, hashes: &[Digest]) {
        let mut keys = self.keys_mut();
        for hash in hashes {
            keys.remove(hash);
        }
    }
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
