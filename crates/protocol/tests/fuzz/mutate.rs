//! Mutations of a committed corpus, the same in every run: each input is known by its seed.
//!
//! `IDLEWATT_FUZZ` says how many inputs each parser gets; without it, as many as take a second or two.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test's helpers fail as tests do"
)]

use std::path::Path;

/// Inputs of each parser in a usual run.
const USUAL: u64 = 20_000;

/// What parsers trip over, beside what the corpus holds.
const WORDS: [&[u8]; 20] = [
    b"\0",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"\r\n\r\n",
    b"\n\n",
    b"{\"",
    b"\":",
    b"[[[[",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"%00",
    b"&hub=",
    b"#",
    b"data: ",
    b"../",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

/// The files of one folder of the corpus.
pub(crate) fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3, "the corpus in {} is gone", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Gives `check` the corpus, then what becomes of it. A failure names the input.
pub(crate) fn fuzz(corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    let inputs = std::env::var("IDLEWATT_FUZZ").ok().map_or(USUAL, |it| it.parse().expect("a number"));
    corpus.iter().for_each(|input| named("corpus", input, &check));
    for seed in 0..inputs {
        named(&format!("seed {seed}"), &mutant(corpus, seed), &check);
    }
}

fn named(name: &str, input: &[u8], check: &impl Fn(&[u8])) {
    struct Name<'a>(&'a str, &'a [u8]);
    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: {}", self.0, self.1.escape_ascii());
            }
        }
    }
    let _name = Name(name, input);
    check(input);
}

fn mutant(corpus: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = at + random.below(input.len() - at + 1).min(64);
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap(),
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                drop(input.splice(to..to, copy));
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            6 => {
                let again = input[at..end].repeat(1 + random.below(40));
                drop(input.splice(at..end, again));
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                drop(input.splice(at..at, word.iter().copied()));
            }
        }
    }
    input
}
