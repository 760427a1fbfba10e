//! The open table of energy a token: reports come in signed, and go out as CSV, JSON and as they were signed. The page
//! is [`crate::pages::energy`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use idlewatt_hub_core::openai::ApiError;
use idlewatt_protocol::Digest;
use idlewatt_protocol::bench::{BenchReport, COLUMNS, csv_line};
use idlewatt_protocol::limits::MAX_BENCH_BYTES;
use idlewatt_protocol::receipt::Envelope;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::error::Refusal;
use super::refusal;
use crate::hub::Hub;
use crate::pages::day;
use crate::store::{Keeping, KeptReport, MAX_REPORTS, StoreError};

/// A whole report must be here by then.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);
/// When to try again where the disk refused.
const AGAIN: Duration = Duration::from_secs(30);

/// `POST /energy/reports`: takes a report of a node that joined this hub. The signature is the only proof asked for:
/// whoever passes a signed report on does no harm, and the same report is kept once.
pub(super) async fn take(State(hub): State<Arc<Hub>>, request: Request) -> Result<Response, Refusal> {
    let body = timeout(REPORT_TIMEOUT, to_bytes(request.into_body(), MAX_BENCH_BYTES)).await;
    let Ok(Ok(body)) = body else {
        return Err(refusal(
            413,
            "report_too_large",
            "The report is longer than 128 KiB, or was not sent whole.",
        ));
    };
    let envelope: Envelope = serde_json::from_slice(&body).map_err(|_| {
        refusal(
            400,
            "bad_report",
            "This is no signed report. `idlewatt bench --publish` makes and sends one.",
        )
    })?;
    BenchReport::open(&envelope)
        .map_err(|error| refusal(400, "bad_report", &format!("The report is not believed: {error}.")))?;
    if hub.store.account_of(&envelope.keyid).is_none() {
        return Err(refusal(
            403,
            "unknown_node",
            "Only nodes that joined this hub publish here. Join it with an invite, then publish again.",
        ));
    }
    let signer = envelope.keyid;
    match hub.store.keep_report(envelope).await {
        Ok((_, Keeping::TooMany)) => {
            let words = format!("This node published {MAX_REPORTS} reports here already; that is the most.");
            Err(refusal(409, "too_many_reports", &words))
        }
        Ok((id, keeping)) => {
            tracing::info!(node = %signer.short(), report = %id, ?keeping, "a bench report");
            let status = if keeping == Keeping::New { StatusCode::CREATED } else { StatusCode::OK };
            let links = json!({ "id": id, "report": path(&id), "page": "/energy" });
            Ok((status, Json(links)).into_response())
        }
        Err(error) => Err(failed(&error)),
    }
}

/// `GET /energy/reports/{id}`: the envelope as it came.
pub(super) async fn one(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
) -> Result<Json<Envelope>, Refusal> {
    let missing =
        || refusal(404, "report_not_found", "There is no report of this id. GET /energy lists all.");
    let id: Digest = format!("sha256:{id}").parse().map_err(|_| missing())?;
    let envelope = hub.store.report(id).await.map_err(|error| failed(&error))?;
    envelope.map(Json).ok_or_else(missing)
}

/// `GET /energy.csv`: a row a power limit, newest report first.
pub(super) async fn csv(State(hub): State<Arc<Hub>>) -> Result<Response, Refusal> {
    let reports = hub.store.reports().await.map_err(|error| failed(&error))?;
    let mut text = csv_line(["began (UTC)", "signed by"].into_iter().chain(COLUMNS).chain(["report"]));
    for kept in reports.iter() {
        let (began, signer) = (day(kept.report.started), kept.signer.to_string());
        for row in kept.report.rows() {
            let cells = [began.clone(), signer.clone()].into_iter().chain(row);
            text.push_str(&csv_line(cells.chain([path(&kept.id)])));
        }
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"energy.csv\"")),
    ];
    Ok((headers, text).into_response())
}

/// `GET /energy.json`: the reports, newest first.
pub(super) async fn json(State(hub): State<Arc<Hub>>) -> Result<Json<Value>, Refusal> {
    let reports = hub.store.reports().await.map_err(|error| failed(&error))?;
    let entry = |kept: &KeptReport| {
        json!({
            "id": kept.id,
            "received": kept.received,
            "signer": kept.signer,
            "envelope": path(&kept.id),
            "report": kept.report,
        })
    };
    let units = json!({
        "started": "ms since 1970-01-01 UTC", "cap_mw": "mW", "mean_mw": "mW", "peak_mw": "mW", "temperature_c": "°C",
        "milli_tokens_per_s": "tokens/s × 1000", "uj_per_token": "µJ/token",
        "error_uj": "µJ/token, half width of the 95 % interval",
    });
    Ok(Json(json!({ "units": units, "reports": reports.iter().map(entry).collect::<Vec<_>>() })))
}

/// Where a report's envelope is.
pub(crate) fn path(id: &Digest) -> String {
    format!("/energy/reports/{}", id.to_string().trim_start_matches("sha256:"))
}

pub(crate) fn failed(error: &StoreError) -> Refusal {
    tracing::error!(%error, "reports could not be kept or read");
    ApiError::unavailable("The hub could not use its database.", AGAIN).into()
}
