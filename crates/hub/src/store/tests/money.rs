use idlewatt_hub_core::ledger::Month;
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::units::MAX_SAFE_INTEGER;
use idlewatt_protocol::{Label, Millijoules};

use super::writer::Waiting;
use super::*;

/// Settles all of these in one group.
async fn settle_together(
    store: &Store,
    group: Vec<(Settlement, Option<Energy>)>,
) -> Vec<Result<Settled, StoreError>> {
    let (mut group, answers): (Vec<_>, Vec<_>) = group
        .into_iter()
        .map(|(settlement, energy)| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            (Waiting { settlement: Box::new(settlement), energy: vec![energy], reply }, answer)
        })
        .unzip();
    let left = store.run(move |writer| {
        writer.settle(&mut group);
        Ok(group.len())
    });
    assert_eq!(left.await.unwrap(), 0);
    let mut settled = Vec::with_capacity(answers.len());
    for answer in answers {
        settled.push(answer.await.unwrap());
    }
    settled
}

#[tokio::test]
async fn a_settled_request_is_paid_receipted_and_told_to_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "10".parse().unwrap()).unwrap();
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    let settled = ask(&store, "anna", node, 1, 30).await;

    let receipt = settled.file.verify().unwrap().receipt;
    assert_eq!((receipt.id, receipt.cost, receipt.fee), (id(1), MicroCredits(30), MicroCredits(3)));
    assert_eq!(receipt.segments[0].earned, MicroCredits(27));
    let (told, posted) = &settled.postings[0];
    assert_eq!((*told, posted.seq, posted.earned, posted.signed), (node, 1, MicroCredits(27), false));
    assert_eq!(&posted.receipt, &settled.file.receipt);
    for (account, expected) in [("anna", 970), ("ben", 27), ("fees", 3), ("issuance", -1000)] {
        assert_eq!(balance(&store, account).await, expected, "{account}");
    }
    assert_eq!(store.receipt(id(1), &name("anna")).await.unwrap(), Some(settled.file));
    assert_eq!(store.receipt(id(1), &name("ben")).await.unwrap(), None);
    assert!(store.is_posted(id(1), node).await.unwrap() && !store.is_posted(id(2), node).await.unwrap());
    assert!(!store.is_posted(id(1), PublicKey([9; 32])).await.unwrap());
    assert_holds(folder.path());
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let key = store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap().key;
    let node = join(&store, "ben", 1).await;
    let first = ask(&store, "anna", node, 1, 10).await;
    let pseudonym = store.authenticate(&key).unwrap().pseudonym;
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.authenticate(&key).unwrap().pseudonym, pseudonym);
    assert_eq!(store.account(name("anna")).await.unwrap().pseudonym, *pseudonym);
    assert_eq!(store.account_of(&node), Some(name("ben")));
    assert_eq!(store.available(&name("anna")), MicroCredits(990));
    let second = ask(&store, "anna", node, 2, 10).await;
    let receipt = second.file.verify().unwrap().receipt;
    assert_eq!(receipt.previous, first.file.receipt.payload_digest());
    assert_eq!(second.postings[0].1.seq, 2);
    let replayed = store.postings_after(node, 0, 10).await.unwrap();
    assert_eq!(replayed, [first.postings[0].1.clone(), second.postings[0].1.clone()]);
    assert_eq!(store.postings_after(node, 1, 10).await.unwrap().len(), 1);
    assert_holds(folder.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_settlements_at_once_agree_to_the_micro_credit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1_000_000), KeyLimits::default()).await.unwrap();
    let nodes = [join(&store, "ben", 1).await, join(&store, "cleo", 2).await];
    let tasks: Vec<_> = (0..1000u32)
        .map(|number| {
            let (store, node) = (store.clone(), nodes[number as usize % 2]);
            tokio::spawn(async move { ask(&store, "anna", node, number, number % 90).await })
        })
        .collect();
    let mut cost = 0;
    for task in tasks {
        cost += task.await.unwrap().file.verify().unwrap().receipt.cost.0;
    }
    assert_eq!(balance(&store, "anna").await, 1_000_000 - cost);
    assert_eq!(balance(&store, "ben").await + balance(&store, "cleo").await, cost);
    for node in nodes {
        let postings = store.postings_after(node, 0, 1000).await.unwrap();
        assert!(postings.iter().map(|posted| posted.seq).eq(1..=500));
    }
    assert_eq!(check_folder(folder.path()).unwrap().receipts, 1000);
    assert_holds(folder.path());
}

