//! LM Studio, and its `llmster` without a window.
//!
//! Facts this file rests on (lmstudio.ai/docs/developer/rest, `list`, `unload`; api-changelog; 0.4):
//! - `GET /api/v1/models` lists what is on disk by `key`, each with its `loaded_instances` (`id`, and in `config` the
//!   context and, since 0.4, `parallel`). A model loaded in LM Studio's own window is among them.
//! - `POST /api/v1/models/unload {instance_id}` frees one instance and answers with that `instance_id`. The same model may
//!   be loaded several times (`key`, `key:2`), so the ids are asked for, never guessed.
//! - A path that it does not know is answered `200 {"error": "Unexpected endpoint or method. (…)"}`: a status proves
//!   nothing here. Before 0.4 there is only `/api/v0/models`, and no way to free anything.
//! - A request for a model that is not loaded loads it (`JIT loading`, on by default). Its version is told nowhere.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{FREEING, Site};
use crate::name::tidy;
use crate::openai::artefact;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

#[derive(Debug)]
pub(crate) struct LmStudio {
    site: Site,
}

/// `/api/v1/models`
#[derive(Deserialize)]
struct Listed {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    loaded_instances: Vec<Instance>,
    #[serde(default)]
    quantization: Option<Quantization>,
}

#[derive(Deserialize)]
struct Quantization {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Instance {
    id: String,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    context_length: Option<u32>,
    parallel: Option<u32>,
}

/// `/api/v0/models`
#[derive(Deserialize)]
struct OldListed {
    data: Vec<OldEntry>,
}

#[derive(Deserialize)]
struct OldEntry {
    id: String,
    state: String,
    #[serde(default)]
    quantization: Option<String>,
    #[serde(default)]
    loaded_context_length: Option<u32>,
}

impl From<OldEntry> for Entry {
    fn from(old: OldEntry) -> Self {
        let config = Config { context_length: old.loaded_context_length, parallel: None };
        let loaded = (old.state == "loaded").then(|| Instance { id: old.id.clone(), config });
        Self {
            key: old.id,
            loaded_instances: loaded.into_iter().collect(),
            quantization: old.quantization.map(|name| Quantization { name: Some(name) }),
        }
    }
}

impl LmStudio {
    /// It lists models its own way, the new one or the old.
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let this = Self { site: site.clone() };
        match this.entries().await {
            Ok(_) => Ok(Some(this)),
            Err(ServerError::Nonsense(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn entries(&self) -> Result<Vec<Entry>, ServerError> {
        if let Some(list) = self.site.facts_if_any::<Listed>("/api/v1/models").await? {
            return Ok(list.models);
        }
        let old: OldListed = self.site.facts("/api/v0/models").await?;
        Ok(old.data.into_iter().map(Entry::from).collect())
    }

    async fn instances(&self, model: &Model) -> Result<Vec<Instance>, ServerError> {
        let entries = self.entries().await?;
        Ok(entries
            .into_iter()
            .find(|it| it.key == model.id)
            .map(|it| it.loaded_instances)
            .unwrap_or_default())
    }
}

#[async_trait]
impl ModelServer for LmStudio {
    fn kind(&self) -> Kind {
        Kind::LmStudio
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let models = self.entries().await?.into_iter().map(|entry| {
            let mut artefact = artefact(&entry.key, Kind::LmStudio, None);
            let told = entry.quantization.and_then(|it| it.name);
            artefact.quantisation = told.as_deref().map(tidy).or(artefact.quantisation);
            let configs = || entry.loaded_instances.iter().map(|it| &it.config);
            Model {
                artefact,
                // Which of several instances answers is LM Studio's to choose: what holds for the least of them holds.
                slots: configs().map(|it| it.parallel.unwrap_or(1)).min().unwrap_or(1).max(1),
                context: configs().filter_map(|it| it.context_length).min().filter(|n| *n > 0),
                warm: !entry.loaded_instances.is_empty(),
                id: entry.key,
            }
        });
        Ok(models.collect())
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        self.instances(model).await.ok().map(|it| !it.is_empty())
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        for instance in self.instances(model).await? {
            let what = json!({"instance_id": instance.id});
            let answer = self.site.tell("/api/v1/models/unload", &what, FREEING).await?;
            answer.agreed()?;
            let said: Value = answer.json()?;
            if said.get("instance_id").and_then(Value::as_str) != Some(&instance.id) {
                return Err(UnloadError::Unsupported);
            }
        }
        Ok(())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
