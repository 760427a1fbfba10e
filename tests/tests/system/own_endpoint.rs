//! The host's own endpoint: this machine first, then the hubs that it joined, paid with what it earned.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use idlewatt_tests::{Consumer, Hub, MODEL, ModelServer, Node, claimed, until};
use serde_json::Value;

use crate::{chat, stream};

/// The endpoint of a node's host.
fn own(node: &Node) -> Consumer {
    let told = node.run(&["endpoint", "--json"]).json();
    let url = told["url"].as_str().expect("an address").trim_end_matches("/v1").to_owned();
    Consumer::new(&url, told["key"].as_str().expect("a key"))
}

fn balance(hub: &Hub, account: &str) -> i64 {
    hub.account(account)["balance_ucr"].as_i64().expect("a balance")
}

fn answered_by(answer: &idlewatt_tests::Answer) -> Option<String> {
    Some(answer.headers.get("x-idlewatt-answered-by")?.to_str().ok()?.to_owned())
}

/// Waits until no hub has this account's money set aside: what was asked is settled.
async fn until_settled(hub: &Hub, account: &str) {
    until(claimed(Duration::from_secs(5)), "it is settled", async || {
        (hub.account(account)["reserved_ucr"] == 0).then_some(())
    })
    .await;
}

/// A machine without a model in two hubs, each with a node of somebody else's that shares the model server's model.
struct Without {
    node: Node,
    hubs: Vec<Hub>,
    _others: Vec<Node>,
}

