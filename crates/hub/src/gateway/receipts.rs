//! `GET /v1/receipts/{id}`: the consumer's own receipt, with its salt.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use idlewatt_hub_core::openai::ApiError;
use idlewatt_protocol::RequestId;
use idlewatt_protocol::limits::STATEMENT_TIMEOUT;
use idlewatt_protocol::receipt::ReceiptFile;
use tokio::time::timeout;

use super::error::Refusal;
use super::{authenticate, refusal};
use crate::hub::Hub;

pub(super) async fn one(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<ReceiptFile>, Refusal> {
    let consumer = authenticate(&hub, &headers)?;
    let missing = || {
        refusal(
            404,
            "receipt_not_found",
            "This account has no receipt of this id. A request that is still being answered gets its receipt within \
             two seconds of its last byte; one that delivered nothing gets none.",
        )
    };
    let Ok(id) = id.parse::<RequestId>() else { return Err(missing()) };
    if let Some(over) = hub.over(id, &consumer.account) {
        // Past this the answer is still on its way: the store says so below.
        let _ = timeout(STATEMENT_TIMEOUT, over.cancelled()).await;
    }
    match hub.store.receipt(id, &consumer.account).await {
        Ok(Some(file)) => Ok(Json(file)),
        Ok(None) => Err(missing()),
        Err(error) => {
            tracing::error!(request = %id, %error, "a receipt could not be read");
            Err(ApiError::unavailable("The hub could not read its receipts.", STATEMENT_TIMEOUT).into())
        }
    }
}
