//! What a GGUF file says about the model in it, read from its header with bounds on everything.
//!
//! A model file comes from anywhere, so its header is a stranger's word: no length, count or depth that it claims is
//! believed before the bytes are there, nothing is allocated by its word, and at most [`MAX_HEADER`] bytes are looked at.
//! Not here: the weights, which only llama.cpp reads, and where files are found (`crate::files`).
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; what llama.cpp takes of it:
//! `ggml/src/gguf.cpp` (versions 2 and 3, no arrays in arrays, tensors one after another without gaps).

mod reader;
mod types;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use self::reader::{Reader, Value};

pub use self::reader::MAX_HEADER;

/// Most parts of one model that are looked for.
const MAX_PARTS: u32 = 256;
/// Most layers: the deepest models have about 130.
const MAX_LAYERS: u32 = 4096;
/// Widest layer: those of the largest models have some ten thousand numbers.
const MAX_SIZE: u32 = 1 << 20;
/// Most tensors of one file; the largest models have some thousand.
const MAX_TENSORS: u64 = 1 << 16;
/// Most entries of metadata; models have about 50.
const MAX_ENTRIES: u64 = 1 << 14;
/// Most entries that are kept: a model has one of each kind.
const MAX_KEPT: usize = 64;
/// What llama.cpp allows a tensor's name, bytes.
const MAX_TENSOR_NAME: usize = 64;
/// `general.alignment`, where it is not given.
const ALIGNMENT: u64 = 32;
const ENDLESS: GgufError = GgufError::Untrue("its tensors are longer than any file");

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `general.name`, for people.
    pub name: Option<String>,
    /// `general.architecture`: `llama`, `qwen3moe`.
    pub architecture: String,
    /// `general.size_label`: `8B`, `8x7B`.
    pub size_label: Option<String>,
    /// What most of its weights are stored as, as llama.cpp names it: `Q4_K_M`.
    pub quantisation: Option<&'static str>,
    /// What it is good for.
    pub purpose: Purpose,
    /// Blocks of attention and feed-forward.
    pub layers: u32,
    /// The longest context it was made for, tokens.
    pub context: Option<u32>,
    /// Size of an embedding.
    pub embedding: u32,
    /// Size of the feed-forward layers, the widest of them.
    pub feed_forward: u32,
    /// Attention heads, the most of any layer.
    pub heads: u32,
    /// Heads that keep keys and values, layer by layer; 0 where a layer keeps none.
    pub kv_heads: Vec<u32>,
    /// Numbers in one head's key.
    pub key_length: u32,
    /// Numbers in one head's value.
    pub value_length: u32,
    /// Tokens of a sliding window, where some layers look no further back.
    pub sliding_window: Option<u32>,
    /// Which layers have that window; all `false` where the header does not say.
    pub slides: Vec<bool>,
    /// Tokens that it knows.
    pub vocabulary: u32,
    /// Experts in each layer; 0 for a dense model.
    pub experts: u32,
    /// Of those, asked for each token.
    pub experts_used: u32,
    /// Whether it says how a conversation is put into words.
    pub chat_template: bool,
    /// Weights of each layer, bytes.
    pub layer_bytes: Vec<u64>,
    /// The table of embeddings, bytes. llama.cpp keeps it in main memory.
    pub input_bytes: u64,
    /// Everything else, bytes: what comes after the last layer.
    pub output_bytes: u64,
    /// Files that make it up.
    pub parts: u32,
    /// All its files, bytes.
    pub size: u64,
}

/// What a file is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Writes text.
    Text,
    /// Turns text into embeddings, or ranks it.
    Embedding,
    /// The eyes or ears of another model (`mmproj`), of no use alone.
    Projector,
    /// A change to another model, or something else that is no model of language.
    Other,
}

