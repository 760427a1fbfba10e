//! API keys and invites: how consumers and nodes get in. Only hashes of either are kept.

use data_encoding::BASE64URL_NOPAD;
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::handshake::hash_token;
use idlewatt_protocol::invite::{Invite, check_hub_url, token_id};
use idlewatt_protocol::limits::INVITE_LIFE;
use idlewatt_protocol::node_key::{KEY_PREFIX, KEY_SHOWN};
use idlewatt_protocol::{Digest, MicroCredits, PublicKey, UnixMillis};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use url::Url;

use super::journal::account_at;
use super::schema::{set_setting, setting};
use super::writer::{State, Writer, now};
use super::{Consumer, Store, StoreError};

/// Where `serve` listens unless told otherwise: what an invite names that is made before a hub ever served.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4181";

/// An API key, without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its first characters.
    pub key: String,
    /// Whose.
    pub account: AccountName,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// The node that made it for its account; `None` for the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<PublicKey>,
}

/// A key just made: the only time that it is seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewKey {
    /// Whose.
    pub account: AccountName,
    /// The key.
    pub key: String,
}

impl Store {
    /// Makes an API key, and the account where it is missing, and grants it `credits` from `issuance`.
    ///
    /// # Errors
    /// When the account is the hub's own, or nothing could be kept.
    pub async fn create_key(
        &self,
        account: AccountName,
        credits: MicroCredits,
    ) -> Result<NewKey, StoreError> {
        self.run(move |writer| writer.create_key(account, credits)).await
    }

    /// Every key, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.run(|writer| keys(&writer.db)).await
    }

    /// Revokes the key that starts with `shown`, at once. A node whose key it was makes no other until it is invited anew.
    ///
    /// # Errors
    /// When none or several do.
    pub async fn revoke_key(&self, shown: String) -> Result<Key, StoreError> {
        self.run(move |writer| writer.revoke_key(&shown)).await
    }

    /// Makes a single-use invite for a node of this account, good for [`INVITE_LIFE`]; the account too, where missing. A
    /// node that `spends` may make itself a key of the account: see [`keep_node_key`](Self::keep_node_key).
    ///
    /// # Errors
    /// When the account is the hub's own, the hub's address is of no use to nodes, or nothing could be kept.
    pub async fn create_invite(&self, account: AccountName, spends: bool) -> Result<Invite, StoreError> {
        self.run(move |writer| writer.create_invite(&account, spends)).await
    }

    /// Keeps the addresses that invites name, best first.
    ///
    /// # Errors
    /// When they cannot be kept.
    pub async fn set_addresses(&self, addresses: Vec<Url>) -> Result<(), StoreError> {
        // No URL has a space in it.
        let text = addresses.iter().map(Url::as_str).collect::<Vec<_>>().join(" ");
        self.run(move |writer| Ok(set_setting(&writer.db, "address", &text)?)).await
    }
}

impl Writer {
    fn create_key(&mut self, account: AccountName, credits: MicroCredits) -> Result<NewKey, StoreError> {
        self.make_account(&account)?;
        let key = format!("{KEY_PREFIX}{}", secret());
        let hash = Digest::of(key.as_bytes());
        self.grant(&account, credits, |db| {
            db.execute(
                "INSERT INTO api_key (hash, account, display, created) VALUES (?1, ?2, ?3, ?4)",
                params![hash.0, account.as_str(), &key[..KEY_SHOWN], now().0],
            )?;
            Ok(())
        })?;
        let consumer = self.state.consumer(account.clone());
        self.state.keys_mut().insert(hash, consumer);
        Ok(NewKey { account, key })
    }

    fn revoke_key(&mut self, shown: &str) -> Result<Key, StoreError> {
        // A whole key may be given too; only its first characters were ever kept.
        let start: String = shown.chars().take(KEY_SHOWN).collect();
        if start.len() <= KEY_PREFIX.len() {
            return Err(StoreError::UnknownKey(start));
        }
        let mut select = self.db.prepare_cached(
            "SELECT hash FROM api_key WHERE revoked IS NULL AND substr(display, 1, length(?1)) = ?1",
        )?;
        let fitting: Vec<[u8; 32]> =
            select.query_map([&start], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(select);
        let [hash] = fitting.as_slice() else {
            return Err(match fitting.len() {
                0 => StoreError::UnknownKey(start),
                _ => StoreError::AmbiguousKey(start),
            });
        };
        let tx = self.db.transaction()?;
        let key = tx
            .prepare_cached(
                "UPDATE api_key SET revoked = ?2 WHERE hash = ?1 RETURNING display, account, created, revoked, node",
            )?
            .query_row(params![hash, now().0], key_at)?;
        tx.execute("UPDATE node SET spends = 0 WHERE key = ?1", [key.node.map(|node| node.0)])?;
        tx.commit()?;
        self.state.keys_mut().remove(&Digest(*hash));
        Ok(key)
    }

    fn create_invite(&mut self, account: &AccountName, spends: bool) -> Result<Invite, StoreError> {
        let address = setting(&self.db, "address")?;
        let kept = address.as_deref().unwrap_or(DEFAULT_ADDRESS).split_ascii_whitespace().map(Url::parse);
        let kept: Vec<Url> = kept.collect::<Result<_, _>>().map_err(|_| StoreError::Unreadable("an address"))?;
        let (hubs, useless): (Vec<Url>, Vec<Url>) = kept.into_iter().partition(|hub| check_hub_url(hub).is_ok());
        if hubs.is_empty() {
            return Err(useless.into_iter().next().map_or(StoreError::Unreadable("an address"), StoreError::Address));
        }
        self.make_account(account)?;
        let token = secret();
        let (created, life) = (now(), i64::try_from(INVITE_LIFE.as_millis()).unwrap_or(i64::MAX));
        self.db.execute(
            "INSERT INTO invite (id, token_hash, account, created, expires, spends) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                token_id(&token),
                hash_token(&token).0,
                account.as_str(),
                created.0,
                created.0 + life,
                spends
            ],
        )?;
        Ok(Invite { hubs, key: PublicKey::from(&self.state.hub_key), token })
    }
}

impl State {
    pub(super) fn consumer(&self, account: AccountName) -> Consumer {
        Consumer { pseudonym: self.pseudonym(&account).into(), account }
    }
}

/// 32 random bytes as text.
pub(super) fn secret() -> String {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

fn keys(db: &Connection) -> Result<Vec<Key>, StoreError> {
    let mut select =
        db.prepare_cached("SELECT display, account, created, revoked, node FROM api_key ORDER BY created")?;
    let rows = select.query_map([], key_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn key_at(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        key: row.get(0)?,
        account: account_at(row, 1)?,
        created: UnixMillis(row.get(2)?),
        revoked: row.get::<_, Option<i64>>(3)?.map(UnixMillis),
        node: row.get::<_, Option<[u8; 32]>>(4)?.map(PublicKey),
    })
}

/// Every key that was not revoked.
pub(super) fn load_keys(db: &Connection, state: &State) -> rusqlite::Result<()> {
    let mut select = db.prepare("SELECT hash, account FROM api_key WHERE revoked IS NULL")?;
    let mut rows = select.query([])?;
    let mut keys = state.keys_mut();
    while let Some(row) = rows.next()? {
        keys.insert(Digest(row.get(0)?), state.consumer(account_at(row, 1)?));
    }
    Ok(())
}
