//! API keys and invites: how consumers and nodes get in. Only hashes of either are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use idlewatt_hub_core::allowance::{KeyLimits, Meter, day_of};
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::handshake::hash_token;
use idlewatt_protocol::invite::{Invite, check_hub_url, token_id};
use idlewatt_protocol::limits::INVITE_LIFE;
use idlewatt_protocol::node_key::{KEY_PREFIX, KEY_SHOWN};
use idlewatt_protocol::{Digest, MicroCredits, PublicKey, UnixMillis};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use url::Url;

use super::consumer::{Allowed, KeyState};
use super::journal::account_at;
use super::schema::{set_setting, setting};
use super::writer::{State, Writer, now};
use super::{Consumer, Store, StoreError};

/// Where `serve` listens unless told otherwise: what an invite names that is made before a hub ever served.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4181";

/// The longest that a key may go on beside the one that takes its place.
const MAX_GRACE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

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
    /// When it ends by itself: another took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixMillis>,
    /// The node that made it for its account; `None` for the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<PublicKey>,
    /// What it may do.
    pub limits: KeyLimits,
    /// What it spent today, UTC, with the keys whose place it took.
    pub spent_today_ucr: MicroCredits,
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
    /// When the account is the hub's own, the limits make no sense, or nothing could be kept.
    pub async fn create_key(
        &self,
        account: AccountName,
        credits: MicroCredits,
        limits: KeyLimits,
    ) -> Result<NewKey, StoreError> {
        self.run(move |writer| writer.create_key(account, credits, &limits)).await
    }

    /// Makes a key that takes the place of the one that starts with `shown`: same account, same limits, and what was used
    /// of them. The old one works for `grace` more; zero revokes it at once.
    ///
    /// # Errors
    /// When none or several start so, a node made it, or nothing could be kept.
    pub async fn rotate_key(&self, shown: String, grace: Duration) -> Result<NewKey, StoreError> {
        self.run(move |writer| writer.rotate_key(&shown, grace)).await
    }

    /// Sets what the key that starts with `shown` may do, at once; also for the keys that took its place.
    ///
    /// # Errors
    /// When none or several start so, the limits make no sense, or nothing could be kept.
    pub async fn limit_key(&self, shown: String, limits: KeyLimits) -> Result<Key, StoreError> {
        self.run(move |writer| writer.limit_key(&shown, limits)).await
    }

    /// Every key, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.run(|writer| writer.keys()).await
    }

    /// Revokes the key that starts with `shown`, at once: what runs for it is broken off. A node whose key it was makes no
    /// other until it is invited anew.
    ///
    /// # Errors
    /// When none or several do.
    pub async fn revoke_key(&self, shown: String) -> Result<Key, StoreError> {
        self.run(move |writer| writer.revoke_key(&shown)).await
    }

    /// Makes a single-use invite for a node of this account, good for [`INVITE_LIFE`]; the account too, where missing, and
    /// puts it into `group`, where one is named. A node that `spends` may make itself a key of the account: see
    /// [`keep_node_key`](Self::keep_node_key).
    ///
    /// # Errors
    /// When the account is the hub's own, owes more than the group allows, there is no such group, the hub's address is of no
    /// use to nodes, or nothing could be kept.
    pub async fn create_invite(
        &self,
        account: AccountName,
        spends: bool,
        group: Option<AccountName>,
    ) -> Result<Invite, StoreError> {
        self.run(move |writer| writer.create_invite(&account, spends, group.as_ref())).await
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
    fn create_key(
        &mut self,
        account: AccountName,
        credits: MicroCredits,
        limits: &KeyLimits,
    ) -> Result<NewKey, StoreError> {
        limits.check()?;
        let limits_text = json(limits)?;
        self.make_account(&account)?;
        let key = format!("{KEY_PREFIX}{}", secret());
        let hash = Digest::of(key.as_bytes());
        let mut allowance = 0;
        self.grant(&account, credits, |db| {
            allowance = new_allowance(db, &limits_text)?;
            insert(db, hash, &account, &key, None, allowance)
        })?;
        let allowed = Allowed::new(allowance, limits.clone(), Meter::default());
        self.state.admit_key(hash, &account, allowed);
        Ok(NewKey { account, key })
    }

    fn rotate_key(&mut self, shown: &str, grace: Duration) -> Result<NewKey, StoreError> {
        let old = self.key_hash(shown)?;
        let before = self.key(old)?;
        if before.node.is_some() {
            return Err(StoreError::NodesKey(before.key));
        }
        let at = now();
        let expires = UnixMillis(at.0 + i64::try_from(grace.min(MAX_GRACE).as_millis()).unwrap_or(i64::MAX));
        if before.expires.is_some_and(|ends| ends < expires) {
            return Err(StoreError::EndsEarlier(before.key));
        }
        let key = format!("{KEY_PREFIX}{}", secret());
        let hash = Digest::of(key.as_bytes());
        let tx = self.db.transaction()?;
        let allowance =
            tx.query_row("SELECT allowance FROM api_key WHERE hash = ?1", [old.0], |row| row.get(0))?;
        insert(&tx, hash, &before.account, &key, None, allowance)?;
        let end = if grace.is_zero() { "revoked" } else { "expires" };
        tx.execute(&format!("UPDATE api_key SET {end} = ?2 WHERE hash = ?1"), params![old.0, expires.0])?;
        tx.commit()?;
        if let Some(allowed) = self.state.allowed_of(&old) {
            self.state.admit_key(hash, &before.account, allowed);
        }
        if grace.is_zero() {
            self.state.forget_keys(&[old]);
        } else {
            self.state.let_expire(&old, expires);
        }
        Ok(NewKey { account: before.account, key })
    }

    fn limit_key(&mut self, shown: &str, limits: KeyLimits) -> Result<Key, StoreError> {
        limits.check()?;
        let hash = self.key_hash(shown)?;
        self.db.execute(
            "UPDATE allowance SET limits = ?2 WHERE id = (SELECT allowance FROM api_key WHERE hash = ?1)",
            params![hash.0, json(&limits)?],
        )?;
        if let Some(allowed) = self.state.allowed_of(&hash) {
            allowed.limit(limits);
        }
        self.key(hash)
    }

    fn revoke_key(&mut self, shown: &str) -> Result<Key, StoreError> {
        let hash = self.key_hash(shown)?;
        let tx = self.db.transaction()?;
        tx.execute("UPDATE api_key SET revoked = ?2 WHERE hash = ?1", params![hash.0, now().0])?;
        tx.execute(
            "UPDATE node SET spends = 0 WHERE key = (SELECT node FROM api_key WHERE hash = ?1)",
            [hash.0],
        )?;
        tx.commit()?;
        self.state.forget_keys(&[hash]);
        self.key(hash)
    }

    /// The one key that is not revoked and starts so. A whole key may be given too; only its first characters were ever
    /// kept.
    fn key_hash(&self, shown: &str) -> Result<Digest, StoreError> {
        let start: String = shown.chars().take(KEY_SHOWN).collect();
        if start.len() <= KEY_PREFIX.len() {
            return Err(StoreError::UnknownKey(start));
        }
        let mut select = self.db.prepare_cached(
            "SELECT hash FROM api_key WHERE revoked IS NULL AND substr(display, 1, length(?1)) = ?1",
        )?;
        let fitting: Vec<[u8; 32]> =
            select.query_map([&start], |row| row.get(0))?.collect::<Result<_, _>>()?;
        match fitting.as_slice() {
            [hash] => Ok(Digest(*hash)),
            [] => Err(StoreError::UnknownKey(start)),
            _ => Err(StoreError::AmbiguousKey(start)),
        }
    }

    fn key(&self, hash: Digest) -> Result<Key, StoreError> {
        let mut select = self.db.prepare_cached(&format!("{KEYS} WHERE hash = ?2"))?;
        let mut rows = select.query(params![day_of(now()), hash.0])?;
        let row = rows.next()?.ok_or(StoreError::Unreadable("a key"))?;
        key_at(row)
    }

    fn keys(&self) -> Result<Vec<Key>, StoreError> {
        let mut select = self.db.prepare_cached(&format!("{KEYS} ORDER BY created, display"))?;
        let mut rows = select.query([day_of(now())])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(key_at(row)?);
        }
        Ok(keys)
    }

    fn create_invite(
        &mut self,
        account: &AccountName,
        spends: bool,
        group: Option<&AccountName>,
    ) -> Result<Invite, StoreError> {
        let address = setting(&self.db, "address")?;
        let kept = address.as_deref().unwrap_or(DEFAULT_ADDRESS).split_ascii_whitespace().map(Url::parse);
        let kept: Vec<Url> =
            kept.collect::<Result<_, _>>().map_err(|_| StoreError::Unreadable("an address"))?;
        let (hubs, useless): (Vec<Url>, Vec<Url>) =
            kept.into_iter().partition(|hub| check_hub_url(hub).is_ok());
        if hubs.is_empty() {
            return Err(useless
                .into_iter()
                .next()
                .map_or(StoreError::Unreadable("an address"), StoreError::Address));
        }
        if let Some(group) = group {
            self.group(group)?;
        }
        self.make_account(account)?;
        if let Some(group) = group.filter(|group| self.state.directory().group_of(account) != Some(group)) {
            self.join_group(group, account, None)?;
        }
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
    /// A key opens the hub from now on.
    pub(super) fn admit_key(&self, hash: Digest, account: &AccountName, allowed: Arc<Allowed>) {
        let consumer = self.consumer(account.clone(), KeyState::new(allowed));
        self.keys_mut().insert(hash, consumer);
    }

    /// These keys open nothing any more, and what runs for them is broken off.
    pub(super) fn forget_keys(&self, hashes: &[Digest]) {
        let mut keys = self.keys_mut();
        for hash in hashes {
            if let Some(consumer) = keys.remove(hash) {
                consumer.key.ended.cancel();
            }
        }
    }

    fn let_expire(&self, hash: &Digest, expires: UnixMillis) {
        if let Some(consumer) = self.keys_mut().get_mut(hash) {
            let KeyState { allowed, ended, .. } = &*consumer.key;
            let (allowed, ended) = (Arc::clone(allowed), ended.clone());
            consumer.key = Arc::new(KeyState { allowed, expires: Some(expires), ended });
        }
    }

    pub(super) fn allowed_of(&self, hash: &Digest) -> Option<Arc<Allowed>> {
        self.keys_mut().get(hash).map(|consumer| Arc::clone(&consumer.key.allowed))
    }

    /// Lets an account ask for nothing and breaks off what runs for it; or lets it ask again.
    pub(super) fn suspend(&self, account: &AccountName, is_suspended: bool) {
        self.conduct().entry(account.clone()).or_default().is_suspended = is_suspended;
        if !is_suspended {
            return;
        }
        for consumer in self.keys_mut().values_mut().filter(|it| it.account == *account) {
            let KeyState { allowed, expires, .. } = &*consumer.key;
            let fresh = KeyState { expires: *expires, ..KeyState::new(Arc::clone(allowed)) };
            std::mem::replace(&mut consumer.key, Arc::new(fresh)).ended.cancel();
        }
    }

    fn consumer(&self, account: AccountName, key: KeyState) -> Consumer {
        Consumer { pseudonym: self.pseudonym(&account).into(), account, key: Arc::new(key) }
    }
}

