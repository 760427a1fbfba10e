//! The published workload `idlewatt-1` (docs/bench-workload.md): what is asked, how much, how often. A change of anything
//! here is another workload with another name.

use std::time::Duration;

use serde_json::json;

/// Its name in reports.
pub(super) const NAME: &str = "idlewatt-1";

/// Words of the long prompt, whose reading is measured.
const PROMPT_WORDS: usize = 400;
/// Most tokens of the answer whose writing is measured.
pub(super) const ANSWER_TOKENS: u32 = 128;
/// A phase goes on for at least this long, so that a sensor's refresh is a small part of it.
pub(super) const PHASE: Duration = Duration::from_secs(5);
/// Before the first repeat, and after every change of the cap: clocks, caches and averaging sensors settle.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// Short common words: one token each for most models.
const WORDS: [&str; 64] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school",
    "state", "family", "group", "country", "problem", "hand", "part", "place", "case", "week", "company",
    "system", "program", "question", "work", "number", "night", "point", "home", "water", "room", "mother",
    "area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word",
    "business", "issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour",
    "game", "line", "end", "member", "law", "car", "city",
];

/// The requests of one run. No two begin alike, so that no server answers from its prompt cache.
pub(super) struct Prompts(u64);

impl Prompts {
    /// Two runs with one seed ask the same.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A long prompt, answered with one token: that token comes out of reading the prompt.
    pub(super) fn prefill(&mut self) -> String {
        let words = self.words(PROMPT_WORDS);
        body(&format!("{words}. Which of these words came first?"), 1)
    }

    /// A short prompt with a long answer.
    pub(super) fn decode(&mut self) -> String {
        let words = self.words(8);
        let ask = "Count upwards from one in words, one number a line, and never stop.";
        body(&format!("{words}. {ask}"), ANSWER_TOKENS)
    }

    fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count).map(|_| WORDS[(self.next() % 64) as usize]).collect();
        words.join(" ")
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

fn body(content: &str, max_tokens: u32) -> String {
    json!({
        "messages": [{ "role": "user", "content": content }],
        "temperature": 0,
        "stream": true,
        "max_tokens": max_tokens,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_prompts_begin_alike_and_a_seed_repeats_them() {
        let begin = |body: &str| body.split(' ').take(6).collect::<Vec<_>>().join(" ");
        let mut prompts = Prompts::new(1);
        let mut seen: Vec<String> = (0..200).map(|_| begin(&prompts.prefill())).collect();
        seen.extend((0..200).map(|_| begin(&prompts.decode())));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 400);
        assert_eq!(Prompts::new(1).prefill(), Prompts::new(1).prefill());
        assert_ne!(Prompts::new(1).prefill(), Prompts::new(2).prefill());
    }
}
