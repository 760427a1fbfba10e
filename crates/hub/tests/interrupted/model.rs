//! A model server that says the same to the same request, token by token, and goes on from any prefix of it. It knows its
//! own text: handed another's, it says so instead of going on.

use std::time::Duration;

use async_trait::async_trait;
use idlewatt_core::work::{Ask, Finished, Head, Piece};
use idlewatt_networks::Answer;
use idlewatt_protocol::message::Outcome;
use idlewatt_protocol::receipt::{Energy, Timings};
use idlewatt_protocol::{Artefact, Digest, RequestId, UnixMillis, Usage, UsageSource};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

/// Prompt tokens of every request, before what was delivered.
pub const PROMPT: u32 = 12;

/// Between two tokens.
const PACE: Duration = Duration::from_millis(16);

const WORDS: [&str; 12] =
    ["the ", "cat ", "猫", "🙂", "\n\n", "def f():\n    ", "ñandú ", "\"", "\\", "и", "한국어 ", "data: "];

/// The tokens that a prompt is answered with.
pub fn tokens(seed: u64) -> Vec<String> {
    let count = 24 + usize::try_from(seed % 24).unwrap();
    let word = |i: u64| WORDS[usize::try_from(mixed(seed * 1000 + i) % 12).unwrap()];
    (0..count as u64).map(|i| if i % 5 == 0 { format!("{i} ") } else { word(i).to_owned() }).collect()
}

/// Well spread, and always the same.
pub fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub fn artefact() -> Artefact {
    Artefact {
        model: "tiny".into(),
        quantisation: Some("q4".into()),
        digest: Some(Digest([1; 32])),
        engine: "llama.cpp".into(),
        engine_build: None,
    }
}

/// One answer under way.
pub struct Telling {
    request: RequestId,
    events: Vec<Piece>,
    at: usize,
    yields: watch::Receiver<u64>,
    outcome: Outcome,
}

impl Telling {
    /// `None` when it cannot go on so.
    pub fn new(ask: &Ask, yields: watch::Receiver<u64>) -> Option<Self> {
        let (body, prefix_text, prefix_ids) = match &ask.prefix {
            Some(prefix) => {
                let parts = prefix.split(&ask.body)?;
                (parts.body, parts.text, parts.ids)
            }
            None => (&ask.body[..], "", Vec::new()),
        };
        let body: Value = serde_json::from_slice(body).ok()?;
        let seed: u64 = body["messages"][0]["content"].as_str()?.parse().ok()?;
        let tokens = tokens(seed);
        // Ids and text must both be the beginning of this very answer.
        let mut begun = 0;
        let mut rest = prefix_text;
        while !rest.is_empty() {
            rest = rest.strip_prefix(tokens.get(begun)?.as_str())?;
            begun += 1;
        }
        let own: Vec<u32> = (0..u32::try_from(begun).ok()?).map(|i| id(seed, i)).collect();
        if !prefix_ids.is_empty() && prefix_ids != own {
            return None;
        }
        let last = tokens.len().min(begun + usize::try_from(ask.max_tokens).ok()?);
        let prompt = PROMPT + u32::try_from(begun).ok()?;
        let usage = |completion| Usage { prompt, completion, source: UsageSource::Server };
        let mut events = vec![piece(&json!({"role": "assistant", "content": null}), None, "", usage(0))];
        let mut said = 0;
        for (i, token) in tokens.iter().enumerate().take(last).skip(begun) {
            said += 1;
            let ids = ask.ids.then(|| [id(seed, u32::try_from(i).unwrap_or_default())]);
            events.push(piece(&json!({ "content": token }), ids, token, usage(said)));
        }
        let reason = if last < tokens.len() { "length" } else { "stop" };
        let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        let total = json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": said}});
        for data in [finish.to_string(), total.to_string(), "[DONE]".into()] {
            events.push(raw(format!("data: {data}\n\n"), "", usage(said)));
        }
        Some(Self { request: ask.request, events, at: 0, yields, outcome: Outcome::Complete })
    }
}

fn id(seed: u64, i: u32) -> u32 {
    u32::try_from(mixed(seed ^ (u64::from(i) << 32)) >> 40).unwrap_or_default()
}

fn piece(delta: &Value, ids: Option<[u32; 1]>, text: &str, usage: Usage) -> Piece {
    let mut chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    if let Some(ids) = ids {
        chunk["iw_ids"] = json!(ids);
    }
    raw(format!("data: {chunk}\n\n"), text, usage)
}

fn raw(bytes: String, text: &str, usage: Usage) -> Piece {
    Piece { bytes: bytes.into(), text: text.into(), usage, cached: 0 }
}

#[async_trait]
impl Answer for Telling {
    async fn head(&mut self) -> Result<Head, Finished> {
        Ok(Head { status: 200, streaming: true })
    }

    async fn next(&mut self) -> Option<Piece> {
        tokio::select! {
            changed = self.yields.changed() => {
                if changed.is_ok() && self.at < self.events.len() {
                    self.outcome = Outcome::Yielded;
                    self.at = self.events.len();
                }
                return None;
            }
            () = sleep(PACE) => {}
        }
        let piece = self.events.get(self.at).cloned();
        self.at += 1;
        piece
    }

    async fn finish(self: Box<Self>, outcome: Option<Outcome>, usage: Usage) -> Finished {
        tracing::trace!(request = %self.request, "an answer is over");
        Finished {
            outcome: outcome.unwrap_or(self.outcome),
            artefact: artefact(),
            usage,
            started: UnixMillis(1),
            timings: Timings::default(),
            energy: Energy::default(),
            message: None,
        }
    }
}
