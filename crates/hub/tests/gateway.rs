//! What a consumer sees, with a real hub and a scripted node.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

mod scripted;

use idlewatt_hub_core::allowance::KeyLimits;
use std::sync::mpsc;
use std::time::Duration;

use idlewatt_hub::store::check_folder;
use idlewatt_protocol::limits::{MAX_FRAME_PAYLOAD, STREAM_WINDOW, WHOLE_ANSWER_TIMEOUT};
use idlewatt_protocol::message::{CancelReason, HubMessage, NodeMessage, Outcome, RefusalCode, State};
use idlewatt_protocol::receipt::{Signed, commitment};
use idlewatt_protocol::{MicroCredits, Price, ServiceOffer};
use scripted::*;
use serde_json::{Value, json};

/// Time in this process stands still but for what the test advances it by, until this is dropped.
struct StoppedClock(#[expect(dead_code, reason = "held, not read")] mpsc::Sender<()>);

impl Default for StoppedClock {
    fn default() -> Self {
        // While a blocking task runs, tokio's paused clock does not leap to the next timer by itself.
        let (hold, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        tokio::time::pause();
        Self(hold)
    }
}

impl StoppedClock {
    async fn advance(&self, by: Duration) {
        // Timers go by whole milliseconds.
        tokio::time::advance(by + Duration::from_millis(1)).await;
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_stream_is_relayed_settled_and_posted() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let body = chat(true);
    let response = hub.ask("/v1/chat/completions", &body);
    let mut asked = node.asked().await;
    assert_eq!(asked.json()["max_tokens"], 50);
    assert_eq!(asked.json()["stream_options"]["include_usage"], true);
    node.stream(&mut asked, &["Hel", "lo", "!"]).await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(response.headers().contains_key("x-idlewatt-node"));
    assert_eq!(response.headers()["x-idlewatt-artefact"], "tiny:q4");
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    assert_eq!(content(&text), "Hello!");
    let events = events(&text);
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(chunks.len(), 4, "the usage chunk nobody asked for is stripped: {text}");
    for chunk in &chunks {
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert!(chunk["id"].as_str().unwrap().starts_with("chatcmpl-"));
        assert_eq!(chunk["model"], "tiny:q4");
    }
    assert!(!text.contains("/home/me"));

    let (file, verified) = hub.receipt(&headers).await;
    let receipt = &verified.receipt;
    assert_eq!((receipt.cost, receipt.fee), (MicroCredits(12), MicroCredits(0)));
    assert_eq!(billed(receipt), usage(9, 3));
    assert!(verified.statements[0].is_some());
    let salt = file.salt.unwrap();
    assert_eq!(receipt.response_commitment, commitment(&salt, b"Hello!"));
    assert_eq!(receipt.request_commitment, commitment(&salt, body.to_string().as_bytes()));
    let posted = node.posted().await;
    assert_eq!((posted.seq, posted.request, posted.signed), (1, asked.request.request, true));
    assert_eq!(posted.earned, receipt.segments[0].earned);
    assert_eq!(hub.available(), MicroCredits(10_000_000 - 12));
}

#[tokio::test]
async fn the_usage_chunk_comes_last_with_no_choices_when_asked_for() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    for node_sends_it in [true, false] {
        let response = hub.ask("/v1/chat/completions", &body);
        let mut asked = node.asked().await;
        node.head(&asked, true).await;
        let parts = if node_sends_it { [FINISH, USAGE, DONE] } else { [FINISH, "", DONE] };
        node.data(&mut asked, &chunk("Hi")).await;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            node.data(&mut asked, part).await;
        }
        node.finish(&asked, "Hi", Outcome::Complete, usage(9, 3)).await;
        let text = response.await.unwrap().text().await.unwrap();
        let events = events(&text);
        let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
        assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(12)), "{text}");
        assert_eq!(last["model"], "tiny:q4");
    }
}

