//! What a node sees: who is let in, who is cut off, and what it is told.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::SinkExt;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::limits::{MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD};
use idlewatt_protocol::message::{HubMessage, NodeMessage, Outcome, RefuseCode};
use idlewatt_protocol::receipt::{STATEMENT_TYPE, Signed, Statement, sign_batch};
use idlewatt_protocol::{MicroCredits, Nonce, PublicKey, Usage};
use scripted::*;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn an_invite_works_once_and_again_for_its_node() {
    let hub = TestHub::start().await;
    let token = hub.token("host").await;
    let node = Node::join(&hub, 1, Some(&token), 0).await.unwrap();
    assert_eq!((node.welcome.epoch, node.welcome.account.as_str()), (1, "host"));
    assert_eq!(node.welcome.urls, [hub.url("")]);
    assert_eq!(Node::join(&hub, 1, Some(&token), 0).await.unwrap().welcome.epoch, 2);
    assert_eq!(Node::join(&hub, 1, None, 0).await.unwrap().welcome.epoch, 3);
    let other = Node::join(&hub, 2, Some(&token), 0).await.err().unwrap();
    assert_eq!(other.code, RefuseCode::InviteUsed);
}

#[tokio::test]
async fn foreign_and_missing_invites_are_refused() {
    let hub = TestHub::start().await;
    let foreign = TestHub::start().await.token("host").await;
    assert_eq!(Node::join(&hub, 1, Some(&foreign), 0).await.err().unwrap().code, RefuseCode::InviteUnknown);
    assert_eq!(Node::join(&hub, 1, None, 0).await.err().unwrap().code, RefuseCode::UnknownNode);
}

#[tokio::test]
async fn a_replayed_hello_is_refused() {
    let hub = TestHub::start().await;
    let token = hub.token("host").await;
    let key = SigningKey::from_bytes(&[1; 32]);
    let mut first = hub.connect().await;
    let challenged = challenge(&mut first).await;
    let hello = side(&key, &challenged, Some(&token), 0).answer(&challenged, Nonce([1; 32])).unwrap();
    let mut second = hub.connect().await;
    challenge(&mut second).await;
    say(&mut second, &NodeMessage::Hello(Box::new(hello.clone()))).await;
    let Some(HubMessage::Refuse(refuse)) = hear(&mut second).await else { panic!("let in") };
    assert_eq!(refuse.code, RefuseCode::BadProof);
    say(&mut first, &NodeMessage::Hello(Box::new(hello))).await;
    assert!(matches!(hear(&mut first).await, Some(HubMessage::Welcome(_))));
}

#[tokio::test]
async fn a_program_of_another_protocol_is_refused() {
    let hub = TestHub::start().await;
    let mut socket = hub.connect().await;
    let challenged = challenge(&mut socket).await;
    let key = SigningKey::from_bytes(&[1; 32]);
    let mut hello = side(&key, &challenged, None, 0).answer(&challenged, Nonce([1; 32])).unwrap();
    hello.version = 99;
    say(&mut socket, &NodeMessage::Hello(Box::new(hello))).await;
    let Some(HubMessage::Refuse(refuse)) = hear(&mut socket).await else { panic!("let in") };
    assert_eq!(refuse.code, RefuseCode::Version);
}

#[tokio::test]
async fn the_newest_session_wins_and_the_old_ones_answer_breaks_off() {
    let hub = TestHub::start().await;
    let mut old = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = old.asked().await;
    old.head(&asked, true).await;
    old.data(&mut asked, &chunk("Hel")).await;
    let response = response.await.unwrap();
    let _new = Node::join(&hub, 1, None, 0).await.unwrap();
    assert_eq!(old.cut_off().await.code, RefuseCode::Superseded);
    let text = response.text().await.unwrap();
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
}

/// Lets a node begin an answer, then does `act`; it must be cut off for `because`, and bills nothing, not even what came.
async fn hostile(because: &str, act: impl AsyncFnOnce(&mut Node, &mut Asked)) {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let response = response.await.unwrap();
    act(&mut node, &mut asked).await;
    let refuse = node.cut_off().await;
    assert_eq!(refuse.code, RefuseCode::Protocol);
    assert!(refuse.message.contains(because), "{:?} does not say {because:?}", refuse.message);
    drop(node);
    let headers = response.headers().clone();
    assert!(!response.text().await.unwrap().contains("[DONE]"));
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(billed(&verified.receipt), Usage::NONE);
    assert_eq!(hub.available(), MicroCredits(10_000_000), "bills nothing");
}

fn data(stream: u32, offset: u64, payload: &'static [u8]) -> Frame {
    Frame { kind: Kind::Data, last: false, stream, offset, payload: Bytes::from_static(payload) }
}

#[tokio::test]
async fn an_oversized_payload_is_cut_off() {
    hostile("65,536", async |node, asked| {
        let payload = vec![b'x'; MAX_FRAME_PAYLOAD + 1].into();
        let stream = asked.request.stream;
        node.raw(Frame { kind: Kind::Data, last: false, stream, offset: asked.sent, payload }).await;
    })
    .await;
}

