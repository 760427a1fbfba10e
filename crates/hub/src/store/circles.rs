//! Circles: groups that settle among their members, whom hosts refuse, and whose accounts are suspended.

use std::sync::Arc;

use idlewatt_hub_core::circles::{Directory, Refusals};
use idlewatt_hub_core::ledger::{AccountName, CannotLimit, Limit};
use idlewatt_protocol::MicroCredits;
use idlewatt_protocol::units::MAX_SAFE_INTEGER;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::journal::{account_at, maybe_account_at};
use super::schema::{set_setting, setting};
use super::writer::{Writer, now};
use super::{Account, Store, StoreError};

/// A group of accounts that lend to each other up to a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub group: AccountName,
    /// How far a member may owe that has no limit of its own.
    pub overdraft_ucr: MicroCredits,
    /// Its members.
    pub members: Vec<Member>,
    /// All their balances together: what the group is owed by others, or owes. 0 where its members only ever answered each
    /// other and nothing was granted.
    pub balance_ucr: MicroCredits,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub account: AccountName,
    /// Credits less debits.
    pub balance_ucr: MicroCredits,
    /// How far it may owe.
    pub overdraft_ucr: MicroCredits,
}

/// Whom a host refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// One account.
    Account(AccountName),
    /// Everybody of a group, whoever comes to it.
    Group(AccountName),
}

impl Store {
    /// Who is in which circle, and whom hosts refuse: as it is, and as it becomes. Memory only.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.0.state.follow_directory()
    }

    /// Makes a group whose members may each owe up to `overdraft`.
    ///
    /// # Errors
    /// When it exists, the overdraft is out of range, or nothing could be kept.
    pub async fn create_group(
        &self,
        group: AccountName,
        overdraft: MicroCredits,
    ) -> Result<Group, StoreError> {
        self.run(move |writer| writer.create_group(&group, overdraft)).await
    }

    /// Puts an account into a group, out of the one it was in. It may owe what the group's members may, or `overdraft`.
    ///
    /// # Errors
    /// When there is no such group or account, or the account owes more than it then may.
    pub async fn join_group(
        &self,
        group: AccountName,
        account: AccountName,
        overdraft: Option<MicroCredits>,
    ) -> Result<Account, StoreError> {
        self.run(move |writer| writer.join_group(&group, &account, overdraft)).await
    }

    /// Takes an account out of its group; from then on it may owe nothing.
    ///
    /// # Errors
    /// When it is not in that group, or owes something.
    pub async fn leave_group(&self, group: AccountName, account: AccountName) -> Result<Account, StoreError> {
        self.run(move |writer| writer.leave_group(&group, &account)).await
    }

    /// Sets what every member of a group may owe.
    ///
    /// # Errors
    /// When there is no such group, or a member owes more.
    pub async fn limit_group(
        &self,
        group: AccountName,
        overdraft: MicroCredits,
    ) -> Result<Group, StoreError> {
        self.run(move |writer| writer.limit_group(&group, overdraft)).await
    }

    /// Every group.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.run(|writer| Ok(groups(&writer.db, None)?)).await
    }

    /// One group.
    ///
    /// # Errors
    /// When there is none, or the database cannot be read.
    pub async fn group(&self, group: AccountName) -> Result<Group, StoreError> {
        self.run(move |writer| writer.group(&group)).await
    }

    /// Sets whether the nodes of `host` refuse somebody's requests.
    ///
    /// # Errors
    /// When there is no such account or group, or it is the host itself.
    pub async fn refuse(
        &self,
        host: AccountName,
        whom: Whom,
        is_refused: bool,
    ) -> Result<Account, StoreError> {
        self.run(move |writer| writer.refuse(&host, &whom, is_refused)).await
    }

    /// Stops an account from asking for anything, and breaks off what runs for it; or lets it ask again. Its nodes earn on,
    /// and its receipts can be fetched.
    ///
    /// # Errors
    /// When there is no such account, or nothing could be kept.
    pub async fn suspend(&self, account: AccountName, is_suspended: bool) -> Result<Account, StoreError> {
        self.run(move |writer| writer.suspend(&account, is_suspended)).await
    }

    /// Sets whether this hub is open to strangers: then accounts of no group do not share with each other. Without a word,
    /// only says how it is.
    ///
    /// # Errors
    /// When nothing could be kept.
    pub async fn strangers(&self, are_let_in: Option<bool>) -> Result<bool, StoreError> {
        self.run(move |writer| {
            if let Some(are_let_in) = are_let_in {
                set_setting(&writer.db, "open", if are_let_in { "yes" } else { "no" })?;
                writer.reload_directory()?;
            }
            Ok(is_open(&writer.db)?)
        })
        .await
    }
}

