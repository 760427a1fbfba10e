//! The last events of a stream, as the hub writes them where no node does.

use bytes::{Bytes, BytesMut};
use idlewatt_protocol::Usage;
use idlewatt_protocol::message::Endpoint;
use serde_json::{Value, json};

use super::pin::Pins;

/// An answer ends for this reason, with this usage where it is wanted.
pub(super) fn ending(pins: &Pins, endpoint: Endpoint, reason: Option<&str>, usage: Option<Usage>) -> Bytes {
    let mut out = BytesMut::new();
    if let Some(reason) = reason {
        let mut choice = json!({ "index": 0, "finish_reason": reason });
        match endpoint {
            Endpoint::ChatCompletions => choice["delta"] = json!({}),
            Endpoint::Completions | Endpoint::Embeddings => choice["text"] = json!(""),
        }
        event(pins, &json!({ "object": object(endpoint), "choices": [choice] }), &mut out);
    }
    if let Some(usage) = usage {
        write_usage(pins, endpoint, usage, &mut out);
    }
    done(&mut out);
    out.freeze()
}

/// The event with no choices that carries the usage.
pub(super) fn write_usage(pins: &Pins, endpoint: Endpoint, usage: Usage, out: &mut BytesMut) {
    let usage = json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total(),
    });
    event(pins, &json!({ "object": object(endpoint), "choices": [], "usage": usage }), out);
}

/// What says that nothing is missing.
pub(super) fn done(out: &mut BytesMut) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

fn object(endpoint: Endpoint) -> &'static str {
    if endpoint == Endpoint::ChatCompletions { "chat.completion.chunk" } else { "text_completion" }
}

fn event(pins: &Pins, json: &Value, out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    // An object that is written here is one.
    let _ = pins.write(json.to_string().as_bytes(), true, out);
    out.extend_from_slice(b"\n\n");
}
