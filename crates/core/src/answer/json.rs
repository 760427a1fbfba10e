//! One object of an answer, read and written again in one pass.
//!
//! Values that pass unchanged are borrowed as raw JSON; nothing is parsed that is not looked at.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use idlewatt_protocol::continuation::IDS_MEMBER;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::usage::{ServerTimings, ServerUsage};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::ids::Told;
use super::{PublicNames, Said};

const NOT_AN_ANSWER: &str = "the model server sent something that is no answer";
const SERVER_ERROR: &str = "the model server failed while it answered";

/// Room for one event of a usual size; most are 200 to 300 bytes.
const ROOM: usize = 512;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(default)]
    created: u64,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow, default)]
    data: Vec<Vector<'a>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    timings: Option<ServerTimings>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    /// What Ollama and newer vLLM call it; some send it under both names.
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    /// It is the first of its answer: it names the role, whether the server did or not.
    #[serde(skip)]
    opens: bool,
}

/// Log-probabilities as llama.cpp writes them: with the id of each token.
#[derive(Deserialize)]
struct Logprobs {
    content: Vec<Token>,
}

/// A token, and the text that came with it.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Vector<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(flatten)]
    counts: ServerUsage,
    #[serde(default)]
    prompt_tokens_details: Option<Cached>,
}

#[derive(Deserialize)]
struct Cached {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

/// Rewrites the data of one event; the event's bytes are appended to `out`.
///
/// With `ids` the log-probabilities are there for the ids in them, and go no further.
pub(super) fn event(
    data: &[u8],
    names: &PublicNames,
    endpoint: Endpoint,
    opens: bool,
    ids: bool,
    out: &mut BytesMut,
) -> Result<Said, &'static str> {
    let mut object = read(data)?;
    if opens {
        // llama.cpp names the role with the first token only, and tells nothing of a token that is no whole character.
        object.choices.iter_mut().filter_map(|it| it.delta.as_mut()).for_each(|it| it.opens = true);
    }
    let logprobs = object.choices.first_mut().filter(|_| ids).and_then(|it| it.logprobs.take());
    out.reserve(data.len().max(ROOM));
    out.put_slice(b"data: ");
    let mut said = write(&object, names, endpoint, true, out)?;
    if let Some(logprobs) = logprobs.and_then(|raw| serde_json::from_str::<Logprobs>(raw.get()).ok()) {
        said.tokens = logprobs.content;
    }
    Ok(said)
}

/// Ends an event.
pub(super) fn close_event(ids: &Told, out: &mut BytesMut) {
    if let Told::All(ids) = ids {
        put(out, format_args!(",\"{IDS_MEMBER}\":["));
        for (at, id) in ids.iter().enumerate() {
            comma(at, out);
            put(out, format_args!("{id}"));
        }
        out.put_slice(b"]");
    }
    out.put_slice(b"}\n\n");
}

/// Rewrites one whole body.
pub(super) fn whole(
    body: &[u8],
    names: &PublicNames,
    endpoint: Endpoint,
    out: &mut BytesMut,
) -> Result<Said, &'static str> {
    let object = read(body)?;
    if object.choices.is_empty() && object.data.is_empty() {
        return Err(NOT_AN_ANSWER);
    }
    out.reserve(body.len().max(ROOM));
    let said = write(&object, names, endpoint, false, out)?;
    out.put_slice(b"}");
    Ok(said)
}

fn read(json: &[u8]) -> Result<Object<'_>, &'static str> {
    let object: Object<'_> = serde_json::from_slice(json).map_err(|_| NOT_AN_ANSWER)?;
    if object.error.is_some() { Err(SERVER_ERROR) } else { Ok(object) }
}

