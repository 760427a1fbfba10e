//! What of a network's request reaches a model server: fields on an allow-list, and nothing else.
//!
//! The hub checks the same; a node does not take its word for it. How an answer that has begun is asked to go on:
//! [`continuing`].

mod continuing;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use idlewatt_protocol::limits::MAX_REQUEST_BODY;
use idlewatt_protocol::message::Endpoint;
use serde::Deserialize;
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

/// A token of a chat is seldom shorter than this, so a prompt over `context × 3` bytes is surely at risk of being cut.
const BYTES_A_TOKEN: usize = 3;

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
    fields: Vec<(&'static str, Cow<'a, str>)>,
    /// The smallest of the token limits that the request names.
    limit: Option<u32>,
    /// Whether it asks for a stream.
    pub(crate) streaming: bool,
    /// Whether the last message is the assistant's: an answer to be continued.
    continues: bool,
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
        let mut fields: Vec<(&'static str, Cow<'a, str>)> = names
            .iter()
            .filter_map(|name| all.remove(*name).map(|raw| (*name, Cow::Borrowed(raw.get()))))
            .filter(|(_, text)| text != "null")
            .collect();
        let streaming = match fields.iter().find(|(name, _)| *name == "stream").map(|(_, text)| &**text) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(RequestError::Value("stream")),
        };
        if fields.iter().any(|(name, text)| *name == "n" && text != "1") {
            return Err(RequestError::Value("n"));
        }
        let Some((_, content)) = fields.iter_mut().find(|(name, _)| *name == needed) else {
            return Err(RequestError::Missing(needed));
        };
        let mut continues = false;
        if endpoint == Endpoint::ChatCompletions {
            let (text, last_role) = messages(content)?;
            (*content, continues) = (Cow::Owned(text), last_role.as_deref() == Some("\"assistant\""));
        }
        Ok(Self { endpoint, fields, limit, streaming, continues })
    }

    /// The body for the server: its own name of the model, the clamped limit, usage on streams, and `dialect` (a
    /// server's own fields, as JSON without braces).
    pub(crate) fn write(&self, model_id: &str, max_tokens: u32, dialect: &str) -> String {
        let length: usize = self.fields.iter().map(|(name, text)| name.len() + text.len() + 4).sum();
        let mut out = String::with_capacity(length + model_id.len() + dialect.len() + 120);
        out.push_str("{\"model\":");
        out.push_str(&serde_json::Value::from(model_id).to_string());
        for (name, text) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(out, ",\"{name}\":{text}");
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

    /// The fields with which vLLM, `SGLang` and `TabbyAPI` go on with the assistant's last message instead of answering it.
    pub(crate) fn flags(&self) -> &'static str {
        if self.continues { ",\"continue_final_message\":true,\"add_generation_prompt\":false" } else { "" }
    }

    /// Whether what is asked surely fits a context of so many tokens, for servers that cut what does not without a word.
    pub(crate) fn fits(&self, context: Option<u32>) -> bool {
        let asked = self.fields.iter().filter(|it| matches!(it.0, "messages" | "prompt" | "input" | "tools"));
        let bytes: usize = asked.map(|(_, text)| text.len()).sum();
        context.is_none_or(|context| bytes <= context as usize * BYTES_A_TOKEN)
    }
}

/// What of a message reaches the server, each field as it came.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_call_id: Option<&'a RawValue>,
}

/// What of a part of a message reaches the server.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    image_url: Option<Image<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    url: &'a RawValue,
}

