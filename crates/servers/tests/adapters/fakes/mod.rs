//! Fakes of model servers that behave as the servers do, quirks included. What each copies, and from which version, is in
//! its folder under `fixtures/`. A fake knows what really goes on in it (generating, memory held), whatever it says.

mod going_on;
mod servers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::stream;
use idlewatt_servers::Kind;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OwnedMutexGuard;
use url::Url;

/// Between two tokens.
const TOKEN: Duration = Duration::from_millis(2);
/// What an answer is made of, over and over, one an event.
const WORDS: [&str; 8] = ["one ", "two ", "three", "\nfour ", "你", "好", "😀", " eight "];

/// Which server is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    LlamaCpp,
    LlamaRouter,
    Ollama,
    LmStudio,
    Vllm,
    SgLang,
    TabbyApi,
    KoboldCpp,
    MlxLm,
    Jan,
    LocalAi,
    TextGenerationWebui,
    OpenAi,
}

impl Of {
    pub(crate) const ALL: [Self; 13] = [
        Self::LlamaCpp,
        Self::LlamaRouter,
        Self::Ollama,
        Self::LmStudio,
        Self::Vllm,
        Self::SgLang,
        Self::TabbyApi,
        Self::KoboldCpp,
        Self::MlxLm,
        Self::Jan,
        Self::LocalAi,
        Self::TextGenerationWebui,
        Self::OpenAi,
    ];

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::LlamaCpp | Self::LlamaRouter => Kind::LlamaCpp,
            Self::Ollama => Kind::Ollama,
            Self::LmStudio => Kind::LmStudio,
            Self::Vllm => Kind::Vllm,
            Self::SgLang => Kind::SgLang,
            Self::TabbyApi => Kind::TabbyApi,
            Self::KoboldCpp => Kind::KoboldCpp,
            Self::MlxLm => Kind::MlxLm,
            Self::Jan => Kind::Jan,
            Self::LocalAi => Kind::LocalAi,
            Self::TextGenerationWebui => Kind::TextGenerationWebui,
            Self::OpenAi => Kind::OpenAi,
        }
    }

    /// Whether it frees a model when asked.
    pub(crate) const fn frees(self) -> bool {
        !matches!(self, Self::LlamaCpp | Self::MlxLm | Self::Jan | Self::TextGenerationWebui | Self::OpenAi)
    }

    /// Whether it can be made to want a key.
    pub(crate) const fn has_keys(self) -> bool {
        !matches!(self, Self::Ollama | Self::MlxLm)
    }

    /// How many requests it answers at once; the rest waits.
    const fn one_at_a_time(self) -> bool {
        matches!(self, Self::Ollama | Self::KoboldCpp | Self::MlxLm | Self::Jan | Self::TextGenerationWebui)
    }
}

/// What it answers in place of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Garbage {
    #[default]
    None,
    Html,
    /// Ten megabytes of JSON.
    Huge,
    Redirect(String),
    /// Takes the question and says nothing for long.
    Slow,
}

/// The state of one fake.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) of: Of,
    /// Whether it says that the model is loaded.
    pub(crate) loaded: AtomicBool,
    /// Whether the model's memory is really held.
    pub(crate) memory: AtomicBool,
    /// Agrees to free memory, and keeps it.
    pub(crate) keeps_memory: AtomicBool,
    /// Started without what freeing needs: dev mode, memory saver, admin.
    pub(crate) cannot_free: AtomicBool,
    /// Ollama: the model's template or renderer closes a trailing message of the assistant's, and the model answers it.
    pub(crate) answers_anew: AtomicBool,
    /// Requests that it computes right now.
    pub(crate) generating: AtomicU32,
    /// The key that it wants.
    pub(crate) key: Mutex<Option<&'static str>>,
    pub(crate) garbage: Mutex<Garbage>,
    asked: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Value>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A fake that listens.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    address: SocketAddr,
    /// A runtime of its own, so that its end is the end of every connection too.
    serving: Option<Runtime>,
}

impl Fake {
    pub(crate) async fn start(of: Of) -> Self {
        let state = Arc::new(State {
            of,
            loaded: AtomicBool::new(true),
            memory: AtomicBool::new(true),
            keeps_memory: AtomicBool::new(false),
            cannot_free: AtomicBool::new(false),
            answers_anew: AtomicBool::new(false),
            generating: AtomicU32::new(0),
            key: Mutex::default(),
            garbage: Mutex::default(),
            asked: Mutex::default(),
            bodies: Mutex::default(),
            turn: Arc::default(),
        });
        let mut fake = Self { state, address: SocketAddr::from(([127, 0, 0, 1], 0)), serving: None };
        fake.come_back().await;
        fake
    }

