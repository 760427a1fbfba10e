//! Reads the parts of a header one after another, and never further than it may.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use super::{GgufError, MAX_LAYERS, unreadable};

/// Most bytes of a header that are looked at. Those of real models, vocabulary included, stay under 20 MB.
pub const MAX_HEADER: u64 = 64 << 20;
/// Longest time over one file.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Most strings in lists; the largest vocabularies and their merges together are under a million.
const MAX_STRINGS: u64 = 1 << 22;
/// Longest key, bytes: what the format allows is longer than any key.
const MAX_KEY: usize = 256;
/// Longest text that is kept, bytes; longer ones are passed over.
const MAX_TEXT: usize = 512;
const BUFFER: usize = 64 * 1024;

/// What is kept of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Empty where it is longer than anything that is used.
    Text(String),
    /// One number, or one for each layer. Negative ones, fractions and those above 2³² are none of ours and left out.
    Numbers(Vec<u32>),
}

/// Keys that are kept: whole, or what follows the name of the architecture.
const KEPT: [&str; 10] = [
    "general.name",
    "general.type",
    "general.architecture",
    "general.size_label",
    "general.file_type",
    "general.alignment",
    "split.count",
    "split.no",
    "tokenizer.ggml.model",
    "tokenizer.chat_template",
];
const KEPT_OF_MODEL: [&str; 14] = [
    ".block_count",
    ".context_length",
    ".embedding_length",
    ".feed_forward_length",
    ".expert_count",
    ".expert_used_count",
    ".pooling_type",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".attention.causal",
];

pub(super) struct Reader<R: Read> {
    input: BufReader<R>,
    position: u64,
    size: u64,
    strings: u64,
    begun: Instant,
}

impl<R: Read> Reader<R> {
    /// `size` is the length of the whole file.
    pub(super) fn new(input: R, size: u64) -> Self {
        let input = BufReader::with_capacity(BUFFER, input);
        Self { input, position: 0, size, strings: 0, begun: Instant::now() }
    }

    /// Where it stands in the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Magic and version.
    pub(super) fn begins(&mut self) -> Result<(), GgufError> {
        if self.size < 8 || self.bytes::<4>()? != *b"GGUF" {
            return Err(GgufError::NotGguf);
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            // There is no mark of it in the format; llama.cpp tells by this too.
            version if version & 0xFFFF == 0 && version != 0 => Err(GgufError::BigEndian),
            version => Err(GgufError::Version(version)),
        }
    }

    /// The next entry, if it is one that is kept.
    pub(super) fn entry(&mut self) -> Result<Option<(String, Value)>, GgufError> {
        let key = self.text(MAX_KEY)?.ok_or(GgufError::TooMuch("the name of an entry is too long"))?;
        let kept = KEPT.contains(&key.as_str()) || KEPT_OF_MODEL.iter().any(|end| key.ends_with(end));
        let kind = self.u32()?;
        let value = match kind {
            STRING => Some(Value::Text(self.text(MAX_TEXT)?.unwrap_or_default())),
            LIST => self.list(kept)?,
            _ => Some(Value::Numbers(self.number(kind)?.into_iter().collect())),
        };
        Ok(value.filter(|_| kept).map(|value| (key, value)))
    }

    fn list(&mut self, kept: bool) -> Result<Option<Value>, GgufError> {
        let (kind, count) = (self.u32()?, self.u64()?);
        match kind {
            LIST => Err(GgufError::Untrue("it has lists in lists")),
            STRING => {
                self.strings = self.strings.saturating_add(count);
                if self.strings > MAX_STRINGS {
                    return Err(GgufError::TooMuch("it says that it has more than 4,194,304 words"));
                }
                for _ in 0..count {
                    let length = self.u64()?;
                    self.skip(length)?;
                }
                Ok(None)
            }
            _ if kept && count <= u64::from(MAX_LAYERS) => {
                let mut numbers = Vec::new();
                for _ in 0..count {
                    // Every number counts here: it stands for a layer.
                    numbers.push(self.number(kind)?.unwrap_or(0));
                }
                Ok(Some(Value::Numbers(numbers)))
            }
            _ => {
                let long = GgufError::Untrue("a list is longer than any file");
                self.skip(size_of(kind)?.checked_mul(count).ok_or(long)?)?;
                Ok(None)
            }
        }
    }

    /// A number that is not negative, whole, and below 2³².
    fn number(&mut self, kind: u32) -> Result<Option<u32>, GgufError> {
        let mut bytes = [0; 8];
        match size_of(kind)? {
            1 => bytes[..1].copy_from_slice(&self.bytes::<1>()?),
            2 => bytes[..2].copy_from_slice(&self.bytes::<2>()?),
            4 => bytes[..4].copy_from_slice(&self.bytes::<4>()?),
            _ => bytes = self.bytes::<8>()?,
        }
        let number = u64::from_le_bytes(bytes);
        let is_negative = match kind {
            INT8 => number > 0x7F,
            INT16 => number > 0x7FFF,
            INT32 => number > 0x7FFF_FFFF,
            INT64 => number > u64::MAX / 2,
            _ => false,
        };
        let whole = !is_negative && !matches!(kind, FLOAT32 | FLOAT64);
        Ok(u32::try_from(number).ok().filter(|_| whole))
    }

    /// A string, or `None` where it is longer than `longest`: then it is passed over.
    pub(super) fn text(&mut self, longest: usize) -> Result<Option<String>, GgufError> {
        let length = self.u64()?;
        let Some(short) = usize::try_from(length).ok().filter(|it| *it <= longest) else {
            self.skip(length)?;
            return Ok(None);
        };
        self.claim(length)?;
        let mut bytes = vec![0; short];
        self.input.read_exact(&mut bytes).map_err(unreadable)?;
        // Names are for people, and go through `tidy` before they are shown.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), GgufError> {
        self.claim(length)?;
        let mut left = length;
        while left > 0 {
            let there = self.input.fill_buf().map_err(unreadable)?.len();
            if there == 0 {
                return Err(GgufError::Unreadable("it was cut short while it was read".into()));
            }
            let step = usize::try_from(left).map_or(there, |left| left.min(there));
            self.input.consume(step);
            left -= step as u64;
        }
        Ok(())
    }

    /// Goes on by `length`, if the file has as many bytes and the header may be as long.
    fn claim(&mut self, length: u64) -> Result<(), GgufError> {
        let end = self.position.saturating_add(length);
        if end > self.size {
            return Err(GgufError::Truncated { promised: end, there: self.size });
        }
        if end > MAX_HEADER {
            return Err(GgufError::TooMuch("it is longer than 64 MB"));
        }
        // The clock is asked about as often as the disk.
        let asks_disk = u64::try_from(self.input.buffer().len()).is_ok_and(|there| there < length);
        if asks_disk && self.begun.elapsed() > PATIENCE {
            return Err(GgufError::Slow);
        }
        self.position = end;
        Ok(())
    }
}

const INT8: u32 = 1;
const INT16: u32 = 3;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const STRING: u32 = 8;
const LIST: u32 = 9;
const INT64: u32 = 11;
const FLOAT64: u32 = 12;

/// Bytes of one value of a type, in the numbering of `gguf_metadata_value_type`.
fn size_of(kind: u32) -> Result<u64, GgufError> {
    match kind {
        // unsigned and signed byte, truth value
        0 | INT8 | 7 => Ok(1),
        2 | INT16 => Ok(2),
        4 | INT32 | FLOAT32 => Ok(4),
        10 | INT64 | FLOAT64 => Ok(8),
        _ => Err(GgufError::Untrue("an entry is of an unknown type")),
    }
}
