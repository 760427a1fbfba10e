//! What a request needs of a service, and what a service lacks.

use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::{Capabilities, Continuation};

/// What an endpoint needs of a service.
#[must_use]
pub fn needs_of(endpoint: Endpoint) -> Capabilities {
    let mut needs = Capabilities::default();
    match endpoint {
        Endpoint::ChatCompletions => needs.chat = true,
        Endpoint::Completions => needs.completions = true,
        Endpoint::Embeddings => needs.embeddings = true,
    }
    needs
}

/// Each capability in words.
const WORDS: [&str; 11] = [
    "chat completions",
    "text completions",
    "embeddings",
    "streaming",
    "cancelling",
    "usage counts",
    "logprobs",
    "tools",
    "a JSON schema",
    "going on with a partial answer",
    "going on with a partial answer by its tokens",
];

/// One bit each, in the order of [`WORDS`].
pub(super) fn bits(it: Capabilities) -> u16 {
    let flags = [
        it.chat,
        it.completions,
        it.embeddings,
        it.streaming,
        it.cancels,
        it.usage,
        it.logprobs,
        it.tools,
        it.json_schema,
        it.continuation >= Continuation::Text,
        it.continuation >= Continuation::Ids,
    ];
    flags.into_iter().zip(0..).fold(0, |bits, (flag, at)| bits | u16::from(flag) << at)
}

/// The first of these bits in words.
pub(super) fn lacks(missing: u16) -> Option<&'static str> {
    WORDS.get(missing.trailing_zeros() as usize).copied()
}

/// What at least one of two was seen to do.
pub(super) fn union(a: Capabilities, b: Capabilities) -> Capabilities {
    Capabilities {
        chat: a.chat || b.chat,
        completions: a.completions || b.completions,
        embeddings: a.embeddings || b.embeddings,
        streaming: a.streaming || b.streaming,
        cancels: a.cancels || b.cancels,
        usage: a.usage || b.usage,
        logprobs: a.logprobs || b.logprobs,
        tools: a.tools || b.tools,
        json_schema: a.json_schema || b.json_schema,
        continuation: a.continuation.max(b.continuation),
    }
}
