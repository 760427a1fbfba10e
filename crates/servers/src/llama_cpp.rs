//! llama.cpp's server, alone or as a router of several models.
//!
//! Facts this file rests on (llama.cpp `tools/server/README.md` and `server-models.h`, and the recorded exchanges in
//! `tests/fixtures/llama.cpp`):
//! - `/props` tells the build as `b1234-abcdef`, the context of one slot, and whether the model sleeps
//!   (`--sleep-idle-seconds`). With `--api-key` everything but `/health` wants the key; every answer's `Server` header says
//!   `llama.cpp`.
//! - Only `/health`, `/props`, `/models` and `/metrics` leave a sleeping model asleep. A router loads a model that a `GET`
//!   is about unless `autoload=false` is given, and runs each in a process of its own.
//! - A router frees a model by `POST /models/unload`, and loads it again for the next request. A single server cannot: its
//!   end, or its own sleep, frees the memory.
//! - `timings_per_token` adds token counts to each event of a stream.
//! - `return_tokens` tells no ids in the streams of `/v1`; the log-probabilities do, each with its token's `id`. Over the few
//!   candidates that are left after sampling (`post_sampling_probs`) they cost nothing. Of a character that several tokens
//!   make only the last id is told: `/tokenize` knows the others.
//! - A trailing message of the assistant's is continued, and not repeated in a stream; a template that thinks refuses it
//!   with 400. `/v1/completions` takes a list of texts and ids for one prompt and reads a text in it as a chat reads
//!   what `/apply-template` makes of its messages.

use std::path::Path;

use async_trait::async_trait;
use idlewatt_protocol::Artefact;
use idlewatt_protocol::message::Endpoint;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::digest::Digests;
use crate::http::{FREEING, Site};
use crate::name::{PublicName, tidy};
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

const PROPS: &str = "/props?autoload=false";
const MODELS: &str = "/models?autoload=false";
const TIMINGS: &str = ",\"timings_per_token\":true";
const TIMINGS_AND_IDS: &str = ",\"timings_per_token\":true,\"n_probs\":1,\"post_sampling_probs\":true";

#[derive(Debug)]
pub(crate) struct LlamaCpp {
    site: Site,
    digests: Digests,
    /// Of several models, as far as it said when it was recognised.
    router: bool,
}

#[derive(Default, Deserialize)]
struct Props {
    build_info: Option<String>,
    role: Option<String>,
    model_path: Option<String>,
    model_alias: Option<String>,
    model_ftype: Option<String>,
    total_slots: Option<u32>,
    #[serde(default)]
    is_sleeping: bool,
    #[serde(default)]
    default_generation_settings: Settings,
}

#[derive(Default, Deserialize)]
struct Settings {
    n_ctx: Option<u32>,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    value: String,
}

#[derive(Deserialize)]
struct Slot {
    is_processing: bool,
}

#[derive(Deserialize)]
struct Templated {
    prompt: String,
}

#[derive(Deserialize)]
struct Tokenized {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    id: u32,
    piece: Piece,
}

/// What a token stands for: text, or bytes that are none by themselves.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        let bytes = match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        };
        bytes.iter().copied()
    }
}

impl Props {
    fn is_router(&self) -> bool {
        self.role.as_deref() == Some("router")
    }

    /// Others imitate `/props` without a build, or with a product's name in its place.
    fn is_llama_cpp(&self) -> bool {
        let number = |build: &str| Some(build.strip_prefix('b')?.split_once('-')?.0.parse::<u32>().is_ok());
        self.is_router() || self.build_info.as_deref().and_then(number).unwrap_or(false)
    }
}

impl Entry {
    fn is(&self, status: &str) -> bool {
        self.status.as_ref().is_some_and(|it| it.value == status)
    }

    fn path(&self, path: &str) -> String {
        let id: String = url::form_urlencoded::byte_serialize(self.id.as_bytes()).collect();
        format!("{path}?model={id}&autoload=false")
    }
}

