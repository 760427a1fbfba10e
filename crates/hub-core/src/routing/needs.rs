//! What a request needs of a service, and what a service lacks.

use idlewatt_protocol::Capabilities;
use idlewatt_protocol::message::Endpoint;

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

fn pairs(needs: Capabilities, has: Capabilities) -> [(&'static str, bool, bool); 9] {
    [
        ("chat completions", needs.chat, has.chat),
        ("text completions", needs.completions, has.completions),
        ("embeddings", needs.embeddings, has.embeddings),
        ("streaming", needs.streaming, has.streaming),
        ("cancelling", needs.cancels, has.cancels),
        ("usage counts", needs.usage, has.usage),
        ("logprobs", needs.logprobs, has.logprobs),
        ("tools", needs.tools, has.tools),
        ("a JSON schema", needs.json_schema, has.json_schema),
    ]
}

/// The first thing that is needed and was not seen, in words.
pub(super) fn lacks(needs: Capabilities, has: Capabilities) -> Option<&'static str> {
    pairs(needs, has).into_iter().find(|(_, needs, has)| *needs && !*has).map(|(what, ..)| what)
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