impl Writer {
    pub(super) fn create_group(
        &mut self,
        group: &AccountName,
        overdraft: MicroCredits,
    ) -> Result<Group, StoreError> {
        within_range(overdraft)?;
        self.must_be_a_persons(group)?;
        let made = self.db.execute(
            "INSERT INTO circle VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![group.as_str(), overdraft.0, now().0],
        )?;
        if made == 0 {
            return Err(StoreError::GroupExists(group.clone()));
        }
        self.group(group)
    }

    pub(super) fn join_group(
        &mut self,
        group: &AccountName,
        account: &AccountName,
        overdraft: Option<MicroCredits>,
    ) -> Result<Account, StoreError> {
        self.must_be_a_persons(account)?;
        let overdraft = overdraft.unwrap_or(self.group(group)?.overdraft_ucr);
        self.must_exist(account)?;
        self.place(account, Some(group), overdraft)?;
        self.account(account)
    }

    fn leave_group(&mut self, group: &AccountName, account: &AccountName) -> Result<Account, StoreError> {
        if self.account(account)?.group.as_ref() != Some(group) {
            self.group(group)?;
            return Err(StoreError::NoMember { group: group.clone(), account: account.clone() });
        }
        self.place(account, None, MicroCredits::ZERO)?;
        self.account(account)
    }

    fn limit_group(&mut self, group: &AccountName, overdraft: MicroCredits) -> Result<Group, StoreError> {
        within_range(overdraft)?;
        let members = self.group(group)?.members;
        for member in &members {
            let standing = self.state.ledger().standing(&member.account);
            let owed = standing.map_or(MicroCredits::ZERO, |it| it.reserved - it.balance);
            if owed > overdraft {
                return Err(CannotLimit::Owes { account: member.account.clone(), owed, overdraft }.into());
            }
        }
        self.db.execute(
            "UPDATE circle SET overdraft = ?2 WHERE name = ?1",
            params![group.as_str(), overdraft.0],
        )?;
        for member in members {
            self.place(&member.account, Some(group), overdraft)?;
        }
        self.group(group)
    }

    /// What an account may owe, and its group. What is kept never allows less than what is owed, whichever of the two,
    /// memory and disk, fails or is late: a lower limit begins in memory, a higher one on the disk.
    fn place(
        &mut self,
        account: &AccountName,
        group: Option<&AccountName>,
        overdraft: MicroCredits,
    ) -> Result<(), StoreError> {
        within_range(overdraft)?;
        let before = self.state.ledger().standing(account).map(|standing| standing.limit);
        let is_lower = matches!(before, Some(Limit::Overdraft(before)) if overdraft < before);
        if is_lower {
            self.state.ledger().limit(account, overdraft)?;
        }
        let kept = self.db.execute(
            "UPDATE account SET circle = ?2, overdraft = ?3 WHERE name = ?1",
            params![account.as_str(), group.map(AccountName::as_str), overdraft.0],
        );
        match (kept, before) {
            (Ok(_), _) => {
                self.state.ledger().limit(account, overdraft)?;
                self.reload_directory()
            }
            (Err(error), before) => {
                if let (true, Some(Limit::Overdraft(before))) = (is_lower, before) {
                    self.state.ledger().limit(account, before)?;
                }
                Err(error.into())
            }
        }
    }

    fn refuse(&mut self, host: &AccountName, whom: &Whom, is_refused: bool) -> Result<Account, StoreError> {
        self.must_exist(host)?;
        self.must_be_a_persons(host)?;
        let (kind, name) = match whom {
            Whom::Account(account) if account == host => return Err(StoreError::RefusesItself(host.clone())),
            Whom::Account(account) => {
                self.must_exist(account)?;
                ("account", account)
            }
            Whom::Group(group) => {
                self.group(group)?;
                ("group", group)
            }
        };
        let change = if is_refused {
            "INSERT INTO refusal VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM refusal WHERE host = ?1 AND kind = ?2 AND whom = ?3"
        };
        self.db.execute(change, params![host.as_str(), kind, name.as_str()])?;
        self.reload_directory()?;
        self.account(host)
    }

