use idlewatt_hub_core::circles::Relation;
use idlewatt_hub_core::ledger::{Month, Statement};

use super::*;

fn relation(store: &Store, asker: &str, host: &str) -> Option<Relation> {
    store.directory().borrow().relation(&name(asker), &name(host))
}

async fn hub(folder: &Path) -> Store {
    let store = open(folder);
    for account in ["anna", "ben", "cleo"] {
        store.create_key(name(account), MicroCredits::ZERO, KeyLimits::default()).await.unwrap();
    }
    store.create_group(name("home"), MicroCredits(500)).await.unwrap();
    store
}

#[tokio::test]
async fn a_circle_starts_at_zero_and_what_one_owes_another_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    let store = hub(folder.path()).await;
    for account in ["anna", "ben"] {
        store.join_group(name("home"), name(account), None).await.unwrap();
    }
    let (annas, bens) = (join(&store, "anna", 1).await, join(&store, "ben", 2).await);
    ask(&store, "anna", bens, 1, 80).await;
    ask(&store, "ben", annas, 2, 30).await;
    let home = store.group(name("home")).await.unwrap();
    let balances: Vec<i64> = home.members.iter().map(|it| it.balance_ucr.0).collect();
    assert_eq!((balances, home.balance_ucr), (vec![-50, 50], MicroCredits::ZERO));
    assert_eq!(balance(&store, "issuance").await, 0);
    let minted = store.credit(name("anna"), MicroCredits(1)).await.unwrap_err();
    assert!(minted.to_string().contains("nothing is minted"), "{minted}");
    let minted = store.create_key(name("anna"), MicroCredits(1), KeyLimits::default()).await.err().unwrap();
    assert!(matches!(minted, StoreError::Mints { .. }), "{minted}");
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_group_is_private_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = hub(folder.path()).await;
    let mut circles = store.directory();
    assert_eq!(relation(&store, "cleo", "ben"), Some(Relation::Circle), "the hub itself is the first circle");
    circles.mark_unchanged();
    store.join_group(name("home"), name("ben"), None).await.unwrap();
    assert!(circles.has_changed().unwrap());
    assert_eq!(relation(&store, "cleo", "ben"), Some(Relation::Stranger));
    store.refuse(name("anna"), Whom::Group(name("home")), true).await.unwrap();
    store.refuse(name("anna"), Whom::Account(name("cleo")), true).await.unwrap();
    assert_eq!((relation(&store, "ben", "anna"), relation(&store, "cleo", "anna")), (None, None));
    assert!(store.strangers(Some(true)).await.unwrap());
    drop((store, circles));
    let store = open(folder.path());
    assert_eq!(relation(&store, "cleo", "ben"), Some(Relation::Stranger));
    assert_eq!(relation(&store, "anna", "cleo"), Some(Relation::Stranger), "the hub is open");
    assert_eq!((relation(&store, "ben", "anna"), relation(&store, "cleo", "anna")), (None, None));
    let anna = store.refuse(name("anna"), Whom::Account(name("cleo")), false).await.unwrap();
    assert!(anna.refuses.accounts.is_empty() && anna.refuses.groups.contains(&name("home")));
    assert!(!store.strangers(Some(false)).await.unwrap());
    assert_eq!(relation(&store, "cleo", "anna"), Some(Relation::Circle));
}

#[tokio::test]
async fn an_invite_into_a_group_brings_its_account_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = hub(folder.path()).await;
    let nowhere = store.create_invite(name("dan"), true, Some(name("nowhere"))).await.unwrap_err();
    assert!(matches!(nowhere, StoreError::UnknownGroup(_)));
    assert!(store.account(name("dan")).await.is_err(), "and nothing was made");
    let invite = store.create_invite(name("dan"), true, Some(name("home"))).await.unwrap();
    login(&store, &node_key(4), Some(&invite), 0).await.unwrap();
    let dan = store.account(name("dan")).await.unwrap();
    assert_eq!((dan.group, dan.overdraft_ucr), (Some(name("home")), Some(MicroCredits(500))));
    assert!(login(&store, &node_key(5), Some(&invite), 0).await.is_err(), "an invite works once");
    store.join_group(name("home"), name("dan"), Some(MicroCredits(7))).await.unwrap();
    store.create_invite(name("dan"), true, Some(name("home"))).await.unwrap();
    let dan = store.account(name("dan")).await.unwrap();
    assert_eq!(dan.overdraft_ucr, Some(MicroCredits(7)), "who is there keeps a limit of its own");
}

