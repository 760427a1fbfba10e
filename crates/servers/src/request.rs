//! What of a network's request reaches a model server: fields on an allow-list, and nothing else.
//!
//! The hub checks the same; a node does not take its word for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use idlewatt_protocol::limits::MAX_REQUEST_BODY;
use idlewatt_protocol::message::Endpoint;
use serde_json::value::RawValue;

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Over 4 MiB.
    #[error("the request is longer than 4 MiB")]
    Long,
    /// Not a JSON object.
    #[error("the request is not a JSON object")]
    Json,
    /// A field that the endpoint needs is not there.
    #[error("the request has no {0}")]
    Missing(&'static str),
    /// A field has a value that is not allowed.
    #[error("the request's {0} is not allowed here")]
    Value(&'static str),
}

const CHAT: &[&str] = &[
    "messages",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "n",
];
const COMPLETIONS: &[&str] = &[
    "prompt",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "echo",
    "n",
];
const EMBEDDINGS: &[&str] = &["input", "encoding_format", "dimensions"];

/// A request of which only the allowed fields are left, each as it came.
#[derive(Debug)]
pub(crate) struct Allowed<'a> {
    endpoint: Endpoint,
    fields: Vec<(&'static str, &'a RawValue)>,
    /// The smallest of the token limits that the request names.
    limit: Option<u32>,
    /// Whether it asks for a stream.
    pub(crate) streaming: bool,
}

impl<'a> Allowed<'a> {
    /// Reads a body as the network sent it.
    pub(crate) fn read(endpoint: Endpoint, body: &'a [u8]) -> Result<Self, RequestError> {
        if body.len() > MAX_REQUEST_BODY {
            return Err(RequestError::Long);
        }
        let mut all: HashMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_slice(body).map_err(|_| RequestError::Json)?;
        let (names, needed) = match endpoint {
            Endpoint::ChatCompletions => (CHAT, "messages"),
            Endpoint::Completions => (COMPLETIONS, "prompt"),
            Endpoint::Embeddings => (EMBEDDINGS, "input"),
        };
        let limit = ["max_tokens", "max_completion_tokens"]
            .iter()
            .filter_map(|name| all.get(*name).filter(|raw| raw.get() != "null"))
            .map(|raw| raw.get().parse::<u32>().map_err(|_| RequestError::Value("max_tokens")))
            .try_fold(None, |least: Option<u32>, limit| {
                limit.map(|limit| Some(least.map_or(limit, |least| least.min(limit))))
            })?;
        let fields: Vec<_> = names
            .iter()
            .filter_map(|name| all.remove(*name).map(|raw| (*name, raw)))
            .filter(|(_, raw)| raw.get() != "null")
            .collect();
        let streaming = match fields.iter().find(|(name, _)| *name == "stream").map(|(_, raw)| raw.get()) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(RequestError::Value("stream")),
        };
        if fields.iter().any(|(name, raw)| *name == "n" && raw.get() != "1") {
            return Err(RequestError::Value("n"));
        }
        let Some((_, content)) = fields.iter().find(|(name, _)| *name == needed) else {
            return Err(RequestError::Missing(needed));
        };
        if endpoint == Endpoint::ChatCompletions {
            check_messages(content)?;
        }
        Ok(Self { endpoint, fields, limit, streaming })
    }

    /// The body for the server: its own name of the model, the clamped limit, usage on streams, and `dialect` (a
    /// server's own fields, as JSON without braces).
    pub(crate) fn write(&self, model_id: &str, max_tokens: u32, dialect: &str) -> String {
        let length: usize = self.fields.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum();
        let mut out = String::with_capacity(length + model_id.len() + dialect.len() + 120);
        out.push_str("{\"model\":");
        out.push_str(&serde_json::Value::from(model_id).to_string());
        for (name, raw) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(out, ",\"{name}\":{}", raw.get());
        }
        if self.endpoint != Endpoint::Embeddings {
            let limit = self.limit.map_or(max_tokens, |limit| limit.min(max_tokens));
            let _ = write!(out, ",\"max_tokens\":{limit}");
            if self.streaming {
                out.push_str(",\"stream_options\":{\"include_usage\":true}");
            }
            out.push_str(dialect);
        }
        out.push('}');
        out
    }

    /// Bytes of what is asked, without the settings around it.
    pub(crate) fn prompt_bytes(&self) -> usize {
        self.fields
            .iter()
            .filter(|(name, _)| matches!(*name, "messages" | "prompt" | "input" | "tools"))
            .map(|(_, raw)| raw.get().len())
            .sum()
    }
}

