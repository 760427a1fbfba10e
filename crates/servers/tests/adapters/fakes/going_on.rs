//! What each server makes of an answer that has begun, and the ids that llama.cpp tells. The quirks are those of the sources
//! that each adapter names.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Of, State, WORDS};

/// llama.cpp's ids of each word. The one of several bytes is several tokens.
const IDS: [&[u32]; 8] = [&[11], &[12], &[13], &[14], &[15], &[16], &[170, 171, 172], &[18]];

/// With which word the answer begins.
pub(super) fn from(state: &State, chat: bool, body: &Value) -> Result<usize, Box<Response>> {
    if !chat {
        return Ok(match &body["prompt"] {
            Value::Array(parts) if matches!(state.of, Of::LlamaCpp | Of::LlamaRouter) => {
                words_of_ids(parts.iter().filter_map(Value::as_u64))
            }
            Value::String(prompt) => prompt.find(WORDS[0]).map_or(0, |at| words_in(&prompt[at..])),
            _ => 0,
        });
    }
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(last) = messages.last().filter(|it| it["role"] == "assistant") else { return Ok(0) };
    let begun = words_in(last["content"].as_str().unwrap_or_default());
    let (going_on, opening) =
        (body["continue_final_message"] == true, body["add_generation_prompt"] != false);
    match state.of {
        Of::LlamaCpp | Of::LlamaRouter => Ok(begun),
        Of::Ollama => Ok(if state.answers_anew.load(Ordering::SeqCst) { 0 } else { begun }),
        // Both at once it refuses.
        Of::Vllm if going_on && opening => Err(Box::new(StatusCode::BAD_REQUEST.into_response())),
        // Without the flags the message counts as finished; SGLang makes it the user's.
        Of::Vllm | Of::SgLang | Of::TabbyApi if going_on => Ok(begun),
        _ => Ok(0),
    }
}

fn words_in(mut text: &str) -> usize {
    let mut count = 0;
    while let Some(rest) = text.strip_prefix(WORDS[count % WORDS.len()]) {
        (text, count) = (rest, count + 1);
    }
    // A beginning that is cut within a word is none of its own.
    if text.is_empty() { count } else { 0 }
}

fn words_of_ids(ids: impl Iterator<Item = u64>) -> usize {
    let mut count = 0;
    let mut left: &[u32] = &[];
    for id in ids {
        if left.is_empty() {
            left = IDS[count % IDS.len()];
            count += 1;
        }
        match left.split_first() {
            Some((first, rest)) if u64::from(*first) == id => left = rest,
            _ => return 0,
        }
    }
    if left.is_empty() { count } else { 0 }
}

/// What llama.cpp adds to each event when it is asked to.
#[derive(Clone)]
pub(super) struct Extras {
    timings: bool,
    ids: bool,
}

impl Extras {
    pub(super) fn of(of: Of, body: &Value) -> Self {
        let is_it = matches!(of, Of::LlamaCpp | Of::LlamaRouter);
        Self { timings: is_it && body["timings_per_token"] == true, ids: is_it && body["n_probs"] == 1 }
    }

    /// Of a word of several tokens only the last is named; the count shows the others.
    pub(super) fn add(&self, choice: &mut Value, from: usize, at: usize) -> Option<Value> {
        let word = WORDS[(from + at) % WORDS.len()];
        if self.ids {
            let id = IDS[(from + at) % IDS.len()].last();
            choice["logprobs"] = json!({"content": [{"id": id, "token": word, "bytes": word.as_bytes(), "prob": 1.0, "top_probs": []}]});
        }
        let counted: usize = (0..=at).map(|it| IDS[(from + it) % IDS.len()].len()).sum();
        self.timings.then(|| json!({"cache_n": 0, "prompt_n": 7, "predicted_n": counted}))
    }
}

/// `/tokenize` and `/apply-template`.
pub(super) fn worked_out(path: &str, body: &Value) -> Option<Value> {
    match path {
        "/apply-template" => {
            Some(json!({"prompt": format!("<|user|>{}<|assistant|>", body["messages"][0]["content"])}))
        }
        "/tokenize" => {
            let word = WORDS.iter().position(|word| body["content"] == *word)?;
            let ids = IDS[word];
            let bytes = WORDS[word].as_bytes();
            let (first, rest) = bytes.split_at(bytes.len() + 1 - ids.len());
            let pieces = std::iter::once(first).chain(rest.chunks(1));
            let tokens: Vec<Value> = ids
                .iter()
                .zip(pieces)
                .map(|(id, piece)| match std::str::from_utf8(piece) {
                    Ok(text) => json!({"id": id, "piece": text}),
                    Err(_) => json!({"id": id, "piece": piece}),
                })
                .collect();
            Some(json!({"tokens": tokens}))
        }
        _ => None,
    }
}
