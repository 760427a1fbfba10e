//! The ledger: accounts, reservations and postings as a pure state machine over a [`Journal`].
//!
//! Double entry in integer micro-credits. A [`Posting`] takes from one account and gives to others, all or nothing; it
//! has a unique id and is never changed. No account but [`AccountName::issuance`] falls below its overdraft limit,
//! because nothing is posted that was not reserved before. The life of a posting:
//!
//! ```text
//! reserve ──▶ stage ──▶ (journal: append, to the disk) ──▶ commit
//!    └─ void     └─ roll_back, when the disk refused
//! ```
//!
//! Staging and committing are apart so that a shell need not hold the ledger while the disk is busy: reservations go
//! on meanwhile, and the reserved amount stays set aside until the posting is durable.
//!
//! Not here: SQL, time-outs of reservations (the shell drops them) and receipts.

mod account;
mod bill;
mod check;
mod month;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use idlewatt_protocol::units::MAX_SAFE_INTEGER;
use idlewatt_protocol::{MicroCredits, RequestId, UnixMillis};

pub use account::{AccountName, AccountNameError, Limit};
pub use bill::{Bill, FeeRate, FeeRateError, Share, bill};
pub use check::{Breach, KeptBalance, ReceiptFigures, check};
pub use month::{CSV_HEAD, Month, MonthError, Statement, Tallies, Tally, kwh};

/// The unique id of a posting: the request's, or 16 random bytes of a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostingId(pub [u8; 16]);

impl From<RequestId> for PostingId {
    fn from(request: RequestId) -> Self {
        Self(request.0)
    }
}

impl std::fmt::Display for PostingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for PostingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What a posting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Pays for one request.
    Request,
    /// An operator's grant from, or return to, `issuance`.
    Grant,
}

/// One atomic movement: from one account to others. Immutable once kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Unique for all time.
    pub id: PostingId,
    /// When.
    pub at: UnixMillis,
    /// What for.
    pub purpose: Purpose,
    /// Who pays.
    pub from: AccountName,
    /// What had been reserved for it.
    pub reserved: MicroCredits,
    /// Who gets how much. Empty when nothing moves: such a posting is staged and committed, never appended.
    pub credits: Vec<Credit>,
}

impl Posting {
    /// What `from` pays, in 128 bits so that no journal can overflow a check.
    #[must_use]
    pub fn total(&self) -> i128 {
        self.credits.iter().map(|credit| i128::from(credit.amount.0)).sum()
    }
}

/// One line of a posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Who gets it.
    pub to: AccountName,
    /// How much; over zero.
    pub amount: MicroCredits,
}

/// Where postings are kept. One contract for every kind of disk.
pub trait Journal {
    /// Why the disk refused.
    type Error;

    /// Keeps the postings, all or none. Durable when the shell's transaction is.
    ///
    /// # Errors
    /// When the disk refuses; nothing of the batch is kept then.
    fn append(&mut self, batch: &[Posting]) -> Result<(), Self::Error>;

    /// Hands over every posting ever kept, oldest first.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn replay(&mut self, each: &mut dyn FnMut(Posting)) -> Result<(), Self::Error>;
}

/// Why an amount cannot be set aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// No such account.
    #[error("there is no account {0}")]
    UnknownAccount(AccountName),
    /// The account cannot cover it.
    #[error("{account} can spend {available} credits now, and this may cost up to {wanted}")]
    Insufficient {
        /// Whose.
        account: AccountName,
        /// What was to be reserved.
        wanted: MicroCredits,
        /// Balance and overdraft, less what is reserved.
        available: MicroCredits,
    },
    /// The id is already reserved.
    #[error("{0} is already reserved")]
    Reserved(PostingId),
    /// Negative, or past ±(2⁵³ − 1).
    #[error("{0:?} micro-credits is outside the ledger's range")]
    Range(MicroCredits),
}

/// Why a limit is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotLimit {
    /// No such account.
    #[error("there is no account {0}")]
    UnknownAccount(AccountName),
    /// It owes more than it then might.
    #[error(
        "{account} owes {owed} credits with what is under way, more than the {overdraft} it could owe then: let it earn, or \
         allow more"
    )]
    Owes {
        /// Who.
        account: AccountName,
        /// How much.
        owed: MicroCredits,
        /// How much it could.
        overdraft: MicroCredits,
    },
    /// Negative, or past 2⁵³ − 1.
    #[error("{0:?} micro-credits is outside the ledger's range: nobody can owe that")]
    Range(MicroCredits),
}

