//! Token usage, and the hub's reading of an answer's bytes.
//!
//! A cancelled answer is billed at the byte offset that the hub delivered. The node knows the server's own counts at each
//! of its pieces, because it writes them anew from what the server said; the hub reads the pieces as they came with
//! [`Reading`], to bound what the node states and to count where no statement comes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Where a token count comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The model server said so.
    Server,
    /// Counted from the pieces of the stream.
    Counted,
    /// Derived from byte lengths.
    Estimated,
}

/// Tokens of one request or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: u32,
    /// Completion tokens.
    pub completion: u32,
    /// Where the counts come from; the weaker of the two.
    pub source: UsageSource,
}

impl Usage {
    /// Nothing was used.
    pub const NONE: Self = Self { prompt: 0, completion: 0, source: UsageSource::Counted };

    /// All tokens.
    #[must_use]
    pub fn total(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.completion)
    }
}

/// The `usage` object of OpenAI's answers, as servers write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerUsage {
    /// Prompt tokens.
    #[serde(default)]
    pub prompt_tokens: u32,
    /// Completion tokens; embeddings have none.
    #[serde(default)]
    pub completion_tokens: u32,
}

/// llama.cpp's `timings`, present in each chunk when `timings_per_token` is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct ServerTimings {
    /// Prompt tokens taken from the cache.
    #[serde(default)]
    pub cache_n: u32,
    /// Prompt tokens computed.
    #[serde(default)]
    pub prompt_n: u32,
    /// Time for them, milliseconds.
    #[serde(default)]
    pub prompt_ms: f64,
    /// Tokens generated so far.
    #[serde(default)]
    pub predicted_n: u32,
    /// Time for them, milliseconds.
    #[serde(default)]
    pub predicted_ms: f64,
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<ServerUsage>,
    #[serde(default)]
    timings: Option<ServerTimings>,
    #[serde(default, rename = "iw_ids")]
    ids: Option<Vec<u32>>,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Said<'a>>,
    #[serde(borrow, default)]
    message: Option<Said<'a>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(default)]
    tool_calls: Option<serde::de::IgnoredAny>,
}

/// What one piece of an answer (one event of a stream, or one whole JSON body) says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The content it adds, all choices after one another. What the answer's commitment covers.
    pub text: String,
    /// Whether it carries anything generated: content, reasoning or a tool call. One such event counts as a token.
    pub generated: bool,
    /// Whether it carries reasoning or tool calls: tokens that `text` does not show.
    pub hidden: bool,
    /// Usage, where present.
    pub usage: Option<ServerUsage>,
    /// llama.cpp's timings, where present.
    pub timings: Option<ServerTimings>,
    /// The ids of `text` as its node tells them, see [`crate::continuation::IDS_MEMBER`].
    pub ids: Option<Vec<u32>>,
    /// Why the answer ended, where it did.
    pub finish_reason: Option<String>,
    /// Whether it is an error object.
    pub error: bool,
}

impl Reading {
    /// Reads one JSON object; `None` when it is not one.
    #[must_use]
    pub fn of(json: &[u8]) -> Option<Self> {
        let piece: Piece<'_> = serde_json::from_slice(json).ok()?;
        let mut reading = Self {
            usage: piece.usage,
            timings: piece.timings,
            ids: piece.ids,
            error: piece.error.is_some(),
            ..Self::default()
        };
        for choice in piece.choices {
            let said = choice.delta.or(choice.message);
            if let Some(said) = said {
                reading.hidden |=
                    said.reasoning_content.is_some_and(|text| !text.is_empty()) || said.tool_calls.is_some();
                if let Some(content) = said.content {
                    reading.text.push_str(&content);
                }
            }
            if let Some(text) = choice.text {
                reading.text.push_str(&text);
            }
            if let Some(reason) = choice.finish_reason {
                reading.finish_reason = Some(reason.into_owned());
            }
        }
        reading.generated = reading.hidden || !reading.text.is_empty();
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_chat_deltas_completions_and_whole_answers() {
        let delta =
            Reading::of(br#"{"choices":[{"delta":{"content":"Hi \u00e9"},"finish_reason":null}]}"#).unwrap();
        assert_eq!((delta.text.as_str(), delta.generated), ("Hi é", true));
        let role = Reading::of(br#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#).unwrap();
        assert!(!role.generated);
        let text = Reading::of(br#"{"choices":[{"text":"x","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#).unwrap();
        assert_eq!((text.text.as_str(), text.finish_reason.as_deref()), ("x", Some("stop")));
        assert_eq!(text.usage.map(|u| (u.prompt_tokens, u.completion_tokens)), Some((3, 1)));
        let whole = Reading::of(br#"{"choices":[{"message":{"content":"all of it"}}]}"#).unwrap();
        assert_eq!(whole.text, "all of it");
        assert!(Reading::of(br#"{"error":{"message":"no"}}"#).unwrap().error);
        assert!(!Reading::of(br#"{"error":null}"#).unwrap().error);
        assert_eq!(Reading::of(b"[DONE]"), None);
    }

    #[test]
    fn reasoning_and_tool_calls_count_as_generated_but_are_not_content() {
        let thought = Reading::of(br#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#).unwrap();
        assert!(thought.generated && thought.hidden && thought.text.is_empty());
        let call = Reading::of(br#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#).unwrap();
        assert!(call.generated && call.text.is_empty());
    }
}
