use idlewatt_protocol::message::RefuseCode;

use super::*;

async fn refused(store: &Store, key: &SigningKey, invite: Option<&Invite>) -> RefuseCode {
    login(store, key, invite, 0).await.unwrap_err().code
}

#[tokio::test]
async fn an_invite_lets_one_node_in_and_the_same_node_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let invite = store.create_invite(name("ben"), true, None).await.unwrap();
    let (first, second) = (node_key(1), node_key(2));
    let login_of = async |key| login(&store, key, Some(&invite), 0).await;
    let expected = |epoch| NodeLogin { account: name("ben"), epoch };
    assert_eq!(login_of(&first).await.unwrap(), expected(1));
    assert_eq!(login_of(&first).await.unwrap(), expected(2));
    assert_eq!(login(&store, &first, None, 0).await.unwrap(), expected(3));
    assert_eq!(refused(&store, &second, Some(&invite)).await, RefuseCode::InviteUsed);
    assert_eq!(refused(&store, &second, None).await, RefuseCode::UnknownNode);
    drop(store);
    let store = open(folder.path());
    assert_eq!(login(&store, &first, None, 0).await.unwrap(), expected(4));
    let nodes = store.nodes();
    assert_eq!((nodes.len(), nodes[0].name.as_deref(), nodes[0].epoch), (1, Some("attic"), 4));
}

#[tokio::test]
async fn an_expired_foreign_or_forged_invite_is_refused_by_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let invite = store.create_invite(name("ben"), true, None).await.unwrap();
    let key = node_key(1);

    let (challenge, mut forged) = hello(&store, &key, Some(&invite), 0);
    forged.invite.as_mut().unwrap().hmac = Digest([0; 32]);
    assert_eq!(store.login(challenge, forged).await.unwrap_err().code, RefuseCode::BadProof);

    let foreign = Invite { token: "another-hubs-token".into(), ..invite.clone() };
    assert_eq!(refused(&store, &key, Some(&foreign)).await, RefuseCode::InviteUnknown);

    store.run(|writer| Ok(writer.db.execute("UPDATE invite SET expires = created - 1", [])?)).await.unwrap();
    let refuse = login(&store, &key, Some(&invite), 0).await.unwrap_err();
    assert_eq!(refuse.code, RefuseCode::InviteExpired);
    assert_eq!(refuse.message, "This invite has expired; each works for 24 hours. Ask for a new one.");
    assert!(store.nodes().is_empty());
}

#[tokio::test]
async fn a_fresh_invite_moves_a_node_to_its_account() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let node = join(&store, "ben", 1).await;
    let invite = store.create_invite(name("cleo"), true, None).await.unwrap();
    assert_eq!(login(&store, &node_key(1), Some(&invite), 0).await.unwrap().account, name("cleo"));
    assert_eq!(store.account_of(&node), Some(name("cleo")));
}

/// A hub restored from a backup must not number postings that its node has seen already: the node would drop them.
#[tokio::test]
async fn a_restored_hub_numbers_on_after_what_its_node_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    login(&store, &node_key(1), None, 41).await.unwrap();
    assert_eq!(ask(&store, "anna", node, 1, 1).await.postings[0].1.seq, 42);
    login(&store, &node_key(1), None, u64::MAX).await.unwrap();
    assert_eq!(ask(&store, "anna", node, 2, 1).await.postings[0].1.seq, 43);
    assert_holds(folder.path());
}

#[tokio::test]
async fn an_invite_names_the_hubs_address_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.set_addresses(vec!["https://hub.example".parse().unwrap()]).await.unwrap();
    let invite = store.create_invite(name("ben"), true, None).await.unwrap();
    assert_eq!((invite.hubs[0].as_str(), invite.key), ("https://hub.example/", store.hub_key().into()));
    assert_eq!(invite.to_string().parse(), Ok(invite));
    store.set_addresses(vec!["http://192.168.1.9:4181".parse().unwrap()]).await.unwrap();
    assert!(matches!(store.create_invite(name("ben"), true, None).await, Err(StoreError::Address(_))));
    assert!(matches!(
        store.create_invite(name("fees"), true, None).await,
        Err(StoreError::HubsOwn(_) | StoreError::Address(_))
    ));
}
