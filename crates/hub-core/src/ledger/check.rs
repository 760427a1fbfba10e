//! `ledger check`: rebuilds every balance and names every invariant that does not hold.

use std::collections::{BTreeMap, HashMap, HashSet};

use idlewatt_protocol::{MicroCredits, RequestId};

use super::{AccountName, Journal, Limit, PostingId, Purpose};

/// A balance as the shell keeps it beside the transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBalance {
    /// Whose.
    pub account: AccountName,
    /// How far it may owe.
    pub limit: Limit,
    /// How much.
    pub balance: MicroCredits,
}

/// The figures of one receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptFigures {
    /// Its request.
    pub id: RequestId,
    /// Who paid.
    pub account: AccountName,
    /// What it says was paid.
    pub cost: MicroCredits,
    /// What it says went to the hub.
    pub fee: MicroCredits,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Two postings with one id.
    #[error("{0} was posted more than once")]
    PostedTwice(PostingId),
    /// More than was reserved.
    #[error("{id} took {total} micro-credits where {} were reserved", reserved.0)]
    OverReserved {
        /// Which.
        id: PostingId,
        /// What it took.
        total: i128,
        /// What was reserved.
        reserved: MicroCredits,
    },
    /// A line of no or negative amount, a line back to the payer, or no line at all.
    #[error("{0} holds a line that moves nothing, or moves it in a circle")]
    EmptyLine(PostingId),
    /// An account of a posting is not kept.
    #[error("{id} names the account {account}, which does not exist")]
    UnknownAccount {
        /// Which.
        id: PostingId,
        /// Whose.
        account: AccountName,
    },
    /// What is kept is not what the transfers add up to.
    #[error("the balance of {account} is kept as {} micro-credits, its transfers add up to {rebuilt}", kept.0)]
    Balance {
        /// Whose.
        account: AccountName,
        /// As kept.
        kept: MicroCredits,
        /// As rebuilt.
        rebuilt: i128,
    },
    /// Below the limit.
    #[error("{account} owes {} micro-credits, more than its limit of {}", owed.0, overdraft.0)]
    Limit {
        /// Whose.
        account: AccountName,
        /// How much it owes.
        owed: MicroCredits,
        /// How much it may.
        overdraft: MicroCredits,
    },
    /// Debits and credits differ.
    #[error("all balances together are {0} micro-credits, not 0: debits and credits differ")]
    Unbalanced(i128),
    /// Two receipts of one request.
    #[error("{0} has more than one receipt")]
    ReceiptTwice(RequestId),
    /// Paid, and no receipt.
    #[error("{0} was paid for and has no receipt")]
    NoReceipt(PostingId),
    /// A receipt whose figures are not those of its posting.
    #[error("the receipt of {id} says {} micro-credits from {account}, the ledger says {posted} from {payer}", cost.0)]
    OtherCost {
        /// Which.
        id: RequestId,
        /// The receipt's consumer.
        account: AccountName,
        /// The receipt's cost.
        cost: MicroCredits,
        /// What was posted.
        posted: i128,
        /// From whom.
        payer: AccountName,
    },
    /// The fee of the receipt did not reach the fee account.
    #[error("the receipt of {id} says a fee of {} micro-credits, the ledger says {posted}", fee.0)]
    OtherFee {
        /// Which.
        id: RequestId,
        /// The receipt's fee.
        fee: MicroCredits,
        /// What was posted.
        posted: i128,
    },
    /// A receipt over a cost that was never posted.
    #[error("the receipt of {id} says {} micro-credits were paid, and nothing was posted", cost.0)]
    NeverPosted {
        /// Which.
        id: RequestId,
        /// The receipt's cost.
        cost: MicroCredits,
    },
}

/// Replays the journal and checks every invariant of the ledger, and its receipts against it.
///
/// # Errors
/// When the journal cannot be read; breaches are no error but the answer.
pub fn check<J: Journal>(
    journal: &mut J,
    kept: &[KeptBalance],
    receipts: impl IntoIterator<Item = ReceiptFigures>,
) -> Result<Vec<Breach>, J::Error> {
    let mut breaches = Vec::new();
    let mut rebuilt: BTreeMap<AccountName, i128> =
        kept.iter().map(|kept| (kept.account.clone(), 0)).collect();
    let mut seen = HashSet::new();
    let mut paid: HashMap<PostingId, (AccountName, i128, i128)> = HashMap::new();
    let fees = AccountName::fees();
    journal.replay(&mut |posting| {
        let id = posting.id;
        if !seen.insert(id) {
            breaches.push(Breach::PostedTwice(id));
        }
        let total = posting.total();
        if total > i128::from(posting.reserved.0) {
            breaches.push(Breach::OverReserved { id, total, reserved: posting.reserved });
        }
        let empty = |credit: &super::Credit| credit.amount <= MicroCredits::ZERO || credit.to == posting.from;
        if posting.credits.is_empty() || posting.credits.iter().any(empty) {
            breaches.push(Breach::EmptyLine(id));
        }
        let payer = std::iter::once((&posting.from, -total));
        let receivers = posting.credits.iter().map(|credit| (&credit.to, i128::from(credit.amount.0)));
        for (account, amount) in payer.chain(receivers) {
            match rebuilt.get_mut(account) {
                Some(balance) => *balance += amount,
                None => breaches.push(Breach::UnknownAccount { id, account: account.clone() }),
            }
        }
        if posting.purpose == Purpose::Request {
            let fee = posting.credits.iter().filter(|credit| credit.to == fees);
            let fee = fee.map(|credit| i128::from(credit.amount.0)).sum();
            paid.insert(id, (posting.from, total, fee));
        }
    })?;

    for KeptBalance { account, limit, balance } in kept {
        let sum = rebuilt.get(account).copied().unwrap_or_default();
        if sum != i128::from(balance.0) {
            breaches.push(Breach::Balance { account: account.clone(), kept: *balance, rebuilt: sum });
        }
        if let Limit::Overdraft(overdraft) = limit
            && i128::from(balance.0) < -i128::from(overdraft.0)
        {
            let owed = MicroCredits(balance.0.saturating_neg());
            breaches.push(Breach::Limit { account: account.clone(), owed, overdraft: *overdraft });
        }
    }
    let sum: i128 = kept.iter().map(|kept| i128::from(kept.balance.0)).sum();
    if sum != 0 {
        breaches.push(Breach::Unbalanced(sum));
    }

    let mut answered = HashSet::new();
    for ReceiptFigures { id, account, cost, fee } in receipts {
        if !answered.insert(id) {
            breaches.push(Breach::ReceiptTwice(id));
            continue;
        }
        match paid.remove(&id.into()) {
            Some((payer, posted, posted_fee)) => {
                if posted_fee != i128::from(fee.0) {
                    breaches.push(Breach::OtherFee { id, fee, posted: posted_fee });
                }
                if posted != i128::from(cost.0) || payer != account {
                    breaches.push(Breach::OtherCost { id, account, cost, posted, payer });
                }
            }
            None if cost != MicroCredits::ZERO => breaches.push(Breach::NeverPosted { id, cost }),
            None => {}
        }
    }
    let mut unreceipted: Vec<PostingId> = paid.into_keys().collect();
    unreceipted.sort_unstable();
    breaches.extend(unreceipted.into_iter().map(Breach::NoReceipt));
    Ok(breaches)
}
