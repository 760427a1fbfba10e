//! An answer that broke off after its first token, and what another node needs to go on with it as if nothing had happened.

use std::sync::Arc;

use bytes::Bytes;
use idlewatt_hub_core::continuing::{Seam, Told};
use idlewatt_hub_core::openai::Validated;
use idlewatt_hub_core::routing::{Choice, Wanted};
use idlewatt_hub_core::session::Most;
use idlewatt_hub_core::settle::{Delivered, Tally};
use idlewatt_protocol::continuation::Prefix;
use idlewatt_protocol::limits::MAX_REQUEST_BODY;
use idlewatt_protocol::{Artefact, Capabilities, Continuation, Joined, Price, PublicKey, Usage};
use tokio::sync::oneshot;

use crate::hub::Word;
use crate::node::Link;

/// Parts of one answer. Each costs a statement in its receipt, and a prompt that somebody reads anew.
const MOST_PARTS: usize = 8;

/// One node's part of an answer, as far as it was delivered.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) node: PublicKey,
    pub(super) artefact: Artefact,
    pub(super) link: Arc<Link>,
    /// The session broke off: no statement will come in time.
    pub(super) is_lost: bool,
    /// Its statement, once.
    pub(super) statement: Option<oneshot::Receiver<Word>>,
    pub(super) delivered: Delivered,
    /// Tokens as the node said them at its end, or as the hub counts them.
    pub(super) usage: Usage,
}

/// The parts so far.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) parts: Vec<Part>,
    /// What was delivered, all parts.
    pub(super) told: Told,
    /// Over the text of all parts.
    pub(super) whole: Tally,
    /// As agreed with the first node: no part costs more.
    pub(super) price: Price,
    /// What began it, and nothing else may go on.
    pub(super) artefact: Artefact,
    /// The most tokens of the whole answer.
    pub(super) max_tokens: u32,
    /// Whether the answer's own end was delivered, and only what follows it is missing.
    pub(super) is_finished: bool,
}

/// An answer as far as it matters for who may go on with it.
#[derive(Debug)]
pub(super) struct Continuable<'a> {
    pub(super) told: &'a Told,
    pub(super) parts: usize,
    pub(super) artefact: &'a Artefact,
    pub(super) price: Price,
}

impl Continuable<'_> {
    /// Who may: the same artefact at no higher price, seen to continue; by ids where they are known, and who else should
    /// nobody do that. `None` when nobody may.
    pub(super) fn wanted(&self, asked: &Wanted) -> Option<(Wanted, Option<Wanted>)> {
        if !self.told.can_go_on() || self.parts >= MOST_PARTS {
            return None;
        }
        let model = match self.artefact.digest {
            Some(digest) => format!("{}@{digest}", self.artefact.model),
            None => self.artefact.name(),
        };
        let from = |continuation| Wanted {
            model: model.clone(),
            needs: Capabilities { continuation, ..asked.needs },
            max_price: Some(self.price),
            ..asked.clone()
        };
        Some(match ids_of(self.told, self.artefact) {
            [] => (from(Continuation::Text), None),
            _ => (from(Continuation::Ids), Some(from(Continuation::Text))),
        })
    }
}

/// The token ids that mean the same to another node with this artefact: none where only its name is known, because files of
/// one name may count their tokens otherwise.
fn ids_of<'a>(told: &'a Told, artefact: &Artefact) -> &'a [u32] {
    if artefact.digest.is_some() { told.ids() } else { &[] }
}

/// What one more node is asked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) most: Most,
    pub(super) body: Bytes,
    pub(super) prefix: Option<Prefix>,
}

impl Begun {
    /// Tokens that the answer may still have.
    pub(super) fn remaining(&self) -> u32 {
        self.max_tokens.saturating_sub(self.told.tokens())
    }

    /// The prompt of the first part, and the completions of all.
    pub(super) fn usage(&self) -> Usage {
        let mut parts = self.parts.iter().map(|part| part.usage);
        let first = parts.next().unwrap_or(Usage::NONE);
        parts.fold(first, |sum, part| Usage {
            completion: sum.completion.saturating_add(part.completion),
            ..sum
        })
    }

    /// Whether this node may go on: it has what began, was seen to continue, and asks no more. A name finds others too.
    pub(super) fn admits(&self, choice: &Choice) -> bool {
        let offer = &choice.offer;
        let (it, begun) = (&offer.artefact, &self.artefact);
        (&it.model, &it.quantisation, it.digest) == (&begun.model, &begun.quantisation, begun.digest)
            && offer.capabilities.continuation >= Continuation::Text
            && (choice.own || offer.price <= self.price)
    }

    /// What to ask of this node; `None` when it may not go on, or the request does not fit the protocol with what was
    /// delivered.
    pub(super) fn plan(&self, asked: &Validated, choice: &Choice) -> Option<Plan> {
        if !self.admits(choice) {
            return None;
        }
        let offer = &choice.offer;
        let remaining = self.remaining();
        let text = self.told.text();
        let takes_ids = offer.capabilities.continuation == Continuation::Ids;
        let ids = if takes_ids { ids_of(&self.told, &self.artefact) } else { &[] };
        let mut body = asked.forward_body(remaining);
        let prefix = Prefix::append(&mut body, text, ids);
        // One token a byte at most, of the prompt and of what was delivered.
        let read = asked.prompt_bound.saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        let most = Most { prompt: read.min(offer.context), completion: remaining };
        (body.len() <= MAX_REQUEST_BODY).then(|| Plan { most, body: body.into(), prefix: Some(prefix) })
    }

    pub(super) fn seam(&self, asked: &Validated) -> Seam {
        Seam::new(self.told.text(), &asked.stops)
    }

    /// How the next part is joined by this prefix.
    pub(super) fn joined(prefix: Option<&Prefix>) -> Joined {
        prefix.map_or(Joined::Single, Prefix::joined)
    }
}
