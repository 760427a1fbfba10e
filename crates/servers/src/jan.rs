//! Jan's local API server.
//!
//! Facts this file rests on (janhq/jan, `src-tauri/src/core/server/proxy.rs` and its `openapi.json`): it describes itself at
//! `/openapi.json` under the title "Jan API Server Endpoints", without a key; everything else may want the key that is set
//! in its settings. It passes requests on to llama.cpp servers of its own, does not say what those have loaded, and frees
//! nothing over HTTP.

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

use crate::http::Site;
use crate::openai::Listed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError};

#[derive(Debug)]
pub(crate) struct Jan {
    site: Site,
}

#[derive(Deserialize)]
struct Described {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    title: String,
}

impl Jan {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let described: Option<Described> = site.facts_if_any("/openapi.json").await?;
        let is_it = described.is_some_and(|it| it.info.title == "Jan API Server Endpoints");
        Ok(is_it.then(|| Self { site: site.clone() }))
    }
}

#[async_trait]
impl ModelServer for Jan {
    fn kind(&self) -> Kind {
        Kind::Jan
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let list: Listed = self.site.facts("/v1/models").await?;
        Ok(list.cards().into_iter().map(|card| card.model(Kind::Jan, None)).collect())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
