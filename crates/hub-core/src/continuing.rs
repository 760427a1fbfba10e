//! What of an answer was delivered, so that another node can go on with it, and where the two parts meet.
//!
//! Not here: whether a request may be continued at all ([`crate::openai::Validated::continues`]), which node goes on
//! ([`crate::routing`]), and the bytes of the prefix ([`idlewatt_protocol::continuation`]).

use idlewatt_protocol::limits::MAX_PREFIX_BYTES;
use idlewatt_protocol::usage::Reading;

/// The text that was delivered, and its token ids as long as the nodes tell them all. Holds at most
/// [`MAX_PREFIX_BYTES`] of text and one id a byte; what grows past it, or is more than plain text, is dropped for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    text: String,
    /// `None` once they are not those of all the text.
    ids: Option<Vec<u32>>,
    /// Pieces that carried something generated.
    pieces: u32,
    is_kept: bool,
}

impl Told {
    /// Nothing yet, of an answer that may be continued, or not.
    #[must_use]
    pub fn new(may_continue: bool) -> Self {
        Self { text: String::new(), ids: Some(Vec::new()), pieces: 0, is_kept: may_continue }
    }

    /// One piece was delivered.
    pub fn piece(&mut self, reading: &Reading) {
        self.pieces = self.pieces.saturating_add(u32::from(reading.generated));
        if !self.is_kept {
            return;
        }
        if reading.hidden {
            return self.forget();
        }
        self.text.push_str(&reading.text);
        self.keep_ids(reading.ids.as_deref(), !reading.text.is_empty());
        if self.text.len() > MAX_PREFIX_BYTES {
            self.forget();
        }
    }

    /// What another node delivered after this.
    pub fn append(&mut self, later: Self) {
        self.pieces = self.pieces.saturating_add(later.pieces);
        if !later.is_kept || !self.is_kept || self.text.len() + later.text.len() > MAX_PREFIX_BYTES {
            return self.forget();
        }
        self.keep_ids(later.ids.as_deref(), !later.text.is_empty());
        self.text.push_str(&later.text);
    }

    /// Whether another node can go on from here.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.is_kept && !self.text.is_empty()
    }

    /// The text that was delivered.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its ids; empty where not all are known.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        let ids = self.ids.as_deref().unwrap_or_default();
        if ids.len() <= self.text.len() { ids } else { &[] }
    }

    /// How many tokens it is: counted by ids where all are known, else one a piece.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        match self.ids() {
            [] => self.pieces,
            ids => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        }
    }

    fn keep_ids(&mut self, ids: Option<&[u32]>, needs_some: bool) {
        match (ids, &mut self.ids) {
            (Some(new), Some(ids)) if !(new.is_empty() && needs_some) => ids.extend_from_slice(new),
            (None, _) if !needs_some => {}
            _ => self.ids = None,
        }
    }

    fn forget(&mut self) {
        (self.is_kept, self.text, self.ids) = (false, String::new(), None);
    }
}

/// Looks for a stop string that began in what was delivered and would end in what comes now. A server sees one that is
/// whole in its own part, and none that is not. So what comes is held while it may still complete one: at most the
/// longest stop string less a character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seam {
    /// What would have to come first for a stop string to be whole.
    rests: Vec<String>,
    /// What came so far.
    came: String,
}

/// What the text at a seam comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// No stop string crosses the seam: what was held may go on.
    Clear,
    /// One may yet.
    Open,
    /// One did: the answer ended with what was delivered before the seam.
    Stop,
}

impl Seam {
    /// Between what was `delivered` and what comes.
    #[must_use]
    pub fn new(delivered: &str, stops: &[String]) -> Self {
        let rests = |stop: &String| {
            let parts = stop.char_indices().map(|(at, _)| stop.split_at(at));
            parts
                .filter(|(begun, _)| !begun.is_empty() && delivered.ends_with(begun))
                .map(|(_, rest)| rest.to_owned())
                .collect::<Vec<_>>()
        };
        Self { rests: stops.iter().flat_map(rests).collect(), came: String::new() }
    }