#[tokio::test]
async fn an_oversized_frame_is_cut_off_before_it_is_read() {
    hostile("a frame is over the limit", async |node, _| {
        let _ = node.socket.send(Message::text("x".repeat(MAX_CONTROL_BYTES + 1))).await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_offset_is_cut_off() {
    hostile("where", async |node, asked| node.raw(data(asked.request.stream, asked.sent + 7, b"x")).await)
        .await;
}

#[tokio::test]
async fn data_for_a_foreign_stream_is_cut_off() {
    hostile("stream 77, which is not open", async |node, _| node.raw(data(77, 0, b"x")).await).await;
}

#[tokio::test]
async fn nonsense_is_cut_off() {
    hostile("no message of this protocol", async |node, _| {
        let _ = node.socket.send(Message::text("{}")).await;
    })
    .await;
}

#[tokio::test]
async fn inflated_counts_at_the_end_are_cut_off() {
    hostile("completion tokens claimed, 50 were allowed", async |node, asked| {
        node.end(asked, Outcome::Complete, asked.sent, usage(9, 51)).await;
    })
    .await;
}

/// A complete answer whose statement is `bend`ed: the node is cut off and the receipt bills nothing.
async fn bent(because: &str, signer: Option<u8>, bend: impl FnOnce(&mut Statement)) {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    for part in [&chunk("Hello"), FINISH, DONE] {
        node.data(&mut asked, part).await;
    }
    node.end(&asked, Outcome::Complete, asked.sent, usage(9, 3)).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(content(&response.text().await.unwrap()), "Hello");
    let mut statement = node.statement(&asked, "Hello", Outcome::Complete, asked.sent, usage(9, 3));
    bend(&mut statement);
    let key = signer.map_or(node.key.clone(), |seed| SigningKey::from_bytes(&[seed; 32]));
    node.state_signed(&statement, &key).await;
    let refuse = node.cut_off().await;
    assert_eq!(refuse.code, RefuseCode::Protocol);
    assert!(refuse.message.contains(because), "{:?} does not say {because:?}", refuse.message);
    let (_, verified) = hub.receipt(&headers).await;
    assert!(matches!(&verified.receipt.segments[0].statement, Signed::Unsigned(_)));
    assert_eq!(billed(&verified.receipt), Usage::NONE);
    assert_eq!(hub.available(), MicroCredits(10_000_000), "bills nothing");
}

#[tokio::test]
async fn a_statement_of_another_key_is_forged() {
    bent("another node", Some(9), |_| ()).await;
}

#[tokio::test]
async fn a_statement_that_was_altered_after_signing_is_forged() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let key = node.key.clone();
    let mut envelopes = sign_batch(&key, STATEMENT_TYPE, &[b"{}".to_vec(), b"{ }".to_vec()]);
    envelopes[0].payload = envelopes[1].payload.clone();
    node.say(&NodeMessage::Statements { statements: envelopes }).await;
    let refuse = node.cut_off().await;
    assert!(refuse.message.contains("forged statement"), "{}", refuse.message);
}

#[tokio::test]
async fn a_statement_for_another_node_is_forged() {
    bent("another node", None, |statement| statement.node = PublicKey([8; 32])).await;
}

#[tokio::test]
async fn a_statement_for_another_hub_is_forged() {
    bent("another hub", None, |statement| statement.hub = PublicKey([8; 32])).await;
}

#[tokio::test]
async fn a_statement_with_more_tokens_than_bytes_is_inflated() {
    bent("fewer bytes of text", None, |statement| statement.usage.completion = 49).await;
}

#[tokio::test]
async fn a_statement_for_an_unknown_request_is_void() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    response.await.unwrap().text().await.unwrap();
    assert_eq!(node.posted().await.seq, 1);
    let unknown = idlewatt_protocol::RequestId([9; 16]);
    let mut statement = node.statement(&asked, "Hi", Outcome::Complete, asked.sent, usage(9, 3));
    let key = node.key.clone();
    // The settled one again, then an unknown one: only the second is void.
    node.state_signed(&statement, &key).await;
    statement.request = unknown;
    node.state_signed(&statement, &key).await;
    assert_eq!(node.hear().await, HubMessage::Void { request: unknown });
}

#[tokio::test]
async fn a_gap_in_the_numbers_holds_no_posting_back() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    for (posted_through, seq) in [(0, 1), (7, 8)] {
        // It knows of postings that this hub has not: the hub runs on an old copy of its ledger.
        node = Node::join(&hub, 1, None, posted_through).await.unwrap();
        node.offer(vec![offer()]).await;
        node.ready(1).await;
        hub.accepting(1).await;
        let response = hub.ask("/v1/chat/completions", &chat(true));
        let mut asked = node.asked().await;
        node.stream(&mut asked, &["Hi"]).await;
        response.await.unwrap().text().await.unwrap();
        assert_eq!(node.posted().await.seq, seq);
    }
    drop(node);
    let mut forgetful = Node::join(&hub, 1, None, 0).await.unwrap();
    assert_eq!((forgetful.posted().await.seq, forgetful.posted().await.seq), (1, 8));
}

#[tokio::test]
async fn postings_that_a_node_missed_are_sent_again_after_a_restart() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let mut requests = Vec::new();
    for _ in 0..3 {
        let response = hub.ask("/v1/chat/completions", &chat(true));
        let mut asked = node.asked().await;
        node.stream(&mut asked, &["Hi"]).await;
        response.await.unwrap().text().await.unwrap();
        assert_eq!(node.posted().await.request, asked.request.request);
        requests.push(asked.request.request);
    }
    drop(node);
    let hub = hub.restart().await;
    let mut node = Node::join(&hub, 1, None, 1).await.unwrap();
    for (seq, request) in (2..).zip(&requests[1..]) {
        let posted = node.posted().await;
        assert_eq!((posted.seq, posted.request), (seq, *request));
    }
    node.offer(vec![offer()]).await;
    node.ready(1).await;
    hub.accepting(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    response.await.unwrap().text().await.unwrap();
    assert_eq!(node.posted().await.seq, 4);
}