/// An image by address would make a stranger's model server fetch it; a path would make it read the host's files. Only
/// text, and images that are in the request themselves, pass.
fn check_messages(messages: &RawValue) -> Result<(), RequestError> {
    use serde_json::Value;
    let bad = RequestError::Value("messages");
    let messages: Vec<HashMap<String, Value>> = serde_json::from_str(messages.get()).map_err(|_| bad)?;
    let parts = messages.iter().filter_map(|message| message.get("content")?.as_array()).flatten();
    for part in parts {
        let allowed = match part.get("type").and_then(Value::as_str) {
            Some("text" | "refusal") => true,
            Some("image_url") => part
                .pointer("/image_url/url")
                .and_then(Value::as_str)
                .is_some_and(|url| url.starts_with("data:")),
            _ => false,
        };
        if !allowed {
            return Err(bad);
        }
    }
    if messages.is_empty() { Err(RequestError::Missing("messages")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<String, RequestError> {
        Allowed::read(Endpoint::ChatCompletions, body.as_bytes())
            .map(|allowed| allowed.write("its name", 10, ",\"own\":true"))
    }

    #[test]
    fn only_listed_fields_pass_and_the_model_is_the_servers_own() {
        let sent = chat(
            r#"{"model":"m","messages":[{"role":"user","content":"a \u00e9"}],"slot_id":3,"cache_prompt":false,"temperature":0}"#,
        );
        assert_eq!(
            sent.unwrap(),
            r#"{"model":"its name","messages":[{"role":"user","content":"a \u00e9"}],"temperature":0,"max_tokens":10,"own":true}"#
        );
    }

    #[test]
    fn the_smallest_token_limit_wins() {
        let with = |limits: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"a"}}]{limits}}}"#);
            let sent: serde_json::Value = serde_json::from_str(&chat(&body).unwrap()).unwrap();
            sent["max_tokens"].as_u64().unwrap()
        };
        assert_eq!(with(""), 10);
        assert_eq!(with(r#","max_tokens":4"#), 4);
        assert_eq!(with(r#","max_tokens":400"#), 10);
        assert_eq!(with(r#","max_tokens":9,"max_completion_tokens":3"#), 3);
        assert_eq!(with(r#","max_tokens":null"#), 10);
        assert_eq!(chat(r#"{"messages":[{}],"max_tokens":-1}"#), Err(RequestError::Value("max_tokens")));
    }

    #[test]
    fn a_stream_always_asks_for_usage() {
        let body = r#"{"messages":[{"role":"user","content":"a"}],"stream":true,"stream_options":{"include_usage":false}}"#;
        assert!(
            chat(body)
                .unwrap()
                .contains(r#""stream":true,"max_tokens":10,"stream_options":{"include_usage":true}"#)
        );
    }

    #[test]
    fn nothing_makes_the_server_fetch_or_read() {
        for part in [
            r#"{"type":"image_url","image_url":{"url":"http://10.0.0.1/x"}}"#,
            r#"{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}"#,
            r#"{"type":"input_audio","input_audio":{}}"#,
            r#"{"type":"file","file":{}}"#,
            "7",
        ] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            assert_eq!(chat(&body), Err(RequestError::Value("messages")), "{part}");
        }
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]}"#;
        assert!(chat(image).is_ok());
    }

    #[test]
    fn what_is_no_request_is_named() {
        assert_eq!(chat("[1]"), Err(RequestError::Json));
        assert_eq!(chat("{}"), Err(RequestError::Missing("messages")));
        assert_eq!(chat(r#"{"messages":[{}],"stream":"yes"}"#), Err(RequestError::Value("stream")));
        assert_eq!(chat(r#"{"messages":[{}],"n":2}"#), Err(RequestError::Value("n")));
        assert!(Allowed::read(Endpoint::Embeddings, br#"{"input":"x"}"#).is_ok());
        assert_eq!(
            Allowed::read(Endpoint::Embeddings, b"{}").map(|_| ()),
            Err(RequestError::Missing("input"))
        );
    }
}
