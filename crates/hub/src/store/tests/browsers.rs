use idlewatt_protocol::message::RefuseCode;
use idlewatt_protocol::node_key::KEY_PREFIX;

use super::*;

#[tokio::test]
async fn an_invite_gives_one_browser_a_key_of_its_account() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let token = store.create_invite(name("ada"), true, None).await.unwrap().token;
    let made = store.redeem_invite(token.clone()).await.unwrap().unwrap();
    assert_eq!(made.account, name("ada"));
    assert!(made.key.starts_with(KEY_PREFIX));
    assert_eq!(store.authenticate(&made.key).unwrap().account, name("ada"));
    assert_eq!(store.redeem_invite(token).await.unwrap().err(), Some(NotRedeemed::Used));
    drop(store);
    assert!(open(folder.path()).authenticate(&made.key).is_some());
}

#[tokio::test]
async fn an_invite_works_for_a_node_or_for_a_browser_never_for_both() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let taken = store.create_invite(name("ada"), true, None).await.unwrap();
    login(&store, &node_key(1), Some(&taken), 0).await.unwrap();
    assert_eq!(store.redeem_invite(taken.token).await.unwrap().err(), Some(NotRedeemed::Used));

    let redeemed = store.create_invite(name("ada"), true, None).await.unwrap();
    store.redeem_invite(redeemed.token.clone()).await.unwrap().unwrap();
    let refused = login(&store, &node_key(2), Some(&redeemed), 0).await.unwrap_err();
    assert_eq!(refused.code, RefuseCode::InviteUsed);
}

#[tokio::test]
async fn an_invite_that_is_altered_too_old_or_only_to_earn_makes_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let redeem = async |token: &str| store.redeem_invite(token.to_owned()).await.unwrap().err();
    assert_eq!(redeem("another-hubs-token").await, Some(NotRedeemed::Unknown));
    assert_eq!(redeem("").await, Some(NotRedeemed::Unknown));

    let earns = store.create_invite(name("ben"), false, None).await.unwrap().token;
    assert_eq!(redeem(&earns).await, Some(NotRedeemed::EarnOnly));

    let old = store.create_invite(name("ada"), true, None).await.unwrap().token;
    store.run(|writer| Ok(writer.db.execute("UPDATE invite SET expires = 1", [])?)).await.unwrap();
    assert_eq!(redeem(&old).await, Some(NotRedeemed::Expired));
    assert_eq!(store.keys().await.unwrap(), []);
}

#[tokio::test]
async fn whoever_holds_a_key_can_end_it_and_only_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut keys = Vec::new();
    for _ in 0..2 {
        let token = store.create_invite(name("ada"), true, None).await.unwrap().token;
        keys.push(store.redeem_invite(token).await.unwrap().unwrap().key);
    }
    assert!(store.forget_key(keys[0].clone()).await.unwrap());
    assert!(!store.forget_key(keys[0].clone()).await.unwrap());
    assert!(!store.forget_key("iw-nobodys".into()).await.unwrap());
    assert_eq!(keys.iter().map(|key| store.authenticate(key).is_some()).collect::<Vec<_>>(), [false, true]);
}
