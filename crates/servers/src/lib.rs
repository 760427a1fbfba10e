//! Model servers: discovery, live probe and one adapter each.
//!
//! [`Servers::discover`] finds what listens on this machine and recognises it by what it says, never by its port;
//! [`probe`] measures with live requests what a model can do; [`ModelServer::call`] asks it one thing. Whatever a
//! network sends passes an allow-list of fields here, and no other path of a server can be reached through this crate.
//!
//! [`Managed`] is a llama-server of our own. Not here: rewriting an answer before it leaves the machine
//! (`idlewatt_core::answer`), and deciding what is shared or when a server of our own runs (the engine).

mod call;
mod digest;
mod discovery;
pub mod files;
pub mod gguf;
mod http;
mod installed;
mod jan;
mod koboldcpp;
mod llama_cpp;
mod lm_studio;
mod local_ai;
mod managed;
mod mlx_lm;
mod name;
mod ollama;
mod openai;
pub mod plan;
mod probe;
mod recognise;
mod request;
mod sglang;
mod tabby_api;
mod text_generation_webui;
mod traffic;
mod vllm;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use idlewatt_protocol::Artefact;
use idlewatt_protocol::message::RefusalCode;
use url::Url;

pub use call::{Begun, Call};
pub use discovery::{DiscoverOptions, Found, Servers, USUAL_PORTS};
pub use http::is_loopback;
pub use installed::{Installed, installed};
pub use managed::{Launch, Managed, StartError};
pub use probe::{ProbeReport, probe};
pub use request::RequestError;
pub use traffic::Traffic;

/// Which adapter speaks to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// llama.cpp's own server, alone or as a router.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// LM Studio, or its `llmster`.
    LmStudio,
    /// vLLM.
    Vllm,
    /// `SGLang`.
    SgLang,
    /// `TabbyAPI`.
    TabbyApi,
    /// `KoboldCpp`.
    KoboldCpp,
    /// `mlx_lm.server`.
    MlxLm,
    /// Jan's local API server.
    Jan,
    /// `LocalAI`.
    LocalAi,
    /// text-generation-webui.
    TextGenerationWebui,
    /// Anything else with an OpenAI-compatible API.
    OpenAi,
}

impl Kind {
    /// The name in artefacts and views: `llama.cpp`, `ollama`, `openai`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
            Self::Vllm => "vllm",
            Self::SgLang => "sglang",
            Self::TabbyApi => "tabbyapi",
            Self::KoboldCpp => "koboldcpp",
            Self::MlxLm => "mlx-lm",
            Self::Jan => "jan",
            Self::LocalAi => "localai",
            Self::TextGenerationWebui => "text-generation-webui",
            Self::OpenAi => "openai",
        }
    }
}

/// One model that a server offers, with the facts it states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The server's own name for it; may be a path of this machine, so it never leaves it.
    pub id: String,
    /// What may leave: public name, quantisation, digest, engine and build.
    pub artefact: Artefact,
    /// Requests answered at once; 1 where the server does not say.
    pub slots: u32,
    /// Longest context, tokens; `None` where the server does not say (a cold Ollama model, most others).
    pub context: Option<u32>,
    /// Whether it is loaded now.
    pub warm: bool,
}

impl Model {
    /// A model that is not loaded states less of itself than a loaded one: what it leaves out is taken from `before`, the
    /// same model as it was stated last.
    #[must_use]
    pub fn or_as_before(mut self, before: &Self) -> Self {
        let (mine, known) = (&self.artefact, &before.artefact);
        let keeps = |mine: &Option<String>, known: &Option<String>| mine.is_none() || mine == known;
        let same = mine.model == known.model
            && mine.engine == known.engine
            && keeps(&mine.quantisation, &known.quantisation)
            && keeps(&mine.engine_build, &known.engine_build)
            && (mine.digest.is_none() || mine.digest == known.digest);
        if self.warm || !same {
            return self;
        }
        self.artefact = known.clone();
        self.context = self.context.or(before.context);
        self.slots = self.slots.max(before.slots);
        self
    }
}

/// One server, reached at one address.
#[async_trait]
pub trait ModelServer: Send + Sync + fmt::Debug {
    /// Which adapter this is.
    fn kind(&self) -> Kind;

    /// Its root. For the host's eyes only.
    fn url(&self) -> &Url;

    /// What it offers now. Never loads or wakes a model.
    ///
    /// # Errors
    /// When it cannot be reached, wants a key, or answers nonsense.
    async fn models(&self) -> Result<Vec<Model>, ServerError>;

    /// Requests it is working on at this moment; `None` where it does not tell.
    async fn busy(&self) -> Option<u32> {
        None
    }

    /// Asks something that it has ready, in the way in which it answers such questions last. Returns when it has answered,
    /// whatever it said: who asked before and still waits, waits for something that is computed.
    async fn greet(&self) {
        drop(self.models().await);
    }

