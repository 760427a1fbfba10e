//! `TabbyAPI`.
//!
//! Facts this file rests on (theroyallab/tabbyAPI, `endpoints/core/router.py`, `endpoints/core/types/model.py`,
//! `endpoints/OAI/router.py`):
//! - `/.well-known/serviceinfo` names it and needs no key. `/v1/model` tells what is loaded, with `max_seq_len` and
//!   `max_batch_size`; with nothing loaded it is an error.
//! - With an admin key `/v1/models` lists the whole folder, loaded or not, and a dummy name may be among them. A request
//!   for another model than the loaded one is answered by the loaded one, so only that is offered.
//! - `/v1/model/unload` and `/v1/model/load` want the admin key, which serves for every other request too. Nothing loads a
//!   model again by itself.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{FREEING, LOADING, Site};
use crate::openai::artefact;
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

#[derive(Debug)]
pub(crate) struct TabbyApi {
    site: Site,
    /// What was freed from here, and comes back by the next request.
    freed: Mutex<Option<Model>>,
}

#[derive(Deserialize)]
struct ServiceInfo {
    software: Software,
}

#[derive(Deserialize)]
struct Software {
    name: String,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    max_seq_len: Option<u32>,
    max_batch_size: Option<u32>,
}

impl TabbyApi {
    /// It names itself, and has the endpoints that go with the name.
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let info: Option<ServiceInfo> = site.facts_if_any("/.well-known/serviceinfo").await?;
        if info.is_none_or(|it| it.software.name != "TabbyAPI") {
            return Ok(None);
        }
        let has_models = match site.get("/v1/model").await {
            Ok(answer) => answer.status != StatusCode::NOT_FOUND,
            Err(ServerError::Nonsense(_)) => false,
            Err(other) => return Err(other),
        };
        Ok(has_models.then(|| Self { site: site.clone(), freed: Mutex::default() }))
    }

    async fn loaded(&self) -> Result<Option<Model>, ServerError> {
        let answer = self.site.get("/v1/model").await?;
        if matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE) {
            return Ok(None);
        }
        let card: Card = answer.json()?;
        let parameters = card.parameters.unwrap_or_default();
        Ok(Some(Model {
            artefact: artefact(&card.id, Kind::TabbyApi, None),
            slots: parameters.max_batch_size.unwrap_or(1).clamp(1, 64),
            context: parameters.max_seq_len.filter(|length| *length > 0),
            warm: true,
            id: card.id,
        }))
    }

    fn freed(&self, change: impl FnOnce(&mut Option<Model>)) -> Option<Model> {
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut freed);
        freed.clone()
    }
}

#[async_trait]
impl ModelServer for TabbyApi {
    fn kind(&self) -> Kind {
        Kind::TabbyApi
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let model = match self.loaded().await? {
            Some(loaded) => {
                self.freed(|freed| *freed = None);
                Some(loaded)
            }
            None => self.freed(|_| {}),
        };
        Ok(model.into_iter().collect())
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        Some(self.loaded().await.ok()?.is_some_and(|loaded| loaded.id == model.id))
    }

    fn loads_on_request(&self) -> bool {
        false
    }

    async fn unload(&self, model: &Model) -> Result<(), UnloadError> {
        let Some(loaded) = self.loaded().await?.filter(|it| it.id == model.id) else { return Ok(()) };
        self.site.tell("/v1/model/unload", &Value::Null, FREEING).await?.agreed()?;
        self.freed(|freed| *freed = Some(Model { warm: false, ..loaded }));
        Ok(())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        let allowed = Allowed::continuing(call)?;
        if self.freed(|_| {}).is_some_and(|freed| freed.id == model.id) && self.loaded().await?.is_none() {
            // Its answer is a stream of progress that ends when the model is loaded.
            self.site
                .tell("/v1/model/load", &json!({"model_name": model.id, "name": model.id}), LOADING)
                .await?;
        }
        self.site.infer(call.endpoint, allowed.write(&model.id, call.max_tokens, allowed.flags())).await
    }
}
