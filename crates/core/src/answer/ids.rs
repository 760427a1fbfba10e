//! Which token ids make exactly the text of each event.
//!
//! A server names one token an event, and keeps text back until it is whole: of a character that several tokens make, or of
//! what might be a stop string, only the last is named. Its own count of tokens shows that some are missing. They are
//! looked up then, and believed only where their number and the last of them agree. Once anything disagrees there are
//! no ids any more: a wrong one would make another answer, none at all only a less exact one.

use super::Said;

/// The ids of one answer.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Tokens whose ids have been told, or wait for their text.
    counted: u32,
    /// Ids of text that the server has not sent yet.
    held: Vec<u32>,
    missing: Option<Missing>,
    unusable: bool,
}

/// Tokens of one event that are known by their number and their last one only.
#[derive(Debug)]
struct Missing {
    tokens: usize,
    last: u32,
    found: Option<Vec<u32>>,
}

/// What is known of an event's ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It adds no text, or its ids are not to be had.
    Nothing,
    /// All of them.
    All(Vec<u32>),
    /// Some; the others must be looked up.
    InPart,
}

impl Ids {
    /// What is known of the ids of the event that says this.
    pub(super) fn of(&mut self, said: &Said) -> Told {
        if self.unusable || !said.generated && said.tokens.is_empty() {
            return Told::Nothing;
        }
        let named = said.tokens.iter().flat_map(|it| it.bytes.iter().copied());
        if said.hidden || !named.eq(said.text.bytes()) {
            return self.give_up();
        }
        self.held.extend(said.tokens.iter().map(|it| it.id));
        if said.text.is_empty() {
            return Told::Nothing;
        }
        let told = self.held.len();
        let Some(timings) = said.timings else { return self.give_up() };
        let Some(new) =
            timings.predicted_n.checked_sub(self.counted).and_then(|new| usize::try_from(new).ok())
        else {
            return self.give_up();
        };
        self.counted = timings.predicted_n;
        let held = std::mem::take(&mut self.held);
        match held.last() {
            Some(_) if new == told => Told::All(held),
            Some(last) if new > told => {
                self.missing = Some(Missing { tokens: new, last: *last, found: None });
                Told::InPart
            }
            _ => self.give_up(),
        }
    }

    /// Takes what was looked up for the missing ones.
    pub(super) fn learn(&mut self, ids: Option<Vec<u32>>) {
        let Some(missing) = &mut self.missing else { return };
        missing.found = ids.filter(|it| it.len() == missing.tokens && it.last() == Some(&missing.last));
        self.unusable |= missing.found.is_none();
    }

    /// The ids of the event for which some were missing.
    pub(super) fn learned(&mut self) -> Told {
        match self.missing.take() {
            Some(Missing { found: Some(ids), .. }) => Told::All(ids),
            Some(missing) if !self.unusable => {
                self.missing = Some(missing);
                Told::InPart
            }
            _ => Told::Nothing,
        }
    }

    fn give_up(&mut self) -> Told {
        self.unusable = true;
        self.held = Vec::new();
        Told::Nothing
    }
}

#[cfg(test)]
mod tests {
    use idlewatt_protocol::usage::ServerTimings;

    use super::super::json::Token;
    use super::*;

    /// An event that adds `text`, names these tokens for it and counts so many.
    fn said(text: &str, tokens: &[(u32, &str)], predicted: u32) -> Said {
        Said {
            text: text.to_owned(),
            generated: !text.is_empty(),
            timings: Some(ServerTimings { predicted_n: predicted, ..ServerTimings::default() }),
            tokens: tokens
                .iter()
                .map(|(id, text)| Token { id: *id, bytes: text.as_bytes().to_vec() })
                .collect(),
            ..Said::default()
        }
    }

    #[test]
    fn a_token_an_event_is_told_as_it_comes_and_one_that_is_held_back_with_its_text() {
        let mut ids = Ids::default();
        assert_eq!(ids.of(&said("He", &[(7, "He")], 1)), Told::All(vec![7]));
        assert_eq!(ids.of(&said("", &[(8, "")], 2)), Told::Nothing);
        assert_eq!(ids.of(&said("llo", &[(9, "llo")], 3)), Told::All(vec![8, 9]));
    }

    #[test]
    fn the_tokens_of_a_character_are_looked_up_and_believed_where_count_and_last_agree() {
        for (found, wanted) in [
            (Some(vec![1, 2, 3]), Told::All(vec![1, 2, 3])),
            (Some(vec![2, 3]), Told::Nothing),
            (Some(vec![1, 2, 4]), Told::Nothing),
            (None, Told::Nothing),
        ] {
            let mut ids = Ids::default();
            assert_eq!(ids.of(&said("😀", &[(3, "😀")], 3)), Told::InPart);
            assert_eq!(ids.learned(), Told::InPart, "until it is known");
            ids.learn(found.clone());
            assert_eq!(ids.learned(), wanted);
            let next = if wanted == Told::Nothing { Told::Nothing } else { Told::All(vec![5]) };
            assert_eq!(ids.of(&said("a", &[(5, "a")], 4)), next, "{found:?}");
        }
    }

    #[test]
    fn a_count_that_disagrees_or_a_text_that_is_not_its_tokens_ends_it_for_good() {
        for bad in [said("b", &[(2, "b")], 1), said("b", &[(2, "c")], 2), said("b", &[], 2)] {
            let mut ids = Ids::default();
            assert_eq!(ids.of(&said("a", &[(1, "a")], 1)), Told::All(vec![1]));
            assert_eq!(ids.of(&bad), Told::Nothing);
            assert_eq!(ids.of(&said("d", &[(4, "d")], 4)), Told::Nothing);
        }
    }
}