/// All but the closing brace.
fn write(
    object: &Object<'_>,
    names: &PublicNames,
    endpoint: Endpoint,
    streaming: bool,
    out: &mut BytesMut,
) -> Result<Said, &'static str> {
    let mut said = Said { timings: object.timings, ..Said::default() };
    if endpoint == Endpoint::Embeddings {
        out.put_slice(b"{\"object\":\"list\",\"data\":[");
        for (at, vector) in object.data.iter().enumerate() {
            comma(at, out);
            put(out, format_args!("{{\"object\":\"embedding\",\"index\":{},\"embedding\":", vector.index));
            out.put_slice(vector.embedding.get().as_bytes());
            out.put_slice(b"}");
        }
        put(out, format_args!("],\"model\":{}", names.model));
    } else {
        let kind = match (endpoint, streaming) {
            (Endpoint::Completions, _) => "text_completion",
            (_, true) => "chat.completion.chunk",
            (_, false) => "chat.completion",
        };
        out.put_slice(b"{\"id\":\"");
        out.put_slice(names.id.as_bytes());
        out.put_slice(b"\",\"object\":\"");
        out.put_slice(kind.as_bytes());
        put(out, format_args!("\",\"created\":{}", object.created));
        out.put_slice(b",\"model\":");
        out.put_slice(names.model.as_bytes());
        out.put_slice(b",\"system_fingerprint\":\"");
        out.put_slice(names.fingerprint.as_bytes());
        out.put_slice(b"\",\"choices\":[");
        for (at, choice) in object.choices.iter().enumerate() {
            comma(at, out);
            write_choice(choice, endpoint, &mut said, out)?;
        }
        out.put_slice(b"]");
    }
    if let Some(tokens) = &object.usage {
        said.usage = Some(tokens.counts);
        write_usage(tokens, endpoint, out);
    }
    Ok(said)
}

fn write_choice(
    choice: &Choice<'_>,
    endpoint: Endpoint,
    said: &mut Said,
    out: &mut BytesMut,
) -> Result<(), &'static str> {
    put(out, format_args!("{{\"index\":{}", choice.index));
    if let Some(delta) = &choice.delta {
        out.put_slice(b",\"delta\":{");
        write_message(delta, false, said, out)?;
        out.put_slice(b"}");
    }
    if let Some(message) = &choice.message {
        out.put_slice(b",\"message\":{");
        write_message(message, true, said, out)?;
        out.put_slice(b"}");
    }
    if let Some(text) = choice.text {
        said.add_text(text)?;
        // A chat that is gone on with from its ids is answered as a completion.
        let (open, close) = match endpoint {
            Endpoint::ChatCompletions => (",\"delta\":{\"content\":", "}"),
            _ => (",\"text\":", ""),
        };
        out.put_slice(open.as_bytes());
        out.put_slice(text.get().as_bytes());
        out.put_slice(close.as_bytes());
    }
    out.put_slice(b",\"logprobs\":");
    out.put_slice(choice.logprobs.map_or("null", RawValue::get).as_bytes());
    out.put_slice(b",\"finish_reason\":");
    let reason = match choice.finish_reason.map(RawValue::get) {
        None => "null",
        // Servers that were told to stop, or stopped themselves, without an end of the answer.
        Some("\"abort\"" | "\"error\"") => return Err(SERVER_ERROR),
        Some(
            known @ ("\"stop\"" | "\"length\"" | "\"tool_calls\"" | "\"content_filter\""
            | "\"function_call\""),
        ) => known,
        Some(_) => "\"stop\"",
    };
    out.put_slice(reason.as_bytes());
    out.put_slice(b"}");
    Ok(())
}

/// The fields of a delta or a message. A whole message always has `role`, `content` and `refusal`, as OpenAI's do.
fn write_message(
    message: &Message<'_>,
    whole: bool,
    said: &mut Said,
    out: &mut BytesMut,
) -> Result<(), &'static str> {
    let reasoning = message.reasoning_content.or(message.reasoning);
    let empty = message.tool_calls.is_none() && reasoning.is_none();
    let names_role = whole || message.opens || message.role.is_some();
    let content = match message.content {
        Some(content) => {
            said.add_text(content)?;
            Some(content.get())
        }
        None if whole => Some("null"),
        // The first delta of a stream: OpenAI opens with an empty text.
        None if names_role && empty => Some("\"\""),
        None => None,
    };
    said.hidden |= message.tool_calls.is_some();
    said.hidden |= reasoning.is_some_and(|text| text.get() != "\"\"");
    said.generated |= said.hidden;
    let null = whole.then_some("null");
    let fields = [
        ("role", names_role.then_some("\"assistant\"")),
        ("content", content),
        ("refusal", message.refusal.map(RawValue::get).or(null)),
        ("reasoning_content", reasoning.map(RawValue::get)),
        ("tool_calls", message.tool_calls.map(RawValue::get)),
    ];
    let present = fields.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    for (at, (name, value)) in present.enumerate() {
        comma(at, out);
        out.put_slice(b"\"");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\":");
        out.put_slice(value.as_bytes());
    }
    Ok(())
}

