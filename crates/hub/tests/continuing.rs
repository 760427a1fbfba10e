//! What becomes of an answer whose node breaks off after its first token, with a real hub and scripted nodes.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use bytes::Bytes;
use idlewatt_hub::store::check_folder;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::message::{
    HubMessage, NodeMessage, Outcome, RefusalCode, Resume, ResumeStream, Resumed,
};
use idlewatt_protocol::receipt::{Signed, commitment};
use idlewatt_protocol::{Continuation, Digest, Joined, MicroCredits, Price, ServiceOffer};
use scripted::*;
use serde_json::{Value, json};

/// A hub with two nodes of different hosts that can continue so, and a request of the first's.
struct Two {
    hub: TestHub,
    first: Node,
    second: Node,
}

fn able(continuation: Continuation) -> ServiceOffer {
    let mut offer = offer();
    offer.capabilities.continuation = continuation;
    offer
}

/// Of one file, that the hub was told the digest of.
fn known(continuation: Continuation) -> ServiceOffer {
    let mut offer = able(continuation);
    offer.artefact.digest = Some(Digest([1; 32]));
    offer
}

impl Two {
    async fn start(continuation: Continuation) -> Self {
        Self::offering(able(continuation), able(continuation)).await
    }

    async fn offering(by_first: ServiceOffer, by_second: ServiceOffer) -> Self {
        let hub = TestHub::start().await;
        let mut first = hub.node(1).await;
        first.offer(vec![by_first]).await;
        let mut second = Node::join(&hub, 2, Some(&hub.token("host2").await), 0).await.unwrap();
        second.offer(vec![by_second]).await;
        // The first request goes to the first node.
        hub.accepting(1).await;
        second.ready(0).await;
        hub.accepting(2).await;
        Self { hub, first, second }
    }

    /// Asks, and has the first node begin with these pieces; what the consumer got of it.
    async fn begin(&mut self, body: &Value, pieces: &[String]) -> (reqwest::Response, Asked, String) {
        let response = self.hub.ask("/v1/chat/completions", body);
        let mut asked = self.first.asked().await;
        self.first.head(&asked, true).await;
        self.first.data(&mut asked, ROLE).await;
        for piece in pieces {
            self.first.data(&mut asked, piece).await;
        }
        let mut response = response.await.unwrap();
        let mut got = String::new();
        while events(&got).len() < pieces.len() + 1 {
            got.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        self.second.ready(4).await;
        (response, asked, got)
    }

    async fn check(&self) {
        assert_eq!(check_folder(self.hub.store.folder()).unwrap().breaches, [""; 0]);
        let consumer = self.hub.store.account(account("consumer")).await.unwrap();
        assert_eq!(consumer.reserved_ucr, MicroCredits(0));
    }
}

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n";

fn with_ids(text: &str, ids: &[u32]) -> String {
    let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "iw_ids": ids,
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

fn asks_usage() -> Value {
    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// One unbroken stream: the same id everywhere, one role, one end.
fn chunks_of(text: &str) -> Vec<Value> {
    let events = events(text);
    assert_eq!(events.last().unwrap(), "[DONE]", "{text}");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|it| serde_json::from_str(it).unwrap()).collect();
    for chunk in &chunks {
        for pinned in ["id", "created", "model"] {
            assert_eq!(chunk[pinned], chunks[0][pinned], "{text}");
        }
        assert!(chunk.get("iw_ids").is_none() && chunk.get("error").is_none(), "{text}");
    }
    let roles = chunks.iter().filter(|chunk| chunk["choices"][0]["delta"]["role"].is_string()).count();
    assert_eq!(roles, 1, "{text}");
    chunks
}

#[tokio::test]
async fn another_node_goes_on_and_the_consumer_sees_one_stream() {
    let mut two = Two::start(Continuation::Text).await;
    let (response, asked, mut text) = two.begin(&asks_usage(), &[chunk("Hel"), chunk("lo")]).await;
    let headers = response.headers().clone();
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 2)).await;
    let statement = two.first.statement(&asked, "Hello", Outcome::Yielded, asked.sent, usage(9, 2));
    let key = two.first.key.clone();
    two.first.state_signed(&statement, &key).await;

