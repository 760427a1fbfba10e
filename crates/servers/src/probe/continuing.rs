//! Whether a server goes on with a partial answer: its own answers are cut, and what it makes of the beginning is laid beside
//! the rest. Latin text, characters of several bytes, and a cut before a line's end, which templates like to trim.

use idlewatt_core::answer::{Ending, PublicNames, Rewriting};
use idlewatt_core::work::{Head, Piece};
use idlewatt_protocol::continuation::IDS_MEMBER;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::usage::Reading;
use idlewatt_protocol::{Continuation, RequestId};
use serde_json::{Value, json};

use super::{Probing, REQUEST, chat, within};
use crate::{Begun, Call, ServerError};

/// Tokens of an answer that is cut.
const WHOLE: u32 = 24;
/// Tokens with which it is gone on.
const MORE: u32 = 4;
/// Characters that must be the same. A server that answers anew differs in the first. One that goes on may differ later: a
/// prompt is rounded otherwise than what was generated, and of two tokens that are almost as likely it takes the other.
const SAME: usize = 6;

/// A question, how its answer is cut, and what that shows.
struct Cut {
    question: &'static str,
    at: fn(&[Part]) -> Option<usize>,
    shows: &'static str,
    /// From its text it may go on otherwise: what several tokens make may be cut into other ones when it is read.
    by_ids: bool,
}

const CUTS: [Cut; 3] = [
    Cut {
        question: "Tell me a short story about a cat.",
        at: |parts| Some(parts.len() / 2),
        shows: "in the middle of a sentence",
        by_ids: false,
    },
    Cut {
        question: "Write this line three times, each on a line of its own: 你好，世界 😀🎉",
        at: |parts| parts.iter().position(|it| !it.text.is_ascii()).map(|at| at + 1),
        shows: "between characters of several bytes",
        by_ids: true,
    },
    Cut {
        question: "Write a shopping list of five things, one a line.",
        at: |parts| parts.iter().skip(1).position(|it| it.text.starts_with('\n')).map(|at| at + 1),
        shows: "before the end of a line",
        by_ids: false,
    },
];

/// What one event of an answer adds.
struct Part {
    text: String,
    ids: Option<Vec<u32>>,
}

impl Probing<'_> {
    /// How it goes on; what it does not do is noted.
    pub(super) async fn goes_on(&self, notes: &mut Vec<String>) -> Continuation {
        let mut can = Continuation::Ids;
        for cut in CUTS {
            let seen = self.goes_on_after(&cut).await.unwrap_or_else(|error| {
                notes.push(format!("a partial answer is not gone on with: {error}"));
                Some(Continuation::None)
            });
            let Some(seen) = seen else {
                notes.push(format!("going on {} was not seen: the answer has no such place", cut.shows));
                continue;
            };
            if seen < can {
                notes.push(format!("an answer cut {} goes on {}", cut.shows, by(seen)));
            }
            can = can.min(if cut.by_ids { seen.max(Continuation::Text) } else { seen });
            if can == Continuation::None {
                break;
            }
        }
        can
    }

    /// `None` where the answer has no place for this cut.
    async fn goes_on_after(&self, cut: &Cut) -> Result<Option<Continuation>, ServerError> {
        let parts = self.answer(cut.question, None, WHOLE).await?;
        let at = (cut.at)(&parts).filter(|at| (1..parts.len()).contains(at));
        let Some((before, after)) = at.map(|at| parts.split_at(at)) else { return Ok(None) };
        let (text, rest) = (joined(before), joined(after));
        let ids: Option<Vec<Vec<u32>>> = before.iter().map(|it| it.ids.clone()).collect();
        let mut can = Continuation::None;
        for ids in [vec![], ids.unwrap_or_default().concat()] {
            let by = if ids.is_empty() { Continuation::Text } else { Continuation::Ids };
            if by > can && (by == Continuation::Text || !ids.is_empty()) {
                let begun = Begun { text: &text, ids: &ids };
                let more = self.answer(cut.question, Some(begun), MORE).await;
                if more.is_ok_and(|it| is_same(&joined(&it), &rest)) {
                    can = by;
                }
            }
        }
        Ok(Some(can))
    }

    /// The parts of an answer as a hub would see them.
    async fn answer(
        &self,
        question: &str,
        begun: Option<Begun<'_>>,
        most: u32,
    ) -> Result<Vec<Part>, ServerError> {
        let body = chat(question, json!({"stream": true})).to_string();
        let call = Call { ids: true, begun, ..Call::new(Endpoint::ChatCompletions, body.as_bytes(), most) };
        let mut answer = within(REQUEST, self.server.call(self.model, call)).await?;
        if answer.status != 200 || !answer.streaming {
            return Err(ServerError::Nonsense("an error status"));
        }
        let names = PublicNames::new(RequestId([0; 16]), Endpoint::ChatCompletions, &self.model.artefact);
        let head = Head { status: 200, streaming: true };
        let mut rewriting = Rewriting::new(names, Endpoint::ChatCompletions, head, body.len()).telling_ids();
        let mut parts = Vec::new();
        loop {
            if let Some(piece) = rewriting.next_piece() {
                parts.extend(part(piece)?);
            } else if let Some(text) = rewriting.text_without_ids() {
                let ids = self.server.ids_of(self.model, text).await;
                rewriting.learn(ids);
            } else if let Some(ending) = rewriting.ending() {
                let whole = ending == Ending::Complete;
                return if whole { Ok(parts) } else { Err(ServerError::BrokenOff) };
            } else {
                match within(REQUEST, answer.chunk()).await? {
                    Some(bytes) => rewriting.push(&bytes),
                    None => rewriting.close(),
                }
            }
        }
    }
}

fn part(piece: Piece) -> Result<Option<Part>, ServerError> {
    let json = piece.bytes.strip_prefix(b"data: ").unwrap_or_default();
    if Reading::of(json).is_some_and(|it| it.hidden) {
        return Err(ServerError::Nonsense("it thinks before it answers"));
    }
    let event: Value = serde_json::from_slice(json).unwrap_or_default();
    let ids = event.get(IDS_MEMBER).and_then(|ids| serde_json::from_value(ids.clone()).ok());
    Ok((!piece.text.is_empty()).then_some(Part { text: piece.text, ids }))
}

fn joined(parts: &[Part]) -> String {
    parts.iter().map(|it| it.text.as_str()).collect()
}

/// Whether what came is the rest, as far as both go.
fn is_same(came: &str, rest: &str) -> bool {
    !came.is_empty() && came.chars().zip(rest.chars()).take(SAME).all(|(came, rest)| came == rest)
}

const fn by(seen: Continuation) -> &'static str {
    match seen {
        Continuation::None => "otherwise",
        Continuation::Text => "as it would have from its text only",
        Continuation::Ids => "as it would have",
    }
}