/// Messages written anew with nothing but what is known in them. An image by address would make a stranger's model
/// server fetch it, a path would make it read the host's files, and what a server makes of a field that it was never
/// meant to get, nobody knows: only text, and images that are in the request themselves, pass. With the role of the last
/// one, as it is written.
fn messages(messages: &str) -> Result<(String, Option<String>), RequestError> {
    let bad = RequestError::Value("messages");
    let list: Vec<Message<'_>> = serde_json::from_str(messages).map_err(|_| bad)?;
    if list.is_empty() {
        return Err(RequestError::Missing("messages"));
    }
    let mut out = String::with_capacity(messages.len());
    for (at, message) in list.iter().enumerate() {
        out.push(if at == 0 { '[' } else { ',' });
        let content = message.content.map(|raw| content(raw.get())).transpose()?;
        object(
            &mut out,
            &[
                ("role", message.role.map(RawValue::get)),
                ("name", message.name.map(RawValue::get)),
                ("content", content.as_deref()),
                ("reasoning_content", message.reasoning_content.map(RawValue::get)),
                ("refusal", message.refusal.map(RawValue::get)),
                ("tool_calls", message.tool_calls.map(RawValue::get)),
                ("tool_call_id", message.tool_call_id.map(RawValue::get)),
            ],
        );
    }
    out.push(']');
    let last_role = list.last().and_then(|it| it.role).map(|role| role.get().to_owned());
    Ok((out, last_role))
}

fn content(text: &str) -> Result<Cow<'_, str>, RequestError> {
    let bad = RequestError::Value("messages");
    match text.as_bytes().first() {
        Some(b'"' | b'n') => return Ok(Cow::Borrowed(text)),
        Some(b'[') => {}
        _ => return Err(bad),
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(text).map_err(|_| bad)?;
    let mut out = String::from("[");
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let (name, value) = match &*part.kind {
            "text" => ("text", part.text.ok_or(bad)?),
            "refusal" => ("refusal", part.refusal.ok_or(bad)?),
            "image_url" => {
                let url = part.image_url.as_ref().map(|image| image.url).ok_or(bad)?;
                if !url.get().starts_with("\"data:") {
                    return Err(bad);
                }
                let _ = write!(out, r#"{{"type":"image_url","image_url":{{"url":{url}}}}}"#);
                continue;
            }
            _ => return Err(bad),
        };
        let _ = write!(out, r#"{{"type":"{name}","{name}":{value}}}"#);
    }
    out.push(']');
    Ok(Cow::Owned(out))
}

fn object(out: &mut String, fields: &[(&str, Option<&str>)]) {
    let mut before = '{';
    for (name, value) in fields.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{before}\"{name}\":{value}");
        before = ',';
    }
    out.push_str(if before == '{' { "{}" } else { "}" });
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
            r#"{"image_url":{"url":"http://10.0.0.1/x"}}"#,
            r#"{"type":"image_url","image_url":"http://10.0.0.1/x"}"#,
            r#"{"type":"image_url","image_url":{"url":"data:,","url":"http://10.0.0.1/x"}}"#,
            "7",
        ] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            assert_eq!(chat(&body), Err(RequestError::Value("messages")), "{part}");
        }
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]}"#;
        assert!(chat(image).is_ok());
    }

    #[test]
    fn of_messages_and_parts_too_only_what_is_known_passes() {
        let body = r#"{"messages":[
            {"audio":{"id":"x"},"role":"user","content":[
                {"type":"text","text":"a","image_url":{"url":"http://10.0.0.1/x"},"video_url":"http://10.0.0.1/x"},
                {"type":"image_url","image_url":{"url":"data:,b","URL":"http://10.0.0.1/x"}}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},
            {}]}"#;
        assert_eq!(
            chat(body).unwrap(),
            concat!(
                r#"{"model":"its name","messages":[{"role":"user","content":[{"type":"text","text":"a"},"#,
                r#"{"type":"image_url","image_url":{"url":"data:,b"}}]},"#,
                r#"{"role":"assistant","tool_calls":[{"id":"1"}]},{}],"max_tokens":10,"own":true}"#
            )
        );
        assert_eq!(
            chat(r#"{"messages":[{"role":"user","content":{}}]}"#),
            Err(RequestError::Value("messages"))
        );
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
