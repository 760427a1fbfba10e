//! llama.cpp's server, alone or as a router of several models.
//!
//! Facts this file rests on (llama.cpp `tools/server/README.md`, and the recorded exchanges in
//! `tests/fixtures/llama.cpp`): only `/health`, `/props`, `/models` and `/metrics` leave a sleeping model asleep; a router
//! loads a model on `GET` unless `autoload=false` is given; `/props` names the context of one slot; `timings_per_token`
//! adds token counts to each event of a stream.

use std::path::Path;

use async_trait::async_trait;
use idlewatt_protocol::Artefact;
use idlewatt_protocol::message::Endpoint;
use serde::Deserialize;
use url::Url;

use crate::digest::Digests;
use crate::http::Http;
use crate::name::{PublicName, tidy};
use crate::request::Allowed;
use crate::{Kind, Model, ModelServer, ServerAnswer, ServerError};

#[derive(Debug)]
pub(crate) struct LlamaCpp {
    http: Http,
    root: Url,
    digests: Digests,
}

#[derive(Deserialize)]
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

impl LlamaCpp {
    /// Whether what answers at `root` is llama.cpp: its `/props` tell the build.
    pub(crate) async fn recognise(
        http: &Http,
        digests: &Digests,
        root: &Url,
    ) -> Result<Option<Self>, ServerError> {
        match http.facts::<Props>(root, "/props?autoload=false").await {
            Ok(props) if props.build_info.is_some() || props.role.is_some() => {
                Ok(Some(Self { http: http.clone(), root: root.clone(), digests: digests.clone() }))
            }
            Ok(_) | Err(ServerError::Nonsense(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Whether its weights are a blob of Ollama's: then this is a server that Ollama started, and Ollama lists its
    /// model itself.
    pub(crate) async fn serves_ollama_blob(&self) -> bool {
        let props: Result<Props, _> = self.http.facts(&self.root, "/props?autoload=false").await;
        props.ok().and_then(|props| props.model_path).is_some_and(|path| {
            let mut parts = path.rsplit(['/', '\\']);
            parts.next().is_some_and(|file| file.starts_with("sha256-")) && parts.next() == Some("blobs")
        })
    }

    async fn model(&self, id: String, props: Props) -> Model {
        let path = props.model_path.as_deref();
        // An alias is the host's own choice of a name; without one the server repeats the path.
        let named = props.model_alias.as_deref().filter(|alias| !alias.is_empty()).or(path).unwrap_or(&id);
        let name = PublicName::of(named);
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
            Some(path) if crate::http::is_loopback(&self.root) => self.digests.of_file(Path::new(path)).await,
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
            warm: !props.is_sleeping,
        }
    }
}

#[async_trait]
impl ModelServer for LlamaCpp {
    fn kind(&self) -> Kind {
        Kind::LlamaCpp
    }

    fn url(&self) -> &Url {
        &self.root
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let props: Props = self.http.facts(&self.root, "/props?autoload=false").await?;
        let list: Listed = self.http.facts(&self.root, "/models?autoload=false").await?;
        if props.role.as_deref() != Some("router") {
            // A single server has one model, however many aliases it lists.
            let Some(entry) = list.data.into_iter().next() else { return Ok(Vec::new()) };
            return Ok(vec![self.model(entry.id, props).await]);
        }
        // A router would load what is asked about; only what is loaded anyway is listed.
        let mut models = Vec::new();
        for entry in list.data {
            if entry.status.is_some_and(|status| status.value == "loaded") {
                let id: String = url::form_urlencoded::byte_serialize(entry.id.as_bytes()).collect();
                let props = self.http.facts(&self.root, &format!("/props?model={id}&autoload=false")).await?;
                models.push(self.model(entry.id, props).await);
            }
        }
        Ok(models)
    }

    async fn busy(&self) -> Option<u32> {
        let slots: Vec<Slot> = self.http.facts(&self.root, "/slots").await.ok()?;
        u32::try_from(slots.iter().filter(|slot| slot.is_processing).count()).ok()
    }

    async fn greet(&self) {
        // This question goes through the queue of requests, as a scrape of `/metrics` does.
        let _busy = self.busy().await;
    }

    async fn call(
        &self,
        model: &Model,
        endpoint: Endpoint,
        body: &[u8],
        max_tokens: u32,
    ) -> Result<ServerAnswer, ServerError> {
        let allowed = Allowed::read(endpoint, body)?;
        // Token counts at every event, so that an answer cut off anywhere is billed to the token.
        let dialect = if allowed.streaming { ",\"timings_per_token\":true" } else { "" };
        self.http.infer(&self.root, endpoint, allowed.write(&model.id, max_tokens, dialect)).await
    }
}
