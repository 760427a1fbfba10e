//! Which node has the beginning of a conversation in its cache: the one that answered it last.
//!
//! Kept of a conversation are fingerprints only, 64 bits each, under a key that is drawn anew at each start and never leaves
//! the process: nothing of a prompt can be read from them, nor tested against them. They are bounded in number and age by
//! use. A wrong or stale one costs a little speed and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use idlewatt_protocol::PublicKey;

/// Fingerprints of one request at most, the longest beginnings: further back nobody is likelier to have it.
const MOST_MARKS: usize = 8;

/// Beginnings shorter than this are computed anew faster than they are sent elsewhere, bytes.
const WORTH: usize = 256;

/// Fingerprints in one of two generations; the older one is dropped when the younger is full. 16,384 in all, below 2 MB.
const GENERATION: usize = 8192;

/// The fingerprints of one request's beginnings, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(Vec<u64>);

/// Takes the fingerprints of one conversation, part by part.
#[derive(Debug)]
pub struct Fingerprints<H> {
    hasher: H,
    bytes: usize,
    marks: Vec<u64>,
}

impl<H: Hasher + Clone> Fingerprints<H> {
    /// Of nothing yet. `owner` is whose conversation for which model it is: nobody learns from the time that an answer takes
    /// whether another account asked the same.
    #[must_use]
    pub fn new(key: &impl BuildHasher<Hasher = H>, owner: [&str; 2]) -> Self {
        let mut hasher = key.build_hasher();
        for part in owner {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff);
        }
        Self { hasher, bytes: 0, marks: Vec::new() }
    }

    /// The next message, as it came.
    pub fn part(&mut self, part: &str) {
        self.hasher.write(part.as_bytes());
        self.hasher.write_u8(0xff);
        self.bytes += part.len();
        if self.bytes >= WORTH {
            self.marks.push(self.hasher.clone().finish());
        }
    }

    /// All of them.
    #[must_use]
    pub fn finish(self) -> Prefix {
        Prefix(self.marks.into_iter().rev().take(MOST_MARKS).collect())
    }
}

/// Who answered what last.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    young: HashMap<u64, PublicKey>,
    old: HashMap<u64, PublicKey>,
}

impl Affinity {
    /// Who answered the longest beginning of this.
    pub(super) fn find(&self, prefix: &Prefix) -> Option<PublicKey> {
        prefix.0.iter().find_map(|mark| self.young.get(mark).or_else(|| self.old.get(mark))).copied()
    }

    pub(super) fn remember(&mut self, prefix: &Prefix, node: PublicKey) {
        for mark in &prefix.0 {
            if self.young.len() >= GENERATION && !self.young.contains_key(mark) {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(*mark, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    fn prefix(key: &RandomState, owner: &str, parts: &[String]) -> Prefix {
        let mut marks = Fingerprints::new(key, [owner, "m"]);
        parts.iter().for_each(|part| marks.part(part));
        marks.finish()
    }

    #[test]
    fn a_conversation_that_goes_on_finds_who_answered_it_and_others_do_not() {
        let (key, node) = (RandomState::new(), PublicKey([1; 32]));
        let parts: Vec<String> = (0..40).map(|i| format!("{i}{}", "x".repeat(300))).collect();
        let mut affinity = Affinity::default();
        affinity.remember(&prefix(&key, "me", &parts[..20]), node);
        assert_eq!(affinity.find(&prefix(&key, "me", &parts[..22])), Some(node));
        assert_eq!(affinity.find(&prefix(&key, "you", &parts[..22])), None);
        assert_eq!(affinity.find(&prefix(&key, "me", &parts[1..22])), None);
        assert_eq!(affinity.find(&prefix(&RandomState::new(), "me", &parts[..22])), None);
        assert_eq!(affinity.find(&Prefix::default()), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_last_used_stays() {
        let (key, node) = (RandomState::new(), PublicKey([1; 32]));
        let of = |i: usize| prefix(&key, "me", &[format!("{i}{}", "x".repeat(300))]);
        let mut affinity = Affinity::default();
        for i in 0..10 * GENERATION {
            affinity.remember(&of(i), node);
            affinity.remember(&of(0), node);
            assert!(affinity.young.len() + affinity.old.len() <= 2 * GENERATION);
        }
        assert_eq!(affinity.find(&of(0)), Some(node));
        assert_eq!(affinity.find(&of(1)), None);
    }
}