/// Why a file cannot be read as a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// The system does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It does not begin like one.
    #[error("it is no GGUF file")]
    NotGguf,
    /// Its numbers are the other way round.
    #[error("it was made for big-endian machines")]
    BigEndian,
    /// Another version of the format.
    #[error("it is in version {0} of the format; versions 2 and 3 can be read")]
    Version(u32),
    /// Weights of a kind that came after this program: llama.cpp may know it.
    #[error("its weights are of a kind ({0}) that is not known here yet")]
    NewWeights(u32),
    /// The file ends too early.
    #[error("it is cut short: {promised} bytes are promised, {there} are there")]
    Truncated {
        /// What its header promises, bytes.
        promised: u64,
        /// Its length, bytes.
        there: u64,
    },
    /// It cannot be true.
    #[error("its header cannot be true: {0}")]
    Untrue(&'static str),
    /// More than any model has.
    #[error("its header is not believed: {0}")]
    TooMuch(&'static str),
    /// A model of several files, not all of which are there.
    #[error("part {part} of {of} is missing")]
    PartMissing {
        /// Which, from 1.
        part: u32,
        /// Of how many.
        of: u32,
    },
    /// The disk is too slow.
    #[error("it could not be read within {} s", reader::PATIENCE.as_secs())]
    Slow,
}

/// Reads the header of a model, and of all its parts where it has several: then `path` names the first.
///
/// Blocks; takes less than a megabyte of memory, and far less than a second where the disk is not slow.
///
/// # Errors
/// When it is no model that llama.cpp could load, or not all of it is there.
pub fn read_header(path: &Path) -> Result<Header, GgufError> {
    let mut first = Part::read(path)?;
    let of = first.number("split.count").unwrap_or(1).max(1);
    if of > MAX_PARTS {
        return Err(GgufError::TooMuch("it says that it has more than 256 parts"));
    }
    if of > 1 && first.number("split.no").unwrap_or(0) != 0 {
        return Err(GgufError::Untrue("it is a part of a model, and not the first"));
    }
    for part in 2..=of {
        let missing = GgufError::PartMissing { part, of };
        let sibling = sibling(path, part, of).filter(|it| it.is_file()).ok_or(missing)?;
        first.join(Part::read(&sibling)?);
    }
    first.header(of)
}

/// The other part beside `name-00001-of-00003.gguf`.
fn sibling(path: &Path, part: u32, of: u32) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{of:05}.gguf"))?;
    Some(path.with_file_name(format!("{stem}-{part:05}-of-{of:05}.gguf")))
}

/// One file of a model.
#[derive(Default)]
struct Part {
    entries: BTreeMap<String, Value>,
    /// Weights by the layer that they belong to.
    layers: BTreeMap<u32, u64>,
    input: u64,
    output: u64,
    /// Rows of the table of embeddings.
    vocabulary: u64,
    has_output: bool,
    size: u64,
}

