//! A request for what comes after the beginning of an answer: from its text, as OpenAI's own fields allow, or from its token
//! ids, as a completion.
//!
//! Only plain text is gone on with, and only as a stream: what a schema, a tool call or log-probabilities would need of
//! the beginning is not there.

use std::borrow::Cow;
use std::fmt::Write as _;

use idlewatt_protocol::message::Endpoint;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Allowed;
use crate::{Call, ServerError};

/// Settings that mean the same to chats and to completions.
const SHARED: &[&str] = &[
    "temperature",
    "top_p",
    "stop",
    "stream",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
];

impl<'a> Allowed<'a> {
    /// Reads a call. Where its answer has begun, that text becomes the end of the prompt: a trailing message of the
    /// assistant's, or more of a completion's prompt.
    ///
    /// # Errors
    /// When the request is not allowed, or not one that is gone on with.
    pub(crate) fn continuing(call: Call<'a>) -> Result<Self, ServerError> {
        let mut allowed = Self::read(call.endpoint, call.body)?;
        let Some(begun) = call.begun else { return Ok(allowed) };
        let more = match call.endpoint {
            Endpoint::ChatCompletions => ("messages", allowed.messages_with(begun.text)),
            Endpoint::Completions => ("prompt", allowed.prompt_with(begun.text)),
            Endpoint::Embeddings => ("input", None),
        };
        let (name, Some(text)) = more else { return Err(ServerError::Continuation) };
        if !allowed.is_plain() {
            return Err(ServerError::Continuation);
        }
        allowed.set(name, text);
        allowed.continues = call.endpoint == Endpoint::ChatCompletions;
        Ok(allowed)
    }

    /// The request as a completion of its prompt and `ids`; of a chat, `prompt` is what its messages come to.
    ///
    /// # Errors
    /// When it is not one that is gone on with.
    pub(crate) fn after_ids(mut self, prompt: Option<&str>, ids: &[u32]) -> Result<Self, ServerError> {
        let start = match prompt {
            Some(prompt) => Some(Value::from(prompt).to_string()),
            None => self.prompt_parts(),
        };
        let Some(mut prompt) = start.filter(|_| self.is_plain()) else {
            return Err(ServerError::Continuation);
        };
        prompt.insert(0, '[');
        for id in ids {
            // Writing to a String cannot fail.
            let _ = write!(prompt, ",{id}");
        }
        prompt.push(']');
        self.fields.retain(|(name, _)| SHARED.contains(name));
        self.fields.push(("prompt", Cow::Owned(prompt)));
        self.endpoint = Endpoint::Completions;
        Ok(self)
    }

    /// The messages as they go to the server.
    pub(crate) fn messages(&self) -> Option<&str> {
        self.field("messages")
    }

