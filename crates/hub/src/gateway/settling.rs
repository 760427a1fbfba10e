//! After the last byte: waits for the node's statement, judges it, and has the store bill, sign and keep the receipt.

use std::sync::Arc;

use idlewatt_hub_core::session::Breach;
use idlewatt_hub_core::settle::{Delivered, believe};
use idlewatt_protocol::limits::STATEMENT_TIMEOUT;
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{Artefact, Digest, Joined, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::hub::{Hub, Word};
use crate::node::Link;
use crate::store::{Reservation, SegmentFacts, Settlement};

/// Everything that a settlement needs of an answer that is over.
pub(super) struct Settling {
    pub(super) hub: Arc<Hub>,
    pub(super) request: RequestId,
    pub(super) reservation: Reservation,
    pub(super) model: String,
    pub(super) salt: Nonce,
    pub(super) request_commitment: Digest,
    pub(super) price: Price,
    pub(super) started: UnixMillis,
    pub(super) node: PublicKey,
    pub(super) artefact: Artefact,
    pub(super) link: Arc<Link>,
    pub(super) is_lost: bool,
    pub(super) statement: Option<oneshot::Receiver<Word>>,
    pub(super) delivered: Delivered,
}

/// Settles one answer. Runs to its end whoever goes away meanwhile.
pub(super) async fn settle(mut settling: Settling) {
    let word = settling.word().await;
    let Settling { hub, request, delivered, .. } = &settling;
    let (hub, request) = (Arc::clone(hub), *request);
    let believed = match word {
        Ok(Ok((envelope, statement))) => match believe(&statement, request, delivered) {
            Ok(Ok(())) => Ok((envelope, statement)),
            Ok(Err(why)) => Err((delivered.counted(), why.to_owned())),
            Err(breach) => {
                hub.cut_off(&settling.link, &breach);
                Err(worthless(&breach))
            }
        },
        Ok(Err(breach)) => Err(worthless(&breach)),
        Err(why) => Err((delivered.counted(), why.to_owned())),
    };
    let (usage, statement) = match believed {
        Ok((envelope, statement)) => {
            hub.metrics.settled(statement.usage, Some(&statement));
            (statement.usage, Signed::Signed(envelope))
        }
        Err((usage, why)) => {
            hub.metrics.settled(usage, None);
            tracing::info!(%request, node = %settling.node.short(), why, "settled without a statement");
            (usage, Signed::Unsigned(why))
        }
    };
    let settlement = Settlement {
        reservation: settling.reservation,
        model: settling.model,
        endpoint: settling.delivered.endpoint,
        outcome: settling.delivered.outcome,
        salt: settling.salt,
        request_commitment: settling.request_commitment,
        response_commitment: settling.delivered.tally.commitment(),
        segments: vec![SegmentFacts {
            node: settling.node,
            artefact: settling.artefact,
            joined: Joined::Single,
            usage,
            statement,
        }],
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

impl Settling {
    /// The node's word, or why there is none.
    async fn word(&mut self) -> Result<Word, &'static str> {
        let Some(mut word) = self.statement.take() else { return Err("no statement came") };
        if self.is_lost {
            return word.try_recv().map_err(|_| "node lost");
        }
        match timeout(STATEMENT_TIMEOUT, word).await {
            Ok(Ok(word)) => Ok(word),
            Ok(Err(_)) | Err(_) => Err("no statement came in time"),
        }
    }
}

/// The answer was given, so it has its receipt; a node that broke the protocol is paid nothing for it.
fn worthless(breach: &Breach) -> (Usage, String) {
    (Usage::NONE, format!("refused: {breach}"))
}
