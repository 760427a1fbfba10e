//! Accounts, groups, API keys, invites and grants: what the operator asks for.

use data_encoding::BASE64URL_NOPAD;
use idlewatt_hub_core::ledger::{
    AccountName, Credit, Journal, Ledger, Limit, Posting, PostingId, Purpose, ReserveError,
};
use idlewatt_protocol::handshake::hash_token;
use idlewatt_protocol::invite::{Invite, check_hub_url, token_id};
use idlewatt_protocol::limits::INVITE_LIFE;
use idlewatt_protocol::{Digest, MicroCredits, PublicKey, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use url::Url;

use super::journal::{SqliteJournal, account_at, maybe_account_at};
use super::writer::{State, Writer, now};
use super::{Consumer, Store, StoreError};

/// What every API key starts with.
pub(super) const KEY_PREFIX: &str = "iw-";
/// Characters of a key that are kept to recognise it.
const KEY_SHOWN: usize = 9;
/// Where `serve` listens unless told otherwise.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4181";

/// An account, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub account: AccountName,
    /// Credits less debits.
    pub balance_ucr: MicroCredits,
    /// Set aside for requests under way.
    pub reserved_ucr: MicroCredits,
    /// How far it may owe; `None`: without limit.
    pub overdraft_ucr: Option<MicroCredits>,
    /// The group that sets its overdraft.
    pub group: Option<AccountName>,
    /// When it was made.
    pub created: UnixMillis,
}

/// A group of accounts that lend to each other up to a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub group: AccountName,
    /// How far each member may owe.
    pub overdraft_ucr: MicroCredits,
    /// Its members.
    pub members: Vec<AccountName>,
}

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

    /// Revokes the key that starts with `shown`, at once.
    ///
    /// # Errors
    /// When none or several do.
    pub async fn revoke_key(&self, shown: String) -> Result<Key, StoreError> {
        self.run(move |writer| writer.revoke_key(&shown)).await
    }

    /// Makes a single-use invite for a node of this account, good for [`INVITE_LIFE`]; the account too, where missing.
    ///
    /// # Errors
    /// When the account is the hub's own, the hub's address is of no use to nodes, or nothing could be kept.
    pub async fn create_invite(&self, account: AccountName) -> Result<Invite, StoreError> {
        self.run(move |writer| writer.create_invite(&account)).await
    }

    /// Every account with its balance, the hub's own included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.run(|writer| writer.accounts()).await
    }

    /// One account.
    ///
    /// # Errors
    /// When there is none, or the database cannot be read.
    pub async fn account(&self, name: AccountName) -> Result<Account, StoreError> {
        self.run(move |writer| writer.account(&name)).await
    }

    /// Grants credits from `issuance`, or takes them back where `amount` is negative.
    ///
    /// # Errors
    /// When there is no such account, it cannot give that much back, or nothing could be kept.
    pub async fn credit(&self, name: AccountName, amount: MicroCredits) -> Result<Account, StoreError> {
        self.run(move |writer| {
            writer.must_be_a_persons(&name)?;
            writer.grant(&name, amount)?;
            writer.account(&name)
        })
        .await
    }

    /// Makes a group whose members may each owe up to `overdraft`.
    ///
    /// # Errors
    /// When it exists, or nothing could be kept.
    pub async fn create_group(
        &self,
        group: AccountName,
        overdraft: MicroCredits,
    ) -> Result<Group, StoreError> {
        self.run(move |writer| writer.create_group(&group, overdraft)).await
    }

    /// Puts an account into a group, out of the one it was in; its overdraft becomes the group's.
    ///
    /// # Errors
    /// When there is no such group or account, or the account owes more than the group allows.
    pub async fn join_group(&self, group: AccountName, account: AccountName) -> Result<Account, StoreError> {
        self.run(move |writer| writer.join_group(&group, &account)).await
    }

    /// Every group.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.run(|writer| groups(&writer.db)).await
    }

    /// Keeps the address that invites name: the public one, or where the hub listens.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn set_address(&self, address: Url) -> Result<(), StoreError> {
        self.run(move |writer| Ok(set_setting(&writer.db, "address", address.as_str())?)).await
    }
}