#[tokio::test]
async fn a_whole_answer_keeps_its_usage() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(false));
    let mut asked = node.asked().await;
    assert_eq!(asked.request.deadlines.first_token(), WHOLE_ANSWER_TIMEOUT);
    node.head(&asked, false).await;
    let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}});
    node.data(&mut asked, &answer.to_string()).await;
    node.finish(&asked, "Hello!", Outcome::Complete, usage(9, 3)).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!((&answer["model"], &answer["object"]), (&json!("tiny:q4"), &json!("chat.completion")));
    let (_, verified) = hub.receipt(&headers).await;
    assert!(verified.statements[0].is_some());
    assert_eq!(billed(&verified.receipt), usage(9, 3));
}

#[tokio::test]
async fn an_embedding_is_committed_to_as_a_whole() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/embeddings", &json!({"model": "tiny", "input": "hi"}));
    let mut asked = node.asked().await;
    node.head(&asked, false).await;
    let answer = r#"{"object":"list","model":"tiny:q4","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}"#;
    node.data(&mut asked, answer).await;
    node.finish(&asked, answer, Outcome::Complete, usage(2, 0)).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(response.text().await.unwrap(), answer);
    let (file, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.response_commitment, commitment(&file.salt.unwrap(), answer.as_bytes()));
    assert_eq!(
        verified.receipt.response_commitment,
        verified.statements[0].as_ref().unwrap().response_commitment
    );
}

#[tokio::test]
async fn a_consumer_that_goes_away_is_billed_what_it_got() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    assert!(response.chunk().await.unwrap().is_some());
    let delivered = asked.sent;
    drop(response);
    let cancel = node.hear().await;
    let stream = asked.request.stream;
    assert_eq!(cancel, HubMessage::Cancel { stream, delivered, reason: CancelReason::Consumer });
    node.data(&mut asked, &chunk("lo")).await;
    node.end(&asked, Outcome::Cancelled, delivered, usage(9, 1)).await;
    let statement = node.statement(&asked, "Hel", Outcome::Cancelled, delivered, usage(9, 1));
    let key = node.key.clone();
    node.state_signed(&statement, &key).await;
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.outcome, Outcome::Cancelled);
    assert_eq!(billed(&verified.receipt), usage(9, 1));
    assert!(node.posted().await.signed);
    assert_eq!(hub.available(), MicroCredits(10_000_000 - 10));
}

#[tokio::test]
async fn a_statement_for_more_than_was_delivered_is_set_aside() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    assert!(matches!(node.hear().await, HubMessage::Cancel { .. }));
    node.data(&mut asked, &chunk("lo")).await;
    node.finish(&asked, "Hello", Outcome::Complete, usage(9, 2)).await;
    let (_, verified) = hub.receipt(&headers).await;
    assert!(verified.statements[0].is_none());
    assert_eq!(billed(&verified.receipt).completion, 1);
}

#[tokio::test]
async fn a_node_that_dies_mid_stream_leaves_an_error_and_bills_what_came() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    drop(node);
    text.push_str(&response.text().await.unwrap());
    let events = events(&text);
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "node_failed");
    assert!(!text.contains("[DONE]"));
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.outcome, Outcome::Failed);
    assert!(matches!(&verified.receipt.segments[0].statement, Signed::Unsigned(why) if why == "node lost"));
    assert_eq!(billed(&verified.receipt).completion, 1);
}

#[tokio::test]
async fn a_yield_mid_stream_is_an_error_and_before_the_first_byte_a_silent_retry() {
    let hub = TestHub::start().await;
    let mut first = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = first.asked().await;
    let mut second = Node::join(&hub, 2, Some(&hub.token("host2").await), 0).await.unwrap();
    second.offer(vec![offer()]).await;
    second.ready(4).await;
    hub.accepting(2).await;
    first.head(&asked, true).await;
    first.data(&mut asked, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n").await;
    first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 0)).await;
    let mut again = second.asked().await;
    assert_eq!(again.request.request, asked.request.request, "the same request");
    second.stream(&mut again, &["Hello"]).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    assert!(content(&text) == "Hello" && !text.contains("error"), "{text}");
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.segments[0].node, (&second.key).into());
    let late = first.statement(&asked, "", Outcome::Yielded, asked.sent, usage(9, 0));
    let key = first.key.clone();
    first.state_signed(&late, &key).await;
    // Settled for another node: the first need not keep its word for longer.
    assert_eq!(first.hear().await, HubMessage::Void { request: asked.request.request });
    first.say(&NodeMessage::Yield).await;
    hub.accepting(1).await;
}