#[tokio::test]
async fn settling_a_request_again_gives_the_first_receipt_and_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    let first = ask(&store, "anna", node, 1, 10).await;
    let again = ask(&store, "anna", node, 1, 90).await;
    assert_eq!((again.file, again.postings), (first.file, first.postings));
    assert_eq!(balance(&store, "anna").await, 990);
    assert_eq!(store.available(&name("anna")), MicroCredits(990));
    assert_holds(folder.path());
}

#[tokio::test]
async fn own_nodes_cost_nothing_and_give_a_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let node = join(&store, "anna", 1).await;
    let reservation = reserve(&store, 1, &consumer(&store, "anna").await, 0).unwrap();
    let settled = store.settle(settlement(reservation, node, 50)).await.unwrap();
    assert_eq!(settled.file.verify().unwrap().receipt.cost, MicroCredits::ZERO);
    assert_eq!(settled.postings[0].1.usage.prompt, 50);
    assert_eq!(balance(&store, "anna").await, 0);
    assert_holds(folder.path());
}

#[tokio::test]
async fn what_is_reserved_comes_back_when_dropped_and_never_exceeds_the_credits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(150), KeyLimits::default()).await.unwrap();
    let anna = consumer(&store, "anna").await;
    let held = reserve(&store, 1, &anna, 100).unwrap();
    let refused = reserve(&store, 2, &anna, 51).unwrap_err();
    assert!(matches!(
        refused,
        CannotReserve::Ledger(ReserveError::Insufficient { available: MicroCredits(50), .. })
    ));
    drop(held);
    assert_eq!(store.available(&name("anna")), MicroCredits(150));
    // One that is refused leaves the other of its id alone.
    let held = reserve(&store, 1, &anna, 100).unwrap();
    assert!(reserve(&store, 1, &anna, 1).is_err());
    assert_eq!(store.available(&name("anna")), MicroCredits(50));
    drop(held);
}

#[tokio::test]
async fn a_settlement_bills_no_more_than_was_reserved_and_nothing_by_a_stranger() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    let anna = consumer(&store, "anna").await;
    let reservation = reserve(&store, 1, &anna, 10).unwrap();
    let settled = store.settle(settlement(reservation, node, 11)).await.unwrap();
    assert_eq!(settled.file.verify().unwrap().receipt.cost, MicroCredits(10));
    let reservation = reserve(&store, 2, &anna, 10).unwrap();
    let error = store.settle(settlement(reservation, PublicKey([9; 32]), 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownNode(_)), "{error}");
    assert_eq!(store.available(&name("anna")), MicroCredits(990));
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_group_lets_its_members_owe_and_nobody_leaves_it_in_debt() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits::ZERO, KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    assert!(reserve(&store, 1, &consumer(&store, "anna").await, 1).is_err());
    store.create_group(name("home"), MicroCredits(500)).await.unwrap();
    assert!(store.create_group(name("home"), MicroCredits(1)).await.is_err());
    store.join_group(name("home"), name("anna"), None).await.unwrap();
    ask(&store, "anna", node, 1, 80).await;
    assert_eq!(balance(&store, "anna").await, -80);
    assert_eq!(store.groups().await.unwrap()[0].members[0].account, name("anna"));
    store.create_group(name("strict"), MicroCredits(10)).await.unwrap();
    let error = store.join_group(name("strict"), name("anna"), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Limit(_)), "{error}");
    assert_holds(folder.path());
    drop(store);
    assert_eq!(open(folder.path()).available(&name("anna")), MicroCredits(420));
}

