//! The cap on a whole running system: a card that draws what the real model server really does, and three ways to hold
//! it. Its own record is the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use idlewatt_tests::{Card, Consumer, Draws, Hub, ModelServer, Node, claimed, until};
use serde_json::{Value, json};

use crate::managed::node_with_its_own_server;
use crate::stream;

/// The cap of every test here.
const CAP: f64 = 200.0;
const DRAWS: Draws = Draws { resting: 40, working: 330 };
/// What the claim allows beside it.
const ABOVE: f64 = 1.02;
/// Before it holds.
const SETTLES: Duration = Duration::from_secs(5);

/// Longer than the window that is claimed; longer still where figures are taken.
fn measured() -> Duration {
    Duration::from_secs(if std::env::var_os("IDLEWATT_STRICT").is_some() { 30 } else { 12 })
}

fn node(card: &Card) -> Node {
    let node = Node::start_in(tempfile::tempdir().unwrap(), card.session());
    node.set("devices.nvml", card.library().to_str().unwrap());
    node.set("thermal.limit", "100");
    node.set("power.helper", "false");
    node.set("power.cap", &CAP.to_string());
    node
}

async fn on_hub(node: &Node) -> (Hub, Consumer) {
    let hub = Hub::start_with(&[]);
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000_000);
    hub.until_available(&consumer, true).await;
    (hub, consumer)
}

/// What `power` of the door says of the card.
fn held(node: &Node) -> Value {
    let page = node.run(&["power", "--json"]).json();
    page["gpus"][0].clone()
}

/// There is always work: more consumers than slots, each of whom asks again at once. Gives the worst ten seconds and
/// the mean over all, as parts of the cap.
async fn loaded(card: &Card, consumer: &Consumer) -> (f64, f64) {
    let over = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|number| {
            let (over, consumer) = (Arc::clone(&over), consumer.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    let body = stream(&format!("Tell me tale number {number}."), 200);
                    match consumer.open("/v1/chat/completions", &body).await {
                        Ok(answer) if answer.status == 200 => {
                            answer.rest().await;
                            answered += 1;
                        }
                        // The cap is used up for now.
                        _ => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(SETTLES).await;
    let since = SystemTime::now();
    tokio::time::sleep(measured()).await;
    let (worst, mean) = card.powers(since);
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for task in asking {
        answered += task.await.unwrap();
    }
    println!("worst 10 s {worst:.1} W, mean {mean:.1} W of {CAP} W, {answered} requests begun");
    (worst / CAP, mean / CAP)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_card_itself_holds_the_cap_where_it_may_be_told() {
    let card = Card::start(DRAWS, &json!({}), true);
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    card.follow(model.process.id());
    let node = node(&card);
    node.share(&model, "1").await;
    let (hub, consumer) = on_hub(&node).await;
    let told = || async { (held(&node)["actuator"] == "hardware").then_some(()) };
    until(claimed(Duration::from_secs(5)), "the card holds the cap", told).await;
    let (worst, used) = loaded(&card, &consumer).await;
    assert!(worst <= ABOVE && used >= 0.5, "worst {worst:.3}, used {used:.3} of the cap");
    hub.check_ledger();

    // Whoever ends gives the card back.
    assert_eq!(card.limit(), Some(200));
    assert_eq!(node.run(&["stop"]).code, Some(0));
    let given_back = || async { (card.limit() == Some(450)).then_some(()) };
    let ((), took) =
        until(claimed(Duration::from_secs(5)), "the card has its own limit back", given_back).await;
    println!("the card had its own limit back {} ms after the engine was told to end", took.as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_requests_hold_the_cap_where_the_card_may_not_be_told() {
    let card = Card::start(DRAWS, &json!({}), false);
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    card.follow(model.process.id());
    let node = node(&card);
    node.share(&model, "1").await;
    let (hub, consumer) = on_hub(&node).await;
    let (worst, used) = loaded(&card, &consumer).await;
    assert_eq!(held(&node)["actuator"], "admission");
    assert!(worst <= ABOVE && used >= 0.4, "worst {worst:.3}, used {used:.3} of the cap");
    hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_our_own_is_sliced_to_hold_the_cap() {
    let card = Card::start(DRAWS, &json!({}), false);
    let (node, _) = node_with_its_own_server(node(&card), |pid| card.follow(pid)).await;
    let (hub, consumer) = on_hub(&node).await;
    let (worst, used) = loaded(&card, &consumer).await;
    assert_eq!(held(&node)["actuator"], "duty_cycle");
    assert!(worst <= ABOVE && used >= 0.6, "worst {worst:.3}, used {used:.3} of the cap");
    hub.check_ledger();
}