#[tokio::test]
async fn a_refusal_before_the_head_is_retried_elsewhere() {
    let hub = TestHub::start().await;
    let mut first = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(false));
    let asked = first.asked().await;
    let mut second = Node::join(&hub, 2, Some(&hub.token("host2").await), 0).await.unwrap();
    second.offer(vec![offer()]).await;
    second.ready(4).await;
    hub.accepting(2).await;
    first.say(&NodeMessage::Refused { stream: asked.request.stream, code: RefusalCode::Paused }).await;
    let mut again = second.asked().await;
    second.head(&again, false).await;
    second.data(&mut again, r#"{"choices":[{"message":{"content":"ok"}}]}"#).await;
    second.finish(&again, "ok", Outcome::Complete, usage(1, 1)).await;
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_busy_node_is_asked_again() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let asked = node.asked().await;
    node.say(&NodeMessage::Refused { stream: asked.request.stream, code: RefusalCode::Busy }).await;
    let mut again = node.asked().await;
    node.stream(&mut again, &["Hello"]).await;
    assert_eq!(content(&response.await.unwrap().text().await.unwrap()), "Hello");
}

#[tokio::test]
async fn a_waiting_request_gets_the_slot_that_becomes_free() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    node.ready(1).await;
    let one = hub.ask("/v1/chat/completions", &chat(true));
    let mut first = node.asked().await;
    let two = hub.ask("/v1/chat/completions", &chat(true));
    while !hub.get("/metrics").await.text().await.unwrap().contains("requests_waiting 1") {
        tokio::task::yield_now().await;
    }
    node.stream(&mut first, &["one"]).await;
    let mut second = node.asked().await;
    node.stream(&mut second, &["two"]).await;
    assert_eq!(content(&one.await.unwrap().text().await.unwrap()), "one");
    assert_eq!(content(&two.await.unwrap().text().await.unwrap()), "two");
}

#[tokio::test]
async fn unusable_whole_answers_are_502_and_bill_nothing() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    for answer in
        ["not json", "[]", r#"{"choices":"#, r#"{"error":{"message":"/home/me"}}"#, r#"{"object":"x"}"#]
    {
        let response = hub.ask("/v1/chat/completions", &chat(false));
        let mut asked = node.asked().await;
        node.head(&asked, false).await;
        node.data(&mut asked, answer).await;
        node.end(&asked, Outcome::Complete, asked.sent, usage(9, 1)).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 502, "{answer}");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(!response.text().await.unwrap().contains("/home"));
        assert_eq!(hub.get(&format!("/v1/receipts/{id}")).await.status(), 404);
        let statement = node.statement(&asked, "", Outcome::Complete, asked.sent, usage(9, 1));
        let key = node.key.clone();
        node.state_signed(&statement, &key).await;
        let void = HubMessage::Void { request: asked.request.request };
        assert_eq!(node.hear().await, void);
    }
    assert_eq!(hub.available(), MicroCredits(10_000_000));
}

