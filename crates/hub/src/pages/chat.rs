//! `GET /chat` and `GET /join`: a page that makes a browser a client, on a telephone for example. Somebody opens it with
//! an invite behind the `#` of its address; the page asks, and then exchanges the invite's token for an API key that it
//! keeps. From there on it is a client of the API like any other.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use idlewatt_hub_core::openai::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{escape, with_scripts};
use crate::gateway::{Refusal, bearer, refusal};
use crate::hub::Hub;
use crate::store::{NotRedeemed, StoreError};

const PAGE: &str = include_str!("chat.html");

/// Longest body, bytes; an invite's token has at most 128.
const MOST: usize = 1024;
/// It must be here by then.
const WHOLE: Duration = Duration::from_secs(20);
/// When to try again where the disk refused.
const AGAIN: Duration = Duration::from_secs(30);

pub(crate) async fn page(State(hub): State<Arc<Hub>>) -> Response {
    with_scripts(PAGE.replace("{name}", &escape(&hub.name)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeem {
    token: String,
}

/// `POST /join/key`: an invite's token for a key.
pub(crate) async fn redeem(State(hub): State<Arc<Hub>>, request: Request) -> Result<Json<Value>, Refusal> {
    let Redeem { token } = take(request).await?;
    match hub.store.redeem_invite(token).await {
        Ok(Ok(made)) => {
            tracing::info!(account = %made.account, "a browser was let in with an invite");
            Ok(Json(json!({ "account": made.account, "key": made.key })))
        }
        Ok(Err(why)) => Err(not_redeemed(why)),
        Err(error) => Err(not_kept(&error)),
    }
}

/// `POST /join/forget`: ends the key that it is asked with.
pub(crate) async fn forget(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let key = bearer(&headers).ok_or_else(ApiError::invalid_api_key)?.to_owned();
    match hub.store.forget_key(key).await {
        Ok(true) => Ok(Json(json!({ "forgotten": true }))),
        Ok(false) => Err(ApiError::invalid_api_key().into()),
        Err(error) => Err(not_kept(&error)),
    }
}

/// A small JSON body. Only as JSON, which no form of another site can send.
pub(super) async fn take<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_none_or(|kind| kind.split(';').next().map(str::trim) != Some("application/json")) {
        return Err(refusal(415, "not_json", "This takes JSON only, with content-type application/json."));
    }
    let Ok(Ok(body)) = timeout(WHOLE, to_bytes(request.into_body(), MOST)).await else {
        return Err(refusal(413, "too_large", "The body is longer than 1 KiB, or was not sent whole."));
    };
    // Without the parser's words, which may repeat a secret.
    serde_json::from_slice(&body)
        .map_err(|_| refusal(400, "bad_body", "The body has not the form that GET /openapi.json tells."))
}

fn not_redeemed(why: NotRedeemed) -> Refusal {
    let (status, code, words) = match why {
        NotRedeemed::Unknown => (
            404,
            "invite_unknown",
            "This hub did not make this invite, or the link was altered or cut off. Copy the whole link, or ask for a new one.",
        ),
        NotRedeemed::Used => {
            (409, "invite_used", "This invite was used already; each works once. Ask for a new one.")
        }
        NotRedeemed::Expired => {
            (410, "invite_expired", "This invite has expired; each works for 24 hours. Ask for a new one.")
        }
        NotRedeemed::EarnOnly => (
            403,
            "invite_earns_only",
            "This invite lets a machine in to earn, and nobody to ask. Ask for one that lets you.",
        ),
    };
    refusal(status, code, words)
}

pub(super) fn not_kept(error: &StoreError) -> Refusal {
    tracing::error!(%error, "what a page asked for could not be kept");
    ApiError::unavailable("The hub cannot write to its disk now. Try again later.", AGAIN).into()
}
