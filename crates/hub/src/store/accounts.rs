//! Accounts and grants: who may spend how much.

use idlewatt_hub_core::circles::Refusals;
use idlewatt_hub_core::ledger::{
    AccountName, Credit, Journal, Ledger, Limit, Posting, PostingId, Purpose, ReserveError, Tallies,
};
use idlewatt_protocol::{MicroCredits, UnixMillis};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::journal::{SqliteJournal, account_at, maybe_account_at};
use super::writer::{Writer, now};
use super::{Store, StoreError, circles, months};

/// An account, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub account: AccountName,
    /// Its name in receipts, by which hosts know it.
    pub pseudonym: String,
    /// Credits less debits.
    pub balance_ucr: MicroCredits,
    /// Set aside for requests under way.
    pub reserved_ucr: MicroCredits,
    /// How far it may owe; `None`: without limit.
    pub overdraft_ucr: Option<MicroCredits>,
    /// The group that it is in.
    pub group: Option<AccountName>,
    /// Since when it may not ask for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<UnixMillis>,
    /// Whose requests its nodes refuse.
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub refuses: Refusals,
    /// When it was made.
    pub created: UnixMillis,
}

fn is_nobody(refusals: &Refusals) -> bool {
    *refusals == Refusals::default()
}

impl Store {
    /// Every account with its balance, the hub's own included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.run(|writer| writer.accounts(None)).await
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
    /// When there is no such account, it settles with a group, where nothing is minted, it cannot give that much back, or
    /// nothing could be kept.
    pub async fn credit(&self, name: AccountName, amount: MicroCredits) -> Result<Account, StoreError> {
        self.run(move |writer| {
            writer.must_be_a_persons(&name)?;
            writer.grant(&name, amount, |_| Ok(()))?;
            writer.account(&name)
        })
        .await
    }
}

impl Writer {
    pub(super) fn must_be_a_persons(&self, account: &AccountName) -> Result<(), StoreError> {
        if account.is_hubs_own() { Err(StoreError::HubsOwn(account.clone())) } else { Ok(()) }
    }

    pub(super) fn must_exist(&self, account: &AccountName) -> Result<(), StoreError> {
        match self.state.ledger().standing(account) {
            Some(_) => Ok(()),
            None => Err(StoreError::UnknownAccount(account.clone())),
        }
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
        self.must_exist(account)?;
        if amount > MicroCredits::ZERO
            && let Some(group) = self.state.directory().group_of(account)
        {
            return Err(StoreError::Mints { account: account.clone(), group: group.clone() });
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
            let mut tallies = Tallies::default();
            tallies.post(&posting);
            months::add(&tx, &tallies)?;
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

    fn accounts(&self, one: Option<&AccountName>) -> Result<Vec<Account>, StoreError> {
        let mut select =
            self.db.prepare_cached("SELECT name, circle, overdraft, created, suspended FROM account WHERE name = coalesce(?1, name) ORDER BY name")?;
        let rows = select.query_map([one.map(AccountName::as_str)], |row| {
            Ok(Account {
                account: account_at(row, 0)?,
                pseudonym: String::new(),
                balance_ucr: MicroCredits::ZERO,
                reserved_ucr: MicroCredits::ZERO,
                overdraft_ucr: row.get::<_, Option<i64>>(2)?.map(MicroCredits),
                group: maybe_account_at(row, 1)?,
                suspended: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
                refuses: Refusals::default(),
                created: UnixMillis(row.get(3)?),
            })
        })?;
        let mut accounts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        for account in &mut accounts {
            account.refuses = circles::refusals(&self.db, &account.account)?;
            account.pseudonym = self.state.pseudonym(&account.account);
        }
        let ledger = self.state.ledger();
        for account in &mut accounts {
            if let Some(standing) = ledger.standing(&account.account) {
                account.balance_ucr = standing.balance;
                account.reserved_ucr = standing.reserved;
            }
        }
        Ok(accounts)
    }

    pub(super) fn account(&self, name: &AccountName) -> Result<Account, StoreError> {
        self.accounts(Some(name))?.pop().ok_or_else(|| StoreError::UnknownAccount(name.clone()))
    }
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