#[tokio::test]
async fn a_stream_that_turns_to_nonsense_ends_in_an_error() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    for nonsense in ["data: {half\n\n", "data: {\"error\":{\"message\":\"/home/me\"}}\n\n", "data: [1]\n\n"] {
        let response = hub.ask("/v1/chat/completions", &chat(true));
        let mut asked = node.asked().await;
        node.head(&asked, true).await;
        node.data(&mut asked, &chunk("Hel")).await;
        node.data(&mut asked, nonsense).await;
        let text = response.await.unwrap().text().await.unwrap();
        assert!(text.contains("\"error\"") && !text.contains("[DONE]") && !text.contains("/home"), "{text}");
        let cancel = node.hear().await;
        assert!(matches!(cancel, HubMessage::Cancel { reason: CancelReason::Malformed, .. }), "{cancel:?}");
        let HubMessage::Cancel { delivered, .. } = cancel else { return };
        node.end(&asked, Outcome::Cancelled, delivered, usage(9, 1)).await;
    }
}

#[tokio::test]
async fn what_came_right_before_nonsense_is_delivered_and_nothing_else_is_billed() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("Hel")).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    let right = asked.sent + chunk("lo").len() as u64;
    node.data(&mut asked, &[&chunk("lo"), "data: {half\n\n", &chunk("!")].concat()).await;
    let text = response.text().await.unwrap();
    assert!(content(&text) == "Hello" && text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
    let HubMessage::Cancel { delivered, .. } = node.hear().await else { panic!("not cancelled") };
    assert_eq!(delivered, right);
    node.end(&asked, Outcome::Cancelled, delivered, usage(9, 2)).await;
    let statement = node.statement(&asked, "Hello", Outcome::Cancelled, delivered, usage(9, 2));
    let key = node.key.clone();
    node.state_signed(&statement, &key).await;
    let (file, verified) = hub.receipt(&headers).await;
    assert!(verified.statements[0].is_some());
    assert_eq!(verified.receipt.response_commitment, commitment(&file.salt.unwrap(), b"Hello"));
}

#[tokio::test]
async fn a_request_that_three_nodes_fail_at_is_sent_to_no_other() {
    let hub = TestHub::start().await;
    for seed in 1..=5 {
        let mut node = Node::join(&hub, seed, Some(&hub.token("host").await), 0).await.unwrap();
        node.offer(vec![offer()]).await;
        node.ready(4).await;
        tokio::spawn(async move {
            let asked = node.asked().await;
            node.end(&asked, Outcome::Failed, 0, usage(0, 0)).await;
            node.asked().await;
        });
    }
    hub.accepting(5).await;
    assert_eq!(hub.post("/v1/chat/completions", &chat(true)).send().await.unwrap().status(), 502);
    let metrics = hub.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("idlewatt_hub_retries_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn the_hubs_fee_is_its_own_and_the_rest_is_the_nodes() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    node.offer(vec![ServiceOffer { price: Price(100_000_000), ..offer() }]).await;
    while !hub.get("/v1/models").await.text().await.unwrap().contains("100000000") {
        tokio::task::yield_now().await;
    }
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    assert_eq!(asked.request.price, Price(100_000_000));
    node.stream(&mut asked, &["Hello"]).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    response.text().await.unwrap();
    // 12 tokens at 100 micro-credits, 5 % of it.
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!((verified.receipt.cost, verified.receipt.fee), (MicroCredits(1200), MicroCredits(60)));
    assert_eq!(node.posted().await.earned, MicroCredits(1140));
    for (name, balance) in [("consumer", 10_000_000 - 1200), ("host", 1140), ("fees", 60)] {
        let kept = hub.store.account(account(name)).await.unwrap();
        assert_eq!((kept.balance_ucr, kept.reserved_ucr), (MicroCredits(balance), MicroCredits(0)), "{name}");
    }
    assert_eq!(check_folder(hub.store.folder()).unwrap().breaches, [""; 0]);
}

#[tokio::test]
async fn a_silent_node_gets_its_consumer_an_early_head_comments_and_a_silent_retry() {
    let mut hub = TestHub::start().await;
    hub.http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut first = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let asked = first.asked().await;
    let mut second = Node::join(&hub, 2, Some(&hub.token("host2").await), 0).await.unwrap();
    second.offer(vec![offer()]).await;
    second.ready(4).await;
    hub.accepting(2).await;
    let clock = StoppedClock::default();
    clock.advance(Duration::from_secs(15)).await;
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-idlewatt-receipt"], *asked.request.request.to_string());
    for _ in 0..2 {
        clock.advance(Duration::from_secs(15)).await;
        assert_eq!(response.chunk().await.unwrap().unwrap(), ": still working\n\n");
    }
    drop(clock);
    first.end(&asked, Outcome::Failed, 0, usage(0, 0)).await;
    let mut again = second.asked().await;
    second.stream(&mut again, &["Hello"]).await;
    let text = response.text().await.unwrap();
    assert!(content(&text) == "Hello" && text.ends_with("[DONE]\n\n") && !text.contains("error"), "{text}");
}

#[tokio::test]
async fn a_broken_stream_never_ends_with_done() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    for (tail, outcome) in
        [("", Outcome::Complete), ("data: {\"half", Outcome::Complete), (DONE, Outcome::Failed)]
    {
        let response = hub.ask("/v1/chat/completions", &chat(true));
        let mut asked = node.asked().await;
        node.head(&asked, true).await;
        node.data(&mut asked, &chunk("Hel")).await;
        if !tail.is_empty() {
            node.data(&mut asked, tail).await;
        }
        node.end(&asked, outcome, asked.sent, usage(9, 1)).await;
        let text = response.await.unwrap().text().await.unwrap();
        assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{tail:?} {text}");
    }
}

