//! Any server with an OpenAI-compatible API: vLLM, SGLang, LM Studio, TabbyAPI, Jan, LocalAI and the rest.
//!
//! Only `/v1/models` is asked, never `/health`: SGLang's generates.

use async_trait::async_trait;
use idlewatt_protocol::Artefact;
use idlewatt_protocol::message::Endpoint;
use serde::Deserialize;
use url::Url;

use crate::http::Http;
use crate::name::PublicName;
use crate::request::Allowed;
use crate::{Kind, Model, ModelServer, ServerAnswer, ServerError};

#[derive(Debug)]
pub(crate) struct OpenAi {
    http: Http,
    root: Url,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    /// vLLM and SGLang.
    #[serde(default)]
    max_model_len: Option<u32>,
}

impl OpenAi {
    /// Whether what answers at `root` lists models the OpenAI way.
    pub(crate) async fn recognise(http: &Http, root: &Url) -> Result<Option<Self>, ServerError> {
        let this = Self { http: http.clone(), root: root.clone() };
        match http.facts::<Listed>(root, "/v1/models").await {
            Ok(_) | Err(ServerError::KeyNeeded) => Ok(Some(this)),
            Err(ServerError::Nonsense(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

#[async_trait]
impl ModelServer for OpenAi {
    fn kind(&self) -> Kind {
        Kind::OpenAi
    }

    fn url(&self) -> &Url {
        &self.root
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let list: Listed = self.http.facts(&self.root, "/v1/models").await?;
        let models = list.data.into_iter().map(|entry| {
            let name = PublicName::of(&entry.id);
            Model {
                artefact: Artefact {
                    model: name.model,
                    quantisation: name.quantisation,
                    digest: None,
                    engine: Kind::OpenAi.name().to_owned(),
                    engine_build: None,
                },
                slots: 1,
                context: entry.max_model_len.filter(|length| *length > 0),
                // A list is no proof that a model is loaded: some list what lies on disk.
                warm: false,
                id: entry.id,
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
        self.http.infer(&self.root, endpoint, allowed.write(&model.id, max_tokens, "")).await
    }
}
