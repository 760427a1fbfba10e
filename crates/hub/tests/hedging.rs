//! A second node for a first token that does not come.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use std::time::Duration;

use idlewatt_protocol::message::{CancelReason, HubMessage, Outcome};
use idlewatt_protocol::{PublicKey, ServiceOffer};
use scripted::{Node, TestHub, billed, chat, chunk, content, offer, usage};
use serde_json::json;
use tokio::time::timeout;

/// A hub with two nodes, of which the first is measured as the quicker one, so that it is asked first and is soon overdue.
async fn two() -> (TestHub, scripted::Node, scripted::Node) {
    let hub = TestHub::start().await;
    let mut first = hub.node(1).await;
    let measured = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = first.asked().await;
    first.stream(&mut asked, &["measured"]).await;
    measured.await.unwrap().text().await.unwrap();
    first.posted().await;
    let second = hub.node(2).await;
    hub.accepting(2).await;
    (hub, first, second)
}

#[tokio::test]
async fn a_stuck_first_token_is_hedged_and_only_who_began_is_paid() {
    let (hub, mut first, mut second) = two().await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let stuck = first.asked().await;
    let mut asked = second.asked().await;
    assert_eq!(asked.request.request, stuck.request.request);
    second.stream(&mut asked, &["won"]).await;
    let response = response.await.unwrap();
    let first_key = PublicKey::from(&first.key);
    assert_eq!(response.headers()["x-idlewatt-hedged"], first_key.short());
    let headers = response.headers().clone();
    assert_eq!(content(&response.text().await.unwrap()), "won");
    let HubMessage::Cancel { delivered: 0, reason: CancelReason::Timeout, .. } = first.hear().await else {
        panic!("the first is told that nothing of it counts")
    };
    first.end(&stuck, Outcome::Cancelled, 0, usage(0, 0)).await;
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.also_asked, [first_key]);
    assert_eq!(verified.receipt.segments.len(), 1);
    assert_eq!(verified.receipt.segments[0].node, PublicKey::from(&second.key));
    assert!(billed(&verified.receipt).completion > 0);
}

#[tokio::test]
async fn a_hedge_that_is_slower_is_cancelled_at_nothing() {
    let (hub, mut first, mut second) = two().await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut stuck = first.asked().await;
    let asked = second.asked().await;
    first.stream(&mut stuck, &["late"]).await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["x-idlewatt-hedged"], PublicKey::from(&second.key).short());
    let headers = response.headers().clone();
    assert_eq!(content(&response.text().await.unwrap()), "late");
    let HubMessage::Cancel { delivered: 0, reason: CancelReason::Consumer, .. } = second.hear().await else {
        panic!("the second is told that nothing of it counts")
    };
    second.end(&asked, Outcome::Cancelled, 0, usage(0, 0)).await;
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.segments[0].node, PublicKey::from(&first.key));
    assert_eq!(verified.receipt.also_asked, [PublicKey::from(&second.key)]);
}

#[tokio::test]
async fn a_first_node_that_fails_leaves_the_answer_to_the_second() {
    let (hub, mut first, mut second) = two().await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let stuck = first.asked().await;
    let mut asked = second.asked().await;
    first.end(&stuck, Outcome::Failed, 0, usage(0, 0)).await;
    second.stream(&mut asked, &["on"]).await;
    assert_eq!(content(&response.await.unwrap().text().await.unwrap()), "on");
}

#[tokio::test]
async fn while_two_are_asked_no_third_is_held_for_it() {
    let (hub, mut first, mut second) = two().await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let _stuck = first.asked().await;
    let mut asked = second.asked().await;
    second.ready(0).await;
    hub.accepting(1).await;
    // Of another quantisation, with one slot: whoever asks for the model by its short name may be given it.
    let mut third = Node::join(&hub, 3, Some(&hub.token("host3").await), 0).await.unwrap();
    let mut other = ServiceOffer { slots: 1, ..offer() };
    other.artefact.quantisation = Some("q8".into());
    third.offer(vec![other]).await;
    third.ready(1).await;
    hub.accepting(2).await;
    drop(first);
    hub.accepting(1).await;
    second.head(&asked, true).await;
    second.data(&mut asked, &chunk("on")).await;
    let response = response.await.unwrap();

    let mut body = chat(true);
    body["model"] = json!("tiny:q8");
    let next = hub.ask("/v1/chat/completions", &body);
    let mut free = third.asked().await;
    third.stream(&mut free, &["at once"]).await;
    assert_eq!(content(&next.await.unwrap().text().await.unwrap()), "at once");

    second.end(&asked, Outcome::Yielded, asked.sent, usage(9, 1)).await;
    let text = response.text().await.unwrap();
    assert!(
        text.contains("\"error\"") && !text.contains("[DONE]"),
        "another artefact does not go on: {text}"
    );
}

#[tokio::test]
async fn what_one_node_alone_may_read_is_not_hedged() {
    let (hub, mut first, mut second) = two().await;
    let request = hub.post("/v1/chat/completions", &chat(true)).header("x-idlewatt-continue", "never");
    let response = tokio::spawn(async move { request.send().await.unwrap() });
    let mut slow = first.asked().await;
    // A first token is overdue after two seconds where the node is known as a quick one.
    assert!(timeout(Duration::from_secs(4), second.asked()).await.is_err());
    first.stream(&mut slow, &["late"]).await;
    let response = response.await.unwrap();
    assert!(!response.headers().contains_key("x-idlewatt-hedged"));
    assert_eq!(content(&response.text().await.unwrap()), "late");
}