/// A consumer that reads nothing after the head, and a node that sends as much as it may; with the credit it has.
async fn stalled(hub: &TestHub, node: &mut Node) -> (reqwest::Response, Asked, u64) {
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    node.data(&mut asked, &chunk("a")).await;
    let response = response.await.unwrap();
    let piece = chunk(&"x".repeat(MAX_FRAME_PAYLOAD - 1000));
    let mut credit = STREAM_WINDOW;
    // Once the kernel's buffers are full no further credit comes.
    loop {
        while asked.sent + piece.len() as u64 <= credit {
            node.data(&mut asked, &piece).await;
        }
        match tokio::time::timeout(Duration::from_millis(500), node.hear()).await {
            Ok(HubMessage::Credit { offset, .. }) => credit = offset,
            Ok(other) => panic!("{other:?}"),
            Err(_) => return (response, asked, credit),
        }
        assert!(asked.sent < 48 << 20, "the hub takes in whatever comes");
    }
}

#[tokio::test]
async fn a_slow_consumer_holds_the_node_at_one_window() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let (mut response, asked, credit) = stalled(&hub, &mut node).await;
    let mut read = 0;
    while read < asked.sent / 2 {
        read += response.chunk().await.unwrap().unwrap().len() as u64;
    }
    let more = node.hear().await;
    assert!(matches!(more, HubMessage::Credit { offset, .. } if offset > credit), "{more:?}");
}

