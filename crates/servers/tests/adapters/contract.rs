//! What every adapter promises, kept by every fake and by the real llama.cpp: one suite for all. `script/show servers` prints
//! it as a table. A fake knows what really goes on in it, so nothing here rests on a server's own word alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_protocol::Continuation;
use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{
    Begun, Call, DiscoverOptions, Found, Kind, Model, ModelServer, ServerAnswer, ServerError, ServerKeys,
    Servers, UnloadError, probe,
};
use url::Url;

use crate::fakes::{Fake, Garbage, Of};

const QUESTION: &[u8] = br#"{"messages":[{"role":"user","content":"Count."}],"stream":true}"#;
/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
struct Keys(Arc<Mutex<Option<&'static str>>>);

impl ServerKeys for Keys {
    fn key(&self, _root: &Url) -> Option<String> {
        self.0.lock().unwrap().map(ToOwned::to_owned)
    }
}

pub(crate) struct Host {
    servers: Servers,
    keys: Keys,
}

impl Host {
    pub(crate) fn new() -> Self {
        // Each test is its own process under nextest; under plain `cargo test` the first one installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keys = Keys::default();
        Self { servers: Servers::new(Arc::new(keys.clone())).unwrap(), keys }
    }

    pub(crate) fn has_key(&self, key: Option<&'static str>) {
        *self.keys.0.lock().unwrap() = key;
    }

    pub(crate) async fn look(&self, url: &Url) -> Found {
        let options = DiscoverOptions { scan: false, urls: vec![url.clone()], exclude_ports: vec![] };
        self.servers.discover(&options).await.remove(0)
    }
}

#[expect(clippy::print_stdout, reason = "the table that `script/show servers` collects")]
pub(crate) fn row(server: &str, check: &str, how: &str) {
    println!("contract\t{server}\t{check}\t{how}");
}

pub(crate) async fn ask(
    server: &dyn ModelServer,
    model: &Model,
    tokens: u32,
) -> Result<ServerAnswer, ServerError> {
    server.call(model, Call::new(Endpoint::ChatCompletions, QUESTION, tokens)).await
}

pub(crate) async fn read(mut answer: ServerAnswer) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = answer.chunk().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a fake's server states of its model: name, context, slots, whether it is known to be loaded.
fn stated(of: Of) -> (&'static str, Option<u32>, u32, bool) {
    match of {
        Of::LlamaCpp => ("smollm2-135m-instruct:q4_1", Some(2048), 2, true),
        Of::LlamaRouter => ("smollm2-135m-instruct-gguf:q4_1", Some(2048), 2, true),
        Of::Ollama => ("llama3.2:q4_k_m", Some(4096), 1, true),
        Of::LmStudio => ("smollm2-135m-instruct:q4_k_m", Some(4096), 4, true),
        // 6,144 blocks of 16 tokens hold twelve contexts.
        Of::Vllm => ("smollm2-135m-instruct", Some(8192), 12, true),
        Of::SgLang => ("smollm2-135m-instruct", Some(8192), 4, true),
        Of::TabbyApi => ("smollm2-135m-instruct-exl3-4bpw", Some(4096), 4, true),
        Of::KoboldCpp => ("smollm2-135m-instruct:q4_1", Some(8192), 1, true),
        Of::MlxLm => ("smollm2-135m-instruct", None, 1, false),
        Of::Jan => ("smollm2-135m-instruct:q4_1", None, 1, false),
        Of::LocalAi => ("smollm2-135m-instruct", None, 1, true),
        Of::TextGenerationWebui => ("smollm2-135m-instruct:q4_1", None, 1, true),
        Of::OpenAi => ("smollm2-135m-instruct", None, 1, false),
    }
}

async fn keeps_the_contract(of: Of) {
    let name = if of == Of::LlamaRouter { "llama.cpp router" } else { of.kind().name() };
    let ok = |check: &str| row(name, check, "fake");
    let (host, mut fake) = (Host::new(), Fake::start(of).await);
    let url = fake.url();

    let found = host.look(&url).await;
    let server = found.server.clone().unwrap();
    assert_eq!(server.kind(), of.kind());
    ok("recognise");

    let model = found.models.unwrap()[0].clone();
    assert_eq!((&*model.artefact.name(), model.context, model.slots, model.warm), stated(of));
    assert!(
        fake.asked().iter().all(|it| !it.starts_with("POST") && !it.contains("/health")),
        "{:?}",
        fake.asked()
    );
    ok("list");

    let text = read(ask(&*server, &model, 5).await.unwrap()).await;
    assert_eq!(
        (text.matches("\"content\"").count(), text.ends_with("data: [DONE]\n\n")),
        (5, true),
        "{text}"
    );
    assert_eq!(fake.bodies()[0]["model"], *model.id);
    ok("stream");

    let mut long = ask(&*server, &model, 100_000).await.unwrap();
    long.chunk().await.unwrap();
    assert_eq!(fake.generating(), 1);
    drop(long);
    until("a dropped answer is still computed", || fake.generating() == 0).await;
    ok("cancel");

    let report = probe(&*server, &model).await;
    let can = report.capabilities;
    assert!(can.chat && can.streaming && can.usage && can.completions && !can.logprobs, "{report:?}");
    assert_eq!(can.cancels, sees_a_stop(of), "{report:?}");
    assert!(report.tokens_per_second.is_some_and(|speed| speed > 1.0));
    ok("probe");

    assert_eq!(can.continuation, goes_on(of), "{report:?}");
    for ids in [&[][..], &[11, 12, 13, 14, 15, 16, 170, 171, 172][..]] {
        let begun = Begun { text: "one two three\nfour 你好😀", ids };
        let call = Call { begun: Some(begun), ..Call::new(Endpoint::ChatCompletions, QUESTION, 2) };
        let by = if ids.is_empty() { Continuation::Text } else { Continuation::Ids };
        match server.call(&model, call).await {
            Ok(answer) => {
                let text = read(answer).await;
                assert!(goes_on(of) >= Continuation::Text, "{text}");
                let (next, other) = (text.find(" eight "), text.find("one "));
                assert!(next.is_some_and(|at| other.is_none_or(|other| at < other)), "{text}");
            }
            Err(error) => {
                assert_eq!(error, ServerError::Continuation);
                assert!(goes_on(of) < by);
            }
        }
    }
    row(name, "continue", how_it_goes_on(of));

    frees(&host, &fake, of, &*server, &model).await;
    row(name, "unload, verify", if of.frees() { "fake" } else { "fake: says that it cannot" });

    fake.vanish().await;
    assert_eq!(host.look(&url).await.models, Err(ServerError::Unreachable));
    assert_eq!(server.models().await, Err(ServerError::Unreachable));
    assert_eq!(ask(&*server, &model, 5).await.map(|it| it.status), Err(ServerError::Unreachable));
    ok("vanish");

    fake.state.load();
    fake.come_back().await;
    let back = host.look(&url).await;
    assert_eq!(back.server.unwrap().kind(), of.kind());
    assert_eq!(back.models.unwrap()[0].id, model.id);
    ok("come back");

    if of.has_keys() {
        wants_its_key(&host, &fake, &model).await;
        ok("wrong key");
    } else {
        row(name, "wrong key", "has none");
    }

    for garbage in [Garbage::Html, Garbage::Huge, Garbage::Redirect("http://127.0.0.1:9/".into())] {
        fake.is(garbage.clone());
        let found = host.look(&url).await;
        assert!(
            found.server.is_none() && matches!(found.models, Err(ServerError::Nonsense(_))),
            "{garbage:?}"
        );
        assert!(matches!(server.models().await, Err(ServerError::Nonsense(_))), "{garbage:?}");
        assert_ne!(server.holds(&model).await, Some(true));
        assert!(server.unload(&model).await.is_err(), "{garbage:?}");
    }
    fake.is(Garbage::Slow);
    let begun = Instant::now();
    assert_eq!(host.look(&url).await.models, Err(ServerError::Unreachable));
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    ok("garbage");

    fake.is(Garbage::Html);
    fake.vanish().await;
    fake.come_back().await;
    assert!(host.look(&url).await.server.is_none());
    ok("other program on its port");

    lies(&host, of).await;
    ok("a lie about its name");
}

/// How it goes on with an answer that has begun.
fn goes_on(of: Of) -> Continuation {
    match of {
        Of::LlamaCpp | Of::LlamaRouter => Continuation::Ids,
        Of::Ollama | Of::Vllm | Of::SgLang | Of::TabbyApi => Continuation::Text,
        _ => Continuation::None,
    }
}

fn how_it_goes_on(of: Of) -> &'static str {
    match goes_on(of) {
        Continuation::None => "fake: never asked to",
        Continuation::Text => "fake, by text",
        Continuation::Ids => "fake, by ids and by text",
    }
}