    let mut rest = two.second.asked().await;
    let prefix = rest.request.prefix.unwrap();
    assert_eq!(rest.request.request, asked.request.request);
    assert_eq!((prefix.ids, rest.request.max_tokens), (0, 48));
    let parts = prefix.split(&rest.body).unwrap();
    assert_eq!(parts.text, "Hello");
    let again: Value = serde_json::from_slice(parts.body).unwrap();
    assert_eq!((&again["max_tokens"], &again["messages"]), (&json!(48), &asked.json()["messages"]));
    two.second.head(&rest, true).await;
    for part in [ROLE, &chunk(", wor"), &chunk("ld"), FINISH, USAGE, DONE] {
        two.second.data(&mut rest, part).await;
    }
    two.second.finish(&rest, ", world", Outcome::Complete, usage(11, 2)).await;

    text.push_str(&response.text().await.unwrap());
    let chunks = chunks_of(&text);
    assert_eq!(content(&text), "Hello, world");
    let last = chunks.last().unwrap();
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}),
        "{text}"
    );
    assert_eq!(text.matches("finish_reason\":\"stop").count(), 1);

    let (file, verified) = two.hub.receipt(&headers).await;
    let receipt = &verified.receipt;
    assert_eq!((receipt.outcome, receipt.joined), (Outcome::Complete, Joined::Text));
    assert_eq!(receipt.response_commitment, commitment(&file.salt.unwrap(), b"Hello, world"));
    assert!(verified.statements.iter().all(Option::is_some), "both signed: {receipt:?}");
    // 9 + 2 + 2 tokens at one micro-credit; the fee of 5 % rounds down to nothing on such sums.
    assert_eq!((receipt.cost, receipt.fee), (MicroCredits(13), MicroCredits(0)));
    let earned: Vec<i64> = receipt.segments.iter().map(|segment| segment.earned.0).collect();
    assert_eq!(earned, [11, 2]);
    assert_eq!(two.first.posted().await.earned, MicroCredits(11));
    assert_eq!(two.second.posted().await.earned, MicroCredits(2));
    assert_eq!(two.hub.available(), MicroCredits(10_000_000 - 13));
    two.check().await;
}

#[tokio::test]
async fn ids_are_handed_over_where_every_one_is_known_and_so_is_the_file() {
    let (file, name) = (known(Continuation::Ids), able(Continuation::Ids));
    let all = with_ids("lo", &[7, 8]);
    for (offer, last, ids, left) in
        [(&file, all.clone(), 3, 47), (&file, chunk("lo"), 0, 48), (&name, all, 0, 47)]
    {
        let mut two = Two::offering(offer.clone(), offer.clone()).await;
        let (response, asked, mut text) = two.begin(&chat(true), &[with_ids("Hel", &[5]), last]).await;
        assert!(asked.request.ids);
        let headers = response.headers().clone();
        two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 3)).await;
        let mut rest = two.second.asked().await;
        let prefix = rest.request.prefix.unwrap();
        let parts = prefix.split(&rest.body).unwrap();
        assert_eq!((parts.text, parts.ids.len()), ("Hello", ids));
        assert_eq!(rest.request.max_tokens, left);
        two.second.stream(&mut rest, &["!"]).await;
        text.push_str(&response.text().await.unwrap());
        chunks_of(&text);
        assert_eq!(content(&text), "Hello!");
        let (_, verified) = two.hub.receipt(&headers).await;
        assert_eq!(verified.receipt.joined, if ids == 3 { Joined::Ids } else { Joined::Text });
        two.check().await;
    }
}

