use idlewatt_protocol::node_key::NodeKey;

use super::*;
use crate::store::NotKeptKey;

const KEY: &str = "iw-0123456789abcdef";
const OTHER: &str = "iw-fedcba9876543210";

async fn say(store: &Store, node: PublicKey, key: &str, holds: bool) -> Result<AccountName, NotKeptKey> {
    let key = NodeKey::of(key, PublicKey::from(store.hub_key()), holds);
    store.keep_node_key(node, key).await.unwrap()
}

fn opens(store: &Store, key: &str) -> Option<String> {
    store.authenticate(key).map(|it| it.account.to_string())
}

#[tokio::test]
async fn a_nodes_key_spends_from_the_account_that_it_earns_for_and_there_is_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let node = join(&store, "ben", 1).await;
    assert_eq!(opens(&store, KEY), None);
    for _ in 0..2 {
        assert_eq!(
            say(&store, node, KEY, true).await.unwrap(),
            name("ben"),
            "the same again changes nothing"
        );
    }
    assert_eq!(opens(&store, KEY).as_deref(), Some("ben"));
    say(&store, node, OTHER, true).await.unwrap();
    assert_eq!((opens(&store, KEY), opens(&store, OTHER).as_deref()), (None, Some("ben")));
    assert_eq!(say(&store, node, KEY, true).await, Err(NotKeptKey::Spent), "a revoked key never comes back");
    drop(store);
    let store = open(folder.path());
    assert_eq!((opens(&store, KEY), opens(&store, OTHER).as_deref()), (None, Some("ben")));
    say(&store, node, OTHER, false).await.unwrap();
    assert_eq!(opens(&store, OTHER), None);
}

#[tokio::test]
async fn only_a_node_that_may_spend_has_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let stranger = PublicKey::from(&node_key(9));
    assert_eq!(say(&store, stranger, KEY, true).await, Err(NotKeptKey::UnknownNode));

    let invite = store.create_invite(name("ben"), false, None).await.unwrap();
    login(&store, &node_key(1), Some(&invite), 0).await.unwrap();
    let node = PublicKey::from(&node_key(1));
    assert_eq!(say(&store, node, KEY, true).await, Err(NotKeptKey::MayNotSpend));

    let invite = store.create_invite(name("ben"), true, None).await.unwrap();
    login(&store, &node_key(1), Some(&invite), 0).await.unwrap();
    assert!(say(&store, node, KEY, true).await.is_ok(), "a new invite gives the right");
    // The operator's word is the last one: the node does not make itself another.
    store.revoke_key(KEY.to_owned()).await.unwrap();
    assert_eq!(opens(&store, KEY), None);
    assert_eq!(say(&store, node, OTHER, true).await, Err(NotKeptKey::MayNotSpend));
}

#[tokio::test]
async fn a_key_of_one_node_is_nothing_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (ben, cleo) = (join(&store, "ben", 1).await, join(&store, "cleo", 2).await);
    say(&store, ben, KEY, true).await.unwrap();
    assert_eq!(say(&store, cleo, KEY, true).await, Err(NotKeptKey::Spent));
    say(&store, cleo, KEY, false).await.unwrap();
    assert_eq!(opens(&store, KEY).as_deref(), Some("ben"));
    let operators = store.create_key(name("ben"), MicroCredits::ZERO, KeyLimits::default()).await.unwrap();
    say(&store, ben, &operators.key, false).await.unwrap();
    assert!(opens(&store, &operators.key).is_some(), "the operator's keys are the operator's");
}

#[tokio::test]
async fn a_node_that_moves_to_another_account_leaves_its_key_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let node = join(&store, "ben", 1).await;
    say(&store, node, KEY, true).await.unwrap();
    let invite = store.create_invite(name("cleo"), true, None).await.unwrap();
    login(&store, &node_key(1), Some(&invite), 0).await.unwrap();
    assert_eq!(opens(&store, KEY), None);
    assert_eq!(say(&store, node, OTHER, true).await.unwrap(), name("cleo"));
}