/// 32 random bytes as text.
pub(super) fn secret() -> String {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

fn json(limits: &KeyLimits) -> Result<String, StoreError> {
    serde_json::to_string(limits).map_err(|_| StoreError::Unreadable("limits"))
}

/// What a key may do until its operator says otherwise, as it is kept: everything, within its account's circle.
pub(super) const UNLIMITED: &str = r#"{"scope":"circle"}"#;

/// A place for what a key may do.
pub(super) fn new_allowance(db: &Connection, limits: &str) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT INTO allowance (limits) VALUES (?1)")?.execute([limits])?;
    Ok(db.last_insert_rowid())
}

pub(super) fn insert(
    db: &Connection,
    hash: Digest,
    account: &AccountName,
    key: &str,
    node: Option<PublicKey>,
    allowance: i64,
) -> rusqlite::Result<()> {
    let shown: String = key.chars().take(KEY_SHOWN).collect();
    db.prepare_cached(
        "INSERT INTO api_key (hash, account, display, created, node, allowance) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![hash.0, account.as_str(), shown, now().0, node.map(|it| it.0), allowance])?;
    Ok(())
}

const KEYS: &str = "SELECT display, account, created, revoked, expires, node, limits, coalesce(spent, 0) FROM api_key \
                    JOIN allowance ON id = api_key.allowance \
                    LEFT JOIN allowance_day ON allowance_day.allowance = id AND day = ?1";

fn key_at(row: &Row<'_>) -> Result<Key, StoreError> {
    Ok(Key {
        key: row.get(0)?,
        account: account_at(row, 1)?,
        created: UnixMillis(row.get(2)?),
        revoked: row.get::<_, Option<i64>>(3)?.map(UnixMillis),
        expires: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
        node: row.get::<_, Option<[u8; 32]>>(5)?.map(PublicKey),
        limits: limits_at(row, 6)?,
        spent_today_ucr: MicroCredits(row.get(7)?),
    })
}

/// Reads what a key may do.
pub(super) fn limits_at(row: &Row<'_>, column: usize) -> rusqlite::Result<KeyLimits> {
    serde_json::from_str(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Every key that was not revoked, and which accounts are suspended.
pub(super) fn load_keys(db: &Connection, state: &State) -> rusqlite::Result<()> {
    let day = day_of(now());
    let mut select = db.prepare(
        "SELECT hash, account, id, limits, coalesce(spent, 0), expires FROM api_key \
         JOIN allowance ON id = api_key.allowance \
         LEFT JOIN allowance_day ON allowance_day.allowance = id AND day = ?1 WHERE revoked IS NULL",
    )?;
    let mut rows = select.query([day])?;
    let mut shared: HashMap<i64, Arc<Allowed>> = HashMap::new();
    let mut keys = state.keys_mut();
    while let Some(row) = rows.next()? {
        let (id, limits) = (row.get(2)?, limits_at(row, 3)?);
        let meter = Meter::going_on(day, MicroCredits(row.get(4)?));
        let allowed = Arc::clone(shared.entry(id).or_insert_with(|| Allowed::new(id, limits, meter)));
        let key =
            KeyState { expires: row.get::<_, Option<i64>>(5)?.map(UnixMillis), ..KeyState::new(allowed) };
        keys.insert(Digest(row.get(0)?), state.consumer(account_at(row, 1)?, key));
    }
    let mut select = db.prepare("SELECT name FROM account WHERE suspended IS NOT NULL")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        state.conduct().entry(account_at(row, 0)?).or_default().is_suspended = true;
    }
    Ok(())
}