/// Why a posting is not taken. Each but `UnknownAccount` and `Range` is a defect of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing is reserved under this id: it was voided, posted before, or never admitted.
    #[error("nothing is reserved for {0}")]
    NotReserved(PostingId),
    /// The same id is being posted.
    #[error("{0} is being posted already")]
    Staged(PostingId),
    /// Another account, or another amount, was reserved.
    #[error("{0} was reserved differently")]
    OtherReservation(PostingId),
    /// More than was reserved.
    #[error("{id} would take {total} micro-credits, and {reserved} were reserved", reserved = reserved.0)]
    OverReserved {
        /// Which.
        id: PostingId,
        /// What it would take.
        total: i128,
        /// What may be taken.
        reserved: MicroCredits,
    },
    /// A line gives nothing, takes, or gives to the payer.
    #[error("{0} holds a line that moves nothing, or moves it in a circle")]
    EmptyLine(PostingId),
    /// A receiver does not exist.
    #[error("there is no account {0}")]
    UnknownAccount(AccountName),
    /// A balance would leave ±(2⁵³ − 1).
    #[error("the balance of {0} would leave the ledger's range")]
    Range(AccountName),
}

/// An account as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Credits less debits.
    pub balance: MicroCredits,
    /// How far below zero it may fall.
    pub limit: Limit,
    /// Set aside for requests under way.
    pub reserved: MicroCredits,
}

impl Standing {
    /// What can be reserved now, held at the range of 64 bits.
    #[must_use]
    pub fn available(&self) -> MicroCredits {
        match self.limit {
            Limit::None => MicroCredits(MAX_SAFE_INTEGER),
            Limit::Overdraft(overdraft) => {
                let exact =
                    i128::from(self.balance.0) + i128::from(overdraft.0) - i128::from(self.reserved.0);
                MicroCredits(i64::try_from(exact.max(0)).unwrap_or(i64::MAX))
            }
        }
    }
}

#[derive(Debug)]
struct Reserved {
    account: AccountName,
    amount: MicroCredits,
    staged: bool,
}

/// All accounts and what is reserved. Balances are those of durable postings only.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: HashMap<AccountName, Standing>,
    reservations: HashMap<PostingId, Reserved>,
}

impl Ledger {
    /// Adds an account with the balance that was kept for it, or changes the limit of one that is there.
    pub fn open_account(&mut self, name: AccountName, limit: Limit, balance: MicroCredits) {
        self.accounts.entry(name).and_modify(|standing| standing.limit = limit).or_insert(Standing {
            balance,
            limit,
            reserved: MicroCredits::ZERO,
        });
    }

    /// Changes how far an account may owe, never below what it owes now: reservations were granted under the old limit and
    /// count as owed. Gives the old one.
    ///
    /// # Errors
    /// When the account does not exist, owes more, or the limit is out of range; nothing changes then.
    pub fn limit(&mut self, account: &AccountName, overdraft: MicroCredits) -> Result<Limit, CannotLimit> {
        if !(0..=MAX_SAFE_INTEGER).contains(&overdraft.0) {
            return Err(CannotLimit::Range(overdraft));
        }
        let standing =
            self.accounts.get_mut(account).ok_or_else(|| CannotLimit::UnknownAccount(account.clone()))?;
        let owed = standing.reserved - standing.balance;
        if owed > overdraft {
            return Err(CannotLimit::Owes { account: account.clone(), owed, overdraft });
        }
        Ok(std::mem::replace(&mut standing.limit, Limit::Overdraft(overdraft)))
    }

    /// How an account stands; `None` when there is none.
    #[must_use]
    pub fn standing(&self, account: &AccountName) -> Option<Standing> {
        self.accounts.get(account).copied()
    }

