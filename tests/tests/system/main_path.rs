//! One request through hub and node, compared with the model server's own answer.

use idlewatt_tests::{Answer, MODEL, ModelServer, System, http};
use serde_json::{Value, json};

use crate::{chat, stream};

const PROMPTS: [&str; 4] = [
    "Why is the sky blue?",
    "Write a haiku about copper.",
    "用一句话介绍你自己。",
    "List three 🍎🍊 facts as JSON.",
];

fn same_usage(ours: &Answer, theirs: &Answer) {
    let (ours, theirs) = (ours.usage().expect("usage"), theirs.usage().expect("usage"));
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(ours[count], theirs[count], "{count}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_equal_the_servers_own_byte_for_byte() {
    let system = System::start().await;
    let server = system.model.consumer();
    for prompt in PROMPTS {
        let theirs = server.chat(&chat(prompt, 48)).await;
        assert!(!theirs.text().is_empty());

        let whole = system.consumer.chat(&chat(prompt, 48)).await;
        assert_eq!(whole.status, 200, "{whole:?}");
        assert_eq!(whole.text(), theirs.text());
        assert_eq!(whole.finish(), theirs.finish());
        same_usage(&whole, &theirs);

        let streamed = system.consumer.chat(&stream(prompt, 48)).await;
        assert!(streamed.done && !streamed.broken, "{streamed:?}");
        assert_eq!(streamed.text(), theirs.text());
        assert_eq!(streamed.finish(), theirs.finish());
        same_usage(&streamed, &theirs);
    }
    let body = json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 32, "temperature": 0});
    let (ours, theirs) =
        (system.consumer.post("/v1/completions", &body).await, server.post("/v1/completions", &body).await);
    assert_eq!(ours.text(), theirs.text());
    same_usage(&ours, &theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embeddings_equal_the_servers_own_and_are_receipted() {
    let system = System::on(ModelServer::start(&["--parallel", "2", "--threads", "1", "--embeddings"])).await;
    let server = system.model.consumer();
    for input in [json!("The sky is blue."), json!(["copper", "绿色"])] {
        let body = json!({"model": MODEL, "input": input});
        let ours = system.consumer.post("/v1/embeddings", &body).await;
        let theirs = server.post("/v1/embeddings", &body).await;
        assert_eq!(ours.status, 200, "{ours:?}");
        let (ours_json, theirs_json) = (&ours.parts[0], &theirs.parts[0]);
        assert_eq!(ours_json["data"], theirs_json["data"]);
        assert!(ours_json["data"][0]["embedding"][0].is_f64());
        assert_eq!(ours_json["usage"], theirs_json["usage"]);
        let receipt = system.consumer.receipt(&ours.id()).await;
        assert_eq!(receipt.status, 200, "{receipt:?}");
    }
    system.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_to_the_api_and_says_usage_only_when_asked() {
    let system = System::start().await;
    let mut body = stream(PROMPTS[0], 16);
    let asked = system.consumer.chat(&body).await;
    let last = asked.parts.last().expect("a chunk");
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"].is_object());
    let [first, rest @ ..] = asked.parts.as_slice() else { panic!("no chunks") };
    for part in rest {
        for pinned in ["id", "created", "model", "object"] {
            assert_eq!(part[pinned], first[pinned]);
        }
    }
    assert_eq!(first["object"], "chat.completion.chunk");
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert!(first["model"].as_str().expect("a name").starts_with(MODEL));

    body.as_object_mut().expect("an object").remove("stream_options");
    let silent = system.consumer.chat(&body).await;
    assert_eq!(silent.usage(), None);
    assert_eq!(silent.text(), asked.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_answers_to_its_three_names_and_is_listed() {
    let system = System::start().await;
    let models = system.consumer.get("/v1/models").await;
    let listed = &models.parts[0]["data"][0];
    assert_eq!(listed["object"], "model");
    assert!(listed["id"].as_str().expect("a name").starts_with(MODEL));
    for name in [MODEL.to_owned(), format!("{MODEL}:q4_1")] {
        let mut body = chat("Hi", 4);
        body["model"] = Value::from(name);
        assert_eq!(system.consumer.chat(&body).await.status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_metrics_description_and_status_page_are_served() {
    let system = System::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/"] {
        let answer = http().get(format!("{}{path}", system.hub.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.unwrap();
        match path {
            "/metrics" => assert!(text.contains("# TYPE idlewatt_"), "{text}"),
            "/openapi.json" => {
                let description: Value = serde_json::from_str(&text).unwrap();
                assert!(description["paths"]["/v1/chat/completions"].is_object());
            }
            "/" => assert!(text.contains(MODEL), "{text}"),
            _ => {}
        }
    }
}