#[tokio::test]
async fn a_node_that_comes_back_goes_on_where_it_was_and_no_byte_is_lost_or_doubled() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let mut asked = node.asked().await;
    node.head(&asked, true).await;
    let whole = format!("{}{}{}{FINISH}{USAGE}{DONE}", chunk("Hel"), chunk("lo"), chunk("!"));
    // Cut in the middle of an event.
    let cut = chunk("Hel").len() + 20;
    node.data(&mut asked, &whole[..cut]).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let stream = asked.request.stream;
    let resume = Resume {
        epoch: node.welcome.epoch,
        streams: vec![ResumeStream { stream, body: asked.body.len() as u64 }],
    };
    drop(node);
    let mut node = Node::resume(&hub, 1, resume).await;
    let offset = node.welcome.resumed[0].offset;
    assert!(offset <= cut as u64, "{offset}");
    assert_eq!(node.welcome.resumed, [Resumed { stream, has_head: true, offset, credit: 262_144 }]);
    let payload = Bytes::copy_from_slice(&whole.as_bytes()[usize::try_from(offset).unwrap()..]);
    node.raw(Frame { kind: Kind::Data, last: false, stream, offset, payload }).await;
    asked.sent = whole.len() as u64;
    node.finish(&asked, "Hello!", Outcome::Complete, usage(9, 3)).await;
    text.push_str(&response.text().await.unwrap());
    assert_eq!(content(&text), "Hello!");
    assert!(text.ends_with("[DONE]\n\n"), "{text}");
    let (_, verified) = hub.receipt(&headers).await;
    assert!(verified.statements[0].is_some());
    assert_eq!((verified.receipt.joined, billed(&verified.receipt)), (Joined::Single, usage(9, 3)));
}

#[tokio::test]
async fn a_resume_of_another_session_or_by_another_node_wins_nothing() {
    let hub = TestHub::start().await;
    let mut node = hub.node(1).await;
    let response = hub.ask("/v1/chat/completions", &chat(true));
    let asked = node.asked().await;
    let streams = vec![ResumeStream { stream: asked.request.stream, body: asked.body.len() as u64 }];
    let token = hub.token("thief").await;
    let _ = Node::join(&hub, 9, Some(&token), 0).await.unwrap();
    let epoch = node.welcome.epoch;
    let thief = Node::resume(&hub, 9, Resume { epoch, streams: streams.clone() }).await;
    assert_eq!(thief.welcome.resumed, []);
    let later = Node::resume(&hub, 1, Resume { epoch: epoch + 9, streams }).await;
    assert_eq!(later.welcome.resumed, []);
    let response = response.await.unwrap();
    assert_eq!(response.status(), 502, "the stream of the old session is lost");
}

#[tokio::test]
async fn a_node_that_comes_back_after_another_went_on_is_told_to_stop_and_paid_for_its_part_once() {
    let mut two = Two::start(Continuation::Text).await;
    let (response, asked, mut text) = two.begin(&chat(true), &[chunk("Hel")]).await;
    let headers = response.headers().clone();
    let (epoch, stream) = (two.first.welcome.epoch, asked.request.stream);
    let Two { hub, first, mut second } = two;
    drop(first);
    let mut rest = second.asked().await;
    let resume = Resume { epoch, streams: vec![ResumeStream { stream, body: asked.body.len() as u64 }] };
    let mut first = Node::resume(&hub, 1, resume).await;
    let delivered = first.welcome.resumed[0].offset;
    let HubMessage::Cancel { delivered: told, .. } = first.hear().await else { panic!("not cancelled") };
    assert_eq!(told, delivered);
    first.end(&asked, Outcome::Cancelled, delivered, usage(9, 1)).await;
    let statement = first.statement(&asked, "Hel", Outcome::Cancelled, delivered, usage(9, 1));
    let key = first.key.clone();
    first.state_signed(&statement, &key).await;
    // An unknown request's statement is answered after the one before it was taken.
    let mut other = statement.clone();
    other.request.0[0] ^= 1;
    first.state_signed(&other, &key).await;
    assert!(matches!(first.hear().await, HubMessage::Void { request } if request == other.request));
    second.stream(&mut rest, &["lo"]).await;
    text.push_str(&response.text().await.unwrap());
    assert_eq!(content(&text), "Hello");
    let (_, verified) = hub.receipt(&headers).await;
    assert!(verified.statements.iter().all(Option::is_some), "its word came in time");
    assert_eq!(first.posted().await.usage, usage(9, 1));
    assert_eq!(check_folder(hub.store.folder()).unwrap().breaches, [""; 0]);
}