    /// Sets `amount` aside under `id`, the worst case of what will be posted.
    ///
    /// # Errors
    /// When the account does not exist or cannot cover it, or the id is taken.
    pub fn reserve(
        &mut self,
        id: PostingId,
        account: &AccountName,
        amount: MicroCredits,
    ) -> Result<(), ReserveError> {
        if !(0..=MAX_SAFE_INTEGER).contains(&amount.0) {
            return Err(ReserveError::Range(amount));
        }
        if self.reservations.contains_key(&id) {
            return Err(ReserveError::Reserved(id));
        }
        let standing =
            self.accounts.get_mut(account).ok_or_else(|| ReserveError::UnknownAccount(account.clone()))?;
        let available = standing.available();
        let reserved = standing.reserved.checked_add(amount).filter(|_| amount <= available);
        let Some(reserved) = reserved else {
            return Err(ReserveError::Insufficient { account: account.clone(), wanted: amount, available });
        };
        standing.reserved = reserved;
        self.reservations.insert(id, Reserved { account: account.clone(), amount, staged: false });
        Ok(())
    }

    /// Gives back what is set aside under `id`, unless it is being posted. Unknown ids are no error: voiding twice is
    /// voiding once.
    pub fn void(&mut self, id: PostingId) {
        if self.reservations.get(&id).is_some_and(|reserved| !reserved.staged) {
            self.release(id);
        }
    }

    /// Checks a posting against its reservation and holds both until [`commit`](Self::commit) or
    /// [`roll_back`](Self::roll_back).
    ///
    /// # Errors
    /// When it may not be posted; nothing changes then.
    pub fn stage(&mut self, posting: &Posting) -> Result<(), Refused> {
        let id = posting.id;
        let reserved = self.reservations.get_mut(&id).ok_or(Refused::NotReserved(id))?;
        if reserved.staged {
            return Err(Refused::Staged(id));
        }
        if reserved.account != posting.from || reserved.amount != posting.reserved {
            return Err(Refused::OtherReservation(id));
        }
        let total = posting.total();
        if total > i128::from(reserved.amount.0) {
            return Err(Refused::OverReserved { id, total, reserved: reserved.amount });
        }
        let payer =
            self.accounts.get(&posting.from).ok_or_else(|| Refused::UnknownAccount(posting.from.clone()))?;
        if i128::from(payer.balance.0) - total < -i128::from(MAX_SAFE_INTEGER) {
            return Err(Refused::Range(posting.from.clone()));
        }
        for credit in &posting.credits {
            if credit.amount <= MicroCredits::ZERO || credit.to == posting.from {
                return Err(Refused::EmptyLine(id));
            }
            let receiver =
                self.accounts.get(&credit.to).ok_or_else(|| Refused::UnknownAccount(credit.to.clone()))?;
            // `total`, not the line: several lines may go to one account.
            if i128::from(receiver.balance.0) + total > i128::from(MAX_SAFE_INTEGER) {
                return Err(Refused::Range(credit.to.clone()));
            }
        }
        reserved.staged = true;
        Ok(())
    }

    /// The staged posting is durable: balances move, the rest of the reservation is void.
    pub fn commit(&mut self, posting: &Posting) {
        if !self.reservations.get(&posting.id).is_some_and(|reserved| reserved.staged) {
            return;
        }
        self.release(posting.id);
        self.apply(posting);
    }

    /// The disk refused the staged posting: it is as it was after `reserve`.
    pub fn roll_back(&mut self, id: PostingId) {
        if let Some(reserved) = self.reservations.get_mut(&id) {
            reserved.staged = false;
        }
    }

    /// Moves balances by a posting that a journal kept. For replay; accounts must be open.
    pub fn apply(&mut self, posting: &Posting) {
        for credit in &posting.credits {
            if let Some(payer) = self.accounts.get_mut(&posting.from) {
                payer.balance = MicroCredits(payer.balance.0.saturating_sub(credit.amount.0));
            }
            if let Some(receiver) = self.accounts.get_mut(&credit.to) {
                receiver.balance = receiver.balance.saturating_add(credit.amount);
            }
        }
    }

    fn release(&mut self, id: PostingId) {
        if let Some(reserved) = self.reservations.remove(&id)
            && let Some(standing) = self.accounts.get_mut(&reserved.account)
        {
            standing.reserved -= reserved.amount;
        }
    }
}
