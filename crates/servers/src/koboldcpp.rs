//! `KoboldCpp`.
//!
//! Facts this file rests on (LostRuins/koboldcpp, `koboldcpp.py` and the API documentation at lite.koboldai.net, 1.115):
//! - `/api/extra/version` says `"result": "KoboldCpp"`, its version, whether a password is set (`protected`), and whether
//!   the admin endpoints work (`admin`: 0 no, 1 yes, 2 with a password). It also answers for llama.cpp (`/props`), Ollama
//!   (`/api/tags`, `/api/version`) and OpenAI, so it is asked before those.
//! - `/api/v1/model` says `koboldcpp/NAME`, or `inactive`; `/api/extra/true_max_context_length` the context;
//!   `/api/extra/perf` whether it is `idle` and what queues. It answers one request at a time.
//! - `/api/admin/reload_config` with the file name `unload_model` frees the model and stays up; `initial_model` brings back
//!   what it was started with. Without `--admin` it is there, says 200, and does nothing: `"success": false`. It starts
//!   itself anew for either, and does not answer meanwhile.
//! - A prompt that is longer than its context loses its beginning without a word (`gpttype_adapter.cpp`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{FREEING, LOADING, Site};
use crate::openai::artefact;
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

/// How often it is asked whether it is back with its model.
const ASKED: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct KoboldCpp {
    site: Site,
    /// What was freed from here, and comes back by the next request.
    freed: Mutex<Option<Model>>,
}

#[derive(Deserialize)]
struct Version {
    result: String,
    version: String,
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    admin: u8,
}

#[derive(Deserialize)]
struct Name {
    result: String,
}

#[derive(Deserialize)]
struct Length {
    value: u32,
}

#[derive(Deserialize)]
struct Perf {
    idle: u32,
    queue: u32,
}

impl KoboldCpp {
    /// It names itself, and has the endpoints that go with the name.
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let version: Option<Version> = site.facts_if_any("/api/extra/version").await?;
        if version.is_none_or(|it| it.result != "KoboldCpp") {
            return Ok(None);
        }
        let is_it = site.facts_if_any::<Name>("/api/v1/model").await?.is_some();
        Ok(is_it.then(|| Self { site: site.clone(), freed: Mutex::default() }))
    }

    async fn version(&self) -> Result<Version, ServerError> {
        self.site.facts("/api/extra/version").await
    }

    async fn loaded(&self) -> Result<Option<String>, ServerError> {
        let name: Name = self.site.facts("/api/v1/model").await?;
        Ok(Some(name.result).filter(|name| !name.ends_with("inactive")))
    }

    fn freed(&self, change: impl FnOnce(&mut Option<Model>)) -> Option<Model> {
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut freed);
        freed.clone()
    }

    async fn admin(&self, file: &str) -> Result<(), UnloadError> {
        let what = json!({"filename": file});
        let answer = self.site.tell("/api/admin/reload_config", &what, FREEING).await?;
        answer.agreed()?;
        match answer.json::<Value>()?.get("success") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(UnloadError::Refused),
        }
    }

    /// Brings back what it was started with, and waits for it.
    async fn bring_back(&self) -> Result<(), ServerError> {
        self.admin("initial_model").await.map_err(|error| match error {
            UnloadError::Server(error) => error,
            _ => ServerError::Nonsense("it does not load its model again"),
        })?;
        let asked = Instant::now();
        while !matches!(self.loaded().await, Ok(Some(_))) {
            if asked.elapsed() > LOADING {
                return Err(ServerError::Unreachable);
            }
            tokio::time::sleep(ASKED).await;
        }
        self.freed(|freed| *freed = None);
        Ok(())
    }
}

#[async_trait]
impl ModelServer for KoboldCpp {
    fn kind(&self) -> Kind {
        Kind::KoboldCpp
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let version = self.version().await?;
        if version.protected && !self.site.has_key() {
            return Err(ServerError::KeyNeeded);
        }
        let Some(id) = self.loaded().await? else {
            return Ok(self.freed(|_| {}).into_iter().collect());
        };
        let length: Option<Length> = self.site.facts_if_any("/api/extra/true_max_context_length").await?;
        self.freed(|freed| *freed = None);
        Ok(vec![Model {
            artefact: artefact(&id, Kind::KoboldCpp, Some(&version.version)),
            slots: 1,
            context: length.map(|it| it.value).filter(|length| *length > 0),
            warm: true,
            id,
        }])
    }

    async fn busy(&self) -> Option<u32> {
        let perf: Perf = self.site.facts("/api/extra/perf").await.ok()?;
        Some(perf.queue + u32::from(perf.idle == 0))
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        Some(self.loaded().await.ok()?.is_some_and(|loaded| loaded == model.id))
    }

    fn loads_on_request(&self) -> bool {
        false
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        if self.version().await?.admin == 0 {
            return Err(UnloadError::Unsupported);
        }
        if self.loaded().await?.is_none() {
            return Ok(());
        }
        self.admin("unload_model").await?;
        self.freed(|freed| *freed = Some(Model { warm: false, ..model.clone() }));
        Ok(())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        if self.freed(|_| {}).is_some() && self.loaded().await?.is_none() {
            self.bring_back().await?;
        }
        if !Allowed::read(call.endpoint, call.body)?.fits(model.context) {
            return Err(ServerError::Context);
        }
        self.site.call(model, call).await
    }
}