#[tokio::test]
async fn a_lost_part_is_billed_as_the_hub_counted_it() {
    let mut two = Two::start(Continuation::Text).await;
    let (response, asked, mut text) = two.begin(&chat(true), &[chunk("Hel"), chunk("lo")]).await;
    let headers = response.headers().clone();
    let Two { hub, first, mut second } = two;
    drop(first);
    let mut rest = second.asked().await;
    second.stream(&mut rest, &["!"]).await;
    text.push_str(&response.text().await.unwrap());
    chunks_of(&text);
    let (_, verified) = hub.receipt(&headers).await;
    let [lost, signed] = &verified.receipt.segments[..] else { panic!("two segments") };
    assert!(matches!(&lost.statement, Signed::Unsigned(why) if why == "node lost"));
    assert_eq!((lost.usage.prompt, lost.usage.completion), (u32::try_from(asked.body.len()).unwrap() / 4, 2));
    assert!(matches!(signed.statement, Signed::Signed(_)));
    assert_eq!(verified.receipt.cost.0, i64::from(lost.usage.prompt) + 2 + 3);
}

#[tokio::test]
async fn what_later_parts_read_anew_is_paid_out_of_the_fee() {
    let hub = TestHub::start().await;
    let dear = || vec![ServiceOffer { price: Price(100_000_000), ..able(Continuation::Text) }];
    let mut first = hub.node(1).await;
    first.offer(dear()).await;
    let mut second = Node::join(&hub, 2, Some(&hub.token("host2").await), 0).await.unwrap();
    second.offer(dear()).await;
    while !hub.get("/v1/models").await.text().await.unwrap().contains("\"nodes\":2") {
        tokio::task::yield_now().await;
    }
    let mut two = Two { hub, first, second };
    let (response, asked, _) = two.begin(&chat(true), &[chunk("Hel")]).await;
    let headers = response.headers().clone();
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 1)).await;
    let statement = two.first.statement(&asked, "Hel", Outcome::Yielded, asked.sent, usage(9, 1));
    let key = two.first.key.clone();
    two.first.state_signed(&statement, &key).await;
    let mut rest = two.second.asked().await;
    two.second.stream(&mut rest, &["lo"]).await;
    response.text().await.unwrap();
    let (_, verified) = two.hub.receipt(&headers).await;
    let receipt = &verified.receipt;
    // (9 + 1 + 3) × 100; 5 % of it is 65, less than the 900 of the second prompt.
    let earned: Vec<i64> = receipt.segments.iter().map(|segment| segment.earned.0).collect();
    assert_eq!((receipt.cost.0, receipt.fee.0, earned), (1300, 0, vec![950, 350]));
    two.check().await;
}

#[tokio::test]
async fn a_stop_string_across_the_seam_ends_the_answer() {
    let mut two = Two::start(Continuation::Text).await;
    let mut body = asks_usage();
    body["stop"] = json!(["END", "\n\n"]);
    let (response, asked, mut text) = two.begin(&body, &[chunk("and E")]).await;
    let headers = response.headers().clone();
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 2)).await;
    let mut rest = two.second.asked().await;
    two.second.head(&rest, true).await;
    for part in [&chunk("N"), &chunk("D of it")] {
        two.second.data(&mut rest, part).await;
    }
    text.push_str(&response.text().await.unwrap());
    assert_eq!(content(&text), "and E");
    let chunks = chunks_of(&text);
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], 2);
    let HubMessage::Cancel { delivered: 0, .. } = two.second.hear().await else { panic!("not cancelled") };
    let (_, verified) = two.hub.receipt(&headers).await;
    assert_eq!((verified.receipt.segments.len(), verified.receipt.outcome), (1, Outcome::Complete));
    two.check().await;
}

#[tokio::test]
async fn what_only_looks_like_a_stop_string_goes_on_whole() {
    let mut two = Two::start(Continuation::Text).await;
    let mut body = chat(true);
    body["stop"] = json!("END");
    let (response, asked, mut text) = two.begin(&body, &[chunk("and E")]).await;
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 2)).await;
    let mut rest = two.second.asked().await;
    two.second.stream(&mut rest, &["N", "T"]).await;
    text.push_str(&response.text().await.unwrap());
    assert_eq!(content(&text), "and ENT");
    chunks_of(&text);
}