#[tokio::test]
async fn credits_come_from_issuance_and_go_back_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(10), KeyLimits::default()).await.unwrap();
    assert_eq!(store.credit(name("anna"), MicroCredits(-4)).await.unwrap().balance_ucr, MicroCredits(6));
    assert!(store.credit(name("anna"), MicroCredits(-7)).await.is_err());
    assert!(store.credit(name("nobody"), MicroCredits(1)).await.is_err());
    assert!(store.credit(name("fees"), MicroCredits(1)).await.is_err());
    assert!(store.create_key(name("issuance"), MicroCredits(1), KeyLimits::default()).await.is_err());
    assert!(store.credit(name("anna"), MicroCredits(i64::MIN)).await.is_err());
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept = store.create_key(name("anna"), MicroCredits::ZERO, KeyLimits::default()).await.unwrap().key;
    let gone = store.create_key(name("anna"), MicroCredits::ZERO, KeyLimits::default()).await.unwrap().key;
    assert_eq!(store.authenticate(&gone).unwrap().account, name("anna"));
    assert!(matches!(store.revoke_key("iw-".into()).await, Err(StoreError::UnknownKey(_))));
    let revoked = store.revoke_key(gone[..9].to_owned()).await.unwrap();
    assert!(revoked.revoked.is_some());
    assert!(store.authenticate(&gone).is_none());
    drop(store);
    let store = open(folder.path());
    assert!(store.authenticate(&gone).is_none());
    assert!(store.authenticate(&kept).is_some());
    assert!(store.authenticate("iw-").is_none());
    assert!(store.authenticate("").is_none());
}

#[tokio::test]
async fn keys_and_tokens_are_nowhere_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let key = store.create_key(name("anna"), MicroCredits(1), KeyLimits::default()).await.unwrap().key;
    let token = store.create_invite(name("anna"), true, None).await.unwrap().token;
    drop(store);
    let mut files = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for secret in [&key, &token] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    assert!(files >= 3);
}

#[tokio::test]
async fn who_contradicts_the_database_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let node = join(&store, "ben", 1).await;
    for account in ["anna", "eve"] {
        store.create_key(name(account), MicroCredits(1000), KeyLimits::default()).await.unwrap();
        ask(&store, account, node, u32::from(account.as_bytes()[0]), 1).await;
    }
    let full = "UPDATE account_month SET requests = 9223372036854775807 WHERE account = 'eve'";
    store.run(move |writer| Ok(writer.db.execute(full, [])?)).await.unwrap();

    let (anna, eve) = (consumer(&store, "anna").await, consumer(&store, "eve").await);
    let asked = [&anna, &anna, &eve, &anna, &anna]
        .into_iter()
        .zip(1..)
        .map(|(who, number)| (settlement(reserve(&store, number, who, 100).unwrap(), node, 10), None));
    let answers = settle_together(&store, asked.collect()).await;
    let settled: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(settled, [true, true, false, true, true]);
    assert_eq!(balance(&store, "anna").await, 1000 - 1 - 40);
    assert_eq!((balance(&store, "eve").await, balance(&store, "ben").await), (999, 42));
    assert_eq!(store.available(&name("eve")), MicroCredits(999), "nothing of hers is held");
    let numbers = store.postings_after(node, 0, 10).await.unwrap();
    assert!(numbers.iter().map(|posted| posted.seq).eq(1..=6));
    let mended = "UPDATE account_month SET requests = 1 WHERE account = 'eve'";
    store.run(move |writer| Ok(writer.db.execute(mended, [])?)).await.unwrap();
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_months_energy_stays_in_its_range_and_settlements_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    ask(&store, "anna", node, 1, 1).await;
    let full = "UPDATE account_month SET measured_mj = 9223372036854775807";
    store.run(move |writer| Ok(writer.db.execute(full, [])?)).await.unwrap();

    let anna = consumer(&store, "anna").await;
    let (label, total_mj) = (Label::Measured, Some(Millijoules(MAX_SAFE_INTEGER)));
    let energy = Energy { total_mj, label, ..Energy::default() };
    let asked = (2..5)
        .map(|number| (settlement(reserve(&store, number, &anna, 100).unwrap(), node, 10), Some(energy)));
    for answer in settle_together(&store, asked.collect()).await {
        let month = Month::of(answer.unwrap().file.verify().unwrap().receipt.issued);
        let ben = store.statements(Some(name("ben")), month).await.unwrap().remove(0);
        assert_eq!(ben.tally.measured_mj, Millijoules(MAX_SAFE_INTEGER));
    }
    assert_holds(folder.path());
}