#[tokio::test]
async fn a_consumer_that_reads_nothing_is_given_up_and_its_slot_is_free() {
    let mut hub = TestHub::start().await;
    hub.http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut node = hub.node(1).await;
    let (response, asked, _) = stalled(&hub, &mut node).await;
    let headers = response.headers().clone();
    let clock = StoppedClock::default();
    for seconds in [30, 5] {
        clock.advance(Duration::from_secs(seconds)).await;
    }
    drop(clock);
    let cancel = node.hear().await;
    let HubMessage::Cancel { delivered, reason: CancelReason::Consumer, .. } = cancel else {
        panic!("{cancel:?}")
    };
    assert!(delivered > 0 && delivered < asked.sent);
    let text = response.text().await.unwrap();
    assert!(text.contains("was given up") && !text.contains("[DONE]"));
    node.end(&asked, Outcome::Cancelled, delivered, usage(9, 1)).await;
    assert_eq!(hub.receipt(&headers).await.1.receipt.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn bad_requests_are_refused_in_openais_form() {
    let hub = TestHub::start().await;
    let _node = hub.node(1).await;
    let post =
        |body: &'static str| hub.http.post(hub.url("/v1/chat/completions")).bearer_auth(&hub.key).body(body);
    let error = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        let retry = response.headers().get("retry-after").is_some();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
        (
            status,
            body["error"]["code"].as_str().unwrap().to_owned(),
            body["error"]["message"].to_string(),
            retry,
        )
    };
    let bad_key = hub.http.post(hub.url("/v1/chat/completions")).bearer_auth("iw-wrong").body("{}");
    assert_eq!(error(bad_key).await.0, 401);
    let (status, code, message, _) = error(post(r#"{"model": "tiny", "#)).await;
    assert_eq!((status, code.as_str()), (400, "invalid_json"));
    assert!(message.contains("line 1"), "{message}");
    for length in [(4 << 20) + 1, 20 << 20] {
        let big =
            hub.http.post(hub.url("/v1/chat/completions")).bearer_auth(&hub.key).body("x".repeat(length));
        assert_eq!(error(big).await.0, 413);
    }
    let (status, _, message, _) =
        error(post(r#"{"model":"tinny","messages":[{"role":"user","content":"x"}]}"#)).await;
    assert_eq!(status, 404);
    assert!(message.contains("tiny:q4"), "{message}");
    let poor =
        hub.store.create_key(account("poor"), MicroCredits(0), KeyLimits::default()).await.unwrap().key;
    let poor = hub.http.post(hub.url("/v1/chat/completions")).bearer_auth(poor).body(chat(false).to_string());
    let (status, code, ..) = error(poor).await;
    assert_eq!((status, code.as_str()), (402, "insufficient_quota"));
    let cheap = hub.post("/v1/chat/completions", &chat(false)).header("x-idlewatt-max-price", "5");
    assert_eq!(error(cheap).await.0, 400);
}

#[tokio::test]
async fn a_known_model_without_a_node_is_503_with_retry_after() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    node.say(&NodeMessage::State(State {
        accepting: false,
        own: false,
        free_slots: 0,
        why: None,
        until: None,
    }))
    .await;
    hub.accepting(0).await;
    let paused = hub.post("/v1/chat/completions", &chat(false)).send().await.unwrap();
    assert_eq!(paused.status(), 503);
    assert!(paused.headers().contains_key("retry-after"));
    drop(node);
    while !hub.get("/metrics").await.text().await.unwrap().contains("idlewatt_hub_nodes 0") {
        tokio::task::yield_now().await;
    }
    assert_eq!(hub.post("/v1/chat/completions", &chat(false)).send().await.unwrap().status(), 503);
}

#[tokio::test]
async fn ones_own_node_is_free() {
    let hub = TestHub::start().await;
    let mut node = Node::join(&hub, 1, Some(&hub.token("consumer").await), 0).await.unwrap();
    node.offer(vec![offer()]).await;
    node.ready(1).await;
    hub.accepting(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    assert!(asked.request.own);
    node.stream(&mut asked, &["Hi"]).await;
    let response = response.await.unwrap();
    let headers = response.headers().clone();
    response.text().await.unwrap();
    let (_, verified) = hub.receipt(&headers).await;
    assert_eq!(verified.receipt.cost, MicroCredits(0));
    assert_eq!(billed(&verified.receipt), usage(9, 3));
    assert_eq!(hub.available(), MicroCredits(10_000_000));
}

#[tokio::test]
async fn models_are_listed_under_every_name_with_price_and_label() {
    let hub = TestHub::start().await;
    let _node = hub.node(1).await;
    let list: Value = serde_json::from_str(&hub.get("/v1/models").await.text().await.unwrap()).unwrap();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny", "tiny:q4"]);
    let one: Value =
        serde_json::from_str(&hub.get("/v1/models/tiny:q4").await.text().await.unwrap()).unwrap();
    assert_eq!(
        (&one["idlewatt"]["price"]["min"], &one["idlewatt"]["verification"]),
        (&json!(1_000_000), &json!("declared"))
    );
    assert_eq!(hub.get("/v1/models/none").await.status(), 404);
    assert_eq!(hub.http.get(hub.url("/v1/models")).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn the_open_pages_answer_and_unknown_paths_are_errors() {
    let hub = TestHub::start().await;
    let _node = hub.node(1).await;
    let page = hub.http.get(hub.url("/")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("one node shares its idle watts") && page.contains("tiny:q4"), "{page}");
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(hub.http.get(hub.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    assert_eq!(hub.get("/v1/nothing").await.status(), 404);
    let wrong_method = hub.get("/v1/embeddings").await;
    assert_eq!(
        (wrong_method.status().as_u16(), &wrong_method.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );
    let no_prefix = hub.post("/chat/completions", &chat(false)).send().await.unwrap();
    assert_eq!(no_prefix.status(), 404);
    assert!(no_prefix.text().await.unwrap().contains("base URL"));
    let no_socket = hub.get("/node/v1").await;
    assert_eq!(
        (no_socket.status().as_u16(), &no_socket.headers()["upgrade"]),
        (426, &"websocket".parse().unwrap())
    );
    assert!(no_socket.text().await.unwrap().contains("\"error\""));
}

#[tokio::test]
async fn what_a_node_refuses_is_not_held_against_the_asker() {
    // The brake lets 120 in a minute come to nothing.
    const MORE: usize = 70;
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    for _ in 0..MORE {
        let response = hub.ask("/v1/chat/completions", &chat(false));
        let mut asked = node.asked().await;
        node.say(&NodeMessage::Head { stream: asked.request.stream, status: 422, streaming: false }).await;
        node.data(&mut asked, r#"{"error":{"message":"No."}}"#).await;
        node.finish(&asked, "", Outcome::Complete, usage(0, 0)).await;
        assert_eq!(response.await.unwrap().status(), 422);
        let response = hub.ask("/v1/chat/completions", &chat(false));
        let asked = node.asked().await;
        node.say(&NodeMessage::Refused { stream: asked.request.stream, code: RefusalCode::Context }).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 400);
        assert!(response.text().await.unwrap().contains("context_length_exceeded"));
    }
    let response = hub.ask("/v1/chat/completions", &chat(false));
    let asked = node.asked().await;
    node.say(&NodeMessage::Refused { stream: asked.request.stream, code: RefusalCode::Paused }).await;
    assert_eq!(response.await.unwrap().status(), 502);
}

#[tokio::test]
async fn a_receipt_is_its_consumers_only() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.stream(&mut asked, &["Hi"]).await;
    let response = response.await.unwrap();
    let id = response.headers()["x-idlewatt-receipt"].to_str().unwrap().to_owned();
    response.text().await.unwrap();
    node.posted().await;
    let other =
        hub.store.create_key(account("other"), MicroCredits(0), KeyLimits::default()).await.unwrap().key;
    let theirs =
        hub.http.get(hub.url(&format!("/v1/receipts/{id}"))).bearer_auth(other).send().await.unwrap();
    assert_eq!(theirs.status(), 404);
    assert_eq!(hub.get(&format!("/v1/receipts/{id}")).await.status(), 200);
    assert_eq!(hub.get("/v1/receipts/req_nonsense").await.status(), 404);
}

#[tokio::test]
async fn a_stopping_hub_finishes_what_runs_and_takes_nothing_new() {
    let mut hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    hub.begin_stop();
    assert!(matches!(node.hear().await, HubMessage::Drain { .. }));
    assert_eq!(hub.http.get(hub.url("/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(hub.post("/v1/chat/completions", &chat(true)).send().await.unwrap().status(), 503);
    node.stream(&mut asked, &["Hello"]).await;
    assert_eq!(content(&response.await.unwrap().text().await.unwrap()), "Hello");
    assert_eq!(node.posted().await.seq, 1);
    hub.stop().await;
}
