//! After the last byte: waits for the node's statement, judges it, and has the store bill, sign and keep the receipt.

use std::sync::Arc;

use idlewatt_hub_core::settle::{Delivered, believe};
use idlewatt_protocol::limits::STATEMENT_TIMEOUT;
use idlewatt_protocol::receipt::Signed;
use idlewatt_protocol::{Artefact, Digest, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::hub::{Hub, Signed as SignedStatement};
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
    /// `None` when the node is lost.
    pub(super) statement: Option<oneshot::Receiver<SignedStatement>>,
    pub(super) delivered: Delivered,
}

/// Settles one answer. Runs to its end whoever goes away meanwhile.
pub(super) async fn settle(mut settling: Settling) {
    let statement = settling.statement.take();
    let Settling { hub, request, delivered, .. } = &settling;
    let (hub, request) = (Arc::clone(hub), *request);
    let (usage, statement) = match statement {
        None => (counted(delivered), Err("node lost".to_owned())),
        Some(statement) => match timeout(STATEMENT_TIMEOUT, statement).await {
            Ok(Ok(signed)) => match believe(&signed.1, request, delivered) {
                Ok(Ok(())) => (signed.1.usage, Ok(signed)),
                Ok(Err(why)) => (counted(delivered), Err(why.to_owned())),
                Err(breach) => {
                    hub.metrics.breaches.add(1);
                    settling.link.cut_off(breach.refuse());
                    // A receipt that bills nothing: the answer was given, and this node's word for it is worth none.
                    (Usage::NONE, Err(format!("refused: {breach}")))
                }
            },
            Ok(Err(_)) | Err(_) => (counted(delivered), Err("no statement came in time".to_owned())),
        },
    };
    hub.metrics.settled(usage, statement.as_ref().ok().map(|(_, statement)| statement));
    let statement = match statement {
        Ok((envelope, _)) => Signed::Signed(envelope),
        Err(why) => {
            tracing::info!(%request, node = %settling.node.short(), why, "settled without a statement");
            Signed::Unsigned(why)
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
        segments: vec![SegmentFacts { node: settling.node, artefact: settling.artefact, usage, statement }],
        joined: "single".into(),
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

fn counted(delivered: &Delivered) -> Usage {
    delivered.tally.counted(delivered.body_bytes, delivered.most)
}
