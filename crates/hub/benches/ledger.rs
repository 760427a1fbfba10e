//! How many answered requests a hub settles a second, durably: posting, signed receipt, word to the node, month and day, in
//! SQLite on the disk that the temporary folder is on. Prints JSON; `script/bench` reads it.
//!
//! Target: 50,000 posts a second. Each settlement is counted once, when its caller hears that it is on the disk.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: it prints, and stops at a fault"
)]

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use idlewatt_hub::store::{Consumer, SegmentFacts, Settlement, Store, check_folder};
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::{AccountName, FeeRate};
use idlewatt_protocol::handshake::NodeSide;
use idlewatt_protocol::limits::PROTOCOL_VERSION;
use idlewatt_protocol::message::{Challenge, Endpoint, Outcome};
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{
    Artefact, Digest, Joined, MicroCredits, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage,
    UsageSource,
};

/// Settlements of one run.
const SETTLEMENTS: u64 = 100_000;

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn id(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RequestId(id)
}

/// A node of `host`.
async fn join(store: &Store, host: &str, seed: u8) -> PublicKey {
    let invite = store.create_invite(name(host), false, None).await.unwrap();
    let key = SigningKey::from_bytes(&[seed; 32]);
    let hub_key = PublicKey::from(store.hub_key());
    let challenge = Challenge { nonce: Nonce([1; 32]), versions: vec![PROTOCOL_VERSION], hub_key };
    let token = Some(invite.token.as_str());
    let side =
        NodeSide { key: &key, hub_key, token, agent: "bench", name: None, posted_through: 0, resume: None };
    let hello = side.answer(&challenge, Nonce([2; 32])).unwrap();
    store.login(challenge, hello).await.unwrap();
    PublicKey::from(&key)
}

async fn settle(store: &Store, consumer: &Consumer, node: PublicKey, number: u64) {
    let reservation = store.reserve(id(number), consumer, 600, MicroCredits(600)).unwrap();
    let artefact = Artefact {
        model: "smollm2-135m-instruct".into(),
        quantisation: Some("q4_1".into()),
        digest: Some(Digest([7; 32])),
        engine: "llama.cpp".into(),
        engine_build: None,
    };
    let usage = Usage { prompt: 90, completion: 60, source: UsageSource::Server };
    let statement = Signed::Unsigned("measured without one".into());
    let settlement = Settlement {
        reservation,
        model: "smollm2-135m-instruct".into(),
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
    };
    store.settle(settlement).await.unwrap();
}

/// Settlements a second with so many at once, and the middle and 99th percentile of one.
async fn run(at_once: u64) -> (f64, Duration, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "5".parse::<FeeRate>().unwrap()).unwrap();
    let key = store.create_key(name("anna"), MicroCredits(1 << 50), KeyLimits::default()).await.unwrap().key;
    let anna = store.authenticate(&key).unwrap();
    let nodes = [join(&store, "ben", 1).await, join(&store, "cleo", 2).await];
    let settlements = if at_once == 1 { SETTLEMENTS / 50 } else { SETTLEMENTS };
    let began = Instant::now();
    let lanes: Vec<_> = (0..at_once)
        .map(|lane| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                for number in (lane..settlements).step_by(usize::try_from(at_once).unwrap()) {
                    let began = Instant::now();
                    settle(&store, &anna, nodes[usize::try_from(number % 2).unwrap()], number).await;
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for lane in lanes {
        took.extend(lane.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let checked = check_folder(folder.path()).unwrap();
    assert!(checked.ok && checked.receipts == settlements, "{checked:?}");
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let rate = settlements as f64 / seconds;
    (rate, took[took.len() / 2], took[took.len() * 99 / 100])
}

#[tokio::main]
async fn main() {
    let mut lines = Vec::new();
    for at_once in [1, 64, 1024, 8192] {
        let (rate, middle, slow) = run(at_once).await;
        lines.push(format!(
            "{{\"at_once\":{at_once},\"settlements_a_second\":{rate:.0},\"p50_us\":{},\"p99_us\":{}}}",
            middle.as_micros(),
            slow.as_micros()
        ));
    }
    println!("[{}]", lines.join(",\n "));
}
