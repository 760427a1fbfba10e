use std::time::Duration;

use idlewatt_hub_core::allowance::Limited;
use idlewatt_protocol::Scope;

use super::*;

async fn limited(store: &Store, limits: KeyLimits) -> (String, Consumer) {
    let key = store.create_key(name("anna"), MicroCredits(1000), limits).await.unwrap().key;
    let consumer = store.authenticate(&key).unwrap();
    (key, consumer)
}

fn a_day(credits: i64) -> KeyLimits {
    KeyLimits { spend_per_day_ucr: Some(MicroCredits(credits)), ..KeyLimits::default() }
}

fn is_over(refused: &CannotReserve) -> bool {
    matches!(refused, CannotReserve::Over(over) if matches!(over.limited, Limited::Spend { .. }))
}

#[tokio::test]
async fn a_minutes_requests_and_tokens_are_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let limits =
        KeyLimits { requests_per_minute: Some(2), tokens_per_minute: Some(150), ..KeyLimits::default() };
    let (_, anna) = limited(&store, limits).await;
    let node = join(&store, "ben", 1).await;
    assert_eq!(store.admit(&anna), Ok(()));
    assert_eq!(store.admit(&anna), Ok(()));
    let NotAdmitted::Over(over) = store.admit(&anna).unwrap_err() else { panic!("suspended") };
    assert!(over.retry_after.unwrap() <= Duration::from_secs(61));
    assert_eq!(anna.allowance().requests.unwrap().remaining, 0);
    let reservation = reserve(&store, 1, &anna, 100).unwrap();
    assert!(matches!(reserve(&store, 2, &anna, 1), Err(CannotReserve::Over(_))), "100 of 150 are held");
    store.settle(settlement(reservation, node, 30)).await.unwrap();
    assert_eq!(anna.allowance().tokens.unwrap().remaining, 120);
    drop(reserve(&store, 3, &anna, 100).unwrap());
    assert_eq!(anna.allowance().tokens.unwrap().remaining, 120, "what came to nothing is given back");
}

#[tokio::test]
async fn a_days_spending_holds_over_a_restart_a_rotation_and_a_new_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (key, anna) = limited(&store, a_day(100)).await;
    let node = join(&store, "ben", 1).await;
    let reservation = reserve(&store, 1, &anna, 90).unwrap();
    assert!(is_over(&reserve(&store, 2, &anna, 11).unwrap_err()));
    store.settle(settlement(reservation, node, 60)).await.unwrap();
    drop((store, anna));

    let store = open(folder.path());
    let anna = store.authenticate(&key).unwrap();
    assert!(is_over(&reserve(&store, 2, &anna, 41).unwrap_err()), "60 were spent before");
    let next = store.rotate_key(key[..9].to_owned(), Duration::ZERO).await.unwrap().key;
    assert_eq!(store.authenticate(&key).map(|it| it.account), None);
    let anna = store.authenticate(&next).unwrap();
    assert!(is_over(&reserve(&store, 2, &anna, 41).unwrap_err()), "a new key is not a new day");
    let reservation = reserve(&store, 2, &anna, 40).unwrap();
    store.settle(settlement(reservation, node, 40)).await.unwrap();
    let shown = store.limit_key(next[..9].to_owned(), a_day(110)).await.unwrap();
    assert_eq!((shown.spent_today_ucr, shown.limits), (MicroCredits(100), a_day(110)));
    assert!(is_over(&reserve(&store, 3, &anna, 11).unwrap_err()));
    assert!(reserve(&store, 3, &anna, 10).is_ok());
    assert_holds(folder.path());
}

#[tokio::test]
async fn a_key_goes_on_beside_its_successor_for_a_while_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (old, anna) = limited(&store, a_day(100)).await;
    let new = store.rotate_key(old[..9].to_owned(), Duration::from_secs(3600)).await.unwrap().key;
    assert!(store.authenticate(&old).is_some() && store.authenticate(&new).is_some());
    assert!(!anna.has_ended());
    let held = reserve(&store, 1, &store.authenticate(&old).unwrap(), 60).unwrap();
    assert!(
        is_over(&reserve(&store, 2, &store.authenticate(&new).unwrap(), 41).unwrap_err()),
        "one day for both"
    );
    drop(held);
    let later = store.rotate_key(old[..9].to_owned(), Duration::from_secs(7200)).await.err().unwrap();
    assert!(matches!(later, StoreError::EndsEarlier(_)), "{later}");
    let ended = "UPDATE api_key SET expires = 1 WHERE expires IS NOT NULL";
    store.run(move |writer| Ok(writer.db.execute(ended, [])?)).await.unwrap();
    drop((store, anna));
    let store = open(folder.path());
    assert!(store.authenticate(&old).is_none() && store.authenticate(&new).is_some());
}

#[tokio::test]
async fn revoking_a_key_or_suspending_its_account_ends_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (key, running) = limited(&store, KeyLimits::default()).await;
    let (_, other) = limited(&store, KeyLimits::default()).await;
    let waits = tokio::spawn({
        let running = running.clone();
        async move { running.ended().await }
    });
    store.revoke_key(key[..9].to_owned()).await.unwrap();
    waits.await.unwrap();
    assert!(running.has_ended() && !other.has_ended());

    let suspended = store.suspend(name("anna"), true).await.unwrap();
    assert!(suspended.suspended.is_some() && other.has_ended());
    let (fresh, anna) = limited(&store, KeyLimits::default()).await;
    assert_eq!(store.admit(&anna), Err(NotAdmitted::Suspended), "a new key does not help");
    drop((store, running, other, anna));
    let store = open(folder.path());
    let anna = store.authenticate(&fresh).unwrap();
    assert_eq!(store.admit(&anna), Err(NotAdmitted::Suspended));
    assert!(!anna.has_ended(), "its receipts can be fetched");
    assert_eq!(store.suspend(name("anna"), false).await.unwrap().suspended, None);
    assert_eq!(store.admit(&anna), Ok(()));
}

#[tokio::test]
async fn an_account_whose_requests_come_to_nothing_is_slowed_down() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (_, anna) = limited(&store, KeyLimits::default()).await;
    let ben = consumer(&store, "ben").await;
    (0..121).for_each(|_| store.wasted(&anna));
    assert!(matches!(store.admit(&anna), Err(NotAdmitted::Over(over)) if over.limited == Limited::Brake));
    assert_eq!(store.admit(&ben), Ok(()));
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (key, _) = limited(&store, KeyLimits::default()).await;
    for bad in [a_day(0), a_day(-1), a_day(i64::MAX)] {
        assert!(store.limit_key(key[..9].to_owned(), bad.clone()).await.is_err());
        assert!(store.create_key(name("ben"), MicroCredits::ZERO, bad).await.is_err());
    }
    assert!(store.account(name("ben")).await.is_err(), "and no account was made");
    let bad = KeyLimits { models: Some(vec!["a\u{1b}[2J".into()]), ..KeyLimits::default() };
    assert!(store.limit_key(key[..9].to_owned(), bad).await.is_err());
    assert!(matches!(store.limit_key("iw-unknown".into(), a_day(1)).await, Err(StoreError::UnknownKey(_))));
    let public = KeyLimits { scope: Scope::Public, ..KeyLimits::default() };
    let shown = store.limit_key(key[..9].to_owned(), public.clone()).await.unwrap();
    assert_eq!(shown.limits, public);
}
