//! Ollama.
//!
//! Facts this file rests on (Ollama `docs/api.md`, `docs/openai.md` and `server/sched.go`, 0.12):
//! - `/` greets with "Ollama is running"; `/api/tags` lists what is on disk with the digest of its manifest, `/api/ps` what
//!   is loaded, with the context it was loaded with. Slots are reported nowhere.
//! - `/v1` ignores `num_ctx` and truncates a longer prompt without a word.
//! - `/api/generate` with no prompt and `keep_alive: 0` frees a model and loads none. It answers `200` with
//!   `"done_reason": "unload"` at once, also while a request runs: then the model goes when that has ended.
//! - Whether a trailing message of the assistant's is continued or answered depends on the model's template or renderer
//!   (ollama/ollama issues 5775, 5890): the probe tells.
//! - Each load starts a runner (`llm/server.go`), a process that holds this one model and ends when it is unloaded.

use std::collections::HashMap;

use async_trait::async_trait;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::{Artefact, Digest};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::http::{FREEING, Site};
use crate::name::{PublicName, tidy};
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

#[derive(Debug)]
pub(crate) struct Ollama {
    site: Site,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    details: Details,
    /// In `/api/tags`, for a model that runs in a cloud and not on this machine.
    #[serde(default)]
    remote_host: Option<String>,
    /// In `/api/ps` only.
    #[serde(default)]
    context_length: Option<u32>,
}

/// Of `/api/generate`.
#[derive(Deserialize)]
struct Done {
    done: bool,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    quantization_level: Option<String>,
}

impl Ollama {
    /// It greets, and tells a version.
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        match site.text("/").await {
            Ok(greeting) if greeting.trim() == "Ollama is running" => {}
            Ok(_) | Err(ServerError::Nonsense(_)) => return Ok(None),
            Err(other) => return Err(other),
        }
        let version: Option<Version> = site.facts_if_any("/api/version").await?;
        Ok(version.map(|_| Self { site: site.clone() }))
    }
}

#[async_trait]
impl ModelServer for Ollama {
    fn kind(&self) -> Kind {
        Kind::Ollama
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let version: Version = self.site.facts("/api/version").await?;
        let tags: Tags = self.site.facts("/api/tags").await?;
        let loaded: Tags = self.site.facts("/api/ps").await?;
        let loaded: HashMap<String, Tag> =
            loaded.models.into_iter().map(|model| (model.name.clone(), model)).collect();
        let local = tags.models.into_iter().filter(|tag| tag.remote_host.is_none());
        let models = local.map(|tag| {
            let name = PublicName::of(&tag.name);
            let level =
                tag.details.quantization_level.filter(|level| !level.is_empty() && level != "unknown");
            let running = loaded.get(&tag.name);
            Model {
                artefact: Artefact {
                    model: name.model,
                    quantisation: level.as_deref().map(tidy).or(name.quantisation),
                    digest: digest(&tag.digest),
                    engine: Kind::Ollama.name().to_owned(),
                    engine_build: Some(tidy(&version.version)),
                },
                // OLLAMA_NUM_PARALLEL is not told; 1 is its default.
                slots: 1,
                // The model's own maximum would be a lie: `/v1` cuts prompts at the context it was loaded with.
                context: running.and_then(|running| running.context_length),
                warm: running.is_some(),
                id: tag.name,
            }
        });
        Ok(models.collect())
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        let loaded: Tags = self.site.facts("/api/ps").await.ok()?;
        Some(loaded.models.iter().any(|it| it.name == model.id))
    }

    fn loads_in_a_process(&self) -> bool {
        true
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        let what = json!({"model": model.id, "keep_alive": 0});
        let answer = self.site.tell("/api/generate", &what, FREEING).await?;
        answer.agreed()?;
        let said: Done = answer.json()?;
        if said.done { Ok(()) } else { Err(UnloadError::Refused) }
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        // A prompt it puts into the model's template whole, so what is appended there would be the user's.
        if call.begun.is_some() && call.endpoint != Endpoint::ChatCompletions {
            return Err(ServerError::Continuation);
        }
        let allowed = Allowed::continuing(call)?;
        if !allowed.fits(model.context) {
            return Err(ServerError::Context);
        }
        self.site.infer(call.endpoint, allowed.write(&model.id, call.max_tokens, "")).await
    }
}

/// Ollama writes digests as bare hexadecimal.
fn digest(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{hex}").parse().ok()
}
