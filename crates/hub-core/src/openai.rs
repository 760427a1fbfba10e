//! OpenAI requests, as far as a hub cares: is it one, what does it need, what may it cost, and what of it goes on.
//!
//! Every field is on one of three lists ([`fields`]): forwarded as it came, accepted but ignored (and named in
//! `x-idlewatt-ignored`, because real clients send them), or rejected with a 400 that names it. What is forwarded keeps
//! its bytes; nothing that a consumer sends reaches a node unread.
//!
//! Not here: HTTP, routing, and the node's own check, which does not take the hub's word.

mod error;
mod fields;
mod messages;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use idlewatt_protocol::limits::{
    DEFAULT_MAX_TOKENS, MAX_CONTEXT, MAX_NAME, MAX_REQUEST_BODY, TEMPLATE_ALLOWANCE,
};
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::{Capabilities, MicroCredits, Price};
use serde_json::value::RawValue;

use crate::routing::{Fingerprints, Prefix, needs_of};
use crate::session::Most;
use fields::{Fate, Kind};

pub use error::ApiError;

/// Bytes of a body that make about one token, where only a guess of what is left of the context is wanted.
const BYTES_A_TOKEN: usize = 4;

/// A request that may be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The model as the consumer names it: `model`, `model:quantisation` or `model@sha256:…`.
    pub model: String,
    /// Whether the consumer wants a stream.
    pub stream: bool,
    /// Whether the consumer wants the usage chunk at the end of it.
    pub include_usage: bool,
    /// The consumer's own limit, the smaller where it names two.
    pub max_tokens_asked: Option<u32>,
    /// The most prompt tokens it can have: one a body byte, and what a chat template adds.
    pub prompt_bound: u32,
    /// What a service must have been seen to do.
    pub needs: Capabilities,
    /// Whether another node may go on with an answer of it that broke off: it is a stream of plain text, and what comes next
    /// follows from the text alone.
    pub continues: bool,
    /// Where the answer is to end.
    pub stops: Vec<String>,
    /// Fields that were accepted and are ignored.
    pub ignored: Vec<&'static str>,
    body_bytes: usize,
    /// The forwarded fields, as `,"name":value` each.
    forwarded: String,
    /// Where in that the conversation or prompt is; an embedding has none.
    begins: Option<Range<usize>>,
}

/// Reads and judges one request body.
///
/// # Errors
/// What to answer instead: 413 over 4 MiB, 400 otherwise, naming the field or the position.
pub fn validate(endpoint: Endpoint, body: &[u8]) -> Result<Validated, ApiError> {
    if body.len() > MAX_REQUEST_BODY {
        return Err(ApiError::too_large());
    }
    let all: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|error| ApiError::malformed(&error))?;
    let mut all: HashMap<_, _> = all.into_iter().filter(|(_, raw)| raw.get() != "null").collect();

    let model = model(all.remove("model"))?;
    let needed = fields::needed(endpoint);
    if !all.contains_key(needed) {
        return Err(ApiError::missing(needed));
    }
    let max_tokens_asked = max_tokens(endpoint, &mut all)?;
    let stream = flag(&all, "stream")?;
    let include_usage = include_usage(all.remove("stream_options"), stream)?;
    let mut needs = needs_of(endpoint);
    needs.streaming = stream;

    let mut forwarded = String::with_capacity(body.len());
    let mut ignored = Vec::new();
    let mut begins = None;
    let mut is_plain = stream;
    let mut stops = Vec::new();
    for (name, fate) in fields::of(endpoint) {
        let Some(raw) = all.remove(*name) else { continue };
        match fate {
            Fate::Forward(kind) => {
                kind.check(name, raw)?;
                need(&mut needs, name, raw);
                is_plain &= follows_from_its_text(name, raw);
                if *name == "stop" {
                    stops = fields::stops(raw);
                }
                forwarded.extend([",\"", name, "\":", raw.get()]);
                if *name == needed && endpoint != Endpoint::Embeddings {
                    begins = Some(forwarded.len() - raw.get().len()..forwarded.len());
                }
            }
            Fate::OnlyOne => {
                if raw.get() != "1" {
                    return Err(ApiError::rejected(
                        name,
                        "one answer a request: leave it out or set it to 1",
                    ));
                }
            }
            Fate::Ignore => ignored.push(*name),
            Fate::Reject(why) => return Err(ApiError::rejected(name, why)),
        }
    }
    if let Some(unknown) = all.into_keys().min() {
        return Err(ApiError::unknown_field(&unknown));
    }
    let allowance = TEMPLATE_ALLOWANCE as usize;
    let prompt_bound = u32::try_from(body.len() + allowance).unwrap_or(u32::MAX);
    Ok(Validated {
        endpoint,
        model,
        stream,
        include_usage,
        max_tokens_asked,
        prompt_bound,
        needs,
        continues: is_plain && !(needs.logprobs || needs.tools || needs.json_schema),
        stops,
        ignored,
        body_bytes: body.len(),
        forwarded,
        begins,
    })
}