impl LlamaCpp {
    pub(crate) async fn recognise(site: &Site, digests: &Digests) -> Result<Option<Self>, ServerError> {
        let answer = match site.get(PROPS).await {
            Ok(answer) => answer,
            Err(ServerError::Nonsense(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let (is_it, router) = match answer.json::<Props>() {
            Ok(props) => (props.is_llama_cpp(), props.is_router()),
            // It tells no more without its key; with it, it is asked again.
            Err(ServerError::KeyNeeded | ServerError::KeyWrong) => (answer.server == "llama.cpp", false),
            Err(_) => (false, false),
        };
        Ok(is_it.then(|| Self { site: site.clone(), digests: digests.clone(), router }))
    }

    /// Whether its weights are a blob of Ollama's: then this is a server that Ollama started, and Ollama lists its
    /// model itself.
    pub(crate) async fn serves_ollama_blob(&self) -> bool {
        let props: Result<Props, _> = self.site.facts(PROPS).await;
        props.ok().and_then(|props| props.model_path).is_some_and(|path| {
            let mut parts = path.rsplit(['/', '\\']);
            parts.next().is_some_and(|file| file.starts_with("sha256-")) && parts.next() == Some("blobs")
        })
    }

    /// `named` is what the model is called, unless its file says it better.
    async fn model(&self, id: String, named: Option<String>, props: Props, warm: bool) -> Model {
        let path = props.model_path.as_deref();
        let name = PublicName::of(named.as_deref().or(path).unwrap_or(&id));
        let from_file = path.map(PublicName::of);
        let quantisation = props
            .model_ftype
            .as_deref()
            .map(|ftype| tidy(ftype.split(' ').next().unwrap_or(ftype)))
            .or(name.quantisation)
            .or_else(|| from_file.as_ref()?.quantisation.clone());
        // One shard of several is not the weights.
        let whole = path.filter(|_| from_file.is_some_and(|file| !file.sharded));
        let digest = match whole {
            Some(path) if crate::http::is_loopback(self.site.root()) => {
                self.digests.of_file(Path::new(path)).await
            }
            _ => None,
        };
        Model {
            id,
            artefact: Artefact {
                model: name.model,
                quantisation,
                digest,
                engine: Kind::LlamaCpp.name().to_owned(),
                engine_build: props.build_info.as_deref().map(tidy),
            },
            slots: props.total_slots.unwrap_or(1).max(1),
            context: props.default_generation_settings.n_ctx.filter(|n| *n > 0),
            warm,
        }
    }

    /// What a chat's messages come to in the model's template.
    async fn prompt_of(&self, model: &Model, messages: &str) -> Result<String, ServerError> {
        let ask = format!(r#"{{"model":{},"messages":{messages}}}"#, Value::from(&*model.id));
        let templated: Result<Templated, _> = self.site.work_out("/apply-template", ask).await;
        templated.map(|it| it.prompt).map_err(|error| match error {
            ServerError::Nonsense(_) => ServerError::Continuation,
            other => other,
        })
    }

    /// A router's model: all that it states while it is loaded, its name otherwise.
    async fn routed(&self, entry: Entry) -> Result<Model, ServerError> {
        let (loaded, asleep) = (entry.is("loaded"), entry.is("sleeping"));
        let props = match loaded || asleep {
            true => self.site.facts(&entry.path("/props")).await?,
            false => Props::default(),
        };
        let named = Some(entry.id.clone());
        Ok(self.model(entry.id, named, props, loaded).await)
    }
}

#[async_trait]
impl ModelServer for LlamaCpp {
    fn kind(&self) -> Kind {
        Kind::LlamaCpp
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let props: Props = self.site.facts(PROPS).await?;
        let list: Listed = self.site.facts(MODELS).await?;
        if !props.is_router() {
            // A single server has one model, however many aliases it lists. An alias is the host's own choice of a name;
            // without one the server repeats the path.
            let Some(entry) = list.data.into_iter().next() else { return Ok(Vec::new()) };
            let named = props.model_alias.clone().filter(|alias| !alias.is_empty());
            let warm = !props.is_sleeping;
            return Ok(vec![self.model(entry.id, named, props, warm).await]);
        }
        let mut models = Vec::new();
        for entry in list.data.into_iter().filter(|it| !it.is("downloading")) {
            models.push(self.routed(entry).await?);
        }
        Ok(models)
    }

    async fn busy(&self) -> Option<u32> {
        let props: Props = self.site.facts(PROPS).await.ok()?;
        let paths = if props.is_router() {
            let list: Listed = self.site.facts(MODELS).await.ok()?;
            list.data.iter().filter(|it| it.is("loaded")).map(|it| it.path("/slots")).collect()
        } else if props.is_sleeping {
            Vec::new()
        } else {
            vec!["/slots".to_owned()]
        };
        let mut busy = 0;
        for path in paths {
            let slots: Vec<Slot> = self.site.facts(&path).await.ok()?;
            busy += u32::try_from(slots.iter().filter(|slot| slot.is_processing).count()).ok()?;
        }
        Some(busy)
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        let props: Props = self.site.facts(PROPS).await.ok()?;
        if !props.is_router() {
            return Some(!props.is_sleeping);
        }
        let list: Listed = self.site.facts(MODELS).await.ok()?;
        Some(list.data.iter().any(|it| it.id == model.id && (it.is("loaded") || it.is("loading"))))
    }

    fn loads_in_a_process(&self) -> bool {
        self.router
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        if self.holds(model).await == Some(false) {
            return Ok(());
        }
        let answer = self.site.tell("/models/unload", &json!({"model": model.id}), FREEING).await?;
        answer.agreed()?;
        match answer.json::<Value>()?.get("success") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(UnloadError::Refused),
        }
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        let (endpoint, allowed) = match call.begun {
            Some(begun) if !begun.ids.is_empty() => {
                let allowed = Allowed::read(call.endpoint, call.body)?;
                let prompt = match allowed.messages() {
                    Some(messages) => Some(self.prompt_of(model, messages).await?),
                    None => None,
                };
                (Endpoint::Completions, allowed.after_ids(prompt.as_deref(), begun.ids)?)
            }
            _ => (call.endpoint, Allowed::continuing(call)?),
        };
        let dialect = match (allowed.streaming, call.ids) {
            (false, _) => "",
            // Token counts at every event, so that an answer cut off anywhere is billed to the token.
            (true, false) => TIMINGS,
            (true, true) => TIMINGS_AND_IDS,
        };
        self.site.infer(endpoint, allowed.write(&model.id, call.max_tokens, dialect)).await
    }

    async fn ids_of(&self, model: &Model, text: &str) -> Option<Vec<u32>> {
        let ask = json!({"model": model.id, "content": text, "add_special": false, "with_pieces": true});
        let read: Tokenized = self.site.work_out("/tokenize", ask.to_string()).await.ok()?;
        let pieces = read.tokens.iter().flat_map(|it| it.piece.bytes());
        pieces.eq(text.bytes()).then(|| read.tokens.iter().map(|it| it.id).collect())
    }
}
