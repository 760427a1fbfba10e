//! `LocalAI`.
//!
//! Facts this file rests on (mudler/LocalAI, `core/http/routes/localai.go`, `core/http/endpoints/localai/system.go`, 3.x):
//! `/system` tells `backends` and `loaded_models`; `/version` its version and commit; `/v1/models` every model that is
//! configured, whatever it is for. `POST /backend/shutdown {model}` ends the process that holds a model, and the next request
//! starts it again. It also answers for Ollama, so it is asked before that.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{FREEING, Site};
use crate::openai::Listed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

#[derive(Debug)]
pub(crate) struct LocalAi {
    site: Site,
}

#[derive(Deserialize)]
struct System {
    #[expect(dead_code, reason = "that it is there is the fact")]
    backends: Value,
    /// Null where none is loaded.
    loaded_models: Option<Vec<Loaded>>,
}

#[derive(Deserialize)]
struct Loaded {
    id: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl System {
    fn holds(&self, id: &str) -> bool {
        self.loaded_models.iter().flatten().any(|it| it.id == id)
    }
}

impl LocalAi {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let system: Option<System> = site.facts_if_any("/system").await?;
        Ok(system.map(|_| Self { site: site.clone() }))
    }
}

#[async_trait]
impl ModelServer for LocalAi {
    fn kind(&self) -> Kind {
        Kind::LocalAi
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let system: System = self.site.facts("/system").await?;
        let version: Option<Version> = self.site.facts_if_any("/version").await?;
        let build = version.as_ref().and_then(|it| it.version.split(' ').next());
        let list: Listed = self.site.facts("/v1/models").await?;
        let models = list
            .cards()
            .into_iter()
            .map(|card| Model { warm: system.holds(&card.id), ..card.model(Kind::LocalAi, build) });
        Ok(models.collect())
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        let system: System = self.site.facts("/system").await.ok()?;
        Some(system.holds(&model.id))
    }

    fn loads_in_a_process(&self) -> bool {
        true
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        let system: System = self.site.facts("/system").await?;
        if !system.holds(&model.id) {
            return Ok(());
        }
        self.site.tell("/backend/shutdown", &json!({"model": model.id}), FREEING).await?.agreed()
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
