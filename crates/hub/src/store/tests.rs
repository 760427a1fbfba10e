mod browsers;
mod circles;
mod damage;
mod joining;
mod killed;
mod limits;
mod money;
mod node_keys;
mod operators;
mod released;

use std::path::Path;

use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::{AccountName, FeeRate};
use idlewatt_protocol::handshake::NodeSide;
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::limits::PROTOCOL_VERSION;
use idlewatt_protocol::message::{Challenge, Endpoint, Hello, Outcome, Refuse};
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{Artefact, Digest, Joined, Nonce, Price, RequestId, UnixMillis, Usage, UsageSource};

use super::*;

fn open(folder: &Path) -> Store {
    Store::open(folder, FeeRate::NONE).unwrap()
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn node_key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn id(number: u32) -> RequestId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    RequestId(id)
}

fn hello(
    store: &Store,
    key: &SigningKey,
    invite: Option<&Invite>,
    posted_through: u64,
) -> (Challenge, Hello) {
    let hub_key = PublicKey::from(store.hub_key());
    let challenge = Challenge { nonce: Nonce([1; 32]), versions: vec![PROTOCOL_VERSION], hub_key };
    let token = invite.map(|invite| invite.token.as_str());
    let side =
        NodeSide { key, hub_key, token, agent: "test/1", name: Some("attic"), posted_through, resume: None };
    let hello = side.answer(&challenge, Nonce([2; 32])).unwrap();
    (challenge, hello)
}

async fn login(
    store: &Store,
    key: &SigningKey,
    invite: Option<&Invite>,
    posted_through: u64,
) -> Result<NodeLogin, Refuse> {
    let (challenge, hello) = hello(store, key, invite, posted_through);
    store.login(challenge, hello).await
}

/// A node of `account`.
async fn join(store: &Store, account: &str, byte: u8) -> PublicKey {
    let invite = store.create_invite(name(account), true, None).await.unwrap();
    let key = node_key(byte);
    login(store, &key, Some(&invite), 0).await.unwrap();
    PublicKey::from(&key)
}

/// What `tokens` prompt tokens at one micro-credit each come to, answered by `node`.
fn settlement(reservation: Reservation, node: PublicKey, tokens: u32) -> Settlement {
    let artefact = Artefact {
        model: "m".into(),
        quantisation: None,
        digest: None,
        engine: "e".into(),
        engine_build: None,
    };
    let usage = Usage { prompt: tokens, completion: 0, source: UsageSource::Server };
    let statement = Signed::Unsigned("node lost".into());
    Settlement {
        reservation,
        model: "m".into(),
        endpoint: Endpoint::ChatCompletions,
        outcome: Outcome::Complete,
        salt: Nonce([3; 32]),
        request_commitment: Digest([4; 32]),
        response_commitment: Digest([5; 32]),
        segments: vec![SegmentFacts { node, artefact, joined: Joined::Single, usage, statement }],
        also_asked: Vec::new(),
        price: Price(1_000_000),
        verification: "declared".into(),
        started: UnixMillis(1),
    }
}

/// Someone with a new key of `account`.
async fn consumer(store: &Store, account: &str) -> Consumer {
    let key = store.create_key(name(account), MicroCredits::ZERO, KeyLimits::default()).await.unwrap().key;
    store.authenticate(&key).unwrap()
}

fn reserve(
    store: &Store,
    number: u32,
    consumer: &Consumer,
    amount: i64,
) -> Result<Reservation, CannotReserve> {
    store.reserve(id(number), consumer, 100, MicroCredits(amount))
}

/// Reserves 100 micro-credits of `account` and settles `tokens` of them.
async fn ask(store: &Store, account: &str, node: PublicKey, number: u32, tokens: u32) -> Settled {
    let consumer = consumer(store, account).await;
    let reservation = reserve(store, number, &consumer, 100).unwrap();
    store.settle(settlement(reservation, node, tokens)).await.unwrap()
}

async fn balance(store: &Store, account: &str) -> i64 {
    store.account(name(account)).await.unwrap().balance_ucr.0
}

fn assert_holds(folder: &Path) {
    let checked = check_folder(folder).unwrap();
    assert_eq!(checked.breaches, Vec::<String>::new());
}
