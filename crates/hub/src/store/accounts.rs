//! Accounts, groups and grants: who may spend how much.

use idlewatt_hub_core::ledger::{
    AccountName, Credit, Journal, Ledger, Limit, Posting, PostingId, Purpose, ReserveError,
};
use idlewatt_protocol::{MicroCredits, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::journal::{SqliteJournal, account_at, maybe_account_at};
use super::writer::{Writer, now};
use super::{Store, StoreError};

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

impl Store {
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
            writer.grant(&name, amount, |_| Ok(()))?;
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
}

impl Writer {
    fn must_be_a_persons(&self, account: &AccountName) -> Result<(), StoreError> {
        if account.is_hubs_own() { Err(StoreError::HubsOwn(account.clone())) } else { Ok(()) }
    }

    /// Makes the account where it is missing.
    pub(super) fn make_account(&mut self, account: &AccountName) -> Result<(), StoreError> {
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

    /// One posting from `issuance`, or back to it, and what is to be kept in the same write.
    pub(super) fn grant(
        &mut self,
        account: &AccountName,
        amount: MicroCredits,
        beside: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        if amount == MicroCredits::ZERO {
            return Ok(beside(&self.db)?);
        }
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
            beside(&tx)?;
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