    /// Whether it asks for a stream of nothing but text, of text alone.
    fn is_plain(&self) -> bool {
        let lacks = |name: &str| self.field(name).is_none_or(|value| matches!(value, "false" | "[]"));
        let as_text = self.field("response_format").is_none_or(|format| {
            serde_json::from_str::<Value>(format).is_ok_and(|format| format["type"] == "text")
        });
        // Messages are written anew, so that this is how an image begins and nothing else does.
        let images = self.messages().is_some_and(|it| it.contains(r#""type":"image_url","#));
        self.streaming && lacks("tools") && lacks("logprobs") && lacks("echo") && as_text && !images
    }

    /// `None` where the consumer's own beginning of the answer is not plain text.
    fn messages_with(&self, text: &str) -> Option<String> {
        let messages = self.messages()?;
        if !self.continues {
            let text = Value::from(text);
            let list = messages.strip_suffix(']')?;
            return Some(format!(r#"{list},{{"role":"assistant","content":{text}}}]"#));
        }
        let list: Vec<&RawValue> = serde_json::from_str(messages).ok()?;
        let (last, before) = list.split_last()?;
        let mut last: Value = serde_json::from_str(last.get()).ok()?;
        let begun = last.get("content")?.as_str().filter(|_| last.get("tool_calls").is_none())?;
        last["content"] = format!("{begun}{text}").into();
        let mut out = String::from("[");
        for message in before {
            let _ = write!(out, "{message},");
        }
        let _ = write!(out, "{last}]");
        Some(out)
    }

    fn prompt_with(&self, text: &str) -> Option<String> {
        let mut prompt = one_text(self.field("prompt")?)?;
        prompt.push_str(text);
        Some(Value::from(prompt).to_string())
    }

    /// The prompt as the beginning of a list of texts and ids, without its brackets.
    fn prompt_parts(&self) -> Option<String> {
        let prompt = self.field("prompt")?;
        if let Some(text) = one_text(prompt) {
            return Some(Value::from(text).to_string());
        }
        let ids: Vec<u32> = serde_json::from_str(prompt).ok()?;
        let texts: Vec<String> = ids.iter().map(u32::to_string).collect();
        Some(texts.join(",")).filter(|it| !it.is_empty())
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(it, _)| *it == name).map(|(_, text)| &**text)
    }

    fn set(&mut self, name: &'static str, text: String) {
        self.fields.retain(|(it, _)| *it != name);
        self.fields.push((name, Cow::Owned(text)));
    }
}

/// A prompt that is one text, alone or in a list.
fn one_text(prompt: &str) -> Option<String> {
    match serde_json::from_str(prompt).ok()? {
        Value::String(text) => Some(text),
        Value::Array(mut list) if list.len() == 1 => match list.pop()? {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Begun;

    fn chat(body: &str, text: &str) -> Result<Value, ServerError> {
        asked(Endpoint::ChatCompletions, body, text)
    }

    fn asked(endpoint: Endpoint, body: &str, text: &str) -> Result<Value, ServerError> {
        let call = Call { begun: Some(Begun { text, ids: &[] }), ..Call::new(endpoint, body.as_bytes(), 9) };
        let allowed = Allowed::continuing(call)?;
        Ok(serde_json::from_str(&allowed.write("m", 9, allowed.flags())).unwrap())
    }

    #[test]
    fn from_its_text_it_is_the_assistants_last_message() {
        let sent =
            chat(r#"{"messages":[{"role":"user","content":"a"}],"stream":true}"#, "say \"é\n").unwrap();
        assert_eq!(sent["messages"][1]["content"], "say \"é\n");
        assert_eq!(
            (&sent["messages"][1]["role"], &sent["messages"][0]["content"]),
            (&"assistant".into(), &"a".into())
        );
        assert_eq!((&sent["continue_final_message"], &sent["max_tokens"]), (&true.into(), &9.into()));
        let own = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"1 "}],"stream":true}"#;
        let sent = chat(own, "2").unwrap();
        assert_eq!(sent["messages"].as_array().unwrap().len(), 2);
        assert_eq!(sent["messages"][1]["content"], "1 2");
        let sent = asked(Endpoint::Completions, r#"{"prompt":["a\n"],"stream":true}"#, "b").unwrap();
        assert_eq!(sent["prompt"], "a\nb");
    }

    #[test]
    fn from_its_ids_it_is_a_completion_of_the_whole_prompt() {
        let body =
            br#"{"messages":[{"role":"user","content":"a"}],"stream":true,"seed":3,"top_logprobs":0,"n":1}"#;
        let allowed = Allowed::read(Endpoint::ChatCompletions, body).unwrap();
        let sent: Value =
            serde_json::from_str(&allowed.after_ids(Some("<|a|>\n"), &[5, 6]).unwrap().write("m", 9, ""))
                .unwrap();
        assert_eq!(sent["prompt"], serde_json::json!(["<|a|>\n", 5, 6]));
        assert_eq!((&sent["seed"], sent.get("messages"), sent.get("n")), (&3.into(), None, None));
        for (prompt, wanted) in [(r#""x""#, r#"["x",5]"#), ("[1,2]", "[1,2,5]"), (r#"["x"]"#, r#"["x",5]"#)] {
            let body = format!(r#"{{"prompt":{prompt},"stream":true}}"#);
            let allowed = Allowed::read(Endpoint::Completions, body.as_bytes()).unwrap();
            let sent = allowed.after_ids(None, &[5]).unwrap().write("m", 9, "");
            assert!(sent.contains(&format!(r#""prompt":{wanted}"#)), "{sent}");
        }
    }

    #[test]
    fn what_is_more_than_a_stream_of_text_is_not_gone_on_with() {
        for with in [
            r#""stream":false"#,
            r#""stream":true,"tools":[{"type":"function"}]"#,
            r#""stream":true,"logprobs":true"#,
            r#""stream":true,"response_format":{"type":"json_object"}"#,
        ] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],{with}}}"#);
            assert_eq!(chat(&body, "x"), Err(ServerError::Continuation), "{with}");
            let allowed = Allowed::read(Endpoint::ChatCompletions, body.as_bytes()).unwrap();
            assert!(allowed.after_ids(Some(""), &[1]).is_err());
        }
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}],"stream":true}"#;
        assert!(chat(image, "x").is_err());
        for prompt in [r#"["a","b"]"#, "[[1]]", "[]"] {
            let body = format!(r#"{{"prompt":{prompt},"stream":true}}"#);
            assert!(asked(Endpoint::Completions, &body, "x").is_err(), "{prompt}");
            let allowed = Allowed::read(Endpoint::Completions, body.as_bytes()).unwrap();
            assert!(allowed.after_ids(None, &[1]).is_err(), "{prompt}");
        }
        assert!(chat(r#"{"messages":[{"role":"user","content":"the text \"type\":\"image_url\", is no image"}],"stream":true}"#, "x").is_ok());
    }
}
