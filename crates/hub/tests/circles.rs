//! What keys, circles and operators allow, as consumers and nodes of a real hub see it.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use idlewatt_hub::store::{Whom, check_folder};
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_protocol::message::{CancelReason, HubMessage, NodeMessage, Outcome};
use idlewatt_protocol::{MicroCredits, Scope, ServiceOffer};
use scripted::*;
use serde_json::{Value, json};

/// A key of `owner`; its beginning, too.
async fn key(hub: &TestHub, owner: &str, limits: KeyLimits) -> (String, String) {
    let key = hub.store.create_key(account(owner), MicroCredits::ZERO, limits).await.unwrap().key;
    let shown = key[..9].to_owned();
    (key, shown)
}

fn request(hub: &TestHub, key: &str, body: &Value) -> reqwest::RequestBuilder {
    hub.http.post(hub.url("/v1/chat/completions")).bearer_auth(key).body(body.to_string())
}

async fn ask(hub: &TestHub, key: &str, body: &Value) -> reqwest::Response {
    request(hub, key, body).send().await.unwrap()
}

async fn code(response: reqwest::Response, status: u16) -> String {
    let (got, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// Asks for a stream in the background, so that the test can play the node.
fn begin(hub: &TestHub, key: &str) -> tokio::task::JoinHandle<reqwest::Response> {
    let request = request(hub, key, &chat(true));
    tokio::spawn(async move { request.send().await.unwrap() })
}

#[tokio::test]
async fn a_key_over_its_limits_is_told_which_and_when() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let limits = KeyLimits {
        requests_per_minute: Some(4),
        tokens_per_minute: Some(2000),
        models: Some(vec!["tiny".into()]),
        ..KeyLimits::default()
    };
    let (key, shown) = key(&hub, "consumer", limits.clone()).await;
    let mut body = chat(false);
    body["model"] = json!("other");
    assert_eq!(code(ask(&hub, &key, &body).await, 403).await, "model_not_allowed");
    body = chat(false);
    body["max_tokens"] = json!(1900);
    let never = ask(&hub, &key, &body).await;
    assert!(!never.headers().contains_key("retry-after"), "it never fits");
    assert_eq!(never.headers()["x-should-retry"], "false");
    assert_eq!(code(never, 429).await, "request_over_limit");
    let a_day = KeyLimits { spend_per_day_ucr: Some(MicroCredits(1500)), ..limits.clone() };
    hub.store.limit_key(shown.clone(), a_day).await.unwrap();
    body["max_tokens"] = json!(1400);
    assert_eq!(code(ask(&hub, &key, &body).await, 429).await, "spend_limit_exceeded");

    let response = begin(&hub, &key);
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    assert_eq!(response.await.unwrap().status(), 200);
    let over = ask(&hub, &key, &chat(false)).await;
    let wait: u64 = over.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(code(over, 429).await, "rate_limit_exceeded");

    let more = KeyLimits { requests_per_minute: Some(5), ..limits };
    hub.store.limit_key(shown, more).await.unwrap();
    let response = begin(&hub, &key);
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    assert_eq!(response.await.unwrap().status(), 200, "a new limit holds at once");
}

#[tokio::test]
async fn a_key_that_names_no_limit_of_tokens_gets_what_is_left_to_it() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let limits = KeyLimits { tokens_per_minute: Some(1000), ..KeyLimits::default() };
    let (key, _) = key(&hub, "consumer", limits).await;
    let mut body = chat(true);
    body.as_object_mut().unwrap().remove("max_tokens");
    let request = request(&hub, &key, &body);
    let response = tokio::spawn(async move { request.send().await.unwrap() });
    let mut asked = node.asked().await;
    let most = asked.request.max_tokens;
    assert!((100..1000).contains(&most), "{most}");
    node.stream(&mut asked, &["Hi"]).await;
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn revoking_a_key_ends_its_running_stream_and_bills_what_came() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let (key, shown) = key(&hub, "consumer", KeyLimits::default()).await;
    let response = begin(&hub, &key);
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("Hel"));

    hub.store.revoke_key(shown).await.unwrap();
    let rest = response.text().await.unwrap();
    assert!(rest.contains("\"code\":\"key_ended\"") && !rest.contains("[DONE]"), "{rest}");
    let delivered = asked.sent;
    let stream = asked.request.stream;
    assert_eq!(node.hear().await, HubMessage::Cancel { stream, delivered, reason: CancelReason::Consumer });
    node.finish(&asked, "Hel", Outcome::Cancelled, usage(9, 1)).await;
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!((verified.receipt.outcome, verified.receipt.cost), (Outcome::Cancelled, MicroCredits(10)));
    assert_eq!(code(ask(&hub, &key, &chat(false)).await, 401).await, "invalid_api_key");
    assert_eq!(hub.available(), MicroCredits(10_000_000 - 10));
}

