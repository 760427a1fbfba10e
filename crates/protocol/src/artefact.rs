//! Artefacts (the exact weights and how they run) and the services that offer them.

use serde::{Deserialize, Serialize};

use crate::continuation::Continuation;
use crate::id::Digest;
use crate::limits::{MAX_CONTEXT, MAX_NAME, MAX_SLOTS};
use crate::scope::{Region, Scope};
use crate::units::Price;

/// The exact weights and how they run. *Declared* by the node that serves it; a signature proves who said so, never
/// that it is so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Artefact {
    /// The model's public name, without quantisation: `smollm2-135m-instruct`. Lower case, no path.
    pub model: String,
    /// The quantisation, lower case: `q4_1`; `None` where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub quantisation: Option<String>,
    /// Digest of the weights' file or manifest; `None` where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub digest: Option<Digest>,
    /// The model server: `llama.cpp`, `ollama`, `openai`.
    pub engine: String,
    /// The server's own version or build, as it states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub engine_build: Option<String>,
}

impl Artefact {
    /// `model` or `model:quantisation`, the longest name that consumers may ask for.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.quantisation {
            Some(quantisation) => format!("{}:{quantisation}", self.model),
            None => self.model.clone(),
        }
    }

    /// Whether a consumer who asks for `wanted` means this artefact: `model`, `model:quantisation` or
    /// `model@sha256:…` (a prefix of at least 4 digits).
    #[must_use]
    pub fn answers_to(&self, wanted: &str) -> bool {
        if let Some((model, digest)) = wanted.split_once('@') {
            return model == self.model
                && digest.len() >= "sha256:".len() + 4
                && self.digest.is_some_and(|mine| mine.to_string().starts_with(digest));
        }
        wanted == self.model || wanted == self.name()
    }
}

/// What a service was *seen* to do in a live probe. Anything not seen is absent, never assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
pub struct Capabilities {
    /// Answers `/v1/chat/completions`.
    pub chat: bool,
    /// Answers `/v1/completions`.
    pub completions: bool,
    /// Answers `/v1/embeddings`.
    pub embeddings: bool,
    /// Streams server-sent events.
    pub streaming: bool,
    /// Stops generating when the connection closes.
    pub cancels: bool,
    /// Returns usage on a stream when asked.
    pub usage: bool,
    /// Returns token log-probabilities.
    pub logprobs: bool,
    /// Calls tools.
    pub tools: bool,
    /// Keeps to a JSON schema.
    pub json_schema: bool,
    /// Goes on with a partial answer.
    pub continuation: Continuation,
}

/// One service as a node offers it to a hub. Facts about the model only: no address, no path, no host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOffer {
    /// The node's own name for the service, unique within its offer.
    pub service: String,
    /// What it serves.
    pub artefact: Artefact,
    /// Requests it answers at once.
    pub slots: u32,
    /// Longest context, prompt and answer together, tokens.
    pub context: u32,
    /// What the host asks.
    pub price: Price,
    /// What it was seen to do.
    pub capabilities: Capabilities,
    /// Whether the model is loaded now.
    pub warm: bool,
    /// Measured time to load a cold model, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u32>,
    /// Whom the host answers with it; a node that does not say answers its circles.
    #[serde(default)]
    pub scope: Scope,
    /// Where it stands, where the host says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl ServiceOffer {
    /// The first limit that this offer breaks, in words for its node; `None` when it keeps all.
    #[must_use]
    pub fn breach(&self) -> Option<&'static str> {
        let artefact = &self.artefact;
        let names = [&self.service, &artefact.model, &artefact.engine];
        let optional = [&artefact.quantisation, &artefact.engine_build];
        if names.iter().any(|name| name.is_empty() || name.len() > MAX_NAME)
            || optional.iter().any(|name| name.as_ref().is_some_and(|name| name.len() > MAX_NAME))
        {
            return Some("a name is empty or longer than 256 bytes");
        }
        if artefact.model.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\@".contains(c)) {
            return Some("a model name holds a space, a slash, an @ or a control character");
        }
        if !(1..=MAX_SLOTS).contains(&self.slots) {
            return Some("slots must be 1 to 1024");
        }
        if !(1..=MAX_CONTEXT).contains(&self.context) {
            return Some("context must be 1 to 16,777,216 tokens");
        }
        if !(Price::ZERO..=Price::MAX).contains(&self.price) {
            return Some("the price is negative or over the highest allowed");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artefact() -> Artefact {
        Artefact {
            model: "smollm2-135m-instruct".into(),
            quantisation: Some("q4_1".into()),
            digest: Some(Digest([0xab; 32])),
            engine: "llama.cpp".into(),
            engine_build: None,
        }
    }

    #[test]
    fn an_artefact_answers_to_its_three_name_forms_only() {
        let it = artefact();
        for name in
            ["smollm2-135m-instruct", "smollm2-135m-instruct:q4_1", "smollm2-135m-instruct@sha256:abab"]
        {
            assert!(it.answers_to(name), "{name}");
        }
        for name in [
            "smollm2",
            "smollm2-135m-instruct:q8_0",
            "smollm2-135m-instruct@sha256:",
            "smollm2-135m-instruct@sha256:ab12",
            "other@sha256:abab",
        ] {
            assert!(!it.answers_to(name), "{name}");
        }
    }

    #[test]
    fn an_offer_past_a_limit_is_named() {
        let good = ServiceOffer {
            service: "s".into(),
            artefact: artefact(),
            slots: 1,
            context: 2048,
            price: Price(0),
            capabilities: Capabilities::default(),
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        };
        assert_eq!(good.breach(), None);
        assert!(ServiceOffer { slots: 0, ..good.clone() }.breach().is_some());
        assert!(ServiceOffer { context: u32::MAX, ..good.clone() }.breach().is_some());
        assert!(ServiceOffer { price: Price(-1), ..good.clone() }.breach().is_some());
        let path = Artefact { model: "/home/me/model.gguf".into(), ..artefact() };
        assert!(ServiceOffer { artefact: path, ..good }.breach().is_some());
    }
}
