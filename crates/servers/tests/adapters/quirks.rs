//! What is odd about each server, and that the adapter allows for it: each test here goes red without its workaround.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{
    Call, DiscoverOptions, Found, Kind, Model, ModelServer, NoKeys, ServerAnswer, ServerError, Servers,
    UnloadError,
};
use url::Url;

use crate::fakes::{Fake, Of};

fn servers() -> Servers {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Servers::new(Arc::new(NoKeys)).unwrap()
}

async fn look(servers: &Servers, url: Url) -> Found {
    let options = DiscoverOptions { scan: false, urls: vec![url], exclude_ports: vec![] };
    servers.discover(&options).await.remove(0)
}

async fn meet(fake: &Fake) -> (Arc<dyn ModelServer>, Model) {
    let found = look(&servers(), fake.url()).await;
    (found.server.unwrap(), found.models.unwrap().remove(0))
}

async fn ask(server: &dyn ModelServer, model: &Model, messages: &str) -> ServerAnswer {
    let body = format!("{{\"messages\":{messages},\"stream\":true}}");
    let asked = server.call(model, Call::new(Endpoint::ChatCompletions, body.as_bytes(), 100_000));
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap()
}

const HELLO: &str = r#"[{"role":"user","content":"Hello."}]"#;
const BEGUN: &str = r#"[{"role":"user","content":"Count."},{"role":"assistant","content":"one two "}]"#;

/// LM Studio answers a path that it does not know with 200, so a status proves nothing there.
#[tokio::test(flavor = "multi_thread")]
async fn lm_studios_200_for_anything_frees_nothing() {
    let mut fake = Fake::start(Of::LmStudio).await;
    let (server, model) = meet(&fake).await;
    // An older one, that has no way to free a model, behind the same address.
    fake.vanish().await;
    fake.state.load();
    let list = include_str!("../fixtures/lm-studio/models.json");
    let router = axum::Router::new()
        .route("/api/v1/models", axum::routing::get(list))
        .fallback(|| async { r#"{"error":"Unexpected endpoint or method. (POST /x)"}"# });
    let listener = tokio::net::TcpListener::bind(fake.url().socket_addrs(|| None).unwrap()[0]).await.unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(server.unload(&model).await, Err(UnloadError::Unsupported));
    serving.abort();
}

/// LM Studio's instances have names of their own, and a model may be loaded twice.
#[tokio::test(flavor = "multi_thread")]
async fn lm_studio_is_told_the_instance_and_not_the_model() {
    let fake = Fake::start(Of::LmStudio).await;
    let (server, model) = meet(&fake).await;
    assert_eq!(model.id, "smollm2-135m-instruct");
    assert_eq!(server.unload(&model).await, Ok(()));
    assert!(!fake.holds_memory());
}

/// A request to a vLLM that sleeps never ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_vllm_is_woken_before_it_is_asked() {
    let fake = Fake::start(Of::Vllm).await;
    let (server, model) = meet(&fake).await;
    fake.state.free();
    drop(ask(&*server, &model, HELLO).await);
    assert!(fake.asked().contains(&"POST /wake_up".to_owned()));
    assert!(!server.loads_on_request(), "others have to be told that nobody's request wakes it");
}

/// vLLM has sleep in its dev mode only, and its adapters (LoRA) are no models of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_vllm_without_dev_mode_cannot_free_and_lists_no_lora() {
    let fake = Fake::start(Of::Vllm).await;
    fake.state.cannot_free.store(true, Ordering::SeqCst);
    let found = look(&servers(), fake.url()).await;
    let models = found.models.unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(found.server.unwrap().unload(&models[0]).await, Err(UnloadError::Unsupported));
}

/// `SGLang`'s `/health` generates; releasing its memory at work kills it, and without the memory saver frees nothing.
#[tokio::test(flavor = "multi_thread")]
async fn sglang_is_never_made_to_generate_or_to_die() {
    let fake = Fake::start(Of::SgLang).await;
    let (server, model) = meet(&fake).await;
    let mut answer = ask(&*server, &model, HELLO).await;
    answer.chunk().await.unwrap();
    assert_eq!(server.unload(&model).await, Err(UnloadError::AtWork));
    drop(answer);
    while fake.generating() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fake.state.cannot_free.store(true, Ordering::SeqCst);
    assert_eq!(server.unload(&model).await, Err(UnloadError::Unsupported));
    let asked = fake.asked();
    assert!(!asked.iter().any(|it| it.contains("generated") || it.contains("died")), "{asked:?}");
}

/// vLLM, `SGLang` and `TabbyAPI` take a trailing message of the assistant's for a turn of its own unless told to go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_begun_is_gone_on_with() {
    for of in [Of::Vllm, Of::SgLang, Of::TabbyApi] {
        let fake = Fake::start(of).await;
        let (server, model) = meet(&fake).await;
        drop(ask(&*server, &model, BEGUN).await);
        drop(ask(&*server, &model, HELLO).await);
        let [begun, new] = &fake.bodies()[..] else { unreachable!() };
        assert_eq!(
            (&begun["continue_final_message"], &begun["add_generation_prompt"]),
            (&true.into(), &false.into())
        );
        assert!(new.get("continue_final_message").is_none());
    }
}

