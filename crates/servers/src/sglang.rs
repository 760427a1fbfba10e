//! `SGLang`.
//!
//! Facts this file rests on (`SGLang` 0.5.23, `srt/entrypoints/http_server.py`, `srt/entrypoints/v1_loads.py`,
//! `srt/managers/scheduler_components/weight_updater.py`):
//! - `/health` *generates* a token, so it is never asked. `/model_info` (`/get_model_info` before) is what it is told by;
//!   `/server_info` tells version, room in tokens and flags.
//! - `/release_memory_occupation` frees weights and cache only with `--enable-memory-saver`; without it, it says 200 and
//!   keeps them. While a request runs or waits it kills the scheduler (an assertion), so `/v1/loads` is asked first.
//! - Nothing tells that it was released, and until `/resume_memory_occupation` no request may come: this adapter remembers
//!   what it released.
//! - Without `continue_final_message` a trailing message of the assistant's is taken for the user's.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::http::{FREEING, LOADING, Site};
use crate::openai::{Listed, artefact};
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

#[derive(Debug)]
pub(crate) struct SgLang {
    site: Site,
    released: AtomicBool,
}

#[derive(Deserialize)]
struct ModelInfo {
    #[expect(dead_code, reason = "that it is there is the fact")]
    model_path: String,
    #[expect(dead_code, reason = "that it is there is the fact")]
    is_generation: bool,
}

#[derive(Default, Deserialize)]
struct ServerInfo {
    version: Option<String>,
    max_total_num_tokens: Option<u32>,
    max_running_requests: Option<u32>,
    #[serde(default)]
    enable_memory_saver: bool,
}

#[derive(Deserialize)]
struct Loads {
    loads: Vec<Load>,
}

#[derive(Deserialize)]
struct Load {
    num_running_reqs: u32,
    num_waiting_reqs: u32,
}

impl SgLang {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let mut info: Option<ModelInfo> = site.facts_if_any("/model_info").await?;
        if info.is_none() {
            info = site.facts_if_any("/get_model_info").await?;
        }
        Ok(info.map(|_| Self { site: site.clone(), released: AtomicBool::new(false) }))
    }

    async fn info(&self) -> Result<ServerInfo, ServerError> {
        let info: Option<ServerInfo> = self.site.facts_if_any("/server_info").await?;
        Ok(info.unwrap_or_default())
    }
}

#[async_trait]
impl ModelServer for SgLang {
    fn kind(&self) -> Kind {
        Kind::SgLang
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let info = self.info().await?;
        let list: Listed = self.site.facts("/v1/models").await?;
        let models = list.cards().into_iter().filter(|card| card.parent.is_none()).map(|card| {
            let context = card.context();
            let fit = info.max_total_num_tokens.zip(context).map(|(room, context)| room / context);
            Model {
                artefact: artefact(&card.id, Kind::SgLang, info.version.as_deref()),
                slots: fit.unwrap_or(1).clamp(1, info.max_running_requests.unwrap_or(64).clamp(1, 64)),
                context,
                warm: !self.released.load(Ordering::Relaxed),
                id: card.id,
            }
        });
        Ok(models.collect())
    }

    async fn busy(&self) -> Option<u32> {
        let loads: Loads = self.site.facts("/v1/loads?include=core").await.ok()?;
        Some(loads.loads.iter().map(|it| it.num_running_reqs + it.num_waiting_reqs).sum())
    }

    fn loads_on_request(&self) -> bool {
        false
    }

    async fn unload(&self, _model: &Model) -> Result<(), UnloadError> {
        if self.released.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.info().await?.enable_memory_saver {
            return Err(UnloadError::Unsupported);
        }
        if self.busy().await != Some(0) {
            return Err(UnloadError::AtWork);
        }
        self.site.tell("/release_memory_occupation", &json!({}), FREEING).await?.agreed()?;
        self.released.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        let allowed = Allowed::continuing(call)?;
        if self.released.swap(false, Ordering::Relaxed) {
            self.site.tell("/resume_memory_occupation", &json!({}), LOADING).await?;
        }
        self.site.infer(call.endpoint, allowed.write(&model.id, call.max_tokens, allowed.flags())).await
    }
}
