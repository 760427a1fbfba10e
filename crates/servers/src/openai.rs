//! Any server with an OpenAI-compatible API that no other adapter knows better.
//!
//! Only `/v1/models` is asked, never `/health`: `SGLang`'s generates. Nothing of what such a server says of itself is
//! relied on; the live probe sees what it can do. It is never asked to free anything.

use async_trait::async_trait;
use idlewatt_protocol::Artefact;
use serde::Deserialize;
use url::Url;

use crate::http::Site;
use crate::name::{PublicName, tidy};
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError};

/// The list of models as OpenAI's API has it.
#[derive(Deserialize)]
pub(crate) struct Listed {
    /// Ollama with no model at all writes null.
    data: Option<Vec<Card>>,
}

/// One model in it.
#[derive(Deserialize)]
pub(crate) struct Card {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) owned_by: Option<String>,
    /// vLLM: the model that an adapter (`LoRA`) is laid over.
    #[serde(default)]
    pub(crate) parent: Option<String>,
    /// vLLM and `SGLang`: longest context, tokens.
    #[serde(default)]
    pub(crate) max_model_len: Option<u32>,
}

impl Card {
    /// The model, where its server tells no more than this list and perhaps its own version. A list is no proof that a model
    /// is loaded: some list what lies on disk.
    pub(crate) fn model(self, kind: Kind, build: Option<&str>) -> Model {
        Model { artefact: artefact(&self.id, kind, build), slots: 1, context: None, warm: false, id: self.id }
    }

    /// The longest context that is told, tokens; zero tells none.
    pub(crate) fn context(&self) -> Option<u32> {
        self.max_model_len.filter(|length| *length > 0)
    }
}

impl Listed {
    pub(crate) fn cards(self) -> Vec<Card> {
        self.data.unwrap_or_default()
    }
}

/// What a model is called outside, where its server tells no more than a name and perhaps its own version.
pub(crate) fn artefact(name: &str, kind: Kind, build: Option<&str>) -> Artefact {
    let name = PublicName::of(name);
    Artefact {
        model: name.model,
        quantisation: name.quantisation,
        digest: None,
        engine: kind.name().to_owned(),
        engine_build: build.map(tidy),
    }
}

#[derive(Debug)]
pub(crate) struct OpenAi {
    site: Site,
}

impl OpenAi {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        match site.facts::<Listed>("/v1/models").await {
            Ok(_) | Err(ServerError::KeyNeeded | ServerError::KeyWrong) => {
                Ok(Some(Self { site: site.clone() }))
            }
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
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let list: Listed = self.site.facts("/v1/models").await?;
        let models = list
            .cards()
            .into_iter()
            .map(|card| Model { context: card.context(), ..card.model(Kind::OpenAi, None) });
        Ok(models.collect())
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        self.site.call(model, call).await
    }
}