    /// More came, or nothing more will (`is_last`).
    pub fn take(&mut self, text: &str, is_last: bool) -> Crossing {
        if self.rests.is_empty() {
            return Crossing::Clear;
        }
        self.came.push_str(text);
        let came = &self.came;
        if self.rests.iter().any(|rest| came.starts_with(rest)) {
            return Crossing::Stop;
        }
        self.rests.retain(|rest| !is_last && rest.starts_with(came));
        if self.rests.is_empty() { Crossing::Clear } else { Crossing::Open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str, ids: Option<&[u32]>) -> Reading {
        let generated = !text.is_empty();
        Reading { text: text.into(), generated, ids: ids.map(<[u32]>::to_vec), ..Reading::default() }
    }

    fn told(pieces: &[(&str, Option<&[u32]>)]) -> Told {
        let mut told = Told::new(true);
        pieces.iter().for_each(|(text, ids)| told.piece(&said(text, *ids)));
        told
    }

    #[test]
    fn ids_count_as_long_as_every_piece_tells_its_own() {
        let all = told(&[("", None), ("Hel", Some(&[1])), ("lo", Some(&[2, 3]))]);
        assert_eq!((all.text(), all.ids(), all.tokens()), ("Hello", &[1, 2, 3][..], 3));
        for broken in [
            told(&[("Hel", Some(&[1])), ("lo", None)]),
            told(&[("Hel", None), ("lo", Some(&[2]))]),
            told(&[("Hel", Some(&[])), ("lo", Some(&[2]))]),
            told(&[("H", Some(&[1, 2, 3])), ("i", Some(&[4]))]),
        ] {
            assert!(broken.ids().is_empty() && broken.can_go_on(), "{broken:?}");
            assert_eq!(broken.tokens(), 2);
        }
    }

    #[test]
    fn two_parts_are_as_good_as_the_weaker() {
        let mut both = told(&[("a", Some(&[1]))]);
        both.append(told(&[("b", Some(&[2]))]));
        assert_eq!((both.text(), both.ids()), ("ab", &[1, 2][..]));
        both.append(told(&[("c", None)]));
        assert_eq!((both.text(), both.ids(), both.tokens()), ("abc", &[][..], 3));
        both.append(Told::new(false));
        assert!(!both.can_go_on());
    }

    #[test]
    fn reasoning_tool_calls_and_more_than_the_limit_are_never_gone_on_with() {
        let mut thought = told(&[("a", None)]);
        thought.piece(&Reading { hidden: true, generated: true, ..Reading::default() });
        assert!(!thought.can_go_on() && thought.text().is_empty());
        thought.piece(&said("b", None));
        assert!(!thought.can_go_on(), "nor after it");
        let long = "x".repeat(MAX_PREFIX_BYTES);
        let mut most = told(&[(&long, None)]);
        assert!(most.can_go_on());
        most.piece(&said("x", None));
        assert!(!most.can_go_on() && most.text.capacity() == 0, "and holds no memory");
        assert!(!Told::new(true).can_go_on(), "nothing was delivered");
        assert!(!Told::new(false).can_go_on());
    }

    #[test]
    fn a_stop_string_across_the_seam_is_found() {
        let stops = ["END".to_owned(), "\n\n".to_owned()];
        let mut seam = Seam::new("and E", &stops);
        assert_eq!(seam.take("N", false), Crossing::Open);
        assert_eq!(seam.take("D of", false), Crossing::Stop);
        let mut seam = Seam::new("and E", &stops);
        assert_eq!(seam.take("N", false), Crossing::Open);
        assert_eq!(seam.take("tails", false), Crossing::Clear);
        assert_eq!(Seam::new("line\n", &stops).take("\nnext", false), Crossing::Stop);
        assert_eq!(Seam::new("line", &stops).take("\n\n", false), Crossing::Clear, "the server's own to see");
        assert_eq!(Seam::new("and E", &stops).take("N", true), Crossing::Clear);
        let mut seam = Seam::new("E", &stops);
        assert_eq!(seam.take("", false), Crossing::Open);
        assert_eq!(seam.take("", true), Crossing::Clear);
    }

    proptest! {
        /// However the text is cut, a stop is found exactly where one lies across the seam, and what is held is short.
        #[test]
        fn a_seam_finds_what_lies_across_it_and_nothing_else(
            before in "[ab]{0,8}", after in "[ab]{0,8}", stops in prop::collection::vec("[ab]{1,5}", 0..4), cut in 0usize..4,
        ) {
            let whole = format!("{before}{after}");
            let crosses = stops.iter().any(|stop| {
                (0..whole.len()).any(|at| {
                    at < before.len() && at + stop.len() > before.len() && whole[at..].starts_with(stop.as_str())
                })
            });
            let mut seam = Seam::new(&before, &stops);
            let mut found = Crossing::Open;
            let pieces: Vec<&str> = if cut == 0 { vec![&after] } else { after.as_bytes().chunks(cut).map(|it| std::str::from_utf8(it).unwrap()).collect() };
            let longest = stops.iter().map(String::len).max().unwrap_or(0);
            let mut held = 0;
            for piece in pieces {
                if found == Crossing::Open {
                    found = seam.take(piece, false);
                    held = if found == Crossing::Open { held + piece.len() } else { 0 };
                    prop_assert!(held < longest.max(1));
                }
            }
            if found == Crossing::Open {
                found = seam.take("", true);
            }
            prop_assert_eq!(found == Crossing::Stop, crosses);
        }
    }
}
