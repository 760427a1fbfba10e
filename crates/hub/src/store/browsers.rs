//! API keys of browsers: an invite that a browser uses instead of a node makes it a key of the invite's account.

use idlewatt_hub_core::allowance::{KeyLimits, Meter};
use idlewatt_protocol::handshake::hash_token;
use idlewatt_protocol::invite::token_id;
use idlewatt_protocol::node_key::KEY_PREFIX;
use idlewatt_protocol::{Digest, UnixMillis};
use rusqlite::params;

use super::consumer::Allowed;
use super::keys::{NewKey, UNLIMITED, insert, new_allowance, secret};
use super::nodes::kept_invite;
use super::writer::{Writer, now};
use super::{Store, StoreError};

/// Why an invite makes no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRedeemed {
    /// The hub did not make it, or the link was altered.
    Unknown,
    /// A node or another browser used it.
    Used,
    /// It is older than [`INVITE_LIFE`](idlewatt_protocol::limits::INVITE_LIFE).
    Expired,
    /// Who uses it only earns.
    EarnOnly,
}

impl Store {
    /// Uses an invite up for an API key of its account, which is seen this once.
    ///
    /// # Errors
    /// When nothing could be kept.
    pub async fn redeem_invite(&self, token: String) -> Result<Result<NewKey, NotRedeemed>, StoreError> {
        self.run(move |writer| writer.redeem_invite(&token)).await
    }

    /// Revokes the very key that is given, at once, as whoever holds it may; `false` where it opens nothing. A node's key
    /// is the node's to revoke.
    ///
    /// # Errors
    /// When nothing could be kept.
    pub async fn forget_key(&self, key: String) -> Result<bool, StoreError> {
        self.run(move |writer| writer.forget_key(&key)).await
    }
}

impl Writer {
    fn redeem_invite(&mut self, token: &str) -> Result<Result<NewKey, NotRedeemed>, StoreError> {
        let id = token_id(token);
        let found = kept_invite(&self.db, &id)?.filter(|invite| invite.token_hash == hash_token(token));
        let Some(invite) = found else { return Ok(Err(NotRedeemed::Unknown)) };
        let at: UnixMillis = now();
        if invite.used_by.is_some() {
            return Ok(Err(NotRedeemed::Used));
        }
        if invite.expires < at {
            return Ok(Err(NotRedeemed::Expired));
        }
        if !invite.spends {
            return Ok(Err(NotRedeemed::EarnOnly));
        }
        let account = invite.account;
        let key = format!("{KEY_PREFIX}{}", secret());
        let hash = Digest::of(key.as_bytes());
        let tx = self.db.transaction()?;
        let allowance = new_allowance(&tx, UNLIMITED)?;
        insert(&tx, hash, &account, &key, None, allowance)?;
        // By the key's hash: no node can ever have it for its key.
        tx.execute("UPDATE invite SET used_by = ?2, used = ?3 WHERE id = ?1", params![id, hash.0, at.0])?;
        tx.commit()?;
        self.state.admit_key(hash, &account, Allowed::new(allowance, KeyLimits::default(), Meter::default()));
        Ok(Ok(NewKey { account, key }))
    }

    fn forget_key(&mut self, key: &str) -> Result<bool, StoreError> {
        let hash = Digest::of(key.as_bytes());
        let revoked = self.db.execute(
            "UPDATE api_key SET revoked = ?2 WHERE hash = ?1 AND revoked IS NULL AND node IS NULL",
            params![hash.0, now().0],
        )?;
        if revoked > 0 {
            self.state.forget_keys(&[hash]);
        }
        Ok(revoked > 0)
    }
}
