use super::*;
use std::io::{Seek, Write};

/// A header written entry by entry.
#[derive(Clone, Default)]
struct Written {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: u64,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Written {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&string(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    fn number(self, key: &str, number: u32) -> Self {
        self.entry(key, 4, &number.to_le_bytes())
    }

    fn numbers(self, key: &str, numbers: &[i32]) -> Self {
        let values: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        let count = (numbers.len() as u64).to_le_bytes();
        self.entry(key, 9, &[&5_u32.to_le_bytes()[..], &count, &values].concat())
    }

    fn text(self, key: &str, text: &str) -> Self {
        self.entry(key, 8, &string(text))
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32) -> Self {
        let (block, bytes) = types::block(kind).unwrap();
        let sizes: Vec<u8> = dimensions.iter().flat_map(|it| it.to_le_bytes()).collect();
        let count = u32::try_from(dimensions.len()).unwrap().to_le_bytes();
        let (kind, begins) = (kind.to_le_bytes(), self.data.to_le_bytes());
        self.tensors.push([&string(name), &count[..], &sizes, &kind, &begins].concat());
        self.data += (dimensions.iter().product::<u64>() / block * bytes).next_multiple_of(32);
        self
    }

    fn header(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.entries.len() as u64].map(u64::to_le_bytes).concat();
        [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &counts, &self.entries.concat(), &self.tensors.concat()]
            .concat()
    }

    /// With its weights, all zero.
    fn file(&self) -> Vec<u8> {
        let mut bytes = self.header();
        let whole = bytes.len().next_multiple_of(32) + usize::try_from(self.data).unwrap();
        bytes.resize(whole, 0);
        bytes
    }
}

fn small() -> Written {
    Written::default()
        .text("general.architecture", "llama")
        .text("general.name", "Small")
        .number("general.file_type", 7)
        .number("llama.block_count", 2)
        .number("llama.context_length", 4096)
        .number("llama.embedding_length", 64)
        .number("llama.feed_forward_length", 128)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2)
        .text("tokenizer.ggml.model", "gpt2")
        .tensor("token_embd.weight", &[64, 100], 8)
        .tensor("blk.0.attn_q.weight", &[64, 64], 8)
        .tensor("blk.1.attn_q.weight", &[64, 64], 8)
        .tensor("output_norm.weight", &[64], 0)
}

fn of(bytes: &[u8]) -> Result<Header, GgufError> {
    let size = bytes.len() as u64;
    Part::of(Reader::new(bytes, size), size).and_then(|it| it.header(1))
}

#[test]
fn a_header_says_what_the_model_is_and_where_its_bytes_lie() {
    let header = of(&small().file()).unwrap();
    assert_eq!(header.name.as_deref(), Some("Small"));
    assert_eq!((header.quantisation, header.purpose), (Some("Q8_0"), Purpose::Text));
    assert_eq!((header.layers, header.context, header.vocabulary), (2, Some(4096), 100));
    assert_eq!((header.key_length, header.value_length), (16, 16));
    assert_eq!(header.kv_heads, [2, 2]);
    let row = 64 / 32 * 34;
    assert_eq!(header.layer_bytes, [64 * row, 64 * row]);
    assert_eq!(header.input_bytes, 100 * row);
    // No output of its own: the embeddings serve a second time.
    assert_eq!(header.output_bytes, 64 * 4 + 100 * row);
}

#[test]
fn heads_and_windows_may_differ_from_layer_to_layer() {
    let of_arch = |arch: &str| {
        let mut it = small();
        it.entries.retain(|entry| {
            !entry.windows(5).any(|it| it == b"llama") && !entry.windows(6).any(|it| it == b"head_c")
        });
        let key = |rest: &str| format!("{arch}.{rest}");
        it.text("general.architecture", arch)
            .number(&key("block_count"), 2)
            .number(&key("embedding_length"), 64)
            .number(&key("attention.head_count"), 4)
            .number(&key("attention.sliding_window"), 512)
    };
    let hybrid = of_arch("x").numbers("x.attention.head_count_kv", &[0, 2]);
    assert_eq!(of(&hybrid.file()).unwrap().kv_heads, [0, 2]);
    assert_eq!(of(&of_arch("x").file()).unwrap().slides, [false, false]);
    assert_eq!(of(&of_arch("gemma3").file()).unwrap().slides, [true, true]);
    assert_eq!(of(&of_arch("gemma2").file()).unwrap().slides, [true, false]);
    let period = of_arch("x").number("x.attention.sliding_window_pattern", 2);
    assert_eq!(of(&period.file()).unwrap().slides, [true, false]);
    let each = of_arch("x").numbers("x.attention.sliding_window_pattern", &[0, 1]);
    assert_eq!(of(&each.file()).unwrap().slides, [false, true]);
}

#[test]
fn what_writes_no_text_is_told_apart() {
    let purpose = |it: Written| of(&it.file()).unwrap().purpose;
    assert_eq!(purpose(small().number("llama.pooling_type", 1)), Purpose::Embedding);
    assert_eq!(purpose(small().entry("llama.attention.causal", 7, &[0])), Purpose::Embedding);
    assert_eq!(purpose(small().text("general.type", "adapter")), Purpose::Other);
    let projector = Written::default().text("general.architecture", "clip").tensor("v.blk.0", &[32], 0);
    assert_eq!(purpose(projector), Purpose::Projector);
    let image = Written::default().text("general.architecture", "flux").tensor("img_in.weight", &[32], 0);
    assert_eq!(purpose(image), Purpose::Other);
}

