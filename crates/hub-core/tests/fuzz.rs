//! Request bodies, on a corpus and what becomes of it: none may panic, and what is let through is what nodes may see.

#[path = "../../protocol/tests/fuzz/mutate.rs"]
mod mutate;

use std::path::Path;

use idlewatt_hub_core::openai::validate;
use idlewatt_protocol::message::Endpoint;
use mutate::{corpus, fuzz};
use serde_json::Value;

const ENDPOINTS: [Endpoint; 3] = [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Embeddings];

#[test]
fn a_request_that_is_let_through_is_plain_json_and_is_let_through_again() {
    let seeds = corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/request"));
    let read = |it: &[u8]| ENDPOINTS.iter().any(|endpoint| validate(*endpoint, it).is_ok());
    assert!(seeds.iter().filter(|it| read(it)).count() >= 6, "the corpus is mostly refused");
    fuzz(&seeds, |input| {
        for endpoint in ENDPOINTS {
            let asked = match validate(endpoint, input) {
                Ok(asked) => asked,
                Err(error) => {
                    assert!((400..500).contains(&error.status), "{error:?}");
                    assert!(error.message.len() < 4096, "an error of {} bytes", error.message.len());
                    continue;
                }
            };
            let body = asked.forward_body(17);
            let json: Value = serde_json::from_slice(&body).unwrap();
            let sent = json.as_object().unwrap();
            for never in ["user", "metadata", "store", "model_path", "url"] {
                assert!(!sent.contains_key(never), "{json}");
            }
            let messages = sent.get("messages").and_then(Value::as_array).into_iter().flatten();
            let parts = messages.filter_map(|it| it["content"].as_array()).flatten();
            for url in parts.filter_map(|part| part["image_url"]["url"].as_str()) {
                assert!(url.starts_with("data:"), "a model server would fetch it: {json}");
            }
            if endpoint != Endpoint::Embeddings {
                assert_eq!(sent["max_tokens"], 17);
            }
            let again = validate(endpoint, &body).unwrap();
            assert_eq!((again.model, again.stream), (asked.model, asked.stream));
            assert_eq!(again.max_tokens_asked, (endpoint != Endpoint::Embeddings).then_some(17));
        }
    });
}