impl Writer {
    fn create_key(&mut self, account: AccountName, credits: MicroCredits) -> Result<NewKey, StoreError> {
        self.make_account(&account)?;
        if credits != MicroCredits::ZERO {
            self.grant(&account, credits)?;
        }
        let key = format!("{KEY_PREFIX}{}", secret());
        let hash = Digest::of(key.as_bytes());
        self.db.execute(
            "INSERT INTO api_key (hash, account, display, created) VALUES (?1, ?2, ?3, ?4)",
            params![hash.0, account.as_str(), &key[..KEY_SHOWN], now().0],
        )?;
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
        let mut revoke = self.db.prepare_cached(
            "UPDATE api_key SET revoked = ?2 WHERE hash = ?1 RETURNING display, account, created, revoked",
        )?;
        let key = revoke.query_row(params![hash, now().0], key_at)?;
        self.state.keys_mut().remove(&Digest(*hash));
        Ok(key)
    }

    fn create_invite(&mut self, account: &AccountName) -> Result<Invite, StoreError> {
        let address = setting(&self.db, "address")?;
        let hub: Url = address
            .as_deref()
            .unwrap_or(DEFAULT_ADDRESS)
            .parse()
            .map_err(|_| StoreError::Unreadable("an address"))?;
        if check_hub_url(&hub).is_err() {
            return Err(StoreError::Address(hub));
        }
        self.make_account(account)?;
        let token = secret();
        let (created, life) = (now(), i64::try_from(INVITE_LIFE.as_millis()).unwrap_or(i64::MAX));
        self.db.execute(
            "INSERT INTO invite (id, token_hash, account, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![token_id(&token), hash_token(&token).0, account.as_str(), created.0, created.0 + life],
        )?;
        Ok(Invite { hub, key: PublicKey::from(&self.state.hub_key), token })
    }

    fn must_be_a_persons(&self, account: &AccountName) -> Result<(), StoreError> {
        if account.is_hubs_own() { Err(StoreError::HubsOwn(account.clone())) } else { Ok(()) }
    }

    /// Makes the account where it is missing.
    fn make_account(&mut self, account: &AccountName) -> Result<(), StoreError> {
        self.must_be_a_persons(account)?;
        if self.state.ledger().standing(account).is_none() {
            self.db.execute(
                "INSERT INTO account (name, overdraft, created) VALUES (?1, 0, ?2)",
                params![account.as_str(), now().0],
            )?;
            self.state.ledger().open_account(
                account.clone(),
                Limit::Overdraft(MicroCredits::ZERO),
                MicroCredits::ZERO,
            );
        }
        Ok(())
    }

    /// One posting from `issuance`, or back to it.
    fn grant(&mut self, account: &AccountName, amount: MicroCredits) -> Result<(), StoreError> {
        if self.state.ledger().standing(account).is_none() {
            return Err(StoreError::UnknownAccount(account.clone()));
        }
        let issuance = AccountName::issuance();
        let (from, to) = if amount < MicroCredits::ZERO {
            (account.clone(), issuance)
        } else {
            (issuance, account.clone())
        };
        let amount = MicroCredits(amount.0.checked_abs().ok_or(ReserveError::Range(amount))?);
        let id = PostingId(rand::random());
        let credits = vec![Credit { to, amount }];
        let posting =
            Posting { id, at: now(), purpose: Purpose::Grant, from: from.clone(), reserved: amount, credits };
        {
            let mut ledger = self.state.ledger();
            ledger.reserve(id, &from, amount)?;
            if let Err(refused) = ledger.stage(&posting) {
                ledger.void(id);
                return Err(refused.into());
            }
        }
        let keep = |db: &mut Connection| -> rusqlite::Result<()> {
            let tx = db.transaction()?;
            SqliteJournal(&tx).append(std::slice::from_ref(&posting))?;
            tx.commit()
        };
        let kept = keep(&mut self.db);
        let mut ledger = self.state.ledger();
        if let Err(error) = kept {
            ledger.roll_back(id);
            ledger.void(id);
            return Err(error.into());
        }
        ledger.commit(&posting);
        Ok(())
    }

    fn accounts(&mut self) -> Result<Vec<Account>, StoreError> {
        let mut select =
            self.db.prepare_cached("SELECT name, circle, overdraft, created FROM account ORDER BY name")?;
        let rows = select.query_map([], |row| {
            Ok(Account {
                account: account_at(row, 0)?,
                balance_ucr: MicroCredits::ZERO,
                reserved_ucr: MicroCredits::ZERO,
                overdraft_ucr: row.get::<_, Option<i64>>(2)?.map(MicroCredits),
                group: maybe_account_at(row, 1)?,
                created: UnixMillis(row.get(3)?),
            })
        })?;
        let mut accounts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let ledger = self.state.ledger();
        for account in &mut accounts {
            if let Some(standing) = ledger.standing(&account.account) {
                account.balance_ucr = standing.balance;
                account.reserved_ucr = standing.reserved;
            }
        }
        Ok(accounts)
    }