impl Without {
    async fn start(model: &ModelServer) -> Self {
        let node = Node::start();
        let (mut hubs, mut others) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let hub = Hub::start();
            let other = Node::start();
            other.share(model, "1").await;
            other.join(&hub, "other").await;
            node.join(&hub, "host").await;
            // What the host earned there before.
            assert_eq!(hub.run(&["account", "credit", "host", "10", "--json"]).code, Some(0));
            let watcher = hub.consumer("watcher", 0);
            hub.until_available(&watcher, true).await;
            hubs.push(hub);
            others.push(other);
        }
        Self { node, hubs, _others: others }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_machine_cannot_answer_is_asked_of_the_hubs_and_one_that_is_down_is_not_noticed() {
    let model = ModelServer::start(&["--parallel", "4", "--threads", "1"]);
    let mut system = Without::start(&model).await;
    let host = own(&system.node);

    let refused = host.chat(&chat("Hello", 8)).await;
    assert_eq!(refused.status, 404, "prompts stay here until the host says otherwise");
    assert!(refused.error().unwrap()["message"].as_str().unwrap().contains("own.networks"));
    assert_eq!(host.listed().await.unwrap(), Vec::<Value>::new());

    system.node.set("own.networks", "true");
    let listed = host.listed().await.unwrap();
    let names: Vec<&str> = listed.iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(names.contains(&MODEL), "{names:?}");
    assert!(listed.iter().all(|it| it["owned_by"] != "this machine"));

    let direct = model.consumer().chat(&stream("Why is the sky blue?", 24)).await;
    let answer = host.chat(&stream("Why is the sky blue?", 24)).await;
    assert_eq!((answer.status, answer.done, answer.broken), (200, true, false));
    assert_eq!(answer.text(), direct.text(), "word for word");
    assert!(answer.usage().is_some(), "usage was asked for, and is passed on");
    let first = answered_by(&answer).expect("a hub answered");
    let (asked, idle): (Vec<&Hub>, Vec<&Hub>) = {
        for hub in &system.hubs {
            until_settled(hub, "host").await;
        }
        system.hubs.iter().partition(|hub| balance(hub, "host") < 10_000_000)
    };
    assert_eq!(
        (asked.len(), idle.len()),
        (1, 1),
        "one hub is asked, and paid from the account that this machine earns for"
    );

    // The one that answered is killed: the other answers, and the host's program sees an answer.
    let gone = system.hubs.iter().position(|hub| balance(hub, "host") < 10_000_000).unwrap();
    system.hubs[gone].process.kill();
    for round in 0..5 {
        let answer = host.chat(&stream(&format!("Why is the sea salt? ({round})"), 8)).await;
        assert_eq!((answer.status, answer.done), (200, true), "{answer:?}");
        assert_ne!(answered_by(&answer).unwrap(), first);
    }
    system.hubs[gone].restart();
    system.node.until_connected(&system.hubs[gone].url.clone()).await;
    for hub in &system.hubs {
        until_settled(hub, "host").await;
        assert_eq!(hub.check_ledger()["ok"], true);
    }

    // No key is on this machine's disk: it is made from the node's own.
    let secret = system.node.home().join("data/node.key");
    if let Ok(file) = std::fs::metadata(&secret) {
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    let keys = system.hubs[gone].run(&["key", "list", "--json"]).json();
    let own_key = keys.as_array().unwrap().iter().find(|it| it["node"].is_string()).expect("the node's key");
    assert_eq!(own_key["account"], "host");

    // The operator revokes it: this hub answers no more, the other does.
    let shown = own_key["key"].as_str().unwrap();
    assert_eq!(system.hubs[gone].run(&["key", "revoke", shown, "--json"]).code, Some(0));
    let answer = host.chat(&chat("Hello again", 8)).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answered_by(&answer).unwrap(), first);

    // Nobody is left who may answer: the host is told what is wrong, in OpenAI's form.
    let left = 1 - gone;
    system.hubs[left].process.kill();
    let refused = host.chat(&chat("And now?", 8)).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.error().unwrap()["code"], "hub_unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_machines_own_model_is_asked_first_and_the_hubs_only_when_it_is_gone() {
    let model = ModelServer::start(&["--parallel", "4", "--threads", "1"]);
    let system = Without::start(&model).await;
    let mut mine = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    system.node.set("own.networks", "true");
    system.node.share(&mine, "1").await;
    let host = own(&system.node);

    let answer = host.chat(&stream("Hello", 8)).await;
    assert_eq!((answer.status, answer.done, answered_by(&answer)), (200, true, None), "answered here");
    let listed = host.listed().await.unwrap();
    let mine_listed: Vec<&Value> = listed.iter().filter(|it| it["id"] == MODEL).collect();
    assert_eq!(mine_listed.len(), 1, "one name, once");
    for hub in &system.hubs {
        assert_eq!(balance(hub, "host"), 10_000_000, "nothing was spent");
    }

    mine.process.kill();
    let answer = host.chat(&stream("Hello", 8)).await;
    assert_eq!((answer.status, answer.done), (200, true), "{answer:?}");
    assert!(answered_by(&answer).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_too_long_for_this_machine_is_asked_of_the_hubs() {
    let model = ModelServer::start(&["--parallel", "4", "--threads", "1"]);
    let system = Without::start(&model).await;
    let mine = ModelServer::start(&["--parallel", "1", "--threads", "1", "--ctx", "256"]);
    // Not shared: else the hubs would ask this same machine.
    system.node.set("servers.urls", &mine.url);
    let host = own(&system.node);
    until(claimed(Duration::from_secs(10)), "its model is seen", async || {
        system.node.status()["services"].as_array()?.iter().find(|it| it["reachable"] == true).map(drop)
    })
    .await;
    let long = "Count the sheep that jump over the fence. ".repeat(60);
    // In the real server's own words.
    for body in [chat(&long, 8), stream(&long, 8)] {
        let refused = host.chat(&body).await;
        assert_eq!(
            (refused.status, &refused.error().unwrap()["code"]),
            (400, &"context_length_exceeded".into())
        );
        assert_eq!(answered_by(&refused), None);
    }
    system.node.set("own.networks", "true");
    for body in [chat(&long, 8), stream(&long, 8)] {
        let answer = host.chat(&body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answered_by(&answer).is_some(), "a hub answered");
    }
    assert_eq!(answered_by(&host.chat(&chat("Hello", 8)).await), None, "what fits here is answered here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_only_earn_spends_nothing_and_is_told_why() {
    let hub = Hub::start();
    let node = Node::start();
    let created = hub.run(&["invite", "create", "--account", "host", "--earn-only", "--json"]).json();
    let invite = created["invite"].as_str().unwrap();
    // A node that has just started may not have its key yet.
    until(claimed(Duration::from_secs(5)), "the node joins", async || {
        (node.run(&["join", invite, "--json"]).code == Some(0)).then_some(())
    })
    .await;
    node.until_connected(&hub.url).await;
    node.set("own.networks", "true");
    let refused = own(&node).chat(&chat("Hello", 8)).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.error().unwrap()["code"], "may_not_spend");
}