impl Validated {
    /// The most tokens that this can be billed for by a service of this context and price, for someone who can spend
    /// `available`: its cost is what to reserve. Without a limit of its own a request gets the least of
    /// [`DEFAULT_MAX_TOKENS`], what is left of the context, and what can be paid.
    ///
    /// # Errors
    /// 402 when not even one token of an answer, or not all that was asked for, can be paid.
    pub fn most(&self, context: u32, price: Price, available: MicroCredits) -> Result<Most, ApiError> {
        let prompt = self.prompt_bound.min(context);
        let affordable = affordable(price, available);
        let payable = |tokens: u64| tokens <= affordable;
        if self.endpoint == Endpoint::Embeddings {
            let most = Most { prompt, completion: 0 };
            return if payable(prompt.into()) {
                Ok(most)
            } else {
                Err(self.cannot_pay(most, price, available))
            };
        }
        let completion = match self.max_tokens_asked {
            Some(asked) => asked.min(context),
            None => {
                let about = u32::try_from(self.body_bytes / BYTES_A_TOKEN).unwrap_or(u32::MAX);
                let left = context.saturating_sub(about).max(1);
                let paid = affordable.saturating_sub(prompt.into());
                DEFAULT_MAX_TOKENS.min(left).min(u32::try_from(paid).unwrap_or(u32::MAX)).max(1)
            }
        };
        let most = Most { prompt, completion };
        if payable(u64::from(prompt) + u64::from(completion)) {
            Ok(most)
        } else {
            Err(self.cannot_pay(most, price, available))
        }
    }

    /// The body for a node: the forwarded fields as they came, and the limit that was reserved for. A stream always
    /// asks for its usage; the hub strips it where the consumer did not.
    #[must_use]
    pub fn forward_body(&self, max_tokens: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.forwarded.len() + self.model.len() + 96);
        out.extend_from_slice(b"{\"model\":");
        out.extend_from_slice(serde_json::Value::from(self.model.as_str()).to_string().as_bytes());
        out.extend_from_slice(self.forwarded.as_bytes());
        if self.endpoint != Endpoint::Embeddings {
            out.extend_from_slice(format!(",\"max_tokens\":{max_tokens}").as_bytes());
        }
        if self.stream {
            out.extend_from_slice(b",\"stream_options\":{\"include_usage\":true}");
        }
        out.push(b'}');
        out
    }

    /// What this conversation begins with, as nothing but fingerprints under `key`: by it the node is found that has read the
    /// same before. `owner` is whose it is.
    #[must_use]
    pub fn prefix<H: Hasher + Clone>(&self, key: &impl BuildHasher<Hasher = H>, owner: &str) -> Prefix {
        let mut marks = Fingerprints::new(key, [owner, &self.model]);
        if let Some(at) = &self.begins {
            let raw = self.forwarded.get(at.clone()).unwrap_or_default();
            match self.endpoint {
                Endpoint::ChatCompletions => messages::each(raw, |message| marks.part(message)),
                _ => marks.part(raw),
            }
        }
        marks.finish()
    }

    fn cannot_pay(&self, most: Most, price: Price, available: MicroCredits) -> ApiError {
        let wanted = price.cost(u64::from(most.prompt) + u64::from(most.completion));
        ApiError::insufficient_quota(wanted, available, self.max_tokens_asked.is_some())
    }
}