    fn account(&mut self, name: &AccountName) -> Result<Account, StoreError> {
        let found = self.accounts()?.into_iter().find(|account| account.account == *name);
        found.ok_or_else(|| StoreError::UnknownAccount(name.clone()))
    }

    fn create_group(&mut self, group: &AccountName, overdraft: MicroCredits) -> Result<Group, StoreError> {
        if overdraft < MicroCredits::ZERO {
            return Err(ReserveError::Range(overdraft).into());
        }
        let made = self.db.execute(
            "INSERT INTO circle VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![group.as_str(), overdraft.0, now().0],
        )?;
        if made == 0 {
            return Err(StoreError::GroupExists(group.clone()));
        }
        Ok(Group { group: group.clone(), overdraft_ucr: overdraft, members: Vec::new() })
    }

    fn join_group(&mut self, group: &AccountName, account: &AccountName) -> Result<Account, StoreError> {
        self.must_be_a_persons(account)?;
        let overdraft: Option<i64> = self
            .db
            .query_row("SELECT overdraft FROM circle WHERE name = ?1", [group.as_str()], |row| row.get(0))
            .optional()?;
        let overdraft = MicroCredits(overdraft.ok_or_else(|| StoreError::UnknownGroup(group.clone()))?);
        let standing = self.state.ledger().standing(account);
        let standing = standing.ok_or_else(|| StoreError::UnknownAccount(account.clone()))?;
        // Reservations under way were granted under the old limit: they count as owed.
        let owed = standing.reserved - standing.balance;
        if owed > overdraft {
            return Err(StoreError::OwesTooMuch { account: account.clone(), owed, overdraft });
        }
        self.db.execute(
            "UPDATE account SET circle = ?2, overdraft = ?3 WHERE name = ?1",
            params![account.as_str(), group.as_str(), overdraft.0],
        )?;
        let limit = Limit::Overdraft(overdraft);
        self.state.ledger().open_account(account.clone(), limit, MicroCredits::ZERO);
        self.account(account)
    }
}

impl State {
    pub(super) fn consumer(&self, account: AccountName) -> Consumer {
        Consumer { pseudonym: self.pseudonym(&account).into(), account }
    }
}

/// 32 random bytes as text.
fn secret() -> String {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

fn keys(db: &Connection) -> Result<Vec<Key>, StoreError> {
    let mut select =
        db.prepare_cached("SELECT display, account, created, revoked FROM api_key ORDER BY created")?;
    let rows = select.query_map([], key_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn key_at(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        key: row.get(0)?,
        account: account_at(row, 1)?,
        created: UnixMillis(row.get(2)?),
        revoked: row.get::<_, Option<i64>>(3)?.map(UnixMillis),
    })
}

fn groups(db: &Connection) -> Result<Vec<Group>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT circle.name, circle.overdraft, account.name FROM circle LEFT JOIN account ON circle = circle.name \
         ORDER BY circle.name, account.name",
    )?;
    let mut groups: Vec<Group> = Vec::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let group = account_at(row, 0)?;
        if groups.last().is_none_or(|last| last.group != group) {
            groups.push(Group { group, overdraft_ucr: MicroCredits(row.get(1)?), members: Vec::new() });
        }
        if let Some(last) = groups.last_mut() {
            last.members.extend(maybe_account_at(row, 2)?);
        }
    }
    Ok(groups)
}

/// Every account with its kept balance.
pub(super) fn load_accounts(db: &Connection) -> rusqlite::Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut select = db.prepare("SELECT name, overdraft, balance FROM account")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        ledger.open_account(account_at(row, 0)?, limit(row.get(1)?), MicroCredits(row.get(2)?));
    }
    Ok(ledger)
}

pub(super) fn limit(overdraft: Option<i64>) -> Limit {
    overdraft.map_or(Limit::None, |overdraft| Limit::Overdraft(MicroCredits(overdraft)))
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

pub(super) fn setting(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn set_setting(db: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        [name, value],
    )?;
    Ok(())
}
