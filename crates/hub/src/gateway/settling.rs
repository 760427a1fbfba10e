//! After the last byte: waits for the nodes' statements, judges each, and has the store bill, sign and keep the receipt.

use std::sync::Arc;

use idlewatt_hub_core::session::Breach;
use idlewatt_hub_core::settle::{believe, measured};
use idlewatt_protocol::limits::STATEMENT_TIMEOUT;
use idlewatt_protocol::message::{Endpoint, Outcome};
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{Digest, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage};
use tokio::time::{Instant, timeout_at};

use super::begun::Part;
use crate::hub::{Hub, Word, now};
use crate::store::{Reservation, SegmentFacts, Settlement};

/// Everything that a settlement needs of an answer that is over.
pub(super) struct Settling {
    pub(super) hub: Arc<Hub>,
    pub(super) request: RequestId,
    pub(super) reservation: Reservation,
    pub(super) model: String,
    pub(super) endpoint: Endpoint,
    pub(super) outcome: Outcome,
    pub(super) salt: Nonce,
    pub(super) request_commitment: Digest,
    /// Over the text of all parts.
    pub(super) response_commitment: Digest,
    pub(super) price: Price,
    pub(super) started: UnixMillis,
    /// In the order of delivery; at least one.
    pub(super) parts: Vec<Part>,
    /// Who got the request too and delivered nothing.
    pub(super) also_asked: Vec<PublicKey>,
}

/// Settles one answer. Runs to its end whoever goes away meanwhile.
pub(super) async fn settle(settling: Settling) {
    let Settling { hub, request, .. } = &settling;
    let (hub, request) = (Arc::clone(hub), *request);
    let until = Instant::now() + STATEMENT_TIMEOUT;
    let mut segments = Vec::with_capacity(settling.parts.len());
    for part in settling.parts {
        segments.push(segment(&hub, request, part, settling.started, until).await);
    }
    let settlement = Settlement {
        reservation: settling.reservation,
        model: settling.model,
        endpoint: settling.endpoint,
        outcome: settling.outcome,
        salt: settling.salt,
        request_commitment: settling.request_commitment,
        response_commitment: settling.response_commitment,
        segments,
        also_asked: settling.also_asked,
        price: settling.price,
        verification: "declared".into(),
        started: settling.started,
    };
    match hub.store.settle(settlement).await {
        Ok(settled) => hub.tell_posted(settled),
        Err(error) => tracing::error!(%request, %error, "a request could not be settled"),
    }
    hub.close(request);
}

/// One part with its node's word, where that can be believed.
async fn segment(
    hub: &Arc<Hub>,
    request: RequestId,
    mut part: Part,
    started: UnixMillis,
    until: Instant,
) -> SegmentFacts {
    let word = word(&mut part, until).await;
    let Part { node, artefact, link, delivered, .. } = part;
    let believed = match word {
        Ok(Ok((envelope, statement))) => match believe(&statement, request, &delivered) {
            Ok(Ok(())) => Ok((envelope, statement)),
            Ok(Err(why)) => Err((delivered.counted(), why.to_owned())),
            Err(breach) => {
                hub.cut_off(&link, &breach);
                Err(worthless(&breach))
            }
        },
        Ok(Err(breach)) => Err(worthless(&breach)),
        Err(why) => Err((delivered.counted(), why.to_owned())),
    };
    let (usage, statement) = match believed {
        Ok((envelope, statement)) => {
            hub.metrics.settled(statement.usage, true, measured(&statement.energy, started, now()));
            (statement.usage, Signed::Signed(envelope))
        }
        Err((usage, why)) => {
            hub.metrics.settled(usage, false, None);
            tracing::info!(%request, node = %node.short(), why, "settled without a statement");
            (usage, Signed::Unsigned(why))
        }
    };
    SegmentFacts { node, artefact, joined: delivered.joined, usage, statement }
}

/// The node's word, or why there is none.
async fn word(part: &mut Part, until: Instant) -> Result<Word, &'static str> {
    let Some(mut word) = part.statement.take() else { return Err("no statement came") };
    if part.is_lost {
        return word.try_recv().map_err(|_| "node lost");
    }
    match timeout_at(until, word).await {
        Ok(Ok(word)) => Ok(word),
        Ok(Err(_)) | Err(_) => Err("no statement came in time"),
    }
}

/// The answer was given, so it has its receipt; a node that broke the protocol is paid nothing for it.
fn worthless(breach: &Breach) -> (Usage, String) {
    (Usage::NONE, format!("refused: {breach}"))
}