    /// Listens where it listened before.
    pub(crate) async fn come_back(&mut self) {
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let state = Arc::clone(&self.state);
        let router = Router::new().fallback(move |method, uri, headers, body| {
            let state = Arc::clone(&state);
            async move { (servers::header(state.of), answer(state, method, uri, headers, body).await) }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.serving = Some(runtime);
    }

    /// Its process is gone, with every connection and all memory.
    pub(crate) async fn vanish(&mut self) {
        if let Some(runtime) = self.serving.take() {
            let ended = move || runtime.shutdown_timeout(Duration::from_secs(5));
            tokio::task::spawn_blocking(ended).await.unwrap();
        }
        self.state.memory.store(false, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// `METHOD /path?query`, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    /// What it was sent to infer.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.state.bodies.lock().unwrap().clone()
    }

    pub(crate) fn is(&self, garbage: Garbage) {
        *self.state.garbage.lock().unwrap() = garbage;
    }

    pub(crate) fn wants_key(&self, key: &'static str) {
        *self.state.key.lock().unwrap() = Some(key);
    }

    pub(crate) fn generating(&self) -> u32 {
        self.state.generating.load(Ordering::SeqCst)
    }

    pub(crate) fn holds_memory(&self) -> bool {
        self.state.memory.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    /// Says that it frees the model, and does, unless it is told not to.
    pub(crate) fn free(&self) {
        if !self.keeps_memory.load(Ordering::SeqCst) {
            self.memory.store(false, Ordering::SeqCst);
        }
        self.loaded.store(false, Ordering::SeqCst);
    }

    pub(crate) fn load(&self) {
        self.memory.store(true, Ordering::SeqCst);
        self.loaded.store(true, Ordering::SeqCst);
    }
}

async fn answer(state: Arc<State>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let target = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    state.asked.lock().unwrap().push(format!("{method} {target}"));
    let garbage = state.garbage.lock().unwrap().clone();
    match garbage {
        Garbage::None => {}
        Garbage::Html => return html("<html><title>a router's page</title></html>"),
        Garbage::Huge => return json_text(format!("{{\"data\":\"{}\"}}", "x".repeat(10 << 20))),
        Garbage::Redirect(elsewhere) => return Redirect::temporary(&elsewhere).into_response(),
        Garbage::Slow => tokio::time::sleep(Duration::from_secs(60)).await,
    }
    let key = *state.key.lock().unwrap();
    let sent = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if let Some(key) = key
        && servers::is_guarded(state.of, uri.path())
        && sent != format!("Bearer {key}")
    {
        return (StatusCode::UNAUTHORIZED, "{\"error\":\"a key\"}").into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method == Method::POST && matches!(uri.path(), "/v1/chat/completions" | "/v1/completions") {
        return infer(state, uri.path() == "/v1/chat/completions", body).await;
    }
    servers::facts(&state, &method, uri.path(), &target, &body)
}

/// Counts a request as long as it is computed; dropping it is what a disconnect does.
struct Generating {
    state: Arc<State>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.state.generating.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn infer(state: Arc<State>, chat: bool, body: Value) -> Response {
    state.bodies.lock().unwrap().push(body.clone());
    if let Some(refused) = servers::unready(&state).await {
        return refused;
    }
    let from = match going_on::from(&state, chat, &body) {
        Ok(from) => from,
        Err(refused) => return *refused,
    };
    let turn = match state.of.one_at_a_time() {
        true => Some(Arc::clone(&state.turn).lock_owned().await),
        false => None,
    };
    state.generating.fetch_add(1, Ordering::SeqCst);
    let generating = Generating { state: Arc::clone(&state), _turn: turn };
    let tokens = usize::try_from(body["max_tokens"].as_u64().unwrap_or(16)).unwrap();
    let model = body["model"].clone();
    let usage = json!({"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": tokens + 7});
    if body["stream"] != true {
        tokio::time::sleep(TOKEN * u32::try_from(tokens).unwrap()).await;
        drop(generating);
        let text: String = (0..tokens).map(|at| WORDS[(from + at) % WORDS.len()]).collect();
        let choice = match chat {
            true => {
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"})
            }
            false => json!({"index": 0, "text": text, "finish_reason": "length"}),
        };
        return json_text(json!({"model": model, "choices": [choice], "usage": usage}).to_string());
    }
    let with_usage = body["stream_options"]["include_usage"] == true;
    let extras = going_on::Extras::of(state.of, &body);
    let events = stream::unfold((0, Some(generating)), move |(at, generating)| {
        let (model, usage, extras) = (model.clone(), usage.clone(), extras.clone());
        async move {
            let generating = generating?;
            let event = |choices: Value, usage: Value| {
                format!("data: {}\n\n", json!({"model": model, "choices": choices, "usage": usage}))
            };
            if at < tokens {
                tokio::time::sleep(TOKEN).await;
                let word = WORDS[(from + at) % WORDS.len()];
                let mut choice = match chat {
                    true => json!({"index": 0, "delta": {"content": word}, "finish_reason": null}),
                    false => json!({"index": 0, "text": word, "finish_reason": null}),
                };
                let timings = extras.add(&mut choice, from, at);
                let mut event: Value = json!({"model": model, "choices": [choice], "usage": null});
                if let Some(timings) = timings {
                    event["timings"] = timings;
                }
                let text = format!("data: {event}\n\n");
                return Some((Ok::<_, Infallible>(text), (at + 1, Some(generating))));
            }
            let last = if with_usage { event(json!([]), usage) } else { String::new() };
            Some((Ok(format!("{last}data: [DONE]\n\n")), (at, None)))
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn json_text(text: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

fn html(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "text/html")], text).into_response()
}