/// Whether a stop can be seen from outside: where the server tells what it works on, or answers one at a time.
fn sees_a_stop(of: Of) -> bool {
    // The plain llama.cpp fake's slots are a recording; the real one is tried below.
    !matches!(of, Of::LlamaCpp | Of::LmStudio | Of::TabbyApi | Of::LocalAi | Of::OpenAi)
}

async fn frees(host: &Host, fake: &Fake, of: Of, server: &dyn ModelServer, model: &Model) {
    if !of.frees() {
        assert_eq!(server.unload(model).await, Err(UnloadError::Unsupported));
        assert!(fake.holds_memory());
        return;
    }
    // It agrees, and keeps the memory: told as agreed, for whoever measures the memory to find out.
    fake.state.keeps_memory.store(true, Ordering::SeqCst);
    assert_eq!(server.unload(model).await, Ok(()));
    assert!(fake.holds_memory());
    fake.state.keeps_memory.store(false, Ordering::SeqCst);
    read(ask(server, model, 2).await.unwrap()).await;

    assert_eq!(server.unload(model).await, Ok(()));
    until("the memory is still held", || !fake.holds_memory()).await;
    assert_ne!(server.holds(model).await, Some(true));
    // Asked again it has nothing to free, and harms nothing.
    assert!(matches!(server.unload(model).await, Ok(())));
    // It is offered as cold, and the next request brings it back.
    let cold = host.look(&fake.url()).await.models.unwrap();
    let cold = cold.into_iter().find(|it| it.id == model.id).unwrap().or_as_before(model);
    assert_eq!((&cold.artefact, cold.context, cold.warm), (&model.artefact, model.context, false));
    let text = read(ask(server, &cold, 3).await.unwrap()).await;
    assert_eq!(text.matches("\"content\"").count(), 3, "{text}");
    assert!(fake.holds_memory());
    assert_ne!(server.holds(model).await, Some(false));
}

