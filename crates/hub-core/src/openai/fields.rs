//! The three lists of fields, by endpoint. What is not listed is rejected by name.

use std::borrow::Cow;

use idlewatt_protocol::message::Endpoint;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ApiError, messages};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// Goes on as it came, when it is of this kind.
    Forward(Kind),
    /// Only the value 1, which goes without saying.
    OnlyOne,
    /// Accepted and named in `x-idlewatt-ignored`.
    Ignore,
    /// A 400 with this reason.
    Reject(&'static str),
}

/// What a forwarded value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A number in this range.
    Number(f64, f64),
    /// A whole number in this range.
    Whole(i64, i64),
    /// `true` or `false`.
    Flag,
    /// An object.
    Object,
    /// A list.
    List,
    /// A string or an object.
    Choice,
    /// A string, or a list of at most 16 strings.
    Stop,
    /// `text`, `json_object` or `json_schema`.
    Format,
    /// The conversation.
    Messages,
    /// One prompt: a string, a list of one, or a list of tokens.
    Prompt,
    /// What to embed: a string, or a list.
    Input,
    /// `float` or `base64`.
    Encoding,
}

use Fate::{Forward, Ignore, OnlyOne, Reject};

const SAMPLING: [(&str, Fate); 7] = [
    ("temperature", Forward(Kind::Number(0.0, 2.0))),
    ("top_p", Forward(Kind::Number(0.0, 1.0))),
    ("presence_penalty", Forward(Kind::Number(-2.0, 2.0))),
    ("frequency_penalty", Forward(Kind::Number(-2.0, 2.0))),
    ("seed", Forward(Kind::Whole(i64::MIN, i64::MAX))),
    ("stop", Forward(Kind::Stop)),
    ("logit_bias", Forward(Kind::Object)),
];

const CHAT: &[(&str, Fate)] = &[
    ("messages", Forward(Kind::Messages)),
    SAMPLING[0],
    SAMPLING[1],
    SAMPLING[2],
    SAMPLING[3],
    SAMPLING[4],
    SAMPLING[5],
    SAMPLING[6],
    ("stream", Forward(Kind::Flag)),
    ("logprobs", Forward(Kind::Flag)),
    ("top_logprobs", Forward(Kind::Whole(0, 20))),
    ("response_format", Forward(Kind::Format)),
    ("tools", Forward(Kind::List)),
    ("tool_choice", Forward(Kind::Choice)),
    ("parallel_tool_calls", Forward(Kind::Flag)),
    ("n", OnlyOne),
    ("user", Ignore),
    ("metadata", Ignore),
    ("store", Ignore),
    ("service_tier", Ignore),
    ("safety_identifier", Ignore),
    ("prompt_cache_key", Ignore),
    ("prompt_cache_retention", Ignore),
    ("reasoning_effort", Ignore),
    ("verbosity", Ignore),
    ("prediction", Ignore),
    ("audio", Reject("no service here answers with sound")),
    ("modalities", Reject("answers here are text: leave it out")),
    ("functions", Reject("it is deprecated: use `tools`")),
    ("function_call", Reject("it is deprecated: use `tool_choice`")),
    ("web_search_options", Reject("no service here searches the web")),
];

const COMPLETIONS: &[(&str, Fate)] = &[
    ("prompt", Forward(Kind::Prompt)),
    SAMPLING[0],
    SAMPLING[1],
    SAMPLING[2],
    SAMPLING[3],
    SAMPLING[4],
    SAMPLING[5],
    SAMPLING[6],
    ("stream", Forward(Kind::Flag)),
    ("logprobs", Forward(Kind::Whole(0, 20))),
    ("echo", Forward(Kind::Flag)),
    ("n", OnlyOne),
    ("best_of", OnlyOne),
    ("user", Ignore),
    ("suffix", Reject("no service here fills in the middle")),
];

const EMBEDDINGS: &[(&str, Fate)] = &[
    ("input", Forward(Kind::Input)),
    ("encoding_format", Forward(Kind::Encoding)),
    ("dimensions", Forward(Kind::Whole(1, 1 << 20))),
    ("user", Ignore),
    ("stream", Reject("embeddings are not streamed")),
];