    fn suspend(&mut self, account: &AccountName, is_suspended: bool) -> Result<Account, StoreError> {
        self.must_exist(account)?;
        self.must_be_a_persons(account)?;
        let at = is_suspended.then(|| now().0);
        self.db.execute(
            "UPDATE account SET suspended = CASE WHEN ?2 IS NULL THEN NULL ELSE coalesce(suspended, ?2) END WHERE name = ?1",
            params![account.as_str(), at],
        )?;
        self.state.suspend(account, is_suspended);
        self.account(account)
    }

    pub(super) fn group(&self, group: &AccountName) -> Result<Group, StoreError> {
        groups(&self.db, Some(group))?.pop().ok_or_else(|| StoreError::UnknownGroup(group.clone()))
    }

    fn reload_directory(&self) -> Result<(), StoreError> {
        self.state.set_directory(load_directory(&self.db)?);
        Ok(())
    }
}

fn within_range(overdraft: MicroCredits) -> Result<(), StoreError> {
    if (0..=MAX_SAFE_INTEGER).contains(&overdraft.0) {
        Ok(())
    } else {
        Err(CannotLimit::Range(overdraft).into())
    }
}

fn groups(db: &Connection, one: Option<&AccountName>) -> rusqlite::Result<Vec<Group>> {
    let mut select = db.prepare_cached(
        "SELECT circle.name, circle.overdraft, account.name, account.balance, account.overdraft \
         FROM circle LEFT JOIN account ON circle = circle.name WHERE circle.name = coalesce(?1, circle.name) \
         ORDER BY circle.name, account.name",
    )?;
    let mut groups: Vec<Group> = Vec::new();
    let mut rows = select.query([one.map(AccountName::as_str)])?;
    while let Some(row) = rows.next()? {
        let group = account_at(row, 0)?;
        if groups.last().is_none_or(|last| last.group != group) {
            groups.push(Group {
                group,
                overdraft_ucr: MicroCredits(row.get(1)?),
                members: Vec::new(),
                balance_ucr: MicroCredits::ZERO,
            });
        }
        if let (Some(last), Some(account)) = (groups.last_mut(), maybe_account_at(row, 2)?) {
            let balance_ucr = MicroCredits(row.get(3)?);
            last.balance_ucr = last.balance_ucr.saturating_add(balance_ucr);
            last.members.push(Member { account, balance_ucr, overdraft_ucr: MicroCredits(row.get(4)?) });
        }
    }
    Ok(groups)
}

/// Whom one host refuses.
pub(super) fn refusals(db: &Connection, host: &AccountName) -> rusqlite::Result<Refusals> {
    let mut refusals = Refusals::default();
    let mut select = db.prepare_cached("SELECT kind, whom FROM refusal WHERE host = ?1")?;
    let mut rows = select.query([host.as_str()])?;
    while let Some(row) = rows.next()? {
        let whom = account_at(row, 1)?;
        match row.get_ref(0)?.as_str()? {
            "account" => refusals.accounts.insert(whom),
            _ => refusals.groups.insert(whom),
        };
    }
    Ok(refusals)
}

/// Who is in which circle, from the database.
pub(super) fn load_directory(db: &Connection) -> rusqlite::Result<Directory> {
    let mut directory = Directory::new(is_open(db)?);
    let mut select = db.prepare_cached("SELECT name, circle FROM account WHERE circle IS NOT NULL")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        directory.place(account_at(row, 0)?, maybe_account_at(row, 1)?);
    }
    let mut select = db.prepare_cached("SELECT DISTINCT host FROM refusal")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let host = account_at(row, 0)?;
        let refusals = refusals(db, &host)?;
        directory.refuse(host, refusals);
    }
    Ok(directory)
}

fn is_open(db: &Connection) -> rusqlite::Result<bool> {
    Ok(setting(db, "open")?.as_deref() == Some("yes"))
}