impl Part {
    fn read(path: &Path) -> Result<Self, GgufError> {
        // A pipe or a device would keep whoever opens it waiting.
        let length = std::fs::metadata(path).map_err(unreadable)?;
        if !length.is_file() {
            return Err(GgufError::Unreadable("it is no file".into()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        Self::of(Reader::new(file, size), size)
    }

    fn of(mut reader: Reader<impl io::Read>, size: u64) -> Result<Self, GgufError> {
        reader.begins()?;
        let (tensors, entries) = (reader.u64()?, reader.u64()?);
        if tensors > MAX_TENSORS {
            return Err(GgufError::TooMuch("it says that it has more than 65,536 tensors"));
        }
        if entries > MAX_ENTRIES {
            return Err(GgufError::TooMuch("it says that it has more than 16,384 entries"));
        }
        let mut part = Self { size, ..Self::default() };
        for _ in 0..entries {
            let Some((key, value)) = reader.entry()? else { continue };
            if part.entries.insert(key, value).is_some() {
                return Err(GgufError::Untrue("an entry is there twice"));
            }
            if part.entries.len() > MAX_KEPT {
                return Err(GgufError::TooMuch("it describes more than one model"));
            }
        }
        let alignment = part.number("general.alignment").map_or(ALIGNMENT, u64::from);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(GgufError::Untrue("its alignment is no power of two"));
        }
        let mut end = 0_u64;
        for _ in 0..tensors {
            let begins = end.checked_next_multiple_of(alignment).ok_or(ENDLESS)?;
            end = part.tensor(&mut reader, begins)?;
        }
        let data = reader.position().next_multiple_of(alignment);
        let promised = data.checked_add(end).ok_or(ENDLESS)?;
        if tensors > 0 && promised > size {
            return Err(GgufError::Truncated { promised, there: size });
        }
        Ok(part)
    }

    /// Reads what is said of one tensor, whose bytes are to begin at `begins`, and gives where they end.
    fn tensor(&mut self, reader: &mut Reader<impl io::Read>, begins: u64) -> Result<u64, GgufError> {
        let name = reader.text(MAX_TENSOR_NAME)?.ok_or(GgufError::TooMuch("a tensor's name is too long"))?;
        let dimensions = reader.u32()?;
        if dimensions > 4 {
            return Err(GgufError::Untrue("a tensor has more than four dimensions"));
        }
        let (mut numbers, mut row, mut last) = (1_u64, 1, 1);
        for dimension in 0..dimensions {
            last = reader.u64()?;
            if dimension == 0 {
                row = last;
            }
            numbers = numbers.checked_mul(last).ok_or(ENDLESS)?;
        }
        let kind = reader.u32()?;
        let (block, bytes) = types::block(kind).ok_or(GgufError::NewWeights(kind))?;
        if row % block != 0 {
            return Err(GgufError::Untrue("a tensor's rows do not divide into blocks"));
        }
        let length = (numbers / block).checked_mul(bytes).ok_or(ENDLESS)?;
        if reader.u64()? != begins {
            return Err(GgufError::Untrue("a tensor is not where it should be"));
        }
        match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((number, _)) => {
                let layer = number.parse().ok().filter(|it| *it < MAX_LAYERS);
                let layer = layer.ok_or(GgufError::TooMuch("a tensor belongs to a layer above 4,095"))?;
                let sum = self.layers.entry(layer).or_default();
                *sum = sum.checked_add(length).ok_or(ENDLESS)?;
            }
            None if name.starts_with("token_embd.") => {
                self.input = self.input.checked_add(length).ok_or(ENDLESS)?;
                self.vocabulary = self.vocabulary.max(last);
            }
            None => {
                self.has_output |= name == "output.weight";
                self.output = self.output.checked_add(length).ok_or(ENDLESS)?;
            }
        }
        begins.checked_add(length).ok_or(ENDLESS)
    }

    fn join(&mut self, other: Self) {
        for (layer, bytes) in other.layers {
            let sum = self.layers.entry(layer).or_default();
            *sum = sum.saturating_add(bytes);
        }
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.vocabulary = self.vocabulary.max(other.vocabulary);
        self.has_output |= other.has_output;
        self.size = self.size.saturating_add(other.size);
    }

    fn header(self, parts: u32) -> Result<Header, GgufError> {
        let architecture = self.text("general.architecture").unwrap_or_default();
        let layers = self.of_model(&architecture, "block_count").unwrap_or(0);
        if layers > MAX_LAYERS {
            return Err(GgufError::TooMuch("it says that it has more than 4,096 layers"));
        }
        let of_model = |key: &str| self.of_model(&architecture, key);
        let sizes =
            ["embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv"];
        let mut sizes = sizes.into_iter().chain(["attention.key_length", "attention.value_length"]);
        if sizes.any(|key| of_model(key) > Some(MAX_SIZE)) {
            return Err(GgufError::TooMuch("it says that its layers are wider than those of any model"));
        }
        let (heads, embedding) =
            (of_model("attention.head_count").unwrap_or(0), of_model("embedding_length").unwrap_or(0));
        let head = embedding.checked_div(heads).unwrap_or(0);
        let kv_heads = self.per_layer(&architecture, "attention.head_count_kv", layers);
        let slides = self.slides(&architecture, layers);
        let in_layer = |layer: u32| self.layers.get(&layer).copied().unwrap_or(0);
        // What is numbered above the last layer (heads that predict further tokens) goes where the last one goes.
        let above: u64 = self.layers.range(layers..).map(|(_, bytes)| bytes).sum();
        // A model without an output of its own uses its embeddings a second time.
        let output = if self.has_output { self.output } else { self.output.saturating_add(self.input) };
        Ok(Header {
            name: self.text("general.name"),
            size_label: self.text("general.size_label"),
            quantisation: self.number("general.file_type").and_then(types::file_type),
            purpose: self.purpose(&architecture),
            layers,
            context: of_model("context_length"),
            embedding,
            feed_forward: of_model("feed_forward_length").unwrap_or(0),
            heads,
            kv_heads: kv_heads.unwrap_or_else(|| (0..layers).map(|_| heads).collect()),
            key_length: of_model("attention.key_length").unwrap_or(head),
            value_length: of_model("attention.value_length").unwrap_or(head),
            sliding_window: of_model("attention.sliding_window").filter(|it| *it > 0),
            slides,
            vocabulary: u32::try_from(self.vocabulary).unwrap_or(u32::MAX),
            experts: of_model("expert_count").unwrap_or(0),
            experts_used: of_model("expert_used_count").unwrap_or(0),
            chat_template: self.entries.contains_key("tokenizer.chat_template"),
            layer_bytes: (0..layers).map(in_layer).collect(),
            input_bytes: self.input,
            output_bytes: output.saturating_add(above),
            parts,
            size: self.size,
            architecture,
        })
    }

    fn purpose(&self, architecture: &str) -> Purpose {
        let kind = self.text("general.type");
        let number = |key: &str| self.of_model(architecture, key);
        let is_model = number("block_count").is_some() && self.entries.contains_key("tokenizer.ggml.model");
        match kind.as_deref() {
            Some("mmproj") => Purpose::Projector,
            _ if architecture == "clip" => Purpose::Projector,
            Some("adapter" | "imatrix" | "vocab") => Purpose::Other,
            _ if !is_model || self.layers.is_empty() || self.vocabulary == 0 => Purpose::Other,
            // Pooling is what makes one embedding of many; an encoder sees the words that follow.
            _ if number("pooling_type").is_some_and(|it| it > 0) => Purpose::Embedding,
            _ if number("attention.causal") == Some(0) => Purpose::Embedding,
            _ => Purpose::Text,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.entries.get(key)? {
            Value::Text(text) => Some(text.clone()),
            Value::Numbers(_) => None,
        }
    }

    fn number(&self, key: &str) -> Option<u32> {
        match self.entries.get(key)? {
            // Of several, one for each layer, the greatest.
            Value::Numbers(numbers) => numbers.iter().max().copied(),
            Value::Text(_) => None,
        }
    }

    fn of_model(&self, architecture: &str, key: &str) -> Option<u32> {
        self.number(&format!("{architecture}.{key}"))
    }

    fn numbers(&self, architecture: &str, key: &str) -> Option<&[u32]> {
        match self.entries.get(&format!("{architecture}.{key}"))? {
            Value::Numbers(numbers) => Some(numbers),
            Value::Text(_) => None,
        }
    }

    /// One number for every layer, or one for all of them.
    fn per_layer(&self, architecture: &str, key: &str, layers: u32) -> Option<Vec<u32>> {
        let layers = usize::try_from(layers).ok()?;
        match self.numbers(architecture, key)? {
            [one] => Some(vec![*one; layers]),
            numbers => numbers.get(..layers).map(<[u32]>::to_vec),
        }
    }

    /// Which layers slide: said of each, as a period, or by the architecture.
    fn slides(&self, architecture: &str, layers: u32) -> Vec<bool> {
        match self.numbers(architecture, "attention.sliding_window_pattern") {
            Some([period]) => (0..layers).map(|layer| types::every(*period, layer)).collect(),
            Some(each) if !each.is_empty() => (0..layers)
                .map(|layer| usize::try_from(layer).ok().and_then(|it| each.get(it)) > Some(&0))
                .collect(),
            _ => (0..layers).map(|layer| types::slides(architecture, layer)).collect(),
        }
    }
}

fn unreadable(error: io::Error) -> GgufError {
    GgufError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests;