fn write_usage(tokens: &Tokens, endpoint: Endpoint, out: &mut BytesMut) {
    let (prompt, completion) = (tokens.counts.prompt_tokens, tokens.counts.completion_tokens);
    let total = u64::from(prompt) + u64::from(completion);
    put(out, format_args!(",\"usage\":{{\"prompt_tokens\":{prompt}"));
    if endpoint != Endpoint::Embeddings {
        put(out, format_args!(",\"completion_tokens\":{completion}"));
    }
    put(out, format_args!(",\"total_tokens\":{total}"));
    if let Some(cached) = tokens.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens) {
        put(out, format_args!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}"));
    }
    out.put_slice(b"}");
}

/// Whether a refusal says that prompt and answer do not fit the model's context, in the words of
/// - llama.cpp, and Jan and `LocalAI`, which hand them on: type `exceed_context_size_error`, "… exceeds the available context
///   size …" (`tools/server/server-context.cpp`);
/// - vLLM: "This model's maximum context length is …", "… longer than the maximum model length …", and SGLang: "… longer than
///   the model's context length …", both of some versions without an `error` around them;
/// - LM Studio: "… the model is loaded with context length of only …", as a bare string of some versions;
/// - text-generation-webui: "This model maximum context length is …" (`modules/api/completions.py`);
/// - OpenAI and what imitates it: code `context_length_exceeded`.
fn says_too_long(body: &[u8]) -> bool {
    const CODES: [&str; 2] = ["exceed_context_size_error", "context_length_exceeded"];
    const WORDS: [&str; 3] = ["context length", "context size", "maximum model length"];
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let error = body.get("error").unwrap_or(&body);
    let says = |name: &str| error.get(name).and_then(Value::as_str);
    let coded = [says("type"), says("code")].into_iter().flatten().any(|it| CODES.contains(&it));
    let text = says("message").or(error.as_str()).unwrap_or_default();
    coded || WORDS.iter().any(|it| text.contains(it))
}

/// An error object of OpenAI's form in place of the server's, which may name files and addresses.
pub(super) fn error(status: u16, body: &[u8]) -> Bytes {
    let too_long = says_too_long(body);
    let (kind, code, message) = match status {
        _ if too_long => (
            "invalid_request_error",
            "\"context_length_exceeded\"",
            "The prompt and the answer do not fit this model's context. Send a shorter prompt.",
        ),
        400 | 413 | 422 => {
            ("invalid_request_error", "null", "The model server refused this request as malformed.")
        }
        404 | 405 | 501 => {
            ("invalid_request_error", "\"unsupported\"", "The model server does not support this request.")
        }
        429 | 503 => ("server_error", "\"busy\"", "The model server is busy or still loading. Try again."),
        _ => ("server_error", "null", "The model server failed on this request."),
    };
    let error =
        format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{code}}}}}"#);
    Bytes::from(error)
}

impl Said {
    /// Adds the content of a JSON string.
    fn add_text(&mut self, raw: &RawValue) -> Result<(), &'static str> {
        let json = raw.get();
        let plain = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(NOT_AN_ANSWER)?;
        if plain.contains('\\') {
            let text: Cow<'_, str> = serde_json::from_str(json).map_err(|_| NOT_AN_ANSWER)?;
            self.text.push_str(&text);
        } else {
            self.text.push_str(plain);
        }
        self.generated |= !plain.is_empty();
        Ok(())
    }
}

fn comma(at: usize, out: &mut BytesMut) {
    if at > 0 {
        out.put_slice(b",");
    }
}

/// Writing to memory cannot fail.
fn put(out: &mut BytesMut, args: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(args);
}