async fn wants_its_key(host: &Host, fake: &Fake, model: &Model) {
    fake.wants_key("sesame");
    let url = fake.url();
    for (key, refused) in [(None, ServerError::KeyNeeded), (Some("wrong"), ServerError::KeyWrong)] {
        host.has_key(key);
        let found = host.look(&url).await;
        let server = found.server.unwrap();
        // Some list their models to anybody, and want the key when asked to work.
        let said = match found.models {
            Err(error) => error,
            Ok(_) => ask(&*server, model, 1).await.map(|it| it.status).unwrap_err(),
        };
        assert_eq!(said, refused);
    }
    host.has_key(Some("sesame"));
    let found = host.look(&url).await;
    let server = found.server.unwrap();
    assert_eq!(server.kind(), fake.state.of.kind());
    assert_eq!(found.models.unwrap()[0].id, model.id);
    assert_eq!(ask(&*server, model, 1).await.unwrap().status, 200);
    *fake.state.key.lock().unwrap() = None;
}

/// A server with no more than an OpenAI API that names itself in every way there is.
async fn lies(host: &Host, of: Of) {
    use axum::Json;
    use axum::routing::get;
    use serde_json::json;
    let owner = of.kind().name();
    let list = json!({"object": "list", "data": [{"id": "m", "owned_by": owner}]});
    let name = json!({"software": {"name": "TabbyAPI"}, "result": "KoboldCpp", "version": "1.0", "build_info": owner});
    let named = Json(name);
    let router = axum::Router::new()
        .route("/v1/models", get(Json(list)))
        .route("/", get("Ollama is running"))
        .route("/.well-known/serviceinfo", get(named.clone()))
        .route("/api/extra/version", get(named.clone()))
        .route("/props", get(named.clone()))
        .route("/version", get(named));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(host.look(&url).await.server.unwrap().kind(), Kind::OpenAi);
    serving.abort();
}

macro_rules! contract {
    ($($name:ident: $of:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            keeps_the_contract(Of::$of).await;
        }
    )*
        #[test]
        fn every_fake_is_held_to_it() {
            assert_eq!([$(Of::$of),*], Of::ALL);
        }
    };
}

contract! {
    llama_cpp_keeps_the_contract: LlamaCpp,
    a_llama_cpp_router_keeps_the_contract: LlamaRouter,
    ollama_keeps_the_contract: Ollama,
    lm_studio_keeps_the_contract: LmStudio,
    vllm_keeps_the_contract: Vllm,
    sglang_keeps_the_contract: SgLang,
    tabbyapi_keeps_the_contract: TabbyApi,
    koboldcpp_keeps_the_contract: KoboldCpp,
    mlx_lm_keeps_the_contract: MlxLm,
    jan_keeps_the_contract: Jan,
    localai_keeps_the_contract: LocalAi,
    text_generation_webui_keeps_the_contract: TextGenerationWebui,
    any_openai_server_keeps_the_contract: OpenAi,
}