/// How many tokens `available` pays for.
fn affordable(price: Price, available: MicroCredits) -> u64 {
    if price <= Price::ZERO {
        return u64::MAX;
    }
    // Costs round up, so what is paid for rounds down.
    let tokens = i128::from(available.0.max(0)) * 1_000_000 / i128::from(price.0);
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

fn model(raw: Option<&RawValue>) -> Result<String, ApiError> {
    let raw = raw.ok_or_else(|| ApiError::missing("model"))?;
    let model: String =
        serde_json::from_str(raw.get()).map_err(|_| ApiError::invalid("model", "it must be a string"))?;
    if model.is_empty() || model.len() > MAX_NAME {
        return Err(ApiError::invalid("model", "it must have 1 to 256 bytes"));
    }
    Ok(model)
}

/// Both names of the limit; newer SDKs send `max_completion_tokens`.
fn max_tokens(
    endpoint: Endpoint,
    all: &mut HashMap<Cow<'_, str>, &RawValue>,
) -> Result<Option<u32>, ApiError> {
    if endpoint == Endpoint::Embeddings {
        return Ok(None);
    }
    let mut least: Option<u32> = None;
    let names: &[&'static str] = match endpoint {
        Endpoint::ChatCompletions => &["max_tokens", "max_completion_tokens"],
        _ => &["max_tokens"],
    };
    for name in names {
        let Some(raw) = all.remove(*name) else { continue };
        let limit: u64 = raw
            .get()
            .parse()
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| ApiError::invalid(name, "it must be a whole number of at least 1"))?;
        let limit = u32::try_from(limit).unwrap_or(MAX_CONTEXT);
        least = Some(least.map_or(limit, |least| least.min(limit)));
    }
    Ok(least)
}

fn flag(all: &HashMap<Cow<'_, str>, &RawValue>, name: &'static str) -> Result<bool, ApiError> {
    match all.get(name).map(|raw| raw.get()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::invalid(name, "it must be true or false")),
    }
}

fn include_usage(options: Option<&RawValue>, stream: bool) -> Result<bool, ApiError> {
    let Some(raw) = options else { return Ok(false) };
    let invalid = |why| ApiError::invalid("stream_options", why);
    if !stream {
        return Err(invalid("it is only for streams: set `stream` to true, or leave it out"));
    }
    let options: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| invalid("it must be an object"))?;
    match options.get("include_usage").map(|raw| raw.get()) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(invalid("its `include_usage` must be true or false")),
    }
}

/// Whether what comes next in an answer depends on this field only through the text so far. Repetition penalties look back
/// over tokens that a second server would take for the prompt's.
fn follows_from_its_text(name: &str, raw: &RawValue) -> bool {
    match name {
        "presence_penalty" | "frequency_penalty" => raw.get().parse() == Ok(0.0),
        "echo" => raw.get() == "false",
        "prompt" => !fields::is_tokens(raw.get()),
        _ => true,
    }
}

/// What a field needs of a service, beyond its endpoint.
fn need(needs: &mut Capabilities, name: &str, raw: &RawValue) {
    match (name, raw.get()) {
        ("logprobs", "false") | ("tools", "[]") => {}
        ("logprobs" | "top_logprobs", _) => needs.logprobs = true,
        ("tools", _) => needs.tools = true,
        ("response_format", format) => needs.json_schema |= Kind::format_is_constrained(format),
        _ => {}
    }
}
