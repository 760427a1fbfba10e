//! Streams over eight nodes that are killed, cut off, held up and yielded at random: each equals the uninterrupted text or
//! ends in an error chunk, and every bill is right.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test that tells its figure")]

mod model;
mod node;
#[path = "../scripted/mod.rs"]
mod scripted;
mod way;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idlewatt_hub::store::check_folder;
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{Continuation, Joined, MicroCredits};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use model::{PROMPT, mixed, tokens};
use node::Node;
use scripted::{TestHub, account};

/// Of the eight, at least three are always well.
const NODES: u8 = 8;
const MOST_DOWN: usize = 5;
const AT_ONCE: usize = 20;

struct Bounds {
    streams: u64,
    interrupted: usize,
}

fn bounds() -> Bounds {
    if std::env::var_os("IDLEWATT_STRICT").is_some() {
        Bounds { streams: 1000, interrupted: 300 }
    } else {
        Bounds { streams: 60, interrupted: 10 }
    }
}

/// What a consumer saw of one stream.
struct Seen {
    id: String,
    seed: u64,
    most: usize,
    text: String,
    ended: bool,
    error: bool,
}

impl Seen {
    fn expected(&self) -> String {
        let tokens = tokens(self.seed);
        tokens[..tokens.len().min(self.most)].concat()
    }
}

