//! What a model server costs on a card: continuous batching in steps, each of which reads the model's weights once for
//! everybody, computes for each token, and reads each sequence's own context.
//!
//! A step takes as long as its slower part, memory or arithmetic, and a part of the faster one that does not overlap;
//! each part draws its own power. So a generated token is cheap in company and dear alone, dear behind a long context,
//! and a prompt's cost grows with its square. Nobody outside sees these terms: an estimator has only tokens and watts.
//!
//! The truth of one request is its equal share of what a step costs whoever takes part, and the rest of the step in
//! proportion to what it adds.

use std::collections::{BTreeMap, VecDeque};

use crate::random::Random;

/// A model on a card.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The card with the model loaded and no work, W.
    pub idle_w: f64,
    /// Memory at work, above idle, W.
    pub memory_w: f64,
    /// Arithmetic at work, above idle, W.
    pub compute_w: f64,
    /// Anything at work, above idle, W: clocks, schedulers, the bus.
    pub awake_w: f64,
    /// Reading the weights once, s.
    pub weights_s: f64,
    /// Reading a thousand tokens of one context, s.
    pub context_s: f64,
    /// Arithmetic of a token, s.
    pub token_s: f64,
    /// Arithmetic of a prompt's token for each thousand that stand before it, s.
    pub attention_s: f64,
    /// Of each step, whatever is in it, s.
    pub overhead_s: f64,
    /// Part of the faster of memory and arithmetic that does not overlap with the slower.
    pub serial: f64,
    /// Most prompt tokens in a step.
    pub chunk: u32,
    /// Most requests at once.
    pub slots: usize,
}

impl Default for Model {
    /// In the order of an 8B model in four bits on a large consumer card; not fitted to any.
    fn default() -> Self {
        Self {
            idle_w: 45.0,
            memory_w: 190.0,
            compute_w: 260.0,
            awake_w: 45.0,
            weights_s: 0.0055,
            context_s: 0.000_14,
            token_s: 0.000_16,
            attention_s: 0.000_012,
            overhead_s: 0.001,
            serial: 0.25,
            chunk: 512,
            slots: 4,
        }
    }
}

impl Model {
    /// Some model on some card.
    #[must_use]
    pub fn any(random: &mut Random) -> Self {
        // The card's and the model's size; larger cards draw more and are faster.
        let (card, size) = (random.scale(0.4, 2.0), random.scale(0.3, 3.0));
        let power = card.powf(0.6);
        Self {
            idle_w: random.within(8.0, 60.0) * power,
            memory_w: random.within(120.0, 240.0) * power,
            compute_w: random.within(180.0, 340.0) * power,
            awake_w: random.within(20.0, 70.0) * power,
            weights_s: 0.0055 * size / card,
            context_s: random.within(0.000_05, 0.000_25) * size.sqrt() / card,
            token_s: random.within(0.000_08, 0.000_25) * size / card,
            attention_s: random.within(0.000_005, 0.000_02) * size.sqrt() / card,
            overhead_s: random.within(0.000_5, 0.002),
            serial: random.within(0.1, 0.5),
            chunk: [256, 512, 2048][random.whole(0, 2) as usize],
            slots: random.whole(2, 8) as usize,
        }
    }
}

/// What a server says of a request after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whose.
    pub request: u64,
    /// Prompt tokens computed, without cached ones; said with the first token.
    pub prompt: u32,
    /// Tokens generated so far.
    pub completion: u32,
    /// Whether that was the last.
    pub done: bool,
}

/// One step of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// How long it takes under the limit that was given, s.
    pub seconds: f64,
    /// What it asks of the card meanwhile, idle included, W.
    pub load_w: f64,
    /// What it says at the end.
    pub said: Vec<Progress>,
}

/// A model server.
#[derive(Clone, Debug)]
pub struct LlmServer {
    model: Model,
    waiting: VecDeque<(u64, Sequence)>,
    running: BTreeMap<u64, Sequence>,
    truth: BTreeMap<u64, f64>,
}

#[derive(Clone, Debug)]
struct Sequence {
    cached: u32,
    prompt: u32,
    read: u32,
    completion: u32,
    generated: u32,
}

impl Sequence {
    fn reads(&self) -> bool {
        self.read < self.prompt
    }

    fn context(&self) -> f64 {
        f64::from(self.cached + self.read + self.generated)
    }
}

/// Time that a step keeps the parts of the card busy.
#[derive(Clone, Copy, Default)]
struct Work {
    memory_s: f64,
    compute_s: f64,
}