#[tokio::test]
async fn a_revoked_key_does_not_wait_for_a_slot() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    node.ready(1).await;
    let (busy, _) = key(&hub, "consumer", KeyLimits::default()).await;
    let (waiting, shown) = key(&hub, "consumer", KeyLimits::default()).await;
    let first = begin(&hub, &busy);
    let mut asked = node.asked().await;
    let second = begin(&hub, &waiting);
    let waits = async {
        while !hub.get("/metrics").await.text().await.unwrap().contains("idlewatt_hub_requests_total 2") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
    hub.store.revoke_key(shown).await.unwrap();
    assert_eq!(code(second.await.unwrap(), 401).await, "key_ended");
    node.stream(&mut asked, &["Hi"]).await;
    assert_eq!(first.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_suspended_account_fetches_its_receipts_and_asks_for_nothing() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    let headers = response.await.unwrap().headers().clone();
    hub.store.suspend(account("consumer"), true).await.unwrap();
    assert_eq!(code(ask(&hub, &hub.key, &chat(false)).await, 403).await, "account_suspended");
    hub.receipt(&headers).await;
    hub.store.suspend(account("consumer"), false).await.unwrap();
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_group_and_a_refusal_hold_for_nodes_that_are_connected() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let answers = async |node: &mut Node| {
        let response = hub.ask("/v1/chat/completions", &chat(true));
        let mut asked = node.asked().await;
        node.stream(&mut asked, &["Hi"]).await;
        assert_eq!(response.await.unwrap().status(), 200);
    };
    answers(&mut node).await;
    hub.store.create_group(account("home"), MicroCredits(1_000_000)).await.unwrap();
    hub.store.join_group(account("home"), account("host"), None).await.unwrap();
    refused(&hub).await;
    hub.store.join_group(account("home"), account("consumer"), None).await.unwrap();
    answers(&mut node).await;
    hub.store.refuse(account("host"), Whom::Account(account("consumer")), true).await.unwrap();
    refused(&hub).await;
    hub.store.refuse(account("host"), Whom::Account(account("consumer")), false).await.unwrap();
    answers(&mut node).await;
}

/// What changed in the directory reaches the table of nodes by a task: the first answers may still be the old ones.
async fn refused(hub: &TestHub) {
    let refused = async {
        loop {
            let response = hub.get("/v1/models").await.text().await.unwrap();
            let models: Value = serde_json::from_str(&response).unwrap();
            if models["data"].as_array().unwrap().is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let response = ask(hub, &hub.key, &chat(false)).await;
    assert!(matches!(response.status().as_u16(), 404 | 503), "{}", response.text().await.unwrap());
}

#[tokio::test]
async fn strangers_are_answered_only_where_host_and_key_both_say_so() {
    let hub = TestHub::start().await;
    hub.store.create_group(account("home"), MicroCredits::ZERO).await.unwrap();
    let mut node = hub.node(1).await;
    hub.store.join_group(account("home"), account("host"), None).await.unwrap();
    let public = KeyLimits { scope: Scope::Public, ..KeyLimits::default() };
    let (far, _) = key(&hub, "consumer", public).await;
    refused(&hub).await;
    assert_ne!(ask(&hub, &far, &chat(false)).await.status(), 200, "the host did not say so");
    node.say(&NodeMessage::Offer { services: vec![ServiceOffer { scope: Scope::Public, ..offer() }] }).await;
    let response = tokio::time::timeout(PATIENCE, async {
        loop {
            let response = begin(&hub, &far);
            tokio::select! {
                mut asked = node.asked() => {
                    node.stream(&mut asked, &["Hi"]).await;
                    return response.await.unwrap();
                }
                () = async { while !response.is_finished() { tokio::task::yield_now().await } } => {}
            }
        }
    });
    assert_eq!(response.await.unwrap().status(), 200);
    let near = ask(&hub, &hub.key, &chat(false)).await;
    assert_eq!(code(near, 404).await, "out_of_scope", "the key reaches its circle only");
    let folder = hub.store.folder().to_owned();
    assert!(check_folder(&folder).unwrap().ok);
}