async fn stream(hub: Arc<TestHub>, seed: u64) -> Seen {
    // Some answers end at their limit, most by themselves.
    let most = if seed.is_multiple_of(4) { 20 } else { 100 };
    let body = json!({"model": "tiny", "stream": true, "max_tokens": most,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": seed.to_string()}]});
    let response =
        hub.post("/v1/chat/completions", &body).timeout(Duration::from_secs(200)).send().await.unwrap();
    let status = response.status();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let raw = response.text().await.unwrap();
    if status != 200 {
        // Three nodes in a row failed before a first token.
        assert_eq!(status, 502, "{raw}");
        return Seen { id, seed, most, text: String::new(), ended: false, error: true };
    }
    let events = scripted::events(&raw);
    let ended = events.last().is_some_and(|last| last == "[DONE]");
    let chunks: Vec<Value> = events.iter().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let error = chunks.iter().any(|chunk| !chunk["error"].is_null());
    let answer: Vec<&Value> = chunks.iter().filter(|chunk| chunk["error"].is_null()).collect();
    for chunk in &answer {
        for pinned in ["id", "created", "model"] {
            assert_eq!(chunk[pinned], answer[0][pinned], "one stream has one {pinned}: {raw}");
        }
        assert!(chunk.get("iw_ids").is_none(), "{raw}");
    }
    let count = |name: &str| answer.iter().filter(|it| !it["choices"][0]["delta"][name].is_null()).count();
    assert!(count("role") <= 1, "a second role: {raw}");
    assert!(raw.matches("\"finish_reason\":\"").count() <= 1, "{raw}");
    if ended {
        let usage = &answer.last().unwrap()["usage"];
        assert_eq!(usage["completion_tokens"], count("content"), "{raw}");
    }
    Seen { id, seed, most, text: scripted::content(&raw), ended, error }
}

/// Lets one thing after the other befall the nodes until it is told to stop; all are well afterwards.
async fn befall(mut nodes: Vec<Node>, seed: u64, over: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Vec<Node> {
    let mut wake: Vec<(Instant, usize, u64)> = Vec::new();
    for step in 0u64.. {
        let now = Instant::now();
        let is_over = over.load(Ordering::Relaxed);
        wake.retain(|(at, node, kind)| {
            let is_due = is_over || *at <= now;
            if is_due {
                match kind {
                    0 => nodes[*node].wake(),
                    1 => nodes[*node].give(true),
                    _ => nodes[*node].way.hold(false),
                }
            }
            !is_due
        });
        if is_over {
            return nodes;
        }
        let random = mixed(seed ^ (step << 8));
        let at = usize::try_from(random % u64::from(NODES)).unwrap();
        let is_down = |node: usize| wake.iter().any(|(_, other, _)| *other == node);
        if !is_down(at) && wake.len() < MOST_DOWN {
            let soon = Duration::from_millis(300 + random % 700);
            let kind = (random >> 16) % 8;
            count.fetch_add(1, Ordering::Relaxed);
            match kind {
                0 | 1 => {
                    nodes[at].kill();
                    wake.push((now + soon, at, 0));
                }
                2 | 3 => {
                    nodes[at].give(false);
                    wake.push((now + soon, at, 1));
                }
                4 if !wake.iter().any(|(_, _, kind)| *kind == 2) => {
                    nodes[at].way.hold(true);
                    wake.push((now + Duration::from_secs(12), at, 2));
                }
                _ => nodes[at].way.cut(),
            }
        }
        sleep(Duration::from_millis(70 + random % 120)).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_interrupted_stream_is_whole_or_says_so_and_every_bill_is_right() {
    let Bounds { streams, interrupted: least } = bounds();
    let seed: u64 =
        std::env::var("IDLEWATT_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let hub = Arc::new(TestHub::start().await);
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let continuation = if number > 6 { Continuation::Text } else { Continuation::Ids };
        nodes.push(Node::start(&hub, number, continuation).await);
    }
    hub.accepting(NODES.into()).await;
    let (over, befallen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let fate = tokio::spawn(befall(nodes, seed, Arc::clone(&over), Arc::clone(&befallen)));

    let mut running = JoinSet::new();
    let mut seen = Vec::new();
    for number in 0..streams {
        if running.len() >= AT_ONCE {
            seen.push(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(stream(Arc::clone(&hub), mixed(seed ^ number) % 1_000_000));
    }
    while let Some(one) = running.join_next().await {
        seen.push(one.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    let nodes = fate.await.unwrap();

    let (mut interrupted, mut whole, mut by_ids, mut by_text, mut unsigned) = (0, 0, 0, 0, 0);
    let mut spent = 0;
    let mut ids = HashSet::new();
    for one in &seen {
        let expected = one.expected();
        assert!(expected.starts_with(&one.text), "lost or doubled: {:?} of {expected:?}", one.text);
        assert_ne!(one.ended, one.error, "{}: an end, or an error", one.id);
        assert!(!one.ended || one.text == expected, "{}: {:?} is not {expected:?}", one.id, one.text);
        assert!(ids.insert(one.id.clone()));
        let got = hub.get(&format!("/v1/receipts/{}", one.id)).await;
        let text = got.text().await.unwrap();
        if one.text.is_empty() {
            continue;
        }
        let file: idlewatt_protocol::receipt::ReceiptFile = serde_json::from_str(&text).unwrap();
        let receipt = file.verify().unwrap().receipt;
        let parts = &receipt.segments;
        let completion: u32 = parts.iter().map(|part| part.usage.completion).sum();
        let lost = parts.iter().filter(|part| matches!(part.statement, Signed::Unsigned(_))).count();
        unsigned += lost;
        let first = parts[0].usage.prompt;
        assert!(lost > 0 || first == PROMPT, "{receipt:?}");
        // Each token was an event, so that the hub's own count is the server's.
        let mut length = 0;
        let told = tokens(one.seed).into_iter().take_while(|token| {
            length += token.len();
            length <= one.text.len()
        });
        let delivered = told.count();
        assert_eq!(usize::try_from(completion).unwrap(), delivered, "{receipt:?}");
        assert_eq!(receipt.cost.0, i64::from(first + completion), "{receipt:?}");
        spent += receipt.cost.0;
        if parts.len() > 1 || one.error {
            interrupted += 1;
            whole += usize::from(one.ended);
        }
        by_ids += usize::from(receipt.joined == Joined::Ids);
        by_text += usize::from(receipt.joined == Joined::Text);
    }
    println!(
        "{} streams, {} blows to 8 nodes: {interrupted} interrupted after their first token, {whole} of them whole ({by_ids} \
         by ids, {by_text} by text); {unsigned} parts of lost nodes; {spent} micro-credits",
        seen.len(),
        befallen.load(Ordering::Relaxed),
    );
    assert!(interrupted >= least, "only {interrupted} of {} were interrupted", seen.len());
    assert!(whole * 100 >= interrupted * 99, "{whole} of {interrupted} interrupted streams are whole");

    let metrics = hub.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("idlewatt_hub_breaches_total 0\n"),
        "a node was taken for one that breaks the protocol"
    );

    // The books: what was spent went to the nodes and the hub, and each node was told all of its own.
    assert_eq!(hub.available(), MicroCredits(10_000_000 - spent));
    let fees = hub.store.account(account("fees")).await.unwrap().balance_ucr;
    let mut earned = fees.0;
    for node in &nodes {
        let balance = hub.store.account(account(&node.owner)).await.unwrap().balance_ucr;
        let told = timeout(Duration::from_secs(30), async {
            while node.earned() != balance {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(told.await.is_ok(), "{} has {balance:?} and was told {:?}", node.owner, node.earned());
        earned += balance.0;
    }
    assert_eq!(earned, spent);
    assert_eq!(check_folder(hub.store.folder()).unwrap().breaches, [""; 0]);
}