/// The lists of an endpoint, in the order in which fields go on.
pub(super) fn of(endpoint: Endpoint) -> &'static [(&'static str, Fate)] {
    match endpoint {
        Endpoint::ChatCompletions => CHAT,
        Endpoint::Completions => COMPLETIONS,
        Endpoint::Embeddings => EMBEDDINGS,
    }
}

/// The field that an endpoint cannot do without.
pub(super) fn needed(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ChatCompletions => "messages",
        Endpoint::Completions => "prompt",
        Endpoint::Embeddings => "input",
    }
}

impl Kind {
    /// Whether the value is of this kind.
    pub(super) fn check(self, name: &str, raw: &RawValue) -> Result<(), ApiError> {
        let text = raw.get();
        let first = text.as_bytes().first().copied();
        let (good, must): (bool, Cow<'static, str>) = match self {
            Self::Number(least, most) => (
                text.parse::<f64>().is_ok_and(|value| (least..=most).contains(&value)),
                format!("it must be a number from {least} to {most}").into(),
            ),
            Self::Whole(i64::MIN, _) => (text.parse::<i64>().is_ok(), "it must be a whole number".into()),
            Self::Whole(least, most) => (
                text.parse::<i64>().is_ok_and(|value| (least..=most).contains(&value)),
                format!("it must be a whole number from {least} to {most}").into(),
            ),
            Self::Flag => (matches!(text, "true" | "false"), "it must be true or false".into()),
            Self::Object => (first == Some(b'{'), "it must be an object".into()),
            Self::List => (first == Some(b'['), "it must be a list".into()),
            Self::Choice => (matches!(first, Some(b'"' | b'{')), "it must be a string or an object".into()),
            Self::Stop => {
                let list = serde_json::from_str::<Vec<Cow<'_, str>>>(text);
                let good = first == Some(b'"') || list.is_ok_and(|list| list.len() <= 16);
                (good, "it must be a string or a list of at most 16 strings".into())
            }
            Self::Format => (
                matches!(format_type(text).as_deref(), Some("text" | "json_object" | "json_schema")),
                "its `type` must be text, json_object or json_schema".into(),
            ),
            Self::Messages => return messages::check(raw),
            Self::Prompt => {
                let one = serde_json::from_str::<Vec<Cow<'_, str>>>(text).is_ok_and(|list| list.len() == 1);
                let good = first == Some(b'"') || one || is_tokens(text);
                (good, "it must be one prompt: a string, or a list of tokens".into())
            }
            Self::Input => {
                let texts = serde_json::from_str::<Vec<Cow<'_, str>>>(text);
                let good =
                    first == Some(b'"') || texts.is_ok_and(|texts| !texts.is_empty()) || is_tokens(text);
                (good, "it must be a string, a list of strings, or a list of tokens".into())
            }
            Self::Encoding => {
                (matches!(text, "\"float\"" | "\"base64\""), "it must be float or base64".into())
            }
        };
        if good { Ok(()) } else { Err(ApiError::invalid(name, &must)) }
    }

    /// Whether a `response_format` needs a service that keeps to a schema.
    pub(super) fn format_is_constrained(text: &str) -> bool {
        format_type(text).as_deref() != Some("text")
    }
}

/// The stop strings of a checked field; one that is empty stops nothing.
pub(super) fn stops(raw: &RawValue) -> Vec<String> {
    let mut stops: Vec<String> = match serde_json::from_str(raw.get()) {
        Ok(one) => vec![one],
        Err(_) => serde_json::from_str(raw.get()).unwrap_or_default(),
    };
    stops.retain(|stop| !stop.is_empty());
    stops
}

pub(super) fn is_tokens(text: &str) -> bool {
    serde_json::from_str::<Vec<u32>>(text).is_ok_and(|tokens| !tokens.is_empty())
}

fn format_type(text: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Format<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    serde_json::from_str::<Format<'_>>(text).ok().map(|format| format.kind)
}
