//! `mlx_lm.server`.
//!
//! Facts this file rests on (`mlx-lm` 0.32, `mlx_lm/server.py`, and the recorded exchanges in `tests/fixtures/mlx-lm`):
//! - It says little of itself: its list of models comes from Python's own little HTTP server, with no `owned_by`. That is
//!   all it is told by, so another server of that kind is taken for it; both are asked the same.
//! - `/v1/models` lists the folder of downloaded models, loaded or not, and the one it was started with. A request for
//!   another model than the loaded one loads that in its place.
//! - With no folder of downloaded models at all it fails inside and answers the list with nothing: then it is not found.
//! - It answers a stream's disconnect by stopping; it frees nothing while it runs.

use async_trait::async_trait;
use url::Url;

use crate::http::Site;
use crate::openai::Listed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError};

#[derive(Debug)]
pub(crate) struct MlxLm {
    site: Site,
}

impl MlxLm {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let answer = match site.get("/v1/models").await {
            Ok(answer) => answer,
            Err(ServerError::Nonsense(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let nobodys = |list: Listed| list.cards().iter().all(|card| card.owned_by.is_none());
        let is_it = answer.server.starts_with("BaseHTTP/") && answer.json().is_ok_and(nobodys);
        Ok(is_it.then(|| Self { site: site.clone() }))
    }
}

#[async_trait]
impl ModelServer for MlxLm {
    fn kind(&self) -> Kind {
        Kind::MlxLm
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let list: Listed = self.site.facts("/v1/models").await?;
        Ok(list.cards().into_iter().map(|card| card.model(Kind::MlxLm, None)).collect())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
