//! text-generation-webui.
//!
//! Facts this file rests on (oobabooga/text-generation-webui, `extensions/openai/script.py` and `models.py`):
//! `/v1/internal/model/info` tells the loaded model, or `None`; `/v1/models` may list names that stand for nothing. A
//! request for another name is answered by the loaded model, so only that is offered. `/v1/internal/model/unload` exists,
//! but nothing loads the model again as the host had set it up: it is never asked to.

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

use crate::http::Site;
use crate::openai::artefact;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError};

#[derive(Debug)]
pub(crate) struct TextGenerationWebui {
    site: Site,
}

#[derive(Deserialize)]
struct Info {
    model_name: Option<String>,
    #[expect(dead_code, reason = "that it is there is the fact")]
    lora_names: Vec<String>,
}

impl Info {
    fn loaded(self) -> Option<String> {
        self.model_name.filter(|name| name != "None")
    }
}

const INFO: &str = "/v1/internal/model/info";

impl TextGenerationWebui {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let info: Option<Info> = site.facts_if_any(INFO).await?;
        Ok(info.map(|_| Self { site: site.clone() }))
    }
}

#[async_trait]
impl ModelServer for TextGenerationWebui {
    fn kind(&self) -> Kind {
        Kind::TextGenerationWebui
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let info: Info = self.site.facts(INFO).await?;
        let model = info.loaded().map(|id| Model {
            artefact: artefact(&id, Kind::TextGenerationWebui, None),
            slots: 1,
            context: None,
            warm: true,
            id,
        });
        Ok(model.into_iter().collect())
    }

    async fn holds(&self, model: &Model) -> Option<bool> {
        let info: Info = self.site.facts(INFO).await.ok()?;
        Some(info.loaded().is_some_and(|loaded| loaded == model.id))
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
