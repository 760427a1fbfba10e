use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A journal in memory that refuses when told to, as a full disk does.
#[derive(Default)]
struct Memory {
    kept: Vec<Posting>,
    full: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Full;

impl Memory {
    fn holds(&self, id: PostingId) -> bool {
        self.kept.iter().any(|posting| posting.id == id)
    }
}

impl Journal for Memory {
    type Error = Full;

    fn append(&mut self, batch: &[Posting]) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.kept.extend_from_slice(batch);
        Ok(())
    }

    fn replay(&mut self, each: &mut dyn FnMut(Posting)) -> Result<(), Full> {
        self.kept.iter().cloned().for_each(each);
        Ok(())
    }
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn id(byte: u8) -> PostingId {
    PostingId([byte; 16])
}

fn ledger(overdraft: i64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.open_account(AccountName::issuance(), Limit::None, MicroCredits::ZERO);
    ledger.open_account(AccountName::fees(), Limit::Overdraft(MicroCredits::ZERO), MicroCredits::ZERO);
    for account in ["a", "b", "c"] {
        ledger.open_account(name(account), Limit::Overdraft(MicroCredits(overdraft)), MicroCredits::ZERO);
    }
    ledger
}

fn posting(id: PostingId, from: &str, reserved: i64, credits: &[(&str, i64)]) -> Posting {
    let credits =
        credits.iter().map(|(to, amount)| Credit { to: name(to), amount: MicroCredits(*amount) }).collect();
    Posting {
        id,
        at: UnixMillis(1),
        purpose: Purpose::Request,
        from: name(from),
        reserved: MicroCredits(reserved),
        credits,
    }
}

/// What a shell does with one posting.
fn post(ledger: &mut Ledger, journal: &mut Memory, posting: &Posting) -> Result<(), String> {
    ledger.stage(posting).map_err(|refused| refused.to_string())?;
    if journal.append(std::slice::from_ref(posting)).is_err() {
        ledger.roll_back(posting.id);
        return Err("full".into());
    }
    ledger.commit(posting);
    Ok(())
}

fn balance(ledger: &Ledger, account: &str) -> i64 {
    ledger.standing(&name(account)).unwrap().balance.0
}

fn kept(ledger: &Ledger) -> Vec<KeptBalance> {
    let standings = ["a", "b", "c", "fees", "issuance"].map(|account| {
        let standing = ledger.standing(&name(account)).unwrap();
        KeptBalance { account: name(account), limit: standing.limit, balance: standing.balance }
    });
    standings.into()
}

#[test]
fn nobody_reserves_more_than_balance_and_overdraft() {
    let mut ledger = ledger(100);
    ledger.reserve(id(1), &name("a"), MicroCredits(60)).unwrap();
    let refused = ledger.reserve(id(2), &name("a"), MicroCredits(41)).unwrap_err();
    assert!(matches!(refused, ReserveError::Insufficient { available: MicroCredits(40), .. }), "{refused}");
    ledger.void(id(1));
    ledger.void(id(1));
    assert_eq!(ledger.reserve(id(2), &name("a"), MicroCredits(100)), Ok(()));
    assert!(matches!(
        ledger.reserve(id(3), &name("nobody"), MicroCredits(0)),
        Err(ReserveError::UnknownAccount(_))
    ));
    assert!(ledger.reserve(id(3), &name("b"), MicroCredits(-1)).is_err());
    assert!(ledger.reserve(id(3), &AccountName::issuance(), MicroCredits(1 << 40)).is_ok());
}

#[test]
fn a_limit_is_never_set_below_what_is_owed() {
    let mut ledger = ledger(100);
    ledger.reserve(id(1), &name("a"), MicroCredits(60)).unwrap();
    let refused = ledger.limit(&name("a"), MicroCredits(59)).unwrap_err();
    assert!(matches!(refused, CannotLimit::Owes { owed: MicroCredits(60), .. }), "{refused}");
    assert_eq!(ledger.limit(&name("a"), MicroCredits(60)), Ok(Limit::Overdraft(MicroCredits(100))));
    assert!(ledger.reserve(id(2), &name("a"), MicroCredits(1)).is_err());
    for (account, overdraft) in [("nobody", 1), ("a", -1), ("a", i64::MAX)] {
        assert!(ledger.limit(&name(account), MicroCredits(overdraft)).is_err());
    }
}

#[test]
fn a_posting_takes_what_it_costs_and_voids_the_rest() {
    let (mut ledger, mut journal) = (ledger(100), Memory::default());
    ledger.reserve(id(1), &name("a"), MicroCredits(90)).unwrap();
    post(&mut ledger, &mut journal, &posting(id(1), "a", 90, &[("b", 30), ("fees", 3)])).unwrap();
    assert_eq!((balance(&ledger, "a"), balance(&ledger, "b"), balance(&ledger, "fees")), (-33, 30, 3));
    assert_eq!(ledger.standing(&name("a")).unwrap().available(), MicroCredits(67));
}

#[test]
fn nothing_is_posted_that_was_not_reserved_just_so() {
    let mut ledger = ledger(100);
    ledger.reserve(id(1), &name("a"), MicroCredits(50)).unwrap();
    let mut refused = |posting| ledger.stage(&posting).unwrap_err();
    assert!(matches!(refused(posting(id(2), "a", 50, &[("b", 1)])), Refused::NotReserved(_)));
    assert!(matches!(refused(posting(id(1), "b", 50, &[("a", 1)])), Refused::OtherReservation(_)));
    assert!(matches!(refused(posting(id(1), "a", 51, &[("b", 1)])), Refused::OtherReservation(_)));
    assert!(matches!(refused(posting(id(1), "a", 50, &[("b", 51)])), Refused::OverReserved { .. }));
    assert!(matches!(refused(posting(id(1), "a", 50, &[("b", 0)])), Refused::EmptyLine(_)));
    assert!(matches!(refused(posting(id(1), "a", 50, &[("b", 9), ("b", -9)])), Refused::EmptyLine(_)));
    assert!(matches!(refused(posting(id(1), "a", 50, &[("a", 5)])), Refused::EmptyLine(_)));
    assert!(matches!(refused(posting(id(1), "a", 50, &[("x", 5)])), Refused::UnknownAccount(_)));
}

#[test]
fn a_posting_under_way_is_neither_voided_nor_posted_twice() {
    let mut ledger = ledger(100);
    let paid = posting(id(1), "a", 50, &[("b", 20)]);
    ledger.reserve(id(1), &name("a"), MicroCredits(50)).unwrap();
    ledger.stage(&paid).unwrap();
    assert_eq!(ledger.stage(&paid), Err(Refused::Staged(id(1))));
    ledger.void(id(1));
    assert_eq!(ledger.standing(&name("a")).unwrap().available(), MicroCredits(50));
    ledger.commit(&paid);
    ledger.commit(&paid);
    assert_eq!(balance(&ledger, "a"), -20);
    assert_eq!(ledger.stage(&paid), Err(Refused::NotReserved(id(1))));
}

#[test]
fn a_full_disk_changes_nothing_and_the_posting_can_be_tried_again() {
    let (mut ledger, mut journal) = (ledger(100), Memory { full: true, ..Memory::default() });
    let paid = posting(id(1), "a", 50, &[("b", 20)]);
    ledger.reserve(id(1), &name("a"), MicroCredits(50)).unwrap();
    assert!(post(&mut ledger, &mut journal, &paid).is_err());
    assert_eq!(balance(&ledger, "a"), 0);
    journal.full = false;
    post(&mut ledger, &mut journal, &paid).unwrap();
    assert_eq!(balance(&ledger, "b"), 20);
}

#[test]
fn every_breach_is_named() {
    let owing = |account: &str, balance: i64| KeptBalance {
        account: name(account),
        limit: Limit::Overdraft(MicroCredits(10)),
        balance: MicroCredits(balance),
    };
    let mut journal = Memory {
        kept: vec![
            posting(id(1), "a", 50, &[("b", 20)]),
            posting(id(1), "a", 50, &[("b", 5)]),
            posting(id(2), "a", 1, &[("b", 2)]),
            posting(id(3), "a", 1, &[("x", 1)]),
            posting(id(4), "a", 1, &[]),
            posting(id(5), "a", 9, &[("b", 9)]),
        ],
        full: false,
    };
    let receipt = |byte: u8, cost: i64, fee: i64| ReceiptFigures {
        id: RequestId([byte; 16]),
        account: name("a"),
        cost: MicroCredits(cost),
        fee: MicroCredits(fee),
    };
    let receipts = [
        receipt(1, 5, 0),
        receipt(1, 5, 0),
        receipt(2, 3, 1),
        receipt(3, 1, 0),
        receipt(4, 0, 0),
        receipt(7, 0, 0),
        receipt(8, 4, 0),
    ];
    let breaches = check(&mut journal, &[owing("a", -37), owing("b", 30)], receipts).unwrap();
    let words: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn account_names_are_plain() {
    for good in ["a", "Anna.B", "team-1", "me@home", "issuance"] {
        assert_eq!(name(good).as_str(), good);
    }
    for bad in ["", "-a", "a b", "é", "a/b", "a\n", &"x".repeat(65)] {
        assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
    }
    assert!(name("issuance").is_hubs_own() && name("fees").is_hubs_own() && !name("anna").is_hubs_own());
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { id: u8, account: usize, amount: i64 },
    Void { id: u8 },
    Post { id: u8, cost: i64, to: usize, fee: i64 },
    Grant { id: u8, account: usize, amount: i64 },
    Limit { account: usize, overdraft: i64 },
    DiskFull(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u8..24;
    let step = prop_oneof![
        4 => (id.clone(), 0usize..3, 0i64..400).prop_map(|(id, account, amount)| Step::Reserve { id, account, amount }),
        1 => id.clone().prop_map(|id| Step::Void { id }),
        4 => (id.clone(), 0i64..400, 0usize..3, 0i64..20)
            .prop_map(|(id, cost, to, fee)| Step::Post { id, cost, to, fee }),
        1 => (id, 0usize..3, 0i64..1000).prop_map(|(id, account, amount)| Step::Grant { id, account, amount }),
        1 => (0usize..3, -1i64..300).prop_map(|(account, overdraft)| Step::Limit { account, overdraft }),
        1 => any::<bool>().prop_map(Step::DiskFull),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever is tried, in whatever order, with ids used again and a disk that comes and goes: money is neither made
    /// nor lost, nobody owes more than allowed, each id is posted once, and replay gives the same balances.
    #[test]
    fn no_sequence_of_steps_breaks_an_invariant(steps in steps(), overdraft in 0i64..300) {
        let people = ["a", "b", "c"];
        let (mut ledger, mut journal) = (ledger(overdraft), Memory::default());
        let mut reserved: BTreeMap<u8, (usize, i64)> = BTreeMap::new();
        let mut receipts = Vec::new();
        for step in steps {
            match step {
                Step::Reserve { id: byte, account, amount } => {
                    // A shell never admits an id again that was posted.
                    if !journal.holds(id(byte))
                        && ledger.reserve(id(byte), &name(people[account]), MicroCredits(amount)).is_ok()
                    {
                        prop_assert!(reserved.insert(byte, (account, amount)).is_none());
                    }
                }
                Step::Void { id: byte } => {
                    ledger.void(id(byte));
                    reserved.remove(&byte);
                }
                Step::Post { id: byte, cost, to, fee } => {
                    let (from, amount) = reserved.get(&byte).copied().unwrap_or((0, 500));
                    let credits = [(people[to], cost), ("fees", fee)];
                    let paid = posting(id(byte), people[from], amount, &credits);
                    if post(&mut ledger, &mut journal, &paid).is_ok() {
                        prop_assert!(cost + fee <= amount);
                        prop_assert!(reserved.remove(&byte).is_some());
                        receipts.push(ReceiptFigures {
                            id: RequestId([byte; 16]),
                            account: name(people[from]),
                            cost: MicroCredits(cost + fee),
                            fee: MicroCredits(fee),
                        });
                    }
                }
                Step::Grant { id: byte, account, amount } => {
                    let issuance = AccountName::issuance();
                    let byte = byte + 100;
                    if !journal.holds(id(byte))
                        && ledger.reserve(id(byte), &issuance, MicroCredits(amount)).is_ok()
                    {
                        let grant = Posting {
                            purpose: Purpose::Grant,
                            ..posting(id(byte), "issuance", amount, &[(people[account], amount)])
                        };
                        let _ = post(&mut ledger, &mut journal, &grant);
                        ledger.void(id(byte));
                    }
                }
                Step::Limit { account, overdraft } => {
                    let _ = ledger.limit(&name(people[account]), MicroCredits(overdraft));
                }
                Step::DiskFull(full) => journal.full = full,
            }
            for account in people {
                let standing = ledger.standing(&name(account)).unwrap();
                let Limit::Overdraft(overdraft) = standing.limit else { panic!("{account} has no limit") };
                prop_assert!(overdraft.0 >= 0 && standing.balance.0 - standing.reserved.0 >= -overdraft.0);
            }
        }
        let breaches = check(&mut journal, &kept(&ledger), receipts).unwrap();
        prop_assert_eq!(breaches, vec![]);
        let mut replayed = self::ledger(overdraft);
        journal.replay(&mut |posting| replayed.apply(&posting)).unwrap();
        for account in ["a", "b", "c", "fees", "issuance"] {
            prop_assert_eq!(balance(&replayed, account), balance(&ledger, account));
        }
    }
}
