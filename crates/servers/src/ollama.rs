//! Ollama.
//!
//! Facts this file rests on (Ollama `docs/api.md` and `docs/openai.md`, 0.12): `/` greets with "Ollama is running";
//! `/api/tags` lists what is on disk with the digest of its manifest, `/api/ps` what is loaded, with the context it was
//! loaded with; `/v1` ignores `num_ctx` and truncates a longer prompt without a word; slots are reported nowhere.

use std::collections::HashMap;

use async_trait::async_trait;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::{Artefact, Digest};
use serde::Deserialize;
use url::Url;

use crate::http::Http;
use crate::name::{PublicName, tidy};
use crate::request::Allowed;
use crate::{Kind, Model, ModelServer, ServerAnswer, ServerError};

/// A token of a chat is seldom shorter than this, so a prompt over `context × 3` bytes is surely at risk of being cut.
const BYTES_A_TOKEN: usize = 3;

#[derive(Debug)]
pub(crate) struct Ollama {
    http: Http,
    root: Url,
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

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    quantization_level: Option<String>,
}

impl Ollama {
    /// Whether what answers at `root` is Ollama: it greets, and tells a version.
    pub(crate) async fn recognise(http: &Http, root: &Url) -> Result<Option<Self>, ServerError> {
        match http.text(root, "/").await {
            Ok(greeting) if greeting.trim() == "Ollama is running" => {}
            Ok(_) | Err(ServerError::Nonsense(_)) => return Ok(None),
            Err(other) => return Err(other),
        }
        let version: Result<Version, _> = http.facts(root, "/api/version").await;
        Ok(version.ok().map(|_| Self { http: http.clone(), root: root.clone() }))
    }
}

#[async_trait]
impl ModelServer for Ollama {
    fn kind(&self) -> Kind {
        Kind::Ollama
    }

    fn url(&self) -> &Url {
        &self.root
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let version: Version = self.http.facts(&self.root, "/api/version").await?;
        let tags: Tags = self.http.facts(&self.root, "/api/tags").await?;
        let loaded: Tags = self.http.facts(&self.root, "/api/ps").await?;
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

    async fn call(
        &self,
        model: &Model,
        endpoint: Endpoint,
        body: &[u8],
        max_tokens: u32,
    ) -> Result<ServerAnswer, ServerError> {
        let allowed = Allowed::read(endpoint, body)?;
        let fits =
            model.context.is_none_or(|context| allowed.prompt_bytes() <= context as usize * BYTES_A_TOKEN);
        if !fits {
            return Err(ServerError::Context);
        }
        self.http.infer(&self.root, endpoint, allowed.write(&model.id, max_tokens, "")).await
    }
}

/// Ollama writes digests as bare hexadecimal.
fn digest(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{hex}").parse().ok()
}
