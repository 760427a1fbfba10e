//! Answers of the real llama.cpp at temperature 0, cut in many places and gone on with on a second one: by their ids every
//! one is what it would have been, by their text most are.
//!
//! Both servers compute a prompt one token at a time (`--ubatch-size 1`): computed many at once, a prompt is rounded
//! otherwise than what was generated, and where two tokens are almost as likely a small model takes the other one, however
//! well it was handed over.

use idlewatt_core::answer::{Ending, PublicNames, Rewriting};
use idlewatt_core::work::Head;
use idlewatt_protocol::RequestId;
use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{Begun, Call, Kind, Model, ModelServer};
use serde_json::{Value, json};

use super::Real;
use crate::contract::Host;

const TOKENS: u32 = 64;

/// What is asked, and what its answer is made of.
const ASKED: [(&str, &str); 6] = [
    ("English", "Tell me a short story about a cat and a dog."),
    ("English", "Write a shopping list of five things, one a line."),
    ("code", "Write a Python function that adds two numbers."),
    ("code", "Write an HTML page with one heading."),
    ("Chinese", "Translate 'good morning, how are you?' to Chinese."),
    ("emoji", "Write this line again three times, each on a line of its own: 你好，世界 😀🎉"),
];

struct Met {
    _real: Real,
    server: std::sync::Arc<dyn ModelServer>,
    model: Model,
}

/// One event's text, its ids, and the server's count of prompt tokens.
struct Part {
    text: String,
    ids: Vec<u32>,
    prompt: u32,
}

impl Met {
    async fn start(host: &Host) -> Self {
        let real = Real::start_with(0, None, &["--ubatch-size", "1"]);
        let found = host.look(&real.url).await;
        let (server, model) = (found.server.unwrap(), found.models.unwrap().remove(0));
        assert_eq!(server.kind(), Kind::LlamaCpp);
        Self { _real: real, server, model }
    }

    async fn answer(&self, endpoint: Endpoint, body: &str, begun: Option<Begun<'_>>, most: u32) -> Vec<Part> {
        let call = Call { ids: true, begun, ..Call::new(endpoint, body.as_bytes(), most) };
        let mut answer = self.server.call(&self.model, call).await.unwrap();
        assert_eq!((answer.status, answer.streaming), (200, true));
        let names = PublicNames::new(RequestId([1; 16]), endpoint, &self.model.artefact);
        let head = Head { status: 200, streaming: true };
        let mut rewriting = Rewriting::new(names, endpoint, head, body.len()).telling_ids();
        let mut parts = Vec::new();
        loop {
            if let Some(piece) = rewriting.next_piece() {
                let json = piece.bytes.strip_prefix(b"data: ").unwrap();
                let event: Value = serde_json::from_slice(json).unwrap_or_default();
                assert!(
                    event.get("timings").is_none() && event["choices"][0]["logprobs"].is_null(),
                    "{event}"
                );
                if piece.text.is_empty() {
                    continue;
                }
                assert!(event["iw_ids"].is_array(), "no ids of {:?}", piece.text);
                let ids = serde_json::from_value(event["iw_ids"].clone()).unwrap();
                parts.push(Part { text: piece.text, ids, prompt: piece.usage.prompt });
            } else if let Some(text) = rewriting.text_without_ids() {
                let ids = self.server.ids_of(&self.model, text).await;
                rewriting.learn(ids);
            } else if let Some(ending) = rewriting.ending() {
                assert_eq!(ending, Ending::Complete);
                return parts;
            } else {
                match answer.chunk().await.unwrap() {
                    Some(bytes) => rewriting.push(&bytes),
                    None => rewriting.close(),
                }
            }
        }
    }
}

fn text(parts: &[Part]) -> String {
    parts.iter().map(|it| it.text.as_str()).collect()
}

#[expect(clippy::print_stdout, reason = "the figures that the claim collects")]
async fn goes_on(cuts: usize) {
    let host = Host::new();
    let (first, second) = (Met::start(&host).await, Met::start(&host).await);
    let mut all = 0;
    let mut by_text: Vec<(&str, usize, usize)> = Vec::new();
    for (kind, question) in ASKED {
        // The token that ends an answer is forbidden, so that every answer is long enough.
        let body = json!({"messages": [{"role": "user", "content": question}], "temperature": 0,
            "stream": true, "logit_bias": {"2": -100}})
        .to_string();
        let whole = first.answer(Endpoint::ChatCompletions, &body, None, TOKENS).await;
        for cut in 1..=cuts {
            let (before, after) = whole.split_at(whole.len() * cut / (cuts + 1));
            let ids: Vec<u32> = before.iter().flat_map(|it| it.ids.clone()).collect();
            let begun = Begun { text: &text(before), ids: &ids };
            let told = u32::try_from(ids.len()).unwrap();
            // As many tokens as are left; those of the whole answer that never became text are not known to anyone.
            let left = TOKENS - told;
            let more = second.answer(Endpoint::ChatCompletions, &body, Some(begun), left).await;
            assert_eq!(text(&more), text(after), "{question:?} after {:?}", text(before));
            let prompt = before[0].prompt + told;
            assert_eq!(more[0].prompt, prompt, "what was there is in the second server's prompt");
            assert!(more.iter().map(|it| it.ids.len()).sum::<usize>() <= left as usize);
            let begun = Begun { ids: &[], ..begun };
            let more = second.answer(Endpoint::ChatCompletions, &body, Some(begun), left).await;
            all += 1;
            let same = usize::from(text(&more) == text(after));
            match by_text.iter_mut().find(|it| it.0 == kind) {
                Some(row) => (row.1, row.2) = (row.1 + same, row.2 + 1),
                None => by_text.push((kind, same, 1)),
            }
        }
    }
    println!("by ids {all} of {all} cuts went on as the uninterrupted answer");
    for (kind, same, of) in by_text {
        println!("by text {kind}: {same} of {of}");
        assert!(kind != "English" || same * 100 >= of * 95, "{same} of {of} in English");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the real llama.cpp, which script/test installs"]
async fn real_answers_go_on_by_their_ids_as_if_nothing_had_been() {
    goes_on(if std::env::var_os("IDLEWATT_STRICT").is_some() { 12 } else { 2 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the real llama.cpp, which script/test installs"]
async fn real_completions_go_on_by_ids_and_by_text() {
    let host = Host::new();
    let met = Met::start(&host).await;
    let body = r#"{"prompt":"1 😀\n2 🎉\n3 😀\n4 🎉\n","temperature":0,"stream":true}"#;
    let whole = met.answer(Endpoint::Completions, body, None, 24).await;
    let (before, after) = whole.split_at(whole.len() / 2);
    let ids: Vec<u32> = before.iter().flat_map(|it| it.ids.clone()).collect();
    let left = 24 - u32::try_from(ids.len()).unwrap();
    let begun = Begun { text: &text(before), ids: &ids };
    let more = met.answer(Endpoint::Completions, body, Some(begun), left).await;
    assert_eq!(text(&more), text(after));
    let more = met.answer(Endpoint::Completions, body, Some(Begun { ids: &[], ..begun }), left).await;
    assert!(!text(&more).is_empty());
}