#[tokio::test]
async fn an_answer_that_lacks_only_its_end_is_ended_by_the_hub() {
    // All tokens were delivered; or the answer's own end, and not what follows it.
    for (last, reason) in [(None, "length"), (Some(FINISH), "stop")] {
        let mut two = Two::start(Continuation::Text).await;
        let mut body = asks_usage();
        body["max_tokens"] = json!(2);
        let pieces: Vec<String> =
            [chunk("Hel"), chunk("lo")].into_iter().chain(last.map(str::to_owned)).collect();
        let (response, asked, mut text) = two.begin(&body, &pieces).await;
        let headers = response.headers().clone();
        two.first.end(&asked, Outcome::Failed, asked.sent, usage(9, 2)).await;
        text.push_str(&response.text().await.unwrap());
        let chunks = chunks_of(&text);
        assert_eq!(content(&text), "Hello");
        assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], reason, "{text}");
        assert_eq!(chunks[chunks.len() - 1]["usage"]["total_tokens"], 11);
        let (_, verified) = two.hub.receipt(&headers).await;
        assert_eq!(verified.receipt.outcome, Outcome::Complete);
        two.check().await;
    }
}

/// An error chunk, no `[DONE]`, and a bill for what was delivered.
async fn breaks(mut two: Two, body: &Value, piece: String, never: bool) {
    let mut request = two.hub.post("/v1/chat/completions", body);
    if never {
        request = request.header("x-idlewatt-continue", "never");
    }
    let response = tokio::spawn(async move { request.send().await.unwrap() });
    let mut asked = two.first.asked().await;
    two.first.head(&asked, true).await;
    two.first.data(&mut asked, &piece).await;
    let mut response = response.await.unwrap();
    let headers = response.headers().clone();
    response.chunk().await.unwrap();
    two.second.ready(4).await;
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 1)).await;
    let text = response.text().await.unwrap();
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{body} {text}");
    let (_, verified) = two.hub.receipt(&headers).await;
    assert_eq!((verified.receipt.segments.len(), verified.receipt.outcome), (1, Outcome::Yielded));
    two.check().await;
}

#[tokio::test]
async fn what_is_more_than_plain_text_or_is_not_to_be_continued_ends_with_an_error() {
    let thought = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
    let mut penalty = chat(true);
    penalty["frequency_penalty"] = json!(0.5);
    breaks(Two::start(Continuation::Text).await, &chat(true), thought.into(), false).await;
    breaks(Two::start(Continuation::Text).await, &penalty, chunk("Hel"), false).await;
    breaks(Two::start(Continuation::Text).await, &chat(true), chunk("Hel"), true).await;
    breaks(Two::start(Continuation::None).await, &chat(true), chunk("Hel"), false).await;
    let hub = TestHub::start().await;
    let odd = hub.post("/v1/chat/completions", &chat(true)).header("x-idlewatt-continue", "always");
    assert_eq!(odd.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_node_that_cannot_go_on_is_passed_over_and_the_bill_is_for_what_came() {
    let mut two = Two::start(Continuation::Text).await;
    let (response, asked, mut text) = two.begin(&chat(true), &[chunk("Hel")]).await;
    let headers = response.headers().clone();
    let mut third = Node::join(&two.hub, 3, Some(&two.hub.token("host3").await), 0).await.unwrap();
    third.offer(vec![able(Continuation::Text)]).await;
    two.first.end(&asked, Outcome::Yielded, asked.sent, usage(9, 1)).await;
    let rest = two.second.asked().await;
    third.ready(4).await;
    two.hub.accepting(3).await;
    let stream = rest.request.stream;
    two.second.say(&NodeMessage::Refused { stream, code: RefusalCode::Continuation }).await;
    let mut last = third.asked().await;
    third.stream(&mut last, &["lo"]).await;
    text.push_str(&response.text().await.unwrap());
    assert_eq!(content(&text), "Hello");
    let (_, verified) = two.hub.receipt(&headers).await;
    assert_eq!(verified.receipt.segments.len(), 2);
    two.check().await;
}

#[tokio::test]
async fn another_file_of_the_same_name_does_not_go_on() {
    // The first names no quantisation, and every one answers to that.
    let mut unsaid = able(Continuation::Text);
    unsaid.artefact.quantisation = None;
    breaks(Two::offering(unsaid, able(Continuation::Text)).await, &chat(true), chunk("Hel"), false).await;
    // One says which file it is, and the other does not.
    let (file, name) = (known(Continuation::Text), able(Continuation::Text));
    breaks(Two::offering(name.clone(), file.clone()).await, &chat(true), chunk("Hel"), false).await;
    breaks(Two::offering(file, name).await, &chat(true), chunk("Hel"), false).await;
}
