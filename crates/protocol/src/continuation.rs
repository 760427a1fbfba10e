//! An answer that one node began and another goes on with: what is handed over, and how the parts were joined.
//!
//! Continuing means *generating on from the prefix*, never generating again and skipping. A prefix is handed over as token
//! ids where the first node told all of them, because text that is cut into tokens anew may be cut otherwise; else as text.
//!
//! Not here: when a hub continues (`idlewatt-hub-core`), and how a model server is asked to (`idlewatt-servers`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_PREFIX_BYTES;

/// The member of a streamed event in which a node tells the ids of exactly the text that the event carries, when the hub
/// asked for them ([`crate::message::Request::ids`]). An event that adds text and lacks it makes all ids of its answer
/// unusable. The hub takes it out: no consumer sees it.
pub const IDS_MEMBER: &str = "iw_ids";

/// Bytes of one token id in a request's body, big endian.
pub const ID_BYTES: u64 = 4;

/// How a service was *seen* to go on with a partial answer; each includes what stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Continuation {
    /// Not at all, or not seen.
    #[default]
    None,
    /// From its text.
    Text,
    /// From its token ids too, and it tells those of its own answers.
    Ids,
}

/// How a segment of an answer was joined to the one before, or all of them: the weaker stands later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Joined {
    /// There is only one, or it is the first.
    #[default]
    Single,
    /// From the token ids of what was delivered.
    Ids,
    /// From its text.
    Text,
}

impl Joined {
    /// How all segments of an answer were joined.
    #[must_use]
    pub fn weakest(segments: impl Iterator<Item = Self>) -> Self {
        segments.max().unwrap_or_default()
    }

    /// Whether nothing was joined.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        matches!(self, Self::Single)
    }
}

/// What of an answer was delivered already, carried behind the request's own body: `text_bytes` of UTF-8, then `ids`
/// token ids of [`ID_BYTES`] each. The answer is only what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Bytes of the text that was delivered; at least 1, at most [`MAX_PREFIX_BYTES`].
    pub text_bytes: u64,
    /// Token ids of exactly that text, at most one a byte; 0 where it is to be continued from the text.
    pub ids: u32,
}

/// A request's body, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The request's own body.
    pub body: &'a [u8],
    /// The text that was delivered.
    pub text: &'a str,
    /// Its ids; empty where it is to be continued from the text.
    pub ids: Vec<u32>,
}

impl Prefix {
    /// How the answer would be joined to it.
    #[must_use]
    pub const fn joined(&self) -> Joined {
        if self.ids == 0 { Joined::Text } else { Joined::Ids }
    }

    /// Appends the prefix of `text` and its `ids` to a request's body; what it is goes into the request.
    pub fn append(body: &mut Vec<u8>, text: &str, ids: &[u32]) -> Self {
        body.reserve(text.len() + 4 * ids.len());
        body.extend_from_slice(text.as_bytes());
        ids.iter().for_each(|id| body.extend_from_slice(&id.to_be_bytes()));
        Self { text_bytes: text.len() as u64, ids: u32::try_from(ids.len()).unwrap_or(u32::MAX) }
    }

    /// Takes a whole body apart; `None` when it does not hold what this says, or this is past a limit.
    #[must_use]
    pub fn split<'a>(&self, body: &'a [u8]) -> Option<Parts<'a>> {
        let Range { start, end } = self.place(body.len())?;
        let (ids, rest) = body.get(end..)?.as_chunks::<4>();
        let text = std::str::from_utf8(body.get(start..end)?).ok().filter(|_| rest.is_empty())?;
        let ids = ids.iter().map(|id| u32::from_be_bytes(*id)).collect();
        Some(Parts { body: body.get(..start)?, text, ids })
    }

    /// Where the text lies in a body of `length` bytes.
    fn place(&self, length: usize) -> Option<Range<usize>> {
        let text =
            usize::try_from(self.text_bytes).ok().filter(|text| (1..=MAX_PREFIX_BYTES).contains(text))?;
        let ids = usize::try_from(u64::from(self.ids) * ID_BYTES)
            .ok()
            .filter(|_| u64::from(self.ids) <= self.text_bytes)?;
        let end = length.checked_sub(ids)?;
        Some(end.checked_sub(text)?..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Golden bytes: what stands behind the body of a request that is continued.
    #[test]
    fn a_prefix_is_its_text_and_then_its_ids() {
        let mut body = b"{}".to_vec();
        let prefix = Prefix::append(&mut body, "né", &[1, 0x0102_0304]);
        assert_eq!(body, b"{}n\xc3\xa9\x00\x00\x00\x01\x01\x02\x03\x04");
        assert_eq!(serde_json::to_string(&prefix).unwrap(), r#"{"text_bytes":3,"ids":2}"#);
        assert_eq!(prefix.joined(), Joined::Ids);
    }

    #[test]
    fn capabilities_are_ordered_by_what_they_can() {
        assert!(Continuation::None < Continuation::Text && Continuation::Text < Continuation::Ids);
        assert_eq!(serde_json::to_string(&Continuation::Ids).unwrap(), r#""ids""#);
    }

    #[test]
    fn a_prefix_that_cannot_be_is_refused() {
        for (prefix, body) in [
            (Prefix { text_bytes: 0, ids: 0 }, &b"{}"[..]),
            (Prefix { text_bytes: 3, ids: 0 }, b"{}"),
            (Prefix { text_bytes: 1, ids: 2 }, b"{}x\0\0\0\x01\0\0\0\x01"),
            (Prefix { text_bytes: 1, ids: 0 }, b"{}\xff"),
            (Prefix { text_bytes: u64::MAX, ids: u32::MAX }, b"{}"),
        ] {
            assert_eq!(prefix.split(body), None, "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_appended_is_taken_apart(mut body in prop::collection::vec(any::<u8>(), 0..40), text in ".{1,40}", ids in prop::collection::vec(any::<u32>(), 0..40)) {
            let ids: Vec<u32> = ids.into_iter().take(text.len()).collect();
            let own = body.clone();
            let prefix = Prefix::append(&mut body, &text, &ids);
            prop_assert_eq!(prefix.split(&body), Some(Parts { body: &own, text: &text, ids }));
        }

        #[test]
        fn any_prefix_of_any_body_is_taken_apart_or_refused(text_bytes: u64, ids: u32, body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Prefix { text_bytes, ids }.split(&body);
            let _ = Prefix { text_bytes: text_bytes % 8, ids: ids % 4 }.split(&body);
        }
    }
}