impl LlmServer {
    /// A server with the model loaded and nothing to do.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self { model, waiting: VecDeque::new(), running: BTreeMap::new(), truth: BTreeMap::new() }
    }

    /// A request comes: `cached` tokens of its prompt are known from before, `prompt` are to be computed, and it ends
    /// after `completion` tokens. At least one of each of the last two is taken.
    pub fn ask(&mut self, request: u64, cached: u32, prompt: u32, completion: u32) {
        let (prompt, completion) = (prompt.max(1), completion.max(1));
        self.waiting.push_back((request, Sequence { cached, prompt, read: 0, completion, generated: 0 }));
        self.truth.insert(request, 0.0);
        self.admit();
    }

    /// A consumer leaves.
    pub fn cancel(&mut self, request: u64) {
        self.waiting.retain(|(id, _)| *id != request);
        self.running.remove(&request);
        self.admit();
    }

    /// Requests that are being computed.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// True energy of a request so far, above the loaded, idle card, J.
    #[must_use]
    pub fn truth_j(&self, request: u64) -> f64 {
        self.truth.get(&request).copied().unwrap_or(0.0)
    }

    /// Computes one step with the card held to `limit_w`; `None` with nothing to do. A limit makes it slower, not cheaper.
    pub fn step(&mut self, limit_w: f64) -> Option<Step> {
        if self.running.is_empty() {
            return None;
        }
        let model = &self.model;
        let mut room = model.chunk;
        let mut parts: Vec<(u64, u32, Work)> = Vec::with_capacity(self.running.len());
        for (id, sequence) in &self.running {
            let tokens = if sequence.reads() { room.min(sequence.prompt - sequence.read) } else { 1 };
            if sequence.reads() {
                room -= tokens;
            }
            if tokens > 0 {
                parts.push((*id, tokens, model.own(sequence, tokens)));
            }
        }
        let shared = Work { memory_s: model.weights_s, compute_s: 0.0 };
        let all = parts.iter().fold(shared, |sum, (_, _, own)| sum.and(*own));
        let (seconds, energy_j) = model.cost(all);
        let (_, shared_j) = model.cost(shared);
        let adds = |own: Work| model.cost(shared.and(own)).1 - shared_j;
        let sum: f64 = parts.iter().map(|(_, _, own)| adds(*own)).sum();
        let equal = shared_j / parts.len() as f64;
        for (id, _, own) in &parts {
            let part = equal + (energy_j - shared_j) * adds(*own) / sum.max(f64::MIN_POSITIVE);
            *self.truth.entry(*id).or_default() += part;
        }
        let above_w = (energy_j / seconds).min((limit_w - model.idle_w).max(1.0));
        let step =
            Step { seconds: energy_j / above_w, load_w: model.idle_w + above_w, said: self.go_on(&parts) };
        self.admit();
        Some(step)
    }

    fn go_on(&mut self, parts: &[(u64, u32, Work)]) -> Vec<Progress> {
        let mut said = Vec::new();
        for (id, tokens, _) in parts {
            let Some(sequence) = self.running.get_mut(id) else { continue };
            if sequence.reads() {
                sequence.read += tokens;
                if sequence.reads() {
                    continue;
                }
            }
            // The step that reads the last of a prompt gives the first token.
            sequence.generated += 1;
            let done = sequence.generated >= sequence.completion;
            let (prompt, completion) = (sequence.prompt, sequence.generated);
            said.push(Progress { request: *id, prompt, completion, done });
            if done {
                self.running.remove(id);
            }
        }
        said
    }

    fn admit(&mut self) {
        while self.running.len() < self.model.slots {
            let Some((id, sequence)) = self.waiting.pop_front() else { return };
            self.running.insert(id, sequence);
        }
    }
}

impl Model {
    fn own(&self, sequence: &Sequence, tokens: u32) -> Work {
        let (tokens, thousands) = (f64::from(tokens), sequence.context() / 1000.0);
        let middle = thousands + tokens / 2000.0;
        Work {
            memory_s: self.context_s * thousands,
            compute_s: tokens * (self.token_s + self.attention_s * middle),
        }
    }

    /// Seconds, and joules above the loaded, idle card.
    fn cost(&self, work: Work) -> (f64, f64) {
        let (slow, fast) = (work.memory_s.max(work.compute_s), work.memory_s.min(work.compute_s));
        let seconds = self.overhead_s + slow + self.serial * fast;
        let joules = self.awake_w * seconds + self.memory_w * work.memory_s + self.compute_w * work.compute_s;
        (seconds, joules)
    }
}

impl Work {
    fn and(self, other: Self) -> Self {
        Self { memory_s: self.memory_s + other.memory_s, compute_s: self.compute_s + other.compute_s }
    }
}
