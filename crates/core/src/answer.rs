//! Rewriting of a model server's answer before it leaves the machine, and its token count at every piece.
//!
//! A server's answer names the host's files, its build and its speed. Only fields of OpenAI's API on a fixed list are
//! written again, under public names; everything else (`timings`, `__verbose`, `prompt_progress`, paths in `model`)
//! stays here. One event in, one [`Piece`] out, so that an answer cut off anywhere is billed to the token. The content
//! itself is copied byte for byte as the server escaped it.
//!
//! Not here: speaking to the server (`idlewatt-servers`), frames, windows and offsets ([`crate::session`]).

mod ids;
mod json;

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use idlewatt_protocol::limits::MAX_RESPONSE_BODY;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::sse::Splitter;
use idlewatt_protocol::usage::{ServerTimings, ServerUsage};
use idlewatt_protocol::{Artefact, Digest, RequestId, Usage, UsageSource};

use crate::work::{Head, Piece};
use ids::{Ids, Told};

/// A token of a prompt is taken for this many bytes where the server does not count.
const BYTES_A_TOKEN: usize = 4;

/// What an answer calls things, instead of the server's own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicNames {
    id: String,
    /// As a JSON string, with its quotes.
    model: String,
    fingerprint: String,
}

impl PublicNames {
    /// The names for one request. The fingerprint is the same for the same artefact and build.
    #[must_use]
    pub fn new(request: RequestId, endpoint: Endpoint, artefact: &Artefact) -> Self {
        let kind = match endpoint {
            Endpoint::ChatCompletions => "chatcmpl",
            Endpoint::Completions => "cmpl",
            Endpoint::Embeddings => "embd",
        };
        let id = request.to_string();
        let digest = artefact.digest.map(|digest| digest.0).unwrap_or_default();
        let build = artefact.engine_build.as_deref().unwrap_or_default();
        let parts = [artefact.name(), artefact.engine.clone(), build.to_owned()].join("\n");
        let mut fingerprint = String::from("fp_");
        for byte in Digest::of_parts(&[parts.as_bytes(), &digest]).0.iter().take(5) {
            // Writing to a String cannot fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Self {
            id: format!("{kind}-{}", id.trim_start_matches("req_")),
            model: serde_json::Value::from(artefact.model.as_str()).to_string(),
            fingerprint,
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In full: a stream with its `[DONE]`, or one whole body. An error status with its error object counts too.
    Complete,
    /// Broken off, or not an answer; why, without any of the server's words.
    Broken(&'static str),
}

/// One answer on its way out. Feed it the server's bytes as they come, take the pieces.
#[derive(Debug)]
pub struct Rewriting {
    names: PublicNames,
    endpoint: Endpoint,
    status: u16,
    form: Form,
    counts: Counts,
    /// The next event of a chat's stream is its first, which names the role.
    opens: bool,
    ids: Option<Ids>,
    /// An event whose ids are not known in full.
    waiting: Option<Said>,
    received: u64,
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Form {
    /// Events, cut as they come.
    Stream { splitter: Splitter, out: BytesMut },
    /// One body, kept until its end.
    Whole { body: Vec<u8>, piece: Option<Piece> },
}

impl Rewriting {
    /// The answer to a request whose prompt is about `prompt_bytes` long; that figure is used only where the server
    /// does not count.
    #[must_use]
    pub fn new(names: PublicNames, endpoint: Endpoint, head: Head, prompt_bytes: usize) -> Self {
        let form = if head.streaming {
            Form::Stream { splitter: Splitter::default(), out: BytesMut::new() }
        } else {
            Form::Whole { body: Vec::new(), piece: None }
        };
        let counts = Counts::new(prompt_bytes);
        Self {
            names,
            endpoint,
            status: head.status,
            form,
            counts,
            opens: endpoint == Endpoint::ChatCompletions,
            ids: None,
            waiting: None,
            received: 0,
            ending: None,
        }
    }

    /// Of a stream that goes on where another ended: its first event names no role.
    #[must_use]
    pub fn going_on(mut self) -> Self {
        self.opens = false;
        self
    }

    /// Has each event of a stream carry the ids of its text ([`IDS_MEMBER`](idlewatt_protocol::continuation::IDS_MEMBER)), as
    /// long as the server tells all of them.
    #[must_use]
    pub fn telling_ids(mut self) -> Self {
        self.ids = Some(Ids::default());
        self
    }

    /// Text that the next piece adds, of whose ids the server told only the last. While this is there no piece comes:
    /// [`learn`](Self::learn) first.
    #[must_use]
    pub fn text_without_ids(&self) -> Option<&str> {
        self.waiting.as_ref().map(|said| said.text.as_str())
    }

    /// The ids that the server reads [`text_without_ids`](Self::text_without_ids) as; `None` where it does not tell.
    pub fn learn(&mut self, ids: Option<Vec<u32>>) {
        if let Some(known) = &mut self.ids {
            known.learn(ids);
        }
    }

    /// Adds bytes of the server's. Bytes after the ending are ignored.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.ending.is_some() {
            return;
        }
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > MAX_RESPONSE_BODY {
            self.break_off("the answer is longer than 64 MiB");
            return;
        }
        match &mut self.form {
            Form::Whole { body, .. } => body.extend_from_slice(bytes),
            Form::Stream { splitter, .. } => {
                if splitter.push(bytes).is_err() {
                    self.break_off("an event of the answer is longer than 1 MiB");
                }
            }
        }
    }

    /// The next piece. `None` when more bytes are needed, or at the end.
    pub fn next_piece(&mut self) -> Option<Piece> {
        loop {
            let (splitter, out) = match &mut self.form {
                Form::Whole { piece, .. } => return piece.take(),
                Form::Stream { splitter, out } if self.ending.is_none() => (splitter, out),
                Form::Stream { .. } => return None,
            };
            if let Some(said) = self.waiting.take() {
                let ids = self.ids.as_mut().map_or(Told::Nothing, Ids::learned);
                if matches!(ids, Told::InPart) {
                    self.waiting = Some(said);
                    return None;
                }
                return Some(finished(&self.counts, said.text, &ids, out));
            }
            let event = splitter.next_event()?;
            if event.is_done() {
                self.ending = Some(Ending::Complete);
                let bytes = Bytes::from_static(b"data: [DONE]\n\n");
                return Some(self.counts.piece(bytes, String::new()));
            }
            // Comments are a server's way to keep its own connection open.
            let Some(data) = event.data else { continue };
            match json::event(&data, &self.names, self.endpoint, self.opens, self.ids.is_some(), out) {
                Ok(said) => {
                    self.opens = false;
                    self.counts.add(&said);
                    let ids = self.ids.as_mut().map_or(Told::Nothing, |ids| ids.of(&said));
                    if matches!(ids, Told::InPart) {
                        self.waiting = Some(said);
                        return None;
                    }
                    return Some(finished(&self.counts, said.text, &ids, out));
                }
                Err(why) => self.break_off(why),
            }
        }
    }

    /// The server's body has ended, or its connection broke. Take every piece before it, and a whole body's only one
    /// after it.
    pub fn close(&mut self) {
        if self.ending.is_some() {
            return;
        }
        match &mut self.form {
            // Without `[DONE]` not everything came, and a consumer must be able to tell.
            Form::Stream { .. } => self.break_off("the model server broke off"),
            Form::Whole { body, piece } => {
                let body = std::mem::take(body);
                if self.status != 200 {
                    let bytes = json::error(self.status, &body);
                    *piece = Some(Piece { bytes, text: String::new(), usage: Usage::NONE, cached: 0 });
                    self.ending = Some(Ending::Complete);
                    return;
                }
                let mut out = BytesMut::new();
                match json::whole(&body, &self.names, self.endpoint, &mut out) {
                    Ok(mut said) => {
                        self.counts.add(&said);
                        let bytes = out.freeze();
                        if self.endpoint == Endpoint::Embeddings {
                            said.text = String::from_utf8_lossy(&bytes).into_owned();
                        }
                        *piece = Some(self.counts.piece(bytes, said.text));
                        self.ending = Some(Ending::Complete);
                    }
                    Err(why) => self.break_off(why),
                }
            }
        }
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    fn break_off(&mut self, why: &'static str) {
        self.ending = Some(Ending::Broken(why));
    }
}

/// The piece of an event that is written up to its end.
fn finished(counts: &Counts, text: String, ids: &Told, out: &mut BytesMut) -> Piece {
    json::close_event(ids, out);
    counts.piece(out.split().freeze(), text)
}

/// What one object of an answer says, apart from the bytes written for it.
#[derive(Debug, Default)]
struct Said {
    text: String,
    generated: bool,
    /// It carries reasoning or tool calls.
    hidden: bool,
    usage: Option<ServerUsage>,
    timings: Option<ServerTimings>,
    /// The tokens that the server names for it, where they were asked for.
    tokens: Vec<json::Token>,
}

/// Tokens up to a piece: the server's word where it gives one, else one a piece that carries anything.
#[derive(Debug)]
struct Counts {
    estimated_prompt: u32,
    prompt: Option<u32>,
    cached: u32,
    completion: u32,
    source: UsageSource,
}

impl Counts {
    fn new(prompt_bytes: usize) -> Self {
        let estimate = prompt_bytes.div_ceil(BYTES_A_TOKEN);
        Self {
            estimated_prompt: u32::try_from(estimate).unwrap_or(u32::MAX),
            prompt: None,
            cached: 0,
            completion: 0,
            source: UsageSource::Server,
        }
    }

    fn add(&mut self, said: &Said) {
        if let Some(timings) = said.timings {
            self.cached = timings.cache_n;
        }
        if let Some(usage) = said.usage {
            self.prompt = Some(usage.prompt_tokens);
            self.completion = usage.completion_tokens;
            self.source = UsageSource::Server;
        } else if let Some(timings) = said.timings {
            self.prompt = Some(timings.cache_n.saturating_add(timings.prompt_n));
            self.completion = timings.predicted_n;
            self.source = UsageSource::Server;
        } else if said.generated {
            self.completion = self.completion.saturating_add(1);
            self.source = UsageSource::Counted;
        }
    }

    fn piece(&self, bytes: Bytes, text: String) -> Piece {
        Piece { bytes, text, usage: self.usage(), cached: self.cached }
    }

    /// Nothing is used until something was generated or the server says so.
    fn usage(&self) -> Usage {
        match self.prompt {
            Some(prompt) => Usage { prompt, completion: self.completion, source: self.source },
            None if self.completion == 0 => Usage::NONE,
            None => Usage {
                prompt: self.estimated_prompt,
                completion: self.completion,
                source: UsageSource::Estimated,
            },
        }
    }
}

#[cfg(test)]
mod tests;
