//! `POST /node/v1/keys`: a node says which API key of its account it made. What it may is the store's to say.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use idlewatt_hub_core::openai::ApiError;
use idlewatt_protocol::node_key::NodeKey;
use idlewatt_protocol::receipt::Envelope;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::gateway::{Refusal, refusal};
use crate::hub::Hub;
use crate::store::NotKeptKey;

/// Longest statement, bytes; one has some 600.
const MOST: usize = 4096;
/// It must be here by then.
const WHOLE: Duration = Duration::from_secs(20);
/// When to try again where the disk refused.
const AGAIN: Duration = Duration::from_secs(30);

pub(crate) async fn take(State(hub): State<Arc<Hub>>, request: Request) -> Result<Json<Value>, Refusal> {
    let body = timeout(WHOLE, to_bytes(request.into_body(), MOST)).await;
    let Ok(Ok(body)) = body else {
        return Err(refusal(413, "too_large", "The statement is longer than 4 KiB, or was not sent whole."));
    };
    let envelope: Option<Envelope> = serde_json::from_slice(&body).ok();
    let said = envelope.and_then(|it| Some((it.keyid, NodeKey::open(&it).ok()?)));
    let Some((node, key)) = said.filter(|(_, key)| key.hub == hub.key) else {
        let words =
            "This is no statement of a node about its key for this hub. `idlewatt` makes and sends one.";
        return Err(refusal(400, "bad_statement", words));
    };
    let holds = key.holds;
    match hub.store.keep_node_key(node, key).await {
        Ok(Ok(account)) => {
            tracing::info!(node = %node.short(), %account, holds, "a node's key of its account");
            Ok(Json(json!({ "account": account })))
        }
        Ok(Err(why)) => Err(not_kept(why)),
        Err(error) => {
            tracing::error!(node = %node.short(), %error, "a node's key could not be kept");
            Err(ApiError::unavailable("The hub cannot write to its disk now. Try again later.", AGAIN).into())
        }
    }
}

fn not_kept(why: NotKeptKey) -> Refusal {
    let (status, code, words) = match why {
        NotKeptKey::UnknownNode => (
            403,
            "unknown_node",
            "Only nodes that joined this hub have an account here. Join it with an invite first.",
        ),
        NotKeptKey::MayNotSpend => (
            403,
            "may_not_spend",
            "This node was let in to earn, not to spend its account's credits. Ask the hub's operator for an invite that lets \
             it, and join again.",
        ),
        NotKeptKey::Spent => {
            (409, "key_revoked", "This key was revoked, or is not this node's. Make another one.")
        }
        NotKeptKey::TooMany => (
            409,
            "too_many_keys",
            "This node has made 100 keys here; that is the most. Join again with a new invite.",
        ),
    };
    refusal(status, code, words)
}
