//! Discovery and adapters against fakes that answer as the servers' documents and records say.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{Call, DiscoverOptions, Found, Kind, Model, NoKeys, ServerError, ServerKeys, Servers};
use url::Url;
use wiremock::matchers::{any, body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

struct OneKey;

impl ServerKeys for OneKey {
    fn key(&self, _root: &Url) -> Option<String> {
        Some("sesame".to_owned())
    }
}

fn servers_with(keys: Arc<dyn ServerKeys>) -> Servers {
    // Each test is its own process under nextest; under plain `cargo test` the first one installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Servers::new(keys).unwrap()
}

async fn discover(fakes: &[&MockServer]) -> Vec<Found> {
    let urls = fakes.iter().map(|fake| fake.uri().parse().unwrap()).collect();
    let options = DiscoverOptions { scan: false, urls, exclude_ports: vec![] };
    servers_with(Arc::new(NoKeys)).discover(&options).await
}

async fn serve(fake: &MockServer, at: &str, text: &str) {
    let answer = ResponseTemplate::new(200).set_body_raw(text.to_owned(), "application/json");
    Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(fake).await;
}

async fn paths(fake: &MockServer) -> Vec<String> {
    let requests = fake.received_requests().await.unwrap();
    requests
        .iter()
        .map(|request| format!("{}?{}", request.url.path(), request.url.query().unwrap_or("")))
        .collect()
}

async fn ollama() -> MockServer {
    let fake = MockServer::start().await;
    serve(&fake, "/", "Ollama is running").await;
    serve(&fake, "/v1/models", r#"{"object":"list","data":null}"#).await;
    serve(&fake, "/api/version", include_str!("fixtures/ollama/version.json")).await;
    serve(&fake, "/api/tags", include_str!("fixtures/ollama/tags.json")).await;
    serve(&fake, "/api/ps", include_str!("fixtures/ollama/ps.json")).await;
    fake
}

async fn llama_cpp(props: &str) -> MockServer {
    let fake = MockServer::start().await;
    serve(&fake, "/props", props).await;
    serve(&fake, "/models", include_str!("fixtures/llama.cpp/models.json")).await;
    fake
}

fn models(found: &Found) -> &[Model] {
    found.models.as_ref().unwrap()
}

fn names(found: &Found) -> Vec<String> {
    models(found).iter().map(|model| model.artefact.name()).collect()
}

#[tokio::test]
async fn ollama_lists_what_is_on_this_machine_with_the_context_it_was_loaded_with() {
    let fake = ollama().await;
    let found = discover(&[&fake]).await;
    assert_eq!(found[0].server.as_ref().unwrap().kind(), Kind::Ollama);
    assert_eq!(names(&found[0]), ["llama3.2:q4_k_m", "qwen3-8b:q8_0"], "a cloud model is not this machine's");
    let [warm, cold] = models(&found[0]) else { unreachable!() };
    assert_eq!((warm.warm, warm.context), (true, Some(4096)));
    assert_eq!((cold.warm, cold.context), (false, None));
    assert!(warm.artefact.digest.unwrap().to_string().starts_with("sha256:a80c4f17"));
    assert_eq!(warm.artefact.engine_build.as_deref(), Some("0.12.6"));
}

/// Quirk: Ollama's `/v1` cuts a prompt that is longer than the loaded context, and says nothing.
#[tokio::test]
async fn a_prompt_that_ollama_would_cut_in_silence_is_refused() {
    let fake = ollama().await;
    let completions = ResponseTemplate::new(200).set_body_raw("{}", "application/json");
    Mock::given(path("/v1/chat/completions")).respond_with(completions).expect(1).mount(&fake).await;
    let found = discover(&[&fake]).await;
    let server = found[0].server.as_ref().unwrap();
    let model = &models(&found[0])[0];
    let ask =
        |words: usize| format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(words));
    let short = server.call(model, Call::new(Endpoint::ChatCompletions, ask(10).as_bytes(), 8)).await;
    assert_eq!(short.unwrap().status, 200);
    let long = server.call(model, Call::new(Endpoint::ChatCompletions, ask(5000).as_bytes(), 8)).await;
    assert_eq!(long.map(|answer| answer.status), Err(ServerError::Context));
}

/// Quirk: Ollama starts llama.cpp servers of its own; their weights are its blobs.
#[tokio::test]
async fn a_llama_server_that_ollama_started_is_not_listed_twice() {
    let props = include_str!("fixtures/llama.cpp/props.json").replace(
        "/srv/models/SmolLM2-135M-Instruct.Q4_1.gguf",
        "/usr/share/ollama/.ollama/models/blobs/sha256-dde5aa3fc5ffc17176b5e8bdc82f587b24b2678c6c66101bf7da77af9f7ccdff",
    );
    let (ollama, spawned) = (ollama().await, llama_cpp(&props).await);
    let kinds = |found: &[Found]| -> Vec<Kind> {
        found.iter().map(|found| found.server.as_ref().unwrap().kind()).collect()
    };
    assert_eq!(kinds(&discover(&[&spawned, &ollama]).await), [Kind::Ollama]);
    assert_eq!(kinds(&discover(&[&spawned]).await), [Kind::LlamaCpp], "alone it is somebody's own server");
}

/// Quirk: any other path than `/health`, `/props`, `/models` and `/metrics` wakes a sleeping model.
#[tokio::test]
async fn looking_at_llama_cpp_wakes_and_loads_nothing() {
    let props = include_str!("fixtures/llama.cpp/props.json")
        .replace("\"is_sleeping\":false", "\"is_sleeping\":true");
    let fake = llama_cpp(&props).await;
    let found = discover(&[&fake]).await;
    let [model] = models(&found[0]) else { unreachable!() };
    assert_eq!(model.artefact.name(), "smollm2-135m-instruct:q4_1");
    assert_eq!((model.slots, model.context, model.warm), (2, Some(2048), false));
    assert_eq!(model.artefact.digest, None, "there is no such file here");
    for asked in paths(&fake).await {
        assert!(asked == "/props?autoload=false" || asked == "/models?autoload=false", "{asked}");
    }
}

/// Quirk: a router loads what is asked about, unless told not to.
#[tokio::test]
async fn a_router_is_asked_about_loaded_models_only() {
    let fake = MockServer::start().await;
    let props = ResponseTemplate::new(200)
        .set_body_raw(include_str!("fixtures/llama.cpp/props.json"), "application/json");
    Mock::given(path("/props"))
        .and(query_param("model", "org/a b"))
        .and(query_param("autoload", "false"))
        .respond_with(props)
        .expect(1)
        .mount(&fake)
        .await;
    serve(&fake, "/props", r#"{"role":"router"}"#).await;
    serve(
        &fake,
        "/models",
        r#"{"data":[{"id":"org/a b","status":{"value":"loaded"}},{"id":"c","status":{"value":"unloaded"}}]}"#,
    )
    .await;
    let found = discover(&[&fake]).await;
    let listed: Vec<_> = models(&found[0]).iter().map(|it| (it.id.as_str(), it.warm)).collect();
    assert_eq!(listed, [("org/a b", true), ("c", false)]);
    let asked = paths(&fake).await;
    assert!(!asked.iter().any(|it| it.contains("model=c")), "{asked:?}");
}

/// Quirk: SGLang's `/health` generates; vLLM and others share ports with it.
#[tokio::test]
async fn any_other_server_is_asked_for_its_models_and_nothing_that_generates() {
    let fake = MockServer::start().await;
    serve(
        &fake,
        "/v1/models",
        r#"{"data":[{"id":"meta-llama/Llama-3.1-8B-Instruct","max_model_len":8192}]}"#,
    )
    .await;
    let found = discover(&[&fake]).await;
    assert_eq!(found[0].server.as_ref().unwrap().kind(), Kind::OpenAi);
    assert_eq!(names(&found[0]), ["llama-3.1-8b-instruct"]);
    assert_eq!(models(&found[0])[0].context, Some(8192));
    let asked = paths(&fake).await;
    assert!(!asked.iter().any(|path| path.starts_with("/health")), "{asked:?}");
}

#[tokio::test]
async fn what_is_no_model_server_is_told_only_where_the_host_named_it() {
    let fake = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>a router's page"))
        .mount(&fake)
        .await;
    let found = discover(&[&fake]).await;
    assert!(found[0].server.is_none() && found[0].named);
    assert!(matches!(found[0].models, Err(ServerError::Nonsense(_))));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = MockServer::start().await;
    let fake = MockServer::start().await;
    let away = ResponseTemplate::new(302).insert_header("location", format!("{}/props", elsewhere.uri()));
    Mock::given(any()).respond_with(away).mount(&fake).await;
    assert!(discover(&[&fake]).await[0].server.is_none());
    assert_eq!(paths(&elsewhere).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_wants_a_key_says_so_and_gets_the_hosts() {
    let fake = MockServer::start().await;
    let list = ResponseTemplate::new(200).set_body_raw(r#"{"data":[{"id":"m"}]}"#, "application/json");
    Mock::given(path("/v1/models"))
        .and(header("authorization", "Bearer sesame"))
        .respond_with(list)
        .with_priority(1)
        .mount(&fake)
        .await;
    Mock::given(path("/v1/models")).respond_with(ResponseTemplate::new(401)).mount(&fake).await;
    let without = discover(&[&fake]).await;
    assert_eq!(without[0].models, Err(ServerError::KeyNeeded));
    let options =
        DiscoverOptions { scan: false, urls: vec![fake.uri().parse().unwrap()], exclude_ports: vec![] };
    let with = servers_with(Arc::new(OneKey)).discover(&options).await;
    assert_eq!(names(&with[0]), ["m"]);
}

#[tokio::test]
async fn only_the_allowed_fields_reach_the_server() {
    let fake = llama_cpp(include_str!("fixtures/llama.cpp/props.json")).await;
    let wanted = serde_json::json!({
        "model": "/srv/models/SmolLM2-135M-Instruct.Q4_1.gguf",
        "messages": [{"role": "user", "content": "a"}],
        "stream": true,
        "max_tokens": 5,
        "stream_options": {"include_usage": true},
        "timings_per_token": true,
    });
    let stream = ResponseTemplate::new(200)
        .set_body_raw(include_str!("fixtures/llama.cpp/chat-english.sse"), "text/event-stream");
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(body_json(wanted))
        .respond_with(stream)
        .expect(1)
        .mount(&fake)
        .await;
    let found = discover(&[&fake]).await;
    let server = found[0].server.as_ref().unwrap();
    let body = br#"{"model":"x","messages":[{"role":"user","content":"a"}],"stream":true,"max_tokens":99,"id_slot":1}"#;
    let mut answer =
        server.call(&models(&found[0])[0], Call::new(Endpoint::ChatCompletions, body, 5)).await.unwrap();
    assert_eq!((answer.status, answer.streaming), (200, true));
    let mut length = 0;
    while let Some(bytes) = answer.chunk().await.unwrap() {
        length += bytes.len();
    }
    assert_eq!(length, include_str!("fixtures/llama.cpp/chat-english.sse").len());
}

#[tokio::test]
async fn a_server_that_is_away_is_told_apart() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url: Url = format!("http://{closed}").parse().unwrap();
    let options = DiscoverOptions { scan: false, urls: vec![url], exclude_ports: vec![] };
    let found = servers_with(Arc::new(NoKeys)).discover(&options).await;
    assert_eq!(found[0].models, Err(ServerError::Unreachable));
}