    /// Sends one request: of its body only what is allowed, with the server's own name of the model, tokens clamped to
    /// the limit, and usage asked for on streams. Returns when the server's head is there; the caller keeps the time
    /// limits. Dropping the answer closes the connection.
    ///
    /// # Errors
    /// When the request is not allowed or does not fit, the server cannot go on after what has begun, or cannot be
    /// reached. A server's own error status is an answer, not an error.
    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError>;

    /// The ids that `model` reads `text` as, if the server tells them and they stand for exactly this text.
    async fn ids_of(&self, _model: &Model, _text: &str) -> Option<Vec<u32>> {
        None
    }

    /// Whether the server itself says that it holds `model` in memory; `None` where it does not tell, or is away.
    async fn holds(&self, _model: &Model) -> Option<bool> {
        None
    }

    /// Whether a model that was freed comes back for whoever asks for it. Where not, only the next
    /// [`call`](Self::call) or the host brings it back, and other programs are refused until then.
    fn loads_on_request(&self) -> bool {
        true
    }

    /// Whether each load of a model is a process of its own, which the server started for it and which ends with it.
    fn loads_in_a_process(&self) -> bool {
        false
    }

    /// Asks the server to free the memory that `model` holds. `Ok` says only that it agreed: whether memory really fell is
    /// the caller's to verify, and a server may go on holding it while a request runs, so close those first. What was
    /// freed so is loaded again by the next [`call`](Self::call).
    ///
    /// # Errors
    /// When the server cannot do that, refuses, or is away.
    async fn unload(&self, _model: &Model) -> Result<(), UnloadError> {
        Err(UnloadError::Unsupported)
    }

    /// `llama.cpp · 127.0.0.1:8080`, for the host's eyes only.
    fn label(&self) -> String {
        let host = self.url().host_str().unwrap_or_default();
        let port = self.url().port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{} · {host}{port}", self.kind().name())
    }
}

/// The API keys of servers that want one. Keys stay in the host's keyring; this is only the question.
pub trait ServerKeys: Send + Sync {
    /// The key for the server at `root`, if the host has set one.
    fn key(&self, root: &Url) -> Option<String>;
}

/// No server wants a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl ServerKeys for NoKeys {
    fn key(&self, _root: &Url) -> Option<String> {
        None
    }
}

/// A server's answer under way. Dropping it closes the connection, which is what stops generation.
#[derive(Debug)]
pub struct ServerAnswer {
    /// HTTP status.
    pub status: u16,
    /// Whether server-sent events follow, rather than one JSON body.
    pub streaming: bool,
    body: reqwest::Response,
}

impl ServerAnswer {
    /// The next bytes as they come; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ServerError> {
        self.body.chunk().await.map_err(|_| ServerError::BrokenOff)
    }
}

/// Why a server did not free a model's memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// It knows no way, or was started without it: only its end frees the memory.
    #[error("the model server cannot free a model's memory while it runs")]
    Unsupported,
    /// It could, and said no: it wants another key for this, or another state.
    #[error("the model server refused to free the model's memory")]
    Refused,
    /// It works for somebody, and would break if it were asked now.
    #[error("the model server is at work and cannot free the model's memory now")]
    AtWork,
    /// It could not be asked.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why a server was of no use. The words hold no address, path or content, so they may be shown to anyone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Nothing listens, or it does not answer in time.
    #[error("the model server does not answer")]
    Unreachable,
    /// It wants an API key, and none is set for it.
    #[error("the model server wants an API key")]
    KeyNeeded,
    /// It does not take the API key that is set for it.
    #[error("the model server does not take the API key that is set for it")]
    KeyWrong,
    /// Its TLS certificate is not one that this machine trusts.
    #[error("the model server's TLS certificate is not trusted here")]
    Certificate,
    /// It answers, but not what its API promises.
    #[error("the model server's answer makes no sense: {0}")]
    Nonsense(&'static str),
    /// The connection broke before the end of the answer.
    #[error("the model server broke off")]
    BrokenOff,
    /// The prompt and the answer do not fit the context.
    #[error("the prompt is longer than the model's context")]
    Context,
    /// An answer that has begun cannot be gone on with.
    #[error("the model server cannot go on with this partial answer")]
    Continuation,
    /// The request itself is not allowed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl ServerError {
    /// What a network is told.
    #[must_use]
    pub const fn refusal(&self) -> RefusalCode {
        match self {
            Self::Context => RefusalCode::Context,
            Self::Continuation => RefusalCode::Continuation,
            Self::Request(_) => RefusalCode::Limit,
            Self::Unreachable
            | Self::KeyNeeded
            | Self::KeyWrong
            | Self::Certificate
            | Self::Nonsense(_)
            | Self::BrokenOff => RefusalCode::Server,
        }
    }
}