#[tokio::test]
async fn limits_of_members_hold_for_what_they_owe() {
    let folder = tempfile::tempdir().unwrap();
    let store = hub(folder.path()).await;
    let node = join(&store, "ben", 2).await;
    let anna = store.join_group(name("home"), name("anna"), Some(MicroCredits(100))).await.unwrap();
    assert_eq!(anna.overdraft_ucr, Some(MicroCredits(100)));
    ask(&store, "anna", node, 1, 80).await;
    let owes = store.leave_group(name("home"), name("anna")).await.unwrap_err();
    assert!(owes.to_string().contains("anna owes"), "{owes}");
    let owes = store.limit_group(name("home"), MicroCredits(79)).await.unwrap_err();
    assert!(matches!(owes, StoreError::Limit(_)), "{owes}");
    let held = reserve(&store, 2, &consumer(&store, "anna").await, 20).unwrap();
    assert!(store.limit_group(name("home"), MicroCredits(99)).await.is_err(), "what is under way counts");
    drop(held);
    let home = store.limit_group(name("home"), MicroCredits(80)).await.unwrap();
    assert_eq!((home.overdraft_ucr, home.members[0].overdraft_ucr), (MicroCredits(80), MicroCredits(80)));
    assert_eq!(store.available(&name("anna")), MicroCredits::ZERO);
    // Ben has what anna owes: he may leave.
    store.join_group(name("home"), name("ben"), None).await.unwrap();
    let ben = store.leave_group(name("home"), name("ben")).await.unwrap();
    assert_eq!((ben.group, ben.overdraft_ucr), (None, Some(MicroCredits::ZERO)));
    assert_holds(folder.path());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = hub(folder.path()).await;
    for overdraft in [MicroCredits(-1), MicroCredits(i64::MIN), MicroCredits(i64::MAX)] {
        assert!(store.create_group(name("club"), overdraft).await.is_err());
        assert!(store.limit_group(name("home"), overdraft).await.is_err());
        assert!(store.join_group(name("home"), name("anna"), Some(overdraft)).await.is_err());
    }
    let (home, nowhere, nobody) = (name("home"), name("nowhere"), name("nobody"));
    assert!(matches!(store.group(nowhere.clone()).await, Err(StoreError::UnknownGroup(_))));
    assert!(matches!(store.join_group(nowhere, name("anna"), None).await, Err(StoreError::UnknownGroup(_))));
    assert!(matches!(
        store.join_group(home.clone(), nobody.clone(), None).await,
        Err(StoreError::UnknownAccount(_))
    ));
    assert!(matches!(
        store.join_group(home.clone(), AccountName::fees(), None).await,
        Err(StoreError::HubsOwn(_))
    ));
    assert!(matches!(store.leave_group(home.clone(), name("anna")).await, Err(StoreError::NoMember { .. })));
    assert!(store.create_group(AccountName::issuance(), MicroCredits(1)).await.is_err());
    let itself = Whom::Account(name("anna"));
    assert!(matches!(store.refuse(name("anna"), itself, true).await, Err(StoreError::RefusesItself(_))));
    assert!(store.refuse(name("anna"), Whom::Account(nobody.clone()), true).await.is_err());
    assert!(store.refuse(name("anna"), Whom::Group(nobody.clone()), true).await.is_err());
    assert!(store.refuse(nobody.clone(), Whom::Group(home.clone()), true).await.is_err());
    assert!(store.suspend(nobody, true).await.is_err());
    assert!(store.suspend(AccountName::issuance(), true).await.is_err());
    let home = store.group(home).await.unwrap();
    assert_eq!((home.overdraft_ucr, home.members.len()), (MicroCredits(500), 0));
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_statement_tells_a_member_its_month() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "10".parse().unwrap()).unwrap();
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let (bens, own) = (join(&store, "ben", 1).await, join(&store, "anna", 2).await);
    ask(&store, "anna", bens, 1, 30).await;
    let reservation = reserve(&store, 2, &consumer(&store, "anna").await, 0).unwrap();
    store.settle(settlement(reservation, own, 50)).await.unwrap();
    let now = Month::of(super::super::writer::now());
    let statements = store.statements(None, now).await.unwrap();
    let accounts: Vec<&str> = statements.iter().map(|it| it.account.as_str()).collect();
    assert_eq!(accounts, ["anna", "ben", "fees"]);
    let [anna, ben, fees] = statements.try_into().unwrap();
    assert_eq!((anna.tally.requests, anna.tally.taken_in, anna.tally.own_tokens), (2, 30, 50));
    assert_eq!((anna.tally.granted_ucr, anna.closing_ucr), (MicroCredits(1000), MicroCredits(970)));
    assert_eq!((ben.tally.given_in, ben.tally.earned_ucr), (30, MicroCredits(27)));
    assert_eq!((ben.tally.measured_out, fees.tally.earned_ucr), (0, MicroCredits(3)));
    assert!([anna, ben, fees].iter().all(|it: &Statement| it.issuance_ucr == MicroCredits(-1000)));
    let before: Month = "2020-02".parse().unwrap();
    let [old] = store.statements(Some(name("anna")), before).await.unwrap().try_into().unwrap();
    assert_eq!((old.tally.requests, old.opening_ucr, old.closing_ucr), (0, MicroCredits(0), MicroCredits(0)));
    let after: Month = "9999-12".parse().unwrap();
    let [later] = store.statements(Some(name("anna")), after).await.unwrap().try_into().unwrap();
    assert_eq!((later.opening_ucr, later.closing_ucr), (MicroCredits(970), MicroCredits(970)));
    assert!(store.statements(Some(name("nobody")), now).await.is_err());
    assert_eq!(store.statements(Some(AccountName::issuance()), now).await.unwrap().len(), 1);
    assert_holds(folder.path());
}
