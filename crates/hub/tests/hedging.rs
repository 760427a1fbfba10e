//! A second node for a first token that does not come.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use idlewatt_protocol::PublicKey;
use idlewatt_protocol::message::{CancelReason, HubMessage, Outcome};
use scripted::{TestHub, billed, chat, content, usage};

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
    assert!(response.headers().contains_key("x-idlewatt-hedged"));
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