/// `TabbyAPI` answers for any name with what is loaded, lists its whole folder, and wants its admin key to free.
#[tokio::test(flavor = "multi_thread")]
async fn of_tabbyapi_only_what_is_loaded_is_offered() {
    let fake = Fake::start(Of::TabbyApi).await;
    let found = look(&servers(), fake.url()).await;
    let models = found.models.unwrap();
    assert_eq!(models.iter().map(|it| &*it.id).collect::<Vec<_>>(), ["SmolLM2-135M-Instruct-exl3-4bpw"]);
    fake.state.cannot_free.store(true, Ordering::SeqCst);
    let server = found.server.unwrap();
    assert_eq!(server.unload(&models[0]).await, Err(UnloadError::Refused));
    assert!(fake.holds_memory() && server.holds(&models[0]).await == Some(true));
}

/// `KoboldCpp` answers for llama.cpp, Ollama and OpenAI too; its admin endpoint says 200 and does nothing when it is off.
#[tokio::test(flavor = "multi_thread")]
async fn koboldcpp_is_itself_and_its_200_is_not_taken_for_a_yes() {
    let fake = Fake::start(Of::KoboldCpp).await;
    fake.state.cannot_free.store(true, Ordering::SeqCst);
    let (server, model) = meet(&fake).await;
    assert_eq!(server.kind(), Kind::KoboldCpp);
    assert_eq!(server.unload(&model).await, Err(UnloadError::Unsupported));
    assert!(fake.holds_memory());
}

/// `KoboldCpp` drops the beginning of a prompt that is too long, and Ollama cuts it; both say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_would_be_cut_without_a_word_is_not_sent() {
    for of in [Of::KoboldCpp, Of::Ollama] {
        let fake = Fake::start(of).await;
        let (server, model) = meet(&fake).await;
        let context = model.context.unwrap() as usize;
        let body =
            |bytes: usize| format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "a".repeat(bytes));
        let long = body(context * 3);
        let asks = |body| Call::new(Endpoint::ChatCompletions, body, 1);
        let long = server.call(&model, asks(long.as_bytes())).await;
        assert_eq!(long.err(), Some(ServerError::Context), "{of:?}");
        assert!(fake.bodies().is_empty(), "{of:?}");
        let fits = body(context);
        assert!(server.call(&model, asks(fits.as_bytes())).await.is_ok(), "{of:?}");
    }
}

/// `LocalAI` greets as Ollama does, and tells a version as it does.
#[tokio::test(flavor = "multi_thread")]
async fn localai_is_not_taken_for_ollama() {
    let fake = Fake::start(Of::LocalAi).await;
    let (server, model) = meet(&fake).await;
    assert_eq!(server.kind(), Kind::LocalAi);
    assert_eq!(model.artefact.engine_build.as_deref(), Some("v3.10.0"));
}

/// text-generation-webui lists names that stand for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_text_generation_webui_only_what_is_loaded_is_offered() {
    let fake = Fake::start(Of::TextGenerationWebui).await;
    let found = look(&servers(), fake.url()).await;
    assert_eq!(found.models.unwrap().len(), 1);
}

/// `mlx_lm.server` lists a folder: what stands there is not loaded.
#[tokio::test(flavor = "multi_thread")]
async fn what_mlx_lm_lists_is_not_taken_for_loaded() {
    let fake = Fake::start(Of::MlxLm).await;
    let found = look(&servers(), fake.url()).await;
    assert!(found.models.unwrap().iter().all(|it| !it.warm));
}

/// Jan describes itself without a key, while everything else wants one.
#[tokio::test(flavor = "multi_thread")]
async fn jan_is_known_before_its_key_is() {
    let fake = Fake::start(Of::Jan).await;
    fake.wants_key("sesame");
    let found = look(&servers(), fake.url()).await;
    assert_eq!(found.server.unwrap().kind(), Kind::Jan);
    assert_eq!(found.models, Err(ServerError::KeyNeeded));
}

/// Ollama agrees to free a model while a request runs, and frees it when that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn ollamas_yes_at_work_is_seen_to_be_none_yet() {
    let fake = Fake::start(Of::Ollama).await;
    let (server, model) = meet(&fake).await;
    let mut answer = ask(&*server, &model, HELLO).await;
    answer.chunk().await.unwrap();
    assert_eq!(server.unload(&model).await, Ok(()));
    assert_eq!(server.holds(&model).await, Some(true), "it is still at work");
    drop(answer);
    while server.holds(&model).await != Some(false) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!fake.holds_memory());
}

/// Nobody's log fills with questions for other servers: one that was met is asked for itself only.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_known_is_asked_for_nothing_it_does_not_have() {
    for of in Of::ALL {
        let fake = Fake::start(of).await;
        let servers = servers();
        look(&servers, fake.url()).await;
        let before = fake.asked().len();
        look(&servers, fake.url()).await;
        let again = fake.asked().split_off(before);
        let strange = |path: &str| match of.kind() {
            Kind::LlamaCpp => !path.starts_with("/props") && !path.starts_with("/models"),
            Kind::OpenAi | Kind::MlxLm => path != "/v1/models",
            _ => path.starts_with("/props"),
        };
        assert!(!again.iter().any(|it| strange(it.trim_start_matches("GET "))), "{of:?}: {again:?}");
    }
}

/// A certificate that this machine does not trust is said as such: the server is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_told_from_a_server_that_is_away() {
    let servers = servers();
    let certificate =
        rustls::pki_types::CertificateDer::from(include_bytes!("../fixtures/tls/certificate.der").to_vec());
    let key = rustls::pki_types::PrivateKeyDer::try_from(include_bytes!("../fixtures/tls/key.der").to_vec())
        .unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let config = Arc::new(config.unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut heard = [0; 1024];
            if stream.read(&mut heard).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    assert_eq!(look(&servers, url).await.models, Err(ServerError::Certificate));
}