#[test]
fn a_file_cut_anywhere_is_said_to_be_cut() {
    let whole = small().file();
    for length in 8..whole.len() {
        let error = of(&whole[..length]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "at {length}: {error}");
    }
    assert_eq!(of(&whole[..7]), Err(GgufError::NotGguf));
}

#[test]
fn what_is_no_gguf_of_ours_is_named() {
    let whole = small().file();
    let changed = |at: usize, bytes: &[u8]| {
        let mut it = whole.clone();
        it[at..at + bytes.len()].copy_from_slice(bytes);
        of(&it).unwrap_err()
    };
    assert_eq!(changed(0, b"GGML"), GgufError::NotGguf);
    assert_eq!(changed(4, &3_u32.to_be_bytes()), GgufError::BigEndian);
    assert_eq!(changed(4, &1_u32.to_le_bytes()), GgufError::Version(1));
    assert_eq!(changed(4, &4_u32.to_le_bytes()), GgufError::Version(4));
    assert!(matches!(changed(8, &u64::MAX.to_le_bytes()), GgufError::TooMuch(_)));
    assert!(matches!(changed(16, &u64::MAX.to_le_bytes()), GgufError::TooMuch(_)));
    assert!(matches!(changed(24, &u64::MAX.to_le_bytes()), GgufError::Truncated { .. }));
}

#[test]
fn a_header_that_contradicts_itself_is_not_believed() {
    let untrue = |it: Written| matches!(of(&it.file()), Err(GgufError::Untrue(_) | GgufError::TooMuch(_)));
    assert!(untrue(small().number("llama.block_count", 3)), "twice");
    assert!(untrue(small().number("general.alignment", 31)));
    assert!(untrue(small().entry("x", 13, &[])), "an unknown type");
    assert!(untrue(small().entry("x", 9, &[9_u32.to_le_bytes(), [0; 4], [0; 4]].concat())), "lists in lists");
    let words = [&8_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(untrue(small().entry("x", 9, &words)));
    let doubles = [&12_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(untrue(small().entry("x", 9, &doubles)));
    let deep = Written::default().text("general.architecture", "a").number("a.block_count", u32::MAX);
    assert!(untrue(deep));
    let mut huge = small();
    let name = string("blk.0.huge");
    let size = u64::MAX.to_le_bytes();
    huge.tensors.push([&name, &2_u32.to_le_bytes()[..], &size, &size, &[0; 12]].concat());
    assert!(untrue(huge));
    let mut overlapping = small();
    overlapping.data = 0;
    assert!(untrue(overlapping.tensor("blk.1.attn_k.weight", &[64, 64], 8)));
}

#[test]
fn a_model_in_parts_is_one_model_when_all_parts_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |part: u32| folder.path().join(format!("m-Q8_0-{part:05}-of-00002.gguf"));
    let put = |part: u32, it: Written| {
        let it = it.entry("split.no", 2, &u16::try_from(part - 1).unwrap().to_le_bytes());
        std::fs::write(path(part), it.entry("split.count", 2, &2_u16.to_le_bytes()).file()).unwrap();
    };
    let whole = of(&small().file()).unwrap();
    let first = Written { tensors: Vec::new(), data: 0, ..small() };
    let first = first.tensor("token_embd.weight", &[64, 100], 8).tensor("blk.0.attn_q.weight", &[64, 64], 8);
    put(1, first);
    assert_eq!(read_header(&path(1)), Err(GgufError::PartMissing { part: 2, of: 2 }));
    let rest = Written::default().tensor("blk.1.attn_q.weight", &[64, 64], 8);
    put(2, rest.tensor("output_norm.weight", &[64], 0));
    let read = read_header(&path(1)).unwrap();
    let size = [1, 2].map(|part| path(part).metadata().unwrap().len()).iter().sum();
    assert_eq!(read, Header { parts: 2, size, ..whole });
    assert!(matches!(read_header(&path(2)), Err(GgufError::Untrue(_))), "not the first");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_header(folder.path()), Err(GgufError::Unreadable(_))));
    assert!(matches!(read_header(&folder.path().join("none")), Err(GgufError::Unreadable(_))));
}

#[test]
fn a_long_header_ends_at_its_bound_and_takes_no_memory_for_it() {
    // As much as may be said: four million words of nothing, then a list longer than the bound. What is not written of
    // the file reads as zero, and eight zeros are a word of nothing.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let list = |kind: u32, count: u64| {
        [
            string("list"),
            9_u32.to_le_bytes().to_vec(),
            kind.to_le_bytes().to_vec(),
            count.to_le_bytes().to_vec(),
        ]
        .concat()
    };
    let begins =
        [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &2_u64.to_le_bytes()].concat();
    let words = 1 << 22;
    file.write_all(&[begins, list(8, words)].concat()).unwrap();
    file.seek_relative(8 * i64::try_from(words).unwrap()).unwrap();
    file.write_all(&list(0, 1 << 32)).unwrap();
    file.as_file().set_len(1 << 33).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(read_header(file.path()), Err(GgufError::TooMuch("it is longer than 64 MB")));
    let took = begun.elapsed();
    println!("the longest header that is believed took {} ms", took.as_millis());
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}
