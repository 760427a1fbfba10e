//! Who answers at an address, told by what it does rather than by its port or what it calls itself.
//!
//! Each adapter recognises its own server by answers of the very endpoints that it will use, so a server under another's
//! name is at most taken for what it behaves like, and for any OpenAI-compatible one otherwise.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::digest::Digests;
use crate::http::Site;
use crate::jan::Jan;
use crate::koboldcpp::KoboldCpp;
use crate::llama_cpp::LlamaCpp;
use crate::lm_studio::LmStudio;
use crate::local_ai::LocalAi;
use crate::mlx_lm::MlxLm;
use crate::ollama::Ollama;
use crate::openai::OpenAi;
use crate::sglang::SgLang;
use crate::tabby_api::TabbyApi;
use crate::text_generation_webui::TextGenerationWebui;
use crate::vllm::Vllm;
use crate::{Kind, ModelServer, ServerError};

/// Those that imitate others come before these: `KoboldCpp` answers for llama.cpp and Ollama too, `TabbyAPI` for llama.cpp
/// and Kobold, `LocalAI` for Ollama, and a version at `/version` is told by several.
const BY_THEIR_OWN: [Kind; 10] = [
    Kind::KoboldCpp,
    Kind::TabbyApi,
    Kind::LmStudio,
    Kind::LocalAi,
    Kind::Ollama,
    Kind::SgLang,
    Kind::Vllm,
    Kind::TextGenerationWebui,
    Kind::Jan,
    Kind::MlxLm,
];

/// A server, and whether it serves a blob of Ollama's.
#[derive(Clone, Debug)]
pub(crate) struct Recognised {
    pub(crate) server: Arc<dyn ModelServer>,
    pub(crate) ollamas: bool,
}

/// Recognises what answers at `site`; `None` when it is no model server. Where a server was met before, only whether it
/// is still that one is asked, so that nobody's log fills with questions for others.
///
/// # Errors
/// When nothing answers, or not in time.
pub(crate) async fn recognise(
    site: &Site,
    digests: &Digests,
    before: Option<Kind>,
) -> Result<Option<Recognised>, ServerError> {
    if let Some(kind) = before {
        match as_kind(kind, site, digests).await {
            Ok(Some(same)) => return Ok(Some(same)),
            Ok(None) | Err(ServerError::KeyNeeded | ServerError::KeyWrong) => {}
            Err(other) => return Err(other),
        }
    }
    // llama.cpp first, and by `/props`: other questions would wake a model that sleeps.
    if let Some(server) = as_kind(Kind::LlamaCpp, site, digests).await? {
        return Ok(Some(server));
    }
    // Whatever serves models lists them here, or wants a key first. Anything else is asked no further.
    let Some(plain) = as_kind(Kind::OpenAi, site, digests).await? else { return Ok(None) };
    let asked = join_all(BY_THEIR_OWN.into_iter().map(|kind| as_kind(kind, site, digests))).await;
    Ok(Some(asked.into_iter().find_map(|it| it.ok().flatten()).unwrap_or(plain)))
}

async fn as_kind(kind: Kind, site: &Site, digests: &Digests) -> Result<Option<Recognised>, ServerError> {
    match kind {
        Kind::LlamaCpp => {
            let Some(server) = LlamaCpp::recognise(site, digests).await? else { return Ok(None) };
            // One whose key is known here is our own, with a file of Ollama's store.
            let ollamas = !site.has_key() && server.serves_ollama_blob().await;
            Ok(Some(Recognised { server: Arc::new(server), ollamas }))
        }
        Kind::Ollama => Ollama::recognise(site).await.map(met),
        Kind::LmStudio => LmStudio::recognise(site).await.map(met),
        Kind::Vllm => Vllm::recognise(site).await.map(met),
        Kind::SgLang => SgLang::recognise(site).await.map(met),
        Kind::TabbyApi => TabbyApi::recognise(site).await.map(met),
        Kind::KoboldCpp => KoboldCpp::recognise(site).await.map(met),
        Kind::MlxLm => MlxLm::recognise(site).await.map(met),
        Kind::Jan => Jan::recognise(site).await.map(met),
        Kind::LocalAi => LocalAi::recognise(site).await.map(met),
        Kind::TextGenerationWebui => TextGenerationWebui::recognise(site).await.map(met),
        Kind::OpenAi => OpenAi::recognise(site).await.map(met),
    }
}

fn met(server: Option<impl ModelServer + 'static>) -> Option<Recognised> {
    server.map(|server| Recognised { server: Arc::new(server), ollamas: false })
}
